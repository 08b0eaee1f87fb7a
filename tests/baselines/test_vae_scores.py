"""What the NVAE and VAEBM adapters answer beside their score: the slope of log p, and the regret of the posterior."""

from typing import Any

import numpy as np
import pytest
import torch

from baselines.nvae import NVAESystem
from baselines.vaebm import VAEBMSystem
from vaebm.energy import EnergyConfig, EnergyNetwork
from vaebm.errors import UserError
from vaebm.model import VAEBM
from vaebm.nvae import NVAE, NVAEConfig
from vaebm.nvae.regret import likelihood_regret

RECIPE = {
    **{"importance_samples": 2, "temperature": 1.0, "readjust_bn": 0, "steps": 1, "step_size": 1e-4},
    **{"target": "paper", "output": "mean", "postprocess": "clamp", "metropolis": False},
}
IMAGES = np.random.default_rng(0).integers(60, 190, (5, 8, 8, 3)).astype(np.uint8)


def nvae(**changes: Any) -> NVAE:
    torch.manual_seed(0)
    small = {"channels_enc": 4, "channels_dec": 4, "latents_per_group": 2, "groups_per_scale": (1, 2)}
    cells = {"preprocess_cells": 1, "postprocess_cells": 1, "cells_per_group_enc": 1, "cells_per_group_dec": 1}
    return NVAE(NVAEConfig(**{"image_size": 8, **small, **cells, **changes}))


def system(kind: str, batch_size: int = 100, seed: int = 0, **changes: Any) -> Any:
    about: dict[str, Any] = {
        "size": "mini",
        "weights_hash": "w",
        "device": "cpu",
        "batch_size": batch_size,
        "seed": seed,
    }
    if kind == "nvae":
        return NVAESystem(nvae(**changes), RECIPE, **about)
    torch.manual_seed(1)
    energy = EnergyNetwork(EnergyConfig(channels=4, blocks=((1, True), (2, False))))
    return VAEBMSystem(VAEBM(nvae(**changes), energy), RECIPE, **about)


@pytest.mark.parametrize("kind", ["nvae", "vaebm"])
def test_the_density_that_is_differentiated_is_the_score(kind: str) -> None:
    tested = system(kind)
    x = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        np.testing.assert_allclose(tested.log_density(x, IMAGES), tested.score(IMAGES), rtol=1e-5)


@pytest.mark.parametrize("kind", ["nvae", "vaebm"])
def test_the_norm_is_that_of_the_slope_along_the_gradient(kind: str) -> None:
    """(f(x + h g) - f(x - h g)) / 2h = ||gradient|| for g = gradient / ||gradient||."""
    tested = system(kind)
    norms = tested.score_gradient_norm(IMAGES)
    x = (torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()).float() / 255).requires_grad_(True)
    (gradient,) = torch.autograd.grad(tested.log_density(x, IMAGES).sum(), x)
    direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        up, down = (tested.log_density(x + h * direction, IMAGES) for h in (0.01, -0.01))
    np.testing.assert_allclose(norms, ((up - down) / 0.02).numpy(), rtol=5e-3)


@pytest.mark.parametrize("kind", ["nvae", "vaebm"])
def test_batch_size_changes_nothing_and_the_seed_does(kind: str) -> None:
    whole, split, other = system(kind), system(kind, batch_size=2), system(kind, seed=1)
    np.testing.assert_allclose(split.score_gradient_norm(IMAGES), whole.score_gradient_norm(IMAGES), rtol=1e-4)
    np.testing.assert_allclose(split.likelihood_regret(IMAGES, 2), whole.likelihood_regret(IMAGES, 2), rtol=1e-3)
    assert (other.score_gradient_norm(IMAGES) != whole.score_gradient_norm(IMAGES)).all()
    assert (other.likelihood_regret(IMAGES, 2) != whole.likelihood_regret(IMAGES, 2)).all()
    assert whole.likelihood_regret(IMAGES[:0], 2).shape == whole.score_gradient_norm(IMAGES[:0]).shape == (0,)


def test_the_regret_of_a_vaebm_is_that_of_its_nvae() -> None:
    """E(x) is the same for every posterior."""
    expected = likelihood_regret(nvae().eval().requires_grad_(False), IMAGES, 3)
    for kind in ("nvae", "vaebm"):
        np.testing.assert_allclose(system(kind).likelihood_regret(IMAGES, 3), expected, rtol=1e-3)


def test_a_model_of_fewer_bits_has_a_gradient_all_the_same() -> None:
    """Rounding to bits is flat; the gradient is that of the density between the levels."""
    assert (system("nvae", bits=5).score_gradient_norm(IMAGES) > 1).all()


@pytest.mark.parametrize("kind", ["nvae", "vaebm"])
def test_images_of_another_shape_are_refused(kind: str) -> None:
    for ask in (system(kind).score_gradient_norm, lambda x: system(kind).likelihood_regret(x, 1)):
        with pytest.raises((UserError, ValueError)):
            ask(IMAGES[:, :4])
