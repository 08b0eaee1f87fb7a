"""What of the tables is shown: some systems, some columns, published or measured rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from evaluators.measurement import Measurement
from leaderboards.board import Board
from leaderboards.metrics import split_metric
from vaebm.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Selection:
    """What to show.

    Attributes:
        columns: keys of columns in the order wanted (``"svhn"``, ``"fd_cifar10net"``, or ``"fd"`` in whatever features); none: all.
        rows: names of systems in the order wanted; none: all.
        origin: ``"published"``, ``"measured"``, or both if empty.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    origin: str = ""


def select_rows(rows: Iterable[Measurement], selection: Selection) -> list[Measurement]:
    """Return the measurements that tables are to be built from, in the order wanted."""
    kept = [row for row in rows if selection.origin in ("", row.origin)]
    if not selection.rows:
        return kept
    order = {name: i for i, name in enumerate(selection.rows)}
    absent = len(order)
    place: Callable[[Measurement], int] = lambda row: min(order.get(name, absent) for name in _system_names(row))
    return sorted((row for row in kept if place(row) < absent), key=place)


def _system_names(row: Measurement) -> tuple[str, ...]:
    """A published system that the paper has in two versions is meant by the name of both, too: ``vaebm`` is ``vaebm_no_pc``."""
    if row.origin == "measured":
        return (row.system,)
    return row.system, row.system.removesuffix("_pc").removesuffix("_no")


def select_metrics(rows: Sequence[Measurement], selection: Selection) -> list[Measurement]:
    """Return the measurements of the columns wanted, for tables whose columns are metrics; all if none of them is meant."""
    wanted = [row for row in rows if {row.metric, split_metric(row.metric)[0]} & {*selection.columns}]
    return wanted or list(rows)


def select_sets(rows: Sequence[Measurement], selection: Selection) -> list[Measurement]:
    """Return the measurements of the columns wanted, for tables whose columns are data sets, with those about no outer set."""
    inside = lambda row: row.dataset == row.protocol.get("in_distribution")
    wanted = [row for row in rows if row.dataset in selection.columns or inside(row)]
    return wanted if any(row.dataset in selection.columns for row in rows) else list(rows)


def check_rows(rows: Iterable[Measurement], selection: Selection) -> None:
    """Refuse systems that nothing is known of.

    Raises:
        UserError: none of the measurements is of that system.
    """
    _refuse_unknown("--rows", selection.rows, {name for row in rows for name in _system_names(row)})


def select_columns(boards: Sequence[Board], selection: Selection) -> list[Board]:
    """Return the tables with the columns wanted; a table without any of them goes."""
    if not selection.columns:
        return list(boards)
    return [_cut(board, selection.columns) for board in boards if {*_names(board)} & {*selection.columns}]


def check_columns(boards: Iterable[Board], selection: Selection) -> None:
    """Refuse columns that no table has.

    Raises:
        UserError: there is one.
    """
    _refuse_unknown("--columns", selection.columns, {name for board in boards for name in _names(board)})


def _names(board: Board) -> list[str]:
    return [name for column in board.columns for name in (column.key, split_metric(column.key)[0])]


def _cut(board: Board, wanted: Sequence[str]) -> Board:
    keys = [(column.key, split_metric(column.key)[0]) for column in board.columns]
    order = list(dict.fromkeys(i for name in wanted for i, key in enumerate(keys) if name in key))
    cut = lambda row: replace(row, cells=tuple(row.cells[i] for i in order))
    blocks = (replace(block, rows=tuple(map(cut, block.rows))) for block in board.blocks)
    return replace(board, columns=tuple(board.columns[i] for i in order), blocks=tuple(blocks))


def _refuse_unknown(flag: str, wanted: Iterable[str], known: set[str]) -> None:
    for name in wanted:
        if name not in known:
            raise UserError(f"{flag} {name}: no table here has it.{did_you_mean(name, sorted(known))}")
