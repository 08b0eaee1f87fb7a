"""The "CIFAR-10 interp." column: means of two images of the same set.

VAEBM gives no pairing ("linear interpolation between CIFAR-10 images"); the three pairings here are those of the papers
whose numbers stand beside it. All use weight 1/2. Averaging lowers contrast, so a score that measures contrast or
complexity can separate (or invert) these images without knowing anything about the density.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vaebm.data.image_set import ImageSet
from vaebm.errors import UserError, did_you_mean

BATCH = 128  # IGEBM's test batch


def mean_of_two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a + b) / 2 of uint8 arrays, exact halves rounded to even (truncation would darken by a quarter step on average).

    Returns:
        uint8, of the common shape; symmetric in a and b, between min(a, b) and max(a, b), and a where a == b.
    """
    total = a.astype(np.uint16) + b
    floor = total >> 1
    return (floor + (total & floor & 1)).astype(np.uint8)


def neighbours(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image i with image (i + 1) mod n: IGEBM's pairing with the whole set as one batch. ``seed`` is not used."""
    first = np.arange(n)
    return first, np.roll(first, -1)


def batches(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """IGEBM: the same, cyclic inside each run of 128 images.

    An incomplete last run is paired within itself (IGEBM drops it), except that a run of one image is left out: its
    mean with itself would be an in-distribution image. ``seed`` is not used.
    """
    runs = [np.arange(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]
    runs = [run for run in runs if len(run) > 1]
    return np.concatenate(runs), np.concatenate([np.roll(run, -1) for run in runs])


def shuffled(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """JEM, HDGE: neighbours after a seeded shuffle, so every image is used twice and never meets itself.

    They also add Gaussian noise (sigma 0.03); that is the caller's business.
    """
    # RandomState and not Generator: its stream is frozen, so the same seed gives the same pairs with every numpy.
    order = np.random.RandomState(seed).permutation(n)
    return order, np.roll(order, -1)


PAIRINGS: dict[str, Callable[[int, int], tuple[np.ndarray, np.ndarray]]] = {
    "neighbours": neighbours,
    "batches": batches,
    "shuffled": shuffled,
}


def check_pairing(pairing: str) -> None:
    """Raises: UserError when ``pairing`` is not a key of ``PAIRINGS``."""
    if pairing not in PAIRINGS:
        raise UserError(f"unknown pairing {pairing!r} for interpolated images.{did_you_mean(pairing, PAIRINGS)}")


def interpolate(images: ImageSet, pairing: str = "neighbours", seed: int = 0) -> ImageSet:
    """Means of pairs of ``images``, named ``<name>_interp``, in uint8.

    Args:
        images: at least two images.
        pairing: a key of ``PAIRINGS``; "neighbours" is the default of this project.
        seed: decides the pairs of "shuffled"; the others have no randomness.

    Returns:
        uint8 (M, H, W, C) with M = N, or N - 1 for "batches" when N mod 128 = 1. No labels, no index.

    Raises:
        UserError: unknown pairing, a negative seed, or fewer than two images.

    References: Du and Mordatch 2019 (IGEBM); Grathwohl et al. 2020 (JEM); Liu and Abbeel 2020 (HDGE).
    """
    check_pairing(pairing)
    if len(images) < 2:
        raise UserError(f"{images.name}: found {len(images)} image, interpolation needed at least 2; raise the number")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} for interpolated images: needed 0 <= seed < 2**32")
    first, second = PAIRINGS[pairing](len(images), seed)
    how = f"{pairing}, seed {seed}" if pairing == "shuffled" else pairing
    return replace(
        images,
        name=f"{images.name}_interp",
        images=mean_of_two(images.images[first], images.images[second]),
        source=f"interpolated from {images.name}: {images.source}",
        labels=None,
        index=None,
    ).with_notes(f"mean of two images, weight 1/2, pairing {how}; exact halves rounded to even")
