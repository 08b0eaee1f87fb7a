"""Area under the precision-recall curve as average precision."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import (
    CONFIDENCE,
    REPLICATES,
    Counts,
    Estimate,
    bootstrap_ranking,
    check_confidence,
)
from evaluators.metrics.logit_interval import logit_interval
from vaebm.errors import UserError


@dataclass(frozen=True)
class AUPR(Estimate):
    """Average precision and its interval, beside ``base_rate``: what a scorer without any information gets."""

    base_rate: float


def aupr(
    in_scores: ArrayLike,
    out_scores: ArrayLike,
    *,
    positive: str = "in",
    seed: int = 0,
    replicates: int = REPLICATES,
    confidence: float = CONFIDENCE,
) -> AUPR:
    """Average precision, AP = sum_t (R_t - R_{t-1}) P_t over the distinct scores t, best first.

    Tied scores enter as one threshold. In [0, 1], higher is better. It depends on the ratio of the two sample sizes, so
    it means nothing without ``base_rate`` = positives / all, which is its value for a scorer that tells nothing.

    Interval: on the logit scale, with the standard deviation of AP over stratified bootstrap resamples as its standard
    error. Percentiles of the resamples would not do: repeated images push the resampled AP up, so that for an inverted
    scorer (AUROC 0.05, 400 + 400 images) they cover the truth in 64 % of samples, and the logit interval in 94 %. A
    sample with AP = 1 has no spread to resample and gets [1, 1]: there, look at the AUROC's interval.

    Args:
        in_scores, out_scores: finite scores (m,), (n,) of in- and out-of-distribution images; higher = more
            in-distribution.
        positive: ``"in"`` (default), or ``"out"`` to count out-of-distribution images as positives, found by low
            scores.
        seed, replicates, confidence: of the bootstrap.

    Raises:
        UserError: another ``positive``; empty, NaN or infinite scores; fewer than two resamples.

    References: Davis and Goadrich, The relationship between precision-recall and ROC curves (2006), the sum is
        scikit-learn's; the logit scale: Boyd, Eng and Page, Area under the precision-recall curve: point estimates and
        confidence intervals (2013).
    """
    check_confidence(confidence)
    p, q = finite_scores(in_scores, "in-distribution scores"), finite_scores(out_scores, "out-of-distribution scores")
    if positive not in ("in", "out"):
        raise UserError(f"positive {positive!r}: needed 'in' or 'out'")
    if positive == "out":
        p, q = -q, -p
    value, resampled = bootstrap_ranking(p, q, _average_precision, seed=seed, replicates=replicates)
    spread = float(resampled.std(ddof=1))
    found = logit_interval(value, spread, confidence) if value < 1 else Estimate(value, value, value)
    return AUPR(found.value, found.low, found.high, base_rate=len(p) / (len(p) + len(q)))


def _average_precision(true: Counts, false: Counts) -> NDArray[np.float64]:
    """Average precision of each column of cumulative counts (G, B): sum of (gain in recall) x precision."""
    # The maximum: a threshold above every resampled score has no precision, and no gain to weigh it with.
    precision = true / np.maximum(true + false, 1)
    gain = np.diff(true, axis=0, prepend=0)
    # Rounding may leave 1 + 1e-16 for a perfect ranking.
    return np.minimum(np.einsum("gb,gb->b", gain, precision) / true[-1], 1.0)
