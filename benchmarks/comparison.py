"""Two ways to the same numbers, ours and a reference, timed in turns: a row of the table that ratios.py collects.

rows = [Comparison.of("KID", "torch-fidelity", [1.1, 1.2], [2.4, 2.5], setting="10,000 images", unchanged="within 1e-9")]
write_json(path, {"comparisons": [row.to_json() for row in rows]})
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from evaluators.speed.order_statistics import median_of
from vaebm.atomic import write_atomically


@dataclass(frozen=True)
class Comparison:
    """A ratio, or why there is none.

    Attributes:
        what: what ours computes.
        against: the reference, by name.
        ours, reference: wall seconds, medians over rounds; None where nothing was measured.
        ratio: median over rounds of the reference's seconds divided by ours of the same round: larger than 1 where ours is faster.
        low, high: interval for the true median of that ratio, two of the rounds; None for a single round.
        coverage: probability with which they hold it.
        rounds: their number.
        setting: what decides the seconds: sizes, device, threads.
        unchanged: how far the numbers of the two are apart.
        wanted: the ratio asked for; 0 = none.
        reason: why nothing was measured.
    """

    what: str
    against: str
    ours: float | None = None
    reference: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    coverage: float = 0.0
    rounds: int = 0
    setting: str = ""
    unchanged: str = ""
    wanted: float = 0.0
    reason: str = ""

    @classmethod
    def of(
        cls,
        what: str,
        against: str,
        ours: Sequence[float],
        reference: Sequence[float],
        *,
        setting: str,
        unchanged: str,
        wanted: float = 0.0,
    ) -> Self:
        """Compare seconds, one of each per round."""
        ratio = median_of([theirs / own for own, theirs in zip(ours, reference, strict=True)])
        seconds = float(np.median(ours)), float(np.median(reference))
        interval = ratio.value, ratio.low, ratio.high, ratio.coverage
        return cls(what, against, *seconds, *interval, len(ours), setting, unchanged, wanted)

    @classmethod
    def missing(cls, what: str, against: str, reason: str) -> Self:
        """Say in one line why there is no ratio."""
        return cls(what, against, reason=" ".join(reason.split()))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary, of which ``Comparison(**row)`` makes the same again."""
        return asdict(self)


def write_json(path: Path, record: object) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
