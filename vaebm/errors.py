"""The one exception that means "the input was wrong, not the program"."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: one line that names the input, what was found, what was needed and the flag to change.

    Command lines print it as ``error: <message>`` on stderr, without a traceback, and exit with code 2.

    Attributes:
        everywhere: whether every process of a run raises it, so that the first is enough to print it.
    """

    everywhere = False


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of ``known`` (empty when nothing is near), then what is available."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Available: {', '.join(choices) or 'nothing'}."
