"""Section 5.5 of the paper: seconds for 50 CIFAR-10 images, VAEBM against NCSN; measured rows with all that makes up their seconds."""

from collections.abc import Sequence
from dataclasses import replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import SAMPLING_KEYS, Board
from leaderboards.tables.metric_board import metric_board

PAPER_SET = "cifar10"
TITANS = "Published seconds were measured on one Titan RTX: only the ratio says something about another machine."
PAIRED = "Measured ratios: medians over rounds, in each of which every system drew the same number of images."


def speed_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build the tables of sampling times, one per data set.

    Args:
        rows: measurements of suite ``"speed"``.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, or a metric is misnamed.
    """
    boards = []
    for dataset in dict.fromkeys(row.dataset for row in (*published, *rows)):
        own = [row for row in rows if row.dataset == dataset]
        paper = [row for row in published if row.dataset == dataset]
        title = f"Sampling time for 50 {names.dataset_title(dataset)} images"
        title += ": section 5.5 of the paper" if paper else ", measured"
        ratios = any(row.metric.startswith("speedup_over_") and row.value is not None for row in own)
        notes = [TITANS] * bool(paper) + [PAIRED] * ratios
        name = "speed" if dataset == PAPER_SET else f"speed_{dataset}"
        boards.append(metric_board(name, title, [_told_once(row) for row in own], paper, notes=notes))
    return boards


def _told_once(row: Measurement) -> Measurement:
    """For footnotes: how images are drawn is told of a system's own row, not again of the same times by another clock."""
    protocol = {key: value for key, value in row.protocol.items() if not row.variant or key not in SAMPLING_KEYS}
    return replace(row, protocol=protocol)
