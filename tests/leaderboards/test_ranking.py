"""Bold face and underlining: ranks among comparable cells."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.board import Block, Board, Cell, Column, Row
from leaderboards.ranking import rank


def board(values: list[float | None], *, higher: bool | None = True, ranked: bool = True, **block: bool) -> Board:
    rows = tuple(
        Row(f"s{i}", "", "measured", (Cell(v, comparable="x", note="" if v is not None else "absent"),))
        for i, v in enumerate(values)
    )
    return Board("b", "B", (Column("c", "C", higher_is_better=higher),), (Block("t", rows, ranked, **block),))


def ranks(board: Board) -> list[int]:
    return [cell.rank for *_, cell in rank(board).cells()]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.3, 0.9, 0.5], [0, 1, 2]),
        ([0.3, None, 0.9, 0.5], [0, 0, 1, 2]),
        ([0.9], [0]),
        ([], []),
        ([0.1, 0.9], [0, 1]),  # of two the worse one is not called second
        ([0.9, 0.9, 0.5], [1, 1, 0]),  # two are best: none is second
        ([0.9, 0.5, 0.5], [1, 2, 2]),
        ([None, None], [0, 0]),
    ],
)
def test_ranks(values: list[float | None], expected: list[int]) -> None:
    assert ranks(board(values)) == expected


def test_each_direction() -> None:
    assert ranks(board([1, 2, 3], higher=False)) == [1, 2, 0]
    assert ranks(board([1, 2, 3], higher=None)) == [0, 0, 0]
    assert ranks(board([1, 2, 3], ranked=False)) == [0, 0, 0]
    assert ranks(board([1, 2, 3], higher=None, higher_is_better=False)) == [1, 2, 0]
    assert ranks(board([1, 2, 3], higher=True, higher_is_better=False)) == [1, 2, 0]  # the block's word counts


def test_only_comparable_cells_compete_and_blocks_are_apart() -> None:
    made = board([0.1, 0.2, 0.3])
    (block,) = made.blocks
    odd = replace(block.rows[2], cells=(replace(block.rows[2].cells[0], comparable="y"),))
    assert ranks(replace(made, blocks=(replace(block, rows=(*block.rows[:2], odd)),))) == [0, 1, 0]
    none = tuple(replace(row, cells=(replace(row.cells[0], comparable=""),)) for row in block.rows)
    assert ranks(replace(made, blocks=(replace(block, rows=none),))) == [0, 0, 0]
    assert ranks(replace(made, blocks=(block, block))) == [0, 2, 1, 0, 2, 1]


@given(st.lists(st.floats(-1e9, 1e9), max_size=8))
def test_ranks_turn_round_with_the_direction_and_do_not_depend_on_order(values: list[float]) -> None:
    found = ranks(board(values))
    assert ranks(board([-v for v in values], higher=False)) == found
    assert ranks(board(values[::-1])) == found[::-1]
    assert ranks(rank(board(values))) == found  # ranking twice changes nothing
    if len(values) > 1:
        assert [v for v, r in zip(values, found, strict=True) if r == 1] == [max(values)] * values.count(max(values))
