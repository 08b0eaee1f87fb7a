"""LEBM: chains and learning gradient against a linear Gaussian model in closed form, scores, samples, training."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal
from training_checks import assert_resumes_exactly

from baselines.lebm import LEBM, LEBMArchitecture, LEBMRecipe, LEBMSystem, normal_log_prob
from baselines.training.config import read_config
from baselines.training.lebm import LEBMTask
from baselines.training.run import train
from evaluators.protocols import Sampler, TermScorer
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal
from vaebm.training.loop import Diverged

torch.set_num_threads(1)

TINY = LEBMArchitecture((8, 8, 3), latent=6, width=4, prior_width=16)
SHORT = LEBMRecipe(prior_steps=3, posterior_steps=3)
CONFIG = """
kind = "lebm"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
latent = 6
width = 4
prior_width = 16
sigma = 0.3
[sampling]
prior_steps = 3
posterior_steps = 3
[training]
batch_size = 8
learning_rate = 1e-3
prior_learning_rate = 1e-3
warmup = 2
prior_steps = 3
posterior_steps = 3
[schedule]
steps = 6
log_every = 1
checkpoint_every = 3
preview_every = 3
"""


def tiny(**changes) -> LEBM:
    torch.manual_seed(0)
    model = LEBM(replace(TINY, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def config(tmp_path, **changes):
    """The tiny configuration with other training options."""
    head, training = CONFIG.split("[training]")
    kept = [line for line in training.splitlines() if line.split(" =")[0] not in changes]
    lines = [f"{name} = {value}" for name, value in changes.items()]
    path = tmp_path / "lebm-tiny.toml"
    path.write_text("\n".join([head, "[training]", *lines, *kept]))
    return read_config("lebm", str(path))


def run(tmp_path, name="run", **options):
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    return train(config(tmp_path), images, tmp_path / name, command="train", progress=False, **options)


# A model whose posterior, prior and evidence are Gaussian


class Linear(nn.Module):
    """g(z) = W z + b."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(0.05 * torch.randn(192, 2, generator=generator))
        self.bias = nn.Parameter(0.1 * torch.randn(192, generator=generator))

    def forward(self, z):
        return (z @ self.weight.T + self.bias).view(-1, 3, 8, 8)


class Quadratic(nn.Module):
    """f(z) = c z - z A z / 2, of which A = diag(exp(log_a))."""

    def __init__(self) -> None:
        super().__init__()
        self.log_a = nn.Parameter(torch.tensor([0.5, -0.5]))
        self.c = nn.Parameter(torch.tensor([0.8, -0.4]))

    def forward(self, z):
        return (z @ self.c - 0.5 * (z.square() * self.log_a.exp()).sum(dim=1))[:, None]


def gaussian() -> LEBM:
    model = LEBM(replace(TINY, latent=2))
    model.generator, model.prior = Linear(), Quadratic()
    return model


def prior_moments(model):
    precision = torch.eye(2) + model.prior.log_a.exp().diag()
    return torch.linalg.solve(precision, model.prior.c), precision


def posterior_moments(model, x):
    mean, precision = prior_moments(model)
    weight, variance = model.generator.weight, model.architecture.sigma**2
    posterior = precision + weight.T @ weight / variance
    residual = weight.T @ (x.flatten() - model.generator.bias) / variance
    return torch.linalg.solve(posterior, precision @ mean + residual), posterior


def assert_moments(z, mean, precision, step_size):
    """Mean and covariance, the latter with the exact effect of a finite step: z is an AR(1) process."""
    n, h = len(z), step_size**2 / 2
    covariance = torch.linalg.inv(precision @ (torch.eye(2) - h * precision / 2))
    deviation = covariance.diagonal().sqrt()
    assert ((z.mean(dim=0) - mean).abs() < 4.5 * deviation / math.sqrt(n)).all()
    outer = deviation[:, None] * deviation
    assert ((z.T.cov() - covariance).abs() < 4.5 * outer * math.sqrt(2 / n)).all()


@torch.no_grad()
def test_chains_reach_the_moments_of_prior_and_posterior():
    model, n = gaussian(), 8_000
    generator = torch.Generator().manual_seed(0)
    noise = lambda *_: torch.randn(n, 2, generator=generator)
    recipe = LEBMRecipe(prior_steps=60, prior_step_size=0.3, posterior_steps=40, posterior_step_size=0.2)
    z = recipe.prior_chain(model, noise(), noise)
    assert_moments(z, *prior_moments(model), 0.3)
    x = torch.rand(3, 8, 8, generator=generator) * 2 - 1
    mean, precision = posterior_moments(model, x)
    assert precision.diagonal().min() > 1.5 * prior_moments(model)[1].diagonal().max()  # the image tells something
    z = recipe.posterior_chain(model, x.expand(n, -1, -1, -1), noise(), noise)
    assert_moments(z, mean, precision, 0.2)
    with pytest.raises(AssertionError):
        assert_moments(z, mean, 1.2 * precision, 0.2)
    with pytest.raises(AssertionError):
        assert_moments(z + 0.1, mean, precision, 0.2)


def test_log_densities_are_those_of_gaussians():
    model = gaussian()
    z, x = torch.randn(5, 2), torch.rand(5, 3, 8, 8)
    mean, precision = prior_moments(model)
    normalised = MultivariateNormal(mean, precision_matrix=precision).log_prob(z)
    difference = model.log_prior(z) - normalised  # log Z: the same for every z
    torch.testing.assert_close(difference, difference[:1].expand(5))
    expected = torch.distributions.Normal(model.generator(z), 0.3).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.log_likelihood(x, z), expected)
    assert normal_log_prob(torch.zeros(2, 3), 2.0)[1].item() == pytest.approx(-1.5 * math.log(2 * math.pi * 4))


def test_the_learning_gradient_is_that_of_the_evidence(tmp_path):
    """mean -log p(x), with p(x) = N(W m + b, W P^-1 W^T + sigma^2 I), in all of W, b, A and c."""
    settings = config(tmp_path)
    chains = {"prior_steps": 60, "posterior_steps": 70, "prior_step_size": 0.3, "posterior_step_size": 0.12}
    training = replace(settings.training, batch_size=400, **chains)
    settings = replace(settings, architecture=replace(TINY, latent=2), training=training)
    images = np.random.default_rng(3).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8).repeat(4, axis=0)
    task = LEBMTask(settings, images, None, 0, torch.device("cpu"))
    task.batches.flip = False
    task.network = model = gaussian()
    parameters = list(model.parameters())

    x = torch.from_numpy(images).float().permute(0, 3, 1, 2).flatten(1) / 127.5 - 1
    mean, precision = prior_moments(model)
    weight = model.generator.weight
    covariance = weight @ torch.linalg.solve(precision, weight.T) + 0.09 * torch.eye(192)
    evidence = MultivariateNormal(weight @ mean + model.generator.bias, covariance).log_prob(x)
    expected = torch.autograd.grad(-evidence.mean(), parameters)

    torch.manual_seed(0)
    found = []
    for step in range(1, 21):
        reconstruction, contrast, _ = task.losses(step)
        found.append(torch.autograd.grad(reconstruction + contrast, parameters))
    for gradients, exact in zip(zip(*found, strict=True), expected, strict=True):
        gradients = torch.stack(gradients)
        error = gradients.std(dim=0) / math.sqrt(len(gradients))
        # Student's t with 19 degrees of freedom over some 600 entries, and the bias of a finite step
        assert ((gradients.mean(dim=0) - exact).abs() < 5 * error + 0.02 * exact.abs().max()).all()
        assert exact.abs().max() > 5 * error.max()


# The system


def test_scores_are_the_sum_of_their_terms_at_the_end_of_the_chain():
    model, images = tiny(), pictures()
    system = LEBMSystem(model, LEBMRecipe(posterior_steps=0), seed=5)
    assert isinstance(system, TermScorer)
    assert isinstance(system, Sampler)
    z = normal(5, content_keys(images), "posterior.z_0", (6,))
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 127.5 - 1
    terms = system.score_terms(images)
    assert list(terms) == ["log_likelihood", "log_prior"]
    with torch.no_grad():
        squares = ((x - model.generator(z)) ** 2).sum((1, 2, 3))
        likelihood = -squares / 0.18 - 192 * math.log(0.3 * math.sqrt(2 * math.pi))
        prior = model.prior(z)[:, 0] - z.square().sum(1) / 2 - 3 * math.log(2 * math.pi)
    np.testing.assert_allclose(terms["log_likelihood"], likelihood.numpy(), rtol=1e-5)
    np.testing.assert_allclose(terms["log_prior"], prior.numpy(), rtol=1e-5)
    np.testing.assert_allclose(system.score(images), sum(terms.values()), rtol=1e-12)
    moved = LEBMSystem(model, SHORT, seed=5)
    np.testing.assert_allclose(moved.score(images), sum(moved.score_terms(images).values()), rtol=1e-12)
    assert {value.dtype for value in terms.values()} == {np.dtype(np.float64)}
    assert system.score_terms(images[:0])["log_prior"].shape == (0,)


def test_a_posterior_chain_finds_a_latent_that_explains_its_image():
    model, images = gaussian(), pictures(100)
    start = LEBMSystem(model, LEBMRecipe(posterior_steps=0)).score(images)
    end = LEBMSystem(model, LEBMRecipe(posterior_steps=40)).score(images)
    assert (end > start).mean() > 0.75
    assert (end - start).mean() > 3


def test_the_gradient_of_a_score_holds_its_latent_fixed():
    model, images = tiny(), pictures()
    system = LEBMSystem(model, LEBMRecipe(posterior_steps=0))
    z = normal(0, content_keys(images), "posterior.z_0", (6,))
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = 2 * ((x - model.generator(z)) / 0.09).flatten(1).norm(
            dim=1
        )  # 2: x spans two units where [0, 1] has one
    np.testing.assert_allclose(system.score_gradient_norm(images), expected.numpy(), rtol=1e-4)
    assert np.isfinite(LEBMSystem(model, SHORT).score_gradient_norm(images)).all()


def test_scores_and_samples_depend_on_their_image_and_seed_alone():
    images, system = pictures(40), LEBMSystem(tiny(), SHORT)
    scores = system.score(images)
    assert scores.shape == (40,)
    assert len(np.unique(scores)) == 40
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_allclose(LEBMSystem(tiny(), SHORT, batch_size=7).score(images[order]), scores[order], rtol=1e-6)
    np.testing.assert_allclose(system.score(images[3:4]), scores[3:4], rtol=1e-6)
    assert (LEBMSystem(tiny(), SHORT, seed=1).score(images) != scores).all()
    samples = system.sample([3, 4, 5])
    assert samples.dtype == np.uint8
    assert samples.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(LEBMSystem(tiny(), SHORT, batch_size=1).sample([5, 3])[::-1], samples[[0, 2]])
    assert len(np.unique(samples.reshape(3, -1), axis=0)) == 3
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_a_sample_is_the_generator_at_the_end_of_a_prior_chain():
    model = tiny()
    z = normal(0, [7], "prior.z_0", (6,))
    with torch.no_grad():
        x = (model.generator(z)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_array_equal(LEBMSystem(model, LEBMRecipe(prior_steps=0)).sample([7])[0], x.round())
    far = gaussian()
    far.generator.bias.data.fill_(3)
    assert (LEBMSystem(far, SHORT).sample([0]) == 255).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("prior_steps", 9), ("prior_step_size", 0.2), ("posterior_steps", 9), ("posterior_step_size", 0.2)],
)
def test_every_option_takes_effect_where_it_says(tmp_path, option, value):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    plain, other = LEBMSystem.from_checkpoint(checkpoint), LEBMSystem.from_checkpoint(checkpoint, **{option: value})
    images = pictures()
    decides_scores = option.startswith("posterior")
    assert (plain.score(images) != other.score(images)).all() == decides_scores
    assert np.array_equal(plain.sample([1, 2]), other.sample([1, 2])) == decides_scores
    assert (plain.fingerprint != other.fingerprint) == decides_scores
    assert (plain.protocol != other.protocol) == decides_scores


def test_sigma_takes_effect_and_is_named():
    images = pictures()
    plain, other = (LEBMSystem(tiny(sigma=sigma), LEBMRecipe(posterior_steps=0)) for sigma in (0.3, 0.6))
    terms = [
        system.score_terms(images)["log_likelihood"] + 192 * math.log(sigma * math.sqrt(2 * math.pi))
        for system, sigma in ((plain, 0.3), (other, 0.6))
    ]
    np.testing.assert_allclose(terms[0], 4 * terms[1], rtol=1e-5)
    assert "sigma 0.6" in other.protocol["estimator"]


def save(model, path, **options):
    architecture = {"image_shape": [8, 8, 3], "latent": 6, "width": 4, "prior_width": 16, "sigma": 0.3}
    sampling = {"prior_steps": 3, "prior_step_size": 0.4, "posterior_steps": 3, "posterior_step_size": 0.1}
    card = {"kind": "lebm", "size": "mini", "dataset": "cifar10", "architecture": architecture, "sampling": sampling}
    save_checkpoint(path, model.state_dict(), card, **options)
    return load_checkpoint(path)


def test_checkpoint_round_trip(tmp_path):
    model, images = tiny(), pictures()
    expected = LEBMSystem(model, SHORT).score(images)
    system = LEBMSystem.from_checkpoint(save(model, tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(system.score(images), expected)
    half = LEBMSystem.from_checkpoint(save(model, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(images), expected, rtol=1e-2)
    assert half.fingerprint != system.fingerprint


def test_mistakes_are_named(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'prior_step'.*prior_steps"):
        LEBMSystem.from_checkpoint(checkpoint, prior_step=3)
    for wrong in (
        {"prior_step_size": 0.0},
        {"posterior_step_size": -1.0},
        {"prior_steps": -1},
        {"posterior_steps": -2},
    ):
        with pytest.raises(UserError, match=r"step sizes must be positive, and steps not negative"):
            LEBMSystem.from_checkpoint(checkpoint, **wrong)
    for wrong in ({"latent": 0}, {"width": 0}, {"prior_width": 0}, {"sigma": 0.0}):
        with pytest.raises(UserError, match="at least 1, and sigma positive"):
            replace(TINY, **wrong)
    for shape in ((8, 16, 3), (12, 12, 3)):
        with pytest.raises(UserError, match="needed squares with a side divisible by 8"):
            LEBMArchitecture(shape)
    with pytest.raises(UserError, match=r"training.prior_learning_rate = -1, needed at least 0"):
        config(tmp_path, prior_learning_rate=-1.0)
    with pytest.raises(UserError, match="step sizes must be positive"):
        config(tmp_path, prior_step_size=0.0)


# Training


def test_training_exports_what_it_learned_and_resumes_exactly(tmp_path, monkeypatch):
    whole = run(tmp_path, "whole")
    checkpoint = load_checkpoint(whole)
    system = LEBMSystem.from_checkpoint(checkpoint)
    assert np.isfinite(system.score(pictures())).all()
    validation = checkpoint.card["training"]["validation"]
    assert math.isfinite(validation["log_likelihood"] + validation["log_prior"])
    spoil = lambda task: next(iter(task.network.parameters())).add_(1)  # an update that was cut off half-way
    assert_resumes_exactly(partial(run, tmp_path), whole, LEBMTask, monkeypatch, spoil)
    assert run(tmp_path, "other", seed=1).read_bytes() != whole.read_bytes()


def trained(tmp_path, **changes):
    """The weights of f and of g after two updates."""
    settings = config(tmp_path, **changes)
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    task = LEBMTask(settings, images, None, 0, torch.device("cpu"))
    for step in (1, 2, 3):
        torch.manual_seed(step)
        task.step(step)
    weights = task.weights()
    return tuple(
        torch.cat([w.flatten() for name, w in weights.items() if name.startswith(part)]) for part in ("prior", "gen")
    )


@pytest.mark.parametrize(
    ("option", "value", "moves"),
    [
        ("prior_learning_rate", 5e-3, "f"),
        ("learning_rate", 5e-3, "g"),
        ("prior_steps", 5, "f"),
        ("prior_step_size", 0.1, "f"),
        ("posterior_steps", 5, "fg"),
        ("posterior_step_size", 0.3, "fg"),
        ("batch_size", 10, "fg"),
        ("ema_decay", 0.9, "fg"),
        ("clip_norm", 1e-9, "fg"),
        ("bf16", "true", "g"),
    ],
)
def test_every_training_option_takes_effect(tmp_path, option, value, moves):
    """Even in the first update, so that what moves the other network only through the posterior does not count."""
    plain, other = trained(tmp_path), trained(tmp_path, **{option: value})
    for name, before, after in zip("fg", plain, other, strict=True):
        if name in moves:
            assert not torch.equal(before, after), f"{option} does not change {name}"


def test_f_and_g_learn_from_their_own_losses_alone(tmp_path):
    start = trained(tmp_path, learning_rate=0.0, prior_learning_rate=0.0)
    f_only, g_only = trained(tmp_path, learning_rate=0.0), trained(tmp_path, prior_learning_rate=0.0)
    assert torch.equal(f_only[1], start[1])
    assert torch.equal(g_only[0], start[0])
    assert not torch.equal(f_only[0], start[0])
    assert not torch.equal(g_only[1], start[1])


def test_the_guard_stops_on_a_large_or_undefined_tilt(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    task = LEBMTask(config(tmp_path, max_tilt=1e-6), images, None, 0, torch.device("cpu"))
    with pytest.raises(Diverged, match=r"mean f is .*, the limit \(max_tilt\) is 1e-06"):
        task.step(1)
    task = LEBMTask(config(tmp_path), images, None, 0, torch.device("cpu"))
    with torch.no_grad():
        task.network.prior[0].weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="nan"):
        task.step(1)


def test_published_sizes():
    """The generator and f of the paper's 32x32 setting: 512, 256 and 128 channels, 200 hidden units."""
    assert read_config("lebm", "paper-cifar10").architecture == LEBMArchitecture()
    model = LEBM(LEBMArchitecture())
    shapes = [tuple(p.shape) for p in model.generator.parameters() if p.dim() == 4]
    assert shapes == [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 3, 4, 4)]
    assert [tuple(p.shape) for p in model.prior.parameters() if p.dim() == 2] == [(200, 100), (200, 200), (1, 200)]
