"""IGEBM: an energy of pixels, sampled and trained by Langevin dynamics in pixel space.

p(x) is proportional to exp(-E(x)) on images x = bytes / 255 in [0, 1], with E a residual network whose convolutions
have spectral norm 1.

Reference: Du and Mordatch, "Implicit Generation and Modeling with Energy-Based Models", NeurIPS 2019,
https://arxiv.org/abs/1903.08689
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from baselines.system import Scores, StepSamples
from vaebm.errors import UserError
from vaebm.noise import normal, uniform
from vaebm.training.batches import to_uint8


@dataclass(frozen=True)
class IGEBMArchitecture:
    """The network, and how many of its states a checkpoint holds.

    Attributes:
        image_shape: (H, W, C), H and W divisible by 8.
        width: channels w at half resolution.
        blocks: residual blocks that change nothing of the shape, at 1/2 (w channels), 1/4 (2w) and 1/8 (4w) of the resolution, besides the
            two that lead there.
        full_resolution: a 3x3 stem at full resolution, a first block that halves it, and every pooling after the convolutions of its block;
            without it a strided stem and poolings before the convolutions, at a quarter of the cost.
        ensemble: states of one training run whose mean energy is E: the newest and those before it.

    Published: width 128, blocks (2, 2, 2), full_resolution, ensembles of 10.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 32
    blocks: tuple[int, int, int] = (1, 1, 0)
    full_resolution: bool = False
    ensemble: int = 1

    def __post_init__(self) -> None:
        if self.image_shape[0] % 8 or self.image_shape[1] % 8 or self.width < 1:
            raise UserError("architecture: image_shape needs H and W divisible by 8, and width must be at least 1")
        if len(self.blocks) != 3 or min(self.blocks) < 0:
            raise UserError(f"architecture.blocks {self.blocks}: needed three numbers, none negative")
        if self.ensemble < 1:
            raise UserError(f"architecture.ensemble {self.ensemble}: needed at least 1")


class Block(nn.Module):
    """y = skip(x) + conv3x3(lrelu(conv3x3(lrelu(x)))); where ``down``, x is averaged over 2x2 before, or y after (``pool_last``)."""

    def __init__(self, channels: int, out_channels: int, *, down: bool, pool_last: bool = False) -> None:
        super().__init__()
        self.down, self.pool_last = down, pool_last
        self.first = spectral_norm(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = (
            nn.Identity()
            if channels == out_channels
            else spectral_norm(nn.Conv2d(channels, out_channels, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.down and not self.pool_last:
            x = F.avg_pool2d(x, 2)
        y = self.skip(x) + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))
        return F.avg_pool2d(y, 2) if self.down and self.pool_last else y


class IGEBM(nn.Module):
    """The energy E: (N, C, H, W) in [0, 1] -> (N,), the mean over an ensemble of states.

    The kernel of every convolution, as a matrix (C_out, C_in k^2), has largest singular value 1. The power iteration
    runs in training mode only and its vectors are buffers, so that in evaluation mode E is a fixed function. The last
    layer is free and sets the scale of E.

    ``history`` holds the earlier states, newest first; they are never trained.
    """

    def __init__(self, architecture: IGEBMArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width, channels, full = architecture.width, architecture.image_shape[2], architecture.full_resolution
        kernel, stride = (3, 1) if full else (4, 2)
        self.stem = spectral_norm(nn.Conv2d(channels, width, kernel, stride=stride, padding=1))
        down = lambda c, out: Block(c, out, down=True, pool_last=full)
        keep = lambda c, count: [Block(c, c, down=False) for _ in range(count)]
        half, quarter, eighth = architecture.blocks
        self.blocks = nn.Sequential(
            *([down(width, width)] if full else []),
            *keep(width, half),
            down(width, 2 * width),
            *keep(2 * width, quarter),
            down(2 * width, 4 * width),
            *keep(4 * width, eighth),
        )
        self.last = nn.Linear(4 * width, 1)
        self.history = nn.ModuleList(
            IGEBM(replace(architecture, ensemble=1)).requires_grad_(False) for _ in range(architecture.ensemble - 1)
        )
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    def newest(self, x: Tensor) -> Tensor:
        """Return the energy of the newest state alone, (N,): the one that is trained."""
        h = self.stem((2 * x - 1).contiguous(memory_format=torch.channels_last))  # (N, w, H/2, W/2), or full H, W
        h = F.leaky_relu(self.blocks(h), 0.2)  # (N, 4w, H/8, W/8)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # half precision would lose the small differences between energies
            return self.last(h.float().sum(dim=(2, 3))).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        energies = [self.newest(x), *(state(x) for state in self.history)]
        return energies[0] if len(energies) == 1 else torch.stack(energies).mean(dim=0)

    @torch.no_grad()
    def remember(self, state: dict[str, Tensor], *, everywhere: bool = False) -> None:
        """Put a state dict of a single network at the front of ``history`` and drop the oldest; or in every place of it."""
        for place in reversed(range(len(self.history))):
            before = state if place == 0 or everywhere else self.history[place - 1].state_dict()
            self.history[place].load_state_dict(before)


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
                f"Langevin recipe {self.chain}: step_size and gradient_clip must be positive, the others not negative"
            )

    @property
    def chain(self) -> dict[str, Any]:
        """The arguments of :func:`langevin`."""
        return {field.name: getattr(self, field.name) for field in fields(LangevinRecipe)}


@dataclass(frozen=True)
class IGEBMRecipe(LangevinRecipe):
    """With ``score_noise``: standard deviation of Gaussian noise that is added to an image before it is scored, for networks that were
    trained on noisy images."""

    score_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score_noise < 0:
            raise UserError(f"sampling.score_noise {self.score_noise:g}: needed at least 0")


def run_chains(
    energy: Callable[[Tensor], Tensor], x: Tensor, noise: Callable[[int], Tensor], recipe: LangevinRecipe
) -> Tensor:
    """Run :func:`langevin` on images in [0, 1]; kernels are normalised once, as no weight changes in a chain."""
    with parametrize.cached():
        return langevin(energy, x, noise, **recipe.chain, bounds=(0.0, 1.0))


class IGEBMSystem(Scores, StepSamples):
    """IGEBM as a system under test: scores by -E(bytes / 255), samples by a chain from uniform noise."""

    kind = "igebm"
    Architecture, Network, Recipe = IGEBMArchitecture, IGEBM, IGEBMRecipe
    score_options = ("score_noise",)

    def describe_score(self) -> dict[str, Any]:
        noise, states = self.settings.score_noise, self.network.architecture.ensemble
        shown = f"plus noise of standard deviation {noise:g}, 1 draw" if noise else "without noise"
        mean = f", mean energy of {states} states" if states > 1 else ""
        return {"score": "-E(x)", "estimator": f"unnormalised log density, x = bytes / 255 {shown}{mean}"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return -E (n,)."""
        x = pixels / 255
        if self.settings.score_noise:
            n = normal(self.seed, keys, "score_noise", tuple(x.shape[1:]), self.device)
            x = x + self.settings.score_noise * n
        return -self.network(x)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return uniform noise in [0, 1] (n, C, H, W)."""
        height, width, channels = self.image_shape
        return uniform(self.seed, seeds, "x_0", (channels, height, width), self.device)

    def advance(self, x: Tensor, noise: Callable[[int], Tensor], steps: int) -> Tensor:
        """Make ``steps`` Langevin steps of the recipe."""
        return run_chains(self.network, x, noise, replace(self.settings, steps=steps))

    def show(self, x: Tensor) -> np.ndarray:
        """Return x in [0, 1] as uint8 (n, H, W, C)."""
        return to_uint8(x)
