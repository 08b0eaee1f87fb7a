"""DDPM: a chain that takes noise away from an image step by step; scores by its variational bound.

Forward: q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I) for t = 0, ..., T - 1, with a_t the product of 1 - beta_0, ..., 1 - beta_t and x_0 in
[-1, 1]. A U-Net estimates the noise in x_t, hence x_0, hence the mean of p(x_{t-1} | x_t). The U-Net is that of diffusers (an optional
extra), the chain and its bound are written here from the paper's equations.

Reference: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, https://arxiv.org/abs/2006.11239
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from baselines.system import Samples, Scores
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import ahead, normal, uniform
from vaebm.training.batches import to_uint8

# The U-Net for CIFAR-10, in the settings of diffusers.UNet2DModel: attention at 16x16, one head.
CIFAR10_UNET: Mapping[str, Any] = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (128, 256, 256, 256),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
    "act_fn": "silu",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "downsample_padding": 0,
}
VARIANCES = ("fixedlarge", "fixedsmall")


@dataclass(frozen=True)
class DDPMArchitecture:
    """``unet``: settings of ``diffusers.UNet2DModel``; ``timesteps`` T; beta_t rises linearly from ``beta_start`` to ``beta_end``."""

    unet: Mapping[str, Any] = field(default_factory=lambda: dict(CIFAR10_UNET))
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if self.timesteps < 2 or not 0 < self.beta_start <= self.beta_end < 1:
            found = f"timesteps {self.timesteps}, beta_start {self.beta_start}, beta_end {self.beta_end}"
            raise UserError(f"architecture: {found}; needed at least 2 timesteps and 0 < beta_start <= beta_end < 1")
        if not {"sample_size", "in_channels"} <= self.unet.keys():
            raise UserError("architecture: unet does not say its sample_size and in_channels")
        if self.unet.get("out_channels", 3) != self.unet["in_channels"]:
            raise UserError(
                "architecture: unet has other out_channels than in_channels: needed an estimate of the noise alone"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        size = self.unet["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return height, width, self.unet["in_channels"]

    @property
    def alpha_bar(self) -> np.ndarray:
        """a_t, float64 (T,)."""
        return np.cumprod(1 - np.linspace(self.beta_start, self.beta_end, self.timesteps))


class DDPM(nn.Module):
    """The estimate of the noise: x_t (N, C, H, W) and t -> (N, C, H, W).

    Raises:
        UserError: diffusers is not installed, or does not know the settings.
    """

    def __init__(self, architecture: DDPMArchitecture) -> None:
        super().__init__()
        try:
            import diffusers
        except ImportError:
            raise UserError("DDPM needs the package diffusers: pip install 'vaebm-bench[diffusers]'") from None
        self.architecture = architecture
        try:
            build: Any = diffusers.UNet2DModel
            self.unet = build(**architecture.unet)
        except Exception as error:  # a setting may be wrong anywhere in diffusers
            raise UserError(
                f"architecture: diffusers cannot build this unet ({' '.join(str(error).split())})"
            ) from None

    def forward(self, x: Tensor, t: int) -> Tensor:
        return self.unet(x, t).sample


@dataclass(frozen=True)
class Step:
    """One step of the reverse chain, from x_t to x_s, s < t; s = -1 is the image itself, with a_{-1} = 1.

    Attributes:
        a_t, a_s: of the forward process.
        x0_weight, x_weight: the mean of q(x_s | x_t, x_0) is x0_weight x_0 + x_weight x_t (the paper's equation 7).
        small, large: variance of that q, and 1 - a_t / a_s, the two choices for p(x_s | x_t).
    """

    a_t: float
    a_s: float

    @property
    def large(self) -> float:
        return 1 - self.a_t / self.a_s

    @property
    def small(self) -> float:
        return self.large * (1 - self.a_s) / (1 - self.a_t)

    @property
    def x0_weight(self) -> float:
        return math.sqrt(self.a_s) * self.large / (1 - self.a_t)

    @property
    def x_weight(self) -> float:
        return math.sqrt(self.a_t / self.a_s) * (1 - self.a_s) / (1 - self.a_t)

    def variance(self, kind: str) -> float:
        return self.large if kind == "fixedlarge" else self.small

    def clean(self, x: Tensor, eps: Tensor, clip: bool) -> Tensor:
        """Return the x_0 that x_t and the noise in it say, in [-1, 1] with ``clip``."""
        x_0 = (x - math.sqrt(1 - self.a_t) * eps) / math.sqrt(self.a_t)
        return x_0.clamp(-1, 1) if clip else x_0


def step_of(alpha_bar: np.ndarray, t: int, s: int) -> Step:
    return Step(float(alpha_bar[t]), float(alpha_bar[s]) if s >= 0 else 1.0)


def respaced(timesteps: int, steps: int) -> list[int]:
    """Return ``steps`` evenly spaced times from T - 1 down to 0."""
    return np.linspace(timesteps - 1, 0, steps).round().astype(int).tolist()


def discretised_log_prob(x: Tensor, mean: Tensor, scale: float) -> Tensor:
    """log of the mass that N(mean, scale^2) has in the bin of each value x of {-1, -1 + 2/255, ..., 1}; the outer bins are open.

    The paper's equation 13. The masses of the 256 values sum to 1. Exact in the tails: the bin is mirrored to the lower one.
    """
    far = 1e10  # stands in for infinity, whose gradient is undefined
    low = torch.where(x < -1 + 1 / 255, -far, (x - 1 / 255 - mean) / scale)
    high = torch.where(x > 1 - 1 / 255, far, (x + 1 / 255 - mean) / scale)
    mirror = low + high > 0
    low, high = torch.where(mirror, -high, low), torch.where(mirror, -low, high)
    below_high = torch.special.log_ndtr(high)
    return below_high + torch.log1p(-torch.exp(torch.special.log_ndtr(low) - below_high))


@dataclass(frozen=True)
class DDPMSampling:
    """How DDPM samples and scores.

    Attributes:
        steps: of the reverse chain, at most T; fewer are evenly spaced times of it.
        variance: of p(x_{t-1} | x_t): ``"fixedlarge"`` beta_t, or ``"fixedsmall"`` that of q(x_{t-1} | x_t, x_0).
        clip: keep the estimate of x_0 in [-1, 1].
        vlb_steps: terms of the bound that are evaluated, of T; fewer give an unbiased estimate of their sum.
    """

    steps: int = 1000
    variance: str = "fixedlarge"
    clip: bool = True
    vlb_steps: int = 50

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise UserError(f"sampling.variance {self.variance!r}: unknown.{did_you_mean(self.variance, VARIANCES)}")
        if self.steps < 1 or self.vlb_steps < 2:
            raise UserError(f"sampling: steps {self.steps}, vlb_steps {self.vlb_steps}; needed at least 1 and 2")


class DDPMSystem(Scores, Samples):
    """DDPM as a system under test: scores by a bound on log P of the 8-bit image in nats, samples by the reverse chain."""

    kind = "ddpm"
    Architecture, Network, Recipe = DDPMArchitecture, DDPM, DDPMSampling
    score_options = ("variance", "clip", "vlb_steps")
    shared_options = ("variance", "clip")

    def __init__(self, network: Any, recipe: Any = None, **about: Any) -> None:
        self.alpha_bar = network.architecture.alpha_bar
        super().__init__(network, recipe, **about)

    def use(self, recipe: Any) -> None:
        """See :class:`~baselines.system.NativeSystem`; the chain has no more steps than the network knows times."""
        super().use(recipe)
        for name in ("steps", "vlb_steps"):
            if self.recipe[name] > len(self.alpha_bar):
                raise UserError(
                    f"sampling.{name} {self.recipe[name]}: needed at most {len(self.alpha_bar)}, all there are"
                )

    def describe_score(self) -> dict[str, Any]:
        recipe, total = self.settings, len(self.alpha_bar)
        clipped = "x_0 clipped" if recipe.clip else "x_0 not clipped"
        estimator = (
            f"variational bound, {recipe.vlb_steps} of {total} terms, 1 draw of noise each, {recipe.variance} variance"
        )
        return {"score": "log P(x), nats", "estimator": f"{estimator}, {clipped}"}

    def strata(self) -> list[tuple[int, int]]:
        """Return (t, how many terms it stands for): t = 0 for itself, the others cut into ``vlb_steps`` - 1 runs with one t of each.

        Which one depends on the seed and not on the image, so that the choice blurs no comparison of images.
        """
        runs = np.array_split(np.arange(1, len(self.alpha_bar)), self.settings.vlb_steps - 1)
        u = uniform(self.seed, range(len(runs)), "stratum", (1,)).flatten().tolist()
        return [(0, 1), *((int(run[int(at * len(run))]), len(run)) for run, at in zip(runs, u, strict=True))]

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return the bound -(L_T + L_{T-1} + ... + L_0) <= log P(x) in nats (n,), the paper's equation 5, L_0 discretised."""
        x = pixels.double() / 127.5 - 1
        a = float(self.alpha_bar[-1])
        bound = 0.5 * (a - a * x**2 + math.log1p(-a)).sum(dim=(1, 2, 3))  # -L_T = -KL(q(x_{T-1} | x_0) || N(0, I))
        for t, weight in self.strata():
            noise = normal(self.seed, keys, f"vlb.{t}", tuple(x.shape[1:]), self.device)
            # Of all the networks that a gradient goes through, only one is kept in memory at a time.
            term = (
                checkpoint(self._term, x, noise, t, use_reentrant=False) if x.requires_grad else self._term(x, noise, t)
            )
            bound = bound - weight * term
        return bound

    def _term(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        """Return L_t in nats (n,): KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), or -log P(x_0 | x_t) for t = 0."""
        step = step_of(self.alpha_bar, t, t - 1)
        x_t = math.sqrt(step.a_t) * x + math.sqrt(1 - step.a_t) * noise.double()
        x_0 = step.clean(x_t, self.network(x_t.float(), t).double(), self.settings.clip)
        if (
            t == 0
        ):  # the variance of q is 0 here: that of the next step stands in, for both kinds, as in the paper's code
            return -discretised_log_prob(x, x_0, math.sqrt(step_of(self.alpha_bar, 1, 0).small)).sum(dim=(1, 2, 3))
        variance = step.variance(self.settings.variance)
        ratio = step.small / variance
        kl = 0.5 * (ratio - 1 - math.log(ratio) + step.x0_weight**2 / variance * (x - x_0) ** 2)
        return kl.sum(dim=(1, 2, 3))

    @property
    def total_steps(self) -> int:
        """Steps of the reverse chain behind an image."""
        return self.settings.steps

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Run one reverse chain per seed (the paper's algorithm 2); return uint8 (n, H, W, C)."""
        return self._draw(seeds, self.settings.steps)

    @torch.no_grad()
    def sample_part(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        """Return the chains after the first ``steps`` of their :attr:`total_steps`, uint8 (N, H, W, C): to time them, not to look at."""
        draw = lambda filled: self._draw(filled, self.settings.steps, most=steps)
        return self.in_blocks(draw, seeds)

    @torch.no_grad()
    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images of a chain of so many, evenly spaced times of all (N, H, W, C).

        Raises:
            UserError: a number of steps is below 1 or above T.
        """
        for steps in ladder:
            if not 1 <= steps <= len(self.alpha_bar):
                raise UserError(f"{self.kind}: a chain of {steps} steps, needed 1 to {len(self.alpha_bar)}")
        draw = lambda steps: lambda filled: self._draw(filled, steps)
        return {steps: self.in_blocks(draw(steps), seeds) for steps in sorted(set(ladder))}

    def _draw(self, seeds: Sequence[int], steps: int, most: int | None = None) -> np.ndarray:
        height, width, channels = self.image_shape
        shape = (channels, height, width)
        x = normal(self.seed, seeds, "x_T", shape, self.device)
        times = respaced(len(self.alpha_bar), steps)
        draw = lambda k: normal(self.seed, seeds, f"chain.{times[k]}", shape, self.device)
        with ahead(draw, len(times) - 1) as noise:
            for k, (t, s) in enumerate(list(zip(times, [*times[1:], -1], strict=True))[:most]):
                step = step_of(self.alpha_bar, t, s)
                x_0 = step.clean(x, self.network(x, t), self.settings.clip)
                x = step.x0_weight * x_0 + step.x_weight * x
                if s >= 0:
                    x = x + math.sqrt(step.variance(self.settings.variance)) * noise(k)
        return to_uint8((x + 1) / 2)
