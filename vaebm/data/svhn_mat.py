"""SVHN's cropped digits as published: MATLAB 5 files."""

from math import prod
from pathlib import Path

import numpy as np

from vaebm.data.messages import reason
from vaebm.errors import UserError

FILE = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
MAX_IMAGES = 100_000  # train has 73,257


def read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``train_32x32.mat`` or ``test_32x32.mat``.

    Returns:
        uint8 (N, 32, 32, 3) and int64 (N,), the digit itself (the file calls the digit 0 "10").

    Raises:
        UserError: the file is damaged or something else.
    """
    from scipy.io import loadmat, whosmat

    try:
        held = {name: shape for name, shape, _ in whosmat(path)}  # of the headers alone: what is compressed stays so
        if prod(held["X"]) > prod((32, 32, 3, MAX_IMAGES)) or prod(held["y"]) > MAX_IMAGES:
            raise ValueError(f"found X {held['X']} and y {held['y']}, needed at most {MAX_IMAGES:,} images of 32x32")
        content = loadmat(path, variable_names=("X", "y"))
        pixels, digits = content["X"], content["y"]  # (32, 32, 3, N), (N, 1)
        if pixels.dtype != np.uint8 or pixels.shape[:3] != (32, 32, 3) or digits.size != pixels.shape[3]:
            raise ValueError(f"found X {pixels.dtype} {pixels.shape} and {digits.size} labels")
    except Exception as error:  # a damaged file makes the parser raise nearly anything
        raise UserError(f"{path}: not a readable SVHN file ({reason(error)}); download {path.name} again") from None
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), digits.reshape(-1).astype(np.int64) % 10
