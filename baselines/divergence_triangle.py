"""Divergence triangle: a generator, an encoder and an energy, trained by the three divergences between their joint densities.

    Q(x, z) = q_data(x) q_phi(z | x)        the encoder on data,
    P(x, z) = N(z; 0, I) p_theta(x | z)     the generator,
    Pi(x, z)                                the energy,

    min over theta, phi   max over alpha   KL(Q || P) + KL(P || Pi) - KL(Q || Pi),

without a Markov chain: P stands in for samples of Pi. Pi has one of two forms, ``energy`` of the architecture:

* ``"joint"``: exp(f_alpha(x, z)) / Z (Han et al. 2020, whose numbers the paper's tables show),
* ``"image"``: exp(f_alpha(x)) / Z times q_phi(z | x) (Han et al. 2018).

References: Han, Nijkamp, Zhou, Pang, Zhu and Wu, "Joint Training of Variational Auto-Encoder and Latent Energy-Based Model", CVPR
2020, https://arxiv.org/abs/2006.06059; Han, Nijkamp, Fang, Hill, Zhu and Wu, "Divergence Triangle for Joint Training of Generator
Model, Energy-based Model, and Inference Model", CVPR 2019, https://arxiv.org/abs/1812.10907
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from baselines.backbones.dcgan import ConvEncoder, ConvGenerator
from baselines.system import Samples, Scores
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import normal
from vaebm.training.batches import to_uint8

FORMS = ("joint", "image")


@dataclass(frozen=True)
class DivergenceTriangleArchitecture:
    """``image_shape``: (H, W, C), H = W divisible by 8; ``latent``: length of z; ``width``: channels at half resolution, in all
    three networks; ``energy``: ``"joint"`` for f(x, z), ``"image"`` for f(x).
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    latent: int = 100
    width: int = 64
    energy: str = "joint"

    def __post_init__(self) -> None:
        height, width, _ = self.image_shape
        if height != width or height % 8 or height < 8:
            raise UserError(f"architecture.image_shape {self.image_shape}: needed H = W, divisible by 8")
        if min(self.latent, self.width) < 1:
            raise UserError("architecture: latent and width must be at least 1")
        if self.energy not in FORMS:
            raise UserError(f"architecture.energy {self.energy!r}: unknown.{did_you_mean(self.energy, FORMS)}")


def diagonal_normal_log_prob(z: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(z; mean, diag exp(2 log_sigma)) of vectors (N, d): (N,)."""
    standard = (z - mean) * (-log_sigma).exp()
    return (-0.5 * math.log(2 * math.pi) - log_sigma - 0.5 * standard.square()).sum(dim=1)


class Encoder(nn.Module):
    """q_phi(z | x) = N(mean(x), diag exp(2 log_sigma(x))), with log_sigma in (-4, 4)."""

    def __init__(self, channels: int, size: int, width: int, latent: int) -> None:
        super().__init__()
        self.net = ConvEncoder(channels, size, width, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> (N, latent), (N, latent)
        mean, raw = self.net(x).float().chunk(2, dim=1)
        # No term of the joint form holds the entropy of q: without a bound sigma could fall to 0 and log q with it.
        return mean, 4 * torch.tanh(raw / 4)


class Energy(nn.Module):
    """f_alpha = -E: (N, C, H, W), (N, latent) -> (N,); z is not looked at in the form ``"image"``.

    Every kernel, as a matrix, has largest singular value 1: f answers for differences of images that the generator can follow.
    """

    def __init__(self, architecture: DivergenceTriangleArchitecture) -> None:
        super().__init__()
        size, _, channels = architecture.image_shape
        width, hidden = architecture.width, 4 * architecture.width
        self.image = ConvEncoder(channels, size, width, hidden)
        for layer in self.image.layers:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)
        self.latent = None
        joint = architecture.energy == "joint"
        if joint:
            self.latent = nn.Sequential(
                spectral_norm(nn.Linear(architecture.latent, hidden)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Linear(hidden, hidden)),
            )
        self.head = nn.Sequential(
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(2 * hidden if joint else hidden, hidden)),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = self.image(x)
        if self.latent is not None:
            h = torch.cat([h, self.latent(z)], dim=1)
        return self.head(h).squeeze(1).float()


class DivergenceTriangle(nn.Module):
    """The three networks. Images are x in [-1, 1], (N, C, H, W); the generator gives the mean of p_theta(x | z)."""

    def __init__(self, architecture: DivergenceTriangleArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        size, _, channels = architecture.image_shape
        width, latent = architecture.width, architecture.latent
        self.generator = ConvGenerator(latent, channels, size, width, batch_norm=True)
        self.encoder = Encoder(channels, size, width, latent)
        self.energy = Energy(architecture)

    def f(self, x: Tensor) -> Tensor:
        """Return f(x, mean of q(z | x)), or f(x): (N,)."""
        return self.energy(x, self.encoder(x)[0])

    @property
    def q_is_in_pi(self) -> bool:
        """Whether Pi = exp(f(x)) q(z | x) / Z."""
        return self.architecture.energy == "image"

    def log_pi(self, x: Tensor, z: Tensor, log_q: Tensor) -> Tensor:
        """Return log Pi(x, z) + log Z (N,); ``log_q``: log q(z | x), which belongs to Pi in the form ``"image"``."""
        f = self.energy(x, z)
        return f + log_q if self.q_is_in_pi else f


@dataclass(frozen=True)
class LogDensities:
    """Log densities of Q, P and Pi at the same pairs (x, z), each (N,); log q_data and log Z may be left out of them."""

    q: Tensor
    p: Tensor
    pi: Tensor


def divergences(on_q: LogDensities, on_p: LogDensities) -> dict[str, Tensor]:
    """Estimate the three divergences, each (), from pairs of Q and pairs of P.

    Where log q_data and log Z are left out, the estimates are those of

        q_p:   KL(Q || P) + H(q_data),
        p_pi:  KL(P || Pi) - log Z,
        q_pi:  KL(Q || Pi) + H(q_data) - log Z,

    with H the entropy of data; :func:`triangle` is exact all the same, as these constants cancel.
    """
    return {
        "q_p": (on_q.q - on_q.p).mean(),
        "p_pi": (on_p.p - on_p.pi).mean(),
        "q_pi": (on_q.q - on_q.pi).mean(),
    }


def triangle(terms: dict[str, Tensor]) -> Tensor:
    """Return KL(Q || P) + KL(P || Pi) - KL(Q || Pi), (): generator and encoder go down it, the energy up."""
    return terms["q_p"] + terms["p_pi"] - terms["q_pi"]


@dataclass(frozen=True)
class DivergenceTriangleRecipe:
    """``temperature`` multiplies the standard deviation of z; 1 draws from the model."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise UserError(f"sampling.temperature {self.temperature}: needed a number in [0, 2]")


class DivergenceTriangleSystem(Scores, Samples):
    """A divergence triangle as a system under test: scores by the energy, samples by one pass of the generator."""

    kind = "divergence_triangle"
    Architecture, Network, Recipe = DivergenceTriangleArchitecture, DivergenceTriangle, DivergenceTriangleRecipe

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network that samples run through, by name."""
        return {"generator": self.network.generator}

    def describe_score(self) -> dict[str, Any]:
        joint = self.network.architecture.energy == "joint"
        return {
            "score": "f(x, z) = -E(x, z), z the mean of q(z | x)" if joint else "f(x) = -E(x)",
            "estimator": "unnormalised log density, x = 2 bytes / 255 - 1 without noise",
        }

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return f (n,)."""
        return self.network.f(2 * pixels / 255 - 1)

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the generator's mean at one z per seed, uint8 (n, H, W, C)."""
        z = normal(self.seed, seeds, "z", (self.network.architecture.latent,), self.device)
        return to_uint8((self.network.generator(self.settings.temperature * z) + 1) / 2)
