"""Several processes as one: who am I among how many, and what all of them made.

Every function is harmless in a single process, so callers need no second code path. Run under ``torchrun --nproc-per-node N``.
Asking for one's rank imports no torch.
"""

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from vaebm.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

Job = TypeVar("Job")
Made = TypeVar("Made")
PATIENCE = timedelta(days=14)  # with the slowest process, whose images may take a night; torch's own limit is minutes

_talk: Any = None  # the group in which processes talk to each other: on CPUs always, since what they say lies there


def start(device: str) -> "torch.device":
    """Join the processes that torchrun started (gloo on CPU, NCCL on GPUs) and return this one's device; alone, just the device.

    Raises:
        UserError: there is no such kind of device, or the processes of this machine outnumber its GPUs.
    """
    import torch

    try:
        alone = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device {device}: not available ({str(error).splitlines()[0]})") from None
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world_size() > 1:
        return alone
    from accelerate import PartialState

    on_cpu = device == "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if not on_cpu and local >= torch.cuda.device_count():
        raise UserError(
            f"--device {device}: found {torch.cuda.device_count()} GPUs, needed one per process: lower --nproc-per-node"
        )
    from torch.distributed import PrefixStore, rendezvous

    # The processes find each other in a store that outlives a restart (--max-restarts): each attempt has names of its own in it, or it
    # would look for the dead ones.
    store, number, of = next(rendezvous("env://"))
    attempt = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    PartialState(cpu=on_cpu, timeout=PATIENCE, store=attempt, rank=number, world_size=of)
    # Threads of a group that is still there when the interpreter goes end the process with an abort, now and then.
    atexit.register(lambda: _distributed() and _distributed().destroy_process_group())
    return torch.device("cpu" if on_cpu else f"cuda:{local}")


def world_size() -> int:
    """Number of processes that work on this run together."""
    dist = _distributed()
    return dist.get_world_size() if dist else 1


def rank() -> int:
    """This process's number among them, from 0."""
    dist = _distributed()
    return dist.get_rank() if dist else 0


def number() -> int:
    """This process's number as its launcher has it, before the processes have met, too; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def gather_objects(mine: Made) -> list[Made]:
    """Return what every process gave, in the order of the ranks, in every process. Anything that can be pickled."""
    if world_size() == 1:
        return [mine]
    found: list[Any] = [None] * world_size()
    _distributed().all_gather_object(found, mine, group=_group())
    return found


def sum_arrays(*arrays: "np.ndarray") -> None:
    """Replace numpy arrays by their sums over all processes, in place."""
    if world_size() > 1:
        import torch

        for array in arrays:
            _distributed().all_reduce(torch.from_numpy(array), group=_group())


def together(work: Callable[[], Made]) -> list[Made]:
    """Call ``work`` in every process and return what each made, in the order of the ranks, in every process.

    Raises:
        UserError: it was raised in any of them; so nobody waits for one that has given up.
    """
    mine: Made | None = None
    refused: UserError | None = None
    try:
        mine = work()
    except UserError as error:
        refused = error
    found = gather_objects((mine, refused))
    for _, reason in found:
        if reason is not None:
            reason.everywhere = True
            raise reason
    return [made for made, _ in found]  # type: ignore[misc]


def on_main(work: Callable[[], Made]) -> Made:
    """Call ``work`` in the first process and return what it made, in every process.

    Raises:
        UserError: as ``work`` did.
    """
    return together(lambda: work() if rank() == 0 else None)[0]  # type: ignore[return-value]


def main_first(work: Callable[[], Made]) -> Made:
    """Call ``work`` in the first process and, when it is done, in the others; return what this one's call made.

    Raises:
        UserError: as ``work`` did in any process.
    """
    mine: list[Made] = []
    together(lambda: mine.append(work()) if rank() == 0 else None)
    together(lambda: mine.append(work()) if rank() != 0 else None)
    return mine[0]


def in_turns(jobs: Sequence[Job], work: Callable[[Job], Made]) -> list[Made]:
    """Let the processes share out ``jobs``, number i to process i mod W; return what was made of each, in order, in every process.

    Raises:
        UserError: as ``work`` did in any process.
    """
    done = together(lambda: [work(job) for job in jobs[rank() :: world_size()]])
    return [done[i % len(done)][i // len(done)] for i in range(len(jobs))]


def _group() -> Any:
    global _talk
    if _talk is None:
        _talk = _distributed().new_group(backend="gloo", timeout=PATIENCE)
    return _talk


def _distributed() -> Any:
    """torch.distributed where it has been started, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None
