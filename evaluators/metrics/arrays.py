"""The check every ranking metric makes of its scores."""

import numpy as np
from numpy.typing import ArrayLike

from evaluators.protocols import Scores
from vaebm.errors import UserError


def finite_scores(values: ArrayLike, name: str, at_least: int = 1) -> Scores:
    """Return ``values`` as float64 (N,).

    Raises:
        UserError: not one-dimensional, fewer than ``at_least`` values, or some are NaN or infinite; the message begins
            with ``name``.
    """
    scores = np.asarray(values)
    if scores.dtype.kind not in "fiub":
        raise UserError(f"{name}: found {scores.dtype} values, needed real numbers, one score per image")
    scores = scores.astype(np.float64)
    if scores.ndim != 1:
        raise UserError(f"{name}: found an array of shape {scores.shape}, needed one score per image, shape (N,)")
    if len(scores) < at_least:
        raise UserError(f"{name}: found {len(scores)} scores, needed at least {at_least}")
    bad = ~np.isfinite(scores)
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(
            f"{name}: {int(bad.sum())} of {len(scores)} scores are NaN or infinite "
            f"(the first, {scores[first]}, at position {first}), needed finite numbers"
        )
    return scores
