"""p(x | z) of NVAE: Gaussian, mixture of discretised logistics, Bernoulli. Images are in [0, 1]; the networks model 2x - 1.

Every decoder has ``log_prob(x)`` (N,) in nats, ``mean`` in [0, 1] units, ``noise_shape`` and ``sample(eps)``, which maps standard normal
noise (N, *noise_shape) to images, so that one kind of noise drives them all. Only the Gaussian's ``sample`` is differentiable in its noise,
which Langevin dynamics over eps_x needs.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vaebm.nvae.distributions import SIGMA_FLOOR, Normal, soft_clamp5


class Decoder(Protocol):
    """What every p(x | z) offers."""

    @property
    def noise_shape(self) -> tuple[int, int, int]: ...

    @property
    def mean(self) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sample(self, eps: Tensor) -> Tensor: ...


def per_image(log_prob: Tensor, border: int) -> Tensor:
    """Sum pixels (N, ..., H, W) to (N,), without a frame of ``border`` pixels."""
    if border:
        log_prob = log_prob[..., border:-border, border:-border]
    return log_prob.flatten(1).sum(1)


@dataclass(frozen=True)
class GaussianDecoder:
    """Independent Gaussians over 2x - 1, from params (N, 2C, H, W).

    Attributes:
        dist: the Gaussian that is sampled.
        scored: the Gaussian whose density is taken: as ``dist``, but with log sigma clamped below at ``log_sigma_min``, so that flat images
            cannot earn an unbounded density. ``None`` leaves it as it is. (The official VAEBM code differentiates with -2 while it samples
            unclamped; facts in docs/algorithm.md.)
        border: pixels on every side that ``log_prob`` leaves out (padding).
    """

    dist: Normal
    scored: Normal
    border: int = 0

    @classmethod
    def from_params(cls, params: Tensor, log_sigma_min: float | None = None, border: int = 0) -> "GaussianDecoder":
        """Split params into mean and log sigma and apply the clamps."""
        # Densities are summed over thousands of pixels: keep them in float32 under mixed precision.
        mu, log_sigma = params.float().chunk(2, dim=1)
        dist = Normal.from_params(mu, log_sigma)
        if log_sigma_min is None:
            return cls(dist, dist, border)
        scored = Normal(dist.mu, soft_clamp5(log_sigma).clamp(min=log_sigma_min).exp() + SIGMA_FLOOR)
        return cls(dist, scored, border)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.dist.mu.shape
        return c, h, w

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x | z) per image (N,) in nats, x in [0, 1] (N, C, H, W); the density is that of 2x - 1."""
        return per_image(self.scored.log_prob(2 * x - 1), self.border)

    def sample(self, eps: Tensor) -> Tensor:
        """Return T(eps) in [0, 1]: mu + sigma eps, clamped to [-1, 1] and rescaled."""
        return self.dist.transform(eps).clamp(-1, 1) / 2 + 0.5

    @property
    def mean(self) -> Tensor:
        """The decoder mean in [0, 1] units, not clamped: mu may leave [-1, 1]."""
        return self.dist.mu / 2 + 0.5


@dataclass(frozen=True)
class LogisticMixtureDecoder:
    """Mixture of M discretised logistics over the three channels of 2x - 1, from params (N, 10 M, H, W).

    Green's mean depends linearly on red, blue's on red and green, with coefficients in (-1, 1):
    P(x) = sum_m pi_m prod_c [sigmoid((x_c - mu_mc + h) / s_mc) - sigmoid((x_c - mu_mc - h) / s_mc)], h = 1 / (2^bits - 1),
    the first and last value taking the tails.

    Attributes:
        logits: (N, M, H, W) of pi.
        means, log_scales, coefficients: (N, 3, M, H, W); log s >= -7. Coefficients: red-green, red-blue, green-blue.
        bits: of the data.
        border: pixels on every side that ``log_prob`` leaves out.

    Reference: Salimans et al., "PixelCNN++", ICLR 2017.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    bits: int = 8
    border: int = 0

    # The released code takes everything above this for the last value. With 8 bits that holds 254 as well as 255, whose tails then overlap:
    # their probabilities sum to a little more than 1. Kept, because checkpoints were trained and are scored with it.
    LAST_VALUE_ABOVE = 0.99
    FIRST_VALUE_BELOW = -0.999

    @classmethod
    def from_params(cls, params: Tensor, bits: int = 8, border: int = 0) -> "LogisticMixtureDecoder":
        """Split params: M logits, then per channel M means, M log-scales and M coefficients."""
        params = params.float()
        n, channels, h, w = params.shape
        mixtures = channels // 10
        means, log_scales, raw = params[:, mixtures:].view(n, 3, 3 * mixtures, h, w).chunk(3, dim=2)
        return cls(params[:, :mixtures], means, log_scales.clamp(min=-7.0), raw.tanh(), bits, border)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(M + 3, H, W): one number per component to choose by, one per channel to draw by."""
        _, mixtures, h, w = self.logits.shape
        return mixtures + 3, h, w

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log P(x | z) per image (N,) in nats: the probability of the pixel values, x in [0, 1] (N, 3, H, W)."""
        x = (2 * x - 1).unsqueeze(2)  # (N, 3, 1, H, W)
        red, green, _ = x.unbind(1)
        shift = torch.stack(
            [
                torch.zeros_like(self.logits),
                self.coefficients[:, 0] * red,
                self.coefficients[:, 1] * red + self.coefficients[:, 2] * green,
            ],
            dim=1,
        )
        centred = x - (self.means + shift)  # (N, 3, M, H, W)
        levels = 2.0**self.bits - 1
        inverse = torch.exp(-self.log_scales)
        upper, lower, middle = inverse * (centred + 1 / levels), inverse * (centred - 1 / levels), inverse * centred
        mass = upper.sigmoid() - lower.sigmoid()
        # Where the difference of two sigmoids drowns in rounding, the density at the centre times the bin's width stands in for it.
        density = middle - self.log_scales - 2 * F.softplus(middle) - math.log(levels / 2)
        inside = torch.where(mass > 1e-5, mass.clamp(min=1e-10).log(), density)
        log_p = torch.where(x > self.LAST_VALUE_ABOVE, -F.softplus(lower), inside)
        log_p = torch.where(x < self.FIRST_VALUE_BELOW, upper - F.softplus(upper), log_p)
        return per_image(torch.logsumexp(log_p.sum(1) + self.logits.log_softmax(1), dim=1), self.border)

    def sample(self, eps: Tensor) -> Tensor:
        """Return images in [0, 1], not rounded to the data's bits: a component by the Gumbel trick, then its logistics by inversion."""
        u = torch.special.ndtr(eps).clamp(1e-5, 1 - 1e-5)
        mixtures = self.logits.shape[1]
        chosen = (self.logits - (-u[:, :mixtures].log()).log()).argmax(1, keepdim=True)[:, None]  # (N, 1, 1, H, W)
        means, log_scales, coefficients = (
            part.gather(2, chosen.expand(-1, 3, -1, -1, -1)).squeeze(2)
            for part in (self.means, self.log_scales, self.coefficients)
        )
        return self._join(means + log_scales.exp() * torch.logit(u[:, mixtures:]), coefficients)

    @property
    def mean(self) -> Tensor:
        """Mixture-weighted means, each channel following from the *means* of those before it, in [0, 1]."""
        weights = self.logits.softmax(1)[:, None]
        return self._join((self.means * weights).sum(2), (self.coefficients * weights).sum(2))

    @staticmethod
    def _join(independent: Tensor, coefficients: Tensor) -> Tensor:
        red = independent[:, 0].clamp(-1, 1)
        green = (independent[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
        blue = (independent[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1) / 2 + 0.5


@dataclass(frozen=True)
class BernoulliDecoder:
    """Independent Bernoullis, from their logits (N, C, H, W); x in {0, 1} (grey values in between are scored as such a mixture's mean).

    Attributes:
        border: pixels on every side that ``log_prob`` leaves out (padding).
    """

    logits: Tensor
    border: int = 0

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.logits.shape
        return c, h, w

    def log_prob(self, x: Tensor) -> Tensor:
        """Return sum x log p + (1 - x) log(1 - p) per image (N,), in nats."""
        return per_image(-F.binary_cross_entropy_with_logits(self.logits.float(), x, reduction="none"), self.border)

    def sample(self, eps: Tensor) -> Tensor:
        """Return images of zeros and ones."""
        return (torch.special.ndtr(eps) < self.mean).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """p, in [0, 1]."""
        return self.logits.sigmoid()
