"""The training loop: what it writes, exact resume, divergence, signals; every option of both stages takes effect."""

import csv
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm.energy import EnergyNetwork
from vaebm.errors import UserError
from vaebm.noise import seed_step
from vaebm.nvae import NVAE
from vaebm.training import ebm, loop
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.loop import Diverged, Outcome, Schedule, Task, fit, restore, save_grid
from vaebm.training.vae import VAETask, VAETraining

SCHEDULE = Schedule(6, log_every=1, checkpoint_every=2, keep_every=3, preview_every=4)
CPU = torch.device("cpu")
VAE = VAETraining(steps=6, batch_size=8, warmup_steps=2)
EBM = EBMTraining(
    steps=6,
    batch_size=8,
    warmup_steps=2,
    chain_steps=2,
    buffer_size=12,
    buffer_anneal=2,
    buffer_probability=0.5,
    noise=0.02,
)


def vae_task(training: VAETraining = VAE, weights: int = 0) -> VAETask:
    seed_step(weights, 0)
    return VAETask(NVAE(TINY_NVAE), tiny_images(), training, 0, CPU)


def ebm_task(training: EBMTraining = EBM, weights: int = 0) -> EBMTask:
    nvae = lively_nvae()
    seed_step(weights, 0)
    return EBMTask(nvae, TINY_ENERGY, tiny_images(), training, 0, CPU)


class Toy:
    """A task that adds torch's noise to one weight, and fails or stops where it is told to."""

    batch_size = 2
    rate_scale = 1.0

    def __init__(self, at: int = 0, event: Callable[[], object] = lambda: None, value: float = 1.0) -> None:
        self.module, self.at, self.event, self.value = torch.nn.Linear(1, 1, bias=False), at, event, value
        torch.nn.init.zeros_(self.module.weight)

    def state(self) -> dict[str, torch.nn.Module]:
        return {"module": self.module}

    def step(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            self.module.weight += torch.randn(1, 1)
        if step == self.at:
            self.event()
            return {"weight": self.value, "step_again": float(step)}
        return {"weight": self.module.weight.item(), "step_again": float(step)}

    def preview(self) -> np.ndarray:
        return np.full((3, 4, 4, 1), 7, dtype=np.uint8)


def run(task: Task, folder: Path, schedule: Schedule = SCHEDULE, resume: bool = False) -> Outcome:
    return fit(task, folder, schedule, seed=5, resume=resume, progress=False)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as lines:
        return list(csv.DictReader(lines))


def assert_same(a: object, b: object, where: str = "") -> None:
    """Compare nested states bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def states(task: Task) -> dict[str, object]:
    return {name: part.state_dict() for name, part in task.state().items() if name != "stopwatch"}


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(loop._Log, "plot", lambda *_: None)


# What a run writes


def test_a_run_leaves_a_log_checkpoints_grids_and_curves_and_nothing_partial(tmp_path: Path) -> None:
    task = Toy()
    outcome = run(task, tmp_path / "deep" / "run")
    assert (outcome.step, outcome.stopped, outcome.interrupted) == (6, "", False)
    assert sorted(p.name for p in (tmp_path / "deep" / "run").iterdir()) == [
        "checkpoint.pt",
        "curves.png",
        "log.csv",
        "samples-000004.png",
        "samples-000006.png",
        "step-000003.pt",
        "step-000006.pt",
    ]
    rows = log_of(tmp_path / "deep" / "run")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["weight"]) == task.module.weight.item() == outcome.last["weight"]
    with Image.open(tmp_path / "deep" / "run" / "curves.png") as curves:
        assert curves.size[0] > 100
    with Image.open(tmp_path / "deep" / "run" / "samples-000004.png") as grid:
        assert grid.size == (3 * 5 - 1, 4)


def test_zero_turns_an_output_off_except_the_last(tmp_path: Path) -> None:
    run(Toy(), tmp_path, Schedule(3, 0, 0, 0, 0))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "curves.png",
        "log.csv",
        "samples-000003.png",
    ]
    assert [row["step"] for row in log_of(tmp_path)] == ["3"]


@pytest.mark.usefixtures("no_curves")
def test_kept_states_are_those_of_their_update(tmp_path: Path) -> None:
    run(Toy(), tmp_path)
    other, short = Toy(), Toy()
    assert restore(tmp_path / "step-000003.pt", other) == 3
    run(short, tmp_path / "short", replace(SCHEDULE, steps=3))
    assert_same(states(other), states(short))


def test_grid_places_images_row_by_row_with_white_gaps(tmp_path: Path) -> None:
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    save_grid(images, tmp_path / "grid.png", columns=4)
    with Image.open(tmp_path / "grid.png") as file:
        sheet = np.asarray(file)
    assert sheet.shape == (3 * 3 - 1, 4 * 4 - 1, 3)
    for i in range(10):
        top, left = i // 4 * 3, i % 4 * 4
        assert (sheet[top : top + 2, left : left + 3] == i).all()
    assert (sheet[2] == 255).all()
    assert (sheet[:, 3] == 255).all()
    assert (sheet[6:, 8:] == 255).all()


def test_progress_bar_shows_losses_speed_and_time_on_stderr_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Toy(), tmp_path, SCHEDULE, seed=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err
    assert "img/s" in err
    assert "weight=" in err


# Stops and resumes


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("make", [vae_task, ebm_task])
def test_interrupted_and_resumed_training_equals_the_uninterrupted_bit_for_bit(
    make: Callable[..., Task], tmp_path: Path
) -> None:
    whole = make()
    run(whole, tmp_path / "whole")
    killed = make()
    step = killed.step

    def stopping_step(number: int) -> dict[str, float]:
        values = step(number)
        if number == 4:
            interrupt()  # the weights are already updated, and update 4 was never recorded
        return values

    killed.step = stopping_step
    outcome = run(killed, tmp_path / "killed")
    assert (outcome.step, outcome.interrupted) == (3, True)
    assert "--resume" in outcome.stopped
    assert not (tmp_path / "killed" / "stopped.txt").exists()
    resumed = make(weights=99)  # nothing but the checkpoint decides
    assert run(resumed, tmp_path / "killed", resume=True).step == 6
    assert_same(states(whole), states(resumed))
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "killed")
    assert np.array_equal(whole.preview(), resumed.preview())


@pytest.mark.parametrize("make", [vae_task, ebm_task])
def test_training_is_a_function_of_its_seed(make: Callable[..., EBMTask | VAETask]) -> None:
    first, again, other = (parameters_after(make(), 2, seed) for seed in (1, 1, 2))
    assert not differ(first, again)
    assert differ(first, other)


@pytest.mark.usefixtures("no_curves")
def test_sigterm_stops_like_an_interrupt_and_the_old_handler_returns(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    outcome = run(Toy(at=3, event=lambda: os.kill(os.getpid(), signal.SIGTERM)), tmp_path)
    assert (outcome.step, outcome.interrupted) == (2, True)
    assert signal.getsignal(signal.SIGTERM) is before


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_training_loop as t
task = t.ebm_task()
step = task.step
def stopping(number):
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(number)
task.step = stopping
t.run(task, t.Path({folder!r}))
"""


@pytest.mark.usefixtures("no_curves")
@pytest.mark.slow
def test_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode
        == -signal.SIGKILL
    )
    whole, resumed = ebm_task(), ebm_task()
    run(whole, tmp_path / "whole")
    run(resumed, tmp_path / "killed", resume=True)
    assert_same(states(whole), states(resumed))


@pytest.mark.usefixtures("no_curves")
def test_resume_of_a_finished_run_does_nothing_and_of_no_run_starts_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Toy(), tmp_path, resume=True).step == 6
    assert "no run in" in capsys.readouterr().err
    content = (tmp_path / "checkpoint.pt").read_bytes()
    outcome = run(Toy(at=1, event=interrupt), tmp_path, resume=True)
    assert (outcome.step, outcome.interrupted) == (6, False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    ("at", "told"), [(2, "from the start: nothing was saved yet"), (6, "from update 4, the last one saved")]
)
def test_an_interrupted_run_says_from_where_it_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: int, told: str
) -> None:
    outcome = fit(Toy(at=at, event=interrupt), tmp_path, Schedule(6, checkpoint_every=4), seed=0, progress=False)
    assert outcome.interrupted
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("no_curves")
def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    run(Toy(), tmp_path)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*--out"):
        run(Toy(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*cannot be written"):
        run(Toy(), tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"--out .*cannot be written"):
        run(Toy(), tmp_path / "file")


@pytest.mark.usefixtures("no_curves")
def test_a_damaged_state_is_a_user_error_on_resume(tmp_path: Path) -> None:
    run(Toy(), tmp_path)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:200])
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        run(Toy(), tmp_path, resume=True)


# Divergence


def diverge() -> None:
    raise Diverged("the gap opened")


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (lambda: Toy(5, value=math.nan), "weight became non-finite"),
        (lambda: Toy(5, value=-math.inf), "weight became non-finite"),
        (lambda: Toy(5, diverge), "the gap opened"),
    ],
)
def test_divergence_stops_the_run_keeps_the_last_good_state_and_says_so(
    task: Callable[[], Toy], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(task(), tmp_path)
    assert (outcome.step, outcome.interrupted) == (4, False)
    said = (
        f"stopped at update 5: {reason}. Use checkpoint.pt, update 2, with care: the oldest state kept, no state had 50 updates "
        "without an alarm after it"
    )
    assert outcome.stopped == said
    assert (tmp_path / "stopped.txt").read_text() == said + "\n"
    assert said in capsys.readouterr().err
    best, two = Toy(), Toy()
    assert restore(tmp_path / "checkpoint.pt", best) == 2
    run(two, tmp_path / "two", replace(SCHEDULE, steps=2))
    assert_same(states(best), states(two))
    assert all(math.isfinite(float(value)) for row in log_of(tmp_path) for value in row.values())


@pytest.mark.usefixtures("no_curves")
def test_divergence_before_the_first_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    assert "update 0" in run(Toy(1, value=math.nan), tmp_path).stopped
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("make", [vae_task, ebm_task])
def test_a_network_that_became_nan_stops_either_stage(make: Callable[..., Task], tmp_path: Path) -> None:
    task = make()
    step = task.step

    def poisoned(number: int) -> dict[str, float]:
        if number == 4:
            part = task.vae if isinstance(task, VAETask) else task.energy
            next(part.parameters()).data.fill_(math.nan)
        return step(number)

    task.step = poisoned
    outcome = run(task, tmp_path)
    assert outcome.step == 3
    assert "non-finite" in outcome.stopped
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 2
    assert all(v.isfinite().all() for v in saved["ema"]["shadow"].values() if v.is_floating_point())


# A log that was cut off


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("rest", ["5,0.", "5", "5,0.25,"])
def test_a_line_of_the_log_that_was_cut_off_is_dropped(rest: str, tmp_path: Path) -> None:
    run(Toy(), tmp_path, replace(SCHEDULE, steps=4))
    with (tmp_path / "log.csv").open("a") as log:
        log.write(rest)
    run(Toy(), tmp_path, resume=True)
    run(Toy(), tmp_path / "whole")
    assert log_of(tmp_path) == log_of(tmp_path / "whole")


@pytest.mark.usefixtures("no_curves")
def test_the_log_is_rewritten_in_one_stroke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Toy(), tmp_path, replace(SCHEDULE, steps=4))
    before = (tmp_path / "log.csv").read_bytes()
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        run(Toy(), tmp_path, resume=True)
    assert (tmp_path / "log.csv").read_bytes() == before


# The two stages


def parameters_after(task: EBMTask | VAETask, updates: int = 4, seed: int = 5) -> dict[str, torch.Tensor]:
    for step in range(1, updates + 1):
        seed_step(seed, step)
        task.step(step)
    return {name: value.clone() for name, value in task.ema.shadow.items()}


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, b[name]) for name, value in a.items())


@pytest.fixture(scope="module")
def ebm_base() -> dict[str, torch.Tensor]:
    return parameters_after(ebm_task())


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 7},
        {"learning_rate": 1e-3},
        {"warmup_steps": 0},
        {"final_rate": 0.1},
        {"beta1": 0.5},
        {"beta2": 0.9},
        {"weight_decay": 0.1},
        {"spectral_weight": 0.0},
        {"spectral_weight": 0.4},
        {"chain_steps": 3},
        {"step_size": 1e-3},
        {"target": "official"},
        {"negatives": "mean"},
        {"noise": 0.0},
        {"noise": 0.05},
        {"bf16": True},
        {"jitter": 0.2},
        {"ema": 0.1},
        {"buffer_size": 0},
        {"buffer_probability": 1.0},
        {"buffer_anneal": 100},
    ],
    ids=str,
)
def test_option_of_stage_two_takes_effect(change: dict, ebm_base: dict[str, torch.Tensor]) -> None:
    assert differ(ebm_base, parameters_after(ebm_task(replace(EBM, **change))))


def test_jitter_changes_contrast_and_brightness_of_each_image_within_its_bounds() -> None:
    task, x = ebm_task(replace(EBM, noise=0.0, jitter=0.3)), torch.rand(500, 3, 4, 4)
    torch.manual_seed(0)
    y = task._corrupt(x)
    contrast = (y[:, 0, 0, 0] - y[:, 2, 3, 1]) / (x[:, 0, 0, 0] - x[:, 2, 3, 1])
    brightness = y.mean((1, 2, 3)) - 0.5 - contrast * (x.mean((1, 2, 3)) - 0.5)
    expected = contrast.view(-1, 1, 1, 1) * (x - 0.5) + 0.5 + brightness.view(-1, 1, 1, 1)
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)  # one affine map per image
    for values, centre, half_width in ((contrast, 1, 0.3), (brightness, 0, 0.15)):
        assert (values - centre).abs().max() < half_width * 1.01
        assert (values - centre).abs().max() > half_width * 0.9
    assert torch.equal(ebm_task(replace(EBM, noise=0.0))._corrupt(x), x)


def test_without_a_change_stage_two_repeats_itself(ebm_base: dict[str, torch.Tensor]) -> None:
    assert not differ(ebm_base, parameters_after(ebm_task()))


def test_steps_of_stage_two_stretch_the_decay() -> None:
    decaying = replace(EBM, final_rate=0.1)
    assert differ(parameters_after(ebm_task(decaying)), parameters_after(ebm_task(replace(decaying, steps=60))))


@pytest.mark.parametrize("make", [vae_task, ebm_task])
def test_the_rate_of_either_stage_is_scaled_as_a_retry_asks(make: Callable[..., EBMTask | VAETask]) -> None:
    task = make()
    task.rate_scale = 0.25
    parameters_after(task, 1)
    assert [group["lr"] for group in task.optimizer.param_groups] == [0.25 * task._rate(1)]


@pytest.mark.parametrize("clip", [True, False])
def test_clip_bounds_a_sudden_gradient_of_stage_two(clip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ebm_task(replace(EBM, clip=clip))
    parameters_after(task, 2)
    moments = [task.optimizer.state[p]["exp_avg_sq"].clone() for p in task.energy.parameters()]
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(task.optimizer, "step", lambda: seen.extend(p.grad.clone() for p in task.energy.parameters()))
    for p in task.energy.parameters():
        p.register_hook(lambda gradient: gradient * 1e4)
    seed_step(5, 3)
    task.step(3)
    bounds = [3 * (v / (1 - EBM.beta2**2)).sqrt() + 0.1 for v in moments]
    inside = all((gradient.abs() <= bound * 1.0001).all() for gradient, bound in zip(seen, bounds, strict=True))
    assert inside is clip


def test_rate_of_stage_two_warms_up_and_then_falls_along_a_cosine() -> None:
    task = ebm_task(replace(EBM, steps=102, warmup_steps=2, learning_rate=1.0, final_rate=0.2))
    assert [task._rate(step) for step in (1, 2)] == [0.5, 1.0]
    assert task._rate(52) == pytest.approx(0.6)
    assert task._rate(102) == pytest.approx(0.2)
    constant = ebm_task(replace(EBM, steps=102, learning_rate=1.0))
    assert {constant._rate(step) for step in range(2, 103)} == {1.0}


def test_data_initialisation_of_stage_two_uses_all_of_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five batches go through the network at once, so that the init does not depend on which of them comes last."""
    seen: list[torch.Tensor] = []
    initialise = ebm.data_dependent_init
    monkeypatch.setattr(ebm, "data_dependent_init", lambda energy, x: seen.append(x) or initialise(energy, x))
    ebm_task()
    assert [len(x) for x in seen] == [ebm.INIT_BATCHES * EBM.batch_size]


def test_stage_two_changes_the_energy_only_and_logs_what_its_guard_needs() -> None:
    task = ebm_task()
    before = {k: v.clone() for k, v in task.model.nvae.state_dict().items()}
    seed_step(5, 1)
    values = task.step(1)
    assert_same(before, task.model.nvae.state_dict())
    assert values["gap"] == pytest.approx(
        (values["energy_chain"] - values["energy_data"]) / values["energy_sd"], rel=1e-4
    )
    assert task.buffer.filled == 1  # a row of batch_size lanes
    assert all(p.requires_grad for p in task.energy.parameters())
    assert task.preview().shape == (ebm.PREVIEW_IMAGES, 8, 8, 3)


def test_stage_two_closes_the_gap_between_data_and_chains() -> None:
    """Its gradient lowers E on data against E on chains: after some updates the energy tells them apart."""
    task = ebm_task(replace(EBM, learning_rate=3e-3, chain_steps=1, spectral_weight=0.0))
    gaps = []
    for step in range(1, 16):
        seed_step(5, step)
        gaps.append(task.step(step)["gap"])
    assert np.mean(gaps[-3:]) > gaps[0] + 0.5


@pytest.mark.parametrize(
    ("change", "named"), [({"negatives": "men"}, "men"), ({"target": "x"}, "'x'"), ({"chain_steps": -1}, "-1")]
)
def test_stage_two_names_a_wrong_option(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EBMTraining(**change)


@pytest.fixture(scope="module")
def vae_base() -> dict[str, torch.Tensor]:
    return parameters_after(vae_task(), 3)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 60},
        {"batch_size": 7},
        {"learning_rate": 1e-3},
        {"warmup_steps": 1},
        {"clip_norm": 1e-3},
        {"kl_anneal": 1.0},
        {"kl_start": 0.5},
        {"ema": 0.1},
    ],
    ids=str,
)
def test_option_of_stage_one_takes_effect(change: dict, vae_base: dict[str, torch.Tensor]) -> None:
    assert differ(vae_base, parameters_after(vae_task(replace(VAE, **change)), 3))


def test_without_a_change_stage_one_repeats_itself(vae_base: dict[str, torch.Tensor]) -> None:
    assert not differ(vae_base, parameters_after(vae_task(), 3))


def test_stage_one_raises_the_elbo_and_keeps_the_average_for_use() -> None:
    task = vae_task(replace(VAE, steps=200, learning_rate=1e-2, ema=0.5))
    elbos = []
    for step in range(1, 31):
        seed_step(5, step)
        elbos.append(task.step(step)["elbo"])
    assert np.mean(elbos[-3:]) > np.mean(elbos[:3]) + 20
    averaged = task.averaged()
    assert not averaged.training
    assert_same(dict(averaged.state_dict()), dict(task.ema.shadow))
    assert task.preview().shape == (64, 8, 8, 3)


def test_averaged_energy_is_frozen_and_its_own_copy() -> None:
    task = ebm_task()
    averaged = task.averaged()
    assert isinstance(averaged.energy, EnergyNetwork)
    assert averaged.energy is not task.energy
    assert not any(p.requires_grad for p in averaged.parameters())
