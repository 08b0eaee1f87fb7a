"""Arrays of images that may be larger than memory: small ones lie in memory, larger ones in a temporary file that has no name.

Such a file is memory-mapped. It ends with the process, however that ends, and lies where ``tempfile`` puts things: in ``TMPDIR``, else
``/tmp``. Where that is itself in memory (tmpfs), nothing is gained: set ``TMPDIR`` to a folder on a disk.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from math import prod

import numpy as np

from vaebm.errors import UserError

IN_MEMORY = 2**26  # bytes of an array that is still held in memory
BLOCK = 2**22  # bytes that are moved together


def empty(shape: tuple[int, ...], where: str, dtype: np.dtype | type = np.uint8) -> np.ndarray:
    """Return an array to be filled; where it is memory-mapped, call ``release`` from time to time.

    Args:
        where: how messages call what it is for.

    Raises:
        UserError: the temporary folder has no room for it, or cannot be written.
        MemoryError: there is no memory for a small one.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="vaebm-") as file:
            # Room is made now: a mapped file that finds the disk full while it is written ends the process with SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{where}: {shape} needs {size:,} bytes in the temporary folder {tempfile.gettempdir()} ({why}); free some space there, "
            "or set TMPDIR to a folder with more"
        ) from None


def release(array: np.ndarray) -> None:
    """Let go of the memory that looking at a memory-mapped array took; its values stay in the file, to be looked at again."""
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":  # a private copy, which would lose what was written
            return
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def contiguous(images: np.ndarray, where: str) -> np.ndarray:
    """Return ``images`` as they are where they are C-contiguous, else a copy that is. Raises: as ``empty``."""
    return images if images.flags.c_contiguous else filled(images.shape, lambda rows: images[rows], where, [images])


def taken(images: np.ndarray, positions: np.ndarray, where: str) -> np.ndarray:
    """Return the images at ``positions``, an integer (M,) or boolean (N,) array. Raises: as ``empty``."""
    numbers = np.flatnonzero(positions) if positions.dtype == bool else positions
    return filled((len(numbers), *images.shape[1:]), lambda rows: images[numbers[rows]], where, [images])


def filled(
    shape: tuple[int, ...], part: Callable[[slice], np.ndarray], where: str, sources: list[np.ndarray]
) -> np.ndarray:
    """Return a uint8 array made of ``part(rows)``, some megabytes at a time, letting go of ``sources`` on the way. Raises: as ``empty``."""
    made = empty(shape, where)
    for rows in steps(made):
        made[rows] = part(rows)
        for array in (made, *sources):
            release(array)
    return made


def steps(array: np.ndarray) -> list[slice]:
    """Slices of consecutive rows, some megabytes each."""
    step = max(1, BLOCK // max(1, array[:1].nbytes))
    return [slice(start, start + step) for start in range(0, len(array), step)]
