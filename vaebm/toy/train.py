"""Both stages of the toy: maximise the VAE's ELBO, then, with the VAE frozen, train the energy by contrast with its chains.

Every batch of data is fresh from the mixture. Step k draws from torch's generator seeded by (seed, stage, k), so a seed repeats its run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaebm.data import gaussians25
from vaebm.errors import UserError
from vaebm.noise import seed_step
from vaebm.toy.vae import LATENTS, ToyVAE, VAEConfig
from vaebm.toy.vaebm import ChainConfig, EnergyConfig, ToyEnergy, ToyVAEBM
from vaebm.training.ema import EMA

EBM_STAGE = 2**40  # added to the step's number, so that the stages' draws differ

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class VAETraining:
    """Adam on -ELBO; the rate falls to 0 along a cosine.

    Attributes:
        warmup: share of the updates over which the KL's weight rises linearly from ``first_kl_weight`` to 1. From 1 at once the decoder
            never leaves the smooth map of the whole square; over too long a time latents become too narrow to be brought back.
    """

    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 3e-3
    warmup: float = 0.3
    first_kl_weight: float = 0.02

    def __post_init__(self) -> None:
        _check("vae", self, positive=("steps", "batch_size", "learning_rate"), shares=("warmup", "first_kl_weight"))


@dataclass(frozen=True)
class EBMTraining:
    """Adam on mean E(x+) - mean E(x-) + energy_l2 (mean E(x+)^2 + mean E(x-)^2), x- from chains.

    The rate rises over ``warmup_steps`` and falls to 0 along a cosine.

    Attributes:
        chain: what the chains move per update, in the space of [eps_x, eps_z].
        rows: persistent batches of chains, continued in turn; 0 starts every chain afresh.
        fresh_share: probability that a persistent chain starts afresh.
        energy_l2: weight of mean E(x+)^2 + mean E(x-)^2, which keeps the energy from running away from its chains.
        ema: decay of the averaged energy, which is the one that is kept.
    """

    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 5e-4
    warmup_steps: int = 100
    beta1: float = 0.0
    beta2: float = 0.99
    chain: ChainConfig = field(default_factory=lambda: ChainConfig(sweeps=2))
    rows: int = 4
    fresh_share: float = 0.02
    energy_l2: float = 0.025
    ema: float = 0.995

    def __post_init__(self) -> None:
        _check(
            "ebm", self,
            positive=("steps", "batch_size", "learning_rate"),
            shares=("beta1", "beta2", "fresh_share", "ema"),
            counts=("warmup_steps", "rows", "energy_l2"),
        )  # fmt: skip


def train_vae(config: VAEConfig, training: VAETraining, seed: int = 0, report: Report | None = None) -> ToyVAE:
    """Stage 1: train a VAE and return it in eval mode."""
    seed_step(seed, 0)
    vae = ToyVAE(config)
    optimizer = torch.optim.Adam(vae.parameters(), lr=training.learning_rate)
    rising = max(1.0, training.warmup * training.steps)
    for step in range(1, training.steps + 1):
        seed_step(seed, step)
        weight = min(1.0, training.first_kl_weight + (1 - training.first_kl_weight) * step / rising)
        loss = -vae.elbo(data(training.batch_size), torch.randn(training.batch_size, LATENTS), weight).mean()
        _set_rate(optimizer, training.learning_rate * _cosine(step, training.steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if report:
            report(step, {"loss": loss.item(), "kl_weight": weight})
    return vae.eval().requires_grad_(False)


def train_ebm(
    vae: ToyVAE,
    config: EnergyConfig,
    training: EBMTraining,
    chain: ChainConfig,
    seed: int = 0,
    report: Report | None = None,
) -> ToyVAEBM:
    """Stage 2: train the energy on a frozen VAE and return the VAEBM with the averaged energy; ``chain`` is how it will be sampled."""
    seed_step(seed, EBM_STAGE)
    vae.eval().requires_grad_(False)
    energy, n = ToyEnergy(config), training.batch_size
    model = ToyVAEBM(vae, energy, chain)
    fresh = lambda: [torch.randn(n, 2), torch.randn(n, LATENTS)]
    rows = [fresh() for _ in range(training.rows)]
    optimizer = torch.optim.Adam(energy.parameters(), lr=training.learning_rate, betas=(training.beta1, training.beta2))
    average = EMA(energy, training.ema)
    for step in range(1, training.steps + 1):
        seed_step(seed, EBM_STAGE + step)
        positive, start = data(n), fresh()
        if rows:
            restart = torch.rand(n, 1) < training.fresh_share
            start = [torch.where(restart, new, old) for new, old in zip(start, rows[step % len(rows)], strict=True)]
        energy.requires_grad_(False)
        state = model.run_chain(start, training.chain, lambda _: fresh(), lambda _: torch.rand(n))
        energy.requires_grad_(True)
        if rows:
            rows[step % len(rows)] = state
        e_data, e_chain = energy(positive), energy(vae.transform(state))
        size = e_data.square().mean() + e_chain.square().mean()
        loss = e_data.mean() - e_chain.mean() + training.energy_l2 * size
        rising = min(1.0, step / max(1, training.warmup_steps))
        _set_rate(optimizer, training.learning_rate * rising * _cosine(step, training.steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        if report:
            report(step, {"energy_data": e_data.mean().item(), "energy_chain": e_chain.mean().item()})
    averaged = ToyEnergy(config)
    averaged.load_state_dict(average.shadow)
    return ToyVAEBM(vae, averaged, chain).eval().requires_grad_(False)


def data(n: int) -> Tensor:
    """Draw n points of the mixture from torch's generator, float32 (n, 2)."""
    centres = torch.tensor(gaussians25.CENTRES, dtype=torch.float32)
    return centres[torch.randint(len(centres), (n,))] + gaussians25.SD * torch.randn(n, 2)


def _cosine(step: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - 1) / total))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _check(
    stage: str, training: object, positive: tuple[str, ...], shares: tuple[str, ...], counts: tuple[str, ...] = ()
) -> None:
    for names, fits, needed in (
        (positive, lambda v: v > 0, "above 0"),
        (shares, lambda v: 0 <= v <= 1, "0 to 1"),
        (counts, lambda v: v >= 0, "0 or more"),
    ):
        for name in names:
            if not fits(getattr(training, name)):
                raise UserError(f"--{stage}.{name} {getattr(training, name)}: needed {needed}")
