"""Glow: an invertible network with an exact likelihood.

One step of flow is actnorm, an invertible 1x1 convolution (or a fixed permutation of channels) and an affine (or
additive) coupling; a level is a squeeze and K steps; between levels half of the channels leave with a Gaussian whose mean
and scale are read from the half that stays. Nothing is conditioned on a label. With z = f(x),

    log p(x) = log N(z; prior) + log |det df/dx|.

Reference: Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018,
https://arxiv.org/abs/1807.03039
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.system import Samples, Scores
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import normal, uniform


@dataclass(frozen=True)
class GlowArchitecture:
    """L levels of K steps. ``image_shape``: (H, W, C), H and W divisible by 2^L; ``width``: channels in couplings.

    ``coupling``: "affine" or "additive"; ``permutation`` of the channels before it: "conv" (a learned 1x1 convolution),
    "shuffle" (drawn once) or "reverse"; ``lu``: the convolution's matrix is learned by its LU decomposition;
    ``learn_top``: mean and scale of the last z are learned, else it is standard normal.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    levels: int = 3
    steps: int = 8
    width: int = 64
    coupling: str = "affine"
    permutation: str = "conv"
    lu: bool = False
    learn_top: bool = True

    def __post_init__(self) -> None:
        for name, known in (("coupling", ("affine", "additive")), ("permutation", ("conv", "shuffle", "reverse"))):
            found = getattr(self, name)
            if found not in known:
                raise UserError(f"architecture: unknown {name} {found!r}.{did_you_mean(found, known)}")
        if self.lu and self.permutation != "conv":
            raise UserError(f"architecture: lu decomposes 1x1 convolutions; permutation {self.permutation!r} has none")
        height, width, _ = self.image_shape
        if min(self.levels, self.steps, self.width) < 1:
            raise UserError("architecture: levels, steps and width must be at least 1")
        if height % 2**self.levels or width % 2**self.levels:
            raise UserError(f"architecture: {height}x{width} images cannot be halved {self.levels} times; lower levels")


class ActNorm(nn.Module):
    """y = (x + bias) exp(log_scale), per channel; the first batch decides both so that y has mean 0 and variance 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.observing = False  # set by Glow.initialise

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> the same, ()
        if self.observing:
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            self.bias.copy_(-mean[:, None, None])
            self.log_scale.copy_(-0.5 * (variance[:, None, None] + 1e-6).log())
        return (x + self.bias) * self.log_scale.exp(), x.shape[2] * x.shape[3] * self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.bias


class ChannelMatrix(nn.Module):
    """y = W x at every place, that is a 1x1 convolution by a square matrix W; log |det| = H W log |det W|."""

    def matrix(self) -> Tensor:
        """Return W (C, C)."""
        raise NotImplementedError

    def log_abs_det(self) -> Tensor:
        """Return log |det W|, ()."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> the same, ()
        with torch.autocast(x.device.type, enabled=False):  # only coupling networks may run in half precision
            y = F.conv2d(x, self.matrix()[:, :, None, None])
            return y, x.shape[2] * x.shape[3] * self.log_abs_det()

    def inverse(self, y: Tensor) -> Tensor:
        weight = torch.linalg.inv(self.matrix().double()).to(y.dtype)
        return F.conv2d(y, weight[:, :, None, None])


def rotation(channels: int) -> Tensor:
    """Draw a random rotation (C, C), where every W starts."""
    return torch.linalg.qr(torch.randn(channels, channels))[0]


class InvertibleConv(ChannelMatrix):
    """W is learned as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(rotation(channels))

    def matrix(self) -> Tensor:
        return self.weight

    def log_abs_det(self) -> Tensor:
        # float64 for the determinant: C <= 48, so it costs nothing, and the term is multiplied by H W.
        return torch.linalg.slogdet(self.weight.double()).logabsdet.to(self.weight.dtype)


class LUConv(ChannelMatrix):
    """W = P L U, P a permutation that stays, L with ones on the diagonal, U's diagonal sign exp(log_scale), whose signs stay.

    Only what lies below the diagonal of ``lower`` and above that of ``upper`` counts (section 3.2 of the paper).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(rotation(channels))
        self.permutation: Tensor
        self.sign: Tensor
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(diagonal.abs().log())

    def matrix(self) -> Tensor:
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        return self.permutation @ lower @ (self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp()))

    def log_abs_det(self) -> Tensor:
        return self.log_scale.sum()


class Shuffle(nn.Module):
    """y_i = x_order(i), for an order of the channels that was drawn once; with ``reverse`` the last one comes first. log |det| = 0."""

    def __init__(self, channels: int, *, reverse: bool) -> None:
        super().__init__()
        order = torch.arange(channels - 1, -1, -1) if reverse else torch.randperm(channels)
        self.order: Tensor
        self.register_buffer("order", order, persistent=not reverse)  # what is always the same is not kept with weights

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> the same, ()
        return channels_last(x[:, self.order]), x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        return channels_last(y[:, self.order.argsort()])


def channel_map(architecture: GlowArchitecture, channels: int) -> nn.Module:
    """Build what mixes the channels before a coupling."""
    if architecture.permutation == "conv":
        return LUConv(channels) if architecture.lu else InvertibleConv(channels)
    return Shuffle(channels, reverse=architecture.permutation == "reverse")


class ScaledConv(nn.Module):
    """A convolution followed by an actnorm, folded into one kernel: y = exp(log_scale) (w * x + bias)."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, channels, kernel, kernel) * 0.05)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            variance, mean = torch.var_mean(F.conv2d(x, self.weight, padding="same"), dim=(0, 2, 3), correction=0)
            self.bias.copy_(-mean)
            self.log_scale.copy_(-0.5 * (variance + 1e-6).log())
        scale = self.log_scale.exp()
        return F.conv2d(x, self.weight * scale[:, None, None, None], self.bias * scale, padding="same")


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at zero, with a learned gain exp(3 log_scale)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = (3 * self.log_scale).exp()
        return F.conv2d(x, self.weight * scale[:, None, None, None], self.bias * scale, padding="same")


class Coupling(nn.Module):
    """y_a = x_a, y_b = (x_b + shift(x_a)) s(x_a), with s = sigmoid(h(x_a) + 2) in (0, 1), 0.88 at the start; s = 1 if additive."""

    def __init__(self, channels: int, width: int, *, affine: bool = True) -> None:
        super().__init__()
        self.affine = affine
        half = channels // 2
        self.net = nn.Sequential(
            ScaledConv(half, width, 3),
            nn.ReLU(),
            ScaledConv(width, width, 1),
            nn.ReLU(),
            ZeroConv(width, (2 if affine else 1) * (channels - half)),
        )

    def _shift_and_log_scale(self, x_a: Tensor) -> tuple[Tensor, Tensor]:
        # Half precision, where a caller turned autocast on, ends here.
        statistics = self.net(x_a).float()
        if not self.affine:
            return statistics, statistics.new_zeros(1, 1, 1, 1)
        shift, raw = statistics.chunk(2, dim=1)
        return shift, F.logsigmoid(raw + 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> the same, (N,)
        x_a, x_b = halves(x)
        shift, log_scale = self._shift_and_log_scale(x_a)
        return torch.cat([x_a, (x_b + shift) * log_scale.exp()], dim=1), log_scale.sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor) -> Tensor:
        y_a, y_b = halves(y)
        shift, log_scale = self._shift_and_log_scale(y_a)
        return torch.cat([y_a, y_b * (-log_scale).exp() - shift], dim=1)


class Step(nn.Module):
    """Actnorm, a map of the channels, coupling."""

    def __init__(self, architecture: GlowArchitecture, channels: int) -> None:
        super().__init__()
        affine = architecture.coupling == "affine"
        self.parts = nn.ModuleList(
            [
                ActNorm(channels),
                channel_map(architecture, channels),
                Coupling(channels, architecture.width, affine=affine),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for part in self.parts:
            x, term = part(x)
            log_det = log_det + term
        return x, log_det

    def inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inverse(y)  # type: ignore[operator]
        return y


class Glow(nn.Module):
    """The flow. Images enter as x in [-1/2, 1/2), (N, C, H, W); ``z`` is one tensor per level, the coarsest last."""

    def __init__(self, architecture: GlowArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        height, width, channels = architecture.image_shape
        self.levels, self.priors = nn.ModuleList(), nn.ModuleList()  # levels: one list of steps each
        self.z_shapes: list[tuple[int, int, int]] = []  # (C, H, W) of every z
        for level in range(architecture.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            self.levels.append(nn.ModuleList(Step(architecture, channels) for _ in range(architecture.steps)))
            if level < architecture.levels - 1:
                kept = channels // 2
                self.priors.append(ZeroConv(kept, 2 * (channels - kept)))
                self.z_shapes.append((channels - kept, height, width))
                channels = kept
            else:
                self.z_shapes.append((channels, height, width))
        top = torch.zeros(2 * channels, 1, 1)  # mean and log scale of the last z, per channel
        if architecture.learn_top:
            self.top = nn.Parameter(top)
        else:
            self.register_buffer("top", top, persistent=False)
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every actnorm from a batch x (N, C, H, W) so that its output has mean 0 and variance 1 on that batch."""
        layers = [m for m in self.modules() if isinstance(m, ActNorm | ScaledConv)]
        for layer in layers:
            layer.observing = True
        self.log_prob(x)
        for layer in layers:
            layer.observing = False

    def _prior(self, level: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of the z that leaves at ``level``, given what stays."""
        statistics = (
            self.priors[level](kept).float() if level < len(self.priors) else self.top.expand(len(kept), -1, 1, 1)
        )
        mean, log_scale = statistics.chunk(2, dim=1)
        return mean, log_scale

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Map x (N, C, H, W) to z; return z, log |det dz/dx| (N,) and log prior(z) (N,)."""
        zs: list[Tensor] = []
        log_det = log_prior = x.new_zeros(len(x))
        for level, steps in enumerate(self.levels):
            x = channels_last(F.pixel_unshuffle(x, 2))  # (N, 4C, H/2, W/2)
            for step in steps:  # type: ignore[attr-defined]
                x, term = step(x)
                log_det = log_det + term
            kept, z = halves(x) if level < len(self.priors) else (x, x)
            mean, log_scale = self._prior(level, kept)
            log_prior = log_prior + normal_log_prob(z, mean, log_scale)
            zs.append(z)
            x = kept
        return zs, log_det, log_prior

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact log density (N,) in nats of x (N, C, H, W), with respect to dx."""
        _, log_det, log_prior = self(x)
        return log_det + log_prior

    def decode(self, eps: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
        """Map noise, one (N, *z_shape) per level, to x: z = mean + temperature sigma eps, then the inverse flow."""
        x = channels_last(eps[-1])
        for level in reversed(range(len(self.levels))):
            mean, log_scale = self._prior(level, x)
            z = mean + temperature * log_scale.exp() * eps[level]
            x = self._undo(level, torch.cat([x, z], dim=1) if level < len(self.priors) else z)
        return x

    def inverse(self, zs: Sequence[Tensor]) -> Tensor:
        """Undo :meth:`forward`: the x (N, C, H, W) whose code is z."""
        x = zs[-1]
        for level in reversed(range(len(self.levels))):
            x = self._undo(level, torch.cat([x, zs[level]], dim=1) if level < len(self.priors) else x)
        return x

    def _undo(self, level: int, x: Tensor) -> Tensor:
        x = channels_last(x)
        for step in reversed(self.levels[level]):  # type: ignore[call-overload]
            x = step.inverse(x)
        return channels_last(F.pixel_shuffle(x, 2))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split the channels in two; the first part is made dense because a convolution reads it."""
    kept = x.shape[1] // 2
    return channels_last(x[:, :kept]), x[:, kept:]


def normal_log_prob(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(z; mean, exp(log_scale)^2), summed over all but the first axis: (N,)."""
    terms = -0.5 * math.log(2 * math.pi) - log_scale - 0.5 * ((z - mean) * (-log_scale).exp()) ** 2
    return terms.sum(dim=(1, 2, 3))


def dequantise(images: Tensor, u: Tensor) -> Tensor:
    """x = (images + u) / 256 - 1/2 for bytes (N, C, H, W) and u in [0, 1): x in [-1/2, 1/2)."""
    return (images.float() + u) / 256 - 0.5


def image_log_prob(glow: Glow, images: Tensor, u: Tensor) -> Tensor:
    """log p(x) - D log 256 (N,): the density of the dequantised image, rescaled to bins of width 1.

    Averaged over u ~ U[0, 1)^D it bounds the log probability of the 8-bit image from below (Theis et al., "A note on
    the evaluation of generative models", ICLR 2016, section 3.1).
    """
    return glow.log_prob(dequantise(images, u)) - images[0].numel() * math.log(256)


def bits_per_dim(log_prob: Any, dimensions: int) -> Any:
    """Turn nats per image into bits per dimension: -log_prob / (D log 2). Uniform bytes cost 8."""
    return -log_prob / (dimensions * math.log(2))


@dataclass(frozen=True)
class GlowSampling:
    """``temperature`` multiplies the standard deviation of every prior; 1 draws from the model."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise UserError(f"sampling.temperature {self.temperature}: needed a number in [0, 2]")


class GlowSystem(Scores, Samples):
    """Glow as a system under test: scores by log probability in nats, samples by the inverse flow.

    The dequantisation noise of a score is keyed by the bytes of the image.
    """

    kind = "glow"
    Architecture, Network, Recipe = GlowArchitecture, Glow, GlowSampling

    def describe_score(self) -> dict[str, Any]:
        return {"score": "log p(x), nats", "estimator": "exact log-likelihood, uniform dequantisation, 1 draw"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return log p(x) in nats (n,), with one draw of dequantisation noise."""
        u = uniform(self.seed, keys, "dequantisation", tuple(pixels.shape[1:]), self.device)
        return image_log_prob(self.network, pixels, u)

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Push one draw of the prior per seed through the inverse flow; return uint8 (n, H, W, C)."""
        eps = [
            normal(self.seed, seeds, f"eps_z.{i}", shape, self.device) for i, shape in enumerate(self.network.z_shapes)
        ]
        x = self.network.decode(eps, self.settings.temperature)
        # The inverse of a flow can overflow far from the data: such a pixel becomes mid-grey, not undefined.
        levels = ((x.nan_to_num(0.0, 1.0, -1.0) + 0.5) * 256).floor().clamp(0, 255)
        return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
