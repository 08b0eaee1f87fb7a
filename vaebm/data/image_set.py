"""A set of images with its origin: what every reader of this package returns."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vaebm.data.spool import contiguous, release, taken

_BLOCK = 2**20  # bytes of images that are looked at together


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, and where they came from.

    Attributes:
        name: a name of ``DATASETS`` or the user's own label.
        images: uint8 (N, H, W, C), C = 1 or 3, C-contiguous; memory-mapped where they are many (``vaebm.data.spool``).
        source: one line for people: "bundled cut (2000 images)", "data root: packed sheets", ...
        split: "test", "train", or "" where there is no official split or it is not known.
        labels: int64 (N,), where known.
        index: int64 (N,), position in the official split (CelebA: the file number); -1 where not known.
        notes: whatever a reader of a result must know about these images.

    Raises:
        ValueError: an array has the wrong dtype or shape (a mistake of the program, not of the user).
    """

    name: str
    images: np.ndarray
    source: str
    split: str
    labels: np.ndarray | None = None
    index: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images = self.images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"images must be uint8 (N, H, W, 1 or 3), found {images.dtype} {images.shape}")
        object.__setattr__(self, "images", contiguous(images, self.name))
        for field in ("labels", "index"):
            values = getattr(self, field)
            if values is not None:
                values = np.asarray(values, dtype=np.int64)
                if values.shape != (len(images),):
                    raise ValueError(f"{field} must have shape ({len(images)},), found {values.shape}")
                object.__setattr__(self, field, values)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Hash of shape and pixels: equal for equal images, whatever they are called and wherever they lay."""
        return images_sha256(self.images)

    def head(self, n: int) -> "ImageSet":
        """The first ``n`` images (all, when there are fewer: look at ``len``)."""
        if n >= len(self):
            return self
        labels, index = (None if values is None else values[:n] for values in (self.labels, self.index))
        return replace(self, images=self.images[:n], labels=labels, index=index)

    def take(self, positions: np.ndarray) -> "ImageSet":
        """The images at ``positions``, an integer (M,) or boolean (N,) array, with their labels and index."""
        return replace(
            self,
            images=taken(self.images, np.asarray(positions), self.name),
            labels=None if self.labels is None else self.labels[positions],
            index=None if self.index is None else self.index[positions],
        )

    def with_notes(self, *notes: str) -> "ImageSet":
        """The same images with ``notes`` added."""
        return replace(self, notes=(*self.notes, *notes))


def blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images in order, some megabytes at a time, each block C-contiguous: what is memory-mapped stays on disk."""
    step = max(1, _BLOCK // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        yield np.ascontiguousarray(images[start : start + step])
        release(images)


def images_sha256(images: np.ndarray) -> str:
    """Hash of shape and pixels of uint8 (N, H, W, C); see ``ImageSet.sha256``."""
    digest = hashlib.sha256(repr(tuple(map(int, images.shape))).encode())
    for block in blocks(images):
        digest.update(block.data)
    return digest.hexdigest()
