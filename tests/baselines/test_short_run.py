"""Short-run EBM: the chain is the published one, training is what is sampled, scores and samples depend on their image alone."""

from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from training_checks import assert_differ, assert_resumes_exactly

from baselines.short_run import (
    ShortRunArchitecture,
    ShortRunNetwork,
    ShortRunRecipe,
    ShortRunSystem,
    short_run,
)
from baselines.training.config import read_config
from baselines.training.run import train
from baselines.training.short_run import ShortRunTask, ShortRunTraining
from evaluators.protocols import Sampler, Scorer, StepSampler
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError

torch.set_num_threads(1)

SHORT = ShortRunRecipe(steps=3, step_size=2.0, noise_scale=0.05)
CONFIG = """
kind = "short_run"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
width = 4
[sampling]
steps = 2
step_size = 2.0
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


class Quadratic:
    """f(x) = -|x - 1|^2 / 2: its gradient is 1 - x."""

    def __call__(self, x):
        return -0.5 * (x - 1).square().flatten(1).sum(dim=1)


def tiny() -> ShortRunNetwork:
    torch.manual_seed(0)
    network = ShortRunNetwork(ShortRunArchitecture((8, 8, 3), width=4))
    with torch.no_grad():
        network.last.weight.mul_(20)  # steep enough for a chain of a few steps to show
    return network.eval()


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def save(network: ShortRunNetwork, path, **options):
    architecture = {"image_shape": [8, 8, 3], "width": 4}
    card = {"kind": "short_run", "size": "mini", "dataset": "cifar10"}
    card |= {"architecture": architecture, "sampling": asdict(SHORT)}
    save_checkpoint(path, network.state_dict(), card, **options)
    return load_checkpoint(path)


def config(tmp_path, text=CONFIG):
    path = tmp_path / "short_run-tiny.toml"
    path.write_text(text)
    return read_config("short_run", str(path))


def run(tmp_path, images, name="run", text=CONFIG, **options):
    return train(config(tmp_path, text), images, tmp_path / name, command="train", progress=False, **options)


@pytest.fixture
def images() -> np.ndarray:
    return pictures(60)


# The chain


def test_chain_has_the_moments_of_its_recursion():
    """With f = -|x - 1|^2 / 2 a step is x <- (1 - s) x + s + t n: mean and variance after K steps are known."""
    s, t, steps, n = 0.1, 0.3, 12, 40_000
    generator = torch.Generator().manual_seed(0)
    start = 2 * torch.rand(n, 1, generator=generator) - 1
    noise = lambda _: torch.randn(n, 1, generator=generator)
    x = short_run(Quadratic(), start, noise, ShortRunRecipe(steps, s, t))
    kept = (1 - s) ** steps
    variance = kept**2 / 3 + t**2 * (1 - kept**2) / (1 - (1 - s) ** 2)
    assert abs(x.mean().item() - (1 - kept)) < 5 * np.sqrt(variance / n)
    assert abs(x.var().item() / variance - 1) < 5 * np.sqrt(2 / n)


def test_published_step_is_x_plus_gradient_plus_a_hundredth_of_noise():
    recipe = ShortRunRecipe(steps=1)
    x = short_run(Quadratic(), torch.full((1, 2), 0.25), lambda _: torch.tensor([[1.0, -1.0]]), recipe)
    assert x.tolist()[0] == pytest.approx([1.01, 0.99])
    assert asdict(ShortRunRecipe()) == {"steps": 100, "step_size": 1.0, "noise_scale": 0.01}


def test_chain_continues_where_it_was_left():
    start, noises = torch.zeros(2, 3), torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    chain = lambda x, steps, done=0: short_run(
        Quadratic(), x, lambda k: noises[done + k], ShortRunRecipe(steps - done, 0.1, 0.5)
    )
    whole = chain(start, 5)
    assert torch.equal(chain(chain(start, 2), 5, done=2), whole)
    assert not torch.equal(chain(start, 2), whole)


def test_chain_climbs_f_and_knows_no_bounds():
    network, x = tiny(), 2 * torch.rand(8, 3, 8, 8) - 1
    after = short_run(network, x, lambda _: torch.zeros_like(x), ShortRunRecipe(20, 0.5, 0.0))
    assert not after.requires_grad
    with torch.no_grad():
        assert (network(after) > network(x)).all()
    assert after.abs().max() > 1
    assert all(parameter.grad is None for parameter in network.parameters())


# The network


def test_network_has_the_published_layers():
    shapes = [
        tuple(value.shape)
        for name, value in ShortRunNetwork(ShortRunArchitecture()).state_dict().items()
        if "weight" in name
    ]
    assert shapes == [(64, 3, 3, 3), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]


@torch.no_grad()
def test_network_is_leaky_relus_between_convolutions():
    network, x = tiny(), 2 * torch.rand(3, 3, 8, 8) - 1
    slope = lambda h: torch.maximum(h, 0.2 * h)
    h = slope(torch.nn.functional.conv2d(x, network.convs[0].weight, network.convs[0].bias, padding=1))
    for conv in network.convs[1:]:
        h = slope(torch.nn.functional.conv2d(h, conv.weight, conv.bias, stride=2, padding=1))
    expected = h.flatten(1) @ network.last.weight.flatten() + network.last.bias
    torch.testing.assert_close(network(x), expected)


# The system


def test_it_scores_samples_and_shows_steps():
    system = ShortRunSystem(tiny(), SHORT)
    assert isinstance(system, Scorer)
    assert isinstance(system, Sampler)
    assert isinstance(system, StepSampler)


def test_score_depends_on_the_image_alone():
    few, system = pictures(), ShortRunSystem(tiny(), SHORT)
    scores = system.score(few)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    assert scores.std() > 1e-3
    np.testing.assert_allclose(ShortRunSystem(tiny(), SHORT, batch_size=1).score(few), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        ShortRunSystem(tiny(), SHORT, batch_size=4).score(few[::-1]), scores[::-1], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_score_is_f_of_bytes_between_minus_one_and_one():
    few = pictures(2)
    x = torch.from_numpy(few).float().permute(0, 3, 1, 2) / 127.5 - 1
    system = ShortRunSystem(tiny(), SHORT)
    np.testing.assert_allclose(system.score(few), tiny()(x).numpy(), rtol=1e-5, atol=1e-6)
    assert system.protocol["score"] == "f(x) = -E(x)"
    assert "2 bytes / 255 - 1 without noise" in system.protocol["estimator"]


def test_sample_depends_on_its_seed_alone():
    system = ShortRunSystem(tiny(), SHORT)
    drawn = system.sample([3, 4, 5])
    assert drawn.dtype == np.uint8
    assert drawn.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(ShortRunSystem(tiny(), SHORT, batch_size=1).sample([5, 4, 3])[::-1], drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(ShortRunSystem(tiny(), SHORT, seed=1).sample([3]), drawn[:1])
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_a_chain_of_no_steps_is_uniform_noise():
    drawn = ShortRunSystem(tiny(), ShortRunRecipe(steps=0)).sample(range(64))
    counts = np.histogram(drawn, bins=4, range=(0, 256))[0] / drawn.size
    assert np.abs(counts - 0.25).max() < 0.02


def test_images_on_the_way_are_those_of_shorter_chains():
    found = ShortRunSystem(tiny(), SHORT).sample_steps([4, 2], (5, 0, 2, 2))
    assert sorted(found) == [0, 2, 5]
    for steps, drawn in found.items():
        alone = ShortRunSystem(tiny(), replace(SHORT, steps=steps)).sample([4, 2])
        np.testing.assert_array_equal(drawn, alone)
    assert not np.array_equal(found[0], found[5])


def test_an_exploded_chain_is_grey():
    wild = ShortRunSystem(tiny(), ShortRunRecipe(steps=3, step_size=3e38))
    with torch.no_grad():
        wild.network.last.weight.mul_(1e6)
    drawn = wild.sample([0])
    assert set(np.unique(drawn)) <= {0, 128, 255}


def test_checkpoint_round_trip(tmp_path):
    network, few = tiny(), pictures()
    expected = ShortRunSystem(network, SHORT).score(few)
    system = ShortRunSystem.from_checkpoint(save(network, tmp_path / "a.safetensors"))
    np.testing.assert_allclose(system.score(few), expected, rtol=1e-6)
    assert system.recipe == asdict(SHORT)
    half = ShortRunSystem.from_checkpoint(save(network, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(few), expected, rtol=1e-2, atol=1e-2)
    assert half.fingerprint != system.fingerprint


@pytest.mark.parametrize(("option", "value"), [("steps", 9), ("step_size", 6.0), ("noise_scale", 0.2)])
def test_every_sampling_option_takes_effect(tmp_path, option, value):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    plain, other = (ShortRunSystem.from_checkpoint(checkpoint, **o) for o in ({}, {option: value}))
    assert not np.array_equal(plain.sample([1]), other.sample([1]))
    assert plain.recipe != other.recipe
    assert (plain.fingerprint, plain.protocol) == (other.fingerprint, other.protocol), "a chain decides no score"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShortRunRecipe(steps=-1), "step_size must be positive, the others not negative"),
        (lambda: ShortRunRecipe(step_size=0.0), "step_size must be positive"),
        (lambda: ShortRunRecipe(noise_scale=-0.1), "the others not negative"),
        (lambda: ShortRunArchitecture((12, 12, 3)), r"image_shape \(12, 12, 3\): needed H = W, divisible by 8"),
        (lambda: ShortRunArchitecture((8, 16, 3)), "needed H = W"),
        (lambda: ShortRunArchitecture((8, 8, 3), width=0), "width 0: needed at least 1"),
        (lambda: ShortRunTraining(data_noise=-1.0), "data_noise = -1, needed at least 0"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_unknown_options_and_other_images_are_refused(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'step'.*steps"):
        ShortRunSystem.from_checkpoint(checkpoint, step=3)
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        ShortRunSystem(tiny(), SHORT).score(np.zeros((2, 8, 8, 3), dtype=np.float32))


# Training


def task_of(chosen, images) -> ShortRunTask:
    return ShortRunTask(chosen, images, None, 0, torch.device("cpu"))


def test_loss_raises_f_on_data_over_f_at_the_end_of_chains(tmp_path, images):
    """With no noise on data and chains of no steps the loss is known: mean f(u) - mean f(x), u uniform."""
    text = CONFIG.replace("steps = 2", "steps = 0", 1).replace("[training]", "[training]\ndata_noise = 0.0")
    task = task_of(config(tmp_path, text), images)
    torch.manual_seed(1)
    x = 2 * task.images(1).float() / 255 - 1
    torch.randn(x.shape)
    u = 2 * torch.rand(x.shape) - 1
    torch.manual_seed(1)
    loss, log = task.loss(1)
    expected = task.network(u).mean() - task.network(x).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert log["samples_square"] == pytest.approx(u.square().mean().item(), rel=1e-5)


def test_training_separates_data_from_its_chains(tmp_path):
    grey = np.full((40, 8, 8, 3), 128, dtype=np.uint8)
    task = task_of(config(tmp_path, CONFIG.replace("steps = 6", "steps = 1000")), grey)
    for step in range(1, 61):
        torch.manual_seed(step)
        log = task.step(step)
    assert log["f_data"] > log["f_samples"]
    system = task.system()
    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    assert system.score(grey[:1])[0] > system.score(noise).max()


def test_training_exports_what_samples_and_resumes_exactly(tmp_path, images, monkeypatch):
    whole = run(tmp_path, images, name="whole")
    checkpoint = load_checkpoint(whole)
    system = ShortRunSystem.from_checkpoint(checkpoint)
    assert system.recipe == {"steps": 2, "step_size": 2.0, "noise_scale": 0.01}
    assert np.isfinite(system.score(images[:4])).all()
    assert checkpoint.card["training"]["updates"] == 6
    assert {"score_mean", "score_std"} <= set(checkpoint.card["training"]["validation"])
    spoil = lambda task: task.network.last.weight.add_(1)  # an update that was cut off half-way
    assert_resumes_exactly(partial(run, tmp_path, images), whole, ShortRunTask, monkeypatch, spoil)
    assert run(tmp_path, images, name="other", seed=1).read_bytes() != whole.read_bytes()


@pytest.mark.parametrize("max_energy", ["1e-9", "nan-weights"])
def test_the_guard_stops_an_exploding_energy(tmp_path, images, monkeypatch, capsys, max_energy):
    text = CONFIG
    if max_energy == "nan-weights":
        prepare = lambda self: self.network.last.weight.data.fill_(float("nan"))
        monkeypatch.setattr(ShortRunTask, "prepare", prepare)
    else:
        text = text.replace("[training]", f"[training]\nmax_energy = {max_energy}")
    assert run(tmp_path, images, text=text) is None
    assert "the limit (max_energy) is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("training", "batch_size", 4),
        ("training", "learning_rate", 1e-2),
        ("training", "warmup", 4),
        ("training", "clip_norm", 1e-3),
        ("training", "ema_decay", 0.9),
        ("training", "bf16", True),
        ("training", "data_noise", 0.3),
        ("sampling", "steps", 4),
        ("sampling", "step_size", 20.0),
        ("sampling", "noise_scale", 0.5),
    ],
)
def test_every_training_option_takes_effect(tmp_path, images, section, option, value):
    """The chain of ``[sampling]`` is the chain of training."""
    before = config(tmp_path)
    after = replace(before, **{section: replace(getattr(before, section), **{option: value})})
    assert_differ(task_of(before, images), task_of(after, images), 3)
