"""Peak memory of a piece of work: what it needs beyond what was there before.

On a GPU the allocator of torch counts; on Linux the kernel counts the pages of the process, whose peak can be reset. What was allocated
before, such as the other systems of a run, is not part of it; the weights of the system itself are to be added.
"""

import ctypes
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")


@dataclass
class Rise:
    """Bytes by which memory rose at most, or None and the reason why that is not known."""

    bytes: int | None = None
    reason: str = ""


@contextmanager
def measuring(device: str) -> Iterator[Rise]:
    """Measure how much memory the block needs beyond what is allocated now; known when it has ended."""
    rise = Rise()
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield rise
        torch.cuda.synchronize(device)
        rise.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    gc.collect()
    with suppress(OSError, AttributeError):  # what was freed goes back to the system, else it would serve unnoticed
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (PROCESS / "clear_refs").write_text("5")  # the peak is what is resident now
        resident = _status("VmRSS")
    except (OSError, ValueError):
        rise.reason = f"the peak memory of a process on {device} is known on Linux alone, where it can be reset"
        yield rise
        return
    yield rise
    rise.bytes = max(0, _status("VmHWM") - resident)


def _status(name: str) -> int:
    """Return an entry of the kernel's report on this process in bytes."""
    lines = (PROCESS / "status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024


def weights(networks: Mapping[str, Any]) -> int:
    """Return the bytes of all parameters and buffers of torch modules, each counted once."""
    tensors = {id(t): t for network in networks.values() for t in (*network.parameters(), *network.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
