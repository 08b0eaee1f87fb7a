"""Training of PixelCNN: maximum likelihood."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from baselines.pixelcnn import PixelCNNSystem, quantise
from baselines.training.task import BaselineTask, Training, mutated, require


@dataclass(frozen=True)
class PixelCNNTraining(Training):
    """On -log p / D; ``bf16`` runs the network in bfloat16, the likelihood in float32. ``mutation``: of :func:`mutated`."""

    batch_size: int = 16
    ema_decay: float = 0.999
    mutation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("mutation", self.mutation, at_least=0, at_most=1)


class PixelCNNTask(BaselineTask):
    """Maximum likelihood."""

    System, Options = PixelCNNSystem, PixelCNNTraining

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return -log p(x) / D in nats."""
        images = mutated(self.images(step), self.options.mutation)
        with self.autocast():
            log_prob = self.network.log_prob(quantise(images.float(), self.config.architecture.bits))
        loss = -log_prob.mean() / images[0].numel()
        return loss, {"bits_per_dim": loss.item() / math.log(2)}

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return bits per dimension."""
        return {"bits_per_dim": float(-self.system().score(images).mean() / (images[0].size * math.log(2)))}
