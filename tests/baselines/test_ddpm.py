"""DDPM: the bound on Gaussian data is the closed form, the chain is that of diffusers, scores and samples depend on their own key."""

import json
import math
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from baselines.ddpm import (
    CIFAR10_UNET,
    DDPM,
    DDPMArchitecture,
    DDPMSampling,
    DDPMSystem,
    discretised_log_prob,
    respaced,
    step_of,
)
from baselines.load import facts
from evaluators.protocols import Sampler, Scorer
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError
from vaebm.noise import normal

torch.set_num_threads(1)

SEEDS = (3, 1, 2)
T = 12
SMALL_UNET = {
    **CIFAR10_UNET,
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
SMALL = DDPMArchitecture(SMALL_UNET, T, 0.01, 0.3)
RECIPE = DDPMSampling(steps=T, vlb_steps=5)


def tiny() -> DDPM:
    pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
    torch.manual_seed(0)
    return DDPM(SMALL)


def build(recipe: DDPMSampling = RECIPE, **about: Any) -> DDPMSystem:
    return DDPMSystem(tiny(), recipe, **about)


def pictures(n: int = 6, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


# Gaussian data: everything is known


class GaussianNoise(nn.Module):
    """The best estimate of the noise in x_t for data N(0, s^2 I): linear in x_t. Needs no network."""

    def __init__(self, s: float, timesteps: int, beta_start: float, beta_end: float, size: int = 8) -> None:
        super().__init__()
        unet = {"sample_size": size, "in_channels": 1, "out_channels": 1}
        self.architecture, self.s = DDPMArchitecture(unet, timesteps, beta_start, beta_end), s

    def forward(self, x: Tensor, t: int) -> Tensor:
        a = self.architecture.alpha_bar[t]
        return math.sqrt(1 - a) / (a * self.s**2 + 1 - a) * x


def gaussian_images(s: float, n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0, s, (n, 8, 8, 1))
    return ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def expected_bound(s: float, alpha_bar: np.ndarray, variance: str) -> float:
    """Mean of -(L_T + ... + L_0) in nats per pixel over data N(0, s^2): x_0 given x_t has variance s^2 (1 - a) / (a s^2 + 1 - a)."""
    a = alpha_bar
    left = s**2 * (1 - a) / (a * s**2 + 1 - a)
    total = 0.5 * (a[-1] * (s**2 - 1) - math.log1p(-a[-1]))
    betas = 1 - a / np.append(1, a[:-1])
    small = betas[1:] * (1 - a[:-1]) / (1 - a[1:])
    chosen = betas[1:] if variance == "fixedlarge" else small
    weight = np.sqrt(a[:-1]) * betas[1:] / (1 - a[1:])
    total += 0.5 * (np.log(chosen / small) + small / chosen - 1 + weight**2 * left[1:] / chosen).sum()
    # L_0: a Gaussian of variance small[0], so wide against a bin of 2/255 that its mass is density times width
    return -(total + 0.5 * (math.log(2 * math.pi * small[0]) + left[0] / small[0]) - math.log(2 / 255))


@pytest.mark.parametrize("variance", ["fixedlarge", "fixedsmall"])
def test_the_bound_of_gaussian_data_is_the_closed_form(variance):
    s, n, timesteps = 0.25, 300, 60
    network = GaussianNoise(s, timesteps, 0.002, 0.2)
    system = DDPMSystem(network, DDPMSampling(timesteps, variance, clip=False, vlb_steps=timesteps))
    scores = system.score(gaussian_images(s, n)) / 64
    expected = expected_bound(s, network.architecture.alpha_bar, variance)
    assert abs(scores.mean() - expected) < 5 * scores.std() / math.sqrt(n) + 0.003  # bins against densities
    assert scores.std() / math.sqrt(n) < 0.02


def test_finer_steps_bring_the_bound_to_the_log_likelihood_from_below():
    """But for what the decoder loses by its variance v, which the paper takes from the next step, not from what is left of x_0."""
    s, gaps = 0.25, []
    images = gaussian_images(s, 200)
    log_p = norm.logpdf(images / 127.5 - 1, 0, s).mean() + math.log(2 / 255)
    for timesteps in (20, 300):
        network = GaussianNoise(s, timesteps, 0.002, 10 / timesteps)
        system = DDPMSystem(network, DDPMSampling(timesteps, clip=False, vlb_steps=timesteps))
        a = system.alpha_bar
        left, v = s**2 * (1 - a[0]) / (a[0] * s**2 + 1 - a[0]), (1 - a[1] / a[0]) * (1 - a[0]) / (1 - a[1])
        decoder = 0.5 * (math.log(v / left) + left / v - 1)
        gaps.append(log_p - system.score(images).mean() / 64 - decoder)
    assert 0 < gaps[1] < 0.03 < 0.1 < gaps[0]


def test_samples_of_gaussian_data_have_its_spread():
    s = 0.25
    network = GaussianNoise(s, 100, 0.001, 0.2)
    pixels = DDPMSystem(network, DDPMSampling(100, vlb_steps=2)).sample(range(64)).astype(float) / 127.5 - 1
    n = pixels.size
    assert abs(pixels.mean()) < 5 * s / math.sqrt(n) + 0.002
    assert abs(pixels.std() / s - 1) < 0.05  # and a bias of the finite chain


def test_fewer_terms_estimate_the_sum_without_bias():
    s, images = 0.25, gaussian_images(0.25, 3)
    network = GaussianNoise(s, 60, 0.002, 0.2)
    score = lambda terms, seed: DDPMSystem(network, DDPMSampling(60, clip=False, vlb_steps=terms), seed=seed).score(
        images
    )
    exact = np.array([score(60, seed) for seed in range(20)])
    fewer = np.array([score(12, seed) for seed in range(200)])
    error = np.sqrt(exact.var(axis=0) / len(exact) + fewer.var(axis=0) / len(fewer))
    assert (np.abs(fewer.mean(axis=0) - exact.mean(axis=0)) < 5 * error).all()
    assert (error < 0.02 * np.abs(exact.mean(axis=0))).all()


def test_strata_stand_for_every_term_once():
    network = GaussianNoise(0.25, 100, 0.001, 0.2)
    for terms in (2, 7, 99, 100):
        strata = DDPMSystem(network, DDPMSampling(100, vlb_steps=terms)).strata()
        assert len(strata) == terms
        assert sum(weight for _, weight in strata) == 100
        start = 0
        for t, weight in strata:
            assert start <= t < start + weight
            start += weight
    assert strata == [(t, 1) for t in range(100)]
    other = DDPMSystem(network, DDPMSampling(100, vlb_steps=7), seed=1).strata()
    assert other != DDPMSystem(network, DDPMSampling(100, vlb_steps=7)).strata()


# The parts


@pytest.mark.parametrize("mean", [-1.5, -0.98, 0.013, 1.0])
@pytest.mark.parametrize("scale", [0.0005, 0.007, 0.3])
def test_masses_of_all_values_sum_to_one(mean, scale):
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    log_mass = discretised_log_prob(values, torch.tensor(mean, dtype=torch.float64), scale)
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-9)
    edges = np.concatenate([[-np.inf], (np.arange(1, 256) - 0.5) / 127.5 - 1, [np.inf]])
    masses = np.diff(norm.cdf(edges, mean, scale))
    seen = masses > 1e-9
    np.testing.assert_allclose(log_mass.numpy()[seen], np.log(masses[seen]), atol=1e-5)


def test_masses_far_in_the_tail_are_finite_and_have_gradients():
    x = torch.tensor([-1.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor([1.0, -0.5, -1.0], dtype=torch.float64)
    log_mass = discretised_log_prob(x, mean, 0.005)
    # On a tail of slope z the mass is about the density at the near edge, over z.
    near = (1 - 1 / 255) / 0.005
    assert log_mass[1].item() == pytest.approx(norm.logcdf(-near), rel=1e-6)
    log_mass.sum().backward()
    assert torch.isfinite(log_mass).all()
    assert torch.isfinite(x.grad).all()
    assert x.grad[1] < 0  # away from its mean


@pytest.mark.parametrize(("t", "s"), [(7, 6), (11, 3), (4, -1)])
def test_a_step_is_the_posterior_of_the_forward_process(t, s):
    """x_s given x_t and x_0, by conditioning the joint Gaussian of x_s and x_t given x_0."""
    a = SMALL.alpha_bar
    step = step_of(a, t, s)
    a_t, a_s = a[t], a[s] if s >= 0 else 1.0
    alpha = a_t / a_s
    covariance = math.sqrt(alpha) * (1 - a_s)  # x_t = sqrt(alpha) x_s + noise
    gain = covariance / (1 - a_t)
    assert step.x_weight == pytest.approx(gain)
    assert step.x0_weight == pytest.approx(math.sqrt(a_s) - gain * math.sqrt(a_t))
    assert step.small == pytest.approx(1 - a_s - gain * covariance, abs=1e-12)
    assert step.large == pytest.approx(1 - alpha)
    assert (step.variance("fixedlarge"), step.variance("fixedsmall")) == (step.large, step.small)


def test_the_clean_image_is_recovered_from_the_true_noise():
    step, x_0, eps = step_of(SMALL.alpha_bar, 5, 4), torch.tensor([-1.2, 0.3, 0.9]), torch.tensor([1.0, -2.0, 0.5])
    x_t = math.sqrt(step.a_t) * x_0 + math.sqrt(1 - step.a_t) * eps
    torch.testing.assert_close(step.clean(x_t, eps, clip=False), x_0)
    torch.testing.assert_close(step.clean(x_t, eps, clip=True), x_0.clamp(-1, 1))


def test_times_are_evenly_spaced_and_end_at_the_image():
    assert respaced(5, 5) == [4, 3, 2, 1, 0]
    assert respaced(1000, 4) == [999, 666, 333, 0]
    assert respaced(1000, 1) == [999]


def test_the_prior_term_is_the_divergence_from_the_standard_normal():
    """With the other terms taken away, the score is -KL(N(sqrt(a) x_0, 1 - a) || N(0, 1)), summed over pixels."""
    system = DDPMSystem(GaussianNoise(0.25, 10, 0.01, 0.1), DDPMSampling(10, vlb_steps=10))
    system._term = lambda x, noise, t: torch.zeros(len(x))
    images, a = gaussian_images(0.25, 3), system.alpha_bar[-1]
    q = torch.distributions.Normal(math.sqrt(a) * torch.from_numpy(images / 127.5 - 1), math.sqrt(1 - a))
    expected = -torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-6)


# Against diffusers


@pytest.mark.parametrize("steps", [T, 5])
@pytest.mark.parametrize("variance", ["fixedlarge", "fixedsmall"])
@pytest.mark.parametrize("clip", [True, False])
def test_the_chain_is_that_of_diffusers(monkeypatch, steps, variance, clip):
    system = build(DDPMSampling(steps, variance, clip, vlb_steps=2))
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    scheduler = DDPMScheduler(
        num_train_timesteps=T,
        beta_start=SMALL.beta_start,
        beta_end=SMALL.beta_end,
        variance_type={"fixedlarge": "fixed_large", "fixedsmall": "fixed_small"}[variance],
        clip_sample=clip,
    )
    times = respaced(T, steps)
    scheduler.set_timesteps(timesteps=times)
    seeds = list(SEEDS)
    x = normal(0, seeds, "x_T", (3, 8, 8))
    with torch.no_grad():
        for t in times:
            drawn = normal(0, seeds, f"chain.{t}", (3, 8, 8))
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, drawn=drawn, **k: drawn)
            x = scheduler.step(system.network(x, t), t, x).prev_sample
    expected = ((x / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(system.sample(seeds) - expected).max() <= 1
    assert expected.std() > 20


def test_published_size():
    """35.7 million weights, as the paper says of its CIFAR-10 model; and a system of that size needs no checkpoint."""
    pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
    with torch.device("meta"):
        network = DDPM(DDPMArchitecture())
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 35.7
    system = DDPMSystem(network=DDPM(DDPMArchitecture()))
    assert system.image_shape == (32, 32, 3)
    assert (system.recipe["steps"], system.recipe["variance"]) == (1000, "fixedlarge")
    assert system.alpha_bar[0] == 1 - 1e-4
    assert len(system.alpha_bar) == 1000


# The system


def test_it_scores_and_samples_and_says_how():
    system = build()
    assert isinstance(system, Scorer)
    assert isinstance(system, Sampler)
    for table in (system.protocol, system.fingerprint, system.recipe):
        assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert "5 of 12 terms" in system.protocol["estimator"]


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_score_depends_on_its_image_alone():
    images, system = pictures(), build()
    scores = system.score(images)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 6
    np.testing.assert_array_equal(system.score(images), scores)
    assert_close(build(batch_size=4).score(images[::-1])[::-1], scores)
    assert_close(system.score(images[[2, 2, 5]]), scores[[2, 2, 5]])
    assert system.score(images[:0]).shape == (0,)
    other = build(seed=1)
    assert (other.score(images) != scores).all()
    assert other.fingerprint != system.fingerprint


def test_an_image_is_a_function_of_its_seed_alone():
    system = build()
    samples = system.sample(SEEDS)
    assert samples.dtype == np.uint8
    assert samples.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(system.sample(SEEDS[::-1])[::-1], samples)
    np.testing.assert_array_equal(system.sample(SEEDS[1:2]), samples[1:2])
    np.testing.assert_array_equal(build(batch_size=2).sample([*range(100, 120), *SEEDS])[20:], samples)
    assert (build(seed=1).sample(SEEDS) != samples).any(axis=(1, 2, 3)).all()
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_the_gradient_norm_is_that_of_the_score():
    """Against differences of the bound along the gradient, with the noise of the unmoved image."""
    network = GaussianNoise(0.25, 10, 0.01, 0.1)
    system = DDPMSystem(network, DDPMSampling(10, clip=False, vlb_steps=4))
    image = gaussian_images(0.25, 1)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(system.log_density(pixels, [7]).sum(), pixels)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (system.log_density(pixels + h * direction, [7]) for h in (0.01, -0.01))
    assert ((up - down) / 0.02).item() == pytest.approx(gradient.norm().item(), rel=1e-3)
    found = build().score_gradient_norm(pictures(2))
    assert np.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize(
    ("option", "value", "scores"),
    [("steps", 6, False), ("variance", "fixedsmall", True), ("clip", False, True), ("vlb_steps", 4, True)],
)
def test_every_option_takes_effect_and_is_said(tmp_path, option, value, scores):
    network = tiny()
    with torch.no_grad():
        network.unet.conv_out.weight.mul_(20)  # far enough off for a clipped estimate to differ
    card = {
        "kind": "ddpm",
        "size": "own",
        "dataset": "cifar10",
        "architecture": asdict(SMALL),
        "sampling": asdict(RECIPE),
    }
    save_checkpoint(tmp_path / "a.safetensors", network.state_dict(), card)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    plain, other = DDPMSystem.from_checkpoint(checkpoint), DDPMSystem.from_checkpoint(checkpoint, **{option: value})
    assert set(DDPMSystem.options) == set(asdict(RECIPE))
    images = pictures()
    np.testing.assert_array_equal(plain.score(images), DDPMSystem(network, RECIPE).score(images))
    assert np.array_equal(plain.score(images), other.score(images)) != scores
    assert (plain.protocol != other.protocol) == scores
    assert (plain.fingerprint != other.fingerprint) == scores
    samples_differ = not np.array_equal(plain.sample([1]), other.sample([1]))
    assert samples_differ == (option != "vlb_steps")


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(UserError, match=r"variance 'fixedlage'.*Did you mean 'fixedlarge'"):
        DDPMSampling(variance="fixedlage")
    for wrong in ({"steps": 0}, {"vlb_steps": 1}):
        with pytest.raises(UserError, match="needed at least 1 and 2"):
            DDPMSampling(**wrong)
    with pytest.raises(UserError, match=r"sampling.steps 13: needed at most 12"):
        build(DDPMSampling(steps=13, vlb_steps=2))
    with pytest.raises(UserError, match=r"sampling.vlb_steps 13: needed at most 12"):
        build(DDPMSampling(steps=12, vlb_steps=13))
    with pytest.raises(UserError, match="0 < beta_start <= beta_end < 1"):
        DDPMArchitecture(beta_start=0.0)
    with pytest.raises(UserError, match="sample_size and in_channels"):
        DDPMArchitecture({"in_channels": 3})
    with pytest.raises(UserError, match="other out_channels"):
        DDPMArchitecture({**CIFAR10_UNET, "out_channels": 6})
    with pytest.raises(UserError, match=r"cannot build this unet .*no_such"):
        DDPM(DDPMArchitecture({**SMALL_UNET, "no_such": 1}))
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        build().score(np.zeros((2, 8, 8, 3), dtype=np.float32))


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'vaebm-bench\[diffusers\]'") as error:
        DDPM(SMALL)
    assert "\n" not in str(error.value)


def test_options_of_scores_and_samples_are_told_apart() -> None:
    """Clipping and the variance decide both; the number of evaluated terms decides the bound alone, the steps the chain alone."""
    system = build()
    assert {"variance", "clip", "steps"} == set(facts(system)["sampling"])
    assert {"variance", "clip", "vlb_steps"} <= set(system.fingerprint)
    assert "steps" not in system.fingerprint
