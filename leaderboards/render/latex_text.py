"""Text that pdflatex prints as it is, in its default fonts and with no package."""

import re

from leaderboards.render.numbers import EMPTY

JOINER = "\u2060"  # stands between two hyphens, dashes or commas, which some font would join
BREAK = "\u200b"  # where a long word may be broken
LONGEST_WORD = 30  # characters; paths and hashes are longer

ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%#_{}"},
    "$": r"\ensuremath{\$}",  # outside of mathematics it needs a font that small installations lack
    # These print as other characters in the default fonts or join into ligatures; "[" and "*" would be read as
    # arguments of the line break before them.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "`": "{`}",
    "'": "{'}",
    '"': r"\char34{}",  # a shorthand in German and other languages of babel
    EMPTY: "--",
    JOINER: "{}",
    BREAK: r"\allowbreak{}",
}


def escape(text: str) -> str:
    """Return text that pdflatex prints as it is; what its default fonts lack is printed as its code, ``U+4E2D``."""
    return "".join(ESCAPES.get(c, c) for c in printable(text))


def printable(text: str) -> str:
    """Return what :func:`escape` prints: in one line, in characters of the default fonts, with invisible marks."""
    text = "".join(map(_character, " ".join(text.split())))
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda match: _breakable(match[0]), text)
    return re.sub(f"([-{EMPTY},])(?=[-{EMPTY},])", rf"\1{JOINER}", text)


def _character(c: str) -> str:
    # Of the letters beyond ASCII, the default fonts have those of Latin-1 without the four of Icelandic.
    latin = "\u00c0" <= c <= "\u00ff" and c not in "×÷ÐðÞþ"
    return c if " " <= c <= "~" or latin or c == EMPTY else f"U+{ord(c):04X}"


def _breakable(word: str) -> str:
    """Allow a break behind a sign, or where there is none for long."""
    return re.sub(rf"([/_.:;,=-]|[^/_.:;,=-]{{{LONGEST_WORD}}})(?=.)", rf"\1{BREAK}", word)
