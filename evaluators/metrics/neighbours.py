"""Nearest neighbours by blocks, and what they say about memorised training images.

Candidates are found from squared distances |a|^2 + |b|^2 - 2 a . b, one matrix product per block, after the references' mean is
subtracted (it keeps the terms of the size of their sum). The distances returned are those of the candidates, from differences in
float64: a copy is at distance 0 exactly. Among more than k + 3 images whose distances differ by less than the products resolve
(a millionth of |a|^2 + |b|^2 in float32) any k may be taken. Memory beside the features is a few blocks and k numbers per query,
whatever N.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.feature_arrays import Features, finite_features, two_feature_sets
from evaluators.metrics.intervals import CONFIDENCE, REPLICATES, Estimate, check_replicates, percentiles
from evaluators.metrics.proportion import proportion_interval
from vaebm.errors import UserError

_BLOCK = 1000  # images a side of a block of distances
_SPARE = 3  # candidates beyond k, should rounding have mixed up the last ones
_EXACT = 2**17  # numbers differences are formed of at once: 1 MB
_FLOAT32_FROM = 129  # features; below, float64 products cost no more than the rest


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
    queries: ArrayLike, references: ArrayLike, k: int = 1, *, exclude_self: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """As :func:`nearest`, with squared distances."""
    q, r = two_feature_sets(queries, "features of the queries", references, "features of the references")
    if exclude_self and len(q) != len(r):
        raise UserError(f"nearest: found {len(q)} queries and {len(r)} references, needed one set for exclude_self")
    if not 1 <= k <= len(r) - exclude_self:
        raise UserError(
            f"nearest: found k = {k} and {len(r)} images, needed 1 <= k "
            + ("< the number of images" if exclude_self else "<= the number of images")
        )
    space = Centred(r)
    found = _Candidates(len(q), min(k + _SPARE, len(r) - exclude_self), space.dtype)
    for rows in blocks(len(q)):
        a = space.block(q[rows])
        for columns in blocks(len(r)):
            if exclude_self and columns.start < rows.start:
                continue  # seen as its mirror image
            squared = squared_distances(a, space.block(r[columns]))
            if exclude_self and columns == rows:
                np.fill_diagonal(squared, np.inf)
            found.add(rows, squared, columns.start)
            if exclude_self and columns != rows:
                found.add(columns, np.ascontiguousarray(squared.T), rows.start)
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


class Centred:
    """Blocks of features about the mean of a set, in the precision that products of their size need.

    float32 from 129 features on, where products are what takes the time; else float64.
    """

    def __init__(self, references: Features) -> None:
        d = references.shape[1]
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if d >= _FLOAT32_FROM else np.float64)
        self.centre = references.mean(axis=0, dtype=np.float64).astype(self.dtype)
        # Of |a|^2 + |b|^2: what rounding may change a squared distance by.
        self.resolution = float(np.finfo(self.dtype).eps) * (4 + math.sqrt(d))

    def block(self, features: Features) -> tuple[NDArray, NDArray]:
        """Return (n, D), and its squared norms (n,)."""
        a = features - self.centre
        a = a.astype(self.dtype, copy=False)
        return a, np.einsum("ij,ij->i", a, a)


def blocks(n: int, size: int = _BLOCK) -> Iterator[slice]:
    """Cut range(n) into slices of at most ``size``."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def squared_distances(a: tuple[NDArray, NDArray], b: tuple[NDArray, NDArray]) -> NDArray:
    """|a|^2 + |b|^2 - 2 a . b, >= 0, (n, m), of two of :meth:`Centred.block`."""
    squared = a[0] @ b[0].T
    squared *= -2
    squared += a[1][:, None]
    squared += b[1]
    return np.maximum(squared, 0, out=squared)


def exact_squared_distances(a: Features, b: Features, i: NDArray, j: NDArray) -> NDArray[np.float64]:
    """|a[i] - b[j]|^2 for each pair of positions, from differences in float64; the same number for (j, i)."""
    squared = np.empty(len(i))
    for part in blocks(len(i), max(1, _EXACT // a.shape[1])):
        difference = a[i[part]].astype(np.float64)
        difference -= b[j[part]]
        squared[part] = np.einsum("ij,ij->i", difference, difference)
    return squared


class _Candidates:
    """The c smallest squared distances seen so far, and where."""

    def __init__(self, n: int, c: int, dtype: np.dtype) -> None:
        self.squared = np.full((n, c), np.inf, dtype=dtype)
        self.index = np.zeros((n, c), dtype=np.int64)

    def add(self, rows: slice, squared: NDArray, first: int) -> None:
        """Take in a block: distances of these rows to the references ``first``, ``first + 1``, ..."""
        c = self.squared.shape[1]
        if c < squared.shape[1]:
            chosen = np.argpartition(squared, c - 1, axis=1)[:, :c]
            values = np.take_along_axis(squared, chosen, 1)
        else:
            chosen, values = np.broadcast_to(np.arange(squared.shape[1]), squared.shape), squared
        values = np.concatenate([self.squared[rows], values], axis=1)
        index = np.concatenate([self.index[rows], chosen + first], axis=1)
        kept = np.argpartition(values, c - 1, axis=1)[:, :c]
        self.squared[rows] = np.take_along_axis(values, kept, 1)
        self.index[rows] = np.take_along_axis(index, kept, 1)

    def best(self, q: Features, r: Features, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The k nearest by exact distance; of equal ones the first in the set."""
        n, c = self.index.shape
        exact = exact_squared_distances(q, r, np.repeat(np.arange(n), c), self.index.ravel()).reshape(n, c)
        order = np.lexsort((self.index, exact), axis=1)[:, :k]
        return np.take_along_axis(exact, order, 1), np.take_along_axis(self.index, order, 1)
