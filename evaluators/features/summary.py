"""What the metrics need of a set of images in one feature space, from one pass over it.

    summary = summarise(images, extractor, keep_features=True, cache=Path("cache"))
    n, mu, cov = summary.moments.statistics()

The images are taken in chunks. What a chunk's features depend on is the key under which they are kept: the hash of its images and the
extractor's fingerprint. So a run that was killed loses one chunk, a set that has grown is computed where it is new, and changed images,
weights or settings are never answered with old features.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.array_store import ArrayStore
from evaluators.features.extractor import Extractor, Heads
from evaluators.metrics.feature_arrays import finite_features
from evaluators.metrics.moments import GROUPS, ClassSums, GroupedMoments
from evaluators.protocols import Images
from vaebm import parallel
from vaebm.errors import UserError

CHUNK = 100  # images between two writes; several processes take turns by them


class ImageArray(Protocol):
    """uint8 (N, H, W, C) that is read by slices: an array, a memory map, or anything that makes images when asked."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Images: ...


@dataclass(frozen=True)
class Statistics:
    """A mean and a covariance as somebody saved them: all a reference of FID needs, and nothing an interval could be had from.

    Attributes:
        n: number of images behind them; None where the file does not say.
        mu: float64 (D,).
        cov: float64 (D, D).
    """

    n: int | None
    mu: NDArray[np.float64]
    cov: NDArray[np.float64]

    def statistics(self) -> tuple[int | None, NDArray[np.float64], NDArray[np.float64]]:
        """Return (n, mu, cov), as ``GroupedMoments.statistics``."""
        return self.n, self.mu, self.cov


@dataclass(frozen=True)
class FeatureSummary:
    """A set of images in one feature space.

    Attributes:
        n: number of images; None for saved statistics that do not say.
        moments: of the features.
        spatial: moments of the spatial features, when asked for.
        classes: sums of class probabilities, when the extractor has logits.
        features: float (n, D), when kept.
        sha256: of the images, as ``ImageSet.sha256``; of the arrays, where there were no images.
        image_shape: (H, W, C) of the images, where there were any.
    """

    n: int | None
    moments: GroupedMoments | Statistics
    spatial: GroupedMoments | Statistics | None
    classes: ClassSums | None
    features: NDArray[np.floating] | None
    sha256: str
    image_shape: tuple[int, ...] | None = None

    @classmethod
    def from_features(cls, features: ArrayLike, groups: int = GROUPS, name: str = "features") -> "FeatureSummary":
        """Summarise features that somebody saved, (N, D).

        Raises:
            UserError: they are not finite numbers in two dimensions; the message begins with ``name``.
        """
        found = finite_features(features, name)
        moments = GroupedMoments.from_features(found, groups)
        return cls(len(found), moments, None, None, found, _hash_of(found))

    @classmethod
    def from_statistics(cls, mu: ArrayLike, sigma: ArrayLike, n: int | None = None) -> "FeatureSummary":
        """Take a saved mean (D,) and covariance (D, D), which are checked where a distance to them is taken."""
        mean, cov = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
        return cls(n, Statistics(n, mean, cov), None, None, None, _hash_of(mean, cov))


def summarise(
    images: ImageArray,
    extractor: Extractor,
    *,
    keep_features: bool = False,
    spatial: bool = False,
    groups: int = GROUPS,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    name: str = "images",
    chunk: int = CHUNK,
) -> FeatureSummary:
    """Summarise images in one pass; memory grows with their number only where ``keep_features`` asks for it.

    Args:
        images: uint8 (N, H, W, C), read by slices.
        keep_features: whether every image's features are needed (KID, precision and recall, nearest neighbours).
        spatial: whether spatial moments are needed (sFID).
        groups: of the moments.
        cache: folder in which features are kept between runs; None: nowhere.
        progress: called with (images done, N) after each chunk.
        name: of the images, for messages.
        chunk: images between two writes, rounded up to whole batches; decides no number.

    Raises:
        UserError: no images, images the extractor does not take, features that are NaN or infinite (nothing of their chunk is kept), or the
            extractor has no spatial features.
    """
    total = len(images)
    if total == 0:
        raise UserError(f"{name}: found no images, needed at least one")
    if spatial and "spatial" not in extractor.heads:
        raise UserError(f"features of {extractor.name} have no spatial part; sfid needs those of inception")
    wanted = [head for head in extractor.heads if head != "spatial" or spatial]
    batch = getattr(extractor, "batch_size", 1)
    chunk = -(-chunk // batch) * batch  # a chunk that ends within a batch would pay for the padding each time
    store = ArrayStore(cache if extractor.fingerprint is not None else None)
    digest = hashlib.sha256(repr(tuple(map(int, images.shape))).encode())
    moments: dict[str, GroupedMoments] = {}
    classes: ClassSums | None = None
    kept: NDArray[np.floating] | None = None

    def heads_of(part: Images, start: int) -> Heads:
        def checked(first: int, last: int) -> Heads:
            heads = extractor.extract(part[first:last])
            about = f"features of {name} by {extractor.name}, images {start} to {start + len(part) - 1}"
            return {head: finite_features(heads[head], about) for head in wanted}

        key = {"images": _hash_of(part), "extractor": dict(extractor.fingerprint or {}), "heads": wanted}
        return store.compute(key, len(part), checked, chunk=len(part), label=f"features of {name}", alone=True)

    own = range(parallel.rank(), groups, parallel.world_size())
    for start, heads in _in_turns(images, chunk, heads_of, kept=store.folder is not None, progress=progress):
        part = np.ascontiguousarray(images[start : start + chunk])
        digest.update(part.data)
        heads = heads or heads_of(part, start)
        for head in ("features", "spatial"):
            if head in heads:
                if head not in moments:
                    moments[head] = GroupedMoments(heads[head].shape[1], groups, own)
                moments[head].add(heads[head], start)
        if "logits" in heads:
            classes = classes or ClassSums(heads["logits"].shape[1], groups)
            classes.add(heads["logits"], start)
        if keep_features:
            if kept is None:
                kept = np.empty((total, heads["features"].shape[1]), heads["features"].dtype)
            kept[start : start + len(part)] = heads["features"]
        if progress is not None and parallel.world_size() == 1:
            progress(start + len(part), total)
    for found in moments.values():
        parallel.sum_arrays(found.counts, found.sums, found.grams)
    shape = tuple(map(int, images.shape[1:]))
    return FeatureSummary(total, moments["features"], moments.get("spatial"), classes, kept, digest.hexdigest(), shape)


def _in_turns(
    images: ImageArray,
    chunk: int,
    heads_of: Callable[[Images, int], Heads],
    *,
    kept: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, Heads | None]]:
    """Yield where each chunk starts. Several processes have made the features by then, each its share: kept, or handed over here."""
    starts = range(0, len(images), chunk)
    if parallel.world_size() == 1:
        yield from ((start, None) for start in starts)
        return
    done = 0

    def make(start: int) -> Heads | None:
        nonlocal done
        heads = heads_of(np.ascontiguousarray(images[start : start + chunk]), start)
        done += chunk * parallel.world_size()  # the others are about as far
        if progress is not None:
            progress(min(done, len(images)), len(images))
        return None if kept else heads

    yield from zip(starts, parallel.in_turns(starts, make), strict=True)


def _hash_of(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
