"""A board as a LaTeX table with booktabs, laid out as in the paper: a rule and an italic title before each block."""

import re
from collections.abc import Mapping
from itertools import pairwise

from leaderboards.board import Board
from leaderboards.render.numbers import EMPTY, Style, arrow, parts, rank_legend

JOINER = "\u2060"  # stands between two hyphens or dashes, which would make a longer one

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
    EMPTY: "--",
    JOINER: "{}",
}

MOST = 6  # columns side by side; a wider table goes on below
MARKS = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
ARROWS = (r"$\uparrow$", r"$\downarrow$")

HEAD = """\
% Needs \\usepackage{booktabs} and, for \\cite, a bibliography with references.bib.
% Written by benchmark.py: change the result files, not this table.
"""


def escape(text: str) -> str:
    """Return text that pdflatex prints as it is; what its default fonts lack is printed as its code, ``U+4E2D``."""
    return "".join(_character(c) for c in re.sub(f"([-{EMPTY}])(?=[-{EMPTY}])", rf"\1{JOINER}", " ".join(text.split())))


def _character(c: str) -> str:
    if c in ESCAPES:
        return ESCAPES[c]
    # Of the letters beyond ASCII, the default fonts have those of Latin-1 without the four of Icelandic.
    plain = " " <= c <= "~" or ("\u00c0" <= c <= "\u00ff" and c not in "×÷ÐðÞþ")
    return c if plain else f"U+{ord(c):04X}"


def to_latex(board: Board, style: Style | None = None) -> str:
    """Return a ``table`` environment, to be read with ``\\input``."""
    style = style or Style()
    reasons = board.reasons()
    panels = _panels(len(board.columns))
    span = 1 + max((stop - start for start, stop in panels), default=0)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(board.title)}.}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]', '-', board.name)}}}",  # a key, not text: only what is safe in one
        r"\footnotesize" if span <= 5 else r"\scriptsize",  # six columns with intervals must fit into one text width
        r"\setlength{\tabcolsep}{2.5pt}",
    ]
    for start, stop in panels:
        lines += [r"\par\medskip"] if start else []
        lines += _panel(board, style, reasons, start, stop)
    notes = [rf"\textsuperscript{{{number}}}~{escape(reason)}" for reason, number in reasons.items()]
    notes += [legend] if (legend := rank_legend(board, "Bold: ", "Underlined: ")) else []
    notes += [escape(note) for note in board.footnotes]
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\scriptsize\raggedright"]
        lines += ["\n\n".join(notes), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _panels(columns: int) -> list[tuple[int, int]]:
    """Return (first, behind the last) column of each panel: as few as hold them all, and about equally wide."""
    count = max(1, -(-columns // MOST))
    edges = [columns * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def _panel(board: Board, style: Style, reasons: Mapping[str, int], start: int, stop: int) -> list[str]:
    """Return the lines of a ``tabular`` of all rows and some columns."""
    span, columns = 1 + stop - start, board.columns[start:stop]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{'l' * span}@{{}}}}",
        r"\toprule",
        " & " + " & ".join(escape(column.title) + arrow(column, *ARROWS) for column in columns) + r" \\",
    ]
    for block in board.blocks:
        lines += [r"\midrule", rf"\multicolumn{{{span}}}{{@{{}}l}}{{\textit{{{escape(block.title)}}}}} \\"]
        for row in block.rows:
            label = (r"\quad " if row.nested else "") + escape(row.full_label)
            label += rf"~\cite{{{row.citation}}}" if row.citation else ""
            cells = []
            for column, cell in zip(columns, row.cells[start:stop], strict=True):
                number, interval = (_minus(part) for part in parts(cell, column, style))
                number = MARKS.get(cell.rank, "%s") % number
                note = rf"\textsuperscript{{{reasons[cell.note]}}}" if cell.note else ""
                bracket = rf"\,{{\tiny {interval}}}" if interval else ""
                cells.append(f"{number}{note}{bracket}")
            lines.append(f"{label} & " + " & ".join(cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _minus(number: str) -> str:
    return number.replace("-", "$-$").replace(EMPTY, "--")
