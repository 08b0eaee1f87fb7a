"""Tables of the paper with measured rows beside the published ones; knows Measurements and nothing else."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.files import write_all
from leaderboards.render import to_csv, to_latex, to_markdown, to_text
from leaderboards.render.latex import HEAD
from leaderboards.render.numbers import Style
from vaebm.errors import UserError, did_you_mean

__all__ = ["BOARDS", "Board", "Style", "build_board", "render_text", "write_board"]

# Suite -> "module:function", read when it is asked for.
BOARDS = {"ood": "leaderboards.ood:ood_boards"}


def build_board(suite: str, rows: Sequence[Measurement]) -> list[Board]:
    """Build the tables of a suite from published numbers and measured rows.

    Raises:
        UserError: no board is known for that suite, or two measurements claim one cell.
    """
    if suite not in BOARDS:
        raise UserError(f"--suite {suite}: no table is known for it.{did_you_mean(suite, BOARDS)}")
    module, _, function = BOARDS[suite].partition(":")
    return getattr(importlib.import_module(module), function)(rows)


def render_text(boards: Sequence[Board], style: Style | None = None, width: int = 120) -> str:
    """Return all tables as text for a terminal of ``width`` columns."""
    return "\n".join(to_text(board, style, width) for board in boards)


def write_board(boards: Sequence[Board], out_dir: Path, stem: str, style: Style | None = None) -> list[Path]:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.tex`` (an ``\\input`` fragment): all of them or none.

    Raises:
        UserError: ``out_dir`` cannot be written.
    """
    texts = {
        "md": "\n".join(to_markdown(board, style) for board in boards),
        "csv": to_csv(boards),
        "tex": HEAD + "\n".join(to_latex(board, style) for board in boards),
    }
    return write_all({Path(out_dir) / f"{stem}.{ending}": text.encode("utf-8") for ending, text in texts.items()})
