"""What the system adapters share: input checks, batching, and overriding a card's recipe."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vaebm.errors import UserError, did_you_mean


def override(recipe: dict[str, Any], options: dict[str, Any], origin: str) -> dict[str, Any]:
    """Replace entries of a card's recipe.

    Raises:
        UserError: an option that the recipe does not have, or a number of importance samples below 1.
    """
    for name in options:
        if name not in recipe:
            raise UserError(f"{origin}: unknown option {name!r}.{did_you_mean(name, recipe)}")
    merged = {**recipe, **options}
    if merged.get("importance_samples", 1) < 1:
        raise UserError(f"{origin}: importance_samples {merged['importance_samples']}, needed at least 1")
    if merged.get("output", "mean") not in ("mean", "sample"):
        raise UserError(
            f"{origin}: unknown output {merged['output']!r}.{did_you_mean(merged['output'], ('mean', 'sample'))}"
        )
    return merged


def check_images(images: np.ndarray, image_shape: tuple[int, int, int]) -> None:
    """Refuse anything but uint8 (N, *image_shape).

    Raises:
        UserError: with what was found and what was needed.
    """
    if images.dtype != np.uint8 or images.shape[1:] != tuple(image_shape):
        raise UserError(
            f"images: found {images.dtype} {images.shape}, needed uint8 (N, {', '.join(map(str, image_shape))})"
        )


SAMPLE_BLOCK = 16


def sample_in_blocks(
    draw: Callable[[Sequence[int]], np.ndarray], seeds: Sequence[int], image_shape: tuple[int, int, int]
) -> np.ndarray:
    """Draw images in blocks of one fixed size, the last one filled up and cut.

    Kernels for another batch size add in another order, and a long chain turns a last bit into grey levels. At one
    fixed size an image comes out the same, byte for byte, alone or among others (for one number of threads and one
    kind of device).

    Args:
        draw: maps ``SAMPLE_BLOCK`` seeds to as many uint8 images (n, H, W, C).
        image_shape: (H, W, C), for no seeds at all.
    """
    parts = [np.empty((0, *image_shape), dtype=np.uint8)]
    for block in batches(seeds, SAMPLE_BLOCK):
        filled = [*block, *([block[0]] * (SAMPLE_BLOCK - len(block)))]
        parts.append(draw(filled)[: len(block)])
    return np.concatenate(parts)


def batches(items: Any, size: int) -> Iterator[Any]:
    """Yield consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
