"""Zero-parameter control scorers: statistics of one image that know nothing of any training set.

A system whose AUROC one of these reaches too, or whose scores rank images as one of these does, may be a detector of
sharpness or contrast rather than a density. Each statistic has one fixed sign, written in ``higher_means``, and is
never flipped for a data set, so its AUROC may well be far below 0.5.

All arithmetic on pixels is in integers, so a score does not depend on the other images of a batch.

Reference for compressed size as a rival of likelihood: Serra et al., Input complexity and out-of-distribution detection
with likelihood-based generative models (ICLR 2020).
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import PIL
from PIL import Image, features

from evaluators.protocols import Images, Scores


@dataclass(frozen=True)
class ImageStatistic:
    """A statistic as a scorer.

    Attributes:
        name: as in result rows.
        higher_means: the fixed sign: which images it calls in-distribution.
        function: uint8 (N, H, W, C) -> float64 (N,).
        codec: what else its numbers depend on; empty unless a library's coder is used.
    """

    name: str
    higher_means: str
    function: Callable[[Images], Scores]
    codec: str = ""

    def score(self, images: Images) -> Scores:
        """Return float64 (N,) for uint8 images (N, H, W, C)."""
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"{self.name}: images must be uint8 (N, H, W, C), found {images.dtype} {images.shape}")
        return self.function(images)


def high_pass_energy(images: Images) -> Scores:
    """log(mean((x - blur3(x))^2) + 1e-12), x in [0, 1], blur3 = mean of the 3 x 3 neighbourhood in each channel, edges
    repeated.

    The constant only keeps flat images finite: the smallest value of any other 8-bit image of 256 x 256 lies above it.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        float64 (N,), from -27.6 (flat) to about -0.2 (chequerboard).
    """
    _, h, w, _ = images.shape
    x = np.pad(images.astype(np.int32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = sum(x[:, i : i + h, j : j + w] for i in range(3) for j in range(3))  # nine times the mean
    difference = (9 * x[:, 1:-1, 1:-1] - blurred).astype(np.int64)
    return np.log(_per_image(difference**2) / _pixels(images) / (9 * 255) ** 2 + 1e-12)


def total_variation(images: Images) -> Scores:
    """Mean absolute difference of horizontally and vertically adjacent pixels, x in [0, 1] (anisotropic total variation
    per pair).

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        float64 (N,) in [0, 1].

    Reference: Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms (1992).
    """
    x = images.astype(np.int64)
    down, right = np.abs(np.diff(x, axis=1)), np.abs(np.diff(x, axis=2))
    return (_per_image(down) + _per_image(right)) / max(_pixels(down) + _pixels(right), 1) / 255


def pixel_std(images: Images) -> Scores:
    """Standard deviation over all pixels and channels of an image, x in [0, 1], divisor H W C.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        float64 (N,) in [0, 0.5].
    """
    x = images.astype(np.int64)
    mean = _per_image(x) / _pixels(images)
    return np.sqrt(np.maximum(_per_image(x**2) / _pixels(images) - mean**2, 0)) / 255


def codec_bytes(images: Images) -> Scores:
    """Length in bytes of the image as a PNG: Pillow, compress_level 9, adaptive filters, no ancillary chunks.

    Lossless, so it is an upper bound on the image's information. The length depends a little on the zlib that Pillow
    was built with: ``PNG_CODEC`` names both versions.

    Args:
        images: uint8 (N, H, W, 1 or 3).

    Returns:
        float64 (N,), whole numbers of bytes.
    """
    sizes = np.empty(len(images))
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG", compress_level=9)
        sizes[i] = buffer.tell()
    return sizes


def _per_image(x: np.ndarray) -> Scores:
    return x.reshape(len(x), -1).sum(axis=1).astype(np.float64)


def _pixels(x: np.ndarray) -> int:
    return math.prod(x.shape[1:])


def _zlib() -> str:
    # zlib-ng compresses to other lengths than zlib; Pillow says which one it holds.
    ng = features.version("zlib_ng") if "zlib_ng" in features.features else None
    return f"zlib-ng {ng}" if ng else f"zlib {features.version('zlib')}"


PNG_CODEC = f"PNG level 9, Pillow {PIL.__version__}, {_zlib()}"

IMAGE_STATISTICS: Mapping[str, ImageStatistic] = MappingProxyType(
    {
        statistic.name: statistic
        for statistic in (
            ImageStatistic("high_pass_energy", "sharper = in-distribution", high_pass_energy),
            ImageStatistic("total_variation", "steeper local gradients = in-distribution", total_variation),
            ImageStatistic("pixel_std", "more contrast = in-distribution", pixel_std),
            ImageStatistic("codec_bytes", "harder to compress = in-distribution", codec_bytes, PNG_CODEC),
        )
    }
)
