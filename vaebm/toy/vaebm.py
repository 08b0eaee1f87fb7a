"""A VAEBM on points of the plane, normalised by quadrature.

h(x, z) = p_theta(x, z) exp(-E(x)) / Z,   h(x) = p_theta(x) exp(-E(x)) / Z,   Z = int p_theta(x) exp(-E(x)) dx

E(x) is a network of random Fourier features sin(B x), cos(B x): on x itself a small network learns the slow parts of a function first, and
modes of width 0.1 in a square of 10 come last (Tancik et al., Fourier Features Let Networks Learn High Frequency Functions in Low
Dimensional Domains, NeurIPS 2020). The frequencies B are drawn from an isotropic Gaussian and know nothing of the grid. E is bounded, so
Z is finite.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaebm.errors import UserError
from vaebm.langevin import Noise, Uniform, metropolis_chain, standard_normal_potential
from vaebm.noise import normal, uniform
from vaebm.toy.vae import ToyVAE, mlp

EDGE = 7.0  # half the side of the square of the quadrature over x
SPACING = 0.02  # of its nodes: a fifth of the standard deviation of a mode

_BLOCK = 20_000  # points that E sees at once


@dataclass(frozen=True)
class EnergyConfig:
    """Hidden units per layer, hidden layers, number of frequencies and their standard deviation per axis (radians per unit of x)."""

    width: int = 64
    depth: int = 2
    frequencies: int = 64
    frequency_sd: float = 1.5

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.frequencies) < 1 or not self.frequency_sd > 0:
            raise UserError(f"energy: found {self}, needed 1 or more of each and frequency_sd above 0")


@dataclass(frozen=True)
class ChainConfig:
    """Metropolis-adjusted Langevin dynamics in sweeps: ``steps`` steps of size ``wide``, then ``steps`` of size ``fine``.

    Latents of neighbouring modes touch, so a wide step goes from mode to mode; a fine one is accepted where the density is steep. Each
    leaves the target as it is, so the sweep does. 0 sweeps leave the VAE's own sample.
    """

    sweeps: int = 25
    steps: int = 4
    wide: float = 0.15
    fine: float = 0.01

    def __post_init__(self) -> None:
        if self.sweeps < 0 or self.steps < 1 or not min(self.wide, self.fine) > 0:
            raise UserError(
                f"chain: found {self}, needed sweeps of 0 or more, steps of 1 or more and step sizes above 0"
            )

    @property
    def total(self) -> int:
        """Number of Langevin steps."""
        return 2 * self.sweeps * self.steps


class ToyEnergy(nn.Module):
    """E(x): points (N, 2) -> (N,)."""

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        self.config = config
        self.frequencies: Tensor
        self.register_buffer("frequencies", config.frequency_sd * torch.randn(2, config.frequencies))
        self.network = mlp(2 * config.frequencies, 1, config.width, config.depth)

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return self.network(torch.cat([phase.sin(), phase.cos()], 1)).squeeze(1)


class ToyVAEBM(nn.Module):
    """The product of a VAE and exp(-E). A chain's state is [eps_x (N, 2), eps_z (N, 2)].

    Args:
        vae: p_theta(x, z).
        energy: E, any module that maps points (N, 2) to (N,).
        chain: how samples are drawn.
        log_z: log Z where it is known; computed when first needed without it.
    """

    size = "mini"

    def __init__(self, vae: ToyVAE, energy: nn.Module, chain: ChainConfig, log_z: float | None = None) -> None:
        super().__init__()
        self.vae, self.energy, self.chain, self._log_z = vae, energy, chain, log_z

    def potential(self, state: Sequence[Tensor]) -> Tensor:
        """Return U(eps) = E(T(eps)) + ||eps||^2 / 2, (N,)."""
        return self.energy(self.vae.transform(state)) + standard_normal_potential(state)

    def run_chain(self, start: Sequence[Tensor], chain: ChainConfig, noise: Noise, uniform: Uniform) -> list[Tensor]:
        """Run a chain from ``start`` and return its last state; ``noise(k)`` and ``uniform(k)`` are the draws of step k (from 0)."""
        state = list(start)
        for first in range(0, chain.total, chain.steps):
            size = chain.fine if first // chain.steps % 2 else chain.wide
            shifted_noise = lambda k, first=first: noise(first + k)
            shifted_uniform = lambda k, first=first: uniform(first + k)
            part = metropolis_chain(
                self.potential, state, steps=chain.steps, step_size=size, noise=shifted_noise, uniform=shifted_uniform
            )
            for state, _ in part:  # noqa: B007  the last one is kept
                pass
        return state

    def sample_points(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Draw one point per seed, float64 (N, 2): the end of its own chain, which starts at the VAE's sample of that seed."""
        # One stream per seed holds the noise of all its steps.
        w = normal(0, seeds, "toy.langevin", (self.chain.total, 4))
        u = uniform(0, seeds, "toy.metropolis", (self.chain.total,))
        start = self.vae.start(seeds)
        state = self.run_chain(start, self.chain, lambda k: [w[:, k, :2], w[:, k, 2:]], lambda k: u[:, k])
        with torch.no_grad():
            return self.vae.transform(state).double().numpy()

    @property
    def protocol(self) -> dict[str, object]:
        """How density and samples are had."""
        return {
            **self.vae.protocol,
            "quadrature_x": f"spacing {SPACING:g} on [-{EDGE:g}, {EDGE:g}]^2",
            "chain": asdict(self.chain),
        }

    @torch.no_grad()
    def energies(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return E at points (N, 2): float64 (N,)."""
        x = torch.from_numpy(np.asarray(points, dtype=np.float64)).float()
        return torch.cat([self.energy(part) for part in x.split(_BLOCK)]).double().numpy()

    def log_z(self, spacing: float = SPACING) -> float:
        """Return log Z by the trapezoidal rule on a square. Computed once per model at the default spacing."""
        if self._log_z is not None and spacing == SPACING:
            return self._log_z
        axis = np.linspace(-EDGE, EDGE, round(2 * EDGE / spacing) + 1)
        log_h = self._unnormalised_on_grid(axis, axis)
        largest = log_h.max()
        found = float(largest + np.log(np.exp(log_h - largest).sum()) + 2 * math.log(axis[1] - axis[0]))
        if spacing == SPACING:
            self._log_z = found
        return found

    def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log h(x) = log p_theta(x) - E(x) - log Z at points (N, 2): float64 (N,), in nats."""
        return self.vae.log_density(points) - self.energies(points) - self.log_z()

    def grid_log_density(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log h at the points (first[i], second[j]), float64 (len(first), len(second))."""
        return self._unnormalised_on_grid(first, second) - self.log_z()

    def _unnormalised_on_grid(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        points = np.stack(np.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
        return self.vae.grid_log_density(first, second) - self.energies(points).reshape(len(first), len(second))
