"""MNIST's idx files, plain or gzipped; Fashion-MNIST and KMNIST use the same names."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from vaebm.data.messages import reason
from vaebm.errors import UserError

STEM = {"train": "train", "test": "t10k"}
MAX_VALUES = 2**28  # MNIST's training images have 47 million
FOLDER = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def read_idx_pair(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Images and labels of one split in ``folder``; None if its image file is not there.

    Returns:
        uint8 (N, 28, 28, 1) and int64 (N,) (None without the label file).

    Raises:
        UserError: a file is damaged, or the two differ in length.
    """
    image_file = _find(folder, f"{STEM[split]}-images-idx3-ubyte")
    if image_file is None:
        return None
    images = read_idx(image_file, 3)
    label_file = _find(folder, f"{STEM[split]}-labels-idx1-ubyte")
    if label_file is None:
        return images[..., None], None
    labels = read_idx(label_file, 1)
    if len(labels) != len(images):
        raise UserError(f"{label_file}: found {len(labels)} labels, needed {len(images)}; download both files again")
    return images[..., None], labels.astype(np.int64)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of an idx file with ``ndim`` axes. Raises: UserError when it is damaged or something else."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * ndim)
            if len(head) < 4 + 4 * ndim or head[:4] != bytes((0, 0, 8, ndim)):
                raise UserError(f"{path}: not an idx file of uint8 with {ndim} axes; download it again")
            shape = tuple(int(side) for side in np.frombuffer(head, dtype=">u4", count=ndim, offset=4))
            if prod(shape) > MAX_VALUES:
                raise UserError(
                    f"{path}: says that it holds {shape}, more than {MAX_VALUES:,} values; download it again"
                )
            data = file.read(prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); download it again") from None
    if len(data) != prod(shape):
        found = f"more than {prod(shape)}" if len(data) > prod(shape) else len(data)
        raise UserError(f"{path}: found {found} values, needed {shape}; download it again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)
