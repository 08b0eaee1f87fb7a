"""Sorts measurements into rows: one per system, variant and size, and per seed where there are several."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Block, Cell, Column, Row
from leaderboards.merge import RUN
from vaebm.errors import UserError

NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class Placed:
    """A measurement and its place.

    Attributes:
        label, variant: of its row.
        column: key of its column.
        under: the published system below which it stands, where that is not called like its own.
    """

    label: str
    variant: str
    column: str
    measurement: Measurement
    under: str = ""


def measured_rows(
    placed: Sequence[Placed], columns: Sequence[Column], absent: str = NOT_MEASURED, *, nested: bool = False
) -> list[Row]:
    """Make rows in order of first appearance, one per run where several runs disagree about a system; an empty cell joins the
    row of its system whatever its seed.

    Args:
        absent: why a cell without a measurement is empty.
        nested: the rows stand under a published row and say ``measured``.

    Raises:
        UserError: two different measurements claim one cell.
    """
    groups: dict[tuple[str, str, str, str], list[Placed]] = {}
    for entry in placed:
        row = entry.measurement
        groups.setdefault((row.system, entry.variant, row.size, row.provenance.get(RUN, "")), []).append(entry)
    made = []
    for (system, variant, size, run), group in groups.items():
        with_value = [entry.measurement.seed for entry in group if entry.measurement.value is not None]
        seeds = list(dict.fromkeys(with_value)) or [None]
        for seed in seeds:
            members = [entry for entry in group if entry.measurement.seed == seed]
            members += [e for e in group if e.measurement.value is None and e.measurement.seed not in seeds]
            tag = ["measured"] * nested + [size] * bool(size) + [f"seed {seed}"] * (len(seeds) > 1) + [run] * bool(run)
            cells = _cells(members, columns, absent)
            made.append(Row(group[0].label, size, "measured", cells, "", system, variant, ", ".join(tag), nested))
    return made


def apart(rows: Iterable[Measurement]) -> Callable[[Measurement], str]:
    """Return what footnotes put behind a system's name where the table has several lines of it: ``" (seed 1, second run)"``."""
    seeds: dict[tuple[str, str, str], set[int | None]] = {}
    key = lambda row: (row.system, row.size, row.provenance.get(RUN, ""))
    for row in rows:
        seeds.setdefault(key(row), set()).add(row.seed)

    def told(row: Measurement) -> str:
        run = row.provenance.get(RUN, "")
        tags = [f"seed {row.seed}"] * (len(seeds[key(row)]) > 1) + [run] * bool(run)
        return f" ({', '.join(tags)})" if tags else ""

    return told


def beside(
    published: Sequence[tuple[str, Row]], placed: Sequence[Placed], columns: Sequence[Column]
) -> tuple[list[Block], list[Row]]:
    """Put measured rows below the published row of their system.

    Args:
        published: (block of the paper's table, row), in order.

    Returns:
        The paper's blocks, and the measured rows of systems that it does not have. Nothing is marked as best yet.
    """
    blocks: dict[str, list[Row]] = {}
    for title, row in published:
        own = [entry for entry in placed if (entry.under or entry.measurement.system) == row.system]
        blocks.setdefault(title, []).extend([row, *measured_rows(own, columns, nested=True)])
    known = {row.system for _, row in published}
    others = [entry for entry in placed if (entry.under or entry.measurement.system) not in known]
    return [Block(title, tuple(rows)) for title, rows in blocks.items()], measured_rows(others, columns)


def ladder(
    rows: Sequence[Measurement],
    columns: Sequence[Column],
    number: Callable[[str], float],
    symbol: str,
    column: Callable[[Measurement], str],
) -> list[Block]:
    """Make a block per system and size whose rows ascend in the number in their variant.

    Args:
        number: reads it: ``"c=0.3"`` -> 0.3.
        symbol: what stands before it in print: ``"c"``.
        column: key of a measurement's column.
    """
    blocks = []
    ordered = sorted(rows, key=lambda row: number(row.variant))
    for system, size in dict.fromkeys((row.system, row.size) for row in ordered):
        members = [row for row in ordered if (row.system, row.size) == (system, size)]
        placed = [Placed(f"{symbol} = {number(row.variant):g}", row.variant, column(row), row) for row in members]
        # The size stands in the title, once.
        lines = tuple(
            replace(line, tag=line.tag.removeprefix(size).removeprefix(", ")) for line in measured_rows(placed, columns)
        )
        blocks.append(Block(names.system_label(system) + (f" ({size})" if size else ""), lines))
    return blocks


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
