"""Likelihood regret: against a linear VAE of one dimension, whose optimum is known, and on a small NVAE."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tiny import lively_nvae, tiny_images
from torch import nn

from vaebm.errors import UserError
from vaebm.nvae import NVAE
from vaebm.nvae.distributions import Normal
from vaebm.nvae.likelihood import posterior_noise
from vaebm.nvae.regret import likelihood_regret, shifted_posteriors

A, S = 1.5, 0.4  # p(x | z) = N(x; A z, S^2), p(z) = N(0, 1)


class Linear(nn.Module):
    """A VAE with one latent number, one pixel and a given posterior N(mean, exp(log_sigma)^2), in the shape of an NVAE."""

    config = SimpleNamespace(likelihood="gaussian")
    latent_shapes = ((1, 1, 1),)

    def __init__(self, mean: float = 0.0, log_sigma: float = 0.0) -> None:
        super().__init__()
        self.enc_sampler = nn.ModuleList([nn.Conv2d(1, 2, 1)])
        with torch.no_grad():
            self.enc_sampler[0].weight.zero_()
            self.enc_sampler[0].bias.copy_(torch.tensor([mean, log_sigma]))
        self.requires_grad_(False)

    def quantise(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _encode_features(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _draw_posterior(self, encoded: torch.Tensor, eps: Any) -> Any:
        mu, log_sigma = self.enc_sampler[0](encoded).chunk(2, dim=1)
        posterior = Normal(mu, log_sigma.exp())
        decoder = Normal(A * posterior.transform(eps[0]), torch.tensor(S))
        kl = posterior.kl(Normal(torch.tensor(0.0), torch.tensor(1.0))).flatten(1)
        log_prob = lambda x: decoder.log_prob(x).flatten(1).sum(1)
        return SimpleNamespace(distribution=SimpleNamespace(log_prob=log_prob), kl_per_group=kl)


def elbo(mean: float, log_sigma: float, x: float, eps: float) -> float:
    """Written out once more: log N(x; A z, S^2) - KL(N(mean, sigma^2) || N(0, 1)) at z = mean + sigma eps."""
    sigma = math.exp(log_sigma)
    residual = (x - A * (mean + sigma * eps)) / S
    kl = (mean**2 + sigma**2 - 1) / 2 - log_sigma
    return -(residual**2) / 2 - math.log(S * math.sqrt(2 * math.pi)) - kl


def problem(values: list[int], seed: int = 0) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Images of one pixel, and (x, eps) of each."""
    images = np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    eps = next(posterior_noise(Linear(), images, 1, seed))[0].flatten().tolist()  # type: ignore[arg-type]
    return images, [(value / 255, e) for value, e in zip(values, eps, strict=True)]


def test_a_linear_vae_reaches_the_known_optimum() -> None:
    images, points = problem([0, 60, 128, 255])
    found = likelihood_regret(Linear(1.0, 0.5), images, 800)  # type: ignore[arg-type]
    for regret, (x, eps) in zip(found, points, strict=True):
        best = minimize(lambda q, x=x, eps=eps: -elbo(*q, x, eps), [0.0, 0.0], method="Nelder-Mead", tol=1e-9)
        assert regret == pytest.approx(-best.fun - elbo(1.0, 0.5, x, eps), abs=2e-3)
        # Stationary: mean = A r / S^2 and sigma^2 - eps mean sigma - 1 = 0, r the residual.
        mean, sigma = best.x[0], math.exp(best.x[1])
        assert mean == pytest.approx(A * (x - A * (mean + sigma * eps)) / S**2, abs=1e-3)
        assert sigma == pytest.approx((eps * mean + math.sqrt((eps * mean) ** 2 + 4)) / 2, abs=1e-3)


def test_an_optimal_posterior_leaves_nothing_to_regret() -> None:
    images, [(x, eps)] = problem([200])
    best = minimize(lambda q: -elbo(*q, x, eps), [0.0, 0.0], method="Nelder-Mead", tol=1e-12)
    assert likelihood_regret(Linear(*best.x), images, 30)[0] == pytest.approx(0, abs=1e-4)  # type: ignore[arg-type]
    assert likelihood_regret(Linear(best.x[0] + 1, best.x[1]), images, 30)[0] > 1  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nvae() -> NVAE:
    return lively_nvae().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return tiny_images(4)


def test_more_steps_never_find_less(nvae: NVAE, images: np.ndarray) -> None:
    one, three, eight = (likelihood_regret(nvae, images, steps) for steps in (1, 3, 8))
    assert one.dtype == np.float64
    assert (one >= 0).all()
    assert (three >= one).all()
    assert (eight >= three).all()
    assert eight.sum() > three.sum() > one.sum() > 0


def test_an_images_regret_does_not_depend_on_the_others(nvae: NVAE, images: np.ndarray) -> None:
    together = likelihood_regret(nvae, images, 4)
    alone = np.concatenate([likelihood_regret(nvae, images[i : i + 1], 4) for i in range(len(images))])
    np.testing.assert_allclose(alone, together, rtol=1e-4)
    np.testing.assert_allclose(likelihood_regret(nvae, images[::-1], 4)[::-1], together, rtol=1e-4)


def test_seed_and_learning_rate_take_effect_and_the_model_is_left_as_it_was(nvae: NVAE, images: np.ndarray) -> None:
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    eps = next(posterior_noise(nvae, images, 1, 0))
    before = nvae.elbo(x, eps)[0]
    base = likelihood_regret(nvae, images, 2)
    assert (base != likelihood_regret(nvae, images, 2, seed=1)).all()
    assert (base != likelihood_regret(nvae, images, 2, learning_rate=0.01)).all()
    assert torch.equal(nvae.elbo(x, eps)[0], before)
    with pytest.raises(RuntimeError, match="stop"), shifted_posteriors(nvae, [torch.zeros(())] * 3):
        raise RuntimeError("stop")
    assert not any(layer._forward_hooks for layer in nvae.enc_sampler)
    with pytest.raises(UserError, match="steps of likelihood regret 0"):
        likelihood_regret(nvae, images, 0)


def test_a_shift_moves_mean_and_log_sigma_of_every_group(nvae: NVAE, images: np.ndarray) -> None:
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
    still = [torch.zeros(4, *shape) for shape in nvae.latent_shapes]
    plain = nvae.encode(x, still).z
    for group, (c, *_) in enumerate(nvae.latent_shapes):
        shifts = [torch.zeros(4, 2 * c, *shape[1:]) for shape in nvae.latent_shapes]
        shifts[group][:, :c] = 0.5
        with shifted_posteriors(nvae, shifts):
            moved = nvae.encode(x, still).z
        changed = [not torch.equal(a, b) for a, b in zip(plain, moved, strict=True)]
        assert changed.index(True) == group
        assert ((moved[group] - plain[group]) > 0).all()
        shifts = [torch.zeros(4, 2 * c, *shape[1:]) for shape in nvae.latent_shapes]
        shifts[group][:, c:] = 0.5
        with shifted_posteriors(nvae, shifts):
            assert torch.equal(nvae.encode(x, still).z[group], plain[group])  # without noise sigma does not matter
            noise = [torch.ones(4, *shape) for shape in nvae.latent_shapes]
            wider = nvae.encode(x, noise).z[group]
        assert (wider > nvae.encode(x, noise).z[group]).all()
