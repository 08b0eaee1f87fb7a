"""One run at a time in a folder, whatever became of the runs before it."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from vaebm import lock
from vaebm.errors import UserError
from vaebm.lock import FILE, locked

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from vaebm.lock import locked
with locked(Path(sys.argv[1]), "--out"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Hold a folder in a process of its own."""
    started, script = [], tmp_path_factory.mktemp("script") / "hold.py"
    script.write_text(HOLD)

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, script.name, str(folder), "a b"],
            cwd=script.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_run_is_told_which_is_the_first(
    hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = hold(tmp_path)
    for _ in range(2):  # asking does not spoil the answer
        with pytest.raises(UserError) as refused, locked(tmp_path, "--out"):
            pass
        said = str(refused.value)
        assert said.startswith(f"--out {tmp_path}: in use by process {process.pid} on {os.uname().nodename} since 20")
        assert f" UTC (python hold.py {tmp_path} 'a b'); wait" in said  # the command, as it was typed
        assert said.endswith("; wait until it has ended, or choose another --out")
        assert "\n" not in said
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / FILE).exists()
    with locked(tmp_path, "--out"):  # what a killed process leaves locks nothing
        assert str(os.getpid()) in lock.holder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_meanwhile_is_waited_for(
    hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = hold(tmp_path)
    monkeypatch.setattr(lock, "WAIT", 30)
    process.kill()
    with locked(tmp_path, "--out"):
        pass


def test_other_folders_are_free(hold: Callable[[Path], subprocess.Popen[str]], tmp_path: Path) -> None:
    hold(tmp_path / "a")
    with locked(tmp_path / "b", "--out"), locked(tmp_path / "a" / "below", "--out"):
        pass


def test_a_folder_that_was_made_goes_if_nothing_was_put_in_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", "--out"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [FILE]
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b", "--out"):
        (tmp_path / "a" / "result").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine", "--out"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_an_error_frees_the_folder_and_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "--out"):
        _ = 1 // 0
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path, "--out"), pytest.raises(UserError, match="in use"), locked(tmp_path, "--out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_no_folder_is_named_by_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--to .*file: cannot be written \(it is a file\); choose another --to"):
        locked(tmp_path / "file", "--to").__enter__()
    with pytest.raises(UserError, match=r"--to .*shown: cannot be written \(Not a directory\)"):
        locked(tmp_path / "file" / "below", "--to", Path("shown")).__enter__()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / FILE).symlink_to(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        locked(tmp_path, "--out").__enter__()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_the_run_goes_on_and_says_so(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: object, *_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    for _ in range(2):
        with locked(tmp_path, "--out"):
            pass
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "has no locks; make sure that no other run writes there" in said


def test_a_full_disk_leaves_a_lock_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with locked(tmp_path, "--out"), pytest.raises(UserError, match="in use by another run"), locked(tmp_path, "--out"):
        pass


def test_of_many_that_come_at_once_one_gets_in(tmp_path: Path) -> None:
    """Also while locks are given back and their files removed."""
    race = """
import sys, time
from pathlib import Path
from vaebm import lock
from vaebm.errors import UserError
lock.WAIT = 0
folder = Path(sys.argv[1])
inside = folder / "inside"
got = 0
while time.time() < float(sys.argv[2]):
    try:
        with lock.locked(folder, "--out"):
            inside.touch(exist_ok=False)
            got += 1
            inside.unlink()
    except UserError:
        pass
print(got)
"""
    end = str(time.time() + 2.5)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", race, str(tmp_path), end], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in racers]
    assert [process.returncode for process in racers] == [0, 0, 0]
    assert sum(counts) > 10
