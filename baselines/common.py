"""What the system adapters share: input checks, batching, arithmetic, and overriding a card's recipe."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import nn

from baselines import numerics
from vaebm import parallel
from vaebm.batching import PROBED, fitting_size, is_out_of_memory, map_batches
from vaebm.errors import UserError, did_you_mean
from vaebm.sampling import SAMPLE_BLOCK, sample_in_blocks

T = TypeVar("T")


class Adapter:
    """How a system computes: all passes of its networks go through :meth:`in_batches` or :meth:`in_blocks`.

    Attributes:
        kind, image_shape, device: of the system; images are (H, W, C).
        batch_size: images per pass, ``"auto"`` before the first one if it is to be chosen; does not change results, and is lowered where
            there is no memory for it.
        sample_batch: images drawn together; another number may change the last bits of an image.
        dtype, compiled: the arithmetic, as :func:`baselines.numerics.apply` set it.
        fingerprint: says so, where it is not float32 as written.
    """

    kind: ClassVar[str]
    image_shape: tuple[int, int, int]
    device: torch.device | str
    batch_size: int | str
    sample_batch: int = SAMPLE_BLOCK
    dtype: str = "float32"
    compiled: bool = False
    fingerprint: dict[str, Any]

    @property
    def whole(self) -> nn.Module:
        """All networks, as they were loaded and as they score."""
        raise NotImplementedError

    @property
    def arithmetic_facts(self) -> dict[str, Any]:
        """What of the arithmetic decides numbers: nothing for float32 as written."""
        facts = {"dtype": self.dtype, "compile": self.compiled}
        return {name: value for name, value in facts.items() if value not in ("float32", False)}

    def in_batches(self, function: Callable[[np.ndarray], T], images: np.ndarray) -> list[T]:
        """Return what ``function`` makes of consecutive batches of uint8 images (N, H, W, C): arrays or tensors (n, ...), or nests of them.

        Raises:
            UserError: the images are of another kind, there is no memory for a single one, or the networks cannot be compiled.
        """
        check_images(images, self.image_shape)
        with numerics.computing(self, samples=False):
            if self.batch_size == "auto":
                if len(images) <= PROBED[-1]:  # too few to choose by
                    return map_batches(function, images, PROBED[-1])[0]
                self.batch_size = fitting_size(lambda n: function(images[:1].repeat(n, axis=0)), self.device)
                if parallel.rank() == 0:
                    print(
                        f"note: --batch-size auto: {self.kind} scores {self.batch_size} images at a time",
                        file=sys.stderr,
                    )
            size = int(self.batch_size)
            found, self.batch_size = map_batches(
                numerics.of_few_sizes(function, size) if self.compiled else function, images, size
            )
        return found

    def in_blocks(self, draw: Callable[[Sequence[int]], np.ndarray], seeds: Sequence[int], *ladder: int) -> np.ndarray:
        """Return what ``draw`` makes of blocks of ``sample_batch`` seeds: uint8 (N, *ladder, H, W, C).

        Raises:
            UserError: there is no memory for a block (a smaller one would give other bytes, so none is tried), or the networks cannot be
                compiled.
        """
        with numerics.computing(self, samples=True):
            try:
                return sample_in_blocks(draw, seeds, (*ladder, *self.image_shape), self.sample_batch)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
        raise UserError(
            f"--sample-batch {self.sample_batch}: no memory on {self.device} to draw so many images together"
        )


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


@contextmanager
def changed(kind: str, changes: Mapping[str, Any]) -> Iterator[None]:
    """Turn what a recipe says of a value into a UserError that names the changes."""
    try:
        yield
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        raise UserError(f"{kind} with {said}: {error}") from None


def batches(items: Any, size: int) -> Iterator[Any]:
    """Yield consecutive slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_images(images: np.ndarray, image_shape: tuple[int, int, int]) -> None:
    """Refuse anything but uint8 (N, *image_shape).

    Raises:
        UserError: with what was found and what was needed.
    """
    if images.dtype != np.uint8 or images.shape[1:] != tuple(image_shape):
        raise UserError(
            f"images: found {images.dtype} {images.shape}, needed uint8 (N, {', '.join(map(str, image_shape))})"
        )
