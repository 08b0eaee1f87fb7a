"""The guard: what it sees, where a run goes back to, retries, the report, kills at any moment, and an energy that really explodes."""

import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.checkpoints.models import build_vaebm
from vaebm.errors import UserError
from vaebm.model import VAEBM, ChainSettings
from vaebm.noise import seed_step
from vaebm.training import loop, stages
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.guard import REFERENCE, Diverged, Guard, GuardSettings, drift
from vaebm.training.health import Ledger
from vaebm.training.loop import Outcome, Schedule, fit, kept_states, read_log, restore

SCHEDULE = Schedule(40, log_every=1, checkpoint_every=4, keep_every=0, preview_every=0)
GUARD = GuardSettings(guard_window=5, guard_limit=0.5)


# What is seen


def feed_all(guard: Guard, updates: list[dict[str, float]]) -> None:
    for values in updates:
        guard.check(values)


def feed(guard: Guard, name: str, values: list[float]) -> None:
    feed_all(guard, [{name: value} for value in values])


def watching(**settings: float) -> Guard:
    return Guard(GuardSettings(**{"guard_window": 4, **settings}))  # type: ignore[arg-type]


def test_the_large_gaps_of_a_young_network_are_no_alarm() -> None:
    guard = watching(guard_limit=0.1)
    feed(guard, "gap", [5.0] * 50 + [0.1] * 3)


def test_a_gap_that_was_closed_for_a_window_must_stay_closed() -> None:
    guard = watching(guard_limit=0.1)
    feed(guard, "gap", [5.0] * 4 + [0.1] * 4 + [0.1] * 8)
    with pytest.raises(Diverged, match=r"relative energy gap .* averaged 0\.200 over 4 updates, limit 0\.1") as seen:
        guard.check({"gap": 0.5})
    assert seen.value.evidence == {
        "quantity": "gap",
        "mean": pytest.approx(0.2),
        "limit": 0.1,
        "window": [0.1, 0.1, 0.1, 0.5],
    }


def test_the_guard_waits_for_a_full_window_before_it_arms() -> None:
    guard = watching(guard_limit=0.1)
    feed(guard, "gap", [0.0] * 3 + [5.0] * 20)


@given(gaps=st.lists(st.floats(-3, 3), min_size=1, max_size=30), cut=st.integers(0, 30))
def test_a_resumed_guard_decides_as_an_unbroken_one(gaps: list[float], cut: int) -> None:
    def decisions(guard: Guard, values: list[float]) -> list[object]:
        said: list[object] = []
        for value in values:
            try:
                said.append(guard.check({"gap": value, "gradient_norm": abs(value)}))
            except Diverged as seen:
                said.append(str(seen))
        return said

    whole, first, second = (watching(guard_limit=0.2, guard_gradient=1.5) for _ in range(3))
    before = decisions(first, gaps[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert decisions(whole, gaps) == before + decisions(second, gaps[cut:])


def test_the_window_means_are_returned_for_the_log() -> None:
    guard = watching(guard_window=2)
    assert [guard.check({"gap": gap})["gap_mean"] for gap in (0.1, 0.0, -0.1)] == pytest.approx([0.1, 0.05, -0.05])
    assert guard.check({"loss": 1.0}) == {}


def test_a_gradient_norm_far_above_its_own_past_is_an_alarm_and_one_spike_is_not() -> None:
    guard = watching(guard_gradient=10)
    feed(guard, "gradient_norm", [1.0] * 4 * REFERENCE + [1e6] + [2.0] * 40 + [20.0] * 40)
    feed(guard, "gradient_norm", [201.0] * 2)  # the median of the window, not its largest
    with pytest.raises(Diverged, match=r"gradient norm had a median of 201 over 4 updates, 10\.05 times .*limit 10"):
        guard.check({"gradient_norm": 201.0})


def test_a_gradient_norm_may_grow_slowly_without_bound() -> None:
    feed(watching(guard_gradient=10), "gradient_norm", [1.05**k for k in range(400)])


def statistics(mean: float = 0.5, std: float = 0.2, saturation: float = 0.1) -> dict[str, float]:
    return {
        "data_mean": 0.5,
        "data_std": 0.2,
        "data_saturation": 0.1,
        "negative_mean": mean,
        "negative_std": std,
        "negative_saturation": saturation,
    }


@pytest.mark.parametrize(
    ("sick", "expected"),
    [
        (statistics(mean=0.8), 1.5),
        (statistics(mean=0.2), 1.5),
        (statistics(std=0.2 * math.exp(0.7)), 0.7),
        (statistics(std=0.2 * math.exp(-0.7)), 0.7),
        (statistics(std=0.0), math.log(0.2 / 1e-12)),
        (statistics(saturation=0.9), 0.8),
    ],
)
def test_negatives_that_leave_the_data_are_an_alarm(sick: dict[str, float], expected: float) -> None:
    assert drift(statistics()) == 0
    assert drift(sick) == pytest.approx(expected)
    guard = watching(guard_statistics=0.5)
    for _ in range(6):
        assert guard.check(statistics())["drift_mean"] == 0
    with pytest.raises(Diverged, match=r"drift of the negatives' statistics .* limit 0\.5"):
        feed_all(guard, [sick] * 4)


def test_what_a_task_does_not_report_is_not_watched() -> None:
    assert drift({"loss": 1.0}) is None
    no_saturation = {name: value for name, value in statistics(mean=0.8).items() if "saturation" not in name}
    assert drift(no_saturation) == pytest.approx(1.5)
    guard = watching()
    for _ in range(100):
        assert guard.check({"loss": 1e30}) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_alarm_at_once(value: float) -> None:
    with pytest.raises(Diverged, match="loss became non-finite") as seen:
        watching().check({"loss": value, "gap": 0.0})
    assert seen.value.evidence == {"quantity": "non-finite values", "values": {"loss": str(value)}}


@pytest.mark.parametrize(
    ("off", "values"),
    [
        ({"guard_limit": 0.0}, [{"gap": 0.0}] * 5 + [{"gap": 9.0}] * 9),
        ({"guard_gradient": 0.0}, [{"gradient_norm": 1.0}] * 50 + [{"gradient_norm": 1e9}] * 9),
        ({"guard_statistics": 0.0}, [statistics()] * 9 + [statistics(mean=9.0)] * 9),
        ({"guard_window": 0}, [{"gap": 0.0}] * 5 + [{"gap": math.nan}] * 5),
    ],
)
def test_zero_turns_a_watch_off(off: dict[str, float], values: list[dict[str, float]]) -> None:
    feed_all(watching(**off), values)
    with pytest.raises(Diverged):
        feed_all(watching(), values)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"guard_window": -1}, "guard_window = -1"),
        ({"guard_limit": -0.1}, "guard_limit"),
        ({"guard_gradient": math.nan}, "guard_gradient"),
        ({"guard_statistics": -1.0}, "guard_statistics"),
        ({"guard_retries": -1}, "guard_retries"),
        ({"guard_rate_factor": 0.0}, "guard_rate_factor"),
        ({"guard_rate_factor": 1.1}, "guard_rate_factor"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GuardSettings(**wrong)  # type: ignore[arg-type]


# Which states are healthy


@given(every=st.integers(1, 9), window=st.integers(1, 20), last=st.integers(0, 60))
def test_the_ledger_proves_states_by_a_full_window_and_needs_two_of_them(every: int, window: int, last: int) -> None:
    ledger = Ledger(GuardSettings(guard_window=window))
    for step in range(1, last + 1):
        if step % every == 0:
            ledger.saved(step)
    back_to = ledger.alarm(last + 1, Diverged("seen"))
    saved = [step for step in range(1, last + 1) if step % every == 0]
    proven = [step for step in saved if step + window <= last]
    if not saved:
        assert back_to is None
    elif not proven:
        assert back_to == saved[0]
        assert not ledger.alarms[-1]["healthy"]
    else:
        assert back_to in proven
        assert ledger.alarms[-1]["healthy"]
        # A candidate is taken up once the one before it is proven: no more than two of these periods are lost.
        assert last - back_to <= 2 * (window + every)
    for step in saved:
        assert ledger.is_healthy(step, last) == (step in proven)


def test_a_healthy_state_stays_one_after_an_alarm_in_a_later_attempt() -> None:
    ledger = Ledger(replace(GUARD, guard_retries=1))
    for step in (4, 8, 12):
        ledger.saved(step)
    assert ledger.alarm(14, Diverged("first")) == 4
    assert ledger.alarm(6, Diverged("second")) == 4
    assert ledger.stopped
    assert ledger.is_healthy(4, 4)
    assert not ledger.is_healthy(5, 4)


def test_a_second_alarm_from_the_same_state_goes_one_back() -> None:
    ledger = Ledger(replace(GUARD, guard_retries=3))  # a window of 5
    for step in (4, 12, 20):
        ledger.saved(step)
    assert ledger.alarm(22, Diverged("first")) == 12
    assert ledger.alarm(14, Diverged("second")) == 4
    assert ledger.alarm(7, Diverged("third")) == 4  # nothing older was kept
    for step in (8, 16):
        ledger.saved(step)
    assert (ledger.older, ledger.healthy) == (4, 8)
    again = Ledger(ledger.settings)
    again.load_state_dict(ledger.state_dict())
    assert again.alarm(17, Diverged("fourth")) == 8


# Runs


class Unstable:
    """A weight that walks at random with the learning rate; its gap opens after ``until`` updates while the rate is above ``stable``."""

    batch_size = 2
    rate_scale = 1.0

    def __init__(self, until: int = 22, stable: float = 0.3, kill_at: int = 0) -> None:
        self.module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.module.weight)
        self.until, self.stable, self.kill_at, self.made = until, stable, kill_at, 0

    def state(self) -> dict[str, torch.nn.Module]:
        return {"module": self.module}

    def step(self, step: int) -> dict[str, float]:
        self.made += 1
        if self.made == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with torch.no_grad():
            self.module.weight += self.rate_scale * torch.randn(1, 1)
        opened = step > self.until and self.rate_scale > self.stable
        return {"weight": self.module.weight.item(), "gap": 2.0 if opened else 0.0, "rate": self.rate_scale}

    def preview(self) -> np.ndarray:
        return np.zeros((1, 4, 4, 1), dtype=np.uint8)


def run(
    task: Unstable, folder: Path, guard: GuardSettings = GUARD, schedule: Schedule = SCHEDULE, resume: bool = False
) -> Outcome:
    return fit(task, folder, schedule, seed=5, guard=guard, resume=resume, progress=False)


def report(folder: Path) -> dict:
    return json.loads((folder / "guard.json").read_text())


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(loop._Log, "plot", lambda *_: None)


def test_a_run_without_an_alarm_leaves_no_report_and_one_healthy_state(tmp_path: Path) -> None:
    run(Unstable(until=100), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "log.csv",
        "samples-000040.png",
        "step-000028.pt",
    ]


def test_a_stop_goes_back_to_the_newest_healthy_state_and_writes_which_one_and_why(tmp_path: Path, capsys) -> None:
    """The gap opens at 23; the mean of five exceeds 0.5 at 24. State 12 is proven at 17, state 20 would be at 25."""
    task = Unstable()
    outcome = run(task, tmp_path)
    said = (
        "stopped at update 24: the relative energy gap (E(x-) - E(x+)) / sd E(x+) averaged 0.800 over 5 updates, limit 0.5. "
        "Use checkpoint.pt, update 12: healthy, the 5 updates after it gave no alarm"
    )
    assert (outcome.step, outcome.stopped, outcome.interrupted) == (23, said, False)
    assert (tmp_path / "stopped.txt").read_text() == said + "\n"
    assert said in capsys.readouterr().err
    twelve, healthy = Unstable(), Unstable()
    run(twelve, tmp_path / "twelve", schedule=replace(SCHEDULE, steps=12))
    assert restore(tmp_path / "checkpoint.pt", healthy) == 12
    assert healthy.module.weight.item() == twelve.module.weight.item() == task.module.weight.item()
    told = report(tmp_path)
    assert told["state"] == "stopped"
    assert told["use"] == {"file": "checkpoint.pt", "update": 12, "why": said}
    assert told["settings"]["guard_limit"] == 0.5
    (alarm,) = told["alarms"]
    assert {key: alarm[key] for key in ("attempt", "update", "back_to", "healthy", "then", "rate_scale")} == {
        "attempt": 0,
        "update": 24,
        "back_to": 12,
        "healthy": True,
        "then": "stopped",
        "rate_scale": 1.0,
    }
    assert alarm["seen"]["window"] == [0, 0, 0, 2, 2]
    assert len(read_log(tmp_path / "log.csv", 100)) == 23  # what led to the alarm can be looked at


def test_without_a_healthy_state_the_oldest_one_is_named_with_care(tmp_path: Path) -> None:
    outcome = run(Unstable(until=6), tmp_path)
    assert "update 4, with care: the oldest state kept, no state had 5 updates without an alarm" in outcome.stopped
    assert not report(tmp_path)["alarms"][0]["healthy"]
    assert restore(tmp_path / "checkpoint.pt", Unstable()) == 4


def test_retries_continue_with_a_smaller_rate_and_other_noise_until_the_end(tmp_path: Path) -> None:
    guard = replace(GUARD, guard_retries=5, guard_rate_factor=0.5)
    task = Unstable(stable=0.3)
    outcome = run(task, tmp_path, guard)
    assert (outcome.step, outcome.stopped) == (40, "")
    assert task.rate_scale == 0.25
    told = report(tmp_path)
    assert (told["state"], told["attempt"], told["rate_scale"]) == ("finished", 2, 0.25)
    assert told["use"] == {"file": "checkpoint.pt", "update": 40, "why": "the end of the run, reached after 2 retries"}
    assert [alarm["then"] for alarm in told["alarms"]] == ["continued", "continued"]
    assert not (tmp_path / "stopped.txt").exists()
    rows = read_log(tmp_path / "log.csv", 100)
    assert [row["step"] for row in rows] == list(range(1, 41))  # the lost future is not in the log
    back_to = told["alarms"][-1]["back_to"]
    assert {row["rate"] for row in rows if row["step"] > back_to} == {0.25}
    expected = rows[back_to - 1]["weight"]
    for step in range(back_to + 1, 41):
        seed_step(5, step, 2)
        expected += 0.25 * torch.randn(1, 1).item()
    assert task.module.weight.item() == pytest.approx(expected, abs=1e-5)


def test_noise_of_an_attempt_is_its_own() -> None:
    drawn = []
    for arguments in ((5, 3), (5, 3, 0), (5, 3, 1), (5, 3, 2)):
        seed_step(*arguments)
        drawn.append(torch.randn(()).item())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(("factor", "finishes"), [(0.5, False), (0.1, True)])
def test_rate_factor_and_number_of_retries_decide_whether_a_run_finishes(
    factor: float, finishes: bool, tmp_path: Path
) -> None:
    outcome = run(Unstable(stable=0.3), tmp_path, replace(GUARD, guard_retries=1, guard_rate_factor=factor))
    assert (outcome.stopped == "") == finishes
    assert len(report(tmp_path)["alarms"]) == (1 if finishes else 2)


def test_a_retry_can_begin_from_the_start(tmp_path: Path) -> None:
    task = Unstable(until=0)
    outcome = run(task, tmp_path, replace(GUARD, guard_limit=0.0, guard_retries=1), SCHEDULE)
    assert outcome.stopped == ""  # nothing watches the gap

    class Broken(Unstable):
        def step(self, step: int) -> dict[str, float]:
            values = super().step(step)
            return {**values, "weight": math.nan} if step == 2 and self.rate_scale == 1 else values

    outcome = run(Broken(until=100), tmp_path / "broken", replace(GUARD, guard_retries=1))
    assert (outcome.step, outcome.stopped) == (40, "")
    assert report(tmp_path / "broken")["alarms"][0]["back_to"] == 0


def test_resume_of_a_stopped_run_says_the_same_again_and_changes_nothing(tmp_path: Path) -> None:
    first = run(Unstable(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    task = Unstable()
    again = run(task, tmp_path, resume=True)
    assert (again.stopped, task.made) == (first.stopped, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_stopped_run_continues_when_it_is_given_retries_as_if_it_had_had_them(tmp_path: Path) -> None:
    run(Unstable(), tmp_path / "a")
    more = replace(GUARD, guard_retries=3)
    stopped, unbroken = Unstable(), Unstable()
    assert run(stopped, tmp_path / "a", more, resume=True).stopped == ""
    run(unbroken, tmp_path / "b", more)
    assert stopped.module.weight.item() == unbroken.module.weight.item()
    assert report(tmp_path / "a") == report(tmp_path / "b")
    assert not (tmp_path / "a" / "stopped.txt").exists()
    assert (tmp_path / "a" / "log.csv").read_bytes() == (tmp_path / "b" / "log.csv").read_bytes()


def test_states_of_a_lost_future_are_deleted_before_a_retry_and_kept_after_a_stop(tmp_path: Path) -> None:
    often = replace(SCHEDULE, keep_every=1)
    run(Unstable(), tmp_path / "stop", schedule=often)
    assert max(kept_states(tmp_path / "stop")) == 23
    task, seen = Unstable(), []
    step = task.step

    def looking(number: int) -> dict[str, float]:
        seen.append((task.rate_scale, number, max(kept_states(tmp_path / "retry"), default=0)))
        return step(number)

    task.step = looking  # type: ignore[method-assign]
    run(task, tmp_path / "retry", replace(GUARD, guard_retries=2), schedule=often)
    assert all(newest == number - 1 for _, number, newest in seen)


RETRYING = replace(GUARD, guard_retries=5)
OFTEN = replace(SCHEDULE, keep_every=6)


def in_child(work: Callable[[], object]) -> int:
    """Do ``work`` in a forked process; return its exit code."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def killed_on_the_way_back(folder: Path, at: int) -> None:
    """Train, and die before the ``at``-th file operation of going back; where it has fewer, right after it."""
    go_back, done = loop._Run.go_back, []

    def counted(function: Callable) -> Callable:
        def wrapped(*arguments: object, **more: object) -> object:
            done.append(function)
            if len(done) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)

        return wrapped

    def going_back(self: loop._Run, step: int, alarm: Diverged) -> int:
        for owner, name in ((os, "replace"), (Path, "unlink"), (Path, "write_text"), (torch, "save")):
            setattr(owner, name, counted(getattr(owner, name)))
        go_back(self, step, alarm)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    loop._Run.go_back = going_back  # type: ignore[method-assign]  # in a process of its own
    run(Unstable(), folder, RETRYING, OFTEN)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder, task = tmp_path_factory.mktemp("unbroken"), Unstable()
    run(task, folder, RETRYING, OFTEN)
    return folder, task.module.weight.item()


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 99])
def test_a_process_killed_on_its_way_back_resumes_to_the_same_run(
    at: int, tmp_path: Path, unbroken: tuple[Path, float]
) -> None:
    assert in_child(partial(killed_on_the_way_back, tmp_path, at)) == -signal.SIGKILL
    check_resumed(tmp_path, unbroken)


@given(at=st.integers(1, 61))
@settings(max_examples=6, deadline=None, database=None)
def test_a_process_killed_at_any_update_of_any_attempt_resumes_to_the_same_run(
    at: int, tmp_path_factory: pytest.TempPathFactory, unbroken: tuple[Path, float]
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    ended = in_child(partial(run, Unstable(kill_at=at), folder, RETRYING, OFTEN))
    assert ended == (-signal.SIGKILL if at <= 60 else 0)  # 24 updates, then 13 to 24, then 17 to 40
    check_resumed(folder, unbroken)


def check_resumed(folder: Path, unbroken: tuple[Path, float]) -> None:
    whole, weight = unbroken
    task = Unstable()
    run(task, folder, RETRYING, OFTEN, resume=True)
    restore(folder / "checkpoint.pt", task)
    assert task.module.weight.item() == weight
    assert report(folder) == report(whole)
    assert (folder / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    assert set(kept_states(folder)) == set(kept_states(whole))


# Several processes


def in_group(rank: int, folder: Path, rendezvous: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    task = Unstable(until=22 if rank else 100)  # the second process alone sees the gap open
    outcome = run(task, folder, RETRYING, replace(OFTEN, preview_every=10))
    torch.save({"weight": task.module.weight, "step": outcome.step, "rate": task.rate_scale}, f"{rendezvous}.{rank}")
    dist.destroy_process_group()


def test_processes_agree_on_an_alarm_and_the_first_one_writes(tmp_path: Path, unbroken: tuple[Path, float]) -> None:
    folder, rendezvous = tmp_path / "run", tmp_path / "meet"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=in_group, args=(rank, folder, rendezvous)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    first, second = (torch.load(f"{rendezvous}.{rank}", weights_only=True) for rank in range(2))
    whole, weight = unbroken
    for one in (first, second):
        assert (one["weight"].item(), one["step"], one["rate"]) == (weight, 40, 0.25)
    assert report(folder) == report(whole)
    rows, expected = read_log(folder / "log.csv", 100), read_log(whole / "log.csv", 100)
    assert [row["weight"] for row in rows] == [row["weight"] for row in expected]


# An energy that really explodes

# A large rate that rises without end, no regulariser, chains too coarse to follow. With beta2 = 0 Adam does not stall where its second
# moment overflows.
EXPLODING = EBMTraining(
    steps=40,
    batch_size=8,
    learning_rate=0.4,
    warmup_steps=60,
    beta2=0.0,
    spectral_weight=0.0,
    chain_steps=3,
    step_size=100.0,
    guard_window=4,
    guard_limit=3.0,
)
OUTPUT = Schedule(40, log_every=1, checkpoint_every=1, keep_every=0, preview_every=0)


def ebm_run(folder: Path, training: EBMTraining) -> tuple[EBMTask, Outcome]:
    nvae = lively_nvae()
    seed_step(0, 0)
    task = EBMTask(nvae, TINY_ENERGY, tiny_images(), training, 0, torch.device("cpu"))
    return task, fit(task, folder, OUTPUT, seed=5, guard=training, progress=False)


def test_without_the_guard_the_setting_ends_in_nan(tmp_path: Path) -> None:
    task, outcome = ebm_run(tmp_path, replace(EXPLODING, guard_window=0))
    assert outcome.step == 40
    assert math.isnan(outcome.last["energy_data"])
    assert task.energy(torch.rand(4, 3, 8, 8)).isnan().all()


def check_usable(model: VAEBM) -> None:
    images = model.sample(range(16), ChainSettings(2, 1e-3))
    assert images.isfinite().all()
    x = torch.from_numpy(tiny_images(16)).permute(0, 3, 1, 2).float() / 255
    data, samples = model.energy(x), model.energy(images)
    assert abs(samples.mean() - data.mean()) / data.std() < EXPLODING.guard_limit
    assert data.abs().max() < 100


def train_and_export(folder: Path, training: EBMTraining, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run ``python -m vaebm train ebm``'s work on the setting; return the exported file."""
    monkeypatch.setattr(stages, "load_images", lambda *_, **__: SimpleNamespace(images=tiny_images(100)))
    nvae = folder / "nvae.safetensors"
    weights = torch.nn.ModuleDict({"nvae": lively_nvae()}).state_dict()
    save_checkpoint(nvae, weights, {"kind": "nvae", "architecture": {"nvae": TINY_NVAE.to_json()}})
    output = stages.Output(1, 1, 0, 0)
    settings = stages.Settings(
        size="mini", validation=60, nvae=TINY_NVAE, energy=TINY_ENERGY, ebm=training, ebm_output=output
    )
    path = stages.train("ebm", settings, stages.Run(folder / "run", "e", "train", progress=False, vae=nvae, seed=5))
    assert path is not None
    return path


def test_with_the_guard_the_same_setting_ends_with_a_usable_checkpoint_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(train_and_export(tmp_path, EXPLODING, monkeypatch))
    told = report(tmp_path / "run")
    (alarm,) = told["alarms"]
    assert alarm["update"] < 15
    assert alarm["healthy"]
    assert told["use"]["why"].startswith(f"stopped at update {alarm['update']}")
    training = checkpoint.card["training"]
    assert training["update"] == told["use"]["update"] == training["guard"]["use"]["update"]
    check_usable(build_vaebm(checkpoint, "here"))


def test_an_exploded_model_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="energies are not finite: training exploded"):
        train_and_export(tmp_path, replace(EXPLODING, guard_window=0), monkeypatch)


def test_with_a_retry_the_same_setting_finishes_with_a_usable_model(tmp_path: Path) -> None:
    task, outcome = ebm_run(tmp_path, replace(EXPLODING, guard_retries=1, guard_rate_factor=1e-4))
    assert (outcome.step, outcome.stopped) == (40, "")
    assert report(tmp_path)["state"] == "finished"
    check_usable(task.averaged())
