"""Reading files of ``torch.save`` without running what is in them."""

import argparse
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaebm.data.zips import open_zip
from vaebm.errors import UserError

# What official files hold besides tensors and containers: their training arguments, whose numbers may be numpy's.
_NUMPY_TYPES = [np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64")]
_SCALAR = np.float64(0).__reduce__()[0]  # the function that makes numpy's scalars
MAX_PICKLE_BYTES = 2**26  # of the pickle in an archive, which describes tensors and holds none
MAX_DEPTH = 100  # of containers in containers
MAX_PARTS = 10**6
MAX_VIEW_BYTES = 2**26  # of a tensor that shows the same numbers many times
ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(dtype) for dtype in _NUMPY_TYPES},
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in files of numpy 1
    (_SCALAR, "numpy._core.multiarray.scalar"),
]

HARMLESS = re.compile(
    r"torch\._utils\.|torch\.storage\.|torch\.\w+Storage|collections\.OrderedDict|argparse\.Namespace"
)


class ForeignPickleError(UserError):
    """A pickle that wants a class or a function which is not on the list; ``wanted`` names it. Nothing of it was run."""

    def __init__(self, path: Path, wanted: str) -> None:
        super().__init__(f"{path}: refused, because its pickle wants to use {wanted}, which could run code")
        self.wanted = wanted


def read_pickle(path: Path) -> Any:
    """Return what ``torch.save`` wrote: tensors, numbers, containers and ``argparse.Namespace``, nothing else.

    Tensors of current files stay on disk until they are used: an optimiser's state beside the weights costs nothing.

    Raises:
        ForeignPickleError: the file wants anything else.
        UserError: it is missing, unreadable, truncated or of another format, or what it holds is no plain content (:func:`_check`).
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, needed a file")
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise UserError(f"{path}: a pipe or a device, needed a file")
        _check_archive(path)
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            found = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
        _check(path, found)
        return found
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged or hostile file may fail anywhere in the reader
        if wanted := _wanted(path, str(error)):
            raise ForeignPickleError(path, wanted) from None
        raise UserError(f"{path}: not a file of torch.save, or truncated ({type(error).__name__})") from None


def _check_archive(path: Path) -> None:
    """Refuse an archive that ``torch.save`` cannot have written, before anything in it is unpacked."""
    if not zipfile.is_zipfile(path):
        return
    with path.open("rb") as file, open_zip(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path}: its {member.filename} is compressed, which torch.save does not do")
            if member.filename.endswith(".pkl") and member.file_size > MAX_PICKLE_BYTES:
                raise UserError(
                    f"{path}: its {member.filename} has {member.file_size:,} bytes, the limit is {MAX_PICKLE_BYTES:,}"
                )


def count_tensors(content: Any) -> int:
    """Return how many tensors there are in what :func:`read_pickle` returned."""
    return _weigh(content, {})[1]


def _check(path: Path, content: Any) -> None:
    """Refuse what would burden whoever goes through it.

    Raises:
        UserError: containers nested too deep or in themselves, or so often in each other that there is no end of them; a tensor that is
            larger than what the file holds of it, or that has no values.
    """
    try:
        parts, _ = _weigh(content, {})
        if parts > MAX_PARTS:
            raise ValueError(f"it holds {parts:,} parts, the limit is {MAX_PARTS:,}")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _weigh(value: Any, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """Return how many values and how many tensors there are; what is in several places counts in each. Every part is looked at once."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError("it holds a tensor that is sparse, quantised or without values; needed plain ones")
        # A few numbers can be shown in any shape, by steps of zero; made a tensor of its own, that would fill the memory.
        if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), MAX_VIEW_BYTES):
            raise ValueError(f"it holds a tensor of shape {tuple(value.shape)}, for which it has no such numbers")
        return 1, 1
    inner = vars(value) if isinstance(value, argparse.Namespace) else value
    if not isinstance(inner, Mapping | list | tuple | set):
        return 1, 0
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    if id(value) not in known:
        entries = inner.values() if isinstance(inner, Mapping) else inner
        weights = [_weigh(entry, known, depth + 1) for entry in entries]
        known[id(value)] = 1 + sum(parts for parts, _ in weights), sum(tensors for _, tensors in weights)
    return known[id(value)]


def _wanted(path: Path, message: str) -> str | None:
    """Name what a refused pickle asked for: from the reader's message, or, where that ended earlier, by going through its instructions."""
    if found := re.search(r"GLOBAL ([A-Za-z_]\w*(?:\.\w+)+)", message):
        return found[1]
    return next((name for name in _globals(path) if not HARMLESS.match(name)), None)


def _globals(path: Path) -> Iterator[str]:
    """Yield every "module.name" of a bare pickle, or of the one in an archive of ``torch.save``. Nothing is executed."""
    try:
        stream = io.BytesIO(_head(path))
        while True:  # older files are several pickles in a row
            yield from _globals_of(stream)
    except Exception:  # the end, or not a pickle (any more)
        return


def _globals_of(stream: io.BytesIO) -> Iterator[str]:
    memo: dict[int, str | None] = {}
    strings: list[str] = []
    last = None  # the string that the previous instruction put on the stack
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name.endswith("PUT"):
            memo[int(argument)] = last  # type: ignore[arg-type]
        elif opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
            last = None
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
            last = None
        else:
            found = memo.get(int(argument)) if opcode.name.endswith("GET") else argument  # type: ignore[arg-type]
            last = found if isinstance(found, str) else None
            strings += [last] if last is not None else []


def _head(path: Path, limit: int = 2**20) -> bytes:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(limit)
    with zipfile.ZipFile(path) as archive:
        (inside,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        with archive.open(inside) as file:
            return file.read(limit)
