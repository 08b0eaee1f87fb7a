"""Training of JEM: cross-entropy on labels, and contrast of data with replayed chains."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.jem import JEMRecipe, JEMSystem, energy, run_chains
from baselines.training.replay import ReplayBuffer
from baselines.training.task import BaselineTask, Training, check_size, require
from vaebm.training.batches import to_uint8, to_unit
from vaebm.training.loop import Stateful


@dataclass(frozen=True)
class JEMTraining(Training):
    """On ce_weight H(y, p(y|x+)) + px_weight (mean E(x+) - mean E(x-)) + energy_l2 (mean E(x+)^2 + mean E(x-)^2).

    x+ are data with Gaussian noise of standard deviation ``sigma``, x- the ends of ``chains`` chains from a buffer (0: as many as a
    batch has images), of which ``fresh_share`` restart from uniform noise. ``chain_steps``, ``step_size`` and ``noise_scale`` are the
    chain; ``max_energy`` is the mean of abs(E) past which training has diverged. The first ``px_start`` updates are of cross-entropy
    alone: chains move little on the energy of an untrained classifier. Published: 20 steps, batches of 64, no energy_l2, px_start 0.
    """

    learning_rate: float = 1e-4
    ce_weight: float = 1.0
    px_weight: float = 1.0
    px_start: int = 0
    energy_l2: float = 0.0
    sigma: float = 0.03
    chains: int = 0
    chain_steps: int = 20
    step_size: float = 1.0
    noise_scale: float = 0.01
    buffer_size: int = 10000
    fresh_share: float = 0.05
    max_energy: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ce_weight", "px_weight", "px_start", "energy_l2", "sigma", "chains"):
            require(name, getattr(self, name), at_least=0)
        require("buffer_size", self.buffer_size, at_least=self.negatives)
        require("fresh_share", self.fresh_share, at_least=0, at_most=1)
        _ = self.chain  # its own checks

    @property
    def negatives(self) -> int:
        """Chains that an update continues."""
        return self.chains or self.batch_size

    @property
    def chain(self) -> JEMRecipe:
        """How the negatives move."""
        return JEMRecipe(steps=self.chain_steps, step_size=self.step_size, noise_scale=self.noise_scale)


class JEMTask(BaselineTask):
    """Maximum likelihood of p(x) p(y|x), by contrast with Langevin samples for the first."""

    System, Options = JEMSystem, JEMTraining
    supervised = True

    def prepare(self) -> None:
        """Start the chains; the buffer holds (x + 1) / 2."""
        height, width, channels = self.config.architecture.image_shape
        self.buffer = ReplayBuffer(self.options.buffer_size, (channels, height, width), self.options.fresh_share)

    def state(self) -> dict[str, Stateful]:
        """With the chains."""
        return {**super().state(), "buffer": self.buffer}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Classify a batch, and contrast it with chains that are continued for it."""
        options = self.options
        x_plus = noisy(self.images(step), options.sigma)
        labels = self.batches.labels_of(step).to(self.device)
        contrasting = step > options.px_start
        with self.autocast():
            x_minus = self.continue_chains() if contrasting else x_plus[:0]
            logits = self.network(torch.cat([x_plus, x_minus]))
        e_plus, e_minus = energy(logits).split([len(x_plus), len(x_minus)])
        check_size(torch.cat([e_plus, e_minus]), options.max_energy, "E")
        logits_plus = logits[: len(x_plus)]
        ce = F.cross_entropy(logits_plus, labels)
        loss = options.ce_weight * ce
        if contrasting:
            gap = e_plus.mean() - e_minus.mean()
            l2 = e_plus.square().mean() + e_minus.square().mean()
            loss = loss + options.px_weight * gap + options.energy_l2 * l2
        log = {
            "loss": loss.item(),
            "cross_entropy": ce.item(),
            "accuracy": accuracy(logits_plus, labels),
            "energy_data": e_plus.mean().item(),
            # Before the first chain there is no gap.
            "energy_samples": (e_minus if contrasting else e_plus).mean().item(),
            "energy_std": e_plus.std(correction=0).item(),
        }
        return loss, log

    def continue_chains(self) -> Tensor:
        """Draw chains from the buffer, run them on and put them back; return where they stop, in [-1, 1] or near it."""
        chosen, start = self.buffer.draw(self.options.negatives)
        start = 2 * start.to(self.device) - 1
        noise = lambda _: torch.randn(start.shape, device=self.device)
        x_minus = run_chains(self.network, start, noise, self.options.chain)
        self.buffer.put(chosen, (x_minus + 1) / 2)
        return x_minus

    def preview(self) -> np.ndarray:
        """Return chains of the buffer."""
        return to_uint8(self.buffer.images[:64].float())

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return the share of images that are classified right, and mean and spread of log p(x)."""
        return {"accuracy": validated_accuracy(self.system(), images, labels), **super().validate(images, labels)}


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Return bytes / 127.5 - 1 + sigma n, n ~ N(0, 1), of uint8 images of any shape."""
    x = 2 * to_unit(images) - 1
    return x + sigma * torch.randn(x.shape, device=x.device)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows (N, classes) whose largest entry is at the label."""
    return (logits.argmax(dim=1) == labels).float().mean().item()


def validated_accuracy(system: JEMSystem, images: np.ndarray, labels: np.ndarray | None) -> float:
    """Return the share of uint8 images (N, H, W, C) whose likeliest class is the label."""
    assert labels is not None  # the task is supervised
    return float((system.classify(images).argmax(axis=1) == labels).mean())
