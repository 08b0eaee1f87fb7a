"""Nearest neighbours by blocks, and what they say about memorised training images.

Candidates are found from matrix products (:mod:`evaluators.metrics.pairs`). The distances returned are those of the candidates,
from differences in float64: a copy is at distance 0 exactly. Among more than k + 3 images whose distances differ by less than the
products resolve (a millionth of |a|^2 + |b|^2 in float32) any k may be taken. Memory beside the features is a few blocks and k
numbers per query, whatever N.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.feature_arrays import Features, finite_features, two_feature_sets
from evaluators.metrics.intervals import CONFIDENCE, REPLICATES, Estimate, check_replicates, percentiles
from evaluators.metrics.pairs import Block, distance_blocks, exact_squared_distances
from evaluators.metrics.proportion import proportion_interval
from vaebm.errors import UserError

_SPARE = 3  # candidates beyond k, should rounding have mixed up the last ones


def nearest(
    queries: ArrayLike, references: ArrayLike, k: int = 1, *, exclude_self: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Euclidean distances to the k nearest references of each query, ascending, and their positions.

    Args:
        queries, references: finite features (n, D), (m, D); flatten images first.
        k: neighbours, 1 <= k <= m (m - 1 with ``exclude_self``).
        exclude_self: both are the same set; image i is no neighbour of itself (its copies are).

    Returns:
        float64 (n, k) in the features' unit, int64 (n, k).

    Raises:
        UserError: no images, NaN or infinite features, unlike numbers of features, or k outside its range.
    """
    squared, indices = squared_neighbours(queries, references, k, exclude_self=exclude_self)
    return np.sqrt(squared), indices


def squared_neighbours(
    queries: ArrayLike,
    references: ArrayLike,
    k: int = 1,
    *,
    exclude_self: bool = False,
    pairs: Iterable[Block] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """As :func:`nearest`, with squared distances; ``pairs`` are their blocks where something else needs these too."""
    q, r = two_feature_sets(queries, "features of the queries", references, "features of the references")
    if exclude_self and len(q) != len(r):
        raise UserError(f"nearest: found {len(q)} queries and {len(r)} references, needed one set for exclude_self")
    if not 1 <= k <= len(r) - exclude_self:
        raise UserError(
            f"nearest: found k = {k} and {len(r)} images, needed 1 <= k "
            + ("< the number of images" if exclude_self else "<= the number of images")
        )
    found = _Candidates(len(q), min(k + _SPARE, len(r) - exclude_self))
    for block in distance_blocks(q, r, within=exclude_self) if pairs is None else pairs:
        rows, columns, squared = block.rows, block.columns, block.squared
        if exclude_self and columns == rows:
            np.fill_diagonal(squared, np.inf)
        found.add(rows, squared, columns.start)
        if exclude_self and columns != rows:
            found.add(columns, squared.T, rows.start)
    return found.best(q, r, k)


def authenticity(train: ArrayLike, samples: ArrayLike) -> Estimate:
    """Share of samples that are further from their nearest training image than that image is from its own nearest one.

    A_j = 1 if |s_j - t_i| > min_{l != i} |t_l - t_i|, with t_i the training image nearest to s_j. Copies have A_j = 0. For fresh
    draws of the training distribution 1 - A_j says that s_j and t_i are each other's nearest: in a locally even density this
    has probability 2/3 in one dimension, 0.6215 in two, and falls with the dimension; so fresh draws give 1/3, 0.3785, ...,
    about 1/2 or more in many dimensions. Compare with the figure of held-out images rather than with 1.

    The interval is that of a share of the samples, given the training images.

    Args:
        train, samples: finite features (m, D), (n, D), m >= 2.

    Returns:
        In [0, 1]; 0 = every sample is a copy or close to one.

    Raises:
        UserError: fewer than two training images, no samples, NaN or infinite features, unlike numbers of features.

    Reference: Alaa, van Breugel, Saveliev and van der Schaar, How faithful is your synthetic data? (ICML 2022).
    """
    t, s = two_feature_sets(train, "features of the training images", samples, "features of the samples")
    finite_features(t, "features of the training images", at_least=2)
    distance, index = squared_neighbours(s, t)
    met, position = np.unique(index[:, 0], return_inverse=True)
    own = squared_neighbours(t[met], t, 2)[0][:, 1]  # the first is the image itself, or a copy of it
    share = float(np.mean(distance[:, 0] > own[position]))
    return proportion_interval(share, math.sqrt(share * (1 - share) / len(s)), len(s))


def nearest_ratio(
    train: ArrayLike, held_out: ArrayLike, samples: ArrayLike, *, seed: int = 0, replicates: int = REPLICATES
) -> Estimate:
    """Median distance of the samples to their nearest training image, over that of held-out images.

    1 = as new as held-out images of the same distribution, << 1 = copies. Above 1 the samples lie away from the data.
    The interval is the bootstrap's percentiles over samples and over held-out images, given the training images.

    Args:
        train, held_out, samples: finite features (m, D), (h, D), (n, D).
        seed, replicates: of the resamples.

    Raises:
        UserError: an empty set, NaN or infinite features, unlike numbers of features, or held-out images of which half
            or more are copies of training images.
    """
    check_replicates(replicates)
    finite_features(samples, "features of the samples")
    finite_features(held_out, "features of the held-out images")
    ours, theirs = nearest(samples, train)[0][:, 0], nearest(held_out, train)[0][:, 0]
    if np.median(theirs) == 0:
        raise UserError(
            "nearest_ratio: at least half of the held-out images are training images, needed others; "
            "check that the reference splits differ"
        )
    rng = np.random.default_rng(seed)
    resampled = np.empty(replicates)
    for b in range(replicates):
        below = np.median(rng.choice(theirs, len(theirs)))
        resampled[b] = np.median(rng.choice(ours, len(ours))) / below if below > 0 else np.inf
    value = float(np.median(ours) / np.median(theirs))
    low, high = percentiles(resampled, CONFIDENCE)
    return Estimate(value, min(low, value), max(high, value))


class _Candidates:
    """The c smallest squared distances seen so far, and where."""

    def __init__(self, n: int, c: int) -> None:
        self.squared, self.index = np.full((n, c), np.inf), np.zeros((n, c), dtype=np.int64)

    def add(self, rows: slice, squared: NDArray, first: int) -> None:
        """Take in a block: distances of these rows to the references ``first``, ``first + 1``, ..."""
        best, index = self.squared[rows], self.index[rows]
        n, c = best.shape
        # After the first block few are closer than the c-th best: these are moved beside the best, row by row.
        i, j = np.nonzero(np.ascontiguousarray(squared < best.max(axis=1, keepdims=True)))
        closer = np.bincount(i, minlength=n)
        place = c + np.arange(len(i)) - np.repeat(np.cumsum(closer) - closer, closer)
        values = np.full((n, c + closer.max()), np.inf)
        indices = np.zeros(values.shape, dtype=np.int64)
        values[:, :c], indices[:, :c] = best, index
        values[i, place], indices[i, place] = squared[i, j], first + j
        kept = np.argpartition(values, c - 1, axis=1)[:, :c]
        best[:], index[:] = np.take_along_axis(values, kept, 1), np.take_along_axis(indices, kept, 1)

    def best(self, q: Features, r: Features, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The k nearest by exact distance; of equal ones the first in the set."""
        n, c = self.index.shape
        exact = exact_squared_distances(q, r, np.repeat(np.arange(n), c), self.index.ravel()).reshape(n, c)
        order = np.lexsort((self.index, exact), axis=1)[:, :k]
        return np.take_along_axis(exact, order, 1), np.take_along_axis(self.index, order, 1)
