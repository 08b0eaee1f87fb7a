"""Precision, recall, density and coverage: does a sample look real, is a real image within the model's reach.

A ball about each image reaches to its k-th nearest neighbour in its own set.

    precision = share of fake images inside some real ball         recall   = share of real images inside some fake ball
    density   = mean over fake images of (real balls it is in) / k coverage = share of real images with a fake image in their ball

All four come from one pass over real x fake, by blocks. Distances that rounding could put on either side of a radius are taken again
from differences in float64, so the values are those of a float64 computation.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from evaluators.metrics.feature_arrays import two_feature_sets
from evaluators.metrics.intervals import CONFIDENCE, Estimate
from evaluators.metrics.neighbours import (
    Centred,
    blocks,
    exact_squared_distances,
    squared_distances,
    squared_neighbours,
)
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
    r, f = two_feature_sets(real, "features of the real images", fake, "features of the fake images")
    for name, value, sets in (("k", k, (r,)), ("k_precision", k_precision, (r, f))):
        if not 1 <= value < min(map(len, sets)):
            raise UserError(
                f"precision, recall, density, coverage: found {name} = {value}, {len(r)} real and {len(f)} fake images, "
                f"needed 1 <= {name} < the number of images; give more images or a smaller {name}"
            )
    real_radii = squared_neighbours(r, r, max(k, k_precision), exclude_self=True)[0]
    ball, precision_ball = real_radii[:, [k - 1]], real_radii[:, [k_precision - 1]]
    fake_ball = squared_neighbours(f, f, k_precision, exclude_self=True)[0][:, k_precision - 1]

    space = Centred(r)
    real_groups, fake_groups = _groups(len(r)), _groups(len(f))
    balls = np.zeros(len(f))  # real balls that a fake image is in
    precise = np.zeros(
        (len(f), real_groups.shape[1])
    )  # precision's real balls a fake image is in, by group of real images
    recalled = np.zeros((len(r), fake_groups.shape[1]))  # fake balls a real image is in, by group of fake images
    covered = np.zeros_like(recalled)  # fake images in a real ball, by group of fake images
    for rows in blocks(len(r)):
        a = space.block(r[rows])
        for columns in blocks(len(f)):
            b = space.block(f[columns])
            squared = squared_distances(a, b).astype(np.float64)
            doubt = space.resolution * (a[1][:, None] + b[1])
            unsure = np.zeros(squared.shape, dtype=bool)
            for radius in (ball[rows], precision_ball[rows], fake_ball[columns]):
                unsure |= np.abs(squared - radius) <= doubt
            i, j = np.nonzero(unsure)
            squared[i, j] = exact_squared_distances(r, f, rows.start + i, columns.start + j)

            inside = squared < ball[rows]
            balls[columns] += inside.sum(axis=0)
            covered[rows] += inside @ fake_groups[columns]
            recalled[rows] += (squared <= fake_ball[columns]) @ fake_groups[columns]
            precise[columns] += (squared <= precision_ball[rows]).T @ real_groups[rows]

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


def _groups(n: int) -> NDArray[np.float32]:
    """(n, groups) with a 1 where an image is in a group: products with it count, exactly, in float32."""
    groups = min(GROUPS, n)
    return np.eye(groups, dtype=np.float32)[np.arange(n) % groups]


def _share_reached(reaching: NDArray[np.float64]) -> Estimate:
    """Share of the n images with a positive count, and its interval, from counts (n, groups of the other set)."""
    n, groups = reaching.shape
    total = reaching.sum(axis=1)
    share = float(np.mean(total > 0))
    without = np.mean(total[:, None] > reaching, axis=0)  # one group left out
    variance = share * (1 - share) / n + (groups - 1) / groups * np.sum((without - without.mean()) ** 2)
    return proportion_interval(share, math.sqrt(variance), n)
