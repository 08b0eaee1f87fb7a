"""IGEBM: chains reach known moments, kernels have spectral norm 1, ensembles average, scores and samples depend on their
image alone, and every option of network, recipe, buffer and training takes effect."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from training_checks import assert_resumes_exactly

from baselines.igebm import (
    IGEBM,
    Block,
    IGEBMArchitecture,
    IGEBMRecipe,
    IGEBMSystem,
    LangevinRecipe,
    langevin,
    run_chains,
)
from baselines.load import load_system
from baselines.training.config import read_config
from baselines.training.igebm import IGEBMTask
from baselines.training.replay import ReplayBuffer
from baselines.training.run import train
from evaluators.protocols import StepSampler
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.data import load_images
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal

torch.set_num_threads(1)

SHORT = IGEBMRecipe(steps=3)
TINY = IGEBMArchitecture((8, 8, 3), width=4)


def tiny(seed=0, **changes) -> IGEBM:
    torch.manual_seed(seed)
    energy = IGEBM(replace(TINY, **changes))
    with torch.no_grad():
        for state in (energy, *energy.history):
            state.last.weight.mul_(50)  # energies far enough apart for a test to tell
    return energy.eval()


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def save(energy: IGEBM, path, **options):
    architecture = {"image_shape": [8, 8, 3], "width": 4}
    sampling = {"steps": 3, "step_size": 10.0, "noise_scale": 0.005, "gradient_clip": 0.01}
    card = {"kind": "igebm", "size": "mini", "dataset": "cifar10", "architecture": architecture, "sampling": sampling}
    save_checkpoint(path, energy.state_dict(), card, **options)
    return load_checkpoint(path)


def quadratic(x):
    """Precision 4, mean 1: the density is N(1, 1/4)."""
    return 2 * (x - 1).square().sum(dim=1)


def test_langevin_has_the_moments_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    step_size, precision, n = 0.05, 4.0, 20_000
    x = langevin(
        quadratic,
        torch.zeros(n, 2),
        lambda _: torch.randn(n, 2, generator=generator),
        steps=100,
        step_size=step_size,
        noise_scale=math.sqrt(2 * step_size),
    )
    # The discrete chain is an AR(1) process: its variance is exact in the step size, and tends to 1 / precision as
    # that tends to 0.
    variance = 1 / (precision * (1 - step_size * precision / 2))
    standard_error = math.sqrt(variance / (2 * n))
    assert abs(x.mean() - 1) < 5 * standard_error
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / (2 * n))


def test_langevin_takes_its_steps():
    x = langevin(quadratic, torch.zeros(1, 1), lambda _: torch.zeros(1, 1), steps=7, step_size=0.1, noise_scale=1.0)
    assert x.item() == pytest.approx(1 - 0.6**7)
    start = torch.zeros(1, 1)
    assert langevin(quadratic, start, lambda _: torch.ones(1, 1), steps=0, step_size=0.1, noise_scale=1.0).item() == 0


def test_gradient_clip_and_bounds_take_effect():
    def run(**limits):
        return langevin(
            quadratic, torch.zeros(1, 1), lambda _: torch.zeros(1, 1), steps=5, step_size=0.1, noise_scale=1.0, **limits
        ).item()

    assert run(gradient_clip=0.5) == pytest.approx(5 * 0.1 * 0.5)
    assert run(bounds=(0.0, 0.3)) == pytest.approx(0.3)
    assert run() == pytest.approx(1 - 0.6**5)


def test_noise_is_asked_for_step_by_step():
    asked = []

    def noise(k):
        asked.append(k)
        return torch.ones(1, 1)

    x = langevin(lambda x: 0 * x.sum(dim=1), torch.zeros(1, 1), noise, steps=4, step_size=1.0, noise_scale=0.25)
    assert asked == [0, 1, 2, 3]
    assert x.item() == pytest.approx(1.0)


def test_chains_lower_the_energy_and_stay_images():
    energy, x = tiny(), torch.rand(8, 3, 8, 8)
    after = run_chains(energy, x, lambda _: torch.randn(x.shape), LangevinRecipe(steps=30))
    assert 0 <= after.min() <= after.max() <= 1
    assert not after.requires_grad
    with torch.no_grad():
        assert (energy(after) < energy(x)).all()
    assert all(parameter.grad is None for parameter in energy.parameters())


def test_spectral_norm_of_every_kernel_is_one():
    energy = tiny().train()
    with torch.no_grad():
        for parameter in energy.blocks.parameters():
            parameter.mul_(3)
        for _ in range(100):
            energy(torch.rand(1, 3, 8, 8))
    energy.eval()
    kernels = [module.weight for module in energy.modules() if isinstance(module, nn.Conv2d)]
    assert len(kernels) == 11
    for kernel in kernels:
        assert torch.linalg.matrix_norm(kernel.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_evaluation_changes_nothing():
    energy = tiny()
    before = {name: value.clone() for name, value in energy.state_dict().items()}
    system = IGEBMSystem(energy, SHORT)
    first = system.score(pictures())
    system.sample([1, 2])
    assert np.array_equal(system.score(pictures()), first)
    assert any(name.endswith("_u") for name in before)
    assert all(torch.equal(value, before[name]) for name, value in energy.state_dict().items())


def test_score_depends_on_the_image_alone():
    images, system = pictures(), IGEBMSystem(tiny(), SHORT)
    scores = system.score(images)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    assert scores.std() > 1e-3
    np.testing.assert_allclose(IGEBMSystem(tiny(), SHORT, batch_size=1).score(images), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        IGEBMSystem(tiny(), SHORT, batch_size=4).score(images[::-1]), scores[::-1], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_score_is_minus_the_energy_of_bytes_over_255():
    images = pictures(2)
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(IGEBMSystem(tiny(), SHORT).score(images), -tiny()(x).numpy(), rtol=1e-6)


def test_sample_depends_on_its_seed_alone():
    system = IGEBMSystem(tiny(), SHORT)
    images = system.sample([3, 4, 5])
    assert images.dtype == np.uint8
    assert images.shape == (3, 8, 8, 3)
    alone = IGEBMSystem(tiny(), SHORT, batch_size=1).sample([5, 4, 3])[::-1]
    assert np.abs(images.astype(int) - alone).max() <= 1
    assert not np.array_equal(images[0], images[1])
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_checkpoint_round_trip(tmp_path):
    energy, images = tiny(), pictures()
    expected = IGEBMSystem(energy, SHORT).score(images)
    system = IGEBMSystem.from_checkpoint(save(energy, tmp_path / "a.safetensors"))
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-6)
    half = IGEBMSystem.from_checkpoint(save(energy, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(images), expected, rtol=1e-2, atol=1e-2)
    assert half.fingerprint != system.fingerprint


@pytest.mark.parametrize(
    ("option", "value"), [("steps", 9), ("step_size", 30.0), ("noise_scale", 0.05), ("gradient_clip", 0.1)]
)
def test_every_option_takes_effect(tmp_path, option, value):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    published, other = (
        IGEBMSystem.from_checkpoint(checkpoint),
        IGEBMSystem.from_checkpoint(checkpoint, **{option: value}),
    )
    assert not np.array_equal(published.sample([1]), other.sample([1]))
    assert published.recipe != other.recipe
    assert published.fingerprint == other.fingerprint, "a chain decides no score"


def test_mistakes_are_named(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'step'.*steps"):
        IGEBMSystem.from_checkpoint(checkpoint, step=3)
    with pytest.raises(UserError, match="must be positive"):
        IGEBMSystem.from_checkpoint(checkpoint, step_size=0.0)
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        IGEBMSystem(tiny(), SHORT).score(np.zeros((2, 8, 8, 3), dtype=np.float32))
    with pytest.raises(UserError, match=r"sampling.score_noise -0.1: needed at least 0"):
        IGEBMSystem.from_checkpoint(checkpoint, score_noise=-0.1)
    with pytest.raises(UserError, match="divisible by 8"):
        IGEBMArchitecture((12, 12, 3))
    for blocks in ((1, 1), (1, -1, 0)):
        with pytest.raises(UserError, match=r"architecture.blocks .*: needed three numbers, none negative"):
            replace(TINY, blocks=blocks)
    with pytest.raises(UserError, match=r"architecture.ensemble 0: needed at least 1"):
        replace(TINY, ensemble=0)


# The bundled network, and other sizes


def test_the_bundled_checkpoint_scores_and_samples_as_it_did_before_it_had_options():
    """Numbers recorded with the first version of this file."""
    system = load_system("igebm")
    scores = system.score(load_images("cifar10", n=4, size=(32, 32)).images)
    recorded = [-0.004878632724285126, 0.02016550861299038, 0.014830727130174637, 0.0139120789244771]
    np.testing.assert_allclose(scores, recorded, rtol=0, atol=2e-6)
    assert system.protocol == {
        "score": "-E(x)",
        "estimator": "unnormalised log density, x = bytes / 255 without noise",
    }
    image = load_system("igebm", steps=3).sample([3])[0].astype(int)
    corner = [
        [[163, 200, 135], [130, 201, 75], [127, 238, 215]],
        [[121, 78, 244], [154, 217, 173], [81, 224, 78]],
        [[135, 134, 42], [173, 124, 35], [163, 59, 69]],
    ]
    assert np.abs(image[:3, :3] - corner).max() <= 1
    assert abs(image.sum() - 391736) < 100  # without its three steps it is 12 levels away in every pixel


def test_the_default_network_is_the_first_one():
    """Its blocks, channels and the resolutions at which they compute."""
    energy, seen = IGEBM(IGEBMArchitecture(width=4)), []
    for block in energy.blocks:
        block.first.register_forward_hook(
            lambda layer, inputs, _: seen.append((layer.in_channels, inputs[0].shape[-1]))
        )
    energy(torch.rand(1, 3, 32, 32))
    assert seen == [(4, 16), (4, 8), (8, 8), (8, 4)]
    assert [name for name in energy.state_dict() if "history" in name] == []


def test_the_published_network_has_its_blocks_at_full_resolution():
    energy, seen = IGEBM(IGEBMArchitecture(width=4, blocks=(2, 2, 2), full_resolution=True)), []
    for block in energy.blocks:
        block.first.register_forward_hook(
            lambda layer, inputs, _: seen.append((layer.in_channels, layer.out_channels, inputs[0].shape[-1]))
        )
    assert energy(torch.rand(2, 3, 32, 32)).shape == (2,)
    expected = [
        (4, 4, 32),
        (4, 4, 16),
        (4, 4, 16),
        (4, 8, 16),
        (8, 8, 8),
        (8, 8, 8),
        (8, 16, 8),
        (16, 16, 4),
        (16, 16, 4),
    ]
    assert seen == expected
    assert energy.stem.weight.shape[-1] == 3


def test_a_block_pools_before_or_after_its_convolutions():
    torch.manual_seed(0)
    before, after = Block(2, 4, down=True).eval(), Block(2, 4, down=True, pool_last=True).eval()
    after.load_state_dict(before.state_dict())
    x, pool = torch.randn(1, 2, 8, 8), nn.AvgPool2d(2)
    plain = Block(2, 4, down=False).eval()
    plain.load_state_dict(before.state_dict())
    torch.testing.assert_close(before(x), plain(pool(x)))
    torch.testing.assert_close(after(x), pool(plain(x)))
    assert not torch.allclose(before(x), after(x))


@pytest.mark.parametrize("changes", [{"width": 8}, {"blocks": (1, 1, 1)}, {"full_resolution": True}, {"ensemble": 2}])
def test_every_option_of_the_network_takes_effect(changes):
    images = pictures()
    assert (IGEBMSystem(tiny(**changes), SHORT).score(images) != IGEBMSystem(tiny(), SHORT).score(images)).all()


# Ensembles


@torch.no_grad()
def test_the_energy_of_an_ensemble_is_the_mean():
    energy, x = tiny(ensemble=3), torch.rand(5, 3, 8, 8)
    apart = torch.stack([energy.newest(x), *(state(x) for state in energy.history)])
    assert len(apart) == 3
    assert (apart[0] - apart[1]).abs().min() > 1e-3
    torch.testing.assert_close(energy(x), apart.mean(dim=0))


def test_an_ensemble_of_one_state_repeated_is_that_state():
    alone, energy, images = tiny(), tiny(seed=1, ensemble=3), pictures()
    energy.load_state_dict({**energy.state_dict(), **alone.state_dict()})
    energy.remember(alone.state_dict(), everywhere=True)
    system, single = IGEBMSystem(energy, SHORT), IGEBMSystem(alone, SHORT)
    np.testing.assert_allclose(system.score(images), single.score(images), rtol=1e-5)
    assert np.abs(system.sample([1, 2]).astype(int) - single.sample([1, 2])).max() <= 1
    assert "mean energy of 3 states" in system.protocol["estimator"]
    assert "mean" not in single.protocol["estimator"]


def test_the_memory_of_an_ensemble_is_a_queue():
    energy, states = tiny(ensemble=4), [tiny(seed).state_dict() for seed in (1, 2, 3, 4)]
    for state in states:
        energy.remember(state)
    for place, state in zip(energy.history, states[:0:-1], strict=True):
        assert all(torch.equal(value, state[name]) for name, value in place.state_dict().items())


# Steps on the way and noise on scores


def test_images_on_the_way_are_those_of_shorter_chains():
    system = IGEBMSystem(tiny(), IGEBMRecipe(steps=9))
    assert isinstance(system, StepSampler)
    found = system.sample_steps([3, 1], (4, 0, 9))
    assert sorted(found) == [0, 4, 9]
    for steps, images in found.items():
        np.testing.assert_array_equal(images, IGEBMSystem(tiny(), IGEBMRecipe(steps=steps)).sample([3, 1]))
    assert system.sample_steps([], (1, 2))[2].shape == (0, 8, 8, 3)
    with pytest.raises(UserError, match="the others not negative"):
        system.sample_steps([1], (-1, 2))


def test_score_noise_is_added_and_named():
    images, energy = pictures(), tiny()
    system = IGEBMSystem(energy, IGEBMRecipe(score_noise=0.1))
    n = normal(0, content_keys(images), "score_noise", (3, 8, 8))
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255 + 0.1 * n
    with torch.no_grad():
        np.testing.assert_allclose(system.score(images), -energy(x).numpy(), rtol=1e-5)
    plain = IGEBMSystem(energy, IGEBMRecipe())
    assert "plus noise of standard deviation 0.1" in system.protocol["estimator"]
    assert (system.score(images) != plain.score(images)).all()
    assert system.fingerprint != plain.fingerprint
    np.testing.assert_array_equal(system.sample([1]), plain.sample([1]))


# Buffer


def test_a_queue_starts_empty_and_drops_the_oldest():
    torch.manual_seed(0)
    buffer = ReplayBuffer(6, (1, 1, 1), 0.0, fifo=True)
    buffer.images.fill_(0.9)
    _, x = buffer.draw(1000)
    assert (x != 0.9).all()  # nothing is there yet: all start afresh
    put = lambda *values: buffer.put(
        torch.zeros(len(values), dtype=torch.long), torch.tensor(values)[:, None, None, None]
    )
    put(0.125, 0.25)
    chosen, x = buffer.draw(1000)  # more than there are: chains go on as several
    assert set(x.flatten().tolist()) == {0.125, 0.25}
    assert set(chosen.tolist()) == {0, 1}
    put(0.375, 0.5, 0.625, 0.75)
    put(0.0, 1.0)
    assert buffer.images.flatten().tolist() == [0.0, 1.0, 0.375, 0.5, 0.625, 0.75]
    copy = ReplayBuffer(6, (1, 1, 1), 0.0, fifo=True)
    copy.load_state_dict(buffer.state_dict())
    assert torch.equal(copy.images, buffer.images)
    assert copy.seen == 8


def test_chains_restart_where_they_are_told_to():
    buffer = ReplayBuffer(1000, (1, 1, 1), 0.3)
    buffer.images.fill_(0.5)
    _, x = buffer.draw(1000, torch.full((1000, 1, 1, 1), 0.25))
    assert set(x.flatten().tolist()) == {0.25, 0.5}
    assert 200 < (x == 0.25).sum() < 400


# Training

CONFIG = """
kind = "igebm"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
width = 4
ensemble = 3
[sampling]
steps = 2
[training]
batch_size = 8
learning_rate = 1e-2
warmup = 0
buffer_size = 16
chain_steps = 2
history_every = 2
[schedule]
steps = 6
log_every = 1
checkpoint_every = 2
preview_every = 3
"""


def config(tmp_path, text=CONFIG):
    path = tmp_path / "igebm-tiny.toml"
    path.write_text(text)
    return read_config("igebm", str(path))


def run(tmp_path, name="run", **options):
    return train(config(tmp_path), pictures(50), tmp_path / name, command="train", progress=False, **options)


def trained(tmp_path, option="", steps=4, **network):
    """The task after a few updates, with one training option set otherwise."""
    text = CONFIG.replace("history_every", f"{option}\nhistory_every")
    if (name := option.split(" ")[0]) and f"\n{name} " in CONFIG:
        text = CONFIG.replace(f"\n{name} =", f"\n{option} #")
    settings = config(tmp_path, text)
    settings = replace(settings, architecture=replace(settings.architecture, **network))
    task = IGEBMTask(settings, pictures(50), None, 0, torch.device("cpu"))
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        task.step(step)
    return task


@pytest.mark.parametrize(
    "option",
    [
        "positive_noise = 0.1",
        "negative_noise = 0.1",
        "energy_l2 = 5.0",
        "fresh_share = 0.9",
        'fresh_start = "data"',
        "fifo = true",
        "chain_steps = 4",
        "step_size = 100.0",
        "noise_scale = 0.1",
        "gradient_clip = 1e-5",
        "buffer_size = 32",
        "ema_decay = 0.9",
        "history_every = 1",
        "bf16 = true",
    ],
)
def test_every_training_option_takes_effect(tmp_path, option):
    if option == "gradient_clip = 1e-5":  # where it bites: the steps are large
        plain, other = (
            trained(tmp_path, "step_size = 1e3", 4),
            trained(tmp_path, "step_size = 1e3\ngradient_clip = 1e-5", 4),
        )
    else:
        # A restart from data shows once something restarts
        share = "\nfresh_share = 0.9" if "start" in option else ""
        plain, other = trained(tmp_path, share.strip()), trained(tmp_path, option + share)
    plain, other = plain.weights(), other.weights()
    assert plain.keys() == other.keys()
    assert any(not torch.equal(plain[name], other[name]) for name in plain), option


def test_chains_that_restart_from_data_are_near_it(tmp_path):
    """With every chain restarted and none moved, the negatives are the positives' equals."""
    still = "fresh_share = 1.0\nstep_size = 1e-9\nnoise_scale = 0.0"
    task = trained(tmp_path, f'fresh_start = "data"\n{still}', 1)
    kept = task.buffer.images[task.buffer.images.float().var(dim=(1, 2, 3)) > 0].float()
    images = task.batches.images.float() / 255
    nearest = torch.cdist(kept.flatten(1), images.flatten(1)).amin(dim=1)
    assert (nearest.sort().values[:8] < 0.05).all()  # one batch of chains; the others still are uniform noise
    assert (nearest.sort().values[8:] > 1).all()


def test_an_ensemble_holds_the_states_that_training_passed(tmp_path):
    """After 6 updates with 2 between states: the states after 6, 4 and 2 updates."""
    weights = trained(tmp_path, steps=6).weights()
    for prefix, steps in (("", 6), ("history.0.", 4), ("history.1.", 2)):
        # A single network sees the same gradients, as only the newest state is trained and only it moves the chains.
        alone = trained(tmp_path, steps=steps, ensemble=3).network
        for name, value in alone.state_dict().items():
            if not name.startswith("history."):
                assert torch.equal(weights[prefix + name], value), prefix + name


def test_an_ensemble_of_averaged_weights_holds_averages(tmp_path):
    task = trained(tmp_path, "ema_decay = 0.9", 3)
    name = "last.weight"
    earlier = trained(tmp_path, "ema_decay = 0.9", 2)
    assert torch.equal(task.weights()[f"history.0.{name}"], earlier.ema.shadow[name])
    assert not torch.equal(task.weights()[f"history.0.{name}"], earlier.network.state_dict()[name])


def test_an_ensemble_trains_saves_loads_and_resumes(tmp_path, monkeypatch):
    whole = run(tmp_path, "whole")
    checkpoint = load_checkpoint(whole)
    system = IGEBMSystem.from_checkpoint(checkpoint)
    assert len(system.network.history) == 2
    assert np.isfinite(system.score(pictures())).all()
    assert_resumes_exactly(partial(run, tmp_path), whole, IGEBMTask, monkeypatch, at=4)


def test_training_options_out_of_range_are_named(tmp_path):
    for option, said in {
        "positive_noise = -1.0": "training.positive_noise = -1, needed at least 0",
        "negative_noise = -1.0": "training.negative_noise = -1, needed at least 0",
        "energy_l2 = -1.0": "training.energy_l2 = -1, needed at least 0",
        'fresh_start = "dta"': "training.fresh_start 'dta': unknown.*Did you mean.*data",
        "history_every = 0": "training.history_every = 0, needed at least 1",
        "history_every = 3": r"schedule.steps 6: an ensemble of 3 states 3 updates apart .*more than 6",
    }.items():
        with pytest.raises(UserError, match=said):
            trained(tmp_path, option)


def test_the_paper_configuration_is_the_published_size():
    settings = read_config("igebm", "paper-cifar10")
    assert settings.architecture == IGEBMArchitecture((32, 32, 3), 128, (2, 2, 2), True, 10)
    with torch.device("meta"):
        energy = IGEBM(replace(settings.architecture, ensemble=1))
    assert sum(p.numel() for p in energy.parameters()) > 10e6
