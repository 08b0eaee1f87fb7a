"""Gaussians of NVAE with their clamps: latents, and the Gaussian decoder over images.

Both networks' outputs pass a soft clamp to (-5, 5), s = 5 tanh(s / 5), and the scale has a floor: sigma = exp(s) + 0.01. So even the first
prior, whose parameters are zero, is N(0, 1.01^2) and not N(0, 1).

Reference: Vahdat & Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIGMA_FLOOR = 0.01
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def soft_clamp5(x: Tensor) -> Tensor:
    """Return 5 tanh(x / 5): identity near zero, bounded by (-5, 5)."""
    return 5.0 * torch.tanh(x / 5.0)


@dataclass(frozen=True)
class Normal:
    """Diagonal Gaussian N(mu, sigma^2), any shape."""

    mu: Tensor
    sigma: Tensor

    @classmethod
    def from_params(cls, mu: Tensor, log_sigma: Tensor, temperature: float = 1.0) -> "Normal":
        """Build from network outputs, through the clamps; ``temperature`` multiplies sigma."""
        return cls(soft_clamp5(mu), (soft_clamp5(log_sigma).exp() + SIGMA_FLOOR) * temperature)

    def transform(self, eps: Tensor) -> Tensor:
        """Return mu + sigma eps: a sample when eps ~ N(0, I)."""
        return self.mu + self.sigma * eps

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the elementwise log-density in nats."""
        return -0.5 * ((value - self.mu) / self.sigma).square() - self.sigma.log() - HALF_LOG_2PI

    def kl(self, other: "Normal") -> Tensor:
        """Return the elementwise KL(self || other) in nats, in closed form."""
        shift, ratio = (self.mu - other.mu) / other.sigma, self.sigma / other.sigma
        return 0.5 * (shift.square() + ratio.square()) - 0.5 - ratio.log()


@dataclass(frozen=True)
class GaussianDecoder:
    """p(x | z): independent Gaussians over 2x - 1 for x in [0, 1], from logits (N, 2C, H, W).

    Attributes:
        dist: the Gaussian that is sampled.
        scored: the Gaussian whose density is taken: as ``dist``, but with log sigma clamped below at ``log_sigma_min``, so that flat images
            cannot earn an unbounded density. ``None`` leaves it as it is. (The official VAEBM code differentiates with -2 while it samples
            unclamped; facts in docs/algorithm.md.)
    """

    dist: Normal
    scored: Normal

    @classmethod
    def from_logits(cls, logits: Tensor, log_sigma_min: float | None = None) -> "GaussianDecoder":
        """Split logits into mean and log sigma and apply the clamps."""
        # Densities are summed over thousands of pixels: keep them in float32 under mixed precision.
        mu, log_sigma = logits.float().chunk(2, dim=1)
        dist = Normal.from_params(mu, log_sigma)
        if log_sigma_min is None:
            return cls(dist, dist)
        return cls(dist, Normal(dist.mu, soft_clamp5(log_sigma).clamp(min=log_sigma_min).exp() + SIGMA_FLOOR))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x | z) per image (N,) in nats, x in [0, 1] (N, C, H, W); the density is that of 2x - 1."""
        return self.scored.log_prob(2 * x - 1).flatten(1).sum(1)

    def sample(self, eps: Tensor) -> Tensor:
        """Return T(eps) in [0, 1]: mu + sigma eps, clamped to [-1, 1] and rescaled."""
        return self.dist.transform(eps).clamp(-1, 1) / 2 + 0.5

    @property
    def mean(self) -> Tensor:
        """The decoder mean in [0, 1] units, not clamped: mu may leave [-1, 1]."""
        return self.dist.mu / 2 + 0.5
