"""From the command line to exported checkpoints: both stages, resume, a kept update by number, and refusals."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_images

from vaebm import cli
from vaebm.__main__ import main
from vaebm.checkpoints import load_checkpoint, load_weights, save_official
from vaebm.checkpoints.models import build_nvae, load_model
from vaebm.energy import EnergyConfig, EnergyNetwork
from vaebm.nvae import NVAEConfig
from vaebm.training import loop, stages
from vaebm.training.stages import Settings, export, make_task, read_nvae
from vaebm.training.vae import VAETraining

CONFIG = """
dataset = "cifar10"
size = "mini"
validation = 8
[nvae]
image_size = 8
channels_enc = 4
channels_dec = 4
latents_per_group = 2
groups_per_scale = [1, 2]
preprocess_cells = 1
postprocess_cells = 1
cells_per_group_enc = 1
cells_per_group_dec = 1
[vae]
steps = 3
batch_size = 8
[vae_output]
log_every = 1
[energy]
channels = 4
blocks = [[1, true], [2, false]]
[ebm]
steps = 4
batch_size = 8
chain_steps = 1
[ebm_output]
log_every = 1
checkpoint_every = 2
keep_every = 2
preview_every = 0
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, small pictures in place of CIFAR-10, and no drawing."""
    monkeypatch.setattr(stages, "load_images", lambda *_, **__: SimpleNamespace(images=tiny_images(40)))
    monkeypatch.setattr(loop._Log, "plot", lambda *_: None)
    monkeypatch.setattr(stages, "choose_steps", partial(stages.choose_steps, n=64, ladder=(0, 2)))
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return tmp_path


def train(place: Path, stage: str, *more: str, out: str = "") -> int:
    arguments = [
        "train",
        stage,
        "--config",
        str(place / "tiny.toml"),
        "--out",
        str(place / (out or stage)),
        "--no-progress",
        *more,
    ]
    if stage == "ebm" and "--vae-from" not in more:
        arguments += ["--vae-from", str(place / "vae")]
    return cli.run(main, arguments)


@pytest.fixture
def trained_vae(place: Path) -> Path:
    assert train(place, "vae") == 0
    return place / "vae" / "nvae-tiny.safetensors"


def test_stage_one_exports_averaged_weights_with_a_card_that_says_how_they_came_about(trained_vae: Path) -> None:
    checkpoint = load_checkpoint(trained_vae)
    card = checkpoint.card
    assert (checkpoint.kind, card["size"], card["dataset"]) == ("nvae", "mini", "cifar10")
    assert card["training"]["update"] == 3
    assert card["training"]["settings"]["batch_size"] == 8
    assert card["training"]["validation"]["images"].startswith("8 ")
    assert "--out" not in card["training"]["command"]
    assert "tiny.toml" in card["training"]["command"]
    average = torch.load(trained_vae.parent / "checkpoint.pt", weights_only=True)["ema"]["shadow"]
    for name, value in checkpoint.part("nvae").items():
        torch.testing.assert_close(value, average[name], rtol=1e-3, atol=1e-3)
    assert build_nvae(checkpoint, "run").config.groups_per_scale == (1, 2)


def test_stage_two_exports_its_energy_beside_the_nvae_it_was_trained_against(place: Path, trained_vae: Path) -> None:
    assert train(place, "ebm", "--seed", "3", "--ebm.noise", "0.01") == 0
    checkpoint = load_checkpoint(place / "ebm" / "vaebm-tiny.safetensors")
    card = checkpoint.card
    assert (checkpoint.kind, card["training"]["seed"], card["training"]["settings"]["noise"]) == ("vaebm", 3, 0.01)
    assert (card["sampling"]["step_size"], card["sampling"]["target"]) == (5e-4, "paper")
    assert card["sampling"]["steps"] in (0, 2)  # of the ladder of the selection rule
    beside = load_checkpoint(place / "ebm" / card["nvae"]["file"])
    assert beside.card["sha256"] == card["nvae"]["sha256"] == load_checkpoint(trained_vae).card["sha256"]
    energy = EnergyNetwork(EnergyConfig.from_json(card["architecture"]["energy"]))
    load_weights(energy, checkpoint.part("energy"), "here")
    assert energy(torch.rand(2, 3, 8, 8)).shape == (2,)


def test_a_kept_update_can_be_exported_by_its_number(place: Path, trained_vae: Path, capsys) -> None:
    assert train(place, "ebm") == 0
    target = place / "picked" / "e.safetensors"
    target.parent.mkdir()
    assert cli.run(main, ["export", str(place / "ebm"), "--step", "2", "--to", str(target)]) == 0
    early, late = load_checkpoint(target), load_checkpoint(place / "ebm" / "vaebm-tiny.safetensors")
    assert (early.card["training"]["update"], late.card["training"]["update"]) == (2, 4)
    assert any(not torch.equal(value, late.weights[name]) for name, value in early.weights.items())
    capsys.readouterr()
    assert cli.run(main, ["export", str(place / "ebm"), "--step", "3", "--to", str(target)]) == 2
    assert "update 3 was not kept (kept: 2, 4)" in capsys.readouterr().err


def test_interrupted_run_exits_130_and_resumes_to_the_same_weights(place: Path, trained_vae: Path, monkeypatch) -> None:
    assert train(place, "ebm", out="whole") == 0
    step = stages.EBMTask.step

    def stopping(self, number: int) -> dict[str, float]:
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(stages.EBMTask, "step", stopping)
    assert train(place, "ebm", out="stopped") == 130
    assert not (place / "stopped" / "vaebm-tiny.safetensors").exists()
    monkeypatch.setattr(stages.EBMTask, "step", step)
    assert train(place, "ebm", "--resume", out="stopped") == 0
    whole, resumed = (load_checkpoint(place / name / "vaebm-tiny.safetensors") for name in ("whole", "stopped"))
    assert whole.card["sha256"] == resumed.card["sha256"]
    assert whole.card["training"]["final"] == resumed.card["training"]["final"]


def test_resume_with_other_settings_or_another_nvae_is_refused(place: Path, trained_vae: Path, capsys) -> None:
    assert train(place, "ebm") == 0
    capsys.readouterr()
    assert train(place, "ebm", "--resume", "--ebm.step_size", "0.01") == 2
    assert "settings.ebm.step_size is now 0.01" in capsys.readouterr().err
    assert train(place, "vae", "--seed", "1", out="other") == 0
    capsys.readouterr()
    assert train(place, "ebm", "--resume", "--vae-from", str(place / "other")) == 2
    assert "nvae_sha256" in capsys.readouterr().err


def test_resume_takes_the_same_settings_in_other_words(place: Path, trained_vae: Path, capsys) -> None:
    command = load_checkpoint(trained_vae).card["training"]["command"]
    capsys.readouterr()
    assert train(place, "vae", "--resume", "--vae.steps", "3") == 0
    assert capsys.readouterr().out == f"{trained_vae}\n"
    assert load_checkpoint(trained_vae).card["training"]["command"] == command


def test_existing_run_is_refused_and_left_alone(place: Path, trained_vae: Path, capsys) -> None:
    before = {p.name: p.read_bytes() for p in trained_vae.parent.iterdir()}
    assert train(place, "vae", "--seed", "9") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in trained_vae.parent.iterdir()} == before


def test_diverged_run_exports_its_last_good_state_and_says_so_on_the_card(
    place: Path, trained_vae: Path, monkeypatch
) -> None:
    step = stages.EBMTask.step

    def poisoned(self, number: int) -> dict[str, float]:
        values = step(self, number)
        return {**values, "gap": float("nan")} if number == 4 else values

    monkeypatch.setattr(stages.EBMTask, "step", poisoned)
    train(place, "ebm")
    card = load_checkpoint(place / "ebm" / "vaebm-tiny.safetensors").card
    assert card["training"]["update"] == 2
    assert "gap became non-finite" in card["training"]["stopped"]


@pytest.mark.parametrize("found", ["nothing", "two", "energy"])
def test_what_is_no_nvae_is_refused_by_its_flag(place: Path, trained_vae: Path, found: str, capsys) -> None:
    source = place / "source"
    source.mkdir()
    if found == "two":
        for name in ("a", "b"):
            (source / f"{name}.safetensors").touch()
    if found == "energy":
        assert train(place, "ebm") == 0
        source = place / "ebm" / "vaebm-tiny.safetensors"
    capsys.readouterr()
    assert train(place, "ebm", "--vae-from", str(source), out="new") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --vae-from ")
    assert err.count("\n") == 1
    assert not (place / "new").exists()


def test_validation_images_are_never_trained_on(place: Path, monkeypatch) -> None:
    images = np.zeros((40, 8, 8, 3), np.uint8)
    images[32:] = 255
    monkeypatch.setattr(stages, "load_images", lambda *_, **__: SimpleNamespace(images=images))
    settings = Settings(
        validation=8,
        nvae=NVAEConfig(image_size=8, channels_enc=4, channels_dec=4, groups_per_scale=(1,)),
        vae=VAETraining(batch_size=8),
    )
    task = make_task("vae", settings, 0, torch.device("cpu"), None, None)
    assert len(task.batches.images) == 32
    assert task.batches.images.max() == 0


def test_a_run_folder_stands_for_its_one_checkpoint(trained_vae: Path) -> None:
    assert read_nvae(trained_vae.parent).card == read_nvae(trained_vae).card


def test_stage_two_trains_on_an_official_nvae_as_it_is(place: Path, trained_vae: Path) -> None:
    nvae = build_nvae(load_checkpoint(trained_vae), "run")
    with torch.no_grad():
        for parameter in nvae.parameters():
            parameter.mul_(1 + 1e-5)  # no longer a number of 16 bits
    save_official(nvae, place / "checkpoint.pt")
    assert train(place, "ebm", "--vae-from", str(place / "checkpoint.pt")) == 0
    model = load_model(str(place / "ebm" / "vaebm-tiny.safetensors")).model
    for name, value in nvae.state_dict().items():
        assert torch.equal(model.nvae.state_dict()[name], value)


def test_export_of_a_float16_run_needs_no_gpu(place: Path, trained_vae: Path) -> None:
    record = trained_vae.parent / "run.json"
    recorded = json.loads(record.read_text())
    recorded["settings"]["vae"]["precision"] = "fp16"
    record.write_text(json.dumps(recorded))
    exported = export(trained_vae.parent, place / "again.safetensors")
    assert load_checkpoint(exported).card["training"]["settings"]["precision"] == "fp16"
