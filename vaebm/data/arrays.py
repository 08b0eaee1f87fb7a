"""Images in .npy and .npz files. Nothing is ever unpickled."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vaebm.data.folder import check_unpacked_size
from vaebm.data.messages import reason
from vaebm.errors import UserError

_NEEDED = "uint8 (N, H, W, C), (N, C, H, W) or (N, H, W) with C = 1 or 3"
_READ_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError)


def read_array(path: Path, n: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (and labels, where a .npz has an integer ``labels`` of the right length) of a .npy or .npz file.

    In a .npz the images are under ``images``, else ``arr_0``, else ``samples``, else its only array.

    Returns:
        uint8 (N, H, W, C) of the first ``n`` images, C = 1 or 3, and int64 (N,) or None.

    Raises:
        UserError: unreadable or truncated file, pickled objects, no or several candidate arrays, another dtype (with
            the conversion that is exact), or another shape.
    """
    where = str(path)
    raw, labels = open_array(path)
    images = as_images(raw, where)[:n]
    if labels is not None and (labels.shape != (len(raw),) or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{where}: found labels {labels.dtype} {labels.shape}, needed integers ({len(raw)},); fix or drop them"
        )
    return np.array(images), None if labels is None else labels[:n].astype(np.int64)


def open_array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """What ``read_array`` takes for images and labels, as it lies in the file; a .npy stays on disk (memory-mapped).

    Raises:
        UserError: unreadable or truncated file, pickled objects, no or several candidate arrays.
    """
    if path.suffix.lower() == ".npy":
        with _reading(path):
            raw = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(raw, np.ndarray):  # numpy goes by the content: this is a zip
                raw.close()
                raise ValueError("it holds several arrays, as a .npz does")
            return raw, None
    keys = npz_keys(path)
    if keys is None:
        with _reading(path):
            return np.load(path, allow_pickle=False), None
    key = images_key(keys)
    if key is None and {"mu", "sigma"} <= set(keys):
        raise UserError(f"{path}: found statistics (mu, sigma), needed images; {_NEEDED}")
    if key is None:
        held = ", ".join(keys) or "nothing"
        raise UserError(f"{path}: found arrays {held}, needed one array, or one called 'images'")
    found = read_npz(path, [key, "labels"] if "labels" in keys else [key])
    return found[key], found.get("labels")


def npz_keys(path: Path) -> list[str] | None:
    """Names of the arrays in a .npz; None when it is a single array, a .npy with the wrong suffix.

    Raises:
        UserError: unreadable file, or pickled objects.
    """
    with _reading(path), path.open("rb") as file:  # opened here: numpy leaves the handle open when the zip is damaged
        if not zipfile.is_zipfile(file):
            file.seek(0)
            np.load(file, allow_pickle=False)  # an error unless it is a .npy
            return None
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return list(archive.files)


def images_key(keys: Sequence[str]) -> str | None:
    """Under which of the names in a .npz the images are; None when that cannot be said."""
    others = [key for key in keys if key != "labels"]
    return next((key for key in ("images", "arr_0", "samples") if key in keys), others[0] if len(others) == 1 else None)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """These arrays of a .npz.

    Raises:
        UserError: unreadable or truncated file, pickled objects, or more than ``MAX_ZIP_BYTES`` of uncompressed data.
    """
    with _reading(path), path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            check_unpacked_size(archive, str(path), "save the images as .npy, which is read in place")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what numpy and zipfile raise into one line."""
    try:
        yield
    except _READ_ERRORS as error:
        why = reason(error)
        if any(sign in why for sign in ("allow_pickle", "Object arrays", "Python objects")):  # numpy's three wordings
            why = "it holds pickled Python objects, which are never loaded"
        raise UserError(f"{path}: cannot be read ({why}); save it again with np.save or np.savez") from None


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
    if array.dtype.kind == "f" and not np.isfinite([low, high]).all():
        return "; it holds NaN or infinity: find out why before converting it"
    if array.dtype.kind == "b":
        return "; convert with x.astype(np.uint8) * 255"
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return "; the range fits, convert with x.astype(np.uint8)"
    if array.dtype.kind == "f":
        recipes = (
            (0.0, 1.0, "np.rint(x * 255)"),
            (-1.0, 1.0, "np.rint((x + 1) * 127.5)"),
            (0.0, 255.0, "np.rint(x)"),
        )
        for start, stop, recipe in recipes:
            if start <= low and high <= stop:
                return f"; found the range [{low:.4g}, {high:.4g}], convert with {recipe}.astype(np.uint8)"
    return f"; found the range [{low:.4g}, {high:.4g}], which is no known image range"
