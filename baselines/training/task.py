"""What the training tasks share: batches, Adam, the learning rate's course, clipping and averaging.

A task's own file names its ``System`` and ``Options`` and writes :meth:`BaselineTask.loss`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baselines.system import NativeSystem
from baselines.training.config import Config
from vaebm.errors import UserError
from vaebm.noise import seed_step
from vaebm.training.batches import Batches
from vaebm.training.ema import EMA
from vaebm.training.loop import Diverged, Stateful, Stopwatch


def require(name: str, value: float, *, at_least: float, at_most: float = math.inf) -> None:
    """Refuse a training option outside its range.

    Raises:
        UserError: with the option, the value and the range.
    """
    if not at_least <= value <= at_most:
        above = f" and at most {at_most:g}" if at_most < math.inf else ""
        raise UserError(f"training.{name} = {value:g}, needed at least {at_least:g}{above}")


def check_size(values: Tensor, limit: float, what: str) -> None:
    """Stop a training whose energies have left every scale.

    Args:
        values: energies (N,), or -energies.
        limit: what the mean of abs(values) may be: the option ``max_energy``.
        what: their name in the message: ``"E"``.

    Raises:
        Diverged: it is larger, or NaN.
    """
    size = values.detach().abs().mean()
    if not size <= limit:  # also true of NaN
        raise Diverged(f"mean |{what}| is {size.item():.4g}, the limit (max_energy) is {limit:g}")


@dataclass(frozen=True)
class Training:
    """Adam, warmed up linearly over ``warmup`` updates, decayed to 0 by a cosine, gradients clipped to norm ``clip_norm``.

    ``ema_decay``: exported are averaged weights; 0 exports the last ones. ``bf16`` runs the networks in bfloat16.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    bf16: bool = False

    def __post_init__(self) -> None:
        require("batch_size", self.batch_size, at_least=1)
        require("learning_rate", self.learning_rate, at_least=0)
        require("ema_decay", self.ema_decay, at_least=0, at_most=1)


class BaselineTask:
    """A network, its optimiser and its data, for the training loop.

    Args:
        config: of this kind of system.
        images: uint8 (N, H, W, C).
        labels: int (N,), for tasks that are ``supervised``.
        seed: of weights and of the order of batches.
        device: where to train.

    A subclass sets:
        System: the native system that the weights become.
        Options: a :class:`Training`, with what is the task's own.
        supervised: whether labels are trained on.
        betas: of Adam.
    """

    System: ClassVar[type[NativeSystem]]
    Options: ClassVar[type[Training]]
    supervised: ClassVar[bool] = False
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    rate_scale = 1.0

    def __init__(
        self, config: Config, images: np.ndarray, labels: np.ndarray | None, seed: int, device: torch.device
    ) -> None:
        self.config, self.options, self.device, self.seed = config, config.training, device, seed
        self.batch_size: int = self.options.batch_size
        if self.supervised and labels is None:
            raise UserError(f"{config.dataset}: has no labels, which {config.kind} trains on")
        self.batches = Batches(images, self.batch_size, seed, labels=labels)
        seed_step(seed, 0)
        self.network: Any = self.System.Network(config.architecture).to(device)
        self.prepare()
        self.optimizer = self.make_optimizer(self.network.parameters())
        self.ema = EMA(self.network, self.options.ema_decay) if self.options.ema_decay else None
        self.stopwatch = Stopwatch()

    def prepare(self) -> None:
        """Set up what is the task's own, once the network is there and before the optimiser is."""

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam over these parameters."""
        return torch.optim.Adam(parameters, lr=self.options.learning_rate, betas=self.betas)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss () of update ``step`` and what to log; raise :class:`Diverged` where training has."""
        raise NotImplementedError

    def state(self) -> Mapping[str, Stateful]:
        """Everything that a resumed run needs; a subclass adds its own."""
        averaged = {} if self.ema is None else {"ema": self.ema}
        return {"network": self.network, "optimizer": self.optimizer, "stopwatch": self.stopwatch, **averaged}

    def step(self, step: int) -> dict[str, float]:
        """Make update ``step``."""
        loss, log = self.loss(step)
        gradient = self.update(self.optimizer, self.network.parameters(), loss, step)
        if self.ema is not None:
            self.ema.update()
        return {**log, "gradient": gradient}

    def update(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        loss: Tensor,
        step: int,
        learning_rate: float | None = None,
    ) -> float:
        """Make one step of ``optimizer`` down ``loss``; return the norm of the gradient before clipping."""
        optimizer.zero_grad()
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        peak = self.rate_scale * (self.options.learning_rate if learning_rate is None else learning_rate)
        set_learning_rate(optimizer, peak, step, self.options.warmup, self.config.schedule.steps)
        optimizer.step()
        return gradient.item()

    def images(self, step: int) -> Tensor:
        """Return the uint8 images (B, C, H, W) of update ``step``, on the device."""
        return self.batches[step].to(self.device)

    def autocast(self) -> torch.autocast:
        """The precision that ``bf16`` chooses."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)

    def weights(self) -> dict[str, Tensor]:
        """The weights to export."""
        return self.network.state_dict() if self.ema is None else self.ema.shadow

    def system(self) -> Any:
        """The system that :meth:`weights` make at present."""
        network = self.System.Network(self.config.architecture)
        network.load_state_dict(self.weights())
        return self.System(network, self.config.sampling, device=self.device)

    def preview(self) -> np.ndarray:
        """A few samples, uint8 (N, H, W, C)."""
        return self.system().sample(range(64))

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Figures of merit on images (uint8, (N, H, W, C)) that were not trained on."""
        scores = self.system().score(images)
        return {"score_mean": float(scores.mean()), "score_std": float(scores.std())}


def mutated(images: Tensor, rate: float) -> Tensor:
    """Replace each value of uint8 images, with probability ``rate``, by one drawn uniformly from 0 to 255.

    A density trained on such images knows the background and little of what stands before it: the second model of a likelihood ratio.

    Reference: Ren et al., "Likelihood Ratios for Out-of-Distribution Detection", NeurIPS 2019, https://arxiv.org/abs/1906.02845
    """
    if rate == 0:
        return images
    chosen = torch.rand(images.shape, device=images.device) < rate
    return torch.where(chosen, torch.randint_like(images, 256), images)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: int, total: int) -> None:
    """Linear from 0 to ``peak`` over ``warmup`` updates, times a cosine that reaches 0 after update ``total``."""
    rate = peak * min(1.0, step / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
    for group in optimizer.param_groups:
        group["lr"] = rate
