"""Work that is begun before its result is asked for, in one thread beside the main one.

    with Ahead(spare("cuda")) as ahead:
        features = [ahead.call(lambda: extract(images)) for images in drawn_one_after_the_other()]
        distances = [distance(found()) for found in features]

Calls run one after the other, in their order: beside the main thread's work there is one more, never two.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from vaebm import parallel

T = TypeVar("T")


def spare(device: str) -> bool:
    """Return whether anything would idle while the main thread computes on ``device``: a GPU waits for its host time and again, a CPU has
    cores to spare where torch uses fewer than there are.

    Of several processes none has: what they compute they share out by meeting, and two threads would meet out of step.
    """
    if parallel.world_size() > 1:
        return False
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return not device.startswith("cpu") or torch.get_num_threads() < cores


class Ahead:
    """The thread.

    Args:
        on: without it nothing is begun: each call is made when its result is asked for.
    """

    def __init__(self, on: bool) -> None:
        self._thread = ThreadPoolExecutor(1) if on else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is not None:
            # After an error nothing that waits is begun, and what runs ends first: it may be writing.
            self._thread.shutdown(wait=True, cancel_futures=True)

    def call(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begin ``work``; what comes back gives its result, or raises what it raised."""
        if self._thread is None:
            return work
        future: Future[T] = self._thread.submit(work)
        return future.result
