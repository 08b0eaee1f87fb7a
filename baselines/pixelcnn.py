"""PixelCNN: an exact likelihood, one pixel after the other.

An image is read row by row. With x_i the pixel at place i and x_<i those above it and to its left,

    log p(x) = sum_i log p(x_i | x_<i).

Two streams of gated residual blocks see x_<i and nothing else: the vertical stream all rows above, the horizontal stream
the row so far. Each conditional is a mixture of logistics, cut into one bin per value of a byte, in which a channel's mean
follows linearly from the channels before it (:class:`PixelMixture`).

The streams are van den Oord's; likelihood and residual blocks are PixelCNN++'s, without its detour over lower resolutions:
at one resolution all that a new pixel changes can be computed alone (:meth:`PixelCNN.sample`).

References: van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", NeurIPS 2016, https://arxiv.org/abs/1606.05328;
Salimans et al., "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications", ICLR 2017,
https://arxiv.org/abs/1701.05517
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.system import Samples, Scores
from vaebm.errors import UserError
from vaebm.noise import uniform

REACH = 3  # rows above and columns to the left that the first layers see: half of a 7x7 window
LOG_SCALE_MIN = -7.0  # of the logistics; a sharper one would put all of its mass into one of 256 bins


@dataclass(frozen=True)
class PixelCNNArchitecture:
    """``image_shape``: (H, W, C); ``filters``: channels of both streams; ``layers``: blocks in each; ``mixtures``: logistics per pixel.

    ``bits``: the model is one of the first ``bits`` bits of every byte.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    filters: int = 48
    layers: int = 4
    mixtures: int = 5
    bits: int = 8

    def __post_init__(self) -> None:
        if min(*self.image_shape, self.filters, self.layers, self.mixtures) < 1:
            raise UserError("architecture: image_shape, filters, layers and mixtures must be at least 1")
        if not 1 <= self.bits <= 8:
            raise UserError(f"architecture: bits {self.bits}, needed 1 to 8")


class Gate(nn.Module):
    """a sigmoid(b), where (a, b) is a 1x1 convolution of relu(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.conv(F.relu(x)), dim=1)


class Layer(nn.Module):
    """One residual block of each stream; the horizontal one also reads the vertical one.

    u <- u + gate(conv_2x3(relu(u))), which sees its own row of u and the one above;
    h <- h + gate(conv_1x2(relu(h)) + conv_1x1(relu(u))), which sees its own place in h and the one to the left.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.vertical, self.vertical_gate = nn.Conv2d(channels, channels, (2, 3)), Gate(channels)
        self.horizontal, self.horizontal_gate = nn.Conv2d(channels, channels, (1, 2)), Gate(channels)
        self.across = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # both (N, F, H, W)
        u = u + self.vertical_gate(self.vertical(F.pad(F.relu(u), (1, 1, 1, 0))))
        h = h + self.horizontal_gate(self.horizontal(F.pad(F.relu(h), (1, 0, 0, 0))) + self.across(F.relu(u)))
        return u, h


class PixelCNN(nn.Module):
    """The network: x (N, C, H, W) in [-1, 1] -> parameters of a :class:`PixelMixture`, which at a pixel depend on earlier ones alone."""

    def __init__(self, architecture: PixelCNNArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, filters, mixtures = architecture.image_shape[2], architecture.filters, architecture.mixtures
        # One more channel of ones tells pixels from the padding around them.
        self.vertical = nn.Conv2d(channels + 1, filters, (REACH, 2 * REACH + 1))
        self.horizontal = nn.Conv2d(channels + 1, filters, (1, REACH))
        self.layers: Iterable[Layer] = nn.ModuleList(Layer(filters) for _ in range(architecture.layers))  # type: ignore[assignment]
        self.last = nn.Conv2d(filters, mixtures * (1 + 2 * channels + channels * (channels - 1) // 2), 1)
        # Start near the data: logistics of about a tenth of the range, side by side over it.
        start = torch.zeros(self.last.out_channels // mixtures, mixtures)
        start[1 : channels + 1] = torch.linspace(-0.8, 0.8, mixtures)
        start[channels + 1 : 2 * channels + 1] = -2.0
        self.last.bias = nn.Parameter(start.flatten())
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).contiguous(memory_format=torch.channels_last)
        u = self.vertical(F.pad(x, (REACH, REACH, REACH, -1)))  # the row itself is cut off, below is nothing
        h = self.horizontal(F.pad(x, (REACH, -1, 0, 0)))  # the pixel itself is cut off
        for layer in self.layers:
            u, h = layer(u, h)
        return self.last(F.relu(h))

    def mixture(self, x: Tensor) -> "PixelMixture":
        """Return p(x_i | x_<i) for every i, from x (N, C, H, W) in [-1, 1]."""
        return PixelMixture.from_params(self(x), self.architecture.image_shape[2], self.architecture.bits)

    def log_prob(self, values: Tensor) -> Tensor:
        """Return log p (N,) in nats of images of the values 0, ..., 2^bits - 1, (N, C, H, W)."""
        x = scaled(values, self.architecture.bits)
        return self.mixture(x).log_prob(x).sum(dim=(1, 2))

    @torch.no_grad()
    def sample(self, u: Tensor, temperature: float = 1.0, rows: int | None = None) -> Tensor:
        """Draw x (N, C, H, W) in [-1, 1], pixel by pixel, from u (N, 1 + C, H, W) in [0, 1); see :meth:`PixelMixture.sample`.

        With ``rows`` only the first ones are drawn, and the others are 0.

        The vertical stream is computed a row at a time and the horizontal one a pixel at a time. Of the first, a row needs
        only what entered each layer's convolution in the row above; of the second, a pixel only what did so to its left.
        So an image costs about as much arithmetic as one pass of the network, not as many passes as it has pixels.
        """
        height, width, channels = self.architecture.image_shape
        n, filters = len(u), self.architecture.filters
        canvas = u.new_zeros(n, channels + 1, height + REACH, width + 2 * REACH)  # the image, padded as in forward
        x = canvas[:, :, REACH:, REACH : REACH + width]
        x[:, channels] = 1
        first, last = dense(self.horizontal), dense(self.last)
        blocks = [(dense(layer.horizontal), dense(layer.horizontal_gate.conv)) for layer in self.layers]
        above = [u.new_zeros(n, filters, 1, width + 2) for _ in self.layers]
        for row in range(height)[:rows]:
            v = self.vertical(canvas[:, :, row : row + REACH])  # (N, F, 1, W)
            across = []
            for i, layer in enumerate(self.layers):
                entering = F.pad(F.relu(v), (1, 1))
                v = v + layer.vertical_gate(layer.vertical(torch.cat([above[i], entering], dim=2)))
                above[i] = entering
                across.append(layer.across(F.relu(v))[:, :, 0])
            left = [u.new_zeros(n, filters) for _ in self.layers]
            for column in range(width):
                h = first(canvas[:, :, row + REACH, column : column + REACH].flatten(1))  # (N, F)
                for i, (block, gate) in enumerate(blocks):
                    entering = F.relu(h)
                    seen = block(torch.stack([left[i], entering], dim=2).flatten(1)) + across[i][:, :, column]
                    h, left[i] = h + F.glu(gate(F.relu(seen)), dim=1), entering
                mixture = PixelMixture.from_params(last(F.relu(h)), channels, self.architecture.bits)
                x[:, :channels, row, column] = mixture.sample(u[:, :, row, column], temperature)
        return x[:, :channels]


def dense(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """The convolution at one place, of what it sees there, flattened."""
    return partial(F.linear, weight=conv.weight.flatten(1), bias=conv.bias)


def scaled(values: Tensor, bits: int) -> Tensor:
    """Map 0, ..., 2^bits - 1 to [-1, 1]."""
    return values.float() * (2 / (2**bits - 1)) - 1


@dataclass(frozen=True)
class PixelMixture:
    """Mixture of M discretised logistics over the C channels of every pixel; channel c's mean moves with those before it.

    With x_c in [-1, 1], half a bin h = 1 / (2^bits - 1), and m_c = mean_c + sum_{d < c} coefficient_cd x_d,

        P(x) = sum_m weight_m prod_c [sigmoid((x_c - m_c + h) / s_c) - sigmoid((x_c - m_c - h) / s_c)],

    where the bin of the first value reaches down to minus infinity and that of the last up to infinity, so that the
    probabilities of all values sum to 1.

    Attributes:
        log_weights: (N, M, ...), normalised over M.
        means, log_scales: (N, C, M, ...).
        coefficients: (N, C (C - 1) / 2, M, ...) in (-1, 1), ordered 10, 20, 21, 30, ...
        bits: of the data.

    Reference: Salimans et al., "PixelCNN++", ICLR 2017, sections 2.1 and 2.2.
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    bits: int

    @classmethod
    def from_params(cls, params: Tensor, channels: int, bits: int) -> "PixelMixture":
        """Split params (N, M (1 + 2C + C (C - 1) / 2), ...)."""
        pairs = channels * (channels - 1) // 2
        # Log-probabilities are summed over thousands of values: keep them in float32 under mixed precision.
        parts = params.float().unflatten(1, (1 + 2 * channels + pairs, -1))
        logits, means, log_scales, raw = parts.split([1, channels, channels, pairs], dim=1)
        return cls(logits[:, 0].log_softmax(1), means, log_scales.clamp(min=LOG_SCALE_MIN), raw.tanh(), bits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log P of every pixel (N, ...) in nats, x (N, C, ...) in [-1, 1] on the grid of 2^bits values."""
        bin_ = 2 / (2**self.bits - 1)
        total = self.log_weights
        for c in range(x.shape[1]):
            value, scale = x[:, c, None], (-self.log_scales[:, c]).exp()
            centred = (value - self._mean(c, x)) * scale
            half = scale * (bin_ / 2)
            # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no digit is lost where both are close.
            below, above = F.logsigmoid(centred + half), F.logsigmoid(half - centred)
            inside = below + above + (-torch.expm1(-2 * half)).log()
            edges = torch.where(value < bin_ / 2 - 1, below, above)
            total = total + torch.where(value.abs() > 1 - bin_ / 2, edges, inside)
        return total.logsumexp(1)

    def sample(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """Return values x (N, C, ...) in [-1, 1] on the grid of 2^bits, by inversion of u (N, 1 + C, ...) in [0, 1).

        ``temperature`` T: weights are raised to the power 1 / T and scales multiplied by T.
        """
        weights = (self.log_weights / temperature).softmax(1)
        chosen = (weights.cumsum(1)[:, :-1] <= u[:, :1]).sum(1)[:, None, None]  # (N, 1, 1, ...)
        take = lambda part: part.gather(2, chosen.expand(-1, part.shape[1], *chosen.shape[2:]))
        one = PixelMixture(
            self.log_weights, take(self.means), take(self.log_scales), take(self.coefficients), self.bits
        )
        levels, values = 2**self.bits - 1, list[Tensor]()
        for c in range(self.means.shape[1]):
            mean = one._mean(c, torch.stack(values, dim=1) if values else u[:, :0])
            drawn = mean + temperature * one.log_scales[:, c].exp() * u[:, c + 1, None].logit()
            # The next channel's mean follows from the value, not from what was rounded to it: so does log_prob.
            value = ((drawn[:, 0].clamp(-1, 1) + 1) * (levels / 2)).round()
            values.append(value * (2 / levels) - 1)
        return torch.stack(values, dim=1)

    def _mean(self, c: int, x: Tensor) -> Tensor:
        """Means (N, M, ...) of channel ``c``, given the channels before it."""
        first = c * (c - 1) // 2
        return self.means[:, c] + sum(self.coefficients[:, first + d] * x[:, d, None] for d in range(c))


def quantise(pixels: Tensor, bits: int) -> Tensor:
    """Keep the first ``bits`` bits of bytes, given as floats: 0, ..., 2^bits - 1. Its gradient is that of the division."""
    step = 2 ** (8 - bits)
    return (pixels - (pixels % step).detach()) / step


@dataclass(frozen=True)
class PixelCNNSampling:
    """``temperature`` sharpens every conditional below 1; see :meth:`PixelMixture.sample`. 1 draws from the model."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 2:
            raise UserError(f"sampling.temperature {self.temperature}: needed a number in (0, 2]")


class PixelCNNSystem(Scores, Samples):
    """PixelCNN as a system under test: scores by log probability in nats, samples pixel by pixel."""

    kind = "pixelcnn"
    gradient_note = "values taken as continuous"
    evaluation_note = (
        "a call sees one row of the image: all calls together cost about what one pass over the image does"
    )
    Architecture, Network, Recipe = PixelCNNArchitecture, PixelCNN, PixelCNNSampling

    def describe_score(self) -> dict[str, Any]:
        bits = self.network.architecture.bits
        return {"score": "log p(x), nats", "estimator": f"exact log-probability of {bits}-bit values, no noise"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return log p(x) in nats (n,): a probability, not a density."""
        return self.network.log_prob(quantise(pixels, self.network.architecture.bits))

    @property
    def total_steps(self) -> int:
        """Rows of an image: each takes one call of the vertical stream, and as many of the horizontal one as it has pixels."""
        return self.image_shape[0]

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Draw one image per seed, pixel by pixel; return uint8 (n, H, W, C)."""
        return self._draw(seeds)

    @torch.no_grad()
    def sample_part(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        """Return images of which the first ``steps`` rows are drawn, uint8 (N, H, W, C): to time them, not to look at."""
        draw = lambda filled: self._draw(filled, steps)
        return self.in_blocks(draw, seeds)

    def _draw(self, seeds: Sequence[int], rows: int | None = None) -> np.ndarray:
        height, width, channels = self.image_shape
        u = uniform(self.seed, seeds, "pixels", (1 + channels, height, width), self.device)
        x = self.network.sample(u, self.settings.temperature, rows)
        return ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
