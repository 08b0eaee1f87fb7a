"""Training of IGEBM: contrast of data with replayed Langevin chains."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.igebm import IGEBMSystem, LangevinRecipe, run_chains
from baselines.training.replay import ReplayBuffer
from baselines.training.task import BaselineTask, Training, require
from vaebm.training.batches import to_uint8, to_unit
from vaebm.training.loop import Diverged, Stateful


@dataclass(frozen=True)
class IGEBMTraining(Training):
    """On mean E(x+) - mean E(x-) + energy_l2 (mean E(x+)^2 + mean E(x-)^2), x- from replayed chains.

    ``fresh_share`` of the chains restart from uniform noise; ``chain_steps`` to ``gradient_clip`` are the chain;
    ``max_energy`` is the mean of abs(E) past which training has diverged.
    """

    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup: int = 100
    energy_l2: float = 1.0
    buffer_size: int = 4096
    fresh_share: float = 0.05
    chain_steps: int = 20
    step_size: float = 10.0
    noise_scale: float = 0.005
    gradient_clip: float = 0.01
    max_energy: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("buffer_size", self.buffer_size, at_least=self.batch_size)
        require("fresh_share", self.fresh_share, at_least=0, at_most=1)
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
        """Start the chains."""
        height, width, channels = self.config.architecture.image_shape
        self.buffer = ReplayBuffer(self.options.buffer_size, (channels, height, width), self.options.fresh_share)

    def state(self) -> dict[str, Stateful]:
        """With the chains."""
        return {**super().state(), "buffer": self.buffer}

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Contrast a batch with chains that are continued for it."""
        options = self.options
        # Noise of one bin makes the data continuous; it has mean 0, so that bytes / 255, which is what gets scored,
        # is their centre.
        images = self.images(step)
        x_plus = (to_unit(images) + (torch.rand(images.shape, device=self.device) - 0.5) / 255).clamp(0, 1)
        chosen, x = self.buffer.draw(options.batch_size)
        with self.autocast():
            self.network.eval()  # the power iteration advances once per update, not once per step of the chain
            x = x.to(self.device)
            x_minus = run_chains(self.network, x, lambda _: torch.randn(x.shape, device=self.device), options.chain)
            self.network.train()
            energies = self.network(torch.cat([x_plus, x_minus]))
        self.buffer.put(chosen, x_minus)
        e_plus, e_minus = energies.chunk(2)
        size = energies.detach().abs().mean()
        if not size <= options.max_energy:  # also true of NaN
            raise Diverged(f"mean |E| is {size.item():.4g}, the limit (max_energy) is {options.max_energy:g}")
        loss = e_plus.mean() - e_minus.mean() + options.energy_l2 * (e_plus.square() + e_minus.square()).mean()
        log = {"energy_data": e_plus.mean().item(), "energy_samples": e_minus.mean().item()}
        return loss, {"loss": loss.item(), **log, "energy_std": e_plus.std().item()}

    def preview(self) -> np.ndarray:
        """Return chains of the buffer."""
        return to_uint8(self.buffer.images[:64].float())

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return mean and spread of the energies."""
        energies = -self.system().score(images)
        return {"energy_mean": float(energies.mean()), "energy_std": float(energies.std())}
