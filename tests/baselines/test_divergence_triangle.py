"""Divergence triangle: its three divergences against Gaussian closed forms, who goes up and who goes down, and the system."""

import math
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from training_checks import assert_differ, assert_resumes_exactly

from baselines.divergence_triangle import (
    DivergenceTriangle,
    DivergenceTriangleArchitecture,
    DivergenceTriangleRecipe,
    DivergenceTriangleSystem,
    LogDensities,
    diagonal_normal_log_prob,
    divergences,
    triangle,
)
from baselines.training.config import read_config
from baselines.training.divergence_triangle import DivergenceTriangleTask, DivergenceTriangleTraining
from baselines.training.run import train
from evaluators.protocols import Sampler, Scorer
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError

torch.set_num_threads(1)

FORMS = ("joint", "image")
CONFIG = """
kind = "divergence_triangle"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
latent = 5
width = 4
energy = "joint"
[sampling]
temperature = 0.9
[training]
batch_size = 8
learning_rate = 1e-3
warmup = 2
[schedule]
steps = 6
log_every = 1
checkpoint_every = 3
preview_every = 3
"""


def tiny(energy="joint") -> DivergenceTriangle:
    torch.manual_seed(0)
    network = DivergenceTriangle(DivergenceTriangleArchitecture((8, 8, 3), latent=5, width=4, energy=energy))
    with torch.no_grad():
        network.energy.head[-1].weight.mul_(20)  # energies far enough apart for a test to tell
    return network.eval()


def system(energy="joint", **options) -> DivergenceTriangleSystem:
    return DivergenceTriangleSystem(tiny(energy), **options)


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def save(network: DivergenceTriangle, path, **options):
    card = {"kind": "divergence_triangle", "size": "mini", "dataset": "cifar10"}
    card |= {"architecture": {**asdict(network.architecture), "image_shape": [8, 8, 3]}}
    card |= {"sampling": {"temperature": 1.0}}
    save_checkpoint(path, network.state_dict(), card, **options)
    return load_checkpoint(path)


def config(tmp_path, text=CONFIG, energy="joint"):
    path = tmp_path / "divergence_triangle-tiny.toml"
    path.write_text(text.replace('energy = "joint"', f'energy = "{energy}"'))
    return read_config("divergence_triangle", str(path))


def run(tmp_path, images, name="run", text=CONFIG, energy="joint", **options):
    chosen = config(tmp_path, text, energy)
    return train(chosen, images, tmp_path / name, command="train", progress=False, **options)


def task_of(chosen, images) -> DivergenceTriangleTask:
    return DivergenceTriangleTask(chosen, images, None, 0, torch.device("cpu"))


@pytest.fixture
def images() -> np.ndarray:
    return pictures(60)


# The three divergences, where everything is Gaussian: x of 3 dimensions, z of 2


def linear_joint(mean, first, matrix, shift, noise, *, z_first):
    """The density of (x, z) when one is N(mean, diag first^2) and the other N(matrix one + shift, diag noise^2)."""
    a, d = torch.diag(first**2), torch.diag(noise**2)
    one = (mean, a)
    other = (matrix @ mean + shift, matrix @ a @ matrix.T + d)
    cross = matrix @ a  # Cov(other, one)
    if z_first:
        means, blocks = (other[0], one[0]), ((other[1], cross), (cross.T, one[1]))
    else:
        means, blocks = (one[0], other[0]), ((one[1], cross.T), (cross, other[1]))
    covariance = torch.cat([torch.cat(row, dim=1) for row in blocks])
    return MultivariateNormal(torch.cat(means), covariance)


@pytest.fixture(scope="module")
def gaussians():
    """Q = data times linear encoder, P = prior times linear generator, and an energy: everything in float64."""
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    one = lambda n: torch.ones(n, dtype=torch.float64)
    data_mean, data_sigma = draw(3), one(3) * torch.tensor([0.8, 1.2, 0.6])
    encoder, encoder_shift, encoder_sigma = 0.5 * draw(2, 3), draw(2), one(2) * 0.7
    generator, generator_shift, generator_sigma = 0.6 * draw(3, 2), draw(3), one(3) * 0.9
    root = draw(5, 5)
    return SimpleNamespace(
        q=linear_joint(data_mean, data_sigma, encoder, encoder_shift, encoder_sigma, z_first=False),
        p=linear_joint(0 * one(2), one(2), generator, generator_shift, generator_sigma, z_first=True),
        data=Normal(data_mean, data_sigma),
        log_q=lambda x, z: diagonal_normal_log_prob(z, x @ encoder.T + encoder_shift, encoder_sigma.log()),
        log_p=lambda x, z: (
            diagonal_normal_log_prob(z, 0 * z, 0 * z)
            + diagonal_normal_log_prob(x, z @ generator.T + generator_shift, generator_sigma.log())
        ),
        joint=MultivariateNormal(draw(5), root @ root.T + torch.eye(5, dtype=torch.float64)),
        image_mean=draw(3),
        image_sigma=one(3) * 1.3,
        encoder=(encoder, encoder_shift, encoder_sigma),
    )


LOG_Z = 3.7  # an energy knows its density up to a constant


def pi_of(g, form):
    """Pi as a Gaussian, and log Pi + log Z as a function of (x, z)."""
    if form == "joint":
        return g.joint, lambda x, z: g.joint.log_prob(torch.cat([x, z], dim=1)) + LOG_Z
    f = lambda x: Normal(g.image_mean, g.image_sigma).log_prob(x).sum(dim=1) + LOG_Z
    exact = linear_joint(g.image_mean, g.image_sigma, *g.encoder, z_first=False)
    return exact, lambda x, z: f(x) + g.log_q(x, z)


@pytest.mark.parametrize("form", FORMS)
def test_divergences_are_those_of_gaussians(gaussians, form):
    g, n = gaussians, 200_000
    pi, log_pi = pi_of(g, form)
    torch.manual_seed(0)
    (x_q, z_q), (x_p, z_p) = (joint.sample((n,)).split([3, 2], dim=1) for joint in (g.q, g.p))
    on_q, on_p = (LogDensities(g.log_q(x, z), g.log_p(x, z), log_pi(x, z)) for x, z in ((x_q, z_q), (x_p, z_p)))
    found = divergences(on_q, on_p)
    entropy = g.data.entropy().sum()  # log q_data is left out: it cannot be known
    exact = {
        "q_p": kl_divergence(g.q, g.p) + entropy,
        "p_pi": kl_divergence(g.p, pi) - LOG_Z,
        "q_pi": kl_divergence(g.q, pi) + entropy - LOG_Z,
    }
    errors = {"q_p": on_q.q - on_q.p, "p_pi": on_p.p - on_p.pi, "q_pi": on_q.q - on_q.pi}
    for name, value in exact.items():
        standard_error = (errors[name].std() / math.sqrt(n)).item()
        assert found[name].item() == pytest.approx(value.item(), abs=4 * standard_error), name
    # The constants cancel: the triangle itself is exact.
    whole = kl_divergence(g.q, g.p) + kl_divergence(g.p, pi) - kl_divergence(g.q, pi)
    spread = ((on_q.pi - on_q.p).var() + (on_p.p - on_p.pi).var()).sqrt() / math.sqrt(n)
    assert triangle(found).item() == pytest.approx(whole.item(), abs=4 * spread.item())


@pytest.mark.parametrize("form", FORMS)
def test_triangle_is_zero_where_all_three_agree(gaussians, form):
    """With P = Q = Pi every divergence is 0, sample by sample."""
    g = gaussians
    x, z = g.q.sample((50,)).split([3, 2], dim=1)
    log_q = g.log_q(x, z)
    log_data = g.data.log_prob(x).sum(dim=1)
    same = LogDensities(log_q, log_q + log_data, log_q + log_data + LOG_Z)
    terms = divergences(LogDensities(log_q + log_data, log_q + log_data, same.pi), same)
    assert terms["q_p"].item() == 0
    assert terms["p_pi"].item() == pytest.approx(-LOG_Z)
    assert triangle(terms).item() == pytest.approx(0, abs=1e-12)


def test_log_prob_is_that_of_a_diagonal_normal():
    torch.manual_seed(0)
    z, mean, log_sigma = torch.randn(3, 4, 5).unbind()
    expected = Normal(mean, log_sigma.exp()).log_prob(z).sum(dim=1)
    torch.testing.assert_close(diagonal_normal_log_prob(z, mean, log_sigma), expected)


# The network


@pytest.mark.parametrize("form", FORMS)
def test_only_the_joint_energy_sees_z(form):
    network, x = tiny(form), 2 * torch.rand(3, 3, 8, 8) - 1
    a, b = (network.energy(x, z) for z in (torch.zeros(3, 5), torch.ones(3, 5)))
    assert torch.equal(a, b) == (form == "image")
    log_q = torch.tensor([1.0, 2.0, 3.0])
    added = network.log_pi(x, torch.zeros(3, 5), log_q) - a
    torch.testing.assert_close(added, log_q if form == "image" else torch.zeros(3))


@pytest.mark.parametrize("form", FORMS)
def test_kernels_of_the_energy_have_spectral_norm_one(form):
    energy = tiny(form).energy.train()
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.mul_(3)
        for _ in range(200):
            energy(torch.rand(1, 3, 8, 8), torch.rand(1, 5))
    layers = [m for m in energy.eval().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    free = energy.head[-1]
    assert len(layers) == (8 if form == "joint" else 6)
    for layer in layers:
        if layer is not free:
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
            assert norm == pytest.approx(1, abs=0.02)
    assert torch.linalg.matrix_norm(free.weight).item() > 3


def test_deviation_of_the_encoder_is_bounded():
    network = tiny()
    _, log_sigma = network.encoder(1e4 * torch.randn(20, 3, 8, 8))
    assert 3.9 < log_sigma.abs().max() <= 4


def test_images_of_the_generator_are_in_range():
    x = tiny().generator(100 * torch.randn(4, 5))
    assert x.shape == (4, 3, 8, 8)
    assert x.abs().max() <= 1


# The system


@pytest.mark.parametrize("form", FORMS)
def test_it_scores_and_samples(form):
    assert isinstance(system(form), Scorer)
    assert isinstance(system(form), Sampler)
    said = system(form).protocol["score"]
    assert ("z the mean of q(z | x)" in said) == (form == "joint")


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_score_is_f_at_the_mean_of_the_encoder(form):
    few = pictures(3)
    x = torch.from_numpy(few).float().permute(0, 3, 1, 2) / 127.5 - 1
    network = tiny(form)
    expected = network.energy(x, network.encoder(x)[0])
    np.testing.assert_allclose(system(form).score(few), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_score_depends_on_the_image_alone(form):
    few = pictures()
    scores = system(form).score(few)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    assert scores.std() > 1e-3
    np.testing.assert_allclose(system(form, batch_size=1).score(few), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(system(form, batch_size=4).score(few[::-1]), scores[::-1], rtol=1e-5, atol=1e-5)


def test_sample_depends_on_its_seed_alone():
    drawn = system().sample([3, 4, 5])
    assert drawn.dtype == np.uint8
    assert drawn.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(system(batch_size=1).sample([5, 4, 3])[::-1], drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(system(seed=1).sample([3]), drawn[:1])
    assert system().sample([]).shape == (0, 8, 8, 3)


def test_temperature_takes_effect_on_samples_alone(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    plain, cold = (DivergenceTriangleSystem.from_checkpoint(checkpoint, **o) for o in ({}, {"temperature": 0.0}))
    assert not np.array_equal(plain.sample([1]), cold.sample([1]))
    np.testing.assert_array_equal(*cold.sample([1, 2]))
    np.testing.assert_array_equal(plain.score(pictures()), cold.score(pictures()))
    assert (plain.fingerprint, plain.protocol) == (cold.fingerprint, cold.protocol)


@pytest.mark.parametrize("form", FORMS)
def test_checkpoint_round_trip(tmp_path, form):
    few = pictures()
    expected = system(form).score(few)
    loaded = DivergenceTriangleSystem.from_checkpoint(save(tiny(form), tmp_path / "a.safetensors"))
    np.testing.assert_allclose(loaded.score(few), expected, rtol=1e-6)
    half = DivergenceTriangleSystem.from_checkpoint(save(tiny(form), tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(few), expected, rtol=2e-2, atol=2e-2)
    assert half.fingerprint != loaded.fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DivergenceTriangleRecipe(temperature=3.0), r"temperature 3.0: needed a number in \[0, 2\]"),
        (lambda: DivergenceTriangleArchitecture((12, 12, 3)), r"\(12, 12, 3\): needed H = W, divisible by 8"),
        (lambda: DivergenceTriangleArchitecture((8, 16, 3)), "needed H = W"),
        (lambda: DivergenceTriangleArchitecture(latent=0), "latent and width must be at least 1"),
        (lambda: DivergenceTriangleArchitecture(energy="jiont"), "'jiont': unknown. Did you mean 'joint'"),
        (lambda: DivergenceTriangleTraining(sigma=0.0), "sigma = 0, needed at least 0.001"),
        (lambda: DivergenceTriangleTraining(energy_rate=-1.0), "energy_rate = -1, needed at least 0"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_unknown_options_and_other_images_are_refused(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'temprature'.*temperature"):
        DivergenceTriangleSystem.from_checkpoint(checkpoint, temprature=0.5)
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        system().score(np.zeros((2, 8, 8, 3), dtype=np.float32))


# Training


def pairs(task, images):
    """Pairs of Q, with log q(z | x), and of P, as a step makes them."""
    torch.manual_seed(4)
    x = torch.from_numpy(images[:8]).permute(0, 3, 1, 2) / 127.5 - 1
    mean, log_sigma = task.network.encoder(x)
    z = mean + log_sigma.exp() * torch.randn_like(mean)
    z_p = torch.randn_like(mean)
    return x, z, Normal(mean, log_sigma.exp()).log_prob(z).sum(dim=1), task.network.generator(z_p), z_p


@pytest.mark.parametrize("form", FORMS)
def test_triangle_of_the_networks_is_the_formula(tmp_path, images, form):
    """For Pi = exp(f) / Z the encoder's entropy cancels; for Pi = exp(f) q / Z it stays in KL(Q || P), and P meets q."""
    task = task_of(config(tmp_path, energy=form), images)
    network = task.network.eval()
    with torch.no_grad():
        x, z, log_q, x_p, z_p = pairs(task, images)
        found = triangle(task.terms(x, z, log_q, x_p, z_p))
        log_prior = lambda z: Normal(0.0, 1.0).log_prob(z).sum(dim=1)
        log_likelihood = lambda x, mean: Normal(mean, task.options.sigma).log_prob(x).sum(dim=(1, 2, 3))
        f_q, f_p = network.energy(x, z), network.energy(x_p, z_p)
        p_q = log_prior(z) + log_likelihood(x, network.generator(z))
        p_p = log_prior(z_p) + log_likelihood(x_p, x_p)
        if form == "joint":
            expected = (f_q - p_q).mean() + (p_p - f_p).mean()
        else:
            mean, log_sigma = network.encoder(x_p)
            log_q_p = Normal(mean, log_sigma.exp()).log_prob(z_p).sum(dim=1)
            expected = (log_q - p_q).mean() + (p_p - f_p - log_q_p).mean() + f_q.mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_energy_goes_up_what_the_others_go_down(tmp_path, images, form, monkeypatch):
    """The energy's step has minus the gradient of the triangle, the step of the others its gradient and none of the energy's."""
    task = task_of(config(tmp_path, energy=form), images)
    seen = []
    update = DivergenceTriangleTask.update

    def spy(self, optimizer, parameters, loss, *rest):
        parameters = list(parameters)
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        frozen = not any(p.requires_grad for p in self.network.energy.parameters())
        seen.append(([p.data_ptr() for p in parameters], found, frozen))
        return update(self, optimizer, parameters, loss, *rest)

    monkeypatch.setattr(DivergenceTriangleTask, "update", spy)
    network = task.network
    before = {name: value.clone() for name, value in network.named_parameters()}
    torch.manual_seed(4)
    task.step(1)
    (energy, energy_gradient, _), (others, _, frozen) = seen
    assert energy == [p.data_ptr() for p in network.energy.parameters()]
    assert set(others) == {p.data_ptr() for part in (network.generator, network.encoder) for p in part.parameters()}
    assert frozen
    moved = [name for name, value in network.named_parameters() if not torch.equal(value, before[name])]
    assert {name.partition(".")[0] for name in moved} == {"generator", "encoder", "energy"}
    assert all(p.requires_grad for p in network.parameters())
    # The same step's triangle, as a function of the energy's weights, has the opposite gradient.
    again = task_of(config(tmp_path, energy=form), images)
    again.network.load_state_dict({**again.network.state_dict(), **before})
    torch.manual_seed(4)
    x = 2 * (again.images(1).float() / 255) - 1
    mean, log_sigma = again.network.encoder(x)
    z = mean + log_sigma.exp() * torch.randn_like(mean)
    z_p = torch.randn_like(mean)
    terms = again.terms(x, z, diagonal_normal_log_prob(z, mean, log_sigma), again.network.generator(z_p), z_p)
    expected = torch.autograd.grad(triangle(terms), list(again.network.energy.parameters()))
    assert any(gradient.abs().max() > 1e-6 for gradient in expected)
    for found, gradient in zip(energy_gradient, expected, strict=True):
        torch.testing.assert_close(found, -gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("rate", "still"), [("energy_rate", ("energy",)), ("learning_rate", ("generator", "encoder"))])
def test_each_side_has_its_own_rate(tmp_path, images, rate, still):
    chosen = config(tmp_path)
    task = task_of(replace(chosen, training=replace(chosen.training, **{rate: 0.0})), images)
    before = {name: value.clone() for name, value in task.network.named_parameters()}
    for step in (1, 2):
        torch.manual_seed(step)
        task.step(step)
    moved = {
        name.partition(".")[0]
        for name, value in task.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved == {"energy", "generator", "encoder"} - set(still)


def train_for(tmp_path, images, steps, energy="joint", **changes):
    chosen = config(tmp_path, CONFIG.replace("steps = 6", "steps = 1000"), energy)
    task = task_of(replace(chosen, training=replace(chosen.training, **changes)), images)
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        task.step(step)
    return task


def test_training_learns_to_reconstruct(tmp_path):
    """Data of two pictures come back after some updates."""
    two = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    two[::2, :4] = 230
    two[1::2, 2:6] = 230
    first, last = (
        train_for(tmp_path, two, steps, learning_rate=5e-3).validate(two[:10], None)["reconstruction"]
        for steps in (2, 80)
    )
    assert last < 0.5 * first


@pytest.mark.parametrize("form", FORMS)
def test_energy_learns_to_tell_data_from_a_generator_that_stands_still(tmp_path, form):
    grey = np.full((40, 8, 8, 3), 200, dtype=np.uint8)
    found = train_for(tmp_path, grey, 40, form, learning_rate=0.0, energy_rate=1e-2).system()
    assert found.score(grey[:1])[0] > found.score(found.sample(range(20))).max()


@pytest.mark.parametrize("form", FORMS)
def test_training_exports_a_system_and_resumes_exactly(tmp_path, images, monkeypatch, form):
    whole = run(tmp_path, images, name="whole", energy=form)
    checkpoint = load_checkpoint(whole)
    found = DivergenceTriangleSystem.from_checkpoint(checkpoint)
    assert np.isfinite(found.score(images[:4])).all()
    assert found.recipe == {"temperature": 0.9}
    assert found.network.architecture.energy == form
    assert checkpoint.card["training"]["updates"] == 6
    assert {"reconstruction", "score_mean", "score_std"} <= set(checkpoint.card["training"]["validation"])
    spoil = lambda task: task.network.energy.head[-1].weight.add_(1)  # an update that was cut off half-way
    assert_resumes_exactly(
        partial(run, tmp_path, images, energy=form), whole, DivergenceTriangleTask, monkeypatch, spoil
    )
    assert run(tmp_path, images, name="other", energy=form, seed=1).read_bytes() != whole.read_bytes()


@pytest.mark.parametrize("broken", [False, True])
def test_the_guard_stops_an_exploding_energy(tmp_path, images, monkeypatch, capsys, broken):
    text = CONFIG
    if broken:
        prepare = lambda self: self.network.energy.head[-1].weight.data.fill_(float("nan"))
        monkeypatch.setattr(DivergenceTriangleTask, "prepare", prepare)
    else:
        text = text.replace("[training]", "[training]\nmax_energy = 1e-9")
    assert run(tmp_path, images, text=text) is None
    assert "the limit (max_energy) is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 1e-2),
        ("energy_rate", 1e-2),
        ("warmup", 4),
        ("clip_norm", 1e-3),
        ("ema_decay", 0.9),
        ("bf16", True),
        ("sigma", 0.1),
    ],
)
def test_every_training_option_takes_effect(tmp_path, images, option, value):
    before = config(tmp_path)
    after = replace(before, training=replace(before.training, **{option: value}))
    assert_differ(task_of(before, images), task_of(after, images), 3)
