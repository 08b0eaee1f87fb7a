"""Short-run EBM: an energy of pixels trained by the K-step Langevin dynamics that it is sampled with.

p(x) is proportional to exp(f(x)) on images x in [-1, 1]. Every chain starts from uniform noise and makes K steps

    x <- x + step_size df/dx + noise_scale n,    n ~ N(0, I),

in training as in sampling. K is far too short to reach exp(f) / Z, and so the chain itself is the generator: it is matched to the
data by f, while f alone is no good estimate of log p.

Reference: Nijkamp, Hill, Zhu and Wu, "Learning Non-Convergent Non-Persistent Short-Run MCMC Toward Energy-Based Model",
NeurIPS 2019, https://arxiv.org/abs/1904.09770
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.igebm import langevin
from baselines.system import Samples, Scores
from vaebm.errors import UserError
from vaebm.noise import normal, uniform
from vaebm.sampling import sample_in_blocks
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


def short_run(
    network: ShortRunNetwork, x: Tensor, noise: Callable[[int], Tensor], recipe: ShortRunRecipe, done: int = 0
) -> Tensor:
    """Run the chain from x (N, C, H, W) after ``done`` of its steps to its end; ``noise(k)`` is the noise of step k of all."""
    return langevin(
        lambda x: -network(x),
        x,
        lambda k: noise(done + k),
        steps=recipe.steps - done,
        step_size=recipe.step_size,
        noise_scale=recipe.noise_scale,
    )


class ShortRunSystem(Scores, Samples):
    """A short-run EBM as a system under test: scores by f(2 bytes / 255 - 1), samples by the chain that it was trained with."""

    kind = "short_run"
    Architecture, Network, Recipe = ShortRunArchitecture, ShortRunNetwork, ShortRunRecipe

    def describe_score(self) -> dict[str, Any]:
        return {"score": "f(x) = -E(x)", "estimator": "unnormalised log density, x = 2 bytes / 255 - 1 without noise"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return f (n,)."""
        return self.network(2 * pixels / 255 - 1)

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Run one chain per seed; return uint8 (n, H, W, C)."""
        return self._ladder(seeds, [self.settings.steps])[:, 0]

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images that :meth:`sample` draws with so many (N, H, W, C)."""
        rungs = sorted(set(ladder))
        stacked = sample_in_blocks(lambda filled: self._ladder(filled, rungs), seeds, (len(rungs), *self.image_shape))
        return {steps: stacked[:, i] for i, steps in enumerate(rungs)}

    def _ladder(self, seeds: Sequence[int], rungs: Sequence[int]) -> np.ndarray:
        """One chain passes every rung: its first k steps are the chain of k steps. Returns uint8 (n, rungs, H, W, C)."""
        height, width, channels = self.image_shape
        shape = (channels, height, width)
        x = 2 * uniform(self.seed, seeds, "x_0", shape, self.device) - 1
        noise = lambda k: normal(self.seed, seeds, f"langevin.{k}", shape, self.device)
        done, found = 0, []
        for steps in rungs:
            x = short_run(self.network, x, noise, ShortRunRecipe(**{**self.recipe, "steps": steps}), done)
            done = steps
            found.append(to_uint8((x + 1) / 2))
        return np.stack(found, axis=1)
