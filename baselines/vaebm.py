"""VAEBM as a system under test: samples by short Langevin chains over (eps_x, eps_z), scores by log p_theta(x) - E_psi(x).

Reference: Xiao et al., "VAEBM: A Symbiosis between Variational Autoencoders and Energy-based Models", ICLR 2021,
https://arxiv.org/abs/2010.00654
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from baselines.common import Adapter, changed, override
from baselines.numerics import compiled
from baselines.nvae import bound_name, differentiable_bound, gradient_norms, image_shape, log_p, unit_images
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.models import build_vaebm
from vaebm.energy import EnergyNetwork
from vaebm.model import VAEBM, ChainSettings
from vaebm.nvae.regret import likelihood_regret
from vaebm.sampling import Sampling, draw_images, draw_ladder, on_device


def seen_by_energy(energy: nn.Module) -> str:
    """Say what E is shown where it is not the image itself, which is a departure from the paper that a table must name."""
    floor = energy.config.contrast_floor if isinstance(energy, EnergyNetwork) else 0.0
    return f"; E sees (x - mean) / (std + {floor:g}) of each image" if floor else ""


class VAEBMSystem(Adapter):
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
        batch_size: int | str,
        seed: int,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.size, self.weights_hash, self.seed = size, weights_hash, seed
        self.device, self.batch_size = device, batch_size
        self.image_shape = image_shape(model.nvae)
        self.use(recipe)

    def use(self, recipe: dict[str, Any]) -> None:
        """Score and sample by ``recipe`` from now on.

        Raises:
            ValueError, UserError: an entry is out of range.
        """
        self.recipe = recipe
        self.chain = ChainSettings.from_json(recipe)
        self.sampling = Sampling(self.chain, recipe["output"], recipe["postprocess"], self.seed)
        self.fingerprint = {
            "kind": self.kind,
            "weights": self.weights_hash,
            "seed": self.seed,
            "importance_samples": recipe["importance_samples"],
            **self.arithmetic_facts,
        }
        estimator = bound_name(recipe["importance_samples"], self.model.nvae.config.bits)
        self.protocol = {
            "score": "log p_theta(x) - E(x), nats, not normalised",
            "estimator": estimator + seen_by_energy(self.model.energy),
        }

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        batch_size: int | str = 100,
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

    def with_recipe(self, **changes: Any) -> Self:
        """Return a system with the same networks, not copies of them, and some entries of the recipe changed.

        Raises:
            UserError: an entry is unknown or out of range.
        """
        if changes.keys() - {"importance_samples"}:
            _ = self.sampler  # made now, it is frozen once for all recipes
        other = copy.copy(self)
        with changed(self.kind, changes):
            other.use(override(self.recipe, changes, self.kind))
        return other

    @property
    def whole(self) -> nn.Module:
        """See :class:`~baselines.common.Adapter`."""
        return self.model

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that samples run through, by name: the frozen copies."""
        return {"nvae": self.sampler.nvae, "energy": self.sampler.energy}

    @torch.no_grad()
    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the bound on log p_theta(x) and -E(x), each float64 (N,), of uint8 images (N, H, W, C); the score is their sum."""

        def terms(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_ps = log_p(self.model.nvae, part, self.recipe["importance_samples"], self.seed)
            return log_ps, self.model.energy(unit_images(part, self.device)).double().cpu().numpy()

        none = np.empty(0)
        log_ps, energies = zip((none, none), *self.in_batches(terms, images), strict=True)
        return {"log_p": np.concatenate(log_ps), "neg_energy": -np.concatenate(energies)}

    def score(self, images: np.ndarray) -> np.ndarray:
        """Return log p_theta(x) - E(x), float64 (N,): log h(x) up to the constant log Z."""
        return sum(self.score_terms(images).values(), start=np.zeros(len(images)))

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of d score / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        norms = lambda part: gradient_norms(self.log_density, part, self.model.nvae, self.seed)
        return np.concatenate([np.empty(0), *self.in_batches(norms, images)])

    def log_density(self, x: Tensor, images: np.ndarray) -> Tensor:
        """Return log p_theta(x) - E(x) (n,), differentiable in x (n, C, H, W); ``images`` are the same as uint8 and key the noise."""
        log_p_theta = differentiable_bound(self.model.nvae, x, images, self.recipe["importance_samples"], self.seed)
        return log_p_theta - self.model.energy(x).double()

    def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Return that of the NVAE, float64 (N,) in nats: E(x) is the same for every posterior and drops out of a difference of bounds."""
        regrets = self.in_batches(lambda part: likelihood_regret(self.model.nvae, part, steps, self.seed), images)
        return np.concatenate([np.empty(0), *regrets])

    @cached_property
    def sampler(self) -> VAEBM:
        """The frozen copy that samples, made when it is first asked for; scores stay with the model as it was trained."""
        sampler = on_device(self.model, self.device)
        return compiled(sampler) if self.compiled else sampler

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (N, H, W, C) per seed."""
        return self.in_blocks(self._draw, seeds)

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images that :meth:`sample` draws with so many (N, H, W, C).

        One chain passes every rung: its first k steps are the chain of k steps.
        """
        rungs = sorted(set(ladder))
        draw = lambda filled: draw_ladder(self.sampler, filled, self.sampling, rungs)
        stacked = self.in_blocks(draw, seeds, len(rungs))  # (N, rungs, H, W, C)
        return {steps: stacked[:, i] for i, steps in enumerate(rungs)}

    def _draw(self, seeds: Sequence[int]) -> np.ndarray:
        return draw_images(self.sampler, seeds, self.sampling)[0]
