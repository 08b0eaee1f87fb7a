"""Stage 2: train the energy network against a frozen NVAE.

    grad_psi L = E_data[-grad E] + E_{h(x, z)}[grad E],     negatives from Langevin chains over (eps_x, eps_z)      (paper, section 3)

``noise`` and ``jitter`` corrupt data and negatives alike before E sees them. A weak decoder's samples differ from data most in trivial ways
(noise, blur, contrast), and E spends itself on those first; what is equally random on both sides carries no information, so E must look
elsewhere. Both are departures from the paper and off by default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaebm.energy import EnergyConfig, EnergyNetwork, SpectralRegulariser, data_dependent_init
from vaebm.model import VAEBM, ChainSettings
from vaebm.nvae import NVAE
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ema import EMA
from vaebm.training.guard import EnergyGuard
from vaebm.training.loop import Stateful, Stopwatch
from vaebm.training.replay import ReplayBuffer

INIT_BATCHES = 5  # batches of data for the data-dependent initialisation
PREVIEW_IMAGES = 64


@dataclass(frozen=True)
class EBMTraining:
    """How stage 2 is trained.

    Attributes:
        steps: updates.
        batch_size: data images, and chains, per update.
        learning_rate, warmup_steps: Adam's rate after a linear warm-up.
        final_rate: share of the rate that is left at the end of the cosine decay; 1 keeps it constant.
        beta1, beta2, weight_decay: of Adam.
        spectral_weight: alpha_s, weight of the spectral regulariser.
        chain_steps, step_size, target: the chains of the negative phase.
        negatives: ``"sample"`` (x ~ p(x | z)) or ``"mean"`` (the decoder mean, clamped to [0, 1]).
        noise: standard deviation of the noise added to data and negatives alike, in [0, 1] units.
        jitter: strength a of random contrast and brightness on both: x -> (x - 1/2) c + 1/2 + b, c ~ U(1 - a, 1 + a), b ~ U(-a/2, a/2).
        clip: bound every gradient element by 3 sqrt(v) + 0.1 with Adam's second moment v (as IGEBM does).
        bf16: run the chains (not the update of E) under bfloat16 autocast.
        ema: decay of the averaged energy, which is the one that is kept.
        buffer_size: chain starts eps_z kept for re-use; 0 starts every chain afresh.
        buffer_probability, buffer_anneal: share of chains started from the buffer, reached linearly over that many updates.
        guard_window, guard_limit: stop when the mean over the window of (E(x-) - E(x+)) / sd E(x+) exceeds the limit, once armed.
    """

    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    final_rate: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 3e-5
    spectral_weight: float = 0.2
    chain_steps: int = 10
    step_size: float = 5e-4
    target: str = "paper"
    negatives: str = "sample"
    noise: float = 0.0
    jitter: float = 0.0
    clip: bool = True
    bf16: bool = False
    ema: float = 0.99
    buffer_size: int = 0
    buffer_probability: float = 0.6
    buffer_anneal: int = 5000
    guard_window: int = 50
    guard_limit: float = 0.1

    def __post_init__(self) -> None:
        if self.negatives not in ("sample", "mean"):
            raise ValueError(f"unknown negatives {self.negatives!r}: needed 'sample' or 'mean'")
        self.chain  # noqa: B018  checks steps, step size and target

    @property
    def chain(self) -> ChainSettings:
        """The chains of the negative phase."""
        return ChainSettings(self.chain_steps, self.step_size, self.target)


class EBMTask:
    """The loop's task for stage 2."""

    def __init__(
        self,
        nvae: NVAE,
        energy: EnergyConfig,
        images: np.ndarray,
        training: EBMTraining,
        seed: int,
        device: torch.device,
    ) -> None:
        self.training, self.device, self.batch_size = training, device, training.batch_size
        self.model = VAEBM(nvae, EnergyNetwork(energy)).to(device).to(memory_format=torch.channels_last)
        self.model.nvae.eval().requires_grad_(False)
        energy_net = self.model.energy
        assert isinstance(energy_net, EnergyNetwork)
        self.energy = energy_net
        self.batches = Batches(images, training.batch_size, seed)
        data_dependent_init(self.energy, torch.cat([self._data(i + 1) for i in range(INIT_BATCHES)]))
        self.spectral = SpectralRegulariser(self.energy).to(device)
        self.optimizer = torch.optim.Adam(
            self.energy.parameters(),
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            weight_decay=training.weight_decay,
        )
        self.ema = EMA(self.energy, training.ema)
        self.guard = EnergyGuard(training.guard_window, training.guard_limit)
        self.buffer = ReplayBuffer(training.buffer_size, self.model.nvae.latent_shapes)
        self.stopwatch = Stopwatch()

    def state(self) -> Mapping[str, Stateful]:
        return {
            "energy": self.energy,
            "optimizer": self.optimizer,
            "ema": self.ema,
            "spectral": self.spectral,
            "guard": self.guard,
            "buffer": self.buffer,
            "stopwatch": self.stopwatch,
        }

    def _data(self, step: int) -> Tensor:
        return to_unit(self.batches[step].to(self.device)).contiguous(memory_format=torch.channels_last)

    def _rate(self, step: int) -> float:
        training = self.training
        if step <= training.warmup_steps:
            return training.learning_rate * step / training.warmup_steps
        done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
        floor = training.final_rate
        return training.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))

    def _draw(self, n: int) -> list[Tensor]:
        return [torch.randn(n, *shape, device=self.device) for shape in self.model.state_shapes]

    def negatives(self, step: int) -> tuple[Tensor, Tensor]:
        """Run the chains of one update; return the negatives (N, C, H, W) and the energies of the chains' first states (N,)."""
        training, n = self.training, self.batch_size
        start = self._draw(n)
        share = training.buffer_probability * min(1.0, step / training.buffer_anneal) if training.buffer_size else 0.0
        start[1:] = self.buffer.mix(start[1:], share)
        self.energy.requires_grad_(False)
        first = self._negative(start)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=training.bf16):
            state = self.model.run_chain(start, training.chain, lambda _: self._draw(n))
        last = self._negative(state)
        with torch.no_grad():
            first_energy = self.energy(first)
        self.energy.requires_grad_(True)
        self.buffer.push(state[1:])
        return last, first_energy

    @torch.no_grad()
    def _negative(self, state: list[Tensor]) -> Tensor:
        x, decoded = self.model.decode(state)
        return x if self.training.negatives == "sample" else decoded.distribution.mean.clamp(0, 1)

    def _corrupt(self, x: Tensor) -> Tensor:
        """Corrupt images as data and negatives alike are."""
        noise, a = self.training.noise, self.training.jitter
        if a:
            u = torch.rand(2, len(x), 1, 1, 1, device=x.device)
            x = (x - 0.5) * (1 + a * (2 * u[0] - 1)) + 0.5 + a * (u[1] - 0.5)
        return x + noise * torch.randn_like(x) if noise else x

    def step(self, step: int) -> dict[str, float]:
        training = self.training
        positive = self._data(step)
        negative, first_energy = self.negatives(step)
        e_pos, e_neg = self.energy(self._corrupt(positive)), self.energy(self._corrupt(negative))
        spectral = self.spectral() if training.spectral_weight else e_pos.new_zeros(())
        loss = e_pos.mean() - e_neg.mean() + training.spectral_weight * spectral
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.energy.parameters() if p.grad is not None])
        if training.clip:
            clip_by_second_moment(self.optimizer)
        self.optimizer.step()
        self.ema.update()
        spread = e_pos.std().item()
        gap = (e_neg.mean() - e_pos.mean()).item() / max(spread, 1e-12)
        values = {
            "energy_data": e_pos.mean().item(),
            "energy_chain": e_neg.mean().item(),
            "energy_start": first_energy.mean().item(),
            "energy_sd": spread,
            "gap": gap,
            "spectral": spectral.item(),
            "gradient_norm": norm.item(),
        }
        values["gap_mean"] = self.guard.check(values)
        return values

    def averaged(self) -> VAEBM:
        """Return a copy of the model with the averaged energy, in eval mode."""
        energy = EnergyNetwork(self.energy.config)
        energy.load_state_dict(self.ema.shadow)
        return (
            VAEBM(self.model.nvae, energy.to(self.device).to(memory_format=torch.channels_last))
            .eval()
            .requires_grad_(False)
        )

    def preview(self) -> np.ndarray:
        """Chains of the training length, as decoder means: rows of NVAE samples above what the chains make of them."""
        model, chain = self.averaged(), self.training.chain
        half = range(PREVIEW_IMAGES // 2)
        before = model.sample(half, ChainSettings(0, chain.step_size, chain.target))
        return np.concatenate([to_uint8(before), to_uint8(model.sample(half, chain))])


def clip_by_second_moment(optimizer: torch.optim.Adam) -> None:
    """Bound every gradient element: |g| <= 3 sqrt(v / (1 - beta2^t)) + 0.1, v being Adam's running second moment (Du & Mordatch, 2019)."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state: dict[str, Any] = optimizer.state.get(parameter, {})
            if parameter.grad is None or "exp_avg_sq" not in state:
                continue
            correction = 1 - group["betas"][1] ** float(state["step"])
            bound = 3 * (state["exp_avg_sq"] / correction).sqrt() + 0.1
            parameter.grad.copy_(parameter.grad.clamp(-bound, bound))
