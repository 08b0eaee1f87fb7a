"""Table 4 of the paper (related training methods on CIFAR-10) and the extra decoder update of its appendix C.2."""

from collections.abc import Sequence

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.tables.metric_board import metric_board, table_title

SMALLER = (
    "Table 4 is of a smaller model than Table 1, where VAEBM has another FID; its rows compare with each other only."
)
TABLES = {  # table -> name, title, notes
    "Table 4": ("ablation", "Related training methods on CIFAR-10", (SMALLER,)),
    "Appendix C.2": ("ablation_decoder", "Updating the decoder, too, on CIFAR-10", ()),
}


def ablation_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build the paper's two tables; measured rows stand below the published row of their system, the others in Table 4.

    Args:
        rows: measurements of suite ``"ablation"``, which are of models like the paper's in these tables.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, or a metric is misnamed.
    """
    elsewhere = {row.system for row in published if table_title([row]) != "Table 4"}
    boards = []
    for table, (name, title, notes) in TABLES.items():
        paper = [row for row in published if table_title([row]) == table]
        own = [row for row in rows if (row.system in elsewhere) == (table != "Table 4")]
        place = f": {table} of the paper" if paper else ", measured"
        if paper or own:
            boards.append(metric_board(name, title + place, own, paper, notes=notes if paper else ()))
    return boards
