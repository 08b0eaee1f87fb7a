"""Reading files of ``torch.save`` without running what is in them."""

import argparse
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaebm.errors import UserError

# What official files hold besides tensors and containers: their training arguments, whose numbers may be numpy's.
_NUMPY_TYPES = [np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64")]
_SCALAR = np.float64(0).__reduce__()[0]  # the function that makes numpy's scalars
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
        UserError: it is missing, unreadable, truncated or of another format.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, needed a file")
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
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
