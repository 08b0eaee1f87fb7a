"""Tables of the paper with measured rows beside the published ones; knows Measurements and nothing else."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.files import write_all
from leaderboards.render import to_csv, to_latex, to_markdown, to_text
from leaderboards.render.latex import HEAD
from leaderboards.render.numbers import Style
from vaebm.errors import UserError, did_you_mean

__all__ = ["BOARDS", "PLOTS", "Board", "Style", "build_board", "render_text", "write_board", "write_plots"]

# Suite -> "module:function", read when it is asked for.
BOARDS = {
    "ood": "leaderboards.ood:ood_boards",
    "generation": "leaderboards.generation:generation_boards",
    "modes": "leaderboards.modes:modes_boards",
}
PLOTS = {
    "ood": "leaderboards.plots.ood:write",
    "generation": "leaderboards.plots.generation:write",
    "modes": "leaderboards.plots.modes:write",
}


def build_board(suite: str, rows: Sequence[Measurement]) -> list[Board]:
    """Build the tables of a suite from published numbers and measured rows.

    A suite without tables of its own, as another package's, gets one per data set with a column per metric.

    Raises:
        UserError: nothing is known of that suite and there are no rows of it, or two measurements claim one cell.
    """
    if suite in BOARDS:
        return _function(BOARDS[suite])(rows)
    own = [row for row in rows if row.suite == suite and row.origin == "measured"]
    if not own:
        raise UserError(f"--suite {suite}: no table is known for it.{did_you_mean(suite, BOARDS)}")
    from leaderboards.metric_board import metric_board

    datasets = dict.fromkeys(row.dataset for row in own)
    return [metric_board(f"{suite}_{d}", f"{suite}: {d}", [row for row in own if row.dataset == d]) for d in datasets]


def _function(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


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


def write_plots(suite: str, result: Any, out_dir: Path, *, pdf: bool = False) -> list[Path]:
    """Write the plots of a suite, ``<suite>_<what>.png``; a suite without plots, as another package's, has none.

    Args:
        result: what the suite returned; which of its parts are drawn, the module of each suite's plots says.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``out_dir`` cannot be written.
    """
    return _function(PLOTS[suite])(result, Path(out_dir), pdf=pdf) if suite in PLOTS else []
