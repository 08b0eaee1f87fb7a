"""How far do two runs' AUROCs of the same images move together?

Two estimates from the same images share the luck of the draw. What is common to both says nothing about which model is better,
so a comparison that knows their correlation sees differences that the two intervals alone hide.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.auroc import auroc, placements
from evaluators.ood.sets import means
from evaluators.protocols import Scores
from vaebm.errors import UserError

RunScores = Mapping[str, Mapping[str, Scores]]  # system -> data set -> (N,)
Parts = tuple[NDArray[np.float64], ...]  # what an estimate is the sum of the means of


class Pair(NamedTuple):
    """Two AUROCs (or means of AUROCs) of the same images, and their correlation.

    Attributes:
        correlation: in [-1, 1].
        first, second: the AUROCs in [0, 1] that the scores of each run have; whoever trusts the correlation for a number that is
            stored elsewhere has to see that it is this one.
    """

    correlation: float
    first: float
    second: float


def auroc_correlation(a_in: ArrayLike, a_out: ArrayLike, b_in: ArrayLike, b_out: ArrayLike) -> float:
    """DeLong's correlation of the AUROCs of two scorers on the same images in the same order.

    cov(V10_a, V10_b) / m + cov(V01_a, V01_b) / n over the root of the product of the two variances, with V10, V01 as in
    :func:`evaluators.metrics.auroc.placements`. In [-1, 1]; 0 where one of them has no variance.

    Args:
        a_in, b_in: finite scores (m,) of the in-distribution images; a_out, b_out: (n,) of the others; m, n >= 2.

    Raises:
        ValueError: unlike numbers of images. UserError: empty, NaN or infinite scores.

    Reference: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988).
    """
    return mean_auroc_correlation(a_in, [a_out], b_in, [b_out])


def mean_auroc_correlation(
    a_in: ArrayLike, a_outs: Sequence[ArrayLike], b_in: ArrayLike, b_outs: Sequence[ArrayLike]
) -> float:
    """The same for two means of AUROCs over K outer sets, whose in-distribution images are shared:
    the parts are mean_k V10_k (m,) and V01_k / K (n_k,), as in :func:`evaluators.metrics.auroc.mean_auroc_interval`.

    Raises:
        ValueError: unlike numbers of sets or images. UserError: empty, NaN or infinite scores.
    """
    found = [[placements(a_in, out) for out in a_outs], [placements(b_in, out) for out in b_outs]]
    return _correlation(*map(_parts_of_mean, found))


def correlations(a: RunScores, b: RunScores, in_dist: str) -> dict[tuple[str, str], float]:
    """Return ``(system, data set) -> correlation`` of two runs' AUROCs; see :func:`pairs`."""
    return {place: pair.correlation for place, pair in pairs(a, b, in_dist).items()}


def pairs(a: RunScores, b: RunScores, in_dist: str) -> dict[tuple[str, str], Pair]:
    """Return ``(system, data set) -> pair`` of two runs' AUROCs, and of their means, as ``(system, "mean")``, over several sets.

    Only what both runs have in equal numbers is there. Whether the images are the same, the numbers cannot tell: that is the
    caller's to know.

    Args:
        in_dist: name of the in-distribution set.
    """
    found: dict[tuple[str, str], Pair] = {}
    for system in sorted(a.keys() & b.keys()):
        first, second = a[system], b[system]
        alike = {name for name in first.keys() & second.keys() if len(first[name]) == len(second[name]) > 1}
        if in_dist not in alike:
            continue
        outer = sorted(alike - {in_dist})
        parts = {name: [placements(run[in_dist], run[name]) for run in (first, second)] for name in outer}
        values = {name: [auroc(run[in_dist], run[name]) for run in (first, second)] for name in outer}
        found |= {(system, name): Pair(_correlation(*parts[name]), *values[name]) for name in outer}
        for mean, sets in means(in_dist, sorted((first.keys() | second.keys()) - {in_dist})).items():
            if alike.issuperset(sets):
                own = zip(*(parts[name] for name in sets), strict=True)
                averages = np.mean([values[name] for name in sets], axis=0).tolist()
                found[system, mean] = Pair(_correlation(*map(_parts_of_mean, own)), *averages)
    return found


def score_correlations(a: Path, b: Path, in_dist: str) -> dict[tuple[str, str], Pair]:
    """Return :func:`pairs` of two files of scores as the OOD suite writes them.

    Raises:
        UserError: one of them is no such file.
    """
    return pairs(_read(a), _read(b), in_dist)


def _parts_of_mean(found: Sequence[Parts]) -> Parts:
    """Of K sets' (V10 (m,), V01 (n_k,)): mean_k V10_k, then every V01_k / K."""
    return (np.mean([v10 for v10, _ in found], axis=0), *(v01 / len(found) for _, v01 in found))


def _correlation(a: Parts, b: Parts) -> float:
    """Of two sums of means over independent samples, the same ones for both."""
    variance_a = variance_b = covariance = 0.0
    for x, y in zip(a, b, strict=True):
        both = np.cov(x, y) / len(x)  # raises ValueError for unlike lengths
        variance_a, variance_b, covariance = variance_a + both[0, 0], variance_b + both[1, 1], covariance + both[0, 1]
    scale = math.sqrt(variance_a * variance_b)
    return float(min(1.0, max(-1.0, covariance / scale))) if scale > 1e-24 else 0.0  # rounding leaves 1e-34


def _read(path: Path) -> dict[str, dict[str, Scores]]:
    """The whole scores of a file, without their terms."""
    scores: dict[str, dict[str, Scores]] = {}
    try:
        # Opened here: numpy leaves the handle open when the zip is damaged.
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            for name in file.files:
                system, dataset, term = name.split("/")
                if term == "score":
                    scores.setdefault(system, {})[dataset] = finite_scores(file[name], name)
    except Exception as error:  # zip, zlib, npy header, a pickle: numpy and zipfile raise what they like
        raise UserError(
            f"{path}: found no scores in it ({type(error).__name__}); needed an ood_scores.npz as --suite ood writes; "
            "remove the file to compare without it"
        ) from None
    return scores
