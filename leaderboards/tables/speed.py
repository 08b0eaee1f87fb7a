"""Section 5.5 of the paper: seconds for 50 CIFAR-10 images, VAEBM against NCSN."""

from collections.abc import Sequence

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.tables.metric_board import metric_board

TITANS = "Published seconds were measured on one Titan RTX: only the ratio says something about another machine."


def speed_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build the table of sampling times.

    Args:
        rows: measurements of suite ``"speed"``.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, or a metric is misnamed.
    """
    if not (rows or published):
        return []
    title = "Sampling time for 50 CIFAR-10 images" + (": section 5.5 of the paper" if published else ", measured")
    return [metric_board("speed", title, rows, published, notes=[TITANS] if published else [])]
