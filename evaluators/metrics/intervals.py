"""Bootstrap for metrics that depend on the scores through their ranking alone.

Such a metric is a function of how many positives and negatives stand at or above each distinct score. A resample of the
images only changes these counts, so 1,000 resamples are one (scores x resamples) integer matrix and no score is sorted
twice.
"""

from collections.abc import Callable
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
    """A number and its interval, ``low <= high``."""

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

    Raises:
        UserError: no resamples.
    """
    check_replicates(replicates)
    rng = np.random.default_rng([seed, stratum])
    counts = np.empty((n, replicates), dtype=np.uint16)
    for column in range(replicates):
        counts[:, column] = np.bincount(rng.integers(n, size=n), minlength=n)
    counts.flags.writeable = False
    return counts


def bootstrap_ranking(
    positive: ArrayLike,
    negative: ArrayLike,
    statistic: RankingStatistic,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> tuple[float, NDArray[np.float64]]:
    """Value of a ranking metric and its values on stratified resamples.

    Positives and negatives are resampled separately, each with replacement to its own size, so the base rate stays.

    Args:
        positive, negative: finite scores (m,), (n,); higher = positive.
        statistic: function of two integer matrices (G, B): the number of positives and of negatives at or above each of
            G distinct scores, best score first, in each of B resamples (so the last row is all of them); it returns
            float64 (B,).
        seed, replicates: of the resamples.

    Returns:
        The value, and float64 (replicates,).

    Raises:
        UserError: empty, NaN or infinite scores, or no resamples.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 8.
    """
    check_replicates(replicates)
    p, q = finite_scores(positive, "positive scores"), finite_scores(negative, "negative scores")
    levels, group = np.unique(np.concatenate([p, q]), return_inverse=True)
    group = len(levels) - 1 - group  # best score first
    parts = []
    for stratum, members in enumerate((group[: len(p)], group[len(p) :])):
        order = np.argsort(members, kind="stable")
        present, first = np.unique(members[order], return_index=True)
        parts.append((resample_counts(len(members), replicates, seed, stratum), order, present, first))

    resampled = []
    width = max(1, _BLOCK // len(levels))
    for start in range(0, replicates, width):
        block = []
        for drawn, order, present, first in parts:
            columns = drawn[:, start : start + width]
            counts = np.zeros((len(levels), columns.shape[1]), dtype=np.int32)
            drawn_in_order = columns[order]
            ties = len(first) < len(order)
            counts[present] = np.add.reduceat(drawn_in_order, first, axis=0, dtype=np.int32) if ties else drawn_in_order
            block.append(np.cumsum(counts, axis=0, dtype=np.int32))
        resampled.append(statistic(*block))

    observed = [
        np.cumsum(np.bincount(g, minlength=len(levels)), dtype=np.int32) for g in (group[: len(p)], group[len(p) :])
    ]
    value = statistic(observed[0][:, None], observed[1][:, None])
    return float(value[0]), np.concatenate(resampled)


def percentiles(resampled: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The (1 - confidence)/2 and (1 + confidence)/2 quantiles of resampled values (linear interpolation)."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def check_confidence(confidence: float) -> None:
    """Raises: UserError unless ``0 < confidence < 1``."""
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence}: needed a number between 0 and 1, for example 0.95")


def check_replicates(replicates: int) -> None:
    """Raises: UserError unless there are at least two resamples."""
    if replicates < 2:
        raise UserError(f"bootstrap: found {replicates} resamples, needed at least 2")
