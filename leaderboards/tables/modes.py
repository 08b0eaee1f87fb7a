"""Table 5 of the paper (StackedMNIST) with measured rows beside the published ones, and the toy of 25 Gaussians."""

from collections.abc import Sequence

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Board
from leaderboards.tables.metric_board import metric_board, table_title
from leaderboards.tables.steps import on_curve, steps_board

PAPER_SET = "stacked_mnist"
TITLES = {
    "stacked_mnist": "Mode coverage on StackedMNIST",
    "gaussians25": "25 Gaussians: exact likelihood and modes, measured",
}
MODES = {"stacked_mnist": 1000, "gaussians25": 25}
PERFECT = "perfect sampler"


def modes_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build a table per data set: Table 5 for StackedMNIST, one for the 25 Gaussians, one for any other; and those of curves over
    Langevin steps. A table without rows is left out.

    Args:
        rows: measurements of suite ``"modes"``.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, a metric is misnamed, or a number of steps cannot be read.
    """
    boards = []
    for dataset in dict.fromkeys(row.dataset for row in rows or published):
        own = [row for row in rows if row.dataset == dataset]
        paper = [row for row in published if row.dataset == dataset]
        title = TITLES.get(dataset, f"Mode coverage on {names.dataset_title(dataset)}, measured")
        title += f": {table_title(paper)} of the paper" if paper else ""
        suffixes = {"modes": f" (of {MODES[dataset]})"} if dataset in MODES else {}
        name = "modes" if dataset == PAPER_SET else f"modes_{dataset}"
        still = [row for row in own if not on_curve(row)]
        boards.append(metric_board(name, title, still, paper, suffixes=suffixes, notes=_floor(own)))
        curve = f"Mode coverage against Langevin steps on {names.dataset_title(dataset)}, measured"
        boards.append(steps_board(f"{name}_steps", curve, own))
    return [board for board in boards if board.blocks]


def _floor(rows: Sequence[Measurement]) -> list[str]:
    """Say what a perfect sampler would reach: KL does not vanish with finitely many samples."""
    told = [
        f"{row.value:.3g} at N = {row.n:,}" if row.n else f"{row.value:.3g}"
        for row in rows
        if row.system == PERFECT and row.metric == "kl" and row.value is not None
    ]
    floor = f"KL counts finitely many samples, so that even a perfect sampler has {' or '.join(told)}: the floor."
    return [floor] if told else []
