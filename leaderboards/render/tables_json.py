"""Boards as JSON: what the tables print and why cells are empty, in full precision."""

import json
from collections.abc import Sequence
from typing import Any

from leaderboards.board import Board, Cell, Column

VERSION = 1
DIRECTIONS = {True: "higher", False: "lower", None: None}


def to_json(boards: Sequence[Board]) -> str:
    """Return a JSON document ``{"tables_version", "tables": [...]}``; docs/tables.md says what each key holds.

    It is a view of result files and none itself: ``--board`` passes it over.
    """
    return (
        json.dumps(
            {"tables_version": VERSION, "tables": [_table(board) for board in boards]}, indent=1, allow_nan=False
        )
        + "\n"
    )


def _table(board: Board) -> dict[str, Any]:
    groups: dict[str, int] = {}  # of cells that may be ranked against each other -> their number
    return {
        "name": board.name,
        "title": board.title,
        "columns": [
            {"key": column.key, "title": column.title, "better": DIRECTIONS[column.higher_is_better]}
            for column in board.columns
        ],
        "blocks": [
            {
                "title": block.title,
                "ranked": block.ranked,
                "better": DIRECTIONS[block.higher_is_better],
                "rows": [
                    {
                        "label": row.full_label,
                        "system": row.system,
                        "variant": row.variant,
                        "size": row.size,
                        "origin": row.origin,
                        "citation": row.citation,
                        "cells": [_cell(*pair, groups) for pair in zip(board.columns, row.cells, strict=True)],
                    }
                    for row in block.rows
                ],
            }
            for block in board.blocks
        ],
        "footnotes": list(board.footnotes),
    }


def _cell(column: Column, cell: Cell, groups: dict[str, int]) -> dict[str, Any]:
    """``reason`` says why there is no value, ``note`` what to bear in mind about one."""
    return {
        "column": column.key,
        "dataset": cell.dataset,
        "metric": cell.metric,
        "value": cell.value,
        "low": cell.low,
        "high": cell.high,
        "n": cell.n,
        "seed": cell.seed,
        "rank": cell.rank or None,
        "origin": cell.origin,
        "group": groups.setdefault(cell.comparable, len(groups) + 1) if cell.comparable else None,
        "note": cell.note if cell.value is not None else "",
        "reason": cell.note if cell.value is None else "",
    }
