"""Images in .npy and .npz files. Nothing is ever unpickled, and what is large is memory-mapped."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaebm.data import spool
from vaebm.data.folder import check_unpacked_size
from vaebm.data.messages import reason
from vaebm.data.spool import BLOCK, empty, release
from vaebm.data.zips import data_offset, open_zip
from vaebm.errors import UserError

_PICKLED = "it holds pickled Python objects, which are never loaded"
_NEEDED = "uint8 (N, H, W, C), (N, C, H, W) or (N, H, W) with C = 1 or 3"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_READ_ERRORS = (
    *(OSError, ValueError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError),
)


def read_array(path: Path, n: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (and labels, where a .npz has an integer ``labels`` of the right length) of a .npy or .npz file.

    In a .npz the images are under ``images``, else ``arr_0``, else ``samples``, else its only array.

    Returns:
        uint8 (N, H, W, C) of the first ``n`` images, C = 1 or 3, memory-mapped and read-only where they are many, and int64 (N,) or
        None.

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
    kept = images if raw.nbytes > spool.IN_MEMORY else np.array(images)
    return kept, None if labels is None else labels[:n].astype(np.int64)


def open_array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """What ``read_array`` takes for images and labels, as it lies in the file; a .npy stays on disk (memory-mapped), and so does what is
    large in a .npz (``read_npz``).

    Raises:
        UserError: unreadable or truncated file, pickled objects, no or several candidate arrays.
    """
    keys = None if path.suffix.lower() == ".npy" else npz_keys(path)
    if keys is None:
        with _reading(path), path.open("rb") as file:
            if zipfile.is_zipfile(file) and not _is_npy(file):
                raise ValueError("it holds several arrays, as a .npz does")
            shape, dtype, order, offset = read_header(file, path.stat().st_size)
            return np.memmap(path, dtype, "r", offset, shape, order), None
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
        UserError: unreadable file, pickled objects, or a name twice.
    """
    with _reading(path), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            read_header(file, path.stat().st_size)  # an error unless it is a .npy
            return None
        with open_zip(file) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            if len(set(keys)) < len(keys):
                raise ValueError("it holds an array twice")
            return keys


def images_key(keys: Sequence[str]) -> str | None:
    """Under which of the names in a .npz the images are; None when that cannot be said."""
    others = [key for key in keys if key != "labels"]
    return next((key for key in ("images", "arr_0", "samples") if key in keys), others[0] if len(others) == 1 else None)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """These arrays of a .npz. A large one is memory-mapped, read-only: in place where it is not compressed, else from a temporary file.

    Raises:
        UserError: unreadable or truncated file, pickled objects, or more than ``MAX_ZIP_BYTES`` of uncompressed data; or no room in the
            temporary folder.
    """
    with _reading(path), path.open("rb") as file, open_zip(file) as archive:
        check_unpacked_size(archive, str(path), "save the images as .npy, which is read in place")
        held = set(archive.namelist())
        return {name: _member(path, archive, f"{name}.npy" if f"{name}.npy" in held else name) for name in names}


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array. All of it is read once, whatever becomes of it then: so its checksum is verified."""
    member = archive.getinfo(name)
    with archive.open(member) as stream:
        shape, dtype, order, start = read_header(stream, member.file_size)
        size = prod(shape) * dtype.itemsize
        if size <= spool.IN_MEMORY:
            return np.array(np.frombuffer(_all(stream, size), dtype).reshape(shape, order=order))
        in_place = member.compress_type == zipfile.ZIP_STORED
        if in_place:
            with path.open("rb") as file:
                start += data_offset(file, member)
            in_place = start % dtype.alignment == 0
        flat = empty((0 if in_place else size,), f"{path}: {name.removesuffix('.npy')}")
        done = 0
        while block := stream.read(BLOCK):
            if not in_place:
                flat[done : done + len(block)] = np.frombuffer(block, np.uint8)
                release(flat)
            done += len(block)
    if done != size:
        raise ValueError(f"{name} ends after {done:,} of {size:,} bytes")
    if in_place:
        return np.memmap(path, dtype, "r", start, shape, order)
    flat.flags.writeable = False
    return flat.view(dtype).reshape(shape, order=order)


def _all(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size + 1)
    if len(data) != size:
        raise ValueError(f"found {len(data):,} bytes after its header, needed {size:,}")
    return data


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype, Any, int]:
    """Shape, dtype, order ("C" or "F") and offset of the data of a .npy of ``size`` bytes, which ``file`` is at the beginning of.

    Raises:
        ValueError: it is none, holds pickled objects, or ends before its data do.
    """
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version}, needed 1.0 or 2.0")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(_PICKLED)
    if min(shape, default=0) < 0 or dtype.itemsize == 0:
        raise ValueError(f"its header says shape {shape} of {dtype}")
    if size - file.tell() < prod(shape) * dtype.itemsize:
        raise ValueError(f"its header says shape {shape} of {dtype}, but it has {size - file.tell():,} bytes")
    return shape, dtype, "F" if fortran else "C", file.tell()


def _is_npy(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(6) == np.lib.format.MAGIC_PREFIX


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what numpy and zipfile raise into one line."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever, and a device may never end
        raise UserError(f"{path}: is no regular file, needed one")
    try:
        yield
    except _READ_ERRORS as error:
        why = reason(error)
        if isinstance(error, ValueError) and "magic string" in why and _is_pickle(path):
            why = _PICKLED
        raise UserError(f"{path}: cannot be read ({why}); save it again with np.save or np.savez") from None


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as pickles of protocol 2 and later do."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


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
