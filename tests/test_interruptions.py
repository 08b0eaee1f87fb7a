"""Signals end a run in one line, wherever they find it; what was made is kept, and the same command makes the rest."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import benchmark
import leaderboards
from vaebm import cli
from vaebm.lock import locked

ROOT = Path(__file__).parents[1]
SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


def program(body: str, before: str = "") -> str:
    """A program whose main is ``body``; it prints "ready" where it wants to be interrupted."""
    return f"""
import vaebm.interrupts as interrupts
interrupts.watch()
import os, signal, subprocess, sys, threading, time
{before}
def ready():
    print("ready", flush=True)
from vaebm.cli import run
from vaebm.errors import UserError
def main(_):
{textwrap.indent(textwrap.dedent(body), "    ")}
    return 0
raise SystemExit(run(main, []))
"""


def start(code: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def interrupt(code: str, signals: Sequence[int], *, pause: float = 0.05, between: float = 0.2) -> tuple[int, str]:
    """Start a program, send it the signals once it is ready, and return how it ended and what it said."""
    process = start(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    for number in signals:
        time.sleep(pause)
        process.send_signal(number)
        pause = between
    _, said = process.communicate(timeout=60)
    return process.returncode, said


WHERE = {
    "asleep": "ready(); time.sleep(60)",
    "in a join": "t = threading.Thread(target=time.sleep, args=(60,)); t.start(); ready(); t.join()",
    "in a join of a pool": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 60)
            ready()
        """,
    "in a destructor": """
        class Slow:
            def __del__(self):
                for _ in range(1000):
                    pass
        ready()
        while True:
            Slow()
        """,
    "in code that swallows everything": """
        ready()
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
        """,
    "in code that makes another error of it": """
        ready()
        try:
            time.sleep(60)
        except BaseException:
            raise UserError("something else") from None
        """,
    "in a library's own loop": """
        import torch
        x = torch.rand(700, 700, dtype=torch.float64)
        ready()
        while True:
            torch.linalg.eigvals(x)
        """,
    "in a library that never comes back": """
        import ctypes
        lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
        lock(mutex)
        ready()
        lock(mutex)
        """,
}


CASES = [(where, number) for where in WHERE for number in (signal.SIGINT, signal.SIGTERM)] + [("asleep", signal.SIGHUP)]


@pytest.mark.parametrize(("where", "number"), CASES)
def test_a_signal_is_one_line_and_its_code(where: str, number: int) -> None:
    hasty = "interrupts.GRACE = 0.5"
    assert interrupt(program(WHERE[where], hasty), [number]) == (128 + number, f"{SAID[number]}\n")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_what_takes_its_time_to_leave(second: int) -> None:
    body = """
        ready()
        try:
            time.sleep(60)
        finally:
            time.sleep(60)
        """
    code, said = interrupt(program(body), [signal.SIGINT, second])
    assert (code, said) == (128 + second, f"{SAID[second]}\n")


def test_a_run_is_left_in_order() -> None:
    """By the first signal, not by the end of the process: what cleans up is called."""
    body = """
        ready()
        try:
            time.sleep(60)
        finally:
            print("cleaned up", file=sys.stderr)
        """
    assert interrupt(program(body), [signal.SIGTERM]) == (143, "cleaned up\nterminated\n")


@pytest.mark.parametrize("pause", [0.0, 0.2, 0.5, 0.9])
def test_while_torch_is_imported(pause: float) -> None:
    code, said = interrupt(program("ready(); import torch; time.sleep(60)"), [signal.SIGINT], pause=pause)
    assert (code, said) == (130, "interrupted\n")


def test_before_the_run_has_begun() -> None:
    before = 'print("ready", flush=True); time.sleep(60)'
    assert interrupt(program("pass", before), [signal.SIGINT]) == (130, "interrupted\n")


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + program("ready(); time.sleep(1)")
    assert interrupt(code, [signal.SIGHUP]) == (0, "")


def test_a_forked_child_is_ended_without_its_parent() -> None:
    body = """
        child = os.fork()
        if not child:
            time.sleep(60)
        time.sleep(0.3)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        ready()
        time.sleep(1)
        """
    assert interrupt(program(body, "interrupts.GRACE = 0.2"), []) == (0, "")


def test_only_the_first_of_several_processes_says_it() -> None:
    code = 'import os; os.environ["RANK"] = "1"\n' + program("ready(); time.sleep(60)")
    assert interrupt(code, [signal.SIGTERM]) == (143, "")


# --- what is left of a run


SMALL = ["--suite", "ood", "--systems", "none", "--ood", "svhn", "--num-images", "20", "--no-progress", "--offline"]


@pytest.fixture
def front_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setattr(leaderboards, "write_plots", lambda *_, **__: [])  # most of the time of a small run
    return lambda out, *more: cli.run(
        benchmark.main, [*SMALL, "--out", str(tmp_path / out), "--cache", str(tmp_path / "cache"), *more]
    )


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("ood.csv", "ood.md", "ood.tex", "ood_tables.json")}


def test_a_run_interrupted_between_its_files_is_made_whole_by_the_same_command(
    front_door: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result file is written first, and the tables are of the run before: the same command, which computes nothing, brings them up."""
    assert front_door("out") == 0
    old = tables(tmp_path / "out")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(leaderboards, "write_plots", interrupted)
        assert front_door("out", "--seed", "1", "--num-images", "21") == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert tables(tmp_path / "out") == old
    assert '"num_images": 21' in (tmp_path / "out" / "ood.json").read_text()
    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert front_door("out", "--seed", "1", "--num-images", "21") == 0
    assert front_door("other", "--seed", "1", "--num-images", "21") == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "other") != old
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")} == scores
    assert not [path for path in tmp_path.rglob("*") if path.name == ".lock" or path.name.endswith(".partial")]


def test_a_second_run_into_the_same_folder_is_refused(
    front_door: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out", "--out"):
        assert front_door("out") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"--out {tmp_path / 'out'}: in use by process {os.getpid()} on " in said
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert front_door("out") == 0


TRAINING = """
import numpy as np, torch
from pathlib import Path
from vaebm.training.loop import Schedule, fit
class Toy:
    batch_size, rate_scale = 4, 1.0
    weight = torch.nn.Linear(1, 1)
    def state(self):
        return {"weight": self.weight}
    def step(self, step):
        if step == 5:
            ready()
        time.sleep(0.05)
        return {"loss": 1.0}
    def preview(self):
        return np.zeros((1, 8, 8, 3), np.uint8)
outcome = fit(Toy(), Path(FOLDER), Schedule(200, checkpoint_every=2, preview_every=0), seed=0, progress=False)
return 130 if outcome.interrupted else 0
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_training_says_from_where_it_goes_on(number: int, tmp_path: Path) -> None:
    code, said = interrupt(program(TRAINING, f"FOLDER = {str(tmp_path)!r}"), [number])
    assert code == 128 + number
    assert re.fullmatch(r"interrupted at update \d+; --resume continues from update \d+, the last one saved\n", said)
    assert (tmp_path / "checkpoint.pt").exists()
