"""Training batches whose order is a function of (seed, step): the same after a resume as without one."""

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Shuffled epochs over images held in memory.

    Args:
        images: uint8 (N, H, W, C).
        batch_size: images per batch; the remainder of an epoch that does not fill a batch is dropped.
        seed: the order of epoch ``e`` is a permutation drawn from (seed, e).
        flip: mirror each image left-right with probability 1/2 (drawn from torch's global generator).
        labels: integers (N,), for :meth:`labels_of`.
    """

    def __init__(
        self, images: np.ndarray, batch_size: int, seed: int, flip: bool = True, labels: np.ndarray | None = None
    ) -> None:
        # NCHW bytes: 4x smaller than floats, converted batch by batch.
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.labels = None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self.per_epoch = len(images) // batch_size
        if self.per_epoch == 0:
            raise ValueError(f"{len(images)} images do not fill one batch of {batch_size}")
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, step: int) -> Tensor:
        """Return the uint8 batch (B, C, H, W) of update ``step`` (from 1)."""
        batch = self.images[self._chosen(step)]
        if self.flip:
            mirrored = torch.rand(len(batch)) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        return batch

    def labels_of(self, step: int) -> Tensor:
        """Return the labels int64 (B,) of the images of update ``step``."""
        if self.labels is None:
            raise ValueError("the images have no labels")
        return self.labels[self._chosen(step)]

    def sample(self, n: int) -> Tensor:
        """Return n different images as they are, uint8 (n, C, H, W), drawn from the seed alone."""
        return self.images[np.random.default_rng(self.seed).permutation(len(self.images))[:n]]

    def _chosen(self, step: int) -> np.ndarray:
        epoch, position = divmod(step - 1, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]


def to_unit(batch: Tensor) -> Tensor:
    """Map uint8 to float32 in [0, 1] by x / 255."""
    return batch.float() / 255


def from_uint8(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Map uint8 (N, H, W, C) to images in [0, 1] (N, C, H, W): the inverse of :func:`to_uint8` up to its rounding."""
    return to_unit(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device))


def to_uint8(x: Tensor) -> np.ndarray:
    """Map images in [0, 1] (N, C, H, W) to uint8 (N, H, W, C): clamp, then round to nearest.

    NaN, where a chain or a flow left the finite numbers, becomes mid-grey: as a byte it would be undefined.
    """
    return (
        (x.detach().nan_to_num(0.5, 1.0, 0.0).clamp(0, 1) * 255)
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        .contiguous()
        .cpu()
        .numpy()
    )
