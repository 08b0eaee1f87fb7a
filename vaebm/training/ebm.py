"""Stage 2: train the energy network against a frozen NVAE.

    grad_psi L = E_data[-grad E] + E_{h(x, z)}[grad E],     negatives from Langevin chains over (eps_x, eps_z)      (paper, section 3)

``noise`` and ``jitter`` corrupt data and negatives alike before E sees them. A weak decoder's samples differ from data most in trivial ways
(noise, blur, contrast), and E spends itself on those first; what is equally random on both sides carries no information, so E must look
elsewhere. Both are departures from the paper and off by default.

Several processes and micro-batches (``accumulate``) make the update that one process with the whole batch would make, up to the rounding of
sums: every process draws the noise of the whole batch and takes its rows.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaebm import parallel, reductions
from vaebm.energy import EnergyConfig, EnergyNetwork, data_dependent_init
from vaebm.frozen import freeze
from vaebm.model import VAEBM, ChainSettings
from vaebm.nvae import NVAE
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ema import EMA
from vaebm.training.guard import GuardSettings
from vaebm.training.loop import Stateful, Stopwatch
from vaebm.training.precision import Precision, check_precision
from vaebm.training.regularisers import SpectralRegulariser
from vaebm.training.replay import ReplayBuffer

INIT_BATCHES = 5  # batches of data for the data-dependent initialisation
PREVIEW_IMAGES = 64


@dataclass(frozen=True)
class EBMTraining(GuardSettings):
    """How stage 2 is trained. The published values are in ``vaebm/configs``.

    Attributes:
        steps: updates.
        batch_size: data images, and chains, per update, over all processes.
        learning_rate, warmup_steps: Adam's rate after a linear warm-up.
        final_rate: share of the rate that is left at the end of the cosine decay; 1 keeps it constant.
        beta1, beta2, weight_decay: of Adam.
        spectral_weight: alpha_s, weight of the spectral regulariser.
        energy_l2: weight of mean E(x+)^2 + mean E(x-)^2 in the loss, as in IGEBM: it holds the scale of E near 1 / (2 energy_l2) where
            chains cannot close the gap and E would grow without end. The released code has none.
        data_init: set gains and biases from the first ``INIT_BATCHES`` batches (:func:`vaebm.energy.data_dependent_init`).
        chain_steps, step_size, target: the chains of the negative phase.
        negatives: ``"sample"`` (x ~ p(x | z)) or ``"mean"`` (the decoder mean).
        clamp_mean: clamp the decoder mean to [0, 1]; the released code does not.
        noise: standard deviation of the noise added to data and negatives alike, in [0, 1] units.
        jitter: strength a of random contrast and brightness on both: x -> (x - 1/2) c + 1/2 + b, c ~ U(1 - a, 1 + a), b ~ U(-a/2, a/2).
        flip: mirror training images left-right at random.
        clip: bound every gradient element by 3 sqrt(v) + 0.1 with Adam's second moment v (as IGEBM does).
        bf16: run the chains (not the update of E) under bfloat16 autocast.
        precision: of the update of E: ``"no"``, ``"bf16"`` or ``"fp16"`` (GPU only). With ``"bf16"`` the chains run in it too; with
            ``"fp16"`` they stay float32, as the gradient with respect to eps is not scaled against underflow.
        accumulate: micro-batches per update and process.
        ema: decay of the averaged energy, which is the one that is kept; 0 keeps the newest.
        buffer_size: chain starts eps_z kept for re-use; 0 starts every chain afresh.
        buffer_probability, buffer_anneal: share of chains started from the buffer, reached linearly over that many updates.
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
    energy_l2: float = 0.0
    data_init: bool = True
    chain_steps: int = 10
    step_size: float = 5e-4
    target: str = "paper"
    negatives: str = "sample"
    clamp_mean: bool = True
    noise: float = 0.0
    jitter: float = 0.0
    flip: bool = True
    clip: bool = True
    bf16: bool = False
    precision: str = "no"
    accumulate: int = 1
    ema: float = 0.99
    buffer_size: int = 0
    buffer_probability: float = 0.6
    buffer_anneal: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives not in ("sample", "mean"):
            raise ValueError(f"unknown negatives {self.negatives!r}: needed 'sample' or 'mean'")
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}, needed 1 or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate}, needed above 0")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}, needed 0 or more and below 1")
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}, needed 1 or more")
        check_precision(self.precision)
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
        self.rate_scale = 1.0
        reductions.check_batch(self.batch_size, training.accumulate, "ebm.batch_size")
        self.precision = Precision(training.precision, device, "ebm.precision")
        self.model = VAEBM(freeze(nvae), EnergyNetwork(energy)).to(device).to(memory_format=torch.channels_last)
        energy_net = self.model.energy
        assert isinstance(energy_net, EnergyNetwork)
        self.energy = energy_net
        self.batches = Batches(images, training.batch_size, seed, flip=training.flip)
        if training.data_init:
            # Every process makes the same network of the same images.
            data_dependent_init(self.energy, torch.cat([self._data(i + 1) for i in range(INIT_BATCHES)]))
        self.spectral = SpectralRegulariser(self.energy) if training.spectral_weight else None
        self.optimizer = torch.optim.Adam(
            self.energy.parameters(),
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            weight_decay=training.weight_decay,
        )
        self.ema = EMA(self.energy, training.ema)
        self.buffer = ReplayBuffer(training.buffer_size, self.batch_size, self.model.nvae.latent_shapes)
        self.stopwatch = Stopwatch()

    def state(self) -> Mapping[str, Stateful]:
        parts: dict[str, Stateful] = {"energy": self.energy, "optimizer": self.optimizer, "ema": self.ema}
        if self.spectral is not None:
            parts["spectral"] = self.spectral
        return {**parts, "precision": self.precision, "buffer": self.buffer, "stopwatch": self.stopwatch}

    def _data(self, step: int) -> Tensor:
        """The whole batch."""
        return to_unit(self.batches[step].to(self.device)).contiguous(memory_format=torch.channels_last)

    def _rate(self, step: int) -> float:
        training = self.training
        if step <= training.warmup_steps:
            return training.learning_rate * step / training.warmup_steps
        done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
        floor = training.final_rate
        return training.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))

    def _parts(self) -> Iterator[slice]:
        """This process's micro-batches, as rows of its share."""
        size = self.batch_size // parallel.world_size() // self.training.accumulate
        return (slice(i * size, (i + 1) * size) for i in range(self.training.accumulate))

    def negatives(self, step: int) -> tuple[Tensor, Tensor]:
        """Run this process's chains of one update; return the negatives (N, C, H, W) and the energies of the chains' first states (N,)."""
        training, own = self.training, reductions.share(self.batch_size)
        start = [torch.randn(self.batch_size, *shape, device=self.device)[own] for shape in self.model.state_shapes]
        share = training.buffer_probability * min(1.0, step / training.buffer_anneal)
        start[1:] = self.buffer.mix(start[1:], share)
        # Every part draws its steps' noise for the whole batch from the same stream and takes its rows.
        seed = int(torch.randint(2**62, ()))
        self.energy.requires_grad_(False)
        found = [self._chains([eps[rows] for eps in start], rows, seed) for rows in self._parts()]
        self.energy.requires_grad_(True)
        self.buffer.push([torch.cat(ends) for ends in zip(*(state[1:] for state, _, _ in found), strict=True)])
        return torch.cat([x for _, x, _ in found]), torch.cat([energies for _, _, energies in found])

    def _chains(self, start: list[Tensor], rows: slice, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """Run one micro-batch of chains; return their last state, its images, and the energies of the first state's."""
        training, own = self.training, reductions.share(self.batch_size)
        generator = torch.Generator(self.device).manual_seed(seed)
        noise = lambda _: [
            torch.randn(self.batch_size, *shape, device=self.device, generator=generator)[own][rows]
            for shape in self.model.state_shapes
        ]
        bf16 = training.bf16 or training.precision == "bf16"
        with torch.no_grad():
            first_energies = self.energy(self._image(start))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            state = self.model.run_chain(start, training.chain, noise)
        return state, self._image(state), first_energies

    @torch.no_grad()
    def _image(self, state: list[Tensor]) -> Tensor:
        x, decoded = self.model.decode(state)
        if self.training.negatives == "sample":
            return x
        mean = decoded.distribution.mean
        return mean.clamp(0, 1) if self.training.clamp_mean else mean

    def _corrupt(self, x: Tensor) -> Tensor:
        """Corrupt this process's images as data and negatives alike are; the noise is drawn for the whole batch."""
        noise, a, n = self.training.noise, self.training.jitter, len(x) * parallel.world_size()
        own = reductions.share(n)
        if a:
            u = torch.rand(2, n, 1, 1, 1, device=x.device)[:, own]
            x = (x - 0.5) * (1 + a * (2 * u[0] - 1)) + 0.5 + a * (u[1] - 0.5)
        return x + noise * torch.randn(n, *x.shape[1:], device=x.device)[own] if noise else x

    def step(self, step: int) -> dict[str, float]:
        training = self.training
        positive = self._data(step)[reductions.share(self.batch_size)]
        negative, first_energy = self.negatives(step)
        shown, shown_negative = self._corrupt(positive), self._corrupt(negative)
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for rows in self._parts():
            with self.precision.autocast():
                e_pos, e_neg = self.energy(shown[rows]).float(), self.energy(shown_negative[rows]).float()
            loss = e_pos.mean() - e_neg.mean()
            if training.energy_l2:
                loss = loss + training.energy_l2 * (e_pos.square().mean() + e_neg.square().mean())
            self.precision.backward(loss / training.accumulate)
            parts.append(torch.stack([e_pos.detach(), e_neg.detach()], dim=1))
        spectral = torch.zeros((), device=self.device)
        if self.spectral is not None:
            spectral = self.spectral()
            self.precision.backward(training.spectral_weight * spectral)
        norm = self._update(step)
        energies = reductions.gather(torch.cat([torch.cat(parts), first_energy[:, None]], dim=1))  # (B, 3)
        e_data, e_chain, e_start = energies.mean(0).tolist()
        spread = energies[:, 0].std().item()
        return {
            "energy_data": e_data,
            "energy_chain": e_chain,
            "energy_start": e_start,
            "energy_sd": spread,
            "gap": (e_chain - e_data) / max(spread, 1e-12),
            "spectral": spectral.item(),
            "gradient_norm": norm,
            **pixel_statistics("data", positive),
            **pixel_statistics("negative", negative),
        }

    def _update(self, step: int) -> float:
        """Bring the processes' gradients together and take the optimiser's step; return the gradient's norm."""
        reductions.average_gradients(self.energy.parameters())
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.energy.parameters() if p.grad is not None])
        if self.training.clip:
            clip_by_second_moment(self.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_scale * self._rate(step)
        told = self.precision.step(self.optimizer, norm)
        self.ema.update()
        return told

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


def pixel_statistics(name: str, x: Tensor) -> dict[str, float]:
    """Return mean, standard deviation and saturation (share of pixels at or beyond black or white) of all pixels of all processes."""
    wide = x.detach().double()
    saturated = ((x <= 0) | (x >= 1)).double()
    moments = torch.stack([wide.mean(), wide.square().mean(), saturated.mean()])
    mean, square, saturation = reductions.mean_over_processes(moments).tolist()
    return {f"{name}_mean": mean, f"{name}_std": max(square - mean**2, 0.0) ** 0.5, f"{name}_saturation": saturation}


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
