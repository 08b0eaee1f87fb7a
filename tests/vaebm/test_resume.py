"""A run that is killed at random updates, three times, and resumed each time ends as one that was never interrupted, bit for bit."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, tiny_images

from vaebm.noise import seed_step
from vaebm.nvae import NVAE
from vaebm.training import loop
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.loop import Schedule, fit
from vaebm.training.vae import VAETask, VAETraining

UPDATES, KILLS = 8, 3
SCHEDULE = Schedule(UPDATES, log_every=1, checkpoint_every=2, preview_every=0)
VAE = VAETraining(
    steps=UPDATES, batch_size=8, warmup_steps=2, spectral_weight=0.1, batch_norm_weight=0.1, regulariser_start=10.0
)
EBM = EBMTraining(
    steps=UPDATES, batch_size=8, warmup_steps=2, chain_steps=2, buffer_size=24, buffer_anneal=2, noise=0.02
)


def make(stage: str, weights: int = 0) -> VAETask | EBMTask:
    nvae = lively_nvae()
    seed_step(weights, 0)
    cpu = torch.device("cpu")
    if stage == "vae":
        return VAETask(NVAE(replace(TINY_NVAE, flows=1)), tiny_images(), VAE, 0, cpu)
    return EBMTask(nvae, TINY_ENERGY, tiny_images(), EBM, 0, cpu)


def train(task: VAETask | EBMTask, folder: Path) -> None:
    task.preview = lambda: np.zeros((1, 8, 8, 3), np.uint8)  # type: ignore[method-assign]
    fit(task, folder, SCHEDULE, seed=5, resume=True, progress=False)


def resumable(stage: str, folder: Path) -> VAETask | EBMTask:
    """A task with other initial weights where there is a checkpoint: nothing but the checkpoint decides."""
    return make(stage, weights=99 if (folder / "checkpoint.pt").exists() else 0)


def train_killed(stage: str, folder: Path, at: int) -> None:
    """Train until the process kills itself inside update ``at``: chains are run and gradients taken, the weights have not moved."""
    task = resumable(stage, folder)
    make_step, optimizer_step = task.step, task.optimizer.step
    now = 0

    def step(number: int) -> dict[str, float]:
        nonlocal now
        now = number
        return make_step(number)

    def kill(*arguments: Any, **named: Any) -> Any:
        if now == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return optimizer_step(*arguments, **named)

    task.step = step  # type: ignore[method-assign]
    task.optimizer.step = kill  # type: ignore[method-assign]
    train(task, folder)


def state_of(folder: Path) -> dict:
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {name: part for name, part in saved.items() if name != "stopwatch"}


def assert_same(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a process of its own and return its exit code, negative for a signal."""

    def alone() -> None:
        torch.set_num_threads(1)  # threads do not survive a fork
        work()

    child = multiprocessing.get_context("fork").Process(target=alone)
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


@pytest.mark.parametrize("stage", ["vae", "ebm"])
def test_a_run_killed_at_three_random_updates_ends_as_an_unbroken_one(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop._Log, "plot", lambda *_: None)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    moments = sorted(random.SystemRandom().sample(range(1, UPDATES + 1), KILLS))
    for at in moments:
        assert in_child(lambda at=at: train_killed(stage, killed, at)) == -signal.SIGKILL
    assert in_child(lambda: train(resumable(stage, killed), killed)) == 0
    assert in_child(lambda: train(make(stage), whole)) == 0
    expected = state_of(whole)
    assert expected["step"] == UPDATES
    network = {"vae": {"vae"}, "ebm": {"energy", "buffer"}}[stage]
    assert {*network, "optimizer", "ema", "spectral"} <= expected.keys()
    assert_same(expected, state_of(killed), f"killed at {moments}: ")
    assert (whole / "log.csv").read_bytes() == (killed / "log.csv").read_bytes()
