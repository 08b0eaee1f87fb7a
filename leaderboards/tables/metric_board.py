"""A table with a column per metric: the paper's blocks where it has numbers, measured systems, diagnostics, controls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Block, Board, Cell, Column, Row, drop_empty
from leaderboards.metrics import in_order, metric_column, metric_of
from leaderboards.published import Deviation, read_deviations
from leaderboards.tables.footnotes import (
    Entry,
    describe_controls,
    describe_differences,
    describe_intervals,
    describe_protocol,
    describe_published,
    describe_sampling,
)
from leaderboards.tables.rows import Placed, apart, beside, measured_rows

NOT_PUBLISHED = "Not in published.csv: the paper gives no number, or none that could be verified."
NEVER_RANK = (
    "They follow protocols of their authors and are of full-size models: never rank a measured row against them."
)
NOT_TOLD = ("kl_floor", "n_samples", "n_test", "unit")  # told by a sentence of its own, by N, or by a title


def metric_board(
    name: str,
    title: str,
    rows: Sequence[Measurement],
    published: Sequence[Measurement] = (),
    *,
    suffixes: dict[str, str] | None = None,
    under: Callable[[Measurement], str] = lambda row: "",
    notes: Iterable[str] = (),
) -> Board:
    """Build a table of one data set.

    Args:
        rows: measured, without those of curves; systems stand below the published row of theirs, or in a block of their own.
        published: published rows of one table; their systems and metrics are always there.
        suffixes: metric -> what to put behind its title.
        under: system of the published row below which a measurement stands, where it is called otherwise.
        notes: footnotes to put first.

    Raises:
        UserError: two different measurements claim one cell, or a metric is misnamed.
    """
    found = {row.metric for row in (*published, *rows)}
    columns = [metric_column(metric, (suffixes or {}).get(metric, "")) for metric in in_order(found)]
    # A diagnostic without a variant is a further number of the same samples.
    role_of = lambda row: "headline" if row.role == "diagnostic" and not row.variant else row.role
    place = lambda role: [
        Placed(_label(row), row.variant, row.metric, row, under(row)) for row in rows if role_of(row) == role
    ]
    systems = list(dict.fromkeys(row.system for row in published))
    deviations = read_deviations() if published else {}
    known = [
        _published_row([row for row in published if row.system == system], columns, deviations) for system in systems
    ]
    paper, others = beside(known, place("headline"), columns)
    blocks = [replace(block, ranked=True) for block in paper]
    blocks += [
        Block(
            "Systems without a published row (measured)" if published else "Measured systems",
            tuple(others),
            ranked=True,
        ),
        Block("Diagnostics (measured)", tuple(measured_rows(place("diagnostic"), columns))),
        Block("Controls (measured)", tuple(measured_rows(place("control"), columns))),
    ]
    sentences = [*notes, *describe_measured(rows)]
    sentences += [describe_published(published, NEVER_RANK)] if published else []
    return Board(name, title, tuple(columns), drop_empty(blocks), tuple(sentences))


def describe_measured(rows: Iterable[Measurement]) -> list[str]:
    """Return the footnotes of measured cells: meaning of metrics, intervals, protocol, differences, sampling."""
    rows = list(rows)
    found = {row.metric for row in rows}
    rows = [row for row in rows if row.value is not None]
    told = apart(rows)
    entries = [
        Entry(
            row=_label(row) + (f" {row.size}" if row.size else "") + told(row),
            column="",
            metric=metric_of(row.metric).title,
            protocol=({} if row.n is None else {"N": row.n}) | row.protocol,
            seed=row.seed,
            control=row.role == "control",
        )
        for row in rows
    ]
    meanings = [metric_of(metric).meaning for metric in in_order(found)]
    systems = [entry for entry in entries if not entry.control]
    return [
        *filter(None, [" ".join(dict.fromkeys(filter(None, meanings)))]),
        *describe_intervals(entries),
        *describe_protocol(systems or entries, NOT_TOLD),
        *describe_controls(entries, NOT_TOLD),
        *describe_differences(systems),
        *describe_sampling(systems),
    ]


def table_title(published: Sequence[Measurement]) -> str:
    """``"Table 5 (StackedMNIST)"`` makes ``"Table 5"``."""
    return str(published[0].protocol["table"]).partition(" (")[0]


def _label(row: Measurement) -> str:
    """A variant that is no term of a score is printed as it is called: ``"VAEBM: splits=10"``."""
    return names.system_label(row.system, row.variant)


def _published_row(
    rows: Sequence[Measurement], columns: Sequence[Column], deviations: Mapping[tuple[str, str, str], Deviation]
) -> tuple[str, Row]:
    first, cells = rows[0], {}
    for row in rows:
        cells[row.metric] = cell = Cell.of(row)
        known = deviations.get((row.protocol["table"], row.system, row.metric))
        if known:
            cells[row.metric] = replace(cell, note=known.note, comparable=cell.comparable if known.ranked else "")
    empty = Cell(None, note=NOT_PUBLISHED, origin="published", dataset=first.dataset)
    made = Row(
        label=first.provenance["label"],
        size=first.size,
        origin="published",
        cells=tuple(cells.get(column.key, replace(empty, metric=column.key)) for column in columns),
        citation=first.provenance["citation"],
        system=first.system,
    )
    return first.provenance["category"], made
