"""MNIST's idx files, plain or gzipped; Fashion-MNIST and KMNIST use the same names."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from vaebm.data.messages import reason
from vaebm.errors import UserError

STEM = {"train": "train", "test": "t10k"}
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
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); download it again") from None
    start = 4 + 4 * ndim
    if len(data) < start or data[:4] != bytes((0, 0, 8, ndim)):
        raise UserError(f"{path}: not an idx file of uint8 with {ndim} axes; download it again")
    shape = tuple(int(side) for side in np.frombuffer(data, dtype=">u4", count=ndim, offset=4))
    if len(data) != start + prod(shape):
        raise UserError(f"{path}: found {len(data) - start} values, needed {shape}; download it again")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)
