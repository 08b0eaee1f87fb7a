"""Boards as the template wants them: texts, numbers in the common style, and where to find the details."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leaderboards.board import Board, Cell, Column, Row
from leaderboards.page.details import Details
from leaderboards.render.numbers import Style, arrow, parts, rank_legend


@dataclass(frozen=True)
class CellView:
    """A cell as printed.

    Attributes:
        value: in full precision, to sort by; empty if there is none.
        number, interval: as in all other formats.
        note: number of its reason below the table; 0: none.
        details: where its facts stand, see :class:`leaderboards.page.details.Details`.
    """

    value: str
    number: str
    interval: str
    note: int
    rank: int
    details: int


@dataclass(frozen=True)
class RowView:
    """A row; ``reference`` is the number of the work it cites, 0 for none."""

    row: Row
    reference: int
    cells: tuple[CellView, ...]


def table_view(
    board: Board, anchor: str, style: Style, details: Details, references: Mapping[str, int]
) -> dict[str, Any]:
    """Return what the template shows of a table, and hand the facts of its cells to ``details``.

    Args:
        references: key of a work -> its number on the page.
    """
    reasons = board.reasons()

    def view(row: Row, cell: Cell, column: Column) -> CellView:
        number, interval = parts(cell, column, style)
        value = "" if cell.value is None else repr(cell.value)
        return CellView(value, number, interval, reasons.get(cell.note, 0), cell.rank, details.add(row, cell))

    blocks = [
        (
            block.title,
            [
                RowView(
                    row,
                    references.get(row.citation, 0),
                    tuple(view(row, cell, column) for cell, column in zip(row.cells, board.columns, strict=True)),
                )
                for row in block.rows
            ],
        )
        for block in board.blocks
    ]
    return {
        "id": anchor,
        "title": board.title,
        "columns": [(column, arrow(column).strip()) for column in board.columns],
        "blocks": blocks,
        "reasons": list(reasons),
        "legend": rank_legend(board, "Bold: ", "Underlined: "),
        "footnotes": board.footnotes,
    }
