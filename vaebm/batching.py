"""Batches that fit into memory: one that does not is halved, and ``auto`` chooses a size by measuring two small passes."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from vaebm.errors import UserError

T = TypeVar("T")

PROBED = (8, 16)  # images of the two passes that are measured
SHARE = 0.5  # of the free memory that a batch may take by that measurement: others live there, too
# More images at a time gain nothing, as benchmarks/numerics.py measures on CPUs; GPUs get what fills a large one.
MOST = {"cpu": 64, "cuda": 512}

_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def map_batches(
    function: Callable[[Any], T], items: Any, size: int, *, flag: str = "--batch-size"
) -> tuple[list[T], int]:
    """Apply ``function`` to consecutive slices of at most ``size`` items.

    A slice that there is no memory for is cut in half, as often as it takes, and all later ones are as short; one line on stderr says so.

    Args:
        function: maps a slice of n items to anything; it is called again for items that failed.
        items: has a length and slices.
        size: at least 1.
        flag: the option to name where not even a single item fits.

    Returns:
        What ``function`` returned, in order, and the size that fitted.

    Raises:
        UserError: there is no memory for a single item.
    """
    found: list[T] = []
    start, asked = 0, size
    while start < len(items):
        part = items[start : start + size]
        try:
            found.append(function(part))
            start += len(part)
            continue
        except (MemoryError, RuntimeError) as error:  # torch's OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
            said = str(error).partition("\n")[0]
        # Outside of the handler: its traceback holds what was allocated.
        free_memory()
        if len(part) == 1:
            raise UserError(f"{flag} {asked}: no memory even for a single image ({said})")
        size = max(1, min(size, len(part)) // 2)
    if size < asked and found:
        print(f"note: {flag} {asked} does not fit into memory; went on with {size}", file=sys.stderr)
    return found, size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host."""
    said = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in said)


def free_memory() -> None:
    """Give what nobody holds any more back to the device and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def fitting_size(
    run: Callable[[int], object], device: torch.device | str, *, least: int = 1, most: int | None = None
) -> int:
    """Return the largest power of two of images, from ``least`` to ``most``, that the device has memory for.

    The peak memory of two passes of :data:`PROBED` images says what one more image takes; :data:`SHARE` of what is free may be taken.
    Where nothing can be measured (a CPU outside of Linux), it is ``most``.

    Args:
        run: makes a pass over so many images.
        device: where ``run`` computes.
        least, most: powers of two; ``most`` is :data:`MOST` of the kind of device without it.

    Raises:
        UserError: the device has no memory for the two passes.
    """
    device = torch.device(device)
    most = MOST.get(device.type, MOST["cpu"]) if most is None else most
    try:
        run(PROBED[0])  # what is made once, and kept, counts to neither
        peaks = [_peak_bytes(run, n, device) for n in PROBED]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"--device {device}: no memory for {PROBED[-1]} images") from None
    first, second = peaks
    free = free_bytes(device)
    if free is not None and device.type == "cpu":  # the processes of a machine share its memory
        free //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if first is None or second is None or free is None:
        return most
    per_image = max((second - first) / (PROBED[1] - PROBED[0]), 1)
    size = least
    while 2 * size <= most and 2 * size * per_image <= SHARE * free:
        size *= 2
    return size


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory there is to take; None where it cannot be known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if (available := _field(Path("/proc/meminfo"), "MemAvailable")) is None:
        return None
    return min([available, *_left_in_container(Path("/sys/fs/cgroup"))])


def _left_in_container(root: Path) -> Iterator[int]:
    """What a container may still take, by either version of control groups."""
    for limit, used in _CGROUPS:
        with suppress(OSError, ValueError):  # not there, or "max"
            yield max(0, int((root / limit).read_text()) - int((root / used).read_text()))


def _peak_bytes(run: Callable[[int], object], n: int, device: torch.device) -> int | None:
    """Return the most memory that was in use during a pass, whoever used it."""
    free_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run(n)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in use now
    except OSError:
        return None
    run(n)
    return _field(Path("/proc/self/status"), "VmHWM")


def _field(file: Path, name: str) -> int | None:
    """Read ``name: 123 kB`` as bytes."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return 1024 * int(value.split()[0])
    return None
