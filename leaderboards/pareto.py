"""Which settings are worth their cost: those that no other one beats in cost and loss at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def non_dominated(cost: Sequence[float], loss: Sequence[float]) -> NDArray[np.bool_]:
    """Return which points no other point dominates: is at most as dear, at most as bad, and less in one of the two.

    Of points that are equal in both, none dominates another. By value: intervals are not looked at.

    Args:
        cost, loss: finite numbers (n,), less is better.

    Returns:
        bool (n,); True for at least one point where there is any.

    Raises:
        ValueError: unlike numbers of costs and losses, or one that is not finite.

    Reference: Kung, Luccio and Preparata, On finding the maxima of a set of vectors, Journal of the ACM 22 (1975).
    """
    x, y = np.asarray(cost, np.float64), np.asarray(loss, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"non_dominated: found costs of shape {x.shape} and losses of shape {y.shape}, needed (n,) both"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("non_dominated: found a cost or a loss that is not finite")
    kept = np.zeros(len(x), bool)
    best = np.inf  # loss of what is cheaper
    for here in np.lexsort((y, x)):  # the cheapest first, and of these the best
        if y[here] < best:
            best = y[here]
            kept |= (x == x[here]) & (y == y[here])
    return kept
