"""The "python version" of CIFAR-10/100: pickles, read by an unpickler that can build nothing but plain data.

A pickle is a program, and ``pickle.load`` runs it. These files need bytes, str, int, list, dict and uint8 arrays. Here
even numpy's own reconstruction is replaced by two inert stand-ins, so no pickled state ever reaches numpy's C code.
"""

import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaebm.data.messages import reason
from vaebm.errors import UserError

FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVE = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
_BATCHES = {
    ("cifar10", "train"): tuple(f"data_batch_{k}" for k in range(1, 6)),
    ("cifar10", "test"): ("test_batch",),
    ("cifar100", "train"): ("train",),
    ("cifar100", "test"): ("test",),
}
MAX_BYTES = 2**28  # of a batch; the largest, CIFAR-100's train, has 155 MB
_LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}


def read_cifar(path: Path, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of CIFAR-10 or CIFAR-100.

    Args:
        path: the folder with the batch files, or the .tar.gz as published (nothing is unpacked to disk).
        name: "cifar10" or "cifar100".
        split: "train" or "test".

    Returns:
        uint8 (N, 32, 32, 3) and int64 (N,), in official order.

    Raises:
        UserError: a batch is missing or damaged, or its pickle wants a class these files do not need (it is named).
    """
    files = _BATCHES[name, split]
    batches = [
        load_batch(data, f"{path}: {file}") for file, data in zip(files, _read_files(path, name, files), strict=True)
    ]
    images, labels = [], []
    for file, batch in zip(files, batches, strict=True):
        pixels, classes = batch.get("data"), batch.get(_LABELS[name])
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
            raise UserError(f"{path}: {file} holds no (N, 3072) array under 'data'; download {ARCHIVE[name]} again")
        if not isinstance(classes, list) or len(classes) != len(pixels) or not all(type(k) is int for k in classes):
            raise UserError(f"{path}: {file} holds no list of {len(pixels)} labels; download {ARCHIVE[name]} again")
        images.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.array(classes, dtype=np.int64))
    return np.concatenate(images), np.concatenate(labels)


def load_batch(data: bytes, where: str) -> dict[str, Any]:
    """Unpickle one batch file with the restricted unpickler; keys become str, arrays numpy.

    Raises:
        UserError: it is no such file, or wants any class or function beyond a uint8 array.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # Room is made for all places up to the one that is named.
            if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
                raise ValueError(f"place {argument} of its memory, in {len(data)} bytes")
        batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise ValueError(f"holds a {type(batch).__name__}, not a dict")
        return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in batch.items()}
    except _ForbiddenError as forbidden:
        raise UserError(
            f"{where}: refused, its pickle asks for {forbidden}, which no CIFAR file needs; download the set again"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{where}: not a readable CIFAR batch ({reason(error)}); download the set again") from None


class _ForbiddenError(Exception):
    pass


class _Dtype:
    """Stands in for ``numpy.dtype``; accepts uint8 only and ignores its state."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise ValueError(f"an array of dtype {code!r}, needed uint8")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for an array under reconstruction: keeps shape and bytes."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def array(self) -> np.ndarray:
        if self._state is None:
            raise ValueError("an array without content")
        _, shape, dtype, fortran, raw = self._state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise ValueError("an array that is not plain uint8")
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _BatchUnpickler(pickle.Unpickler):
    _ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _read_files(path: Path, name: str, files: tuple[str, ...]) -> list[bytes]:
    try:
        places = [path / file for file in files] if path.is_dir() else [path]
        for place in places:
            if place.exists() and not place.is_file():  # opening a pipe would wait for ever
                raise OSError(f"{place.name} is no regular file")
        if path.is_dir():
            return [_limited(place.open("rb"), place.stat().st_size, place.name) for place in places]
        with tarfile.open(path) as archive:
            return [_member(archive, f"{FOLDER[name]}/{file}") for file in files]
    except (OSError, tarfile.TarError, EOFError, KeyError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); download {ARCHIVE[name]} again") from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is not a file")
    return _limited(stream, archive.getmember(name).size, name)


def _limited(stream: IO[bytes], size: int, name: str) -> bytes:
    with stream:
        if size > MAX_BYTES:
            raise OSError(f"{name} has {size:,} bytes, the limit is {MAX_BYTES:,}")
        return stream.read(size)
