"""Training of the divergence triangle: the energy up, generator and encoder down the same objective, by turns."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.common import batches
from baselines.divergence_triangle import (
    DivergenceTriangleSystem,
    LogDensities,
    diagonal_normal_log_prob,
    divergences,
    triangle,
)
from baselines.training.task import BaselineTask, Training, check_size, require
from vaebm.training.batches import from_uint8, to_unit


@dataclass(frozen=True)
class DivergenceTriangleTraining(Training):
    """On the triangle. ``learning_rate`` is that of generator and encoder, ``energy_rate`` that of the energy.

    ``sigma`` is the deviation of p_theta(x | z), for x in [-1, 1]: the weight of reconstructions is 1 / (2 sigma^2).
    ``max_energy`` is the mean of abs(f) past which training has diverged.
    """

    batch_size: int = 100
    learning_rate: float = 3e-4
    energy_rate: float = 1e-4
    sigma: float = 0.7
    max_energy: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("energy_rate", self.energy_rate, at_least=0)
        require("sigma", self.sigma, at_least=1e-3)


class DivergenceTriangleTask(BaselineTask):
    """One update of the energy, then one of generator and encoder, at the same pairs.

    Adam keeps moments per weight and passes over weights that have no gradient: one optimiser serves both sides.
    """

    System, Options = DivergenceTriangleSystem, DivergenceTriangleTraining
    betas = (0.5, 0.999)

    def step(self, step: int) -> dict[str, float]:
        """Make update ``step`` of all three networks."""
        network, options = self.network, self.options
        with self.autocast():
            x = 2 * to_unit(self.images(step)) - 1
            mean, log_sigma = network.encoder(x)
            z = mean + log_sigma.exp() * torch.randn_like(mean)
            # The generator's mean stands for a sample of p_theta(x | z): noise of deviation sigma would hide the image.
            z_p = torch.randn_like(mean)
            x_p = network.generator(z_p).float()
            f_q, f_p = network.energy(torch.cat([x, x_p.detach()]), torch.cat([z.detach(), z_p])).chunk(2)
        check_size(torch.cat([f_q, f_p]), options.max_energy, "f")
        # Of the triangle the energy moves only this part, upwards.
        gain = f_q.mean() - f_p.mean()
        gradients = {
            "gradient_energy": self.update(
                self.optimizer, network.energy.parameters(), -gain, step, options.energy_rate
            )
        }
        network.energy.requires_grad_(False)
        with self.autocast():
            terms = self.terms(x, z, diagonal_normal_log_prob(z, mean, log_sigma), x_p, z_p)
        players = [*network.generator.parameters(), *network.encoder.parameters()]
        gradients["gradient"] = self.update(self.optimizer, players, triangle(terms), step)
        network.energy.requires_grad_(True)
        if self.ema is not None:
            self.ema.update()
        log = {"f_data": f_q.mean().item(), "f_samples": f_p.mean().item(), "f_std": f_q.std(correction=0).item()}
        return {**log, **{f"kl_{name}": value.item() for name, value in terms.items()}, **gradients}

    def terms(self, x: Tensor, z: Tensor, log_q: Tensor, x_p: Tensor, z_p: Tensor) -> dict[str, Tensor]:
        """Return the three divergences at pairs (x, z) of Q, with their log q(z | x), and (x_p, z_p) of P."""
        network = self.network
        log_q_p = diagonal_normal_log_prob(z_p, *network.encoder(x_p)) if network.q_is_in_pi else log_q
        pi_q, pi_p = network.log_pi(torch.cat([x, x_p]), torch.cat([z, z_p]), torch.cat([log_q, log_q_p])).chunk(2)
        on_q = LogDensities(log_q, self._log_p(x, z, network.generator(z).float()), pi_q)
        return divergences(on_q, LogDensities(log_q_p, self._log_p(x_p, z_p, x_p), pi_p))

    def _log_p(self, x: Tensor, z: Tensor, mean: Tensor) -> Tensor:
        log_sigma = x.new_full((1,), self.options.sigma).log()
        prior = diagonal_normal_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
        return prior + diagonal_normal_log_prob(x.flatten(1), mean.flatten(1), log_sigma)

    @torch.no_grad()
    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return the mean square of reconstruction errors for x in [-1, 1], and mean and spread of scores."""
        network = self.system().network
        errors = []
        for part in batches(images, self.batch_size):
            x = 2 * from_uint8(part, self.device) - 1
            errors.append((network.generator(network.encoder(x)[0]) - x).square().mean(dim=(1, 2, 3)))
        return {"reconstruction": float(torch.cat(errors).mean()), **super().validate(images, labels)}
