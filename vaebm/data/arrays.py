"""Images in .npy and .npz files. Nothing is ever unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vaebm.data.messages import reason
from vaebm.errors import UserError

_NEEDED = "uint8 (N, H, W, C), (N, C, H, W) or (N, H, W) with C = 1 or 3"
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError)


def read_array(path: Path, n: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (and labels, where a .npz has an integer ``labels`` of the right length) of a .npy or .npz file.

    In a .npz the images are under ``images``, else ``arr_0``, else its only array.

    Returns:
        uint8 (N, H, W, C) of the first ``n`` images, C = 1 or 3, and int64 (N,) or None.

    Raises:
        UserError: unreadable or truncated file, pickled objects, no or several candidate arrays, another dtype (with
            the conversion that is exact), or another shape.
    """
    where = str(path)
    try:
        if path.suffix.lower() == ".npy":
            raw, labels = np.load(path, mmap_mode="r", allow_pickle=False), None
            if not isinstance(raw, np.ndarray):  # numpy goes by the content: this is a zip
                raw.close()
                raise ValueError("it holds several arrays, as a .npz does")
        else:
            raw, labels = _from_npz(path)
    except UserError:
        raise
    except _READ_ERRORS as error:
        why = reason(error)
        if any(sign in why for sign in ("allow_pickle", "Object arrays", "Python objects")):  # numpy's three wordings
            why = "it holds pickled Python objects, which are never loaded"
        raise UserError(f"{where}: cannot be read ({why}); save it again with np.save or np.savez") from None
    images = as_images(raw, where)[:n]
    if labels is not None and (labels.shape != (len(raw),) or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{where}: found labels {labels.dtype} {labels.shape}, needed integers ({len(raw)},); fix or drop them"
        )
    return np.array(images), None if labels is None else labels[:n].astype(np.int64)


def _from_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):  # a .npy with the wrong suffix
        return loaded, None
    with loaded as archive:
        keys = list(archive.files)
        if {"mu", "sigma"} <= set(keys):
            raise UserError(f"{path}: found statistics (mu, sigma), needed images; {_NEEDED}")
        others = [key for key in keys if key != "labels"]
        key = next((key for key in ("images", "arr_0") if key in keys), others[0] if len(others) == 1 else None)
        if key is None:
            found = ", ".join(keys) or "nothing"
            raise UserError(f"{path}: found arrays {found}, needed one array, or one called 'images'")
        return archive[key], archive["labels"] if "labels" in keys else None


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """A view of ``array`` as (N, H, W, C). Channels last wins where both layouts fit.

    Raises:
        UserError: wrong dtype, wrong shape, or no image.
    """
    if array.dtype != np.uint8:
        raise UserError(f"{where}: found {array.dtype} {array.shape}, needed {_NEEDED}{_conversion(array)}")
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or min(array.shape) == 0:
        raise UserError(f"{where}: found uint8 {array.shape}, needed {_NEEDED}, none of them 0")
    return array


def _conversion(array: np.ndarray) -> str:
    """How to make uint8 of it, judged by its range; empty when nothing sensible fits."""
    if array.dtype.kind not in "fiub" or array.size == 0:
        return ""
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "b":
        return "; convert with x.astype(np.uint8) * 255"
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return "; the range fits, convert with x.astype(np.uint8)"
    if array.dtype.kind == "f" and np.isfinite([low, high]).all():
        recipes = (
            (0.0, 1.0, "np.rint(x * 255)"),
            (-1.0, 1.0, "np.rint((x + 1) * 127.5)"),
            (0.0, 255.0, "np.rint(x)"),
        )
        for start, stop, recipe in recipes:
            if start <= low and high <= stop:
                return f"; found the range [{low:.4g}, {high:.4g}], convert with {recipe}.astype(np.uint8)"
    return f"; found the range [{low:.4g}, {high:.4g}], which is no known image range"
