"""Percentile bootstrap for metrics that depend on the scores through their ranking alone.

Such a metric is a function of how many positives and negatives stand at or above each distinct score. A resample of the
images only changes these counts, so 1,000 resamples are one (scores x resamples) integer matrix and no score is sorted
twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.arrays import finite_scores
from vaebm.errors import UserError

REPLICATES = 1000
CONFIDENCE = 0.95

Counts = NDArray[np.int32]  # (thresholds, resamples)
RankingStatistic = Callable[[Counts, Counts], NDArray[np.float64]]

_BLOCK = 200_000  # count-matrix entries worked on at once: fits a processor cache, does not change any number


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, ``low <= high``; ``nan`` ends mean that the sample is too small for one."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=8)
def resample_counts(n: int, replicates: int, seed: int, stratum: int = 0) -> NDArray[np.uint16]:
    """How often each of ``n`` images occurs in each resample of ``n`` images with replacement.

    Returns:
        Read-only uint16 (n, replicates); every column sums to ``n``. It depends on the arguments alone, so all systems
        and metrics of a run see the same resamples. Strata (0 = in-distribution, 1 = out-of-distribution) are
        independent of each other.
    """
    check_replicates(replicates)
    # 64-bit draws whatever n is: narrower ones are buffered by numpy and would make the stream depend on how it is cut.
    rng = np.random.default_rng([seed, stratum])
    counts = np.empty((n, replicates), dtype=np.uint16)
    for column in range(replicates):
        counts[:, column] = np.bincount(rng.integers(n, size=n), minlength=n)
    counts.flags.writeable = False
    return counts


def ranking_bootstrap(
    positive: ArrayLike,
    negative: ArrayLike,
    statistics: Mapping[str, RankingStatistic],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> dict[str, Estimate]:
    """Value and stratified percentile-bootstrap interval of several ranking metrics on the same resamples.

    Positives and negatives are resampled separately, each with replacement to its own size, so the base rate stays what
    it is. The interval runs from the (1 - confidence)/2 to the (1 + confidence)/2 quantile of the resampled values
    (linear interpolation).

    Args:
        positive, negative: finite scores (m,), (n,); higher = positive.
        statistics: name -> function of two integer matrices (G, B): the number of positives and of negatives at or
            above each of G distinct scores, best score first, in each of B resamples (so the last row is all of them);
            it returns float64 (B,).
        seed: seed of the resamples.

    Raises:
        UserError: empty, NaN or infinite scores, or no resamples.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 8.
    """
    check_confidence(confidence)
    check_replicates(replicates)
    p, q = finite_scores(positive, "positive scores"), finite_scores(negative, "negative scores")
    levels, group = np.unique(np.concatenate([p, q]), return_inverse=True)
    group = len(levels) - 1 - group  # best score first
    members = (group[: len(p)], group[len(p) :])
    observed = [np.cumsum(np.bincount(part, minlength=len(levels)), dtype=np.int32)[:, None] for part in members]
    values = {name: float(statistic(*observed)[0]) for name, statistic in statistics.items()}

    resampled: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    width = max(1, _BLOCK // len(levels))
    orders = [np.argsort(part, kind="stable") for part in members]
    for start in range(0, replicates, width):
        block = []
        for stratum, (part, order) in enumerate(zip(members, orders, strict=True)):
            drawn = resample_counts(len(part), replicates, seed, stratum)[:, start : start + width]
            counts = np.zeros((len(levels), drawn.shape[1]), dtype=np.int32)
            present, first = np.unique(part[order], return_index=True)
            counts[present] = np.add.reduceat(drawn[order], first, axis=0, dtype=np.int32)
            block.append(np.cumsum(counts, axis=0, dtype=np.int32))
        for name, statistic in statistics.items():
            resampled[name].append(statistic(block[0], block[1]))
    return {name: _percentiles(values[name], np.concatenate(resampled[name]), confidence) for name in statistics}


def standard_deviation(
    values: ArrayLike, *, seed: int = 0, replicates: int = REPLICATES, confidence: float = CONFIDENCE
) -> Estimate:
    """Sample standard deviation (divisor N - 1) in the units of ``values`` (N >= 2), with a percentile-bootstrap
    interval.

    Raises:
        UserError: fewer than two values, NaN or infinity.
    """
    check_confidence(confidence)
    x = finite_scores(values, "values", at_least=2)
    n, value = len(x), float(np.std(x, ddof=1))
    centred = x - x.mean()  # so that the difference of squares below loses no digits
    drawn = resample_counts(n, replicates, seed).T.astype(np.float64)
    mean, square = drawn @ centred / n, drawn @ centred**2 / n
    resampled = np.sqrt(np.maximum(square - mean**2, 0) * n / (n - 1))
    return _percentiles(value, resampled, confidence)


def check_confidence(confidence: float) -> None:
    """Raises: UserError unless ``0 < confidence < 1``."""
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence}: needed a number between 0 and 1, for example 0.95")


def check_replicates(replicates: int) -> None:
    """Raises: UserError unless there is at least one resample."""
    if replicates < 1:
        raise UserError(f"bootstrap: found {replicates} resamples, needed at least 1")


def _percentiles(value: float, resampled: NDArray[np.float64], confidence: float) -> Estimate:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
