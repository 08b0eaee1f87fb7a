"""Training of the short-run EBM: contrast of data with chains from noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.short_run import ShortRunSystem, short_run
from baselines.training.task import BaselineTask, Training, check_size, require
from vaebm.training.batches import to_unit


@dataclass(frozen=True)
class ShortRunTraining(Training):
    """On mean f(x-) - mean f(x+): x+ is data with Gaussian noise of deviation ``data_noise``, x- the end of the chains of
    ``[sampling]``, started afresh from uniform noise for every update.

    ``max_energy`` is the mean of abs(f) past which training has diverged.
    """

    batch_size: int = 64
    learning_rate: float = 1e-4
    data_noise: float = 0.03
    max_energy: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("data_noise", self.data_noise, at_least=0)


class ShortRunTask(BaselineTask):
    """Contrast with the chains that the system samples by: what is trained is the pair of f and K."""

    System, Options = ShortRunSystem, ShortRunTraining

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Contrast a batch with as many new chains."""
        options = self.options
        x_plus = 2 * to_unit(self.images(step)) - 1
        x_plus = x_plus + options.data_noise * torch.randn(x_plus.shape, device=self.device)
        start = 2 * torch.rand(x_plus.shape, device=self.device) - 1
        with self.autocast():
            noise = lambda _: torch.randn(start.shape, device=self.device)
            x_minus = short_run(self.network, start, noise, self.config.sampling)
            f_plus, f_minus = self.network(torch.cat([x_plus, x_minus])).chunk(2)
        check_size(torch.cat([f_plus, f_minus]), options.max_energy, "f")
        loss = f_minus.mean() - f_plus.mean()
        log = {
            "f_data": f_plus.mean().item(),
            "f_samples": f_minus.mean().item(),
            "f_std": f_plus.std(correction=0).item(),
        }
        # Where chains end tells more about health than f: data have a mean square of about 0.3.
        return loss, {"loss": loss.item(), **log, "samples_square": x_minus.square().mean().item()}
