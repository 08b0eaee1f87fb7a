"""Kernel distance: the unbiased squared maximum mean discrepancy (MMD) with a polynomial kernel.

KID in Inception features. Inner products are in float32 (in float64 below 129 features), the kernel's sums in float64: on
Inception-like features the value then agrees with a float64 computation to about 1e-6 of itself. Kernel matrices exist one block at
a time.

Reference: Binkowski, Sutherland, Arbel and Gretton, Demystifying MMD GANs (ICLR 2018).
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from evaluators.metrics.feature_arrays import Features, two_feature_sets
from evaluators.metrics.intervals import CONFIDENCE, Estimate
from evaluators.metrics.pairs import Block, distance_blocks
from vaebm.errors import UserError

_ROWS = 250  # rows the kernel is raised to its power at once: they stay in a processor cache


def kid(x: ArrayLike, y: ArrayLike, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> Estimate:
    """Unbiased MMD^2 over all images of both sets, with the interval of its standard error.

    MMD^2 = sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum_{i, j} k(x_i, y_j) / (m n),
    k(a, b) = (gamma a . b + coef0)^degree. Every pair is used once, so there is no seed and no subset size.

    The interval is value +- 1.96 s, with s^2 = 4 var(a) / m + 4 var(b) / n from the linear (Hajek) part of the U-statistic:
    a_i = mean_{j != i} k(x_i, x_j) - mean_j k(x_i, y_j), b_j alike. Simulated coverage is 94-98 % where the sets differ; where
    they do not, the linear part vanishes, s is then too large (by about 1.4) and the interval covers more than 95 %.

    Args:
        x, y: finite features (m, D), (n, D), m, n >= 2, of one extractor.
        degree: >= 1. gamma: 1 / D unless given.

    Returns:
        A number that may lie a little below 0 where the sets are alike; 0 = same distribution under this kernel.

    Raises:
        UserError: fewer than two images a set, NaN or infinite features, unlike numbers of features, a kernel that
            overflows float32.

    Reference: Hoeffding, A class of statistics with asymptotically normal distribution, Annals of Mathematical
    Statistics 19 (1948); Binkowski et al. (2018), appendix.
    """
    p, q = two_feature_sets(x, "KID features", y, "KID reference features", at_least=2)
    kernel = KernelDistance(q, p, degree=degree, gamma=gamma, coef0=coef0)
    for one, other in ((0, 0), (1, 1), (0, 1)):
        for _ in kernel.pairs(one, other):
            pass
    return kernel.estimate()


def kid_subsets(
    x: ArrayLike,
    y: ArrayLike,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased MMD^2 of random subsets: the form papers quote.

    Each subset is ``size`` images of x and of y, without replacement; indices are drawn by ``numpy.random.RandomState(seed)``,
    first those of x, then those of y. torch-fidelity draws alike, with seed 2020, and so gives the same subsets.

    The standard deviation is that of one subset. It is no standard error of the mean: subsets share images. :func:`kid` has one.

    Args:
        x, y: finite features (m, D), (n, D), m, n >= size.
        subsets: >= 1. size: >= 2. degree, gamma, coef0: of the kernel, as in :func:`kid`.

    Raises:
        UserError: fewer images than ``size``, and what :func:`kid` refuses.
    """
    p, q = two_feature_sets(x, "KID features", y, "KID reference features", at_least=2)
    if subsets < 1 or size < 2:
        raise UserError(f"KID: found {subsets} subsets of {size} images, needed at least 1 subset of at least 2")
    if min(len(p), len(q)) < size:
        raise UserError(
            f"KID: found sets of {len(p)} and {len(q)} images, needed at least the subset size {size} in each; "
            "choose a smaller subset size"
        )
    kernel = _Kernel(p, q, degree, gamma, coef0)
    rng = np.random.RandomState(seed)
    both = np.empty((2 * size, p.shape[1]), dtype=np.float32)
    values = np.empty(subsets)
    for s in range(subsets):
        both[:size] = p[rng.choice(len(p), size, replace=False)]
        both[size:] = q[rng.choice(len(q), size, replace=False)]
        # One symmetric product holds all three kernel matrices and costs half of a general one.
        products = both @ both.T
        within = cross = 0.0
        for first in (0, size):
            for start in range(first, first + size, _ROWS):
                rows = slice(start, min(start + _ROWS, first + size))
                k = kernel.of_products(products[rows, first : first + size])
                within += k.sum(dtype=np.float64) - np.trace(k, offset=start - first, dtype=np.float64)
                if first == 0:
                    cross += kernel.of_products(products[rows, size:]).sum(dtype=np.float64)
        values[s] = within / (size * (size - 1)) - 2 * cross / size**2
    return float(values.mean()), float(values.std())


class KernelDistance:
    """What :func:`kid` returns, of two sets, from blocks of their squared distances: 2 x . y = |x|^2 + |y|^2 - |x - y|^2.

    Raises:
        UserError: the kernel overflows float32.
    """

    def __init__(
        self, x: Features, y: Features, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0
    ) -> None:
        self._kernel = _Kernel(x, y, degree, gamma, coef0)
        self._sets, self._norms = (x, y), (_squared_norms(x), _squared_norms(y))
        self._centre = x.mean(axis=0, dtype=np.float64)  # one for all pairs: what rounding does to an image cancels
        # Of each image of a set, the kernel's sum over the images of a set.
        self._sums = [[np.zeros(len(z)) for _ in self._sets] for z in self._sets]

    def pairs(self, one: int, other: int) -> Iterator[Block]:
        """Yield :func:`distance_blocks` from set ``one`` to set ``other`` (0 = x, 1 = y), and sum the kernel over them.

        (0, 0), (1, 1) and (0, 1) have to be had once each before :meth:`estimate`.
        """
        for block in distance_blocks(self._sets[one], self._sets[other], within=one == other, centre=self._centre):
            products = block.squared * -0.5
            products += (0.5 * self._norms[one][block.rows, None]).astype(products.dtype)
            products += (0.5 * self._norms[other][block.columns]).astype(products.dtype)
            k = self._kernel.of_products(products)
            diagonal = one == other and block.rows == block.columns
            if diagonal:
                np.fill_diagonal(k, 0)
            self._sums[one][other][block.rows] += k.sum(axis=1, dtype=np.float64)
            if not diagonal:
                self._sums[other][one][block.columns] += k.sum(axis=0, dtype=np.float64)
            yield block

    def estimate(self) -> Estimate:
        """Return the distance and its interval."""
        (xx, xy), (yx, yy) = self._sums
        m, n = len(xx), len(yy)
        value = xx.sum() / (m * (m - 1)) + yy.sum() / (n * (n - 1)) - 2 * xy.sum() / (m * n)
        a, b = xx / (m - 1) - xy / n, yy / (n - 1) - yx / m
        half = norm.ppf((1 + CONFIDENCE) / 2) * 2 * math.sqrt(np.var(a, ddof=1) / m + np.var(b, ddof=1) / n)
        return Estimate(float(value), float(value - half), float(value + half))


class _Kernel:
    """k(a, b) = (gamma a . b + coef0)^degree."""

    def __init__(self, p: Features, q: Features, degree: int, gamma: float | None, coef0: float) -> None:
        if degree < 1:
            raise UserError(f"KID: found kernel degree {degree}, needed at least 1")
        self.degree = degree
        self.gamma = 1 / p.shape[1] if gamma is None else float(gamma)
        self.coef0 = float(coef0)
        # No inner product exceeds the largest squared norm.
        largest = max(float(_squared_norms(z).max()) for z in (p, q))
        base = abs(self.gamma) * largest + abs(coef0)
        if base > float(np.finfo(np.float32).max) ** (1 / degree):
            raise UserError(
                f"KID: a kernel of degree {degree} overflows float32: found features of norm {math.sqrt(largest):.3g}, "
                "needed them of scale 1; divide them by their scale"
            )

    def of_products(self, products: NDArray) -> NDArray:
        base = products * self.gamma
        base += self.coef0
        k = base.copy() if self.degree > 1 else base
        for _ in range(self.degree - 1):
            k *= base
        return k


def _squared_norms(z: Features) -> NDArray[np.float64]:
    return np.einsum("ij,ij->i", z, z, dtype=np.float64)
