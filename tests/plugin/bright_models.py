"""Systems and a suite of another package: what they import of this project, and what they must bring."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.measurement import Measurement


class Brightness:
    """Score: the darker, the more in-distribution; samples: grey images. It says nothing of itself but the shape of its images."""

    image_shape = (32, 32, 3)

    def score(self, images: np.ndarray) -> np.ndarray:
        """Return the negative mean of every image's bytes."""
        return -images.mean(axis=(1, 2, 3))

    def sample(self, seeds) -> np.ndarray:
        """Return one grey image per seed."""
        levels = [np.random.default_rng(seed).integers(256) for seed in seeds]
        return np.tile(np.array(levels, dtype=np.uint8).reshape(-1, 1, 1, 1), (1, *self.image_shape))


class Trained(Brightness):
    """A system with weights: a number in a text file, the level that it takes for in-distribution."""

    size = "mini"
    dataset = "cifar10"

    def __init__(self, level: float, seed: int) -> None:
        self.level = level
        self.fingerprint = {"weights": level, "seed": seed}
        self.protocol = {"score": "-|mean - level|", "estimator": "exact"}

    def score(self, images: np.ndarray) -> np.ndarray:
        """Return how near the mean is to the level."""
        return -np.abs(images.mean(axis=(1, 2, 3)) - self.level)


def load_trained(checkpoint: Path, seed: int) -> Trained:
    """Read the file that ``--checkpoint trained=FILE`` names."""
    return Trained(float(checkpoint.read_text()), seed)


@dataclass(frozen=True)
class Levels:
    """What the suite found."""

    rows: list[Measurement]


class LevelsSuite:
    """Mean brightness of what the systems draw. One number each."""

    name = "levels"
    needs = ("sampler",)
    options = {"--unit": {"type": float, "default": 1.0, "help": "bytes per unit"}}  # noqa: RUF012

    def measure(self, bench) -> Levels:
        """Draw 50 images from every system."""
        rows = []
        drawn = {
            name: each.system for name, each in bench.load_systems("cifar10").items() if hasattr(each.system, "sample")
        }
        for name, system in drawn.items():
            mean = system.sample(range(50)).mean() / bench.options.unit
            rows.append(Measurement(self.name, name, "cifar10", "level", float(mean), n=50, seed=bench.options.seed))
        return Levels(rows)
