"""The training loop: steps, log, checkpoints, previews, the guard's stops and retries, and exact resume. What a step does is the task's.

A run lives in one folder::

    log.csv            one line per logged step
    checkpoint.pt      the newest state; after a stop by the guard, the one to use (tensors only; loads with ``weights_only=True``)
    step-000300.pt     states kept for checkpoint selection, and the three that the guard may go back to
    samples-000300.png grids drawn while training
    curves.png         every logged quantity against the step
    stopped.txt        why the guard stopped the run, if it did, and which checkpoint to use: one line
    guard.json         every alarm of the guard, if there was one: what was seen, limits, where training went back to

Several processes run the same loop: all make every step, gather every state and agree on every alarm; the first one writes.
"""

import csv
import json
import pickle
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from vaebm.atomic import write_atomically
from vaebm.errors import UserError
from vaebm.noise import seed_step
from vaebm.parallel import rank, world_size
from vaebm.training.guard import Diverged, Guard, GuardSettings
from vaebm.training.health import Ledger

__all__ = [
    "Diverged",
    "Outcome",
    "Schedule",
    "Stateful",
    "Stopwatch",
    "Task",
    "check_vacant",
    "fit",
    "kept_states",
    "last_logged",
    "read_ledger",
    "restore",
    "save_grid",
]


class Stateful(Protocol):
    """Anything with a state dict: modules, optimisers, buffers."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Task(Protocol):
    """What is trained. All randomness of ``step`` must come from torch's global generators: the loop seeds them from (seed, step, attempt).

    Attributes:
        batch_size: images per update.
        rate_scale: what the learning rate is multiplied by; 1 until the guard makes the loop retry with a smaller rate.
    """

    batch_size: int
    rate_scale: float

    def state(self) -> Mapping[str, Stateful]:
        """Everything that a resumed run needs, by name."""
        ...

    def step(self, step: int) -> dict[str, float]:
        """Make update number ``step`` (from 1) and return what to log.

        Raises :class:`Diverged`; where several processes share the step, only after the last exchange between them.
        """
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

    ``interrupted`` tells a stop by signal, which a resumed run continues, from one by the guard, which it continues only with more retries.
    """

    step: int
    seconds: float
    last: dict[str, float]
    stopped: str = ""
    interrupted: bool = False


def fit(
    task: Task,
    folder: Path,
    schedule: Schedule,
    *,
    seed: int,
    guard: GuardSettings | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Outcome:
    """Train ``task`` in ``folder``.

    A run killed at any moment and called again with ``resume=True`` gives the same weights as one that was never interrupted: randomness
    is a function of (seed, step, attempt) and the checkpoint holds everything else.

    Args:
        guard: what is watched (default: :class:`GuardSettings`). On an alarm training goes back to the newest healthy state, from which
            it continues with a smaller rate and other noise, or, after ``guard_retries`` of these, stops: ``checkpoint.pt`` and ``task``
            are then at that state.

    Raises:
        UserError: the folder already holds a run and ``resume`` is false, or cannot be written.
    """
    exists = check_vacant(folder, resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    _wait_for_all()  # every process has looked before the first one writes
    if resume and not exists:
        _say(f"no run in {folder} yet: starting one")
    run = _Run(task, folder, schedule, guard or GuardSettings())
    step = run.start(exists)
    if run.ledger.stopped:
        return Outcome(step, 0.0, last_logged(folder, step), run.ledger.sentence())
    log = _Log(folder / "log.csv", keep_to=step)
    began = time.perf_counter()
    interrupted, last = "", dict[str, float]()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # A command line has made it an interrupt already, and tells the two apart in its exit code.
    own = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, interrupt)
    show = progress and rank() == 0
    bar = tqdm(total=schedule.steps, initial=step, disable=not show, file=sys.stderr, smoothing=0.05, unit="it")
    try:
        while step < schedule.steps:
            seed_step(seed, step + 1, run.ledger.attempt)
            values, alarm = run.step(step + 1)
            if alarm:
                back_to = run.go_back(step + 1, alarm)
                if run.ledger.stopped:
                    break
                _say(f"update {step + 1}: {alarm}; back to update {back_to}, learning rate x {task.rate_scale:g}")
                step = back_to
                log = _Log(folder / "log.csv", keep_to=step)
                bar.n = step
                bar.refresh()
                continue
            last = values
            step += 1
            bar.update()
            if _due(step, schedule.log_every) or step == schedule.steps:
                log.write(step, last)
                speed = task.batch_size * (bar.format_dict["rate"] or 0)
                bar.set_postfix_str(
                    f"{speed:.0f} img/s " + " ".join(f"{k}={v:.4g}" for k, v in last.items()), refresh=False
                )
            run.save(step)
            if _due(step, schedule.preview_every) or step == schedule.steps:
                grid = task.preview()
                if rank() == 0:
                    save_grid(grid, folder / f"samples-{step:06d}.png")
                    log.plot(folder / "curves.png")
    except KeyboardInterrupt:
        # The step in flight may have left the weights half-updated, so the newest checkpoint on disk stays the truth.
        interrupted = f"interrupted at update {step}; --resume continues from {run.saved(step)}"
    finally:
        bar.close()
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stopped = interrupted or (run.ledger.sentence() if run.ledger.stopped else "")
    if stopped:
        _say(stopped)
    return Outcome(step, time.perf_counter() - began, last, stopped, bool(interrupted))


class _Run:
    """The states of a run on disk, and what the guard makes of them.

    ``checkpoint.pt`` decides everything: it names the attempt and the states to go back to, and is replaced in one stroke, so a process
    killed at any moment, also while going back, leaves a run that continues as an unbroken one. Other files are written before it or follow
    from it.
    """

    def __init__(self, task: Task, folder: Path, schedule: Schedule, settings: GuardSettings) -> None:
        self.task, self.folder, self.schedule = task, folder, schedule
        self.guard, self.ledger = Guard(settings), Ledger(settings)
        self.newest = folder / "checkpoint.pt"

    def start(self, exists: bool) -> int:
        """Take the run up where it was left and return its update; a new one begins at 0."""
        step = self._load() if exists else 0
        if self.ledger.stopped and not self.ledger.continue_stopped():
            self._report(step)
            return step
        self._drop(lambda kept: kept > step)
        self._begin_attempt(step)
        if not exists and self.ledger.settings.guard_window and self.ledger.settings.guard_retries:
            self._write(0, ("step-000000.pt", "checkpoint.pt"))  # a retry may have to begin from the start
        return step

    def step(self, step: int) -> tuple[dict[str, float], Diverged | None]:
        """Make one update; return what to log, and the alarm that it gave in any process."""
        values: dict[str, float] = {}
        alarm = None
        try:
            values = self.task.step(step)
            values = {**values, **self.guard.check(values)}
        except Diverged as seen:
            alarm = seen
        return values, _agree(alarm)

    def saved(self, step: int) -> str:
        """Say where a run that was cut off after update ``step`` goes on."""
        every = self.schedule.checkpoint_every
        newest = step // every * every if every else 0
        return f"update {newest}, the last one saved" if newest else "the start: nothing was saved yet"

    def save(self, step: int) -> None:
        """Write what is due after update ``step``."""
        done = step == self.schedule.steps
        due = done or _due(step, self.schedule.checkpoint_every)
        if done:
            self.ledger.finished(step)
        elif due:
            self.ledger.saved(step)
        names = [f"step-{step:06d}.pt"] if self._is_kept(step) else []
        names += ["checkpoint.pt"] if due else []
        if names:
            self._write(step, names)
        if due:
            self._drop(lambda kept: not self._is_kept(kept))
        if done:
            self._report(step)

    def go_back(self, step: int, alarm: Diverged) -> int:
        """Answer an alarm at update ``step``: return to the best state, which also becomes ``checkpoint.pt``; return its update."""
        back_to = self.ledger.alarm(step, alarm)
        if back_to is None:
            self._report(0)
            return 0
        if rank() == 0:
            state = {**_read(self.folder / f"step-{back_to:06d}.pt"), "ledger": self.ledger.state_dict()}
            write_atomically(self.newest, lambda partial: torch.save(state, partial))
        _wait_for_all()
        self._load()
        if not self.ledger.stopped:
            self._drop(lambda kept: kept > back_to)
        self._begin_attempt(back_to)
        return back_to

    def _begin_attempt(self, step: int) -> None:
        self.task.rate_scale = self.ledger.rate_scale
        self._report(step)

    def _load(self) -> int:
        saved = _read(self.newest)
        if "ledger" in saved:  # states of an older version have none
            self.guard.load_state_dict(saved["watched"])
            self.ledger.load_state_dict(saved["ledger"])
        return _put(saved, self.task)

    def _write(self, step: int, names: Sequence[str]) -> None:
        """Write the state under the given names, in their order; every process takes part, as states may be spread over them."""
        state = {
            "step": step,
            "watched": self.guard.state_dict(),
            "ledger": self.ledger.state_dict(),
            **{name: part.state_dict() for name, part in self.task.state().items()},
        }
        if rank() == 0:
            for name in names:
                write_atomically(self.folder / name, lambda partial: torch.save(state, partial))

    def _is_kept(self, step: int) -> bool:
        return step in (self.ledger.older, self.ledger.healthy, self.ledger.candidate) or _due(
            step, self.schedule.keep_every
        )

    def _drop(self, which: Callable[[int], bool]) -> None:
        """Delete kept states: those of a lost future, or those that nobody needs any more."""
        if rank() == 0:
            for step, path in kept_states(self.folder).items():
                if which(step):
                    path.unlink()

    def _report(self, step: int) -> None:
        """Bring guard.json and stopped.txt to what the ledger says."""
        if rank() > 0:
            return
        report, stopped = self.folder / "guard.json", self.folder / "stopped.txt"
        if self.ledger.alarms:
            text = json.dumps(self.ledger.report(step, self.schedule.steps), indent=1) + "\n"
            write_atomically(report, lambda partial: partial.write_text(text))
        if self.ledger.stopped:
            line = self.ledger.sentence() + "\n"
            write_atomically(stopped, lambda partial: partial.write_text(line))
        else:
            stopped.unlink(missing_ok=True)


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


def restore(path: Path, task: Task) -> int:
    """Load a state written by :func:`fit` into ``task``; return its update.

    Raises:
        UserError: the file is damaged.
    """
    return _put(_read(path), task)


def _put(saved: Mapping[str, Any], task: Task) -> int:
    for name, part in task.state().items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def check_vacant(folder: Path, resume: bool) -> bool:
    """Return whether the folder holds a run.

    Raises:
        UserError: it does, and ``resume`` is false.
    """
    exists = (folder / "checkpoint.pt").exists()
    if exists and not resume:
        raise UserError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    return exists


def kept_states(folder: Path) -> dict[int, Path]:
    """Return the kept states of a run by their update, oldest first."""
    return {int(path.stem[5:]): path for path in sorted(folder.glob("step-*.pt"))}


def read_ledger(folder: Path, settings: GuardSettings) -> tuple[Ledger, int]:
    """Return the guard's record of a run and the update of its ``checkpoint.pt``.

    States of an older version have no record: their guard let nothing pass, so no update up to the newest state gave an alarm.

    Raises:
        UserError: the file is damaged.
    """
    saved, ledger = _read(folder / "checkpoint.pt"), Ledger(settings)
    if "ledger" in saved:
        ledger.load_state_dict(saved["ledger"])
    return ledger, int(saved["step"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a state of a training run, or truncated ({type(error).__name__})") from None


def _wait_for_all() -> None:
    if world_size() > 1:
        dist.barrier()


def _agree(alarm: Diverged | None) -> Diverged | None:
    """Return the alarm of the first process that has one, in all of them."""
    if world_size() == 1:
        return alarm
    seen: list[tuple[str, dict[str, Any]] | None] = [None] * world_size()
    dist.all_gather_object(seen, None if alarm is None else (str(alarm), alarm.evidence))
    return next((Diverged(*one) for one in seen if one), None)


def _say(message: str) -> None:
    if rank() == 0:
        print(message, file=sys.stderr)


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
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    write_atomically(path, lambda partial: picture.save(partial, format="png"))


def read_log(path: Path, keep_to: int) -> list[dict[str, float]]:
    """Return the lines of a log.csv up to and including update ``keep_to`` (none where there is no such file)."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")  # a line that was cut off belongs to a lost future
    rows = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(whole.splitlines()))
    return [row for row in rows if row["step"] <= keep_to]


def last_logged(folder: Path, step: int) -> dict[str, float]:
    """Return the newest logged quantities of a run that are not after update ``step`` (empty when there are none)."""
    rows = read_log(folder / "log.csv", step)
    return {name: value for name, value in rows[-1].items() if name != "step"} if rows else {}


class _Log:
    """log.csv with one column per quantity of the first logged step; lines after ``keep_to`` belong to a lost future and are dropped.

    Only the first process writes.
    """

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path, self.writes = path, rank() == 0
        self.rows = read_log(path, keep_to)
        if self.rows:
            self._rewrite()
        elif self.writes:
            path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        def write(partial: Path) -> None:
            with partial.open("w", newline="") as out:
                writer = csv.DictWriter(out, self.rows[0].keys())
                writer.writeheader()
                writer.writerows({**row, "step": int(row["step"])} for row in self.rows)

        if self.writes:
            write_atomically(self.path, write)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **values})
        if len(self.rows) == 1:
            self._rewrite()
        elif self.writes:
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
        write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=80))
