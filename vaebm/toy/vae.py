"""A VAE on points of the plane, with p_theta(x) by quadrature over its two latents.

p_theta(x, z) = N(z; 0, I) N(x; mu(z), diag sigma(z)^2)
p_theta(x) = int p_theta(x, z) dz = sum_k w_k N(x; mu(z_k), diag sigma(z_k)^2)

The nodes z_k are those of the trapezoidal rule on a square, whose error falls exponentially for a smooth integrand that vanishes at the
edge; the weights w_k are N(z_k; 0, I) h^2, normalised. So the quadrature is itself a density: it integrates to 1 at any spacing.

Reference: Trefethen and Weideman, The exponentially convergent trapezoidal rule, SIAM Review 56 (2014).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from vaebm.errors import UserError
from vaebm.noise import normal

LATENTS = 2
LATENT_EDGE = 6.0  # the prior's mass outside the square is 4e-9
NODES = 240  # per latent; twice as many change the mean log-likelihood of a trained VAE by 1e-6 nats
POINT_SCALE, LATENT_SCALE = (
    2.0,
    5.0,
)  # bring the spacing of the modes and of their latents to the width of a unit's nonlinearity

_POINTS, _NODES = 64, 8192  # points, and nodes, worked on at once


@dataclass(frozen=True)
class VAEConfig:
    """Hidden units per layer and hidden layers of encoder and decoder; ``sigma_min`` is the floor of their standard deviations."""

    width: int = 128
    depth: int = 3
    sigma_min: float = 0.02

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or not self.sigma_min > 0:
            raise UserError(f"VAE: found {self}, needed width and depth of 1 or more and sigma_min above 0")


@dataclass(frozen=True)
class Nodes:
    """p_theta(x) as a mixture, float64: log weights (K,), means (K, 2), standard deviations (K, 2)."""

    log_weight: Tensor
    mean: Tensor
    sigma: Tensor


class ToyVAE(nn.Module):
    """Points are (N, 2). A state is standard normal noise [eps_x (N, 2), eps_z (N, 2)]."""

    size = "mini"

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = mlp(2, 2 * LATENTS, config.width, config.depth)
        self.decoder = mlp(LATENTS, 4, config.width, config.depth)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z | x), both (N, 2)."""
        return self._normal(self.encoder(POINT_SCALE * x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of p(x | z), both (N, 2)."""
        return self._normal(self.decoder(LATENT_SCALE * z))

    def _normal(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = params.chunk(2, dim=1)
        return mean, self.config.sigma_min + softplus(raw)

    def transform(self, state: Sequence[Tensor]) -> Tensor:
        """Return x = mu(z) + sigma(z) eps_x (N, 2); z is eps_z, as the prior is standard normal."""
        eps_x, eps_z = state
        mean, sigma = self.decode(eps_z)
        return mean + sigma * eps_x

    def elbo(self, x: Tensor, eps_z: Tensor, kl_weight: float = 1.0) -> Tensor:
        """Return log p(x | z) - kl_weight KL(q(z | x) || p(z)) in nats, (N,), with one z = T(eps_z) per point.

        At ``kl_weight`` 1 its mean over eps_z is a lower bound of log p_theta(x).
        """
        mean, sigma = self.encode(x)
        kl = (0.5 * (mean.square() + sigma.square() - 1) - sigma.log()).sum(1)
        return log_normal(x, *self.decode(mean + sigma * eps_z)) - kl_weight * kl

    @staticmethod
    def start(seeds: Sequence[int]) -> list[Tensor]:
        """Return one state per seed, each from its own noise alone."""
        return [normal(0, seeds, f"toy.start.{i}", (size,)) for i, size in enumerate((2, LATENTS))]

    @torch.no_grad()
    def sample_points(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Draw one point per seed, float64 (N, 2)."""
        return self.transform(self.start(seeds)).double().numpy()

    @property
    def protocol(self) -> dict[str, object]:
        """How the density is had."""
        return {"quadrature_z": f"trapezoidal, {NODES} x {NODES} nodes on [-{LATENT_EDGE:g}, {LATENT_EDGE:g}]^2"}

    @torch.no_grad()
    def nodes(self, n: int = NODES) -> Nodes:
        """Return the mixture of the n x n nodes of the quadrature."""
        line = torch.linspace(-LATENT_EDGE, LATENT_EDGE, n, dtype=torch.float64)
        z = torch.cartesian_prod(line, line)
        return Nodes(torch.log_softmax(-z.square().sum(1) / 2, 0), *copy.deepcopy(self).double().decode(z))

    @torch.no_grad()
    def log_density(self, points: NDArray[np.float64], nodes: int = NODES) -> NDArray[np.float64]:
        """Return log p_theta(x) at points (N, 2): float64 (N,), in nats.

        Args:
            nodes: of the quadrature, per latent.
        """
        mixture = self.nodes(nodes)
        # The exponents of all pairs are one matrix product: (x^2, x, 1) times the coefficients of each node.
        precision = mixture.sigma.pow(-2)
        constant = mixture.log_weight - mixture.sigma.log().sum(1) - math.log(2 * math.pi)
        constant -= (precision * mixture.mean.square()).sum(1) / 2
        coefficients = torch.cat([-precision / 2, precision * mixture.mean, constant[:, None]], 1).T.contiguous()
        x = torch.from_numpy(np.asarray(points, dtype=np.float64))
        features = torch.cat([x.square(), x, x.new_ones(len(x), 1)], 1)
        return torch.cat([torch.logsumexp(part @ coefficients, 1) for part in features.split(_POINTS)]).numpy()

    @torch.no_grad()
    def grid_log_density(
        self, first: NDArray[np.float64], second: NDArray[np.float64], nodes: int = NODES
    ) -> NDArray[np.float64]:
        """Return log p_theta at the points (first[i], second[j]), float64 (len(first), len(second)).

        The coordinates of x are independent given z, so the whole grid is one matrix product over the nodes. Where the density
        underflows it is -inf.
        """
        mixture = self.nodes(nodes)
        total = torch.zeros(len(first), len(second), dtype=torch.float64)
        for part in torch.arange(len(mixture.mean)).split(_NODES):
            one, two = (
                torch.exp(
                    log_normal(
                        torch.from_numpy(axis)[:, None, None],
                        *(each[part, i, None] for each in (mixture.mean, mixture.sigma)),
                    )
                )
                for i, axis in enumerate((first, second))
            )
            total += (one * mixture.log_weight[part].exp()) @ two.T
        return total.log().numpy()


def log_normal(x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Return log N(x; mean, diag sigma^2), summed over the last dimension."""
    return (-((x - mean) / sigma).square() / 2 - sigma.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def mlp(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """Return ``depth`` hidden layers of ``width`` SiLU units (smooth, as quadrature and Langevin dynamics want it) and a linear output."""
    sizes = [inputs, *[width] * depth]
    hidden = [part for i in range(depth) for part in (nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU())]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))
