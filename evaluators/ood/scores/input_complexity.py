"""Input complexity: log p(x) against the length of x in a lossless code, a likelihood of a model that knows no data set.

Simple images are likely under every model; the length of their code says how simple. The ratio of the two is what a model knows
about its own data.

Reference: Serra, Alvarez, Gomez, Slizovskaia, Nunez and Luque, Input complexity and out-of-distribution detection with likelihood-based
generative models (ICLR 2020), arXiv 1909.11480, equation 1: S(x) = -log2 p(x) - L(x) in bits, large for outliers. Here the sign is the
other one and the unit the nat: -S(x) ln 2.
"""

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL
from numpy.typing import ArrayLike
from PIL import Image, features

from evaluators.array_store import source_hash
from evaluators.metrics import image_statistics
from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.image_statistics import PNG_CODEC, codec_bytes
from evaluators.ood.scores.readings import Found, Readings, lacks_score
from evaluators.protocols import Images, Scores
from evaluators.subjects import SystemUnderTest
from vaebm.errors import UserError, did_you_mean

NATS_PER_BYTE = 8 * math.log(2)


def webp_bytes(images: Images) -> Scores:
    """Length in bytes of the image as lossless WebP: Pillow, method 4, quality 80 (effort, not loss).

    Args:
        images: uint8 (N, H, W, 1 or 3).

    Returns:
        float64 (N,), whole numbers of bytes.
    """
    sizes = np.empty(len(images))
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        rgb = Image.fromarray(np.repeat(image, 3 // image.shape[2], axis=2))  # WebP has no grey images
        rgb.save(buffer, "WEBP", lossless=True, method=4, quality=80)
        sizes[i] = buffer.tell()
    return sizes


def _webp() -> str:
    if not features.check("webp"):
        raise UserError("this Pillow was built without WebP; needed input_complexity:png")
    return f"WebP lossless, method 4, quality 80, Pillow {PIL.__version__}, libwebp {features.version('webp')}"


# Name -> length in bytes, and what else that length depends on.
CODECS: Mapping[str, tuple[Callable[[Images], Scores], Callable[[], str]]] = {
    "png": (codec_bytes, lambda: PNG_CODEC),
    "webp": (webp_bytes, _webp),
}


def input_complexity(scores: ArrayLike, code_bytes: ArrayLike) -> Scores:
    """log p(x) + L(x), L(x) the length of the image's code in nats: bytes x 8 ln 2.

    Args:
        scores: log p(x) (N,), finite, in nats. A constant in them changes no ranking, a factor does: an energy whose scale means
            nothing in nats gets a correction that means nothing.
        code_bytes: (N,), of the same images in the same order.

    Returns:
        float64 (N,) in nats, any sign; higher = more in-distribution.

    Raises:
        UserError: NaN or infinite scores.
    """
    return finite_scores(scores, "scores") + NATS_PER_BYTE * finite_scores(code_bytes, "lengths of code")


class InputComplexity:
    """``input_complexity`` or ``input_complexity:webp``: the shorter code of the two on images of 32x32 pixels, so the closer bound on the
    information in an image; ``input_complexity:png``: the one whose length the control ``codec_bytes`` shows beside it."""

    needs_training_images: ClassVar[bool] = False

    def __init__(self, parameter: str = "") -> None:
        self.codec = parameter or "webp"
        if self.codec not in CODECS:
            raise UserError(f"unknown codec {parameter!r}.{did_you_mean(parameter, CODECS)}")
        self.spec = f"input_complexity:{self.codec}"
        self._bytes, describe = CODECS[self.codec]
        self.version = describe()

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """It needs a score."""
        return lacks_score(system)

    def read(self, system: str, readings: Readings) -> Found:
        """See :func:`input_complexity`."""
        own = readings.whole(system)
        code = source_hash([Path(__file__), Path(image_statistics.__file__)])
        key = {"code length": self.codec, "codec": self.version, "code": code}
        lengths = readings.of_images(key, f"length of {self.codec}", self._bytes)
        return Found(
            {dataset: input_complexity(scores, lengths[dataset]) for dataset, scores in own.items()},
            score="s + length of a lossless code in nats",
            estimator=self.version,
            provenance={"codec": self.version},
        )
