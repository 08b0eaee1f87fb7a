"""Float32 that is float32: no TF32, and convolutions by the same algorithm each time.

TF32 keeps 10 bits of a product's factors instead of 23. torch's switches for it belong to the process and not to a thread: turned while
another thread computes they change its numbers. So they are set once, before anything computes (:func:`exact`), and the few that want
something else hold a lock meanwhile.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turning = threading.RLock()


def exact() -> None:
    """Turn TF32 and the search for the fastest algorithm off, for good."""
    _turn(tf32=False, deterministic=True)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """As :func:`exact`, and what was set before is set again."""
    with _turned(tf32=False):
        yield


@contextmanager
def tf32_arithmetic() -> Iterator[None]:
    """Products and convolutions in TF32; what was set before is set again."""
    with _turned(tf32=True):
        yield


@contextmanager
def _turned(*, tf32: bool) -> Iterator[None]:
    with _turning:
        cudnn = torch.backends.cudnn
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
        _turn(tf32=tf32, deterministic=True)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before[1:]


def _turn(*, tf32: bool, deterministic: bool) -> None:
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
