"""Counter-based noise: every number is a function of (seed, key, purpose) and of nothing else.

A sample is keyed by its own seed and a score by the content of its image, so neither depends on batch size, on order, on the number of
devices or on whether the run was interrupted. Numbers are drawn on the CPU by Philox (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011) and moved to the device, so that every device sees the same noise.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def _digest(*parts: object) -> int:
    """Hash parts to 64 bits, the same on every platform and in every process (unlike ``hash``)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def _generator(stream: int, key: int) -> np.random.Generator:
    """Philox takes a 128-bit key: 64 bits say what for, 64 bits say for whom. (A plain list would pass through float64 and lose bits.)"""
    return np.random.Generator(np.random.Philox(key=np.array([stream, int(key) & (2**64 - 1)], dtype=np.uint64)))


def normal(
    seed: int, keys: Sequence[int], purpose: str, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw standard normal noise, one independent stream per key.

    Args:
        seed: seed of the run.
        keys: one integer per image: its sample seed, or its :func:`content_keys` entry.
        purpose: what the noise is for, e.g. ``"eps_z.0"``; different purposes are independent.
        shape: shape of the noise of one image.

    Returns:
        float32 tensor (len(keys), *shape).
    """
    stream = _digest(seed, purpose)
    out = np.empty((len(keys), *shape), dtype=np.float32)
    for row, key in zip(out, keys, strict=True):
        _generator(stream, key).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(out).to(device)


def uniform(
    seed: int, keys: Sequence[int], purpose: str, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw uniform noise in [0, 1), one independent stream per key; arguments as for :func:`normal`.

    Returns:
        float32 tensor (len(keys), *shape).
    """
    stream = _digest(seed, purpose)
    out = np.empty((len(keys), *shape), dtype=np.float32)
    for row, key in zip(out, keys, strict=True):
        _generator(stream, key).random(out=row, dtype=np.float32)
    return torch.from_numpy(out).to(device)


@contextmanager
def ahead(draw: Callable[[int], T], steps: int) -> Iterator[Callable[[int], T]]:
    """Draw the noise of a chain's next step in a thread while the network computes this one: what ``draw`` returns, and sooner.

    numpy draws without Python's lock, so that both run at once. One step is drawn ahead, not more. The thread ends with the context,
    whatever ends that.

    Args:
        draw: k -> the noise of step k.
        steps: k runs from 0 to ``steps`` - 1.

    Yields:
        What to call in place of ``draw``.
    """
    # A thread starts on device 0: "cuda" is to mean there what it means here.
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    enter = None if gpu is None else partial(torch.cuda.set_device, gpu)
    with ThreadPoolExecutor(1, thread_name_prefix="noise", initializer=enter) as thread:
        coming: dict[int, Future[T]] = {}

        def noise(k: int) -> T:
            now = coming.pop(k, None) or thread.submit(draw, k)
            if k + 1 < steps:
                coming[k + 1] = thread.submit(draw, k + 1)
            return now.result()

        if steps > 0:
            coming[0] = thread.submit(draw, 0)
        yield noise


def content_keys(images: np.ndarray) -> list[int]:
    """Return one 64-bit key per image (N, H, W, C) from its bytes: equal images get equal noise wherever they stand."""
    return [
        int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest(), "little")
        for image in images
    ]


def seed_step(seed: int, step: int, attempt: int = 0) -> None:
    """Seed torch's generators for one training step, so that a resumed run repeats the uninterrupted one without stored RNG state.

    ``attempt`` counts how often training went back to an earlier step; each attempt has its own noise.
    """
    torch.manual_seed(_digest(seed, step, "training step", *([attempt] if attempt else [])))
