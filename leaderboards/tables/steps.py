"""Metrics against the number of Langevin steps: a table with a block per system, its time per image, and the controls."""

from collections.abc import Sequence
from dataclasses import replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Block, Board, drop_empty
from leaderboards.merge import RUN
from leaderboards.metrics import in_order, metric_column
from leaderboards.tables.metric_board import describe_measured
from leaderboards.tables.rows import Placed, ladder, measured_rows
from vaebm.errors import UserError

STEPS = "steps="
SECONDS = "seconds_per_image"
NOT_OF_CONTROLS = "Not measured of this control."


def on_curve(row: Measurement) -> bool:
    """Return whether a row is a point of a curve over steps."""
    return row.variant.startswith(STEPS)


def steps_of(variant: str) -> int:
    """Return the number in ``"steps=8"``.

    Raises:
        UserError: there is none.
    """
    text = variant.removeprefix(STEPS)
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"found variant {variant!r}, needed the form 'steps=8'")
    return int(text)


def steps_board(name: str, title: str, rows: Sequence[Measurement]) -> Board:
    """Build a table of the points of curves; without any it has no blocks.

    Args:
        rows: of one data set; those of curves make the blocks, controls with a metric of theirs the last one.

    Raises:
        UserError: two different measurements claim one cell, or a number of steps cannot be read.
    """
    curves = [row for row in rows if on_curve(row)]
    found = {row.metric for row in curves}
    timed: dict[tuple[str, str, int | None, str, str], Measurement] = {}
    for row in curves:
        seconds = row.protocol.get(SECONDS)
        if seconds and row.value is not None:
            shown = replace(row, metric=SECONDS, value=float(seconds), low=None, high=None, note="")
            run = row.provenance.get(RUN, "")
            timed.setdefault((row.system, row.size, row.seed, row.variant, run), shown)
    columns = [metric_column(metric) for metric in in_order(found | ({SECONDS} if timed else set()))]
    blocks = [
        replace(block, ranked=True)
        for block in ladder([*curves, *timed.values()], columns, steps_of, "steps", lambda row: row.metric)
    ]
    floors = [
        Placed(names.system_label(row.system, row.variant), row.variant, row.metric, row)
        for row in rows
        if row.role == "control" and row.metric in found
    ]
    blocks.append(Block("Controls (measured)", tuple(measured_rows(floors, columns, NOT_OF_CONTROLS))))
    notes = describe_measured([_without_steps(row) for row in curves])
    return Board(name, title, tuple(columns), drop_empty(blocks), tuple(notes))


def _without_steps(row: Measurement) -> Measurement:
    """For footnotes: the numbers of steps stand in the table."""
    protocol = {key: value for key, value in row.protocol.items() if key != "steps"}
    if isinstance(recipe := protocol.get("sampling"), dict):
        protocol["sampling"] = {key: value for key, value in recipe.items() if key != "steps"}
    return replace(row, variant="", protocol=protocol)
