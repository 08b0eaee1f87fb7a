"""``python -m vaebm sample`` and ``chains`` on tiny checkpoints: options, files, a real kill, and one-line refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_ENERGY, lively_nvae, tiny_images, unit_images
from torch import nn

from vaebm.__main__ import main as vaebm
from vaebm.checkpoints import save_checkpoint, save_official
from vaebm.checkpoints.models import load_model
from vaebm.cli import run
from vaebm.energy import EnergyNetwork, data_dependent_init
from vaebm.errors import UserError
from vaebm.model import VAEBM, ChainSettings
from vaebm.sampling import Sampling, draw_images, on_device

CARD_CHAIN = {"steps": 2, "step_size": 0.05, "target": "paper"}


@pytest.fixture(scope="module")
def model() -> VAEBM:
    torch.manual_seed(1)
    energy = EnergyNetwork(TINY_ENERGY)
    data_dependent_init(energy, unit_images(16))
    return VAEBM(lively_nvae(), energy).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(model: VAEBM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native VAEBM with its NVAE beside it, and the same as an official pair."""
    folder = tmp_path_factory.mktemp("checkpoints")
    common = {"size": "tiny", "dataset": "own", "training": {}}
    nvae = {
        "kind": "nvae",
        "architecture": {"nvae": model.nvae.config.to_json()},
        "sampling": {"temperature": 1.0, "output": "mean"},
    }
    save_checkpoint(folder / "nvae.safetensors", nn.ModuleDict({"nvae": model.nvae}).state_dict(), {**nvae, **common})
    sha256 = json.loads((folder / "nvae.json").read_text())["sha256"]
    card = {
        "kind": "vaebm",
        "architecture": {"energy": model.energy.config.to_json()},
        "sampling": {**CARD_CHAIN, "output": "mean"},
        "nvae": {"file": "nvae.safetensors", "sha256": sha256},
    }
    weights = nn.ModuleDict({"energy": model.energy}).state_dict()
    save_checkpoint(folder / "vaebm.safetensors", weights, {**card, **common})
    save_official(model.nvae, folder / "checkpoint.pt")
    save_official(model.energy, folder / "EBM.pth")
    return folder / "vaebm.safetensors"


@pytest.fixture
def sample(checkpoint: Path, tmp_path: Path) -> Callable[..., np.ndarray]:
    def call(*options: str, source: Path | str = checkpoint, n: int = 5) -> np.ndarray:
        to = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        given = ["--checkpoint", str(source), "--num-images", str(n), "--to", str(to), "--no-progress", *options]
        assert vaebm(["sample", *given]) == 0
        return np.load(to)

    return call


def test_samples_are_the_models_own_with_the_cards_recipe(model: VAEBM, sample: Callable[..., np.ndarray]) -> None:
    expected, _ = draw_images(on_device(model, "cpu"), [*range(5), *[0] * 11], Sampling(ChainSettings(**CARD_CHAIN)))
    assert sample().tobytes() == expected[:5].tobytes()
    assert sample("--batch-size", "1").tobytes() == expected[:5].tobytes()


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        (["--seed", "3"], Sampling(ChainSettings(**CARD_CHAIN), seed=3)),
        (["--steps", "4"], Sampling(ChainSettings(4, 0.05))),
        (["--step-size", "0.2"], Sampling(ChainSettings(2, 0.2))),
        (["--target", "official", "--step-size", "0.2"], Sampling(ChainSettings(2, 0.2, "official"))),
        (["--temperature", "0.5"], Sampling(ChainSettings(2, 0.05, temperature=0.5))),
        (["--metropolis", "--step-size", "0.5"], Sampling(ChainSettings(2, 0.5, metropolis=True))),
        (["--output", "sample"], Sampling(ChainSettings(2, 0.05), "sample")),
        (["--postprocess", "minmax_per_image"], Sampling(ChainSettings(2, 0.05), postprocess="minmax_per_image")),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_option_takes_effect(
    model: VAEBM, sample: Callable[..., np.ndarray], options: list[str], sampling: Sampling
) -> None:
    expected, _ = draw_images(on_device(model, "cpu"), [*range(2), *[0] * 14], sampling)
    usual, _ = draw_images(on_device(model, "cpu"), [*range(2), *[0] * 14], Sampling(ChainSettings(**CARD_CHAIN)))
    assert sample(*options, n=2).tobytes() == expected[:2].tobytes()
    assert (expected[:2] != usual[:2]).any()


def test_nvae_alone_gives_its_own_samples(
    model: VAEBM, checkpoint: Path, sample: Callable[..., np.ndarray], capsys: pytest.CaptureFixture
) -> None:
    expected, _ = draw_images(on_device(model, "cpu"), [*range(3), *[0] * 13], Sampling(ChainSettings(0)))
    for source in (checkpoint.with_name("nvae.safetensors"), checkpoint.with_name("checkpoint.pt")):
        assert sample(source=source, n=3).tobytes() == expected[:3].tobytes()
    arguments = [
        "sample",
        "--checkpoint",
        str(checkpoint.with_name("nvae.safetensors")),
        "--steps",
        "3",
        "--to",
        "x.npy",
    ]
    assert run(vaebm, arguments) == 2
    assert "--steps 3" in capsys.readouterr().err


def test_official_pair_is_sampled_with_the_official_target(
    model: VAEBM, checkpoint: Path, sample: Callable[..., np.ndarray]
) -> None:
    pair = f"{checkpoint.with_name('checkpoint.pt')},{checkpoint.with_name('EBM.pth')}"
    loaded = load_model(pair)
    assert loaded.recipe["target"] == "official"
    assert set(loaded.sha256) == {"checkpoint.pt", "EBM.pth"}
    expected, _ = draw_images(
        on_device(model, "cpu"), [*range(2), *[0] * 14], Sampling(ChainSettings(2, 0.05, "official"))
    )
    assert sample("--steps", "2", "--step-size", "0.05", source=pair, n=2).tobytes() == expected[:2].tobytes()


def test_run_that_is_killed_for_real_continues_to_the_same_file(
    checkpoint: Path, sample: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    target, n = tmp_path / "killed.npz", 320
    arguments = ["sample", "--checkpoint", str(checkpoint), "--num-images", str(n), "--batch-size", "16"]
    arguments += ["--to", str(target), "--steps", "4"]
    command = [sys.executable, "-m", "vaebm", *arguments, "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    shards = lambda: list((tmp_path / "killed.npz.unfinished").glob("*.npz"))
    began = time.monotonic()
    while len(shards()) < 2 and time.monotonic() - began < 60:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    _, progress = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert b"images/s" in progress or b"s/ images" in progress
    assert 2 <= len(shards()) < n / 16
    assert not target.exists()
    assert vaebm([*arguments, "--no-progress"]) == 0
    assert np.load(target)["images"].tobytes() == sample("--steps", "4", n=n).tobytes()


def test_chains_are_kept_and_continued(checkpoint: Path, sample: Callable[..., np.ndarray], tmp_path: Path) -> None:
    chains = str(tmp_path / "chains.npz")
    sample("--steps", "1", "--save-chains", chains)
    assert sample("--steps", "3", "--start-from", chains).tobytes() == sample("--steps", "4").tobytes()


def test_chains_writes_its_table_its_record_and_its_pictures(checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npy"
    np.save(data, tiny_images(10))
    out = tmp_path / "out"
    common = ["--checkpoint", str(checkpoint), "--num-images", "4"]
    assert (
        vaebm(["chains", *common, "--steps", "5", "--metropolis", "--dataset", f"mine={data}", "--out", str(out)]) == 0
    )
    record = json.loads((out / "chains.json").read_text())
    assert record["chain"] == ChainSettings(5, 0.05, metropolis=True).to_json()
    assert record["dataset"].endswith("first 10 test images")
    with (out / "chains.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(record["rows"]) == 6
    for row, recorded in zip(rows, record["rows"], strict=True):
        assert {name: float(value) if value else None for name, value in row.items()} == recorded
    assert float(rows[0]["energy_data_sd"]) > 0
    assert Image.open(out / "chains.png").size[0] > 1000
    assert Image.open(out / "strip.png").size == (6 * 65 - 1, 4 * 65 - 1)
    assert vaebm(["chains", *common, "--steps", "1", "--out", str(tmp_path / "plain")]) == 0
    assert json.loads((tmp_path / "plain" / "chains.json").read_text())["dataset"] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sample", "--checkpoint", "{0}/missing.safetensors", "--to", "x.npz"], "missing.safetensors: no such file"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors,a,b", "--to", "x.npz"], "found 3 files"),
        (["sample", "--checkpoint", "{0}/EBM.pth", "--to", "x.npz"], "an energy network alone"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.npz", "--step-size", "-1"], "step_size"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.npz", "--target", "papr"], "papr"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.npz", "--output", "meen"], "'mean'"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.jpg"], "--to x.jpg"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.npz", "--start-from", "no.npz"], "no.npz"),
        (["sample", "--checkpoint", "{0}/vaebm.safetensors", "--to", "x.npz", "--temprature", "1"], "--temperature"),
        (["chains", "--checkpoint", "{0}/nvae.safetensors", "--out", "x"], "an NVAE alone has no chains"),
        (["chains", "--checkpoint", "{0}/vaebm.safetensors", "--out", "x", "--num-images", "0"], "--num-images 0"),
        (["chains", "--checkpoint", "{0}/vaebm.safetensors", "--out", "x", "--dataset", "cifra10"], "cifar10"),
        (["chains", "--checkpoint", "{0}/vaebm.safetensors", "--out", "x", "--dataset", "mnist"], "1 channels"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(vaebm, [word.format(checkpoint.parent) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_vaebm_needs_the_nvae_it_was_trained_against(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("vaebm.safetensors", "vaebm.json"):
        (tmp_path / name).write_bytes(checkpoint.with_name(name).read_bytes())
    with pytest.raises(UserError, match=r"nvae\.safetensors: no such file"):
        load_model(str(tmp_path / "vaebm.safetensors"))
    card = json.loads(checkpoint.with_name("nvae.json").read_text())
    save_checkpoint(tmp_path / "nvae.safetensors", nn.ModuleDict({"nvae": lively_nvae(seed=9)}).state_dict(), card)
    with pytest.raises(UserError, match=r"another NVAE than nvae\.safetensors"):
        load_model(str(tmp_path / "vaebm.safetensors"))


def test_card_that_lacks_something_is_named(checkpoint: Path, tmp_path: Path) -> None:
    card = json.loads(checkpoint.with_name("nvae.json").read_text())
    del card["sampling"]
    (tmp_path / "nvae.safetensors").write_bytes(checkpoint.with_name("nvae.safetensors").read_bytes())
    (tmp_path / "nvae.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"nvae\.json: not the card of a nvae .*sampling"):
        load_model(str(tmp_path / "nvae.safetensors"))
