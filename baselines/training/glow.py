"""Training of Glow: maximum likelihood."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.glow import GlowSystem, bits_per_dim, dequantise, image_log_prob
from baselines.training.task import BaselineTask, Training, mutated, require


@dataclass(frozen=True)
class GlowTraining(Training):
    """On -log p / D; ``bf16`` runs the coupling networks in bfloat16. ``mutation``: of :func:`mutated`."""

    ema_decay: float = 0.998
    mutation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("mutation", self.mutation, at_least=0, at_most=1)


class GlowTask(BaselineTask):
    """Maximum likelihood. 256 shuffled images set the actnorms."""

    System, Options = GlowSystem, GlowTraining

    def prepare(self) -> None:
        """Initialise the actnorms."""
        first = self.batches.sample(min(256, len(self.batches.images))).to(self.device)
        self.network.initialise(dequantise(first, torch.rand(first.shape, device=self.device)))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return -log p(x) / D in nats."""
        images = mutated(self.images(step), self.options.mutation)
        with self.autocast():
            log_prob = image_log_prob(self.network, images, torch.rand(images.shape, device=self.device))
        loss = -log_prob.mean() / images[0].numel()
        return loss, {"bits_per_dim": loss.item() / math.log(2)}

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return bits per dimension."""
        return {"bits_per_dim": float(bits_per_dim(self.system().score(images).mean(), images[0].size))}
