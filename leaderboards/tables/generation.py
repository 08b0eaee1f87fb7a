"""Tables 1 to 3 of the paper and LSUN Church with measured rows beside the published ones, and their companions."""

from collections.abc import Sequence

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Board
from leaderboards.metrics import INCEPTION, split_metric
from leaderboards.tables.metric_board import metric_board, table_title
from leaderboards.tables.steps import on_curve, steps_board

PAPER_SET = "cifar10"  # of the paper's first table
PAPER_METRICS = ("is", "fid")
NO_INCEPTION = (
    "No measured rows: nothing of what is shown was measured in Inception features. Distances in other features stand in"
    " tables of their own."
)
UNDER_NO_PC = "A measured VAEBM stands below the published one without persistent chain unless its protocol says persistent_chain."


def generation_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build per data set: the paper's table, a table per feature space, and metrics against Langevin steps per space.

    Numbers in the features of different networks never share a column. A table without rows is left out.

    Args:
        rows: measurements of suite ``"generation"``; without any, all of the paper's tables are built.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, a metric is misnamed, or a number of steps cannot be read.
    """
    boards = []
    for dataset in dict.fromkeys(row.dataset for row in rows or published):
        own = [row for row in rows if row.dataset == dataset]
        paper = [row for row in published if row.dataset == dataset]
        still = [row for row in own if not on_curve(row)]
        boards += [_paper(still, paper, dataset)] if paper else []
        for space in sorted({_space(row) for row in own}, key=lambda space: (space != INCEPTION, space)):
            inside = [row for row in still if _space(row) == space]
            # The paper's own two metrics stand in its table.
            if not paper or any(row.metric not in PAPER_METRICS for row in inside):
                boards.append(_space_board(inside, dataset, space))
            title = f"Samples against Langevin steps on {names.dataset_title(dataset)}{_in_space(space)}, measured"
            everything = [row for row in own if _space(row) == space]
            boards.append(steps_board(_name(dataset, "steps", space.lower()), title, everything))
    return [board for board in boards if board.blocks]


def _space(row: Measurement) -> str:
    return split_metric(row.metric)[1]


def _name(dataset: str, *parts: str) -> str:
    """Name a table; the data set of the paper's first table goes without saying."""
    return "_".join(["generation", *([] if dataset == PAPER_SET else [dataset]), *filter(None, parts)])


def _paper(rows: Sequence[Measurement], published: Sequence[Measurement], dataset: str) -> Board:
    notes = [NO_INCEPTION] if rows else []
    rows = [row for row in rows if row.metric in PAPER_METRICS]
    systems = {row.system for row in published}
    under = lambda row: _with_chain(row) if row.system not in systems and f"{row.system}_pc" in systems else ""
    notes = [] if rows else notes
    notes += [UNDER_NO_PC] if any(under(row) for row in rows) else []
    title = f"Image generation on {names.dataset_title(dataset)}: {table_title(published)} of the paper"
    return metric_board(_name(dataset), title, rows, published, under=under, notes=notes)


def _with_chain(row: Measurement) -> str:
    """The paper has a VAEBM trained with and one trained without a persistent chain."""
    recipe = row.protocol.get("sampling")
    persistent = (recipe if isinstance(recipe, dict) else {}) | row.protocol
    return f"{row.system}_pc" if persistent.get("persistent_chain") else f"{row.system}_no_pc"


def _space_board(rows: Sequence[Measurement], dataset: str, space: str) -> Board:
    notes = []
    if any(split_metric(row.metric)[0] == "is" for row in rows) and space != INCEPTION:
        notes.append(
            f"IS: the inception score's formula on the classes of {space}; it compares with no IS of Inception."
        )
    title = f"{'Sample quality' if space else 'Other measurements'} on {names.dataset_title(dataset)}{_in_space(space)}, measured"
    return metric_board(_name(dataset, space.lower() or "other"), title, rows, notes=notes)


def _in_space(space: str) -> str:
    return "" if not space else " in pixels" if space == "pixels" else f" in {space} features"
