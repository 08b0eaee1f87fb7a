"""IGEBM: an energy of pixels, sampled and trained by Langevin dynamics in pixel space.

p(x) is proportional to exp(-E(x)) on images x = bytes / 255 in [0, 1], with E a residual network whose convolutions
have spectral norm 1.

Reference: Du and Mordatch, "Implicit Generation and Modeling with Energy-Based Models", NeurIPS 2019,
https://arxiv.org/abs/1903.08689
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from baselines.system import Samples, Scores
from vaebm.errors import UserError
from vaebm.noise import normal, uniform
from vaebm.training.batches import to_uint8


@dataclass(frozen=True)
class IGEBMArchitecture:
    """``image_shape``: (H, W, C), H and W divisible by 8; ``width``: channels at half resolution."""

    image_shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 32

    def __post_init__(self) -> None:
        if self.image_shape[0] % 8 or self.image_shape[1] % 8 or self.width < 1:
            raise UserError("architecture: image_shape needs H and W divisible by 8, and width must be at least 1")


class Block(nn.Module):
    """y = skip(x) + conv3x3(lrelu(conv3x3(lrelu(x)))), after average pooling by 2 where ``down``."""

    def __init__(self, channels: int, out_channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = spectral_norm(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = (
            nn.Identity()
            if channels == out_channels
            else spectral_norm(nn.Conv2d(channels, out_channels, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            x = F.avg_pool2d(x, 2)
        return self.skip(x) + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))


class IGEBM(nn.Module):
    """The energy E: (N, C, H, W) in [0, 1] -> (N,).

    The kernel of every convolution, as a matrix (C_out, C_in k^2), has largest singular value 1. The power iteration
    runs in training mode only and its vectors are buffers, so that in evaluation mode E is a fixed function. The last
    layer is free and sets the scale of E.
    """

    def __init__(self, architecture: IGEBMArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.width
        self.stem = spectral_norm(nn.Conv2d(architecture.image_shape[2], width, 4, stride=2, padding=1))
        self.blocks = nn.Sequential(
            Block(width, width, down=False),
            Block(width, 2 * width, down=True),
            Block(2 * width, 2 * width, down=False),
            Block(2 * width, 4 * width, down=True),
        )
        self.last = nn.Linear(4 * width, 1)
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem((2 * x - 1).contiguous(memory_format=torch.channels_last))  # (N, w, H/2, W/2)
        h = F.leaky_relu(self.blocks(h), 0.2)  # (N, 4w, H/8, W/8)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # half precision would lose the small differences between energies
            return self.last(h.float().sum(dim=(2, 3))).squeeze(1)


def langevin(
    energy: Callable[[Tensor], Tensor],
    x: Tensor,
    noise: Callable[[int], Tensor],
    *,
    steps: int,
    step_size: float,
    noise_scale: float,
    gradient_clip: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """Run x <- clip(x - step_size clip(dE/dx, +-gradient_clip) + noise_scale n_k, bounds) for k = 0, ..., steps - 1.

    With noise_scale = sqrt(2 step_size) and no clipping it converges, for small steps, to exp(-E) / Z. The published
    setting (step_size 10, noise_scale 0.005, gradient_clip 0.01, bounds (0, 1)) is far colder than that, and is what
    the energies are trained for.

    Args:
        energy: (N, ...) -> (N,).
        x: where the chains start, (N, ...).
        noise: k -> standard normal noise of x's shape.

    Returns:
        Where the chains end, (N, ...), detached.
    """
    x = x.detach()
    for k in range(steps):
        x.requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        if gradient_clip is not None:
            gradient = gradient.clamp(-gradient_clip, gradient_clip)
        x = x.detach() - step_size * gradient + noise_scale * noise(k)
        if bounds is not None:
            x = x.clamp(*bounds)
    return x


@dataclass(frozen=True)
class LangevinRecipe:
    """How a chain moves; see :func:`langevin`."""

    steps: int = 60
    step_size: float = 10.0
    noise_scale: float = 0.005
    gradient_clip: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 0 or self.step_size <= 0 or self.noise_scale < 0 or self.gradient_clip <= 0:
            raise UserError(
                f"Langevin recipe {asdict(self)}: step_size and gradient_clip must be positive, the others not negative"
            )


def run_chains(energy: IGEBM, x: Tensor, noise: Callable[[int], Tensor], recipe: LangevinRecipe) -> Tensor:
    """Run :func:`langevin` on images in [0, 1]; kernels are normalised once, as no weight changes in a chain."""
    with parametrize.cached():
        return langevin(energy, x, noise, **asdict(recipe), bounds=(0.0, 1.0))


class IGEBMSystem(Scores, Samples):
    """IGEBM as a system under test: scores by -E(bytes / 255), samples by a chain from uniform noise."""

    kind = "igebm"
    Architecture, Network, Recipe = IGEBMArchitecture, IGEBM, LangevinRecipe

    def describe_score(self) -> dict[str, Any]:
        return {"score": "-E(x)", "estimator": "unnormalised log density, x = bytes / 255 without noise"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return -E (n,)."""
        return -self.network(pixels / 255)

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Run one chain per seed; return uint8 (n, H, W, C)."""
        height, width, channels = self.image_shape
        shape = (channels, height, width)
        x = uniform(self.seed, seeds, "x_0", shape, self.device)
        noise = lambda k: normal(self.seed, seeds, f"langevin.{k}", shape, self.device)
        return to_uint8(run_chains(self.network, x, noise, self.settings))
