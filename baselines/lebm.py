"""LEBM: a generator whose latent vector has an energy-based prior.

    p(z) = exp(f(z)) N(z; 0, I) / Z,    p(x | z) = N(x; g(z), sigma^2 I),    x = bytes / 127.5 - 1 in [-1, 1],

with f a small network on vectors and g a generator. Both the prior and the posterior p(z | x) are sampled by short Langevin
chains from N(0, I); no encoder is learned. The table calls it "VAE with EBM prior".

Reference: Pang, Han, Nijkamp, Zhu and Wu, "Learning Latent Space Energy-Based Prior Model", NeurIPS 2020,
https://arxiv.org/abs/2006.08205
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.backbones.dcgan import ConvGenerator
from baselines.igebm import langevin
from baselines.system import Scores, StepSamples
from vaebm.errors import UserError
from vaebm.noise import normal
from vaebm.sampling import blocks
from vaebm.training.batches import to_uint8

START = "z_0"  # what the noise that a chain starts from is for; its steps are numbered


@dataclass(frozen=True)
class LEBMArchitecture:
    """``image_shape``: (S, S, C), S divisible by 8; ``latent``: length of z; ``width``: of the generator, which has 4w, 2w and w
    channels; ``prior_width``: of the two hidden layers of f; ``sigma``: standard deviation of p(x | z). Published: 100, 128, 200, 0.3."""

    image_shape: tuple[int, int, int] = (32, 32, 3)
    latent: int = 100
    width: int = 128
    prior_width: int = 200
    sigma: float = 0.3

    def __post_init__(self) -> None:
        height, width, _ = self.image_shape
        if height != width or height % 8:
            raise UserError(f"architecture: {height}x{width} images, needed squares with a side divisible by 8")
        if min(self.latent, self.width, self.prior_width) < 1 or self.sigma <= 0:
            raise UserError("architecture: latent, width and prior_width must be at least 1, and sigma positive")


class LEBM(nn.Module):
    """f, ``prior``: (n, latent) -> (n, 1), and g, ``generator``: (n, latent) -> (n, C, S, S) in (-1, 1)."""

    def __init__(self, architecture: LEBMArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        latent, hidden = architecture.latent, architecture.prior_width
        self.prior = nn.Sequential(
            nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        side, _, channels = architecture.image_shape
        self.generator = ConvGenerator(latent, channels, side, architecture.width)

    def tilt(self, z: Tensor) -> Tensor:
        """Return f(z) (n,): what the prior is tilted by."""
        with torch.autocast(
            z.device.type, enabled=False
        ):  # half precision would lose the small differences between tilts
            return self.prior(z.float()).squeeze(1)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return f(z) + log N(z; 0, I) (n,): log p(z) + log Z."""
        return self.tilt(z) + normal_log_prob(z, 1.0)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log N(x; g(z), sigma^2 I) in nats (n,) of x (n, C, S, S)."""
        return normal_log_prob(x - self.generator(z), self.architecture.sigma)


def normal_log_prob(difference: Tensor, sigma: float) -> Tensor:
    """log N(difference; 0, sigma^2 I), summed over all but the first axis: (n,)."""
    dimensions = difference[0].numel()
    squares = difference.square().flatten(1).sum(dim=1)
    return -squares / (2 * sigma**2) - dimensions * (math.log(sigma) + 0.5 * math.log(2 * math.pi))


def chain(
    log_density: Callable[[Tensor], Tensor], z: Tensor, noise: Callable[[int], Tensor], steps: int, step_size: float
) -> Tensor:
    """Run z <- z + s^2 / 2 d log p / dz + s n_k for ``steps`` steps of size s; return z detached. s -> 0 samples from p."""
    energy = lambda z: -log_density(z)
    return langevin(energy, z, noise, steps=steps, step_size=step_size**2 / 2, noise_scale=step_size)


@dataclass(frozen=True)
class LEBMRecipe:
    """Steps of the chains on z and their sizes s; see :func:`chain`. Posterior chains decide scores, prior chains samples."""

    prior_steps: int = 60
    prior_step_size: float = 0.4
    posterior_steps: int = 20
    posterior_step_size: float = 0.1

    def __post_init__(self) -> None:
        if min(self.prior_steps, self.posterior_steps) < 0 or min(self.prior_step_size, self.posterior_step_size) <= 0:
            raise UserError(f"chains {asdict(self)}: step sizes must be positive, and steps not negative")

    def prior_chain(self, model: LEBM, z: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """Move z (n, latent) towards p(z)."""
        return chain(model.log_prior, z, noise, self.prior_steps, self.prior_step_size)

    def posterior_chain(self, model: LEBM, x: Tensor, z: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
        """Move z (n, latent) towards p(z | x) for x (n, C, S, S)."""
        log_joint = lambda z: model.log_likelihood(x, z) + model.log_prior(z)
        return chain(log_joint, z, noise, self.posterior_steps, self.posterior_step_size)


def centred(pixels: Tensor) -> Tensor:
    """x = bytes / 127.5 - 1."""
    return pixels / 127.5 - 1


class LEBMSystem(Scores, StepSamples):
    """LEBM as a system under test: scores by log p(x, z) up to log Z at the end z of a posterior chain, samples by g at the
    end of a prior chain.

    The chain of a score is keyed by the bytes of the image. The gradient of a score in x holds its z fixed.
    """

    kind = "lebm"
    chain = "prior"
    gradient_note = "z of the posterior chain held"
    Architecture, Network, Recipe = LEBMArchitecture, LEBM, LEBMRecipe
    score_options = ("posterior_steps", "posterior_step_size")

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that samples run through, by name."""
        return {"prior": self.network.prior, "generator": self.network.generator}

    def describe_score(self) -> dict[str, Any]:
        recipe = self.settings
        return {
            "score": "log p(x, z), nats, not normalised",
            "estimator": f"z: end of {recipe.posterior_steps} Langevin steps of size {recipe.posterior_step_size:g} towards p(z | x) "
            f"from N(0, I); p(x | z) with sigma {self.network.architecture.sigma:g} on x = bytes / 127.5 - 1",
        }

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return log p(x | z) + f(z) + log N(z; 0, I) (n,)."""
        return sum(self._terms(pixels, keys).values())  # type: ignore[return-value]

    @torch.no_grad()
    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return log p(x | z) and log p(z) + log Z, each float64 (N,), of uint8 images (N, H, W, C); the score is their sum."""
        parts = self.in_batches(lambda part: self._terms(*self.keyed(part)), images)
        none = [np.empty(0)]
        return {
            name: np.concatenate(none + [part[name].cpu().numpy() for part in parts])
            for name in ("log_likelihood", "log_prior")
        }

    def _terms(self, pixels: Tensor, keys: Sequence[int]) -> dict[str, Tensor]:
        x = centred(pixels)
        z = self._posterior(x.detach(), keys)
        model = self.network
        return {"log_likelihood": model.log_likelihood(x, z).double(), "log_prior": model.log_prior(z).double()}

    def _posterior(self, x: Tensor, keys: Sequence[int]) -> Tensor:
        """Return where the posterior chains of x (n, C, S, S) end, (n, latent).

        They run in blocks of one size, as sampling does: another size rounds otherwise, and a chain enlarges the difference.
        """
        ends = [x.new_empty(0, self.network.architecture.latent)]
        for rows, n in blocks(range(len(x))):
            noise = self._noise("posterior", [keys[row] for row in rows])
            ends.append(self.settings.posterior_chain(self.network, x[rows], noise(START), noise)[:n])
        return torch.cat(ends)

    def _noise(self, chains: str, keys: Sequence[int]) -> Callable[[object], Tensor]:
        shape = (self.network.architecture.latent,)
        return lambda k: normal(self.seed, keys, f"{chains}.{k}", shape, self.device)

    @property
    def total_steps(self) -> int:
        """Steps of the prior chain behind an image."""
        return self.settings.prior_steps

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return z from N(0, I), (n, latent)."""
        return self._noise(self.chain, seeds)(START)

    def advance(self, z: Tensor, noise: Callable[[int], Tensor], steps: int) -> Tensor:
        """Make ``steps`` steps of the prior chain."""
        return replace(self.settings, prior_steps=steps).prior_chain(self.network, z, noise)

    def show(self, z: Tensor) -> np.ndarray:
        """Return g(z) as uint8 (n, H, W, C)."""
        return to_uint8((self.network.generator(z) + 1) / 2)
