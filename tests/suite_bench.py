"""What suite tests share: a bench of a few images, systems of a few lines, and features that cost nothing."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from evaluators import SUITES
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench, destination
from vaebm.data import DataUnavailable, ImageSet

SHAPE = (8, 8, 3)
FEATURES = "toy_features:means"


def means(images: np.ndarray) -> np.ndarray:
    """Means and spreads of the four quadrants' channels: 24 features."""
    x = images.reshape(len(images), 2, images.shape[1] // 2, 2, images.shape[2] // 2, -1).astype(np.float64) / 255
    return np.concatenate([x.mean((2, 4)).reshape(len(x), -1), x.std((2, 4)).reshape(len(x), -1)], 1)


means.fingerprint = "toy"  # type: ignore[attr-defined]
module = ModuleType("toy_features")
module.means = means  # type: ignore[attr-defined]
sys.modules["toy_features"] = module


def pictures(n: int, brightness: float = 128, contrast: float = 40, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(brightness, contrast, (n, *SHAPE))
    return np.clip(noise, 0, 255).astype(np.uint8)


class Painter:
    """A sampler: image i is a function of seed i alone; ``calls`` counts the images it was asked for."""

    def __init__(self, brightness: float = 128, contrast: float = 40) -> None:
        self.brightness, self.contrast, self.calls = brightness, contrast, 0

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        self.calls += len(seeds)
        return np.concatenate([pictures(1, self.brightness, self.contrast, 1000 + seed) for seed in seeds])


class Climber(Painter):
    """A sampler whose brightness comes nearer to 128 with every step of eight."""

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        self.calls += len(seeds)
        drawn = {}
        for steps in ladder:
            painter = Painter(128 + 10 * abs(8 - steps), self.contrast)
            drawn[steps] = painter.sample(seeds)
        return drawn


def subject(name: str, system: object, **about: Any) -> SystemUnderTest:
    given = {"image_shape": SHAPE, "size": "mini", "fingerprint": {"weights": name}, "sampling": {"steps": 8}}
    return SystemUnderTest(name, system, **given | about)


def make_bench(
    out: Path, systems: Mapping[str, SystemUnderTest], *, train: int = 400, test: int = 300, **options: Any
) -> Bench:
    """A bench on made-up images; ``train=0`` has no training split."""
    given: dict[str, Any] = {
        "num_images": 0,
        "dataset": "",
        "seed": 0,
        "device": "cpu",
        "batch_size": 50,
        "offline": True,
    }
    for suite in SUITES:
        given |= {destination(flag): option["default"] for flag, option in SUITES.load(suite).options.items()}
    given |= options

    def load_images(spec: str, *, split: str = "test", n: int | None = None, **_: Any) -> ImageSet:
        most = train if split == "train" else test
        if not most:
            raise DataUnavailable(f"{spec} ({split}): not here; set --data-root")
        images = pictures(min(n or most, most), seed=1 if split == "train" else 2)
        return ImageSet(spec, images, "made here", split)

    return Bench(SimpleNamespace(**given), lambda _: dict(systems), load_images, out, out / "cache", False)
