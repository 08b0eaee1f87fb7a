"""NVAE as a system under test: samples by ancestral sampling, scores by the importance-weighted bound of log p(x).

Reference: Vahdat & Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020, https://arxiv.org/abs/2007.03898
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from baselines.common import Adapter, changed, override
from baselines.numerics import compiled
from baselines.system import gradient_norm
from vaebm.arithmetic import exact_arithmetic
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.models import build_nvae
from vaebm.noise import normal
from vaebm.nvae import NVAE
from vaebm.nvae.likelihood import as_modelled, posterior_noise
from vaebm.nvae.readjust import readjust_batch_norm
from vaebm.nvae.regret import likelihood_regret
from vaebm.training.batches import from_uint8, to_uint8


class NVAESystem(Adapter):
    """An NVAE with the recipe of its card.

    Options (``from_checkpoint``): ``importance_samples`` K of the bound, ``temperature`` of the prior, ``output`` ("mean" or "sample"),
    ``readjust_bn``: batches of samples at that temperature from which the decoder's BatchNorm statistics are gathered anew, for sampling
    only; 0 leaves them.
    """

    kind = "nvae"
    options = ("importance_samples", "temperature", "output", "readjust_bn")

    def __init__(
        self,
        nvae: NVAE,
        recipe: dict[str, Any],
        *,
        size: str,
        weights_hash: str,
        device: str,
        batch_size: int | str,
        seed: int,
    ) -> None:
        self.nvae = nvae.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.size, self.weights_hash, self.seed = size, weights_hash, seed
        self.device, self.batch_size = device, batch_size
        self.image_shape = image_shape(nvae)
        self.use(recipe)

    def use(self, recipe: dict[str, Any]) -> None:
        """Score and sample by ``recipe`` from now on."""
        self.recipe = recipe
        self.fingerprint = {
            "kind": self.kind,
            "weights": self.weights_hash,
            "seed": self.seed,
            "importance_samples": recipe["importance_samples"],
            **self.arithmetic_facts,
        }
        bound = bound_name(recipe["importance_samples"], self.nvae.config.bits)
        self.protocol = {"score": "log p(x), nats", "estimator": bound}

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        batch_size: int | str = 100,
        seed: int = 0,
        origin: str = "checkpoint",
        **options: Any,
    ) -> "NVAESystem":
        """Build the system that a checkpoint describes.

        Raises:
            UserError: an option is unknown or out of range, or the weights do not fit the card.
        """
        card = checkpoint.card
        return cls(
            build_nvae(checkpoint, origin),
            override({"importance_samples": 1, "readjust_bn": 0, **card["sampling"]}, options, origin),
            size=card["size"],
            weights_hash=card["sha256"],
            device=device,
            batch_size=batch_size,
            seed=seed,
        )

    def with_recipe(self, **changes: Any) -> Self:
        """Return a system with the same network, not a copy of it, and some entries of the recipe changed.

        Raises:
            UserError: an entry is unknown or out of range.
        """
        other = copy.copy(self)
        with changed(self.kind, changes):
            other.use(override(self.recipe, changes, self.kind))
        if changes.keys() & {"readjust_bn", "temperature"}:
            other.__dict__.pop("sampler", None)  # made for another temperature
        return other

    @property
    def whole(self) -> nn.Module:
        """See :class:`~baselines.common.Adapter`."""
        return self.nvae

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that samples run through, by name."""
        return {"nvae": self.sampler}

    @torch.no_grad()
    def score(self, images: np.ndarray) -> np.ndarray:
        """Return the bound on log p(x), float64 (N,), in nats, of uint8 images (N, H, W, C)."""
        bound = lambda part: log_p(self.nvae, part, self.recipe["importance_samples"], self.seed)
        return np.concatenate([np.empty(0), *self.in_batches(bound, images)])

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of d score / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        norms = lambda part: gradient_norms(self.log_density, part, self.nvae, self.seed)
        return np.concatenate([np.empty(0), *self.in_batches(norms, images)])

    def log_density(self, x: Tensor, images: np.ndarray) -> Tensor:
        """Return the bound on log p(x) (n,), differentiable in x (n, C, H, W); ``images`` are the same as uint8 and key the noise."""
        return differentiable_bound(self.nvae, x, images, self.recipe["importance_samples"], self.seed)

    def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Return how far the ELBO of each uint8 image (N, H, W, C) rises when its posterior is fitted to it, float64 (N,) in nats."""
        regrets = self.in_batches(lambda part: likelihood_regret(self.nvae, part, steps, self.seed), images)
        return np.concatenate([np.empty(0), *regrets])

    @cached_property
    def sampler(self) -> NVAE:
        """The model that samples. Scores keep the statistics of training: the posterior runs through the same decoder."""
        if not self.recipe["readjust_bn"]:
            return self.nvae
        sampler = copy.deepcopy(self.nvae)
        # In float32 whoever asks for it first, and in whatever arithmetic.
        with torch.autocast(torch.device(self.device).type, enabled=False), exact_arithmetic():
            readjust_batch_norm(sampler, self.recipe["temperature"], self.recipe["readjust_bn"], seed=self.seed)
        return compiled(sampler) if self.compiled else sampler

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (N, H, W, C) per seed."""
        return self.in_blocks(self._draw, seeds)

    @torch.no_grad()
    def _draw(self, seeds: Sequence[int]) -> np.ndarray:
        draw = lambda i, shape: normal(self.seed, seeds, f"start.{i}", shape, self.device)
        eps = [draw(i, shape) for i, shape in enumerate(self.nvae.latent_shapes, start=1)]
        decoder = self.sampler.decode(eps, self.recipe["temperature"]).distribution
        if self.recipe["output"] == "mean":
            return to_uint8(decoder.mean)
        return to_uint8(decoder.sample(draw(0, decoder.noise_shape)))


def image_shape(nvae: NVAE) -> tuple[int, int, int]:
    """Return (H, W, C) of its images."""
    config = nvae.config
    return config.image_size, config.image_size, config.image_channels


def bound_name(k: int, bits: int = 8) -> str:
    """Name the estimator for tables: ``k`` importance samples, of images that the model sees with ``bits`` bits."""
    bound = "ELBO, 1 sample" if k == 1 else f"importance-weighted bound, K = {k}"
    return bound if bits == 8 else f"{bound}, {bits}-bit pixels"


def log_p(nvae: NVAE, images: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the K-sample bound, float64 (N,). Posterior noise is keyed by the bytes of the image: a score depends on its image alone."""
    part = as_modelled(nvae, images, seed)
    x = unit_images(part, next(nvae.parameters()).device)
    return nvae.log_prob_bound(x, posterior_noise(nvae, part, k, seed)).cpu().numpy()


def differentiable_bound(nvae: NVAE, x: Tensor, images: np.ndarray, k: int, seed: int) -> Tensor:
    """Return the K-sample bound (n,) of x (n, C, H, W), differentiable in x: the pixels count as continuous whatever the model's bits.

    ``images`` are the same as uint8: they key the noise.
    """
    log_weights = []
    for eps in posterior_noise(nvae, images, k, seed):
        out = nvae.encode(x, eps)
        log_weights.append(out.distribution.log_prob(x).double() + out.log_p.double() - out.log_q.double())
    return torch.logsumexp(torch.stack(log_weights), 0) - math.log(k)


def gradient_norms(
    log_density: Callable[[Tensor, np.ndarray], Tensor], images: np.ndarray, nvae: NVAE, seed: int
) -> np.ndarray:
    """Return the Euclidean norm of the gradient in x in [0, 1], float64 (n,), of one batch of uint8 images (n, H, W, C)."""
    part = as_modelled(nvae, images, seed)
    x = nvae.quantise(unit_images(part, next(nvae.parameters()).device))
    return gradient_norm(log_density, x, part)


def unit_images(images: np.ndarray, device: torch.device | str) -> Tensor:
    """Map uint8 (N, H, W, C) to float (N, C, H, W) in [0, 1]."""
    return from_uint8(images, device).contiguous(memory_format=torch.channels_last)
