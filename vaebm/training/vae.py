"""Stage 1: train the NVAE by maximising the ELBO, with KL warm-up and balancing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaebm.noise import normal
from vaebm.nvae import NVAE
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ema import EMA
from vaebm.training.loop import Stateful, Stopwatch


@dataclass(frozen=True)
class VAETraining:
    """How stage 1 is trained.

    Attributes:
        steps: updates.
        batch_size: images per update.
        learning_rate: peak rate of Adamax; cosine decay to 2 % after the warm-up.
        warmup_steps: updates of linear learning-rate warm-up.
        clip_norm: the gradient is scaled down to this norm.
        kl_anneal: share of the run over which the KL weight rises linearly from ``kl_start`` to 1.
        kl_start: first KL weight.
        ema: decay of the averaged weights, which are the ones that are kept.
    """

    steps: int = 20_000
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup_steps: int = 300
    clip_norm: float = 1.0
    kl_anneal: float = 0.3
    kl_start: float = 0.05
    ema: float = 0.999


def balance_kl(kl: Tensor, sizes: Tensor) -> Tensor:
    """Weight the groups' KL so that no group is switched off early (NVAE, section 3.1; Vahdat et al., "DVAE++", 2018).

    gamma_l is proportional to size_l E_x[KL_l] and scaled to a mean of 1: groups that carry less information pay less.

    Args:
        kl: (N, L) in nats.
        sizes: (L,), latent dimensions per group.

    Returns:
        sum_l gamma_l KL_l, (N,).
    """
    weight = sizes * kl.detach().abs().mean(0) + 1e-2
    return kl @ (weight / weight.mean())


class VAETask:
    """The loop's task for stage 1."""

    def __init__(self, vae: NVAE, images: np.ndarray, training: VAETraining, seed: int, device: torch.device) -> None:
        self.vae, self.training, self.device = vae.to(device).to(memory_format=torch.channels_last), training, device
        self.batch_size = training.batch_size
        self.batches = Batches(images, training.batch_size, seed)
        self.optimizer = torch.optim.Adamax(vae.parameters(), lr=training.learning_rate, betas=(0.9, 0.999), eps=1e-8)
        self.ema = EMA(vae, training.ema)
        self.stopwatch = Stopwatch()
        self.sizes = torch.tensor([float(np.prod(shape)) for shape in vae.latent_shapes], device=device)
        self.dims = float(np.prod(images.shape[1:]))

    def state(self) -> Mapping[str, Stateful]:
        return {"vae": self.vae, "optimizer": self.optimizer, "ema": self.ema, "stopwatch": self.stopwatch}

    def _rate(self, step: int) -> float:
        warmup = self.training.warmup_steps
        if step <= warmup:
            return self.training.learning_rate * step / warmup
        done = (step - warmup) / max(1, self.training.steps - warmup)
        return self.training.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def step(self, step: int) -> dict[str, float]:
        x = to_unit(self.batches[step].to(self.device)).contiguous(memory_format=torch.channels_last)
        eps = [torch.randn(len(x), *shape, device=self.device) for shape in self.vae.latent_shapes]
        self.vae.train()
        log_px, kl = self.vae.elbo(x, eps)
        beta = min(
            1.0,
            self.training.kl_start
            + (1 - self.training.kl_start) * step / max(1.0, self.training.kl_anneal * self.training.steps),
        )
        penalty = beta * balance_kl(kl, self.sizes) if beta < 1 else kl.sum(1)
        loss = (penalty - log_px).mean() / self.dims
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.vae.parameters(), self.training.clip_norm, error_if_nonfinite=False)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.ema.update()
        means = kl.detach().mean(0)
        return {
            "loss": loss.item(),
            "elbo": (log_px.mean() - means.sum()).item(),
            "log_px": log_px.mean().item(),
            "gradient_norm": norm.item(),
            **{f"kl_{i}": value.item() for i, value in enumerate(means)},
        }

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
