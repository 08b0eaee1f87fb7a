"""Images that nobody took: noise and single colours, drawn from a seed in whatever shape the models take.

Any score should know them from photographs, and famous ones do not: log p(x) of many models is higher for a single colour than for any
photograph (Serra et al. 2020). So they test a score's sanity, and are in neither mean of near and far sets.

Image i depends on the seed, on i and on the shape alone: the first k of n images are the k images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaebm.data.image_set import ImageSet

NUM_IMAGES = 10_000  # as many as ODIN drew


@dataclass(frozen=True)
class Recipe:
    """How the images of a set are drawn.

    Attributes:
        words: the formula, for people; x in [0, 1] becomes the nearest of the 256 levels, u the one that it falls into.
        draw: (seed, n, (H, W, C)) -> uint8 (n, H, W, C).
    """

    words: str
    draw: Callable[[int, int, tuple[int, int, int]], NDArray[np.uint8]]


def _gaussian_noise(seed: int, n: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from vaebm.noise import normal

    x = np.clip(0.5 + normal(seed, range(n), "gaussian_noise", shape).numpy(), 0, 1)
    return np.rint(255 * x).astype(np.uint8)


def _uniform_noise(seed: int, n: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    return _levels(seed, n, "uniform_noise", shape)


def _constant(seed: int, n: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    colours = _levels(seed, n, "constant", (1, 1, shape[2]))
    return np.broadcast_to(colours, (n, *shape)).copy()


def _levels(seed: int, n: int, purpose: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Uniform on 0..255: u in [0, 1) falls into each level with one chance."""
    from vaebm.noise import uniform

    return (256 * uniform(seed, range(n), purpose, shape).numpy()).astype(np.uint8)


# Gaussian and uniform noise: Liang, Li and Srikant, ODIN, ICLR 2018, as by Hendrycks and Gimpel, ICLR 2017, before them.
SYNTHETIC = {
    "gaussian_noise": Recipe("every value clip(1/2 + z, 0, 1), z ~ N(0, 1), independent", _gaussian_noise),
    "uniform_noise": Recipe("every value u ~ U(0, 1), independent", _uniform_noise),
    "constant": Recipe("one colour per image, its channels u ~ U(0, 1), independent", _constant),
}


def synthesise(name: str, n: int | None, shape: tuple[int, int, int], seed: int = 0) -> ImageSet:
    """Draw ``n`` images of a set of ``SYNTHETIC`` (default ``NUM_IMAGES``).

    Returns:
        uint8 (n, H, W, C) with (H, W, C) = ``shape``; no split, no labels, and the recipe as a note.
    """
    recipe = SYNTHETIC[name]
    images = recipe.draw(seed, NUM_IMAGES if n is None else n, shape)
    return ImageSet(name, images, f"drawn from seed {seed}", "", notes=(f"{recipe.words}; seed {seed}",))
