"""A run beside a stored one, cell by cell: what is worse, what is better, what cannot be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from evaluators.measurement import Measurement
from leaderboards.gate.statistics import ALPHA, holm, p_value, standard_error, tolerance
from leaderboards.metrics import score_or_sample_metric
from leaderboards.names import EXTRA
from vaebm.errors import UserError

Place = tuple[Any, ...]
Correlations = Mapping[tuple[str, str], float]  # (system, data set) -> of the two estimates of an AUROC


class Outcome(StrEnum):
    """What became of a cell."""

    REGRESSED = "regressed"
    INCOMPARABLE = "incomparable"
    MISSING = "missing"
    IMPROVED = "improved"
    NOISE = "within noise"
    EQUAL = "equal"
    NEW = "new"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Comparison:
    """One cell in both runs.

    Attributes:
        outcome: what became of it.
        baseline, run: its rows; ``None`` where it has none.
        reason: why it is incomparable, missing or not judged; and how its caveat changed, if it did.
        worse: it moved the bad way, where the metric has a direction.
        correlation: of the two estimates, as it entered the test.
        p: one-sided p-value of the move, before the correction.
        tolerance: how far it could have moved before Holm's first step would have called it real.
        sigmas: the move in standard errors, positive if worse; infinite where a number without any spread moved.
    """

    outcome: Outcome
    baseline: Measurement | None
    run: Measurement | None
    reason: str = ""
    worse: bool = False
    correlation: float = 0.0
    p: float | None = None
    tolerance: float | None = None
    sigmas: float = 0.0

    @property
    def row(self) -> Measurement:
        """The row that names the cell."""
        row = self.baseline or self.run
        assert row is not None
        return row

    @property
    def change(self) -> float | None:
        """Run minus baseline."""
        if not (self.run and self.baseline) or self.run.value is None or self.baseline.value is None:
            return None
        return self.run.value - self.baseline.value


def compare(
    run: Sequence[Measurement], baseline: Sequence[Measurement], correlations: Correlations | None = None
) -> list[Comparison]:
    """Compare all cells of two runs, those of the baseline first.

    A judged cell is called worse (or better) by a one-sided test of the difference with :func:`standard_error`, corrected by Holm's
    procedure over all judged cells.

    Args:
        run, baseline: measured rows.
        correlations: of the two runs' AUROC estimates; used where the provenance of both rows says that the images are the same.

    Raises:
        UserError: a run holds two rows for one cell.
    """
    several = _several(run) | _several(baseline)
    new, old = _by_place(run, several, "the run"), _by_place(baseline, several, "the baseline")
    cells = [_pair(old[place], new.get(place)) for place in old if old[place].value is not None]
    added = [row for place, row in new.items() if row.value is not None and _without_value(old.get(place))]
    return [*_judge(cells, correlations or {}), *(Comparison(Outcome.NEW, None, row) for row in added)]


def differing(run: Measurement, baseline: Measurement) -> dict[str, tuple[Any, Any]]:
    """Return what makes two rows incomparable: name -> (in the baseline, in the run)."""
    pairs = {"n": (baseline.n, run.n), "seed": (baseline.seed, run.seed)}
    old, new = baseline.settings, run.settings
    pairs |= {key: (old.get(key), new.get(key)) for key in {**old, **new}}
    return {key: values for key, values in pairs.items() if _plain(values[0]) != _plain(values[1])}


def judgeable(row: Measurement) -> bool:
    """Return whether a row can be tested: neither control nor variant, of a metric with a direction, with a value and its interval."""
    return not _not_judged_kind(row) and _direction(row.metric) is not None and None not in _estimate(row)


def has_scores(row: Measurement) -> bool:
    """Return whether a row is the AUROC of the scores that its run leaves for every image."""
    return (row.suite, row.metric, row.role, row.variant) == ("ood", "auroc", "headline", "")


def same_images(run: Measurement, baseline: Measurement) -> bool:
    """Return whether both rows say of which images they are, and say the same."""
    return bool(run.provenance.get("data")) and run.provenance.get("data") == baseline.provenance.get("data")


def _pair(baseline: Measurement, run: Measurement | None) -> Comparison:
    if run is None and baseline.variant.startswith(EXTRA):
        return Comparison(Outcome.NOT_JUDGED, baseline, None, reason="a further score that the run was not asked for")
    if run is None or run.value is None:
        return Comparison(Outcome.MISSING, baseline, run, reason=run.note if run else "no such row in the run")
    told = [f"{key}: {_told(old)} -> {_told(new)}" for key, (old, new) in differing(run, baseline).items()]
    outcome, reasons = Outcome.EQUAL, told
    if kind := _not_judged_kind(baseline):  # a control may depend on a package's version: it stops no one
        outcome, reasons = Outcome.NOT_JUDGED, [kind, *told]
    elif told:
        outcome = Outcome.INCOMPARABLE
    elif _direction(baseline.metric) is None:
        outcome, reasons = Outcome.NOT_JUDGED, ["no direction"]
    elif None in _estimate(baseline):
        neither = None in _estimate(run)
        outcome, reasons = Outcome.NOT_JUDGED, ["no interval" if neither else "the baseline has no interval"]
    elif None in _estimate(run):  # or a run could escape its test by losing an interval
        outcome, reasons = Outcome.INCOMPARABLE, ["the run has no interval"]
    if baseline.note != run.note:
        reasons = [*reasons, f"note: {_told(baseline.note or None)} -> {_told(run.note or None)}"]
    return Comparison(outcome, baseline, run, reason="; ".join(reasons))


def _judge(cells: Sequence[Comparison], correlations: Correlations) -> list[Comparison]:
    """Test the cells that can be: those that :func:`_pair` left as equal."""
    places = [i for i, cell in enumerate(cells) if cell.outcome is Outcome.EQUAL]
    tested = [_test(cells[i], len(places), correlations) for i in places]
    chance = lambda cell, worse: cell.p if cell.p is not None and cell.worse is worse else 1.0
    regressed = holm([chance(cell, True) for cell in tested])
    improved = holm([chance(cell, False) for cell in tested])
    judged = list(cells)
    for i, cell, bad, good in zip(places, tested, regressed, improved, strict=True):
        outcome = Outcome.REGRESSED if bad else Outcome.IMPROVED if good else Outcome.NOISE
        judged[i] = replace(cell, outcome=outcome) if cell.change else cell
    return judged


def _test(cell: Comparison, cells: int, correlations: Correlations) -> Comparison:
    run, baseline, change = cell.run, cell.baseline, cell.change
    assert run is not None
    assert baseline is not None
    assert change is not None
    up = change > 0
    greater, less = (run, baseline) if up else (baseline, run)
    known = has_scores(run) and same_images(run, baseline)
    correlation = correlations.get((run.system, run.dataset), 0.0) if known else 0.0
    error = standard_error(_estimate(greater), _estimate(less), correlation)
    worse = change != 0 and up is not _direction(run.metric)
    sigmas = abs(change) / error if error > 0 else float("inf") if change else 0.0
    return replace(
        cell,
        worse=worse,
        correlation=correlation,
        p=p_value(abs(change), error),
        tolerance=tolerance(error, cells, ALPHA),
        sigmas=sigmas if worse else -sigmas,
    )


def _not_judged_kind(row: Measurement) -> str:
    if row.role == "control":
        return "control"
    if row.suite == "speed":  # what else the machine does decides a time as much as the system
        return "time on a machine"
    return "diagnostic" if row.role == "diagnostic" and row.variant else ""


def _direction(metric: str) -> bool | None:
    return score_or_sample_metric(metric).higher_is_better


def _estimate(row: Measurement) -> tuple[Any, Any, Any]:
    return row.value, row.low, row.high


def _several(rows: Sequence[Measurement]) -> set[Place]:
    """Places that have rows of more than one seed."""
    seeds = Counter(place for place, _ in {(_place(row), row.seed) for row in rows})
    return {place for place, number in seeds.items() if number > 1}


def _by_place(rows: Sequence[Measurement], several: set[Place], where: str) -> dict[Place, Measurement]:
    found: dict[Place, Measurement] = {}
    for row in rows:
        place = (*_place(row), row.seed) if _place(row) in several else _place(row)
        if found.setdefault(place, row) != row:
            cell = " ".join(filter(None, (row.suite, row.system, row.dataset, row.metric, row.variant)))
            raise UserError(f"--check: found two rows for {cell} in {where}, needed one")
    return found


def _place(row: Measurement) -> Place:
    inside = str(row.protocol.get("in_distribution"))
    return (row.suite, inside, row.dataset, row.system, row.size, row.role, row.metric, row.variant)


def _without_value(row: Measurement | None) -> bool:
    return row is None or row.value is None


def _plain(value: Any) -> Any:
    """As it is in a file, where tuples are lists."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _told(value: Any) -> str:
    return "nothing" if value is None else str(value)
