"""Training of the baselines: strict configurations, exact resume, the guard, the exported card and the command line."""

import json
import tomllib
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_checks import assert_differ, assert_resumes_exactly

from baselines.__main__ import main
from baselines.glow import GlowSystem, bits_per_dim
from baselines.igebm import IGEBMSystem
from baselines.training.config import CONFIGS, read_config
from baselines.training.glow import GlowTask
from baselines.training.igebm import IGEBMTask
from baselines.training.replay import ReplayBuffer
from baselines.training.run import train
from baselines.training.task import mutated, set_learning_rate
from vaebm.checkpoints import load_checkpoint
from vaebm.data import load_images
from vaebm.errors import UserError

torch.set_num_threads(1)

GLOW = """
kind = "glow"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
levels = 2
steps = 1
width = 8
[sampling]
temperature = 0.7
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
IGEBM = """
kind = "igebm"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
width = 4
[sampling]
steps = 2
[training]
batch_size = 8
warmup = 2
buffer_size = 32
chain_steps = 2
[schedule]
steps = 6
log_every = 1
checkpoint_every = 3
preview_every = 3
"""
CHECKPOINTS = CONFIGS.parent / "checkpoints"
KINDS = {"glow": (GLOW, GlowTask, GlowSystem), "igebm": (IGEBM, IGEBMTask, IGEBMSystem)}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


def config(kind: str, tmp_path, **changes: str):
    text = KINDS[kind][0]
    for old, new in changes.items():
        text = text.replace(f"{old} =", f"{old} = {new} #")
    path = tmp_path / f"{kind}-tiny.toml"
    path.write_text(text)
    return read_config(kind, str(path))


def run(kind: str, tmp_path, images, name="run", **options):
    return train(config(kind, tmp_path), images, tmp_path / name, command="train", progress=False, **options)


def parameter_of(task):
    return next(iter(task.network.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_weights_and_exports_them(kind, tmp_path, images):
    path = run(kind, tmp_path, images)
    assert path == tmp_path / "run" / f"{kind}-tiny.safetensors"
    checkpoint = load_checkpoint(path)
    system = KINDS[kind][2].from_checkpoint(checkpoint)
    assert np.isfinite(system.score(images[:4])).all()
    assert system.sample([0]).shape == (1, 8, 8, 3)
    about = checkpoint.card["training"]
    assert about["updates"] == 6
    assert about["seed"] == 0
    assert about["validation"]["images"].startswith("the last 20 ")
    assert all(np.isfinite(value) for value in about["final"].values())
    assert str(tmp_path) not in path.with_suffix(".json").read_text()
    assert {p.name for p in (tmp_path / "run").glob("samples-*.png")} == {"samples-000003.png", "samples-000006.png"}


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_images_are_not_trained_on(kind, tmp_path, images):
    path = run(kind, tmp_path, images)
    images[-20:] = 0
    again = run(kind, tmp_path, images, name="again")
    assert path.read_bytes() == again.read_bytes()
    images[0] = 0
    other = run(kind, tmp_path, images, name="other")
    assert path.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one(kind, tmp_path, images, monkeypatch):
    whole = run(kind, tmp_path, images, name="whole")
    spoil = lambda task: parameter_of(task).add_(1)  # an update that was cut off half-way
    assert_resumes_exactly(partial(run, kind, tmp_path, images), whole, KINDS[kind][1], monkeypatch, spoil)
    other = run(kind, tmp_path, images, name="other", seed=1)
    assert other.read_bytes() != whole.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_guard_stops_on_nan_and_keeps_the_last_good_state(kind, tmp_path, images, monkeypatch, capsys):
    task = KINDS[kind][1]
    step = task.step

    def poisoned(self, number):
        if number == 5:
            with torch.no_grad():
                parameter_of(self).fill_(float("nan"))
        return step(self, number)

    monkeypatch.setattr(task, "step", poisoned)
    checkpoint = load_checkpoint(run(kind, tmp_path, images))
    assert checkpoint.card["training"]["updates"] == 3
    assert "stopped at update 5" in checkpoint.card["training"]["stopped"]
    assert np.isfinite(list(checkpoint.card["training"]["final"].values())).all()
    assert checkpoint.card["training"]["final"]
    assert (tmp_path / "run" / "stopped.txt").exists()
    assert all(value.isfinite().all() for value in checkpoint.weights.values())
    assert "stopped at update 5" in capsys.readouterr().err


def test_the_guard_stops_an_exploding_energy(tmp_path, images, capsys):
    assert (
        train(
            config("igebm", tmp_path, chain_steps="2\nmax_energy = 1e-9"),
            images,
            tmp_path / "run",
            command="",
            progress=False,
        )
        is None
    )
    assert "the limit (max_energy) is 1e-09" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_configuration(tmp_path, images):
    run("glow", tmp_path, images)
    with pytest.raises(UserError, match="already holds a run"):
        run("glow", tmp_path, images)
    with pytest.raises(UserError, match=r"training\.warmup is now 4, but the run .* was started with 2"):
        train(config("glow", tmp_path, warmup="4"), images, tmp_path / "run", command="", progress=False, resume=True)
    with pytest.raises(UserError, match="seed is now 1"):
        run("glow", tmp_path, images, resume=True, seed=1)


def test_images_must_fit_the_configuration(tmp_path):
    with pytest.raises(UserError, match=r"\(4, 4, 3\).*\(8, 8, 3\)"):
        run("glow", tmp_path, np.zeros((50, 4, 4, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "option", ["learning_rate", "clip_norm", "ema_decay", "bf16", "warmup", "batch_size", "mutation"]
)
def test_every_glow_option_takes_effect(tmp_path, images, option):
    values = {
        "learning_rate": 1e-2,
        "clip_norm": 1e-3,
        "ema_decay": 0.0,
        "bf16": True,
        "warmup": 4,
        "batch_size": 4,
        "mutation": 0.3,
    }
    _assert_effect("glow", tmp_path, images, option, values[option])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 1e-2),
        ("warmup", 4),
        ("clip_norm", 1e-3),
        ("energy_l2", 0.0),
        ("buffer_size", 16),
        ("fresh_share", 1.0),
        ("chain_steps", 5),
        ("step_size", 1.0),
        ("noise_scale", 0.1),
        ("gradient_clip", 1e-4),
        ("bf16", True),
    ],
)
def test_every_igebm_option_takes_effect(tmp_path, images, option, value):
    _assert_effect("igebm", tmp_path, images, option, value)


def _assert_effect(kind, tmp_path, images, option, value):
    before = config(kind, tmp_path)
    after = replace(before, training=replace(before.training, **{option: value}))
    tasks = [KINDS[kind][1](each, images, None, 0, torch.device("cpu")) for each in (before, after)]
    assert_differ(*tasks, 4)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.3, 0.25, 0.35), (1.0, 1, 1)])
def test_fresh_share_of_the_buffer_restarts(share, low, high):
    torch.manual_seed(0)
    buffer = ReplayBuffer(2000, (3, 2, 2), share)
    buffer.images.fill_(0.5)
    chosen, x = buffer.draw(2000)
    assert len(chosen.unique()) == 2000
    restarted = (x != 0.5).flatten(1).all(dim=1).float().mean().item()
    assert low <= restarted <= high
    assert 0 <= x.min() <= x.max() <= 1


def test_buffer_continues_where_chains_stopped():
    torch.manual_seed(0)
    buffer = ReplayBuffer(8, (3, 2, 2), 0.0)
    chosen, _ = buffer.draw(3)
    buffer.put(chosen, torch.full((3, 3, 2, 2), 0.25))
    assert (buffer.images == 0.25).flatten(1).all(dim=1).nonzero().flatten().tolist() == sorted(chosen.tolist())
    copy = ReplayBuffer(8, (3, 2, 2), 0.0)
    copy.load_state_dict(buffer.state_dict())
    assert torch.equal(copy.images, buffer.images)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(CHECKPOINTS.glob("*.safetensors")) if path.stem.partition("-")[0] in KINDS],
    ids=lambda path: path.stem,
)
def test_bundled_checkpoints_are_what_their_cards_say(path):
    checkpoint = load_checkpoint(path)
    assert path.stat().st_size <= 4 * 2**20
    bundled = read_config(checkpoint.kind, path.stem.removeprefix(f"{checkpoint.kind}-"))
    # A card may be older than an option: then the option's default is what was done before there was one.
    for recorded, now in (
        (checkpoint.card["sampling"], bundled.sampling),
        (checkpoint.card["architecture"], bundled.architecture),
        (checkpoint.card["training"]["config"]["training"], bundled.training),
    ):
        assert {**json.loads(json.dumps(asdict(type(now)()))), **recorded} == json.loads(json.dumps(asdict(now)))
    system = KINDS[checkpoint.kind][2].from_checkpoint(checkpoint)
    real = load_images("cifar10", n=64).images
    noise = np.random.default_rng(0).integers(0, 256, real.shape, dtype=np.uint8)
    assert system.score(real).min() > system.score(noise).max()
    if checkpoint.kind == "glow":
        claimed = checkpoint.card["training"]["validation"]["bits_per_dim"]
        assert bits_per_dim(system.score(real).mean(), real[0].size) == pytest.approx(claimed, abs=0.3)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_bundled_configurations_are_complete(path):
    kind, _, name = path.stem.partition("-")
    read = read_config(kind, name)
    table = tomllib.loads(path.read_text())
    assert read.training.batch_size == table["training"]["batch_size"]
    assert read.name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("warmup = 2", "warmpu = 2", r"\[training\]: unknown key 'warmpu'. Did you mean 'warmup'"),
        ("width = 8", "width = 8.5", r"\[architecture\]: width = 8.5, needed int"),
        ("steps = 6", 'steps = "6"', r"\[schedule\]: steps = '6', needed int"),
        ("steps = 6", "", r"\[schedule\]: .*steps"),
        ("batch_size = 8", "batch_size = 0", r"training.batch_size = 0, needed at least 1"),
        ("warmup = 2", "ema_decay = 1.5", r"training.ema_decay = 1.5, needed at least 0 and at most 1"),
        ('size = "mini"', "", "'size' is missing"),
        ('size = "mini"', 'size = "mini"\nsise = 1', "unknown key 'sise'"),
        ("[sampling]", "[smapling]", "unknown key 'smapling'"),
        ("temperature = 0.7", "temperature = 7", "temperature 7"),
        ('kind = "glow"', 'kind = "igebm"', "is for 'igebm', not 'glow'"),
        ("[sampling]", "[sampling", "not a TOML file"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, old, new, message):
    path = tmp_path / "a.toml"
    path.write_text(GLOW.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_config("glow", str(path))


def test_the_buffer_must_hold_a_batch(tmp_path):
    with pytest.raises(UserError, match=r"training.buffer_size = 4, needed at least 8"):
        config("igebm", tmp_path, buffer_size="4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "glwo", "--config", "mini-cifar10"], "unknown kind 'glwo'. Did you mean 'glow'?"),
        (["train", "glow", "--config", "mini-cifra10"], "Did you mean 'mini-cifar10'?"),
        (
            ["train", "glow", "--config", "mini-cifar10", "--stesp", "3"],
            "unknown option '--stesp'. Did you mean '--steps'?",
        ),
        (["train", "glow", "--config", "mini-cifar10", "--steps", "0"], "--steps 0: needed at least 1"),
        (["train", "glow", "--config", "mini-cifar10", "--steps", "few"], "few"),
        (["train", "glow", "--config", "mini-cifar10", "--device", "abacus"], "--device abacus: not available"),
        (["train", "glow"], "--config"),
        (["trian", "glow"], "trian"),
    ],
)
def test_command_line_mistakes_exit_with_two_and_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ")
    assert streams.err.count("\n") == 1
    assert message in streams.err
    assert not (tmp_path / "run").exists()


def test_command_line_trains_and_resumes(tmp_path, images, capsys, monkeypatch):
    monkeypatch.setattr("vaebm.data.load_images", lambda *_, **__: SimpleNamespace(images=images, labels=None))
    path = tmp_path / "tiny.toml"
    path.write_text(GLOW)
    arguments = [
        "train",
        "glow",
        "--config",
        str(path),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "2",
        "--no-progress",
    ]
    assert main(arguments) == 0
    exported = tmp_path / "run" / "tiny.safetensors"
    assert capsys.readouterr().out == f"{exported}\n"
    card = json.loads(exported.with_suffix(".json").read_text())
    assert card["training"]["command"] == "python -m baselines train glow --config tiny.toml --seed 0 --steps 2"
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_a_share_of_the_values_is_replaced_by_uniform_ones(rate):
    torch.manual_seed(0)
    images = torch.full((20, 3, 32, 32), 100, dtype=torch.uint8)
    found = mutated(images, rate)
    assert found.dtype == torch.uint8
    changed = found[found != 100].double()
    n = images.numel() * rate * 255 / 256  # one in 256 draws is the old value
    assert abs(len(changed) - n) <= 5 * n**0.5
    if rate:
        assert abs(changed.mean() - 127.6) < 5 * 74 / n**0.5
        assert (changed.min(), changed.max()) == (0, 255)


def test_learning_rate_warms_up_and_decays():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    for step in range(1, 101):
        set_learning_rate(optimizer, 2.0, step, 10, 100)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(2.0, rel=0.03)
    assert rates[-1] < 0.001
