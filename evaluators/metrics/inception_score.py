"""Inception score from class probabilities, or from their sums over groups of images."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from evaluators.metrics.feature_arrays import finite_features
from evaluators.metrics.intervals import Estimate
from evaluators.metrics.jackknife import jackknife
from evaluators.metrics.moments import ClassSums
from vaebm.errors import UserError


def inception_score(probabilities: ArrayLike, splits: int = 1) -> tuple[float, float]:
    """exp(mean over images of KL(p(y|x) || p(y))), with p(y) the mean of p(y|x).

    Args:
        probabilities: p(y|x) of a classifier (N, K), rows sum to 1.
        splits: the images are cut into so many runs of consecutive images (split s begins at image s N // splits), as
            in the field, where 10 is usual; each has its own p(y). The score of a split falls with its size.

    Returns:
        Mean over the splits of a number in [1, K], and its standard deviation over the splits (divisor: the number of
        splits, as in the field). That is the spread of the splits, not the standard error of their mean.

    Raises:
        UserError: NaN, negative numbers, rows that do not sum to 1, or fewer than two images in a split.

    Reference: Salimans et al., Improved techniques for training GANs, NeurIPS 2016.
    """
    p = finite_features(probabilities, "class probabilities").astype(np.float64, copy=False)
    sums = p.sum(axis=1)
    wrong = (p.min(axis=1) < 0) | (np.abs(sums - 1) > 1e-3)  # 1e-3: probabilities kept in half precision
    if wrong.any():
        first = int(np.argmax(wrong))
        raise UserError(
            f"class probabilities: row {first} has minimum {p[first].min():.4g} and sum {sums[first]:.6g}, "
            "needed a minimum of at least 0 and a sum of 1 (logits need a softmax first)"
        )
    if splits < 1 or len(p) < 2 * splits:
        raise UserError(f"Inception score: found {len(p)} images for {splits} splits, needed at least 2 in each")
    plogp, bounds = xlogy(p, p).sum(axis=1), [i * len(p) // splits for i in range(splits + 1)]
    counts = np.diff(bounds)
    scores = _scores(counts, np.add.reduceat(p, bounds[:-1]), np.add.reduceat(plogp, bounds[:-1]))
    return float(scores.mean()), float(scores.std())


def inception_score_estimate(class_sums: ClassSums) -> Estimate:
    """:func:`inception_score` of all images in one split, with the delete-group jackknife's 95 % interval.

    The interval is for the expected score at this N (at small N the score is too low), and is kept within [1, K].

    Raises:
        UserError: images in fewer than two groups.
    """
    counts, sum_p, sum_plogp = class_sums.counts, class_sums.sum_p, class_sums.sum_plogp
    if np.count_nonzero(counts) < 2:
        raise UserError(f"Inception score: found {class_sums.n} images, needed at least 2")
    value = float(_scores(counts.sum(keepdims=True), sum_p.sum(axis=0, keepdims=True), sum_plogp.sum(keepdims=True))[0])
    left_out = _scores(counts.sum() - counts, sum_p.sum(axis=0) - sum_p, sum_plogp.sum() - sum_plogp)
    found = jackknife(value, left_out, counts)
    return Estimate(value, min(value, max(1.0, found.low)), max(value, min(float(sum_p.shape[1]), found.high)))


def inception_score_splits(class_sums: ClassSums, splits: int = 10) -> tuple[float, float]:
    """:func:`inception_score` over splits, from sums: image i is in split i % ``splits``.

    The splits of the field are runs of consecutive images; for images in random order the two differ by chance alone.

    Args:
        splits: a divisor of the number of groups.

    Returns:
        Mean and standard deviation (divisor: the number of splits).

    Raises:
        UserError: another number of splits, or fewer than two images in a split.
    """
    groups = len(class_sums.counts)
    if splits < 1 or groups % splits:
        raise UserError(f"Inception score: found {splits} splits, needed a divisor of the {groups} groups of images")
    folded = [
        array.reshape(groups // splits, splits, *array.shape[1:]).sum(axis=0)
        for array in (class_sums.counts, class_sums.sum_p, class_sums.sum_plogp)
    ]
    if folded[0].min() < 2:
        raise UserError(f"Inception score: found {class_sums.n} images for {splits} splits, needed at least 2 in each")
    scores = _scores(*folded)
    return float(scores.mean()), float(scores.std())


def _scores(
    counts: NDArray[np.integer], sum_p: NDArray[np.float64], sum_plogp: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Score of each set of images (S,): exp(mean of sum_y p log p + entropy of the mean p)."""
    marginal = np.maximum(sum_p / counts[:, None], 0)  # subtraction may have left -1e-17 of a class
    return np.exp(sum_plogp / counts - xlogy(marginal, marginal).sum(axis=1))
