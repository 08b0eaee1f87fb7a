"""Training of HDGE: cross-entropy on labels, and contrast of each image with a queue of earlier ones."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.hdge import HDGESystem, contrast
from baselines.training.jem import accuracy, noisy, validated_accuracy
from baselines.training.task import BaselineTask, Training, require
from vaebm.training.batches import to_uint8
from vaebm.training.loop import Stateful


@dataclass(frozen=True)
class HDGETraining(Training):
    """On ce_weight H(y, p(y|x)) - pxy_weight log q(x|y), with :func:`baselines.hdge.contrast` against ``queue_size`` earlier images.

    x are data with Gaussian noise of standard deviation ``sigma``. The queue holds logits of a copy of the network whose weights
    follow by theta' <- momentum theta' + (1 - momentum) theta; with ``momentum`` 0 it is the network itself, as in the released code.
    Published: a queue of 65,536, temperature 0.1, unit length.
    """

    learning_rate: float = 1e-4
    ce_weight: float = 1.0
    pxy_weight: float = 1.0
    sigma: float = 0.03
    queue_size: int = 65536
    temperature: float = 0.1
    unit_length: bool = True
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ce_weight", "pxy_weight", "sigma"):
            require(name, getattr(self, name), at_least=0)
        require("queue_size", self.queue_size, at_least=self.batch_size)
        require("temperature", self.temperature, at_least=1e-3)
        require("momentum", self.momentum, at_least=0, at_most=1)


class LogitQueue(nn.Module):
    """The logits of the ``size`` images that were put last, first in, first out; standard normal ones until then.

    Args:
        size: K, at least the length of what is put at once.
        classes: length of the logits.
    """

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.logits: Tensor
        self.next: Tensor
        self.register_buffer("logits", torch.randn(size, classes))
        self.register_buffer("next", torch.tensor(0))  # the oldest row, to be overwritten first

    @torch.no_grad()
    def put(self, logits: Tensor) -> None:
        """Let ``logits`` (n, classes) take the place of the n oldest."""
        rows = (self.next + torch.arange(len(logits), device=logits.device)) % len(self.logits)
        self.logits[rows] = logits.float()
        self.next = (rows[-1] + 1) % len(self.logits)


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """Set every weight theta' of ``follower`` to momentum theta' + (1 - momentum) theta."""
    for ours, theirs in zip(follower.parameters(), leader.parameters(), strict=True):
        ours.lerp_(theirs, 1 - momentum)


class HDGETask(BaselineTask):
    """Maximum likelihood of p(y|x), and of p(x|y) among the images of a queue."""

    System, Options = HDGESystem, HDGETraining
    supervised = True

    def prepare(self) -> None:
        """Start the queue and, where it is one, the network that fills it."""
        self.queue = LogitQueue(self.options.queue_size, self.config.architecture.classes).to(self.device)
        self.follower = copy.deepcopy(self.network).requires_grad_(False) if self.options.momentum else None

    def state(self) -> dict[str, Stateful]:
        """With the queue and what fills it."""
        follower = {} if self.follower is None else {"follower": self.follower}
        return {**super().state(), "queue": self.queue, **follower}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Classify a batch, contrast it with the queue, then put it there."""
        options = self.options
        x = noisy(self.images(step), options.sigma)
        labels = self.batches.labels_of(step).to(self.device)
        with self.autocast():
            logits = self.network(x)
            if self.follower is None:
                keys = logits.detach()
            else:
                follow(self.follower, self.network, options.momentum)
                with torch.no_grad():
                    keys = self.follower(x)
        # The queue is overwritten below, before the gradient is taken.
        how = {"temperature": options.temperature, "unit_length": options.unit_length}
        log_q = contrast(logits, labels, self.queue.logits.clone(), **how).mean()
        self.queue.put(keys)
        ce = F.cross_entropy(logits, labels)
        loss = options.ce_weight * ce - options.pxy_weight * log_q
        log = {"loss": loss.item(), "cross_entropy": ce.item(), "accuracy": accuracy(logits, labels)}
        return loss, {**log, "log_q": log_q.item(), "log_p": logits.logsumexp(dim=1).mean().item()}

    def preview(self) -> np.ndarray:
        """Return images as they are trained on, noise included: there is no sampler."""
        x = noisy(self.batches.sample(min(64, len(self.batches.images))), self.options.sigma)
        return to_uint8((x + 1) / 2)

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return the share of images that are classified right, and mean and spread of log p(x)."""
        return {"accuracy": validated_accuracy(self.system(), images, labels), **super().validate(images, labels)}
