"""Area under the precision-recall curve as average precision."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import CONFIDENCE, REPLICATES, Counts, Estimate, ranking_bootstrap
from vaebm.errors import UserError


@dataclass(frozen=True)
class AUPR(Estimate):
    """Average precision and its interval, beside ``base_rate``: what a scorer without any information gets."""

    base_rate: float


def average_precision_of_counts(true: Counts, false: Counts) -> NDArray[np.float64]:
    """Average precision of each column of cumulative counts (G, B): sum of (gain in recall) x precision."""
    # The maximum: a threshold above every resampled score has no precision, and no gain to weigh it with.
    precision = true / np.maximum(true + false, 1)
    gain = np.diff(true, axis=0, prepend=0)
    return np.asarray(np.einsum("gb,gb->b", gain, precision) / true[-1])


def aupr(
    in_scores: ArrayLike,
    out_scores: ArrayLike,
    *,
    positive: str = "in",
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> AUPR:
    """Average precision, AP = sum_t (R_t - R_{t-1}) P_t over the distinct scores t, best first, with a bootstrap
    interval.

    Tied scores enter as one threshold. In [0, 1], higher is better. It depends on the ratio of the two sample sizes, so
    it means nothing without ``base_rate`` = positives / all, which is its value for a scorer that tells nothing.

    Args:
        in_scores, out_scores: finite scores (m,), (n,) of in- and out-of-distribution images; higher = more
            in-distribution.
        positive: ``"in"`` (default), or ``"out"`` to count out-of-distribution images as positives, found by low
            scores.
        seed, replicates, confidence: of the stratified percentile bootstrap.

    Raises:
        UserError: another ``positive``; empty, NaN or infinite scores.

    Reference: Davis and Goadrich, The relationship between precision-recall and ROC curves (2006); the sum is
    scikit-learn's.
    """
    p, q = finite_scores(in_scores, "in-distribution scores"), finite_scores(out_scores, "out-of-distribution scores")
    if positive not in ("in", "out"):
        raise UserError(f"positive {positive!r}: needed 'in' or 'out'")
    if positive == "out":
        p, q = -q, -p
    statistics = {"aupr": average_precision_of_counts}
    found = ranking_bootstrap(p, q, statistics, seed=seed, replicates=replicates, confidence=confidence)["aupr"]
    return AUPR(found.value, found.low, found.high, base_rate=len(p) / (len(p) + len(q)))
