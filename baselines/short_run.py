"""Short-run EBM: an energy of pixels trained by the K-step Langevin dynamics that it is sampled with.

p(x) is proportional to exp(f(x)) on images x in [-1, 1]. Every chain starts from uniform noise and makes K steps

    x <- x + step_size df/dx + noise_scale n,    n ~ N(0, I),

in training as in sampling. K is far too short to reach exp(f) / Z, and so the chain itself is the generator: it is matched to the
data by f, while f alone is no good estimate of log p.

Reference: Nijkamp, Hill, Zhu and Wu, "Learning Non-Convergent Non-Persistent Short-Run MCMC Toward Energy-Based Model",
NeurIPS 2019, https://arxiv.org/abs/1904.09770
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.igebm import langevin
from baselines.system import Scores, StepSamples
from vaebm.errors import UserError
from vaebm.noise import uniform
from vaebm.training.batches import to_uint8


@dataclass(frozen=True)
class ShortRunArchitecture:
    """``image_shape``: (H, W, C), H = W divisible by 8; ``width``: channels at full resolution (published: 64)."""

    image_shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 64

    def __post_init__(self) -> None:
        height, width, _ = self.image_shape
        if height != width or height % 8 or height < 8:
            raise UserError(f"architecture.image_shape {self.image_shape}: needed H = W, divisible by 8")
        if self.width < 1:
            raise UserError(f"architecture.width {self.width}: needed at least 1")


class ShortRunNetwork(nn.Module):
    """f: images (N, C, H, W) in [-1, 1] to (N,), plain convolutions: a chain sees every weight K times, so nothing is normalised."""

    def __init__(self, architecture: ShortRunArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        size, _, channels = architecture.image_shape
        width = architecture.width
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
                nn.Conv2d(4 * width, 8 * width, 4, stride=2, padding=1),
            ]
        )
        self.last = nn.Conv2d(8 * width, 1, size // 8)
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    def forward(self, x: Tensor) -> Tensor:
        h = x.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            h = F.leaky_relu(conv(h), 0.2)  # (N, w, H, W), (N, 2w, H/2, W/2), ..., (N, 8w, H/8, W/8)
        return self.last(h).flatten().float()


@dataclass(frozen=True)
class ShortRunRecipe:
    """The chain: ``steps`` K, ``step_size``, ``noise_scale``. The published one is the default."""

    steps: int = 100
    step_size: float = 1.0
    noise_scale: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 0 or self.step_size <= 0 or self.noise_scale < 0:
            raise UserError(f"short-run recipe {asdict(self)}: step_size must be positive, the others not negative")


def short_run(network: ShortRunNetwork, x: Tensor, noise: Callable[[int], Tensor], recipe: ShortRunRecipe) -> Tensor:
    """Run the chain from x (N, C, H, W) to its end; ``noise(k)`` is the noise of step k."""
    return langevin(lambda x: -network(x), x, noise, **asdict(recipe))


class ShortRunSystem(Scores, StepSamples):
    """A short-run EBM as a system under test: scores by f(2 bytes / 255 - 1), samples by the chain that it was trained with."""

    kind = "short_run"
    Architecture, Network, Recipe = ShortRunArchitecture, ShortRunNetwork, ShortRunRecipe

    def describe_score(self) -> dict[str, Any]:
        return {"score": "f(x) = -E(x)", "estimator": "unnormalised log density, x = 2 bytes / 255 - 1 without noise"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return f (n,)."""
        return self.network(2 * pixels / 255 - 1)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return uniform noise in [-1, 1] (n, C, H, W)."""
        height, width, channels = self.image_shape
        return 2 * uniform(self.seed, seeds, "x_0", (channels, height, width), self.device) - 1

    def advance(self, x: Tensor, noise: Callable[[int], Tensor], steps: int) -> Tensor:
        """Make ``steps`` steps of the chain."""
        return short_run(self.network, x, noise, replace(self.settings, steps=steps))

    def show(self, x: Tensor) -> np.ndarray:
        """Return x in [-1, 1] as uint8 (n, H, W, C)."""
        return to_uint8((x + 1) / 2)
