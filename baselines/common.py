"""What the system adapters share: input checks, batching, and overriding a card's recipe."""

from collections.abc import Iterator
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


def batches(items: Any, size: int) -> Iterator[Any]:
    """Yield consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
