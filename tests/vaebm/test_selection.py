"""The selection rule: a Frechet distance, a ladder of steps, and nothing but held-out images."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm import cli
from vaebm.__main__ import main
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.energy import EnergyNetwork
from vaebm.errors import UserError
from vaebm.model import VAEBM, ChainSettings
from vaebm.training import loop, stages
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.selection import Candidate, choose_steps, frechet_distance, reduce_images, write_selection
from vaebm.training.stages import Output, Run, Settings, train


def test_distance_of_a_set_to_itself_is_zero_and_a_shift_costs_its_square() -> None:
    a = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.array([1, 0, 2, 0])) == pytest.approx(5)


def test_distance_agrees_with_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s_a @ s_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_images_are_reduced_to_block_means() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert reduce_images(x)[0, 0] == pytest.approx(x[0, 0, :2, :2].mean().item())
    assert reduce_images(x).shape == (1, 16)


@pytest.fixture(scope="module")
def model() -> VAEBM:
    torch.manual_seed(0)
    return VAEBM(lively_nvae(), EnergyNetwork(TINY_ENERGY)).eval().requires_grad_(False)


def test_the_rule_takes_the_rung_with_the_smallest_distance(model: VAEBM) -> None:
    steps, found = choose_steps(model, tiny_images(80), ChainSettings(9, 1e-2), n=64, ladder=(0, 1, 3), batch_size=40)
    assert [candidate.steps for candidate in found] == [0, 1, 3]
    assert steps == min(found, key=lambda candidate: candidate.distance).steps


def test_a_rung_is_the_chain_of_that_many_steps(model: VAEBM) -> None:
    held_out = tiny_images(80)
    _, together = choose_steps(model, held_out, ChainSettings(1, 1e-2), n=64, ladder=(0, 2, 4), batch_size=64)
    _, alone = choose_steps(model, held_out, ChainSettings(1, 1e-2), n=64, ladder=(2,), batch_size=64)
    assert together[1] == alone[0]


def test_samples_that_are_the_held_out_images_win(model: VAEBM) -> None:
    chain = ChainSettings(3, 5e-2)
    images = model.sample(range(64), chain).clamp(0, 1)
    held_out = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    steps, found = choose_steps(model, held_out, chain, n=64, ladder=(0, 3, 30), batch_size=64)
    assert steps == 3
    assert found[1].distance < 0.01 * found[0].distance
    assert found[1].relative_gap == pytest.approx(0, abs=0.05)


def test_a_rung_whose_samples_are_not_finite_is_left_out(model: VAEBM) -> None:
    steps, found = choose_steps(model, tiny_images(80), ChainSettings(1, 1e60), n=64, ladder=(0, 4))
    assert [candidate.steps for candidate in found] == [steps] == [0]


def test_features_of_ones_own_take_the_place_of_the_block_means(model: VAEBM) -> None:
    held_out, chain = tiny_images(80), ChainSettings(1, 1e-2)
    brightness = lambda x: x.mean((2, 3)).double().numpy()
    _, (own,) = choose_steps(model, held_out, chain, n=64, ladder=(2,), features=brightness)
    _, (blocks,) = choose_steps(model, held_out, chain, n=64, ladder=(2,))
    *_, state = model.trajectory(range(64), ChainSettings(2, 1e-2))
    samples = model.decode(state)[1].distribution.mean.clamp(0, 1)
    expected = frechet_distance(brightness(samples), held_out.mean((1, 2)) / 255)
    assert own.distance == pytest.approx(expected, abs=1e-4)
    assert own.distance != blocks.distance


def test_the_choice_is_kept_with_everything_it_was_made_from(tmp_path: Path) -> None:
    found = {5: [Candidate(4, 0.5, 0.1)], 10: [Candidate(2, 0.25, 0.0)]}
    write_selection(tmp_path / "s.json", found, rule="distance", update=10, steps=2, n=64, seed=3)
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "rule": "distance",
        "update": 10,
        "steps": 2,
        "n": 64,
        "seed": 3,
        "candidates": [
            {"update": 5, "steps": 4, "distance": 0.5, "relative_gap": 0.1},
            {"update": 10, "steps": 2, "distance": 0.25, "relative_gap": 0.0},
        ],
    }


# The rule on a run: python -m vaebm export RUN --select RULE

EXPORT = ["--samples", "64", "--to"]


@pytest.fixture(scope="module")
def patched() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "load_images", lambda *_, **__: SimpleNamespace(images=tiny_images(100)))
        patch.setattr(stages, "choose_steps", partial(choose_steps, ladder=(0, 2)))
        patch.setattr(loop._Log, "plot", lambda *_: None)
        yield


def settings(**ebm: Any) -> Settings:
    training = EBMTraining(**{"batch_size": 8, "chain_steps": 1, "learning_rate": 1e-2, "guard_window": 3, **ebm})
    return Settings(
        size="mini",
        validation=60,
        nvae=TINY_NVAE,
        energy=TINY_ENERGY,
        ebm=training,
        ebm_output=Output(1, 2, 2, 0),
    )


def train_energy(folder: Path, opens_at: int = 0, resume: bool = False, **ebm: Any) -> Path | None:
    """Train stage 2 in ``folder/run`` for 10 updates; the reported gap is 0, and 9 from update ``opens_at`` on."""
    nvae = folder / "nvae.safetensors"
    if not nvae.exists():
        weights = torch.nn.ModuleDict({"nvae": lively_nvae()}).state_dict()
        save_checkpoint(nvae, weights, {"kind": "nvae", "architecture": {"nvae": TINY_NVAE.to_json()}})
    with pytest.MonkeyPatch.context() as patch:
        step = EBMTask.step
        gap = lambda number: 9.0 if opens_at and number >= opens_at else 0.0
        patch.setattr(EBMTask, "step", lambda self, number: {**step(self, number), "gap": gap(number)})
        run = Run(folder / "run", "e", "train", progress=False, vae=nvae, resume=resume)
        return train("ebm", settings(steps=10, **ebm), run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, patched: None) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train_energy(folder)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, patched: None) -> Path:
    """The gap opens at 9, which is seen at once: 2 was proven at 5, 4 at 7, 6 would be at 9."""
    folder = tmp_path_factory.mktemp("stopped")
    train_energy(folder, opens_at=9)
    return folder


@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        ("e.pt", [], "needed a .safetensors file"),
        ("folder.safetensors", [], "needed a .safetensors file"),
        ("file/e.safetensors", [], "cannot be written"),
        ("e.safetensors", ["--samples", "1"], "--samples 1: needed at least 2"),
    ],
)
def test_a_wrong_place_or_number_is_one_line_and_writes_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, arguments: list[str], said: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code = cli.run(main, ["export", str(finished / "run"), *EXPORT, str(tmp_path / target), *arguments])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert said in error
    assert sorted(tmp_path.rglob("*")) == before


def export(folder: Path, *arguments: str) -> tuple[dict, dict]:
    """Export and return the card's training section and the selection file."""
    target = folder / "out" / "e.safetensors"
    target.parent.mkdir(exist_ok=True)
    assert cli.run(main, ["export", str(folder / "run"), *EXPORT, str(target), *arguments]) == 0
    return (
        load_checkpoint(target).card["training"],
        json.loads(target.with_suffix(".selection.json").read_text()),
    )


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    target = folder / "refused.safetensors"
    assert cli.run(main, ["export", str(folder / "run"), "--to", str(target), *arguments]) == 2
    assert not target.exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_without_a_rule_the_newest_state_is_taken_as_ever(finished: Path) -> None:
    training, choice = export(finished)
    assert (training["update"], training["selection"], training["validation"]["rule"]) == (10, "newest", "docs/ood.md")
    assert "guard" not in training
    assert (choice["rule"], choice["update"], choice["n"]) == ("newest", 10, 64)
    assert {candidate["update"] for candidate in choice["candidates"]} == {10}


def test_the_guard_s_rule_takes_the_newest_state_with_a_full_window_after_it(finished: Path, stopped: Path) -> None:
    training, choice = export(finished, "--select", "guard")
    assert (training["update"], training["selection"], choice["rule"]) == (6, "guard", "guard")
    assert training["validation"]["rule"] == "docs/ood.md, --select guard"
    assert export(stopped, "--select", "guard")[0]["update"] == 4


def test_the_distance_s_rule_takes_the_nearest_of_all_healthy_states_and_steps(finished: Path) -> None:
    training, choice = export(finished, "--select", "distance")
    assert [(c["update"], c["steps"]) for c in choice["candidates"]] == [
        (update, steps) for update in (2, 4, 6) for steps in (0, 2)
    ]
    best = min(choice["candidates"], key=lambda candidate: candidate["distance"])
    assert (choice["update"], choice["steps"]) == (best["update"], best["steps"]) == (training["update"], best["steps"])
    assert training["validation"]["samples_distance_4x4"] == best["distance"]
    assert load_checkpoint(finished / "out" / "e.safetensors").card["sampling"]["steps"] == best["steps"]


def test_number_of_samples_decides_the_distance(finished: Path) -> None:
    few, many = (export(finished, "--samples", n)[1] for n in ("64", "80"))
    assert (few["n"], many["n"]) == (64, 80)
    assert few["candidates"][0]["distance"] != many["candidates"][0]["distance"]


def test_the_card_of_a_stopped_run_says_what_the_guard_saw(stopped: Path) -> None:
    training, _ = export(stopped)
    assert training["update"] == 2
    assert "update 2: healthy" in training["stopped"]
    assert training["guard"]["use"]["update"] == 2
    (alarm,) = training["guard"]["alarms"]
    assert (alarm["update"], alarm["back_to"], alarm["then"]) == (9, 2, "stopped")
    assert "seen" not in alarm


def test_a_stopped_run_is_resumed_with_more_retries_by_the_same_command(tmp_path: Path, patched: None) -> None:
    train_energy(tmp_path, opens_at=9)
    path = train_energy(tmp_path, resume=True, guard_retries=1)
    assert path is not None
    training = load_checkpoint(path).card["training"]
    assert training["update"] == 10
    assert "stopped" not in training
    assert (training["guard"]["state"], training["guard"]["rate_scale"]) == ("finished", 0.5)
    with pytest.raises(UserError, match=r"guard_limit is now 0\.2"):
        train_energy(tmp_path, resume=True, guard_limit=0.2)


def test_a_rule_and_an_update_together_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--step 2 names an update and --select guard" in refused(
        finished, capsys, "--step", "2", "--select", "guard"
    )
    assert "update 3 was not kept (kept: 2, 4, 6, 8, 10)" in refused(finished, capsys, "--step", "3")
    training, choice = export(finished, "--step", "4")
    assert (training["update"], training["selection"], choice["rule"]) == (4, "step", "step")


def test_an_unknown_rule_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "distance" in refused(finished, capsys, "--select", "eye")


def test_a_run_without_a_healthy_state_says_so(
    tmp_path: Path, patched: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train_energy(tmp_path, guard_window=30)
    for rule in ("guard", "distance"):
        assert "followed by 30 updates without an alarm" in refused(tmp_path, capsys, "--select", rule)


def test_an_unguarded_run_says_so(tmp_path: Path, patched: None, capsys: pytest.CaptureFixture[str]) -> None:
    train_energy(tmp_path, guard_window=0)
    assert "guard_window = 0" in refused(tmp_path, capsys, "--select", "guard")
    for name in ("checkpoint.pt", "step-000004.pt"):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        next(iter(state["ema"]["shadow"].values())).fill_(float("nan"))
        torch.save(state, tmp_path / "run" / name)
    assert "energies are not finite" in refused(tmp_path, capsys)
    assert "energies are not finite" in refused(tmp_path, capsys, "--step", "4")


def test_states_of_an_older_version_can_still_be_exported(tmp_path: Path, patched: None) -> None:
    train_energy(tmp_path)
    newest = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(newest, weights_only=True)
    torch.save({key: part for key, part in state.items() if key not in ("ledger", "watched")}, newest)
    assert export(tmp_path)[0]["update"] == 10
    assert export(tmp_path, "--select", "guard")[0]["update"] == 6
    assert train_energy(tmp_path, resume=True) is not None
