"""JEM: the energy of a classifier, its chains, its scores, and the gradient that trains it."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_checks import assert_differ, assert_resumes_exactly

from baselines.backbones.wide_resnet import WideResNet, WideResNetArchitecture
from baselines.jem import JEMRecipe, JEMSystem, energy, run_chains
from baselines.training.config import Config, read_config
from baselines.training.jem import JEMTask, JEMTraining, accuracy, noisy
from baselines.training.run import train
from vaebm.checkpoints import load_checkpoint
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal

torch.set_num_threads(1)

TINY = WideResNetArchitecture((8, 8, 3), depth=10, widen=1, stem_stride=2, classes=4)
CONFIG = """
kind = "jem"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
depth = 10
widen = 1
stem_stride = 2
classes = 4
[sampling]
steps = 2
[training]
batch_size = 8
learning_rate = 1e-3
warmup = 2
ema_decay = 0.5
buffer_size = 32
chain_steps = 2
[schedule]
steps = 6
log_every = 1
checkpoint_every = 3
preview_every = 3
"""


def network() -> WideResNet:
    torch.manual_seed(0)
    return WideResNet(TINY).eval()


def pictures(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def inputs(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def system(**recipe: Any) -> JEMSystem:
    return JEMSystem(network(), JEMRecipe(**{"steps": 3, **recipe}))


# The network


def test_the_published_network_has_its_size() -> None:
    with torch.device("meta"):
        published = WideResNet(WideResNetArchitecture())
    assert len(published.blocks) == 12
    assert [block.conv1.out_channels for block in published.blocks] == 4 * [160] + 4 * [320] + 4 * [640]
    assert sum(value.numel() for value in published.parameters()) == pytest.approx(36.5e6, rel=0.01)
    assert not [module for module in published.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]


@torch.no_grad()
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_resolution_is_halved_twice_after_the_stem(stem_stride: int) -> None:
    net = WideResNet(WideResNetArchitecture((16, 24, 3), 16, 1, stem_stride, classes=5))
    h = net.stem(torch.randn(2, 3, 16, 24))
    assert h.shape == (2, 16, 16 // stem_stride, 24 // stem_stride)
    assert net.blocks(h).shape == (2, 64, 4 // stem_stride, 6 // stem_stride)
    assert net(torch.randn(2, 3, 16, 24)).shape == (2, 5)


@torch.no_grad()
@pytest.mark.parametrize("depth", [10, 28])
def test_signals_neither_die_nor_explode_with_depth(depth: int) -> None:
    torch.manual_seed(0)
    net = WideResNet(WideResNetArchitecture((16, 16, 3), depth, 2))
    h = net.stem(torch.randn(16, 3, 16, 16))
    assert 1 < net.blocks(h).std() / h.std() < 6  # each of three shortcuts doubles the variance


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 12}, "depth = 12, needed 10, 16"),
        ({"depth": 4}, "depth = 4"),
        ({"widen": 0}, "widen"),
        ({"classes": 1}, "classes"),
        ({"image_shape": (32, 30, 3)}, "divisible by 4"),
        ({"image_shape": (12, 12, 3), "stem_stride": 2}, "divisible by 8"),
    ],
)
def test_a_wrong_architecture_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WideResNetArchitecture(**wrong)


# The energy


@torch.no_grad()
def test_the_joint_density_is_the_exponential_of_a_logit() -> None:
    logits = network()(inputs(pictures())).double()
    p_x, p_y = torch.exp(-energy(logits)), logits.softmax(dim=1)
    torch.testing.assert_close(p_x[:, None] * p_y, logits.exp())
    torch.testing.assert_close(p_x, logits.exp().sum(dim=1))


@torch.no_grad()
def test_the_energy_is_free_where_the_class_probabilities_are_given() -> None:
    logits = network()(inputs(pictures())).double()
    shift = torch.arange(6.0).double()
    torch.testing.assert_close((logits + shift[:, None]).softmax(dim=1), logits.softmax(dim=1))
    torch.testing.assert_close(energy(logits + shift[:, None]), energy(logits) - shift)


class Quadratic(nn.Module):
    """A classifier with log p(x) = -2 |x - 1|^2 + const: the density is N(1, 1/4), whatever p(y|x) = (0.3, 0.7) is."""

    def forward(self, x: Tensor) -> Tensor:
        log_p = -2 * (x - 1).square().flatten(1).sum(dim=1)
        return log_p[:, None] + torch.tensor([0.3, 0.7]).log()


def test_chains_have_the_moments_of_the_density() -> None:
    generator, n, alpha = torch.Generator().manual_seed(0), 20_000, 0.1
    x = run_chains(
        Quadratic(),
        torch.zeros(n, 2),
        lambda _: torch.randn(n, 2, generator=generator),
        SimpleNamespace(steps=100, step_size=alpha / 2, noise_scale=math.sqrt(alpha)),
    )
    variance = 1 / (4 * (1 - alpha / 2 * 4 / 2))  # of the AR(1) process that the discrete chain is
    assert abs(x.mean() - 1) < 5 * math.sqrt(variance / (2 * n))
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / (2 * n))


def test_a_chain_steps_up_the_gradient_of_log_p_without_bounds() -> None:
    start = torch.full((1, 2), -5.0)
    x = run_chains(Quadratic(), start, lambda _: torch.ones(1, 2), JEMRecipe(steps=1, step_size=0.1, noise_scale=0.25))
    torch.testing.assert_close(x, torch.full((1, 2), -5 + 0.1 * 4 * 6 + 0.25))
    far = run_chains(Quadratic(), start, lambda _: torch.zeros(1, 2), JEMRecipe(steps=1, step_size=1.0))
    assert far.min() > 1, "a step of 1 overshoots, and nothing clips it"


# Scores


def test_px_is_the_logsumexp_of_the_logits() -> None:
    images = pictures()
    with torch.no_grad():
        logits = network()(inputs(images)).double().numpy()
    np.testing.assert_allclose(system().score(images), np.log(np.exp(logits).sum(axis=1)), rtol=1e-5)


def test_py_is_the_largest_class_probability() -> None:
    images = pictures()
    probabilities = system().classify(images)
    assert probabilities.shape == (6, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(system(score="py").score(images), probabilities.max(axis=1), rtol=1e-5)


def test_pxgrad_is_minus_the_norm_of_the_gradient() -> None:
    images = pictures()
    scores = system(score="pxgrad").score(images)
    x = inputs(images).requires_grad_(True)
    (gradient,) = torch.autograd.grad(network()(x).logsumexp(1).sum(), x)
    np.testing.assert_allclose(scores, -gradient.flatten(1).norm(dim=1), rtol=1e-5)
    # The suite asks for the gradient of a score with x in [0, 1]: twice that for x in [-1, 1].
    np.testing.assert_allclose(system().score_gradient_norm(images), -2 * scores, rtol=1e-4)


def test_the_gradient_of_pxgrad_is_that_of_differences() -> None:
    system_ = system(score="pxgrad")
    pixels = ((inputs(pictures(1)) + 1) * 127.5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(system_.log_density(pixels, [0]).sum(), pixels)
    step = 0.05 * gradient / gradient.norm()
    with torch.no_grad():
        moved = [system_.log_density(pixels + sign * step, [0]).item() for sign in (1, -1)]
    assert (moved[0] - moved[1]) / 2 == pytest.approx(0.05 * gradient.norm().item(), rel=0.05)


def test_noise_is_keyed_by_the_image_and_shows_in_the_protocol() -> None:
    images = pictures()
    quiet, loud = system(), system(noise=0.2)
    x = inputs(images) + 0.2 * normal(0, content_keys(images), "scored", (3, 8, 8))
    with torch.no_grad():
        np.testing.assert_allclose(loud.score(images), network()(x).logsumexp(1), rtol=1e-5)
    assert not np.allclose(quiet.score(images), loud.score(images))
    np.testing.assert_allclose(loud.score(images[::-1])[::-1], loud.score(images), rtol=1e-6)
    assert "no noise" in quiet.protocol["estimator"]
    assert "noise of sd 0.2" in loud.protocol["estimator"]
    assert quiet.fingerprint != loud.fingerprint


def test_every_score_has_its_own_protocol() -> None:
    protocols = [system(score=name).protocol["score"] for name in ("px", "py", "pxgrad")]
    assert len(set(protocols)) == 3
    scores = [system(score=name).score(pictures()) for name in ("px", "py", "pxgrad")]
    assert not any(np.allclose(scores[i], scores[i - 1]) for i in range(3))


def test_a_score_depends_on_its_image_alone() -> None:
    images, scores = pictures(), system().score(pictures())
    assert scores.std() > 1e-3
    alone = JEMSystem(network(), JEMRecipe(), batch_size=1).score(images)
    np.testing.assert_allclose(alone, scores, rtol=1e-5)


# Samples


def test_a_sample_depends_on_its_seed_alone() -> None:
    images = system().sample([3, 4, 5])
    assert (images.dtype, images.shape) == (np.dtype(np.uint8), (3, 8, 8, 3))
    again = np.concatenate([system().sample([seed]) for seed in (3, 4, 5)])
    assert np.abs(images.astype(int) - again).max() <= 1
    assert not np.array_equal(images[0], images[1])


def test_chains_raise_the_density_of_samples() -> None:
    start, end = system(steps=0), system(steps=60, noise_scale=0.0)
    assert (end.score(end.sample(range(4))) > start.score(start.sample(range(4)))).all()


@pytest.mark.parametrize(("option", "value"), [("steps", 9), ("step_size", 9.0), ("noise_scale", 0.2)])
def test_every_option_of_a_chain_takes_effect(option: str, value: Any) -> None:
    other = system(**{option: value})
    assert not np.array_equal(system().sample([1]), other.sample([1]))
    assert system().fingerprint == other.fingerprint, "a chain decides no score"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score": "pygrad"}, r"score 'pygrad': unknown\. Did you mean 'pxgrad'"),
        ({"noise": -0.1}, "noise -0.1"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"steps": -1}, "steps -1"),
    ],
)
def test_a_wrong_recipe_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        JEMRecipe(**wrong)


# Training


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, 100)


def config(tmp_path: Path) -> Config:
    path = tmp_path / "jem-tiny.toml"
    path.write_text(CONFIG)
    return read_config("jem", str(path))


def run(tmp_path: Path, images: np.ndarray, labels: np.ndarray | None, name: str = "run", **options: Any) -> Any:
    changed = options.pop("training", {})
    read = config(tmp_path)
    read = replace(read, training=replace(read.training, **changed))
    return train(read, images, tmp_path / name, labels=labels, command="train", progress=False, **options)


def task(tmp_path: Path, images: np.ndarray, labels: np.ndarray, **training: Any) -> JEMTask:
    read = config(tmp_path)
    return JEMTask(replace(read, training=replace(read.training, **training)), images, labels, 0, torch.device("cpu"))


def gradients(loss: Tensor, task: JEMTask) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(task.network.parameters())))


@pytest.mark.parametrize("chain_steps", [0, 3])
def test_the_gradient_is_that_of_data_minus_that_of_chains(tmp_path, images, labels, chain_steps) -> None:
    made = task(tmp_path, images, labels, ce_weight=0.0, chain_steps=chain_steps, fresh_share=0.5, chains=5)
    torch.manual_seed(1)
    found = gradients(made.loss(1)[0], made)
    made = task(tmp_path, images, labels, chain_steps=chain_steps, fresh_share=0.5, chains=5)
    torch.manual_seed(1)
    x_plus = noisy(made.images(1), 0.03)
    _, start = made.buffer.draw(5)
    x_minus = run_chains(made.network, 2 * start - 1, lambda _: torch.randn(start.shape), made.options.chain)
    plus, minus = (gradients(energy(made.network(x)).mean(), made) for x in (x_plus, x_minus))
    assert max(value.abs().max() for value in found) > 1e-3
    for one, a, b in zip(found, plus, minus, strict=True):
        torch.testing.assert_close(one, a - b, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_sum_of_its_terms(tmp_path, images, labels) -> None:
    def loss(**weights: float) -> float:
        made = task(tmp_path, images, labels, **{"ce_weight": 0.0, "px_weight": 0.0, "energy_l2": 0.0, **weights})
        torch.manual_seed(1)
        return made.loss(1)[0].item()

    whole = loss(ce_weight=2.0, px_weight=3.0, energy_l2=0.5)
    assert whole == pytest.approx(2 * loss(ce_weight=1) + 3 * loss(px_weight=1) + 0.5 * loss(energy_l2=1), rel=1e-4)
    made = task(tmp_path, images, labels)
    torch.manual_seed(1)
    x = noisy(made.images(1), 0.03)
    p = made.network(x).softmax(dim=1)
    cross_entropy = -p[torch.arange(8), made.batches.labels_of(1)].log().mean().item()
    assert loss(ce_weight=1) == pytest.approx(cross_entropy, rel=1e-4)


def test_chains_are_continued_in_the_buffer(tmp_path, images, labels) -> None:
    made = task(tmp_path, images, labels, fresh_share=0.0, chains=5)
    before = made.buffer.images.clone()
    torch.manual_seed(1)
    made.loss(1)
    moved = (made.buffer.images != before).flatten(1).any(dim=1)
    assert moved.sum() == 5
    step = (made.buffer.images.float() - before.float())[moved] * 2  # of x in [-1, 1]
    assert step.std() > 0.5 * math.sqrt(2) * 0.01


@torch.no_grad()
def test_noisy_images_are_around_their_bytes() -> None:
    torch.manual_seed(0)
    bytes_ = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    difference = noisy(bytes_, 0.03) - (bytes_.float() / 127.5 - 1)
    assert difference.std() == pytest.approx(0.03, rel=0.03)
    assert abs(difference.mean()) < 0.002


def test_accuracy_is_the_share_that_is_right() -> None:
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_training_moves_the_weights_and_says_how_it_went(tmp_path, images, labels) -> None:
    checkpoint = load_checkpoint(run(tmp_path, images, labels))
    read = JEMSystem.from_checkpoint(checkpoint)
    validation = checkpoint.card["training"]["validation"]
    held_out = read.classify(images[-20:]).argmax(axis=1)
    assert validation["accuracy"] == pytest.approx((held_out == labels[-20:]).mean(), abs=0.051)
    assert validation["score_mean"] == pytest.approx(read.score(images[-20:]).mean(), abs=0.05)
    assert checkpoint.card["training"]["updates"] == 6
    assert all(np.isfinite(value) for value in checkpoint.card["training"]["final"].values())


def test_labels_are_trained_on_and_those_held_out_are_not(tmp_path, images, labels) -> None:
    weights = [run(tmp_path, images, labels).read_bytes()]
    for name, changed in (("held", slice(80, None)), ("trained", slice(80))):
        other = labels.copy()
        other[changed] = (other[changed] + 1) % 4
        weights.append(run(tmp_path, images, other, name=name).read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    with pytest.raises(UserError, match="has no labels, which jem trains on"):
        run(tmp_path, images, None, name="none")


def test_a_classifier_learns_its_classes(tmp_path, labels) -> None:
    """Four grey levels, one per class."""
    flat = np.repeat((labels * 60 + 30).astype(np.uint8), 8 * 8 * 3).reshape(100, 8, 8, 3)
    how = {"learning_rate": 3e-3, "chain_steps": 1, "warmup": 1, "batch_size": 32, "px_weight": 0.1, "energy_l2": 0.1}
    made = task(tmp_path, flat, labels, **how)
    made.config = replace(made.config, schedule=replace(made.config.schedule, steps=1000))
    for step in range(1, 81):
        torch.manual_seed(step)
        made.step(step)
    assert made.validate(flat, labels)["accuracy"] > 0.9


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, images, labels, monkeypatch) -> None:
    whole = run(tmp_path, images, labels, name="whole")
    spoil = lambda task: task.buffer.images.zero_()  # an update that was cut off half-way
    assert_resumes_exactly(partial(run, tmp_path, images, labels), whole, JEMTask, monkeypatch, spoil)


def test_the_guard_stops_an_exploding_energy(tmp_path, images, labels, capsys) -> None:
    assert run(tmp_path, images, labels, training={"max_energy": 1e-9}) is None
    assert "the limit (max_energy) is 1e-09" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 1e-2),
        ("warmup", 4),
        ("clip_norm", 1e-3),
        ("ema_decay", 0.0),
        ("bf16", True),
        ("ce_weight", 0.5),
        ("px_weight", 0.5),
        ("energy_l2", 0.1),
        ("px_start", 3),
        ("sigma", 0.3),
        ("chains", 3),
        ("chain_steps", 5),
        ("step_size", 5.0),
        ("noise_scale", 0.1),
        ("buffer_size", 16),
        ("fresh_share", 1.0),
    ],
)
def test_every_option_takes_effect(tmp_path, images, labels, option, value) -> None:
    assert_differ(task(tmp_path, images, labels), task(tmp_path, images, labels, **{option: value}), 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": -1.0}, r"training\.sigma = -1, needed at least 0"),
        ({"chains": -1}, r"training\.chains = -1"),
        ({"buffer_size": 7, "batch_size": 8}, r"training\.buffer_size = 7, needed at least 8"),
        ({"buffer_size": 7, "chains": 9}, r"training\.buffer_size = 7, needed at least 9"),
        ({"fresh_share": 1.5}, r"training\.fresh_share = 1.5"),
        ({"step_size": 0.0}, "step_size must be positive"),
    ],
)
def test_a_wrong_training_option_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        JEMTraining(**wrong)
