"""Gaussians of NVAE's latents, with their clamps.

The networks' outputs pass a soft clamp to (-5, 5), s = 5 tanh(s / 5), and the scale has a floor: sigma = exp(s) + 0.01. So even the first
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
