"""VAEBM as a system under test: samples by short Langevin chains over (eps_x, eps_z), scores by log p_theta(x) - E_psi(x).

Reference: Xiao et al., "VAEBM: A Symbiosis between Variational Autoencoders and Energy-based Models", ICLR 2021,
https://arxiv.org/abs/2010.00654
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baselines.common import batches, check_images, override
from baselines.nvae import bound_name, differentiable_bound, gradient_norms, log_p, regrets, unit_images
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.models import build_vaebm
from vaebm.energy import EnergyNetwork
from vaebm.model import VAEBM, ChainSettings
from vaebm.sampling import Sampling, draw_images, draw_ladder, on_device, sample_in_blocks


def seen_by_energy(energy: nn.Module) -> str:
    """Say what E is shown where it is not the image itself, which is a departure from the paper that a table must name."""
    floor = energy.config.contrast_floor if isinstance(energy, EnergyNetwork) else 0.0
    return f"; E sees (x - mean) / (std + {floor:g}) of each image" if floor else ""


class VAEBMSystem:
    """A VAEBM with the recipe of its card.

    Options (``from_checkpoint``): ``importance_samples`` K of the bound; ``steps``, ``step_size``, ``target`` ("paper" or
    "official"), ``temperature``, ``metropolis`` of the chains; ``output`` ("mean" or "sample"), ``postprocess`` ("clamp" or
    "minmax_per_image") of the images.
    """

    kind = "vaebm"
    defaults: ClassVar[dict[str, Any]] = {
        "importance_samples": 1,
        "temperature": 1.0,
        "metropolis": False,
        "postprocess": "clamp",
    }
    options = (*defaults, "steps", "step_size", "target", "output")

    def __init__(
        self,
        model: VAEBM,
        recipe: dict[str, Any],
        *,
        size: str,
        weights_hash: str,
        device: str,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.recipe, self.size, self.device, self.batch_size, self.seed = recipe, size, device, batch_size, seed
        self.chain = ChainSettings.from_json(recipe)
        self.sampling = Sampling(self.chain, recipe["output"], recipe["postprocess"], seed)
        config = model.nvae.config
        self.image_shape = (config.image_size, config.image_size, config.image_channels)
        self.fingerprint = {
            "kind": self.kind,
            "weights": weights_hash,
            "seed": seed,
            "importance_samples": recipe["importance_samples"],
        }
        self.protocol = {
            "score": "log p_theta(x) - E(x), nats, not normalised",
            "estimator": bound_name(recipe["importance_samples"], config.bits) + seen_by_energy(model.energy),
        }

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        batch_size: int = 100,
        seed: int = 0,
        origin: str = "checkpoint",
        nvae: Checkpoint | None = None,
        **options: Any,
    ) -> "VAEBMSystem":
        """Build the system that a checkpoint describes.

        Args:
            nvae: the NVAE that it names; read from beside it without this.

        Raises:
            UserError: an option is unknown or out of range, the weights do not fit the card, or the NVAE is missing or another one.
        """
        card = checkpoint.card
        return cls(
            build_vaebm(checkpoint, origin, nvae),
            override({**cls.defaults, **card["sampling"]}, options, origin),
            size=card["size"],
            weights_hash=card["sha256"] + card["nvae"]["sha256"],
            device=device,
            batch_size=batch_size,
            seed=seed,
        )

    @torch.no_grad()
    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the bound on log p_theta(x) and -E(x), each float64 (N,), of uint8 images (N, H, W, C); the score is their sum."""
        check_images(images, self.image_shape)
        log_ps, energies = [np.empty(0)], [np.empty(0)]
        for part in batches(images, self.batch_size):
            log_ps.append(log_p(self.model.nvae, part, self.recipe["importance_samples"], self.seed))
            energies.append(self.model.energy(unit_images(part, self.device)).double().cpu().numpy())
        return {"log_p": np.concatenate(log_ps), "neg_energy": -np.concatenate(energies)}

    def score(self, images: np.ndarray) -> np.ndarray:
        """Return log p_theta(x) - E(x), float64 (N,): log h(x) up to the constant log Z."""
        return sum(self.score_terms(images).values(), start=np.zeros(len(images)))

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of d score / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        check_images(images, self.image_shape)
        return gradient_norms(self.log_density, images, self.model.nvae, self.batch_size, self.seed)

    def log_density(self, x: Tensor, images: np.ndarray) -> Tensor:
        """Return log p_theta(x) - E(x) (n,), differentiable in x (n, C, H, W); ``images`` are the same as uint8 and key the noise."""
        log_p_theta = differentiable_bound(self.model.nvae, x, images, self.recipe["importance_samples"], self.seed)
        return log_p_theta - self.model.energy(x).double()

    def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Return that of the NVAE, float64 (N,) in nats: E(x) is the same for every posterior and drops out of a difference of bounds."""
        check_images(images, self.image_shape)
        return regrets(self.model.nvae, images, steps, self.batch_size, self.seed)

    @cached_property
    def sampler(self) -> VAEBM:
        """The frozen copy that samples, made when it is first asked for; scores stay with the model as it was trained."""
        return on_device(self.model, self.device)

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (N, H, W, C) per seed."""
        return sample_in_blocks(self._draw, seeds, self.image_shape)

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images that :meth:`sample` draws with so many (N, H, W, C).

        One chain passes every rung: its first k steps are the chain of k steps.
        """
        rungs = sorted(set(ladder))
        draw = lambda filled: draw_ladder(self.sampler, filled, self.sampling, rungs)
        stacked = sample_in_blocks(draw, seeds, (len(rungs), *self.image_shape))  # (N, rungs, H, W, C)
        return {steps: stacked[:, i] for i, steps in enumerate(rungs)}

    def _draw(self, seeds: Sequence[int]) -> np.ndarray:
        return draw_images(self.sampler, seeds, self.sampling)[0]
