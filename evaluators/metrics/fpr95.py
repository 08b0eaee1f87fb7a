"""False-positive rate at 95 % true-positive rate."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import CONFIDENCE, REPLICATES, Counts, Estimate, ranking_bootstrap

TPR = 0.95


def fpr_of_counts(true: Counts, false: Counts) -> NDArray[np.float64]:
    """False-positive rate of each column of cumulative counts (G, B) at the first threshold with TPR >= 0.95."""
    # Division, not 0.95 * m: correctly rounded, so that exactly 19 of 20 counts as 0.95.
    threshold = np.argmax(true / true[-1] >= TPR, axis=0)  # (B,)
    return np.asarray(false[threshold, np.arange(false.shape[1])] / false[-1])


def fpr95(
    in_scores: ArrayLike,
    out_scores: ArrayLike,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Share of out-of-distribution images with score >= t, where t is the largest score that keeps >= 95 % of the
    in-distribution ones.

    In-distribution is the positive class. In [0, 1], lower is better, 0.95 tells nothing. A tie at t counts on both
    sides, so a constant scorer gets 1.

    Args:
        in_scores, out_scores: finite scores (m,), (n,); higher = more in-distribution.
        seed, replicates, confidence: of the stratified percentile bootstrap, which draws t anew in each resample.

    Raises:
        UserError: empty, NaN or infinite scores.

    Reference: Liang, Li and Srikant, Enhancing the reliability of out-of-distribution image detection (ODIN, 2018).
    """
    p, q = finite_scores(in_scores, "in-distribution scores"), finite_scores(out_scores, "out-of-distribution scores")
    statistics = {"fpr95": fpr_of_counts}
    return ranking_bootstrap(p, q, statistics, seed=seed, replicates=replicates, confidence=confidence)["fpr95"]
