"""Tables of the paper with measured rows beside the published ones; knows Measurements and nothing else."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.files import write_all
from leaderboards.published import read_published
from leaderboards.ranking import rank
from leaderboards.render import fragment, standalone, to_csv, to_json, to_markdown, to_text
from leaderboards.render.bibliography import bibtex, used_keys
from leaderboards.render.numbers import Style
from leaderboards.select import (
    Selection,
    check_columns,
    check_rows,
    select_columns,
    select_metrics,
    select_rows,
    select_sets,
)

__all__ = [
    "BOARDS",
    "PLOTS",
    "Board",
    "Selection",
    "Style",
    "build_boards",
    "render_text",
    "write_board",
    "write_plots",
]

# Suite -> "module:function", read when it is asked for.
BOARDS = {
    "ood": "leaderboards.tables.ood:ood_boards",
    "generation": "leaderboards.tables.generation:generation_boards",
    "modes": "leaderboards.tables.modes:modes_boards",
    "ablation": "leaderboards.tables.ablation:ablation_boards",
    "speed": "leaderboards.tables.speed:speed_boards",
    "tradeoff": "leaderboards.tables.tradeoff:tradeoff_boards",
}
COLUMNS_ARE_SETS = ("ood",)  # the columns of all other tables are metrics
PLOTS = {
    "ood": "leaderboards.plots.ood:write",
    "generation": "leaderboards.plots.generation:write",
    "modes": "leaderboards.plots.modes:write",
    "speed": "leaderboards.plots.speed:write",
    "tradeoff": "leaderboards.plots.tradeoff:write",
}


def build_boards(
    rows: Sequence[Measurement], selection: Selection | None = None, *, strict: bool = True
) -> dict[str, list[Board]]:
    """Build the tables of every suite that was measured, or without any measurement all of the paper's: suite -> tables.

    Args:
        strict: refuse a selection of what is in no table; else there may be no table left.

    Raises:
        UserError: two different measurements claim one cell, or a selection names what is in no table.
    """
    selection = selection or Selection()
    measured = [row for row in rows if row.origin == "measured"]
    published = read_published()
    if strict:
        check_rows([*measured, *published], selection)
    suites = list(dict.fromkeys(row.suite for row in measured)) or list(BOARDS)
    kept, paper = select_rows(measured, selection), select_rows(published, selection)

    made: dict[str, list[Board]] = {}
    for suite in suites:
        own = [row for row in kept if row.suite == suite]
        own = (select_sets if suite in COLUMNS_ARE_SETS else select_metrics)(own, selection)
        made[suite] = _suite_boards(suite, own, [row for row in paper if row.suite == suite])
    if strict:
        check_columns([board for boards in made.values() for board in boards], selection)
    shown = {suite: [rank(board) for board in select_columns(boards, selection)] for suite, boards in made.items()}
    return {suite: boards for suite, boards in shown.items() if boards}


def _suite_boards(suite: str, rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """A suite without tables of its own, as another package's, gets one per data set with a column per metric."""
    if not (rows or published):
        return []
    if suite in BOARDS:
        return _function(BOARDS[suite])(rows, published)
    from leaderboards.tables.metric_board import metric_board

    datasets = dict.fromkeys(row.dataset for row in rows)
    return [metric_board(f"{suite}_{d}", f"{suite}: {d}", [row for row in rows if row.dataset == d]) for d in datasets]


def _function(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def render_text(boards: Sequence[Board], style: Style | None = None, width: int = 120) -> str:
    """Return all tables as text for a terminal of ``width`` columns."""
    return "\n".join(to_text(board, style, width) for board in boards)


def write_board(boards: Sequence[Board], out_dir: Path, stem: str, style: Style | None = None) -> list[Path]:
    """Write the tables of a suite, all of these files or none: ``<stem>.md``, ``<stem>.csv``, ``<stem>_tables.json``,
    ``<stem>.tex`` (to be read with ``\\input``), ``<stem>_standalone.tex`` (compiles by itself) and, if a table cites
    anything, ``<stem>.bib``.

    Raises:
        UserError: ``out_dir`` cannot be written, or references.bib lacks an entry.
    """
    keys = used_keys(boards)
    texts = {
        f"{stem}.md": "\n".join(to_markdown(board, style) for board in boards),
        f"{stem}.csv": to_csv(boards),
        f"{stem}_tables.json": to_json(boards),
        f"{stem}.tex": fragment(boards, stem, style),
        f"{stem}_standalone.tex": standalone(boards, style),
        **({f"{stem}.bib": bibtex(keys)} if keys else {}),
    }
    # A name typed in another encoding than the terminal's holds what UTF-8 cannot.
    return write_all({Path(out_dir) / name: text.encode("utf-8", "replace") for name, text in texts.items()})


def write_plots(suite: str, result: Any, out_dir: Path, *, pdf: bool = False) -> list[Path]:
    """Write the plots of a suite, ``<suite>_<what>.png``; a suite without plots, as another package's, has none.

    Args:
        result: what the suite returned; which of its parts are drawn, the module of each suite's plots says.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``out_dir`` cannot be written.
    """
    return _function(PLOTS[suite])(result, Path(out_dir), pdf=pdf) if suite in PLOTS else []
