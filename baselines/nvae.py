"""NVAE as a system under test: samples by ancestral sampling, scores by the importance-weighted bound of log p(x).

Reference: Vahdat & Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020, https://arxiv.org/abs/2007.03898
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.common import batches, check_images, override
from baselines.system import gradient_norm
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.models import build_nvae
from vaebm.noise import normal
from vaebm.nvae import NVAE
from vaebm.nvae.likelihood import as_modelled, posterior_noise
from vaebm.nvae.readjust import readjust_batch_norm
from vaebm.nvae.regret import likelihood_regret
from vaebm.sampling import sample_in_blocks
from vaebm.training.batches import from_uint8, to_uint8


class NVAESystem:
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
        batch_size: int,
        seed: int,
    ) -> None:
        self.nvae = nvae.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.recipe, self.size, self.device, self.batch_size, self.seed = recipe, size, device, batch_size, seed
        config = nvae.config
        self.image_shape = (config.image_size, config.image_size, config.image_channels)
        self.fingerprint = {
            "kind": self.kind,
            "weights": weights_hash,
            "seed": seed,
            "importance_samples": recipe["importance_samples"],
        }
        bound = bound_name(recipe["importance_samples"], config.bits)
        self.protocol = {"score": "log p(x), nats", "estimator": bound}

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        batch_size: int = 100,
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

    @torch.no_grad()
    def score(self, images: np.ndarray) -> np.ndarray:
        """Return the bound on log p(x), float64 (N,), in nats, of uint8 images (N, H, W, C)."""
        check_images(images, self.image_shape)
        scores = [np.empty(0)]
        for part in batches(images, self.batch_size):
            scores.append(log_p(self.nvae, part, self.recipe["importance_samples"], self.seed))
        return np.concatenate(scores)

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of d score / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        check_images(images, self.image_shape)
        return gradient_norms(self.log_density, images, self.nvae, self.batch_size, self.seed)

    def log_density(self, x: Tensor, images: np.ndarray) -> Tensor:
        """Return the bound on log p(x) (n,), differentiable in x (n, C, H, W); ``images`` are the same as uint8 and key the noise."""
        return differentiable_bound(self.nvae, x, images, self.recipe["importance_samples"], self.seed)

    def likelihood_regret(self, images: np.ndarray, steps: int) -> np.ndarray:
        """Return how far the ELBO of each uint8 image (N, H, W, C) rises when its posterior is fitted to it, float64 (N,) in nats."""
        check_images(images, self.image_shape)
        return regrets(self.nvae, images, steps, self.batch_size, self.seed)

    @cached_property
    def sampler(self) -> NVAE:
        """The model that samples. Scores keep the statistics of training: the posterior runs through the same decoder."""
        if not self.recipe["readjust_bn"]:
            return self.nvae
        sampler = copy.deepcopy(self.nvae)
        readjust_batch_norm(sampler, self.recipe["temperature"], self.recipe["readjust_bn"], seed=self.seed)
        return sampler

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (N, H, W, C) per seed."""
        return sample_in_blocks(self._draw, seeds, self.image_shape)

    @torch.no_grad()
    def _draw(self, seeds: Sequence[int]) -> np.ndarray:
        draw = lambda i, shape: normal(self.seed, seeds, f"start.{i}", shape, self.device)
        eps = [draw(i, shape) for i, shape in enumerate(self.nvae.latent_shapes, start=1)]
        decoder = self.sampler.decode(eps, self.recipe["temperature"]).distribution
        if self.recipe["output"] == "mean":
            return to_uint8(decoder.mean)
        return to_uint8(decoder.sample(draw(0, decoder.noise_shape)))


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
    log_density: Callable[[Tensor, np.ndarray], Tensor], images: np.ndarray, nvae: NVAE, batch_size: int, seed: int
) -> np.ndarray:
    """Return the Euclidean norm of the gradient in x in [0, 1], float64 (N,), of uint8 images (N, H, W, C)."""
    found = [np.empty(0)]
    for images_of_batch in batches(images, batch_size):
        part = as_modelled(nvae, images_of_batch, seed)
        x = nvae.quantise(unit_images(part, next(nvae.parameters()).device))
        found.append(gradient_norm(log_density, x, part))
    return np.concatenate(found)


def regrets(nvae: NVAE, images: np.ndarray, steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Return :func:`vaebm.nvae.regret.likelihood_regret` of uint8 images (N, H, W, C), float64 (N,)."""
    found = [likelihood_regret(nvae, part, steps, seed) for part in batches(images, batch_size)]
    return np.concatenate([np.empty(0), *found])


def unit_images(images: np.ndarray, device: torch.device | str) -> Tensor:
    """Map uint8 (N, H, W, C) to float (N, C, H, W) in [0, 1]."""
    return from_uint8(images, device).contiguous(memory_format=torch.channels_last)
