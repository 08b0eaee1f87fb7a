"""How wide and high a LaTeX table will be, by estimate: what fits side by side, and what needs several pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise


@dataclass(frozen=True)
class Page:
    """Where tables are to stand.

    Attributes:
        width, height: of the text, in points.
        place: where tables may float to.
        notes: type size of the text below a table.
    """

    width: float
    height: float
    place: str
    notes: str


PAPER = Page(345, 550, "tbp", "scriptsize")  # article at its defaults: narrower and lower than most
# A4 with margins of 2 cm. Its tables stand where they are: LaTeX gives up on a document of many floats and no text.
SHEET = Page(483, 728, "H", "footnotesize")

# Of article at 10 points: the width of a digit, the height of a line, how much higher it is in a table (so that an underline
# keeps clear of the next line), the gap between columns, the next smaller size.
DIGIT = {"footnotesize": 4.25, "scriptsize": 3.99, "tiny": 3.41}
LINE = {"footnotesize": 9.5, "scriptsize": 8.0, "tiny": 6.0}
STRETCH = {"footnotesize": 1.0, "scriptsize": 1.1}
GAP = {"footnotesize": 8, "scriptsize": 4}
SMALLER = {"footnotesize": "scriptsize", "scriptsize": "tiny"}

# Characters of Computer Modern by their width over that of a digit; other capitals are CAPITAL wide, the rest 1.
WIDTHS = {
    "ijl.,:;'`!|[]": 0.56,
    " -fI": 0.66,
    "()rst{}": 0.78,
    "cez": 0.89,
    "bdhnpqu": 1.11,
    "w+<>=": 1.5,
    "mMW%@–": 1.8,
}
WIDTH = {character: share for characters, share in WIDTHS.items() for character in characters}
CAPITAL = 1.42


def width(text: str, size: str) -> float:
    """Return how many points a text takes, to a few percent."""
    return DIGIT[size] * sum(WIDTH.get(c, CAPITAL if c.isupper() else 1.0) for c in text)


def panels(widths: Sequence[float], room: float) -> list[tuple[int, int]]:
    """Return (first, behind the last) column of each panel: as few as hold all columns, and about equally wide.

    A column wider than ``room`` gets a panel of its own.
    """
    count = len(_fill(widths, room))
    sums = sorted(b - a for a, b in combinations([0.0, *accumulate(widths)], 2))
    return next((found for limit in sums if len(found := _fill(widths, limit)) <= count), [(0, 0)])


def _fill(widths: Sequence[float], limit: float) -> list[tuple[int, int]]:
    edges, used = [0], 0.0
    for i, column in enumerate(widths):
        if i > edges[-1] and used + column > limit + 1e-6:
            edges.append(i)
            used = 0.0
        used += column
    return list(pairwise([*edges, len(widths)]))
