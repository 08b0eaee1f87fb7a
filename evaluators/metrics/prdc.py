"""Precision, recall, density and coverage: does a sample look real, is a real image within the model's reach.

A ball about each image reaches to its k-th nearest neighbour in its own set.

    precision = share of fake images inside some real ball         recall   = share of real images inside some fake ball
    density   = mean over fake images of (real balls it is in) / k coverage = share of real images with a fake image in their ball

All four come from one pass over real x fake, by blocks; :func:`prdc_and_kid` has the kernel distance from the same passes.
Distances that rounding could put on either side of a radius are taken again from differences in float64, so the values are those of
a float64 computation.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from evaluators.metrics.feature_arrays import Features, two_feature_sets
from evaluators.metrics.intervals import CONFIDENCE, Estimate
from evaluators.metrics.kid import KernelDistance
from evaluators.metrics.neighbours import squared_neighbours
from evaluators.metrics.pairs import Block, distance_blocks, exact_squared_distances
from evaluators.metrics.proportion import proportion_interval
from vaebm.errors import UserError

GROUPS = 20  # of each set, for the jackknife; image i belongs to group i % GROUPS


@dataclass(frozen=True)
class PRDC:
    """The four numbers; precision, recall and coverage in [0, 1], density >= 0 (1 is expected of the real distribution itself)."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def prdc(real: ArrayLike, fake: ArrayLike, *, k: int = 5, k_precision: int = 3) -> PRDC:
    """Improved precision and recall with ``k_precision`` neighbours; density and coverage with ``k``.

    A fake image at exactly the radius is inside for precision and recall (<=) and outside for density and coverage (<), as the
    papers' own codes have it; it matters for duplicates alone.

    Intervals (95 %) are for new real and new fake images and take the radii as fixed. The variance of a share of n images is
    p (1 - p) / n for these plus the delete-group jackknife's over 20 groups of the other set, whose balls they are in; that of the
    density is var(its terms) / n over fake images plus the same over real balls. Shares have Wilson's interval for their standard
    error. Simulated (Gaussians in 8 dimensions, 200 and 1,000 images): standard errors of the shares are 1.1-1.4 times the true
    ones (up to 2.6 times where the share is above 0.95), those of the density 0.8-1.05 times.

    Args:
        real, fake: finite features (n, D), (m, D) of one extractor, n and m > max(k, k_precision).
        k, k_precision: neighbours, >= 1. All four depend on k, n and m: compare only where these are equal.

    Raises:
        UserError: k >= n or k >= m, NaN or infinite features, unlike numbers of features.

    References: Kynkaanniemi et al., Improved precision and recall metric for assessing generative models (NeurIPS 2019); Naeem, Oh,
    Uh, Choi and Yoo, Reliable fidelity and diversity metrics for generative models (ICML 2020).
    """
    r, f = _checked(real, fake, k, k_precision)
    sets = (r, f)
    pairs = lambda one, other: distance_blocks(sets[one], sets[other], within=one == other)
    return _prdc(r, f, k, k_precision, pairs)


def prdc_and_kid(real: ArrayLike, fake: ArrayLike, *, k: int = 5, k_precision: int = 3) -> tuple[PRDC, Estimate]:
    """:func:`prdc` and :func:`evaluators.metrics.kid.kid` of the same images, in little more time than the first.

    Nearly all the time of either is in the same three matrix products, which are made once here.

    Raises:
        UserError: what either refuses.
    """
    r, f = _checked(real, fake, k, k_precision)
    kernel = KernelDistance(r, f)
    found = _prdc(r, f, k, k_precision, kernel.pairs)
    return found, kernel.estimate()


def _checked(real: ArrayLike, fake: ArrayLike, k: int, k_precision: int) -> tuple[Features, Features]:
    r, f = two_feature_sets(real, "features of the real images", fake, "features of the fake images")
    for name, value, sets in (("k", k, (r,)), ("k_precision", k_precision, (r, f))):
        if not 1 <= value < min(map(len, sets)):
            raise UserError(
                f"precision, recall, density, coverage: found {name} = {value}, {len(r)} real and {len(f)} fake images, "
                f"needed 1 <= {name} < the number of images; give more images or a smaller {name}"
            )
    return r, f


def _prdc(r: Features, f: Features, k: int, k_precision: int, pairs: Callable[[int, int], Iterator[Block]]) -> PRDC:
    """``pairs`` gives the distances from images of one set to those of the other: 0 = real, 1 = fake."""
    radii = squared_neighbours(r, r, max(k, k_precision), exclude_self=True, pairs=pairs(0, 0))[0]
    ball, precision_ball = radii[:, k - 1], radii[:, k_precision - 1]
    radii = squared_neighbours(f, f, k_precision, exclude_self=True, pairs=pairs(1, 1))[0]
    largest, fake_ball = np.maximum(ball, precision_ball), radii[:, k_precision - 1]

    balls = np.zeros(len(f))  # real balls that a fake image is in
    precise = np.zeros(
        (len(f), min(GROUPS, len(r)))
    )  # precision's real balls a fake image is in, by group of real images
    recalled = np.zeros((len(r), min(GROUPS, len(f))))  # fake balls a real image is in, by group of fake images
    covered = np.zeros_like(recalled)  # fake images in a real ball, by group of fake images
    for block in pairs(0, 1):
        # Most pairs are outside all balls for certain; what follows is of the others, i and j being positions in the block.
        near = block.squared <= (largest[block.rows] + block.row_doubt + block.column_doubt.max())[:, None]
        near |= block.squared <= fake_ball[block.columns] + block.column_doubt + block.row_doubt.max()
        i, j = np.nonzero(near)
        squared, doubt = block.squared[i, j].astype(np.float64), block.row_doubt[i] + block.column_doubt[j]
        i, j = block.rows.start + i, block.columns.start + j  # from here on in the sets
        unsure = np.zeros(len(i), dtype=bool)
        for radius in (ball[i], precision_ball[i], fake_ball[j]):
            unsure |= np.abs(squared - radius) <= doubt
        squared[unsure] = exact_squared_distances(r, f, i[unsure], j[unsure])

        inside = squared < ball[i]
        balls += np.bincount(j[inside], minlength=len(f))
        covered += _by_group(i[inside], j[inside], covered.shape)
        inside = squared <= fake_ball[j]
        recalled += _by_group(i[inside], j[inside], recalled.shape)
        inside = squared <= precision_ball[i]
        precise += _by_group(j[inside], i[inside], precise.shape)

    density = balls / k
    terms = covered.sum(axis=1) / k * len(r) / len(f)  # their mean is the density too
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(
        np.var(density, ddof=1) / len(f) + np.var(terms, ddof=1) / len(r)
    )
    mean = float(density.mean())
    return PRDC(
        precision=_share_reached(precise),
        recall=_share_reached(recalled),
        density=Estimate(mean, max(0.0, mean - half), mean + half),
        coverage=_share_reached(covered),
    )


def _by_group(i: NDArray, j: NDArray, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Number of pairs (i, j) of each image i with each group of images j."""
    n, groups = shape
    return np.bincount(i * groups + j % groups, minlength=n * groups).reshape(shape)


def _share_reached(reaching: NDArray[np.float64]) -> Estimate:
    """Share of the n images with a positive count, and its interval, from counts (n, groups of the other set)."""
    n, groups = reaching.shape
    total = reaching.sum(axis=1)
    share = float(np.mean(total > 0))
    without = np.mean(total[:, None] > reaching, axis=0)  # one group left out
    variance = share * (1 - share) / n + (groups - 1) / groups * np.sum((without - without.mean()) ** 2)
    return proportion_interval(share, math.sqrt(variance), n)
