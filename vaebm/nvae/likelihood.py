"""How well an NVAE predicts images: ELBO, importance-weighted bound, KL per group, bits per dimension.

The posterior's noise is keyed by the bytes of the image, so an image's numbers depend on the seed and on nothing else: not on the batch,
the order, or the other images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vaebm.data import binarise
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal, uniform
from vaebm.nvae.model import NVAE, NVAEConfig
from vaebm.training.batches import from_uint8

DENSITY = "density of 2x - 1 (the released code's convention; not comparable with discrete models)"
GREY_LEVELS = "density in grey levels"
PROBABILITY = {
    "logistic_mixture": "probability of the pixel values",
    "bernoulli": "probability of the binarised pixels",
}


@dataclass(frozen=True)
class Likelihood:
    """Estimates per image, in nats, float64.

    Attributes:
        log_px: log p(x | z) at one posterior sample, (N,).
        kl_per_group: KL(q || p) per group, coarsest first, (N, groups): in closed form given the groups above; with flows log q - log p
            at the same sample.
        bound: the importance-weighted bound, (N,).
        importance_samples: K of ``bound``.
    """

    log_px: np.ndarray
    kl_per_group: np.ndarray
    bound: np.ndarray
    importance_samples: int

    @property
    def elbo(self) -> np.ndarray:
        """log p(x | z) - sum of KL, (N,): unbiased for the ELBO."""
        return self.log_px - self.kl_per_group.sum(1)


@torch.no_grad()
def estimate(
    nvae: NVAE,
    images: np.ndarray,
    importance_samples: int = 1,
    seed: int = 0,
    batch_size: int = 100,
    *,
    progress: bool = False,
) -> Likelihood:
    """Estimate ELBO and importance-weighted bound of every image.

    Images are brought to the model's bits (:meth:`NVAE.quantise`); for a Bernoulli model they are binarised, each pixel with its grey
    value as the probability of white, by noise keyed by the image as well.

    Args:
        nvae: in eval mode.
        images: uint8 (N, S, S, C).
        importance_samples: K >= 1; the ELBO always uses the first of them only.
        seed: of the posterior's noise.
        batch_size: images at a time; decides nothing but memory and speed.
        progress: show a bar on stderr.

    Raises:
        UserError: other images than the model's, or a number below 1.

    Reference: Burda et al., "Importance Weighted Autoencoders", ICLR 2016.
    """
    config = nvae.config
    needed = (config.image_size, config.image_size, config.image_channels)
    if images.dtype != np.uint8 or images.shape[1:] != needed or len(images) == 0:
        raise UserError(
            f"images: found {images.dtype} {images.shape}, needed at least one of uint8 (N, {', '.join(map(str, needed))})"
        )
    for name, value in (("importance_samples", importance_samples), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} {value}: needed at least 1")
    log_px, kl, bound = [], [], []
    for start in tqdm(range(0, len(images), batch_size), unit="batch", disable=not progress):
        part = images[start : start + batch_size]
        part = as_modelled(nvae, part, seed)
        x = from_uint8(part, next(nvae.parameters()).device)
        terms = nvae.elbo(x, next(posterior_noise(nvae, part, 1, seed)))
        log_px.append(terms[0].double().cpu())
        kl.append(terms[1].double().cpu())
        bound.append(nvae.log_prob_bound(x, posterior_noise(nvae, part, importance_samples, seed)).cpu())
    return Likelihood(torch.cat(log_px).numpy(), torch.cat(kl).numpy(), torch.cat(bound).numpy(), importance_samples)


def as_modelled(nvae: NVAE, images: np.ndarray, seed: int) -> np.ndarray:
    """Return uint8 images (N, H, W, C) as the likelihood takes them: for a Bernoulli binarised by noise keyed by the image."""
    if nvae.config.likelihood != "bernoulli":
        return images
    return binarise(images, uniform(seed, content_keys(images), "binarise", images.shape[1:]).numpy())


def posterior_noise(nvae: NVAE, images: np.ndarray, samples: int, seed: int) -> Iterator[list[Tensor]]:
    """Yield ``samples`` lists of posterior noise, one tensor (N, C, H, W) per group, keyed by the bytes of the uint8 images."""
    keys, device = content_keys(images), next(nvae.parameters()).device
    for sample in range(samples):
        yield [
            normal(seed, keys, f"posterior.{sample}.{group}", shape, device)
            for group, shape in enumerate(nvae.latent_shapes)
        ]


def dimensions(config: NVAEConfig) -> int:
    """Return D, the number of values that the likelihood models: C (S - 2 border)^2."""
    return config.image_channels * (config.image_size - 2 * config.border) ** 2


def bits_per_dim(log_p: float, config: NVAEConfig) -> dict[str, float]:
    """Return a log-likelihood in nats as bits per dimension, by what it is a likelihood of.

    * logistic mixture, Bernoulli: -log P(x) / (D ln 2), of a probability, so comparable with every model of the same discrete data;
    * Gaussian: two densities. That of y = 2x - 1, -log p(y) / (D ln 2), is what the released code prints. That in grey levels
      v = x (2^bits - 1) is -(log p(y) + D log(2 / (2^bits - 1))) / (D ln 2), by the change of variables. Its unit is that of discrete
      models, but it is still a density at the data's values and no bound on a probability.

    At 8 bits a logistic mixture counts the value 254 with the upper tail as the released code does, which makes its probabilities sum to
    slightly more than 1 (:class:`~vaebm.nvae.decoders.LogisticMixtureDecoder`).

    Args:
        log_p: an ELBO or bound in nats, as :func:`estimate` returns them.
        config: the model's; the border is not counted.
    """
    d = dimensions(config)
    as_bits = lambda nats: -nats / (d * math.log(2))
    if config.likelihood == "gaussian":
        grey = d * math.log(2 / (2**config.bits - 1))
        return {DENSITY: as_bits(log_p), GREY_LEVELS: as_bits(log_p + grey)}
    return {PROBABILITY[config.likelihood]: as_bits(log_p)}


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of (N,) and its standard error, std / sqrt(N) (nan for one value)."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
