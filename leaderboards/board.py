"""A board is one table: ordered blocks of rows by columns, every cell with interval and origin."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evaluators.measurement import Measurement

if TYPE_CHECKING:
    import pandas as pd

# How one system makes its score is part of that system, as its weights are: it does not decide whether two AUROCs are
# comparable; how it draws its samples is part of it for the same reason. A key that is not listed here does decide, so an
# unknown one costs at most a bold face.
SCORE_KEYS = frozenset(
    {
        *("score", "estimator", "num_importance_samples", "K", "terms", "bound", "scale_of"),
        *("quadrature_z", "quadrature_x", "paired"),
    }
)
SAMPLING_KEYS = frozenset(
    {
        *("sampling", "sampler", "steps", "step_size", "temperature", "target", "metropolis", "output", "postprocess"),
        *(
            "noise_scale",
            "gradient_clip",
            "persistent_chain",
            "seconds_per_image",
            "chain",
            "own_recipe",
            "architecture",
        ),
    }
)


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: the number; ``None`` for an empty cell, whose ``note`` says why.
        low, high: 95 % interval, where there is one.
        n: images behind the number.
        seed: seed of the run.
        note: reason for an empty cell, or a caveat.
        origin: ``"measured"`` or ``"published"``.
        dataset, metric: what the number is.
        comparable: cells with the same text here may be ranked against each other; empty: with none.
        rank: 1 for the best of the comparable cells of its block and column, 2 for the second, 0 for all others; see
            :mod:`leaderboards.ranking`.
        measurement: what the cell shows, with protocol and provenance; ``None`` where nothing was measured or reported.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None
    note: str = ""
    origin: str = "measured"
    dataset: str = ""
    metric: str = ""
    comparable: str = ""
    rank: int = 0
    measurement: Measurement | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, row: Measurement) -> "Cell":
        """Return the cell of one measurement."""
        return cls(
            value=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
            seed=row.seed,
            note=row.note,
            origin=row.origin,
            dataset=row.dataset,
            metric=row.metric,
            comparable=_comparable(row),
            measurement=row,
        )

    def moved_to(self, dataset: str) -> "Cell":
        """Return this cell for another data set."""
        return replace(self, dataset=dataset)


def _comparable(row: Measurement) -> str:
    """Return a text that two measurements share when, and only when, they may be ranked against each other."""
    protocol = {key: value for key, value in row.protocol.items() if key not in SCORE_KEYS | SAMPLING_KEYS}
    # A caveat ("mean over three sets") counts too, and so does N, on which the bias of most sample metrics depends.
    return json.dumps([row.origin, row.metric, row.dataset, row.note, row.n, protocol], sort_keys=True, default=str)


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key, title: what it is called by programs and in print.
        magnitude: it holds magnitudes (three digits), not rates (decimals).
        decimals: digits behind the point, whatever the style says: 0 for counts.
        higher_is_better: printed as an arrow; ``None``: no arrow, as where the blocks of a table point both ways.
    """

    key: str
    title: str
    magnitude: bool = False
    decimals: int | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table; ``cells`` stand in the order of the board's columns.

    Attributes:
        label: the system as printed, e.g. ``"VAEBM"``.
        tag: what tells the row from others of that label, e.g. ``"measured, mini"``.
        nested: the row stands under the published row of the same system.
    """

    label: str
    size: str
    origin: str
    cells: tuple[Cell, ...]
    citation: str = ""
    system: str = ""
    variant: str = ""
    tag: str = ""
    nested: bool = False

    @property
    def full_label(self) -> str:
        """Label and tag: ``"VAEBM (measured, mini)"``."""
        return f"{self.label} ({self.tag})" if self.tag else self.label


@dataclass(frozen=True)
class Block:
    """Rows under one italic title.

    Attributes:
        ranked: its comparable cells compete for bold face; not so those of diagnostics and controls.
        higher_is_better: of the whole block, where that is not a matter of the column.
    """

    title: str
    rows: tuple[Row, ...]
    ranked: bool = False
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Board:
    """One table.

    Attributes:
        name: short key for files and ``\\label``, e.g. ``"ood"``.
        title: printed above the table.
        columns, blocks: the table.
        footnotes: sentences below it. The numbered reasons of cells are not among them: see :meth:`reasons`.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    footnotes: tuple[str, ...] = ()

    def cells(self) -> Iterator[tuple[Block, Row, Column, Cell]]:
        """Walk over all cells in reading order."""
        for block in self.blocks:
            for row in block.rows:
                for column, cell in zip(self.columns, row.cells, strict=True):
                    yield block, row, column, cell

    def reasons(self) -> dict[str, int]:
        """Number the notes of cells in reading order: ``{reason: 1, ...}``, each reason once."""
        numbers: dict[str, int] = {}
        for *_, cell in self.cells():
            if cell.note:
                numbers.setdefault(cell.note, len(numbers) + 1)
        return numbers

    def has_rank(self, rank: int) -> bool:
        """Return whether any cell has this rank."""
        return any(cell.rank == rank for *_, cell in self.cells())

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per cell: the tidy form, in full precision."""
        return [
            {
                "board": self.name,
                "block": block.title,
                "row": row.full_label,
                "system": row.system,
                "variant": row.variant,
                "size": row.size,
                "citation": row.citation,
                "column": column.key,
                "dataset": cell.dataset,
                "metric": cell.metric,
                "value": cell.value,
                "low": cell.low,
                "high": cell.high,
                "n": cell.n,
                "seed": cell.seed,
                "origin": cell.origin,
                "rank": cell.rank or None,
                "note": cell.note,
            }
            for block, row, column, cell in self.cells()
        ]

    def to_frame(self) -> "pd.DataFrame":
        """Return one line per row: block, row, system, variant, size, origin, citation, then per column ``<column>``,
        ``<column>_low`` and ``<column>_high`` (NaN where empty)."""
        import pandas as pd

        lines = []
        for block in self.blocks:
            for row in block.rows:
                line: dict[str, Any] = {"block": block.title, "row": row.full_label, "system": row.system}
                line |= {"variant": row.variant, "size": row.size, "origin": row.origin, "citation": row.citation}
                for column, cell in zip(self.columns, row.cells, strict=True):
                    line |= {column.key: cell.value, f"{column.key}_low": cell.low, f"{column.key}_high": cell.high}
                lines.append(line)
        frame = pd.DataFrame(lines)
        numeric = [f"{column.key}{end}" for column in self.columns for end in ("", "_low", "_high")] if lines else []
        return frame.astype(dict.fromkeys(numeric, float))


def drop_empty(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Leave out blocks without rows."""
    return tuple(block for block in blocks if block.rows)
