"""VAEBM: h(x, z) = p_theta(x, z) exp(-E_psi(x)) / Z (Xiao et al., ICLR 2021)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaebm.langevin import TARGETS, langevin, langevin_chain, standard_normal_potential
from vaebm.noise import normal
from vaebm.nvae import NVAE, Decoded, GaussianDecoder

OUTPUTS = ("mean", "sample")
OFFICIAL_LOG_SIGMA_MIN = -2.0  # the released chain differentiates a decoder whose log sigma is clamped here


@dataclass(frozen=True)
class ChainSettings:
    """How a chain is run.

    Attributes:
        steps: Langevin updates; 0 leaves the NVAE's own sample.
        step_size: eta.
        target: ``"paper"`` or ``"official"`` (see :mod:`vaebm.langevin`).
    """

    steps: int = 16
    step_size: float = 8e-5
    target: str = "paper"

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.step_size > 0:
            raise ValueError(f"a chain needs steps >= 0 and step_size > 0, found {self.steps} and {self.step_size}")
        if self.target not in TARGETS:
            raise ValueError(f"unknown Langevin target {self.target!r}: needed one of {', '.join(TARGETS)}")

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)


class VAEBM(nn.Module):
    """The product of an NVAE and an energy network. A chain's state is [eps_x, eps_z_1, ..., eps_z_L].

    Args:
        nvae: p_theta(x, z).
        energy: E_psi, any module that maps images (N, C, H, W) in [0, 1] to (N,).
    """

    def __init__(self, nvae: NVAE, energy: nn.Module) -> None:
        super().__init__()
        self.nvae, self.energy = nvae, energy

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of one image's eps_x and eps_z."""
        config = self.nvae.config
        return [(config.image_channels, config.image_size, config.image_size), *self.nvae.latent_shapes]

    def decode(self, eps: Sequence[Tensor], temperature: float = 1.0) -> tuple[Tensor, Decoded]:
        """Map a state to x in [0, 1] (N, C, H, W) and what the NVAE made of eps_z."""
        decoded = self.nvae.decode(eps[1:], temperature)
        return decoded.distribution.sample(eps[0]), decoded

    def potential(self, target: str = "paper") -> Callable[[Sequence[Tensor]], Tensor]:
        """Return U(eps) of :mod:`vaebm.langevin` for a target."""

        def paper(eps: Sequence[Tensor]) -> Tensor:
            x, _ = self.decode(eps)
            return self.energy(x).float() + standard_normal_potential(eps)

        def official(eps: Sequence[Tensor]) -> Tensor:
            x, decoded = self.decode(eps)
            scored = GaussianDecoder.from_params(decoded.params, OFFICIAL_LOG_SIGMA_MIN, self.nvae.config.border)
            return self.energy(x).float() - decoded.log_pz - scored.log_prob(x)

        return {"paper": paper, "official": official}[target]

    def run_chain(
        self, start: Sequence[Tensor], chain: ChainSettings, noise: Callable[[int], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Run the chain from ``start`` and return its last state."""
        return langevin(self.potential(chain.target), start, steps=chain.steps, step_size=chain.step_size, noise=noise)

    def sample(self, seeds: Sequence[int], chain: ChainSettings, *, output: str = "mean", seed: int = 0) -> Tensor:
        """Draw one image per seed; each depends on its own seed alone.

        Args:
            seed: seed of the run; the noise of an image is a function of it and of the image's own seed.
            output: ``"mean"`` returns the decoder mean at the last state (as the paper's figures do), ``"sample"`` returns x itself.

        Returns:
            (N, C, H, W); means are not clamped to [0, 1].
        """
        if output not in OUTPUTS:
            raise ValueError(f"unknown output {output!r}: needed one of {', '.join(OUTPUTS)}")
        *_, state = self.trajectory(seeds, chain, seed=seed)
        with torch.no_grad():
            x, decoded = self.decode(state)
        return {"mean": decoded.distribution.mean, "sample": x}[output]

    def trajectory(self, seeds: Sequence[int], chain: ChainSettings, *, seed: int = 0) -> Iterator[list[Tensor]]:
        """Yield the states of the chains that :meth:`sample` runs: the start, then one per step."""
        device = next(self.nvae.parameters()).device
        draw = lambda purpose: [
            normal(seed, seeds, f"{purpose}.{i}", shape, device) for i, shape in enumerate(self.state_shapes)
        ]
        start = draw("start")
        yield start
        noise = lambda k: draw(f"langevin.{k}")
        yield from langevin_chain(
            self.potential(chain.target), start, steps=chain.steps, step_size=chain.step_size, noise=noise
        )

    def log_density(self, x: Tensor, eps: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return log p_theta(x) - E_psi(x), float64 (N,): log h(x) without the constant log Z.

        log p_theta is the importance-weighted bound with one sample per entry of ``eps``, so this is a lower bound of log h(x) + log Z.
        """
        return self.nvae.log_prob_bound(x, eps) - self.energy(x).double()
