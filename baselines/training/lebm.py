"""Training of LEBM: maximum likelihood, with chains for the posterior and for the prior."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.lebm import LEBMRecipe, LEBMSystem, centred
from baselines.training.task import BaselineTask, Training, require
from vaebm.training.loop import Diverged, Stateful


@dataclass(frozen=True)
class LEBMTraining(Training):
    """On -log p(x | z+) for g and on f(z-) - f(z+) for f, z+ from posterior and z- from prior chains, all from N(0, I).

    ``learning_rate`` is g's and ``prior_learning_rate`` f's; ``prior_steps`` to ``posterior_step_size`` are the chains;
    ``max_tilt`` is the size of the mean of f past which training has diverged; ``bf16`` runs g in bfloat16.
    Published: the defaults, without clipping, and rates that fall to two thirds.
    """

    batch_size: int = 100
    learning_rate: float = 1e-4
    clip_norm: float = 100.0
    prior_learning_rate: float = 2e-5
    prior_steps: int = 60
    prior_step_size: float = 0.4
    posterior_steps: int = 20
    posterior_step_size: float = 0.1
    max_tilt: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("prior_learning_rate", self.prior_learning_rate, at_least=0)
        _ = self.chains  # its own checks

    @property
    def chains(self) -> LEBMRecipe:
        """How z+ and z- move."""
        return LEBMRecipe(self.prior_steps, self.prior_step_size, self.posterior_steps, self.posterior_step_size)


class LEBMTask(BaselineTask):
    """Two optimisers: g follows the reconstruction, f the contrast between posterior and prior."""

    System, Options = LEBMSystem, LEBMTraining
    betas = (0.5, 0.999)

    def prepare(self) -> None:
        """Give f its own optimiser."""
        self.prior_optimizer = self.make_optimizer(self.network.prior.parameters())

    def state(self) -> dict[str, Stateful]:
        """With the optimiser of f."""
        return {**super().state(), "prior_optimizer": self.prior_optimizer}

    def losses(self, step: int) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Return mean -log p(x | z+), mean f(z-) - mean f(z+) and what to log.

        z+ and z- are constants in both. Where the chains have converged, their gradients are those of mean -log p(x).
        """
        model, chains, latent = self.network, self.options.chains, self.config.architecture.latent
        x = centred(self.images(step).float())
        noise = lambda *_: torch.randn(len(x), latent, device=self.device)
        with self.autocast():
            z_plus = chains.posterior_chain(model, x, noise(), noise)
            z_minus = chains.prior_chain(model, noise(), noise)
            log_likelihood = model.log_likelihood(x, z_plus).mean()
            f_plus, f_minus = (f.mean() for f in model.tilt(torch.cat([z_plus, z_minus])).chunk(2))
        size = f_plus.detach().abs().maximum(f_minus.detach().abs()).item()
        if not size <= self.options.max_tilt:  # also true of NaN
            raise Diverged(f"mean f is {size:.4g}, the limit (max_tilt) is {self.options.max_tilt:g}")
        log = {"log_likelihood": log_likelihood.item(), "f_data": f_plus.item(), "f_prior": f_minus.item()}
        spread = {"z_data": z_plus.square().mean().sqrt().item(), "z_prior": z_minus.square().mean().sqrt().item()}
        return -log_likelihood, f_minus - f_plus, {**log, **spread}

    def step(self, step: int) -> dict[str, float]:
        """Make update ``step`` of g, then of f."""
        generator_loss, prior_loss, log = self.losses(step)
        # The first optimiser knows all weights, but moves those alone that its loss reaches: g's.
        gradient = self.update(self.optimizer, self.network.generator.parameters(), generator_loss, step)
        prior_rate = self.options.prior_learning_rate
        tilt = self.update(self.prior_optimizer, self.network.prior.parameters(), prior_loss, step, prior_rate)
        if self.ema is not None:
            self.ema.update()
        return {**log, "gradient": gradient, "gradient_prior": tilt}

    def validate(self, images: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Return the mean terms of the score."""
        return {name: float(term.mean()) for name, term in self.system().score_terms(images).items()}
