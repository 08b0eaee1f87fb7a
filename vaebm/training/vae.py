"""Stage 1: train the NVAE by maximising the ELBO, with KL warm-up and balancing.

    loss = mean_x [beta sum_l gamma_l KL_l - log p(x | z)] + lambda_s sum_l sigma_max(W_l) + lambda_b sum_l max|BN gain_l|

in nats per image.

Several processes and micro-batches: every process draws the noise of the whole batch and takes its rows, BatchNorm and the balance gamma_l
see the joined batch, so W processes make the update that one would. Micro-batches (``accumulate``) do change it: BatchNorm and gamma_l see
one micro-batch (of all processes) at a time, and the running statistics move once per micro-batch.

Reference: Vahdat & Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vaebm import reductions
from vaebm.noise import normal
from vaebm.nvae import NVAE
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ema import EMA
from vaebm.training.guard import GuardSettings
from vaebm.training.loop import Stateful, Stopwatch
from vaebm.training.precision import Precision, check_precision
from vaebm.training.regularisers import SpectralRegulariser, annealed, batch_norm_gains

KL_BALANCES = ("size", "official", "off")
KL_OFFSET = 1e-2  # a group that is switched off keeps a weight above 0


@dataclass(frozen=True)
class VAETraining(GuardSettings):
    """How stage 1 is trained. The published values are in ``vaebm/configs``.

    Attributes:
        steps, epochs: length, in updates or in passes over the data; exactly one is above 0.
        batch_size: images per update, over all processes.
        learning_rate, learning_rate_min: Adamax's rate: linear warm-up to the first, then a cosine to the second.
        warmup_steps, warmup_epochs: length of the warm-up; at most one is above 0.
        eps: added to Adamax's denominator, in units of the gradient (nats per image).
        weight_decay: L2 on all weights, in the gradient.
        clip_norm: the gradient is scaled down to this norm; 0 leaves it.
        kl_start, kl_floor, kl_const, kl_anneal: the KL's weight at update t of T is
            beta = clamp(kl_start + (1 - kl_start) (t - kl_const T) / (kl_anneal T), kl_floor, 1).
        kl_balance: gamma_l, scaled to a mean of 1, while beta < 1: ``"size"``, proportional to KL_l and the group's number of latents;
            ``"official"``, as the released code does (see :func:`balance_factors`); ``"off"``, 1.
        spectral_weight, batch_norm_weight: lambda_s, lambda_b of :mod:`vaebm.training.regularisers`, over all convolutions and BatchNorms.
        regulariser_start: what both weights begin with: they go to their own values log-linearly with beta. 0: no annealing.
        ema: decay of the averaged weights, which are the ones that are kept; 0 keeps the newest.
        flip: mirror training images left-right at random.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"`` (GPU only).
        accumulate: micro-batches per update and process.
    """

    steps: int = 20_000
    epochs: float = 0
    batch_size: int = 64
    learning_rate: float = 5e-3
    learning_rate_min: float = 1e-4
    warmup_steps: int = 300
    warmup_epochs: float = 0
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    kl_anneal: float = 0.3
    kl_start: float = 0.05
    kl_const: float = 0.0
    kl_floor: float = 0.0
    kl_balance: str = "size"
    spectral_weight: float = 0.0
    batch_norm_weight: float = 0.0
    regulariser_start: float = 0.0
    ema: float = 0.999
    flip: bool = True
    precision: str = "no"
    accumulate: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(f"steps = {self.steps} and epochs = {self.epochs}: needed exactly one above 0")
        if self.warmup_steps > 0 and self.warmup_epochs > 0:
            raise ValueError(f"warmup_steps = {self.warmup_steps} and warmup_epochs = {self.warmup_epochs}: needed one")
        if self.kl_balance not in KL_BALANCES:
            raise ValueError(f"unknown kl_balance {self.kl_balance!r}: needed one of {', '.join(KL_BALANCES)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}, needed 1 or more")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate = {self.learning_rate}, needed above 0")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}, needed 0 or more and below 1")
        check_precision(self.precision)

    def in_updates(self, images: int) -> "VAETraining":
        """Return the same training with its epochs turned into updates for so many images."""
        per_epoch = images // self.batch_size
        return replace(
            self,
            steps=self.steps or max(1, round(self.epochs * per_epoch)),
            epochs=0,
            warmup_steps=self.warmup_steps or round(self.warmup_epochs * per_epoch),
            warmup_epochs=0,
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of update ``step`` (from 1), for a training in updates."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        falling = self.learning_rate - self.learning_rate_min
        return self.learning_rate_min + falling * 0.5 * (1 + math.cos(math.pi * done))

    def beta(self, step: int) -> float:
        """Return the KL's weight at update ``step``, for a training in updates."""
        risen = (step - self.kl_const * self.steps) / max(1.0, self.kl_anneal * self.steps)
        return min(1.0, max(self.kl_floor, self.kl_start + (1 - self.kl_start) * risen))


def balance_kl(kl: Tensor, factors: Tensor, offset: Tensor | float = KL_OFFSET, means: Tensor | None = None) -> Tensor:
    """Weight the groups' KL so that no group is switched off early (NVAE, section 3.1; Vahdat et al., "DVAE++", 2018).

    gamma_l = factor_l |E_x KL_l| + offset_l, scaled to a mean of 1: groups that carry less information pay less.

    Args:
        kl: (N, L) in nats.
        factors: (L,), and ``offset``: see :func:`balance_factors`.
        means: E_x |KL_l|, (L,), where ``kl`` is a part of the batch only.

    Returns:
        sum_l gamma_l KL_l, (N,).
    """
    weight = factors * (kl.detach().abs().mean(0) if means is None else means) + offset
    return kl @ (weight / weight.mean())


def balance_factors(kind: str, shapes: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """Return the factors and offsets of :func:`balance_kl`, each (L,), for groups of the given shapes (C, H, W), coarsest first.

    ``"size"``: factor C H W. ``"official"``: factor 1 / alpha_l, alpha_l = 4^s / (groups at scale s), divided by its smallest; s counts
    scales from the coarsest, 0.
    """
    if kind == "size":
        factors = torch.tensor([float(math.prod(shape)) for shape in shapes])
        return factors, torch.full_like(factors, KL_OFFSET)
    sides = sorted({side for _, side, _ in shapes})
    groups = [[side for _, side, _ in shapes].count(side) for side in sides]
    alpha = torch.tensor([4.0 ** sides.index(side) / groups[sides.index(side)] for _, side, _ in shapes])
    factors = alpha.min() / alpha
    return factors, KL_OFFSET * factors


class VAETask:
    """The loop's task for stage 1. ``training`` is in updates, whatever it was given in."""

    def __init__(self, vae: NVAE, images: np.ndarray, training: VAETraining, seed: int, device: torch.device) -> None:
        self.vae, self.device = vae.to(device).to(memory_format=torch.channels_last), device
        self.batches = Batches(images, training.batch_size, seed, flip=training.flip)
        self.training = training = training.in_updates(len(images))
        self.batch_size, self.rate_scale = training.batch_size, 1.0
        reductions.check_batch(self.batch_size, training.accumulate, "vae.batch_size")
        self.precision = Precision(training.precision, device, "vae.precision")
        self.optimizer = torch.optim.Adamax(
            vae.parameters(),
            lr=training.learning_rate,
            betas=(0.9, 0.999),
            eps=training.eps,
            weight_decay=training.weight_decay,
        )
        self.spectral = SpectralRegulariser(vae) if training.spectral_weight else None
        self.ema = EMA(vae, training.ema)
        self.stopwatch = Stopwatch()
        factors, offset = balance_factors(training.kl_balance, vae.latent_shapes)
        self.factors, self.offset = factors.to(device), offset.to(device)

    def state(self) -> Mapping[str, Stateful]:
        parts: dict[str, Stateful] = {"vae": self.vae, "optimizer": self.optimizer, "ema": self.ema}
        if self.spectral is not None:
            parts["spectral"] = self.spectral
        return {**parts, "precision": self.precision, "stopwatch": self.stopwatch}

    def _penalty(self, kl: Tensor, beta: float) -> Tensor:
        """beta sum_l gamma_l KL_l of a part of the batch, (N,)."""
        if beta == 1 or self.training.kl_balance == "off":
            return beta * kl.sum(1)
        means = reductions.mean_over_processes(kl.detach().abs().mean(0))
        return beta * balance_kl(kl, self.factors, self.offset, means)

    def _regularisers(self, beta: float) -> Tensor:
        training, total = self.training, torch.zeros((), device=self.device)
        if self.spectral is not None:
            total = total + annealed(training.regulariser_start, training.spectral_weight, beta) * self.spectral()
        if training.batch_norm_weight:
            weight = annealed(training.regulariser_start, training.batch_norm_weight, beta)
            total = total + weight * batch_norm_gains(self.vae)
        return total

    def step(self, step: int) -> dict[str, float]:
        training, beta = self.training, self.training.beta(step)
        own = reductions.share(self.batch_size)
        x = to_unit(self.batches[step][own].to(self.device)).contiguous(memory_format=torch.channels_last)
        eps = [torch.randn(self.batch_size, *s, device=self.device)[own] for s in self.vae.latent_shapes]
        self.vae.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, log_px, kl = (torch.zeros((), device=self.device) for _ in range(3))
        for part in torch.arange(len(x)).chunk(training.accumulate):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            with self.precision.autocast():
                log_px_part, kl_part = self.vae.elbo(x[rows], [e[rows] for e in eps])
                loss_part = (self._penalty(kl_part, beta) - log_px_part).mean() / training.accumulate
            self.precision.backward(loss_part)
            loss = loss + loss_part.detach()
            log_px = log_px + log_px_part.detach().mean() / training.accumulate
            kl = kl + kl_part.detach().mean(0) / training.accumulate
        regulariser = self._regularisers(beta)
        if regulariser.requires_grad:
            self.precision.backward(regulariser)
        norm = self._update(step)
        loss, log_px, kl = (reductions.mean_over_processes(value) for value in (loss, log_px, kl))
        return {
            "loss": (loss + regulariser.detach()).item(),
            "elbo": (log_px - kl.sum()).item(),
            "log_px": log_px.item(),
            "regulariser": regulariser.item(),
            "gradient_norm": norm,
            **{f"kl_{i}": value.item() for i, value in enumerate(kl)},
        }

    def _update(self, step: int) -> float:
        """Bring the processes' gradients together and take the optimiser's step; return the gradient's norm."""
        reductions.average_gradients(self.vae.parameters())
        self.precision.unscale(self.optimizer)
        gradients = [p.grad for p in self.vae.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.training.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.vae.parameters(), self.training.clip_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_scale * self._rate(step)
        told = self.precision.step(self.optimizer, norm)
        self.ema.update()
        return told

    def _rate(self, step: int) -> float:
        return self.training.rate(step)

    @torch.no_grad()
    def averaged(self) -> NVAE:
        """Return a copy of the model with the averaged weights, in eval mode."""
        copy = NVAE(self.vae.config).to(self.device).to(memory_format=torch.channels_last)
        copy.load_state_dict(self.ema.shadow)
        return copy.eval()

    @torch.no_grad()
    def preview(self) -> np.ndarray:
        vae = self.averaged()
        drawn = vae.decode(
            [normal(0, range(32), f"eps_z.{i}", s, self.device) for i, s in enumerate(vae.latent_shapes)]
        )
        x = to_unit(self.batches.images[:32].to(self.device))
        eps = [normal(0, range(32), f"posterior.{i}", s, self.device) for i, s in enumerate(vae.latent_shapes)]
        return np.concatenate([to_uint8(drawn.distribution.mean), to_uint8(vae.encode(x, eps).distribution.mean)])
