"""Standard deviation of a sample with an interval."""

import numpy as np
from numpy.typing import ArrayLike

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import (
    CONFIDENCE,
    REPLICATES,
    Estimate,
    check_confidence,
    percentiles,
    resample_counts,
)


def standard_deviation(
    values: ArrayLike, *, seed: int = 0, replicates: int = REPLICATES, confidence: float = CONFIDENCE
) -> Estimate:
    """sqrt(sum (x - mean)^2 / (N - 1)) with a percentile-bootstrap interval.

    Args:
        values: finite numbers (N,), N >= 2.
        seed, replicates, confidence: of the bootstrap.

    Returns:
        In the units of ``values``, >= 0.

    Raises:
        UserError: fewer than two values, NaN or infinity.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    check_confidence(confidence)
    x = finite_scores(values, "values", at_least=2)
    n = len(x)
    centred = x - x.mean()  # so that the difference of squares below loses no digits
    drawn = resample_counts(n, replicates, seed).T.astype(np.float64)
    mean, square = drawn @ centred / n, drawn @ centred**2 / n
    resampled = np.sqrt(np.maximum(square - mean**2, 0) * n / (n - 1))
    return Estimate(float(np.std(x, ddof=1)), *percentiles(resampled, confidence))
