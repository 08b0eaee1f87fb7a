"""Boards as CSV: one line per cell, full precision, nothing hidden in formatting."""

import csv
import io
from collections.abc import Sequence

from leaderboards.board import Board


def to_csv(boards: Sequence[Board]) -> str:
    """Return one table of all cells; numbers read back exactly, empty where there is none."""
    records = [record for board in boards for record in board.records()]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]) if records else ["board"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
