"""The rows and columns of a LaTeX table: what each cell prints, how wide that is, and any columns of it as ``tabular``."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from leaderboards.board import Board, Row
from leaderboards.render.latex_text import escape, printable
from leaderboards.render.layout import GAP, SMALLER, width
from leaderboards.render.numbers import EMPTY, Style, arrow, parts

MARKS = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
ARROWS = (r"$\uparrow$", r"$\downarrow$")
LONGEST_LABEL, LONGEST_HEADING = 50, 18  # characters in a line


@dataclass(frozen=True)
class Panel:
    """Some columns of a table as LaTeX: how they are aligned, the line of headings, the lines of blocks and rows."""

    columns: str
    heading: str
    body: list[str]


class Grid:
    """What a table prints.

    Attributes:
        headings, labels: lines of every column's heading and of every row's label.
        cells: (number, interval, number of the note) of every cell, row by row.
        aside: whether anything stands behind a number: it then gets a column of its own, so that the points of the
            numbers stand below each other.
    """

    def __init__(self, board: Board, style: Style) -> None:
        reasons = board.reasons()
        note = lambda cell: str(reasons[cell.note]) if cell.note else ""
        self.board = board
        self.rows = [row for block in board.blocks for row in block.rows]
        self.headings = [_wrap(column.title, LONGEST_HEADING) for column in board.columns]
        self.labels = [_wrap(row.full_label, LONGEST_LABEL) for row in self.rows]
        self.cells = [
            [(*parts(cell, column, style), note(cell)) for column, cell in zip(board.columns, row.cells, strict=True)]
            for row in self.rows
        ]
        self.aside = any(interval or note for row in self.cells for _, interval, note in row)

    def lines(self) -> int:
        """Return how many lines the table has."""
        return max(map(len, self.headings), default=1) + len(self.board.blocks) + sum(map(len, self.labels))

    def label_width(self, size: str) -> float:
        """Return the width of the labels in points."""
        more = ["  [00]" * bool(row.citation) + "mm" * row.nested for row in self.rows]
        lines = [line + end for lines, end in zip(self.labels, more, strict=True) for line in lines]
        return max((width(printable(line), size) for line in lines), default=0.0)

    def column_widths(self, size: str) -> list[float]:
        """Return the width of every column in points, with the gap before it."""
        found = []
        for i, column in enumerate(self.board.columns):
            heading = max(width(printable(line) + arrow(column, "1", "1"), size) for line in self.headings[i])
            numbers = [width(row[i][0].replace("-", "+"), size) for row in self.cells]
            behind = [width("," + row[i][1].replace("-", "+") + row[i][2], SMALLER[size]) for row in self.cells]
            found.append(GAP[size] + max(heading, max(numbers, default=0.0) + max(behind, default=0.0)))
        return found

    def panel(self, start: int, stop: int, size: str) -> Panel:
        """Return the columns from ``start`` to before ``stop``, in this type size."""
        each = 1 + self.aside
        side = "l" if self.aside else "r"
        columns = "@{}l" + ("r@{}l" if self.aside else "r") * (stop - start) + "@{}"
        heading = "".join(
            rf" & \multicolumn{{{each}}}{{{side}}}{{{_stack(lines, 'b', side)}}}"
            for lines in (self._heading(i) for i in range(start, stop))
        )
        body, place = [], 0
        for block in self.board.blocks:
            # As wide as it is, and no column grows with it.
            body += [r"\midrule", rf"\multicolumn{{1}}{{@{{}}l}}{{\rlap{{\textit{{{escape(block.title)}}}}}}} \\*"]
            for row in block.rows:
                cells = (self._cell(place, i, row.cells[i].rank, size) for i in range(start, stop))
                body.append(" & ".join([self._label(place, row), *cells]) + r" \\")
                place += 1
        return Panel(columns, heading.strip() + r" \\", body)

    def _heading(self, column: int) -> list[str]:
        *first, last = map(escape, self.headings[column])
        return [*first, last + arrow(self.board.columns[column], *ARROWS)]

    def _label(self, place: int, row: Row) -> str:
        *first, last = map(escape, self.labels[place])
        cited = last + (rf"~\cite{{{row.citation}}}" if row.citation else "")
        return r"\quad " * row.nested + _stack([*first, cited], "t", "l")

    def _cell(self, place: int, column: int, rank: int, size: str) -> str:
        number, interval, note = self.cells[place][column]
        shown = MARKS.get(rank, "%s") % _number(number)
        note = rf"\textsuperscript{{{note}}}" if note else ""
        interval = rf"\,{{\{SMALLER[size]} {_number(interval)}}}" if interval else ""
        return f"{shown} & {note}{interval}".rstrip() if self.aside else shown


def _wrap(text: str, longest: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), longest, break_on_hyphens=False) or [""]


def _stack(lines: Sequence[str], place: str, side: str) -> str:
    """Set lines, already escaped, below each other in one cell."""
    if len(lines) == 1:
        return lines[0]
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}" + r"\\".join(lines) + r"\end{tabular}"


def _number(text: str) -> str:
    return text.replace("-", "$-$").replace(EMPTY, "--")
