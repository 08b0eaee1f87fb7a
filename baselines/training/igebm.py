"""Training of IGEBM: contrast of data with replayed Langevin chains."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.igebm import IGEBMSystem, LangevinRecipe, run_chains
from baselines.training.replay import ReplayBuffer
from baselines.training.task import BaselineTask, Training, check_size, require
from vaebm.errors import UserError, did_you_mean
from vaebm.training.batches import to_uint8, to_unit
from vaebm.training.loop import Stateful

STARTS = ("uniform", "data")


@dataclass(frozen=True)
class IGEBMTraining(Training):
    """On mean E(x+) - mean E(x-) + energy_l2 (mean E(x+)^2 + mean E(x-)^2), x- from replayed chains.

    Attributes:
        energy_l2: keeps energies near 0.
        positive_noise, negative_noise: standard deviations of Gaussian noise added to x+, beyond the uniform noise of one bin that is
            always there, and to x- where they are contrasted; chains continue without theirs.
        buffer_size, fresh_share, fifo: see :class:`ReplayBuffer`.
        fresh_start: where chains restart: ``"uniform"`` noise, or a training image (``"data"``).
        chain_steps, step_size, noise_scale, gradient_clip: the chain; see :func:`baselines.igebm.langevin`.
        history_every: updates between the states of an ensemble (``architecture.ensemble``).
        max_energy: the mean of abs(E) past which training has diverged.
    """

    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup: int = 100
    energy_l2: float = 1.0
    positive_noise: float = 0.0
    negative_noise: float = 0.0
    buffer_size: int = 4096
    fresh_share: float = 0.05
    fresh_start: str = "uniform"
    fifo: bool = False
    chain_steps: int = 20
    step_size: float = 10.0
    noise_scale: float = 0.005
    gradient_clip: float = 0.01
    history_every: int = 300
    max_energy: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("energy_l2", self.energy_l2, at_least=0)
        require("positive_noise", self.positive_noise, at_least=0)
        require("negative_noise", self.negative_noise, at_least=0)
        require("buffer_size", self.buffer_size, at_least=self.batch_size)
        require("fresh_share", self.fresh_share, at_least=0, at_most=1)
        require("history_every", self.history_every, at_least=1)
        if self.fresh_start not in STARTS:
            raise UserError(
                f"training.fresh_start {self.fresh_start!r}: unknown.{did_you_mean(self.fresh_start, STARTS)}"
            )
        _ = self.chain  # its own checks

    @property
    def chain(self) -> LangevinRecipe:
        """How the negatives move."""
        return LangevinRecipe(self.chain_steps, self.step_size, self.noise_scale, self.gradient_clip)


class IGEBMTask(BaselineTask):
    """Maximum likelihood by contrast with Langevin samples, with a replay buffer."""

    System, Options = IGEBMSystem, IGEBMTraining
    betas = (0.0, 0.999)

    def prepare(self) -> None:
        """Start the chains and the ensemble.

        Raises:
            UserError: the run is too short for its ensemble.
        """
        options, architecture = self.options, self.config.architecture
        before = (architecture.ensemble - 1) * options.history_every
        if before >= self.config.schedule.steps:
            raise UserError(
                f"schedule.steps {self.config.schedule.steps}: an ensemble of {architecture.ensemble} states "
                f"{options.history_every} updates apart (training.history_every) needs more than {before}"
            )
        height, width, channels = architecture.image_shape
        shape = (channels, height, width)
        self.buffer = ReplayBuffer(options.buffer_size, shape, options.fresh_share, fifo=options.fifo)
        self.network.remember(single(self.network.state_dict()), everywhere=True)

    def state(self) -> dict[str, Stateful]:
        """With the chains."""
        return {**super().state(), "buffer": self.buffer}

    def step(self, step: int) -> dict[str, float]:
        """Make update ``step``; an ensemble remembers where it begins, every ``history_every`` updates."""
        done, every = step - 1, self.options.history_every
        if done and done % every == 0:
            self.network.remember(single(super().weights()), everywhere=done == every)
        return super().step(step)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Contrast a batch with chains that are continued for it."""
        options = self.options
        # Noise of one bin makes the data continuous; it has mean 0, so that bytes / 255, which is what gets scored,
        # is their centre.
        x_plus = noisy(self._continuous(self.images(step)), options.positive_noise).clamp(0, 1)
        chosen, x = self.buffer.draw(options.batch_size, self._start())
        with self.autocast():
            self.network.eval()  # the power iteration advances once per update, not once per step of the chain
            x = x.to(self.device)
            noise = lambda _: torch.randn(x.shape, device=self.device)
            x_minus = run_chains(self.network.newest, x, noise, options.chain)
            self.network.train()
            energies = self.network.newest(torch.cat([x_plus, noisy(x_minus, options.negative_noise).clamp(0, 1)]))
        self.buffer.put(chosen, x_minus)
        e_plus, e_minus = energies.chunk(2)
        check_size(energies, options.max_energy, "E")
        loss = e_plus.mean() - e_minus.mean() + options.energy_l2 * (e_plus.square() + e_minus.square()).mean()
        log = {"energy_data": e_plus.mean().item(), "energy_samples": e_minus.mean().item()}
        return loss, {"loss": loss.item(), **log, "energy_std": e_plus.std(correction=0).item()}

    def weights(self) -> dict[str, Tensor]:
        """The averaged or last weights, and the states of the ensemble before them."""
        present = self.network.state_dict()
        return {**present, **single(super().weights())}

    def _start(self) -> Tensor | None:
        """Where chains of this update restart; None is uniform noise."""
        if self.options.fresh_start == "uniform":
            return None
        chosen = torch.randint(len(self.batches.images), (self.options.batch_size,))
        return self._continuous(self.batches.images[chosen])

    def _continuous(self, images: Tensor) -> Tensor:
        """Map bytes to [0, 1] with uniform noise of one bin around bytes / 255."""
        return to_unit(images) + (torch.rand(images.shape, device=images.device) - 0.5) / 255

    def preview(self) -> np.ndarray:
        """Return chains of the buffer."""
        return to_uint8(self.buffer.images[:64].float())

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return mean and spread of the energies."""
        energies = -self.system().score(images)
        return {"energy_mean": float(energies.mean()), "energy_std": float(energies.std())}


def single(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the newest state's part of a state dict."""
    return {name: value for name, value in state.items() if not name.startswith("history.")}


def noisy(x: Tensor, deviation: float) -> Tensor:
    """Add Gaussian noise."""
    return x + deviation * torch.randn_like(x) if deviation else x
