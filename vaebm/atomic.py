"""Files that are either complete or not there: written beside their place under a name of their own, then put there in one stroke.

Two processes that write the same file do not spoil each other's: the later one wins. What a killed process leaves,
``.<32 digits>.partial``, is removed an hour later, when something is written in the same folder again.
"""

import errno
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

STALE = 3600.0  # seconds without a write after which a partial file is a killed process's
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing to a disk, a quota or a file without room fails with
_swept: set[Path] = set()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with the path of a partial file, then replace ``path`` by it; a process killed meanwhile leaves ``path`` as it was.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path``, whatever name the partial file had. And what ``write`` raises.
    """
    replace_together({path: write})


def replace_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write every file as :func:`write_atomically` does, but put none in its place before all are complete.

    Raises:
        OSError: one cannot be written, and none was; ``filename`` says which.
    """
    partials: dict[Path, Path] = {}
    path = next(iter(writers), Path())
    try:
        for path, write in writers.items():
            if path.is_dir():  # found now, before any other file has been moved
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            partials[path] = path.with_name(f".{uuid.uuid4().hex}.partial")
            write(partials[path])
            _flush(partials[path])
        for path, partial in partials.items():
            partial.replace(path)
    except BaseException as error:
        why = _why(error, partials.get(path))
        for partial in partials.values():
            with suppress(OSError):  # never made, in place already, or out of reach
                partial.unlink()
        if why is None:
            raise
        hidden = why.filename is None or Path(why.filename) == partials.get(path)
        raise OSError(why.errno, why.strerror, str(path) if hidden else why.filename) from error
    for folder in {path.parent.absolute() for path in writers} - _swept:
        _swept.add(folder)
        _sweep(folder)


def _why(error: BaseException, partial: Path | None) -> OSError | None:
    """What the file system has against a file; None if it was something else. numpy and torch say only that writing has failed, so it is
    tried again."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, OSError | RuntimeError) and partial is not None:
        try:
            with partial.open("ab", buffering=0) as file:
                file.write(bytes(2**16))
        except OSError as refused:
            return refused
    return None


def _flush(path: Path) -> None:
    """Have the content on the disk before the name points to it: a power cut must not leave an empty file under a good name. Over a network
    it is here that a full disk is reported."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left. It is only litter, and not worth an error."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if _PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > STALE:
                        os.unlink(entry.path)
