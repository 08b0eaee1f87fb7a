"""ELBO, importance-weighted bound and bits per dimension: against quadrature, closed forms and brute sums; and the command."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images
from torch import Tensor

import vaebm.checkpoints
from vaebm.__main__ import main
from vaebm.checkpoints import save_checkpoint
from vaebm.cli import run
from vaebm.data import binarise
from vaebm.energy import EnergyNetwork
from vaebm.errors import UserError
from vaebm.nvae import NVAE, LogisticMixtureDecoder, NVAEConfig
from vaebm.nvae.likelihood import (
    DENSITY,
    GREY_LEVELS,
    bits_per_dim,
    dimensions,
    estimate,
    mean_and_error,
    posterior_noise,
)

FLAT = replace(TINY_NVAE, image_size=2, groups_per_scale=(1,))  # two latent dimensions: 2 channels at 1x1
MIXTURE = replace(TINY_NVAE, likelihood="logistic_mixture", mixtures=2)
BERNOULLI = replace(TINY_NVAE, likelihood="bernoulli")


def grid(nvae: NVAE, points: int = 141, reach: float = 7.0) -> tuple[Tensor, Tensor]:
    """Return noise on a grid (N, 2, 1, 1) and the log of its weights under N(0, I), (N,)."""
    axis = torch.linspace(-reach, reach, points)
    eps = torch.cartesian_prod(axis, axis)
    log_weight = torch.distributions.Normal(0, 1).log_prob(eps).sum(1).double() + 2 * math.log(2 * reach / (points - 1))
    return eps[..., None, None], log_weight


def as_unit(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


# Against quadrature


@torch.no_grad()
def test_bound_approaches_the_exact_log_p_and_the_elbo_has_its_exact_mean() -> None:
    nvae, images = lively_nvae(FLAT), tiny_images(1)[:, ::4, ::4]
    x = as_unit(images)
    eps, log_weight = grid(nvae)
    exact = torch.logsumexp(nvae.decode([eps]).distribution.log_prob(x).double() + log_weight, 0).item()
    log_px, kl = nvae.elbo(x.expand(len(eps), -1, -1, -1), [eps])
    exact_elbo = (log_weight.exp() * (log_px - kl.sum(1))).sum().item()
    assert exact_elbo < exact - 0.01

    assert estimate(nvae, images, 2000).bound[0] == pytest.approx(exact, abs=0.05)
    runs = [estimate(nvae, images, 1, seed) for seed in range(200)]
    elbos = np.concatenate([found.elbo for found in runs])
    assert abs(elbos.mean() - exact_elbo) < 4 * elbos.std() / len(elbos) ** 0.5
    assert elbos.std() > 0.05
    assert all(found.bound.dtype == found.elbo.dtype == np.float64 for found in runs)
    # Without flows the KL is in closed form: with one group no noise reaches it.
    assert np.ptp([found.kl_per_group[0, 0] for found in runs]) < 1e-5


@torch.no_grad()
def test_more_importance_samples_raise_the_bound_on_average() -> None:
    nvae, images = lively_nvae(), tiny_images(30)
    means = [estimate(nvae, images, k).bound.mean() for k in (1, 8, 64)]
    assert means[0] < means[1] - 0.1 < means[2] - 0.2


# What an image's numbers depend on


@torch.no_grad()
@pytest.mark.parametrize(
    "config", [TINY_NVAE, replace(TINY_NVAE, flows=1), MIXTURE, BERNOULLI, replace(MIXTURE, bits=5)]
)
def test_estimates_are_the_models_own_terms_at_the_keyed_noise(config: NVAEConfig) -> None:
    nvae, images = lively_nvae(config), tiny_images(4)
    if config.likelihood == "bernoulli":
        images = np.where(images > 127, 255, 0).astype(np.uint8)
    found = estimate(nvae, images, 3, seed=5)
    samples = list(posterior_noise(nvae, images, 3, 5))
    log_px, kl = nvae.elbo(as_unit(images), samples[0])
    np.testing.assert_allclose(found.elbo, (log_px - kl.sum(1)).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.kl_per_group, kl.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.bound, nvae.log_prob_bound(as_unit(images), samples).numpy(), rtol=1e-5)
    assert found.kl_per_group.shape == (4, len(nvae.latent_shapes))
    assert found.importance_samples == 3


@pytest.mark.parametrize("config", [TINY_NVAE, BERNOULLI])
def test_numbers_of_an_image_depend_on_the_seed_and_on_nothing_else(config: NVAEConfig) -> None:
    nvae, images = lively_nvae(config), tiny_images(7)
    whole = estimate(nvae, images, 2)
    turned = estimate(nvae, images[::-1], 2, batch_size=3)
    for name in ("log_px", "kl_per_group", "bound"):
        np.testing.assert_allclose(getattr(turned, name)[::-1], getattr(whole, name), rtol=1e-4, atol=1e-3)
    assert np.abs(estimate(nvae, images, 2, seed=1).bound - whole.bound).min() > 1e-3


def test_grey_images_are_binarised_for_a_bernoulli_model() -> None:
    nvae = lively_nvae(BERNOULLI)
    grey = np.full((200, 8, 8, 3), 51, np.uint8)  # a fifth white
    grey[:, 0, 0, 0] = np.arange(200)  # so that every image has a key of its own
    found = estimate(nvae, grey)
    assert (found.log_px < 0).all()
    black_white = binarise(grey, np.random.default_rng(0).random(grey.shape))
    other = estimate(nvae, black_white)
    gap = found.log_px.mean() - other.log_px.mean()
    assert abs(gap) < 5 * math.hypot(mean_and_error(found.log_px)[1], mean_and_error(other.log_px)[1])


def test_other_images_and_numbers_below_one_are_refused() -> None:
    nvae = lively_nvae()
    for images in (tiny_images(2)[..., :1], tiny_images(2).astype(np.float32), tiny_images(0), tiny_images(2)[:, :4]):
        with pytest.raises(UserError, match=r"needed at least one of uint8 \(N, 8, 8, 3\)"):
            estimate(nvae, images)
    for options in ({"importance_samples": 0}, {"batch_size": 0}):
        with pytest.raises(UserError, match="0: needed at least 1"):
            estimate(nvae, tiny_images(2), **options)


# Bits per dimension


def test_a_uniform_probability_over_256_values_has_eight_bits() -> None:
    for bits in (5, 8):
        config = replace(MIXTURE, bits=bits)
        (value,) = bits_per_dim(-dimensions(config) * math.log(2**bits), config).values()
        assert value == pytest.approx(bits)


@pytest.mark.parametrize("bits", [5, 8])
def test_densities_of_a_gaussian_model_by_a_uniform_density(bits: int) -> None:
    """y uniform on [-1, 1] has log p = -D log 2: one bit; in grey levels it spreads over 2^bits - 1 of them."""
    config = replace(TINY_NVAE, bits=bits)
    found = bits_per_dim(-dimensions(config) * math.log(2), config)
    assert found == {DENSITY: pytest.approx(1), GREY_LEVELS: pytest.approx(math.log2(2**bits - 1))}


def test_grey_level_density_is_that_of_the_rescaled_gaussian() -> None:
    """Independent: a Gaussian over y = 2x - 1 is a Gaussian over v = 255 x with mean 255 (mu + 1) / 2 and sigma 255 / 2 sigma."""
    mu, sigma, v = 0.2, 0.3, torch.tensor([0.0, 100.0, 255.0], dtype=torch.float64)
    log_py = torch.distributions.Normal(mu, sigma).log_prob(2 * v / 255 - 1).sum().item()
    log_pv = torch.distributions.Normal(255 * (mu + 1) / 2, 255 / 2 * sigma).log_prob(v).sum().item()
    config = replace(TINY_NVAE, image_size=1, preprocess_blocks=0, postprocess_blocks=0, groups_per_scale=(2,))
    assert bits_per_dim(log_py, config)[GREY_LEVELS] == pytest.approx(-log_pv / (3 * math.log(2)))


def test_the_border_is_no_dimension() -> None:
    assert dimensions(NVAEConfig(image_channels=1, likelihood="bernoulli", border=2)) == 28 * 28
    assert dimensions(NVAEConfig()) == 3072


def test_logistic_mixture_of_five_bits_is_a_distribution_over_the_colours_of_a_pixel() -> None:
    """The sum over all 32^3 colours, channels dependent: bits per dimension are then those of a probability."""
    values = torch.arange(32)
    x = (torch.cartesian_prod(values, values, values) / 31).float()[..., None, None]
    params = torch.randn(1, 30, 1, 1, generator=torch.Generator().manual_seed(3))
    params[:, 3:] /= 2  # scales of about the whole range
    log_p = LogisticMixtureDecoder.from_params(params.expand(len(x), -1, -1, -1), bits=5).log_prob(x)
    assert log_p.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_standard_error_is_that_of_the_mean() -> None:
    mean, error = mean_and_error(np.array([1.0, 2.0, 3.0, 6.0]))
    assert (mean, error) == (3.0, pytest.approx(math.sqrt(14 / 3) / 2))
    assert math.isnan(mean_and_error(np.array([1.0]))[1])


# The command


def native(path, nvae: NVAE, kind: str = "nvae") -> str:
    card = {"kind": kind, "size": "mini", "dataset": "toy", "sampling": {}, "nvae": {"file": "the-nvae.safetensors"}}
    card |= {"architecture": {"nvae": nvae.config.to_json()}, "training": {}}
    save_checkpoint(path, torch.nn.ModuleDict({"nvae": nvae}).state_dict(), card)
    return str(path)


@pytest.fixture
def images(tmp_path) -> np.ndarray:
    np.save(tmp_path / "toy.npy", tiny_images(9))
    return tiny_images(9)


def test_command_prints_what_estimate_finds(tmp_path, images, capsys) -> None:
    nvae = lively_nvae(replace(TINY_NVAE, flows=1, log_sigma_min=-2.0))
    arguments = ["likelihood", "--checkpoint", native(tmp_path / "n.safetensors", nvae)]
    arguments += ["--dataset", f"toy={tmp_path / 'toy.npy'}", "--num-images", "6", "--importance-samples", "4"]
    arguments += ["--seed", "3", "--batch-size", "4", "--no-progress"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = estimate(nvae, images[:6], 4, seed=3)
    assert report["n"] == 6
    assert report["dimensions"] == 192
    for name in ("elbo", "bound"):
        mean, error = mean_and_error(getattr(found, name))
        assert report["nats"][name] == {
            "mean": pytest.approx(mean, rel=1e-5),
            "standard_error": pytest.approx(error, rel=1e-3),
        }
        bits = {entry["label"]: entry for entry in report["bits_per_dim"] if entry["of"] == name}
        for label, value in bits_per_dim(mean, nvae.config).items():
            assert bits[label]["mean"] == pytest.approx(value, rel=1e-5)
            assert bits[label]["standard_error"] == pytest.approx(error / (192 * math.log(2)), rel=1e-3)
    assert [entry["mean"] for entry in report["kl_per_group"]] == pytest.approx(
        found.kl_per_group.mean(0).tolist(), rel=1e-4
    )

    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "importance-weighted bound, K = 4" in table
    assert f"{found.elbo.mean():.2f}" in table
    assert table.count("KL, group") == 3
    assert GREY_LEVELS in table
    assert "log sigma >= -2" in table  # what the density is of decides its number
    assert all(len(line) < 120 for line in table.splitlines())


def test_command_reads_official_files_through_the_official_reader(tmp_path, images, capsys, monkeypatch) -> None:
    nvae, file = lively_nvae(MIXTURE), tmp_path / "checkpoint.pt"
    file.write_bytes(b"official")
    arguments = ["likelihood", "--checkpoint", str(file), "--dataset", str(tmp_path / "toy.npy"), "--num-images", "1"]
    monkeypatch.setattr(vaebm.checkpoints, "load_official", lambda path: nvae)
    assert main([*arguments, "--no-progress"]) == 0
    assert "probability of the pixel values" in capsys.readouterr().out  # and no standard error of one image: a dash
    monkeypatch.setattr(vaebm.checkpoints, "load_official", lambda path: EnergyNetwork(TINY_ENERGY))
    assert run(main, arguments) == 2
    assert "energy network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--checkpoint": "missing.safetensors"}, "no such file"),
        ({"--dataset": "cifar10"}, "found 32x32x3 images, the model needs 8x8x3"),
        ({"--importance-samples": "0"}, "importance_samples 0"),
        ({"--importance-sample": "2"}, "Did you mean --importance-samples?"),
        ({"--checkpoint": "whole"}, "the-nvae.safetensors"),
        ({"--checkpoint": "glow"}, "kind 'glow'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, images, capsys, changes, message) -> None:
    files = {
        "whole": native(tmp_path / "v.safetensors", lively_nvae(), "vaebm"),
        "glow": native(tmp_path / "g.safetensors", lively_nvae(), "glow"),
    }
    given = {"--checkpoint": native(tmp_path / "n.safetensors", lively_nvae()), "--dataset": str(tmp_path / "toy.npy")}
    given |= {key: files.get(value, value) for key, value in changes.items()}
    assert run(main, ["likelihood", "--no-progress", *(part for pair in given.items() for part in pair)]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
