"""Sorts measurements into rows: one per system, variant and size, and per seed where there are several."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.measurement import Measurement
from leaderboards.board import Cell, Column, Row
from vaebm.errors import UserError

NOT_MEASURED = "Not measured in this run."


@dataclass(frozen=True)
class Placed:
    """A measurement and its place: ``label`` and ``variant`` of its row, key of its column."""

    label: str
    variant: str
    column: str
    measurement: Measurement


def measured_rows(
    placed: Sequence[Placed], columns: Sequence[Column], absent: str = NOT_MEASURED, *, nested: bool = False
) -> list[Row]:
    """Make rows in order of first appearance; an empty cell joins the row of its system whatever its seed.

    Args:
        absent: why a cell without a measurement is empty.
        nested: the rows stand under a published row and say ``measured``.

    Raises:
        UserError: two different measurements claim one cell.
    """
    groups: dict[tuple[str, str, str], list[Placed]] = {}
    for entry in placed:
        groups.setdefault((entry.measurement.system, entry.variant, entry.measurement.size), []).append(entry)
    made = []
    for (system, variant, size), group in groups.items():
        with_value = [entry.measurement.seed for entry in group if entry.measurement.value is not None]
        seeds = list(dict.fromkeys(with_value)) or [None]
        for seed in seeds:
            members = [entry for entry in group if entry.measurement.seed == seed]
            members += [e for e in group if e.measurement.value is None and e.measurement.seed not in seeds]
            tag = ["measured"] * nested + [size] * bool(size) + [f"seed {seed}"] * (len(seeds) > 1)
            cells = _cells(members, columns, absent)
            made.append(Row(group[0].label, size, "measured", cells, "", system, variant, ", ".join(tag), nested))
    return made


def _cells(members: Sequence[Placed], columns: Sequence[Column], absent: str) -> tuple[Cell, ...]:
    cells: dict[str, Cell] = {}
    for entry in members:
        row, cell = entry.measurement, Cell.of(entry.measurement)
        if cells.setdefault(entry.column, cell) != cell:
            raise UserError(
                f"{row.system}, {row.metric} on {row.dataset}, size {row.size or 'none'}, seed {row.seed}: found two"
                f" measurements, {cells[entry.column].value} and {row.value}, where a table has one place: give one run"
            )
    metric = members[0].measurement.metric
    return tuple(cells.get(c.key, Cell(None, note=absent, dataset=c.key, metric=metric)) for c in columns)
