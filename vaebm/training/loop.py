"""The training loop: steps, log, checkpoints, previews and exact resume. What a step does is the task's business.

A run lives in one folder::

    log.csv            one line per logged step
    checkpoint.pt      the newest healthy state (tensors only; loads with ``weights_only=True``)
    step-000300.pt     states kept for checkpoint selection
    samples-000300.png grids drawn while training
    curves.png         every logged quantity against the step
    stopped.txt        why the run stopped early, if it did, and which checkpoint to use
"""

import csv
import math
import os
import pickle
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from vaebm.errors import UserError
from vaebm.noise import seed_step


class Diverged(Exception):  # noqa: N818  an outcome, not an error: the loop catches it
    """Raised by a task when training has left the healthy region; the message says how it was seen."""


class Stateful(Protocol):
    """Anything with a state dict: modules, optimisers, buffers, guards."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Task(Protocol):
    """What is trained. All randomness of ``step`` must come from torch's global generators: the loop seeds them from (seed, step)."""

    batch_size: int

    def state(self) -> Mapping[str, Stateful]:
        """Everything that a resumed run needs, by name."""
        ...

    def step(self, step: int) -> dict[str, float]:
        """Make update number ``step`` (from 1) and return what to log. Raises :class:`Diverged`."""
        ...

    def preview(self) -> np.ndarray:
        """Return a few samples, uint8 (N, H, W, C)."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long to train and how often to write. All counts are in updates; 0 turns a kind of output off."""

    steps: int
    log_every: int = 10
    checkpoint_every: int = 100
    keep_every: int = 0
    preview_every: int = 100


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the last step made, seconds spent in this process, the last logged values and the reason of an early stop.

    ``interrupted`` tells a stop by signal, which a resumed run continues, from one by divergence, which it would repeat.
    """

    step: int
    seconds: float
    last: dict[str, float]
    stopped: str = ""
    interrupted: bool = False


def fit(
    task: Task, folder: Path, schedule: Schedule, *, seed: int, resume: bool = False, progress: bool = True
) -> Outcome:
    """Train ``task`` in ``folder``.

    A run killed at any moment and called again with ``resume=True`` gives the same weights as one that was never interrupted: randomness
    is a function of (seed, step) and the checkpoint holds everything else.

    Raises:
        UserError: the folder already holds a run and ``resume`` is false, or cannot be written.
    """
    newest = folder / "checkpoint.pt"
    if newest.exists() and not resume:
        raise UserError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    step = restore(newest, task) if resume and newest.exists() else 0
    log = _Log(folder / "log.csv", keep_to=step)
    began = time.perf_counter()
    stopped, interrupted, last = "", False, {}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    bar = tqdm(total=schedule.steps, initial=step, disable=not progress, file=sys.stderr, smoothing=0.05, unit="it")
    try:
        while step < schedule.steps:
            seed_step(seed, step + 1)
            last = task.step(step + 1)
            bad = [name for name, value in last.items() if not math.isfinite(value)]
            if bad:
                raise Diverged(f"{', '.join(bad)} became non-finite")
            step += 1
            bar.update()
            if _due(step, schedule.log_every) or step == schedule.steps:
                log.write(step, last)
                rate = task.batch_size * (bar.format_dict["rate"] or 0)
                bar.set_postfix_str(
                    f"{rate:.0f} img/s " + " ".join(f"{k}={v:.4g}" for k, v in last.items()), refresh=False
                )
            if _due(step, schedule.checkpoint_every) or step == schedule.steps:
                _save(newest, task, step)
            if _due(step, schedule.keep_every):
                _save(folder / f"step-{step:06d}.pt", task, step)
            if _due(step, schedule.preview_every) or step == schedule.steps:
                save_grid(task.preview(), folder / f"samples-{step:06d}.png")
                log.plot(folder / "curves.png")
    except Diverged as reason:
        healthy = torch.load(newest, weights_only=True)["step"] if newest.exists() else 0
        stopped = f"stopped at update {step + 1}: {reason}. Last good checkpoint: update {healthy} ({newest.name})"
        (folder / "stopped.txt").write_text(stopped + "\n")
    except KeyboardInterrupt:
        # The step in flight may have left the weights half-updated, so the newest checkpoint on disk stays the truth.
        interrupted, stopped = True, f"interrupted at update {step}; continue with --resume"
    finally:
        bar.close()
        signal.signal(signal.SIGTERM, previous)
    if stopped:
        print(stopped, file=sys.stderr)
    return Outcome(step, time.perf_counter() - began, last, stopped, interrupted)


class Stopwatch:
    """Seconds of training, counted across resumes (a part of a task's state)."""

    def __init__(self) -> None:
        self._before, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without the pauses between its processes."""
        return self._before + time.perf_counter() - self._began

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._before, self._began = state["seconds"], time.perf_counter()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _save(path: Path, task: Task, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"step": step, **{name: part.state_dict() for name, part in task.state().items()}}, partial)
    os.replace(partial, path)


def restore(path: Path, task: Task) -> int:
    """Load a state written by :func:`fit` into ``task``; return its update.

    Raises:
        UserError: the file is damaged.
    """
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a state of a training run, or truncated ({type(error).__name__})") from None
    for name, part in task.state().items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def save_grid(images: np.ndarray, path: Path, columns: int = 8) -> None:
    """Write uint8 images (N, H, W, C) as one PNG grid with a one-pixel white gap; the last row may be short."""
    from PIL import Image

    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    partial = path.with_suffix(".partial")
    Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet).save(partial, format="png")
    os.replace(partial, path)


def read_log(path: Path, keep_to: int) -> list[dict[str, float]]:
    """Return the lines of a log.csv up to and including update ``keep_to`` (none where there is no such file)."""
    if not path.exists():
        return []
    with path.open() as lines:
        rows = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(lines))
        return [row for row in rows if row["step"] <= keep_to]


def last_logged(folder: Path, step: int) -> dict[str, float]:
    """Return the newest logged quantities of a run that are not after update ``step`` (empty when there are none)."""
    rows = read_log(folder / "log.csv", step)
    return {name: value for name, value in rows[-1].items() if name != "step"} if rows else {}


class _Log:
    """log.csv with one column per quantity of the first logged step; lines after ``keep_to`` belong to a lost future and are dropped."""

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path = path
        self.rows = read_log(path, keep_to)
        if self.rows:
            self._rewrite()
        else:
            path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        with self.path.open("w", newline="") as out:
            writer = csv.DictWriter(out, self.rows[0].keys())
            writer.writeheader()
            writer.writerows({**row, "step": int(row["step"])} for row in self.rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **values})
        if len(self.rows) == 1:
            self._rewrite()
            return
        with self.path.open("a", newline="") as out:
            csv.DictWriter(out, self.rows[0].keys()).writerow(self.rows[-1])

    def plot(self, path: Path) -> None:
        from matplotlib.figure import Figure

        if not self.rows:
            return
        names = [name for name in self.rows[0] if name != "step"]
        figure = Figure(figsize=(7, 1.6 * len(names)), layout="constrained")
        for axis, name in zip(np.atleast_1d(figure.subplots(len(names), sharex=True)), names, strict=True):
            axis.plot([row["step"] for row in self.rows], [row[name] for row in self.rows], linewidth=1)
            axis.set_ylabel(name)
        axis.set_xlabel("update")
        partial = path.with_suffix(".partial")
        figure.savefig(partial, format="png", dpi=80)
        os.replace(partial, path)
