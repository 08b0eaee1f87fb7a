"""VAEBM: h(x, z) = p_theta(x, z) exp(-E_psi(x)) / Z (Xiao et al., ICLR 2021)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vaebm.langevin import TARGETS, Noise, Uniform, decode, langevin_chain, metropolis_chain, potential
from vaebm.noise import ahead, normal, uniform
from vaebm.nvae import NVAE, Decoded

OUTPUTS = ("mean", "sample")


@dataclass(frozen=True)
class ChainSettings:
    """How a chain is run.

    Attributes:
        steps: Langevin updates; 0 leaves the NVAE's own sample.
        step_size: eta.
        target: ``"paper"`` or ``"official"`` (see :mod:`vaebm.langevin`).
        temperature: of the prior: its sigma is multiplied by it wherever the chain passes the NVAE. 1 is the model itself.
        metropolis: refuse a share of the steps, so that the chain's law is the target at any step size (MALA).
    """

    steps: int = 16
    step_size: float = 8e-5
    target: str = "paper"
    temperature: float = 1.0
    metropolis: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.step_size > 0:
            raise ValueError(f"a chain needs steps >= 0 and step_size > 0, found {self.steps} and {self.step_size}")
        if self.target not in TARGETS:
            raise ValueError(f"unknown Langevin target {self.target!r}: needed one of {', '.join(TARGETS)}")
        if not self.temperature > 0:
            raise ValueError(f"a chain needs temperature > 0, found {self.temperature}")

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ChainSettings":
        """Read the chain's part of a sampling recipe (a card's ``"sampling"``); what the recipe leaves out has its default."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


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
        # A mixture needs a number per component to choose by and one per channel to draw by.
        channels = config.mixtures + 3 if config.likelihood == "logistic_mixture" else config.image_channels
        return [(channels, config.image_size, config.image_size), *self.nvae.latent_shapes]

    def decode(self, eps: Sequence[Tensor], temperature: float = 1.0) -> tuple[Tensor, Decoded]:
        """Map a state to x in [0, 1] (N, C, H, W) and what the NVAE made of eps_z."""
        return decode(self.nvae, eps, temperature)

    def potential(self, target: str = "paper", temperature: float = 1.0) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return U(eps) of :func:`vaebm.langevin.potential`."""
        return potential(self.nvae, self.energy, target, temperature)

    def states(
        self, start: Sequence[Tensor], chain: ChainSettings, noise: Noise, uniform: Uniform
    ) -> Iterator[list[Tensor]]:
        """Yield the start and then the state after every step.

        Args:
            noise, uniform: the draws of a step (see :mod:`vaebm.langevin`); ``uniform`` is used with ``chain.metropolis`` only.
        """
        yield [part.detach() for part in start]
        if chain.steps == 0:  # no potential is asked for: any decoder will do
            return
        target = self.potential(chain.target, chain.temperature)
        if chain.metropolis:
            adjusted = metropolis_chain(
                target, start, steps=chain.steps, step_size=chain.step_size, noise=noise, uniform=uniform
            )
            yield from (state for state, _ in adjusted)
        else:
            yield from langevin_chain(target, start, steps=chain.steps, step_size=chain.step_size, noise=noise)

    def run_chain(
        self, start: Sequence[Tensor], chain: ChainSettings, noise: Noise, uniform: Uniform | None = None
    ) -> list[Tensor]:
        """Run the chain from ``start`` and return its last state; ``uniform`` defaults to torch's generator."""
        eps_x = start[0]
        return last(
            self.states(start, chain, noise, uniform or (lambda _: torch.rand(len(eps_x), device=eps_x.device)))
        )

    def sample(self, seeds: Sequence[int], chain: ChainSettings, *, output: str = "mean", seed: int = 0) -> Tensor:
        """Draw one image per seed; each depends on its own seed alone.

        Args:
            seed: seed of the run; the noise of an image is a function of it and of the image's own seed.
            output: ``"mean"`` returns the decoder mean at the last state (as the paper's figures do), ``"sample"`` returns x itself.

        Returns:
            (N, C, H, W); means are not clamped to [0, 1].
        """
        check_output(output)
        state = last(self.trajectory(seeds, chain, seed=seed))
        return self.render(state, output, chain.temperature)

    @torch.no_grad()
    def render(self, state: Sequence[Tensor], output: str = "mean", temperature: float = 1.0) -> Tensor:
        """Return the images of a state, (N, C, H, W): see :meth:`sample`."""
        check_output(output)
        x, decoded = self.decode(state, temperature)
        return decoded.distribution.mean if output == "mean" else x

    def start(self, seeds: Sequence[int], *, seed: int = 0) -> list[Tensor]:
        """Return the state from which :meth:`sample` starts: standard normal noise, one stream per seed."""
        return self._draw(seeds, seed, "start")

    def trajectory(
        self,
        seeds: Sequence[int],
        chain: ChainSettings,
        *,
        seed: int = 0,
        start: Sequence[Tensor] | None = None,
        done: int = 0,
    ) -> Iterator[list[Tensor]]:
        """Yield the states of the chains that :meth:`sample` runs: the start, then one per step.

        Args:
            start: the state to continue from; :meth:`start` without it.
            done: steps that the chains have behind them. Their noise is not used again: a chain that is stopped, kept and
                continued with the same ``seed`` is the chain that was never stopped.
        """
        with ahead(lambda k: self._draw(seeds, seed, f"langevin.{done + k}"), chain.steps) as noise:
            yield from self.states(
                self.start(seeds, seed=seed) if start is None else start,
                chain,
                noise,
                lambda k: uniform(seed, seeds, f"metropolis.{done + k}", (1,), self._device).squeeze(1),
            )

    @property
    def _device(self) -> torch.device:
        return next(self.nvae.parameters()).device

    def _draw(self, seeds: Sequence[int], seed: int, purpose: str) -> list[Tensor]:
        return [normal(seed, seeds, f"{purpose}.{i}", shape, self._device) for i, shape in enumerate(self.state_shapes)]

    def log_density(self, x: Tensor, eps: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return log p_theta(x) - E_psi(x), float64 (N,): log h(x) without the constant log Z.

        log p_theta is the importance-weighted bound with one sample per entry of ``eps``, so this is a lower bound of log h(x) + log Z.
        """
        return self.nvae.log_prob_bound(x, eps) - self.energy(x).double()


def last(states: Iterable[list[Tensor]]) -> list[Tensor]:
    """Return the last of at least one state, keeping no other in memory."""
    (state,) = deque(states, maxlen=1)
    return state


def check_output(output: str) -> None:
    """Raise ValueError for an output that does not exist."""
    if output not in OUTPUTS:
        raise ValueError(f"unknown output {output!r}: needed one of {', '.join(OUTPUTS)}")
