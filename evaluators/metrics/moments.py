"""What a Frechet distance and an Inception score need of a set of images, summed in groups as the images come.

Image i belongs to group i % G, so the groups are alike, whatever the order of the images. The sums of the groups add up
to those of the set, and leaving one group out gives the jackknife (:mod:`evaluators.metrics.jackknife`) without seeing
an image twice. Memory does not depend on the number of images.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dsyrk
from scipy.special import log_softmax

from evaluators.metrics.feature_arrays import finite_features
from vaebm.errors import UserError

GROUPS = 20

_ROWS = 128  # rows of a group that are multiplied at once: fewer make slow products, more only take memory

Vector = NDArray[np.float64]  # (D,)
Matrix = NDArray[np.float64]  # (D, D)


class GroupedMoments:
    """Count, sum and Gram matrix of the features of each group of images, float64.

    All sums are of x - pivot, the pivot being the first features added: sum x x' - n mu mu' would otherwise lose digits
    where the mean is large beside the spread.

    Attributes:
        counts: images of each group, int64 (G,).
        sums: sum of x - pivot, (G, D).
        grams: sum of (x - pivot)(x - pivot)', (G, D, D); the lower triangle, zeros above it.
        pivot: (D,).

    Memory: 8 G D^2 bytes, and as much as 128 G images of features (D = 2048, G = 20: 671 MB and 42 MB).
    """

    def __init__(self, dim: int, groups: int = GROUPS, own: Sequence[int] | None = None) -> None:
        """Start empty.

        Args:
            own: the groups that are summed here, None is all; those of the others stay 0. Several processes that own disjoint groups and
                see the same images hold, added up, bit for bit what one process holds that owns all of them.

        Raises:
            UserError: no features, or no groups.
        """
        if dim < 1 or groups < 1:
            raise UserError(f"moments: found {dim} features and {groups} groups, needed at least 1 of both")
        self._own = range(groups) if own is None else own
        self.pivot: Vector = np.zeros(dim)
        self._begun = False
        self._counts, self._sums = np.zeros(groups, dtype=np.int64), np.zeros((groups, dim))
        self._grams = np.zeros((groups, dim, dim))
        self._waiting: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []  # (rows - pivot, their groups)

    @classmethod
    def from_features(cls, features: ArrayLike, groups: int = GROUPS) -> Self:
        """Return the moments of features (N, D) of images 0, ..., N - 1. Raises: as :meth:`add`."""
        rows = finite_features(features, "features")
        moments = cls(rows.shape[1], groups)
        moments.add(rows, 0)
        return moments

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_arrays` took apart.

        Raises:
            UserError: an array is missing or has another shape than the others ask for.
        """
        counts, sums, grams, pivot = _read(arrays, "moments", ("counts", "sums", "grams", "pivot"))
        if sums.ndim != 2 or grams.shape != (*sums.shape, sums.shape[1]) or pivot.shape != sums.shape[1:]:
            raise UserError(f"moments: found sums {sums.shape}, grams {grams.shape}, pivot {pivot.shape}")
        moments = cls.__new__(cls)
        moments.pivot, moments._waiting, moments._own = pivot, [], range(len(counts))
        moments._begun = bool(counts.sum())
        moments._counts, moments._sums, moments._grams = counts.astype(np.int64), sums, np.ascontiguousarray(grams)
        return moments

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``counts``, ``sums``, ``grams`` and ``pivot``, uncopied, for an .npz file."""
        return {"counts": self.counts, "sums": self.sums, "grams": self.grams, "pivot": self.pivot}

    def add(self, features: ArrayLike, start: int) -> None:
        """Add images ``start``, ``start + 1``, ...: real features (n, D).

        How a set is cut into calls changes the sums by rounding only.

        Raises:
            UserError: another number of features than before, NaN or infinity.
        """
        rows = finite_features(features, "features", at_least=0)
        if rows.shape[1] != self.dim:
            raise UserError(f"features: found {rows.shape[1]} features per image, needed {self.dim} as before")
        if not self._begun and len(rows):
            self.pivot, self._begun = rows[0].astype(np.float64), True
        most = _ROWS * len(self._counts)
        for first in range(0, len(rows), most):
            part = rows[first : first + most] - self.pivot
            self._waiting.append((part, (start + first + np.arange(len(part))) % len(self._counts)))
            if sum(len(waiting) for waiting, _ in self._waiting) >= most:
                self._flush()

    @property
    def dim(self) -> int:
        """Features per image, D."""
        return len(self.pivot)

    @property
    def n(self) -> int:
        """Images so far."""
        return int(self._counts.sum()) + sum(len(rows) for rows, _ in self._waiting)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images of each group (G,)."""
        return self._flush()._counts

    @property
    def sums(self) -> NDArray[np.float64]:
        """Sum of x - pivot of each group (G, D)."""
        return self._flush()._sums

    @property
    def grams(self) -> NDArray[np.float64]:
        """Lower triangle of the Gram matrix of x - pivot of each group (G, D, D)."""
        return self._flush()._grams

    def statistics(self, groups: Sequence[int] | None = None) -> tuple[int, Vector, Matrix]:
        """Return n, the mean (D,) and the covariance (D, D) with divisor n - 1.

        Args:
            groups: of which groups together; None is all.

        Raises:
            UserError: fewer than two images.
        """
        chosen = range(len(self._counts)) if groups is None else groups
        n = int(self.counts[list(chosen)].sum())
        if n < 2:
            raise UserError(f"covariance of features: found {n} images, needed at least 2")
        mean = self.sums[list(chosen)].sum(axis=0) / n
        covariance = np.zeros((self.dim, self.dim))
        for group in chosen:
            covariance += self.grams[group]
        covariance += np.tril(covariance, -1).T
        covariance -= n * np.outer(mean, mean)
        covariance /= n - 1
        return n, self.pivot + mean, covariance

    def quadratic(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return, for each group, the sum over its images of (x - pivot)' A (x - pivot) for a symmetric A: (G,)."""
        doubled = 2 * matrix  # the entries above the diagonal are those below it
        np.fill_diagonal(doubled, np.diagonal(matrix))
        return np.array([np.vdot(doubled, gram) for gram in self.grams])

    def _flush(self) -> Self:
        if not self._waiting:
            return self
        rows, groups = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        for group in self._own:
            mine = rows[groups == group]
            if len(mine):
                self._counts[group] += len(mine)
                self._sums[group] += mine.sum(axis=0)
                # BLAS counts by columns, so both are handed over transposed; it adds to one triangle, in place.
                dsyrk(1.0, mine.T, beta=1.0, c=self._grams[group].T, overwrite_c=True)
        return self


class ClassSums:
    """What an Inception score needs of the class probabilities of each group of images, float64.

    Attributes:
        counts: images of each group, int64 (G,).
        sum_p: sum of p(y|x), (G, K).
        sum_plogp: sum over images and classes of p(y|x) log p(y|x), (G,), in nats.
    """

    def __init__(self, classes: int, groups: int = GROUPS) -> None:
        """Start empty.

        Raises:
            UserError: fewer than two classes, or no groups.
        """
        if classes < 2 or groups < 1:
            raise UserError(f"class sums: found {classes} classes and {groups} groups, needed at least 2 and 1")
        self.counts = np.zeros(groups, dtype=np.int64)
        self.sum_p, self.sum_plogp = np.zeros((groups, classes)), np.zeros(groups)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_arrays` took apart.

        Raises:
            UserError: an array is missing or has another shape than the others ask for.
        """
        counts, sum_p, sum_plogp = _read(arrays, "class sums", ("counts", "sum_p", "sum_plogp"))
        if sum_p.ndim != 2 or sum_plogp.shape != sum_p.shape[:1]:
            raise UserError(f"class sums: found sum_p {sum_p.shape} and sum_plogp {sum_plogp.shape}")
        sums = cls.__new__(cls)
        sums.counts, sums.sum_p, sums.sum_plogp = counts.astype(np.int64), sum_p, sum_plogp
        return sums

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``counts``, ``sum_p`` and ``sum_plogp``, uncopied, for an .npz file."""
        return {"counts": self.counts, "sum_p": self.sum_p, "sum_plogp": self.sum_plogp}

    @property
    def n(self) -> int:
        """Images so far."""
        return int(self.counts.sum())

    def add(self, logits: ArrayLike, start: int) -> None:
        """Add images ``start``, ``start + 1``, ...: real logits (n, K); the softmax is taken in float64.

        Raises:
            UserError: another number of classes than before, NaN or infinity.
        """
        rows = finite_features(logits, "logits", at_least=0)
        if rows.shape[1] != self.sum_p.shape[1]:
            raise UserError(f"logits: found {rows.shape[1]} classes, needed {self.sum_p.shape[1]} as before")
        groups = len(self.counts)
        for first in range(min(groups, len(rows))):
            log_p = log_softmax(rows[first::groups].astype(np.float64), axis=1)
            p, group = np.exp(log_p), (start + first) % groups
            self.counts[group] += len(p)
            self.sum_p[group] += p.sum(axis=0)
            self.sum_plogp[group] += np.vdot(p, log_p)


def _read(arrays: Mapping[str, Any], what: str, names: Iterable[str]) -> list[NDArray[Any]]:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{what}: found no array {missing[0]!r}, only {', '.join(sorted(arrays)) or 'nothing'}")
    found = [np.asarray(arrays[name]) for name in names]
    if found[0].ndim != 1 or any(array.shape[:1] != found[0].shape for array in found[1:3]):
        raise UserError(f"{what}: found arrays of shapes {[array.shape for array in found]}, needed one row per group")
    return [found[0], *(array.astype(np.float64, copy=False) for array in found[1:])]
