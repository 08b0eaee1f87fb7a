"""Which cells of a table are set in bold face (rank 1) and underlined (rank 2)."""

from dataclasses import replace

from leaderboards.board import Block, Board, Cell, Column


def rank(board: Board) -> Board:
    """Give ranks 1 and 2 among the comparable cells of each ranked block and column; see :attr:`Cell.comparable`.

    One cell alone has no rank. Equal values share theirs: of two best none is second, and of two cells the worse one is not
    called second. A column or block that does not say which way is better has no ranks.
    """
    return replace(board, blocks=tuple(_ranked(block, board.columns) for block in board.blocks))


def _ranked(block: Block, columns: tuple[Column, ...]) -> Block:
    groups: dict[tuple[int, str], list[float]] = {}
    for row in block.rows:
        for position, cell in enumerate(row.cells):
            sign = _sign(block, columns[position])
            if block.ranked and sign and cell.value is not None and cell.comparable:
                groups.setdefault((position, cell.comparable), []).append(sign * cell.value)

    def ranked(position: int, cell: Cell) -> Cell:
        group = sorted(groups.get((position, cell.comparable), []), reverse=True)
        if cell.value is None or len(group) < 2:
            return replace(cell, rank=0)
        place = group.index(_sign(block, columns[position]) * cell.value)
        return replace(cell, rank=1 if place == 0 else 2 if place == 1 and len(group) > 2 else 0)

    rows = (replace(row, cells=tuple(ranked(i, cell) for i, cell in enumerate(row.cells))) for row in block.rows)
    return replace(block, rows=tuple(rows))


def _sign(block: Block, column: Column) -> int:
    higher = column.higher_is_better if block.higher_is_better is None else block.higher_is_better
    return 0 if higher is None else 1 if higher else -1
