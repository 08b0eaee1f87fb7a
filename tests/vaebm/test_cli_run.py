"""What a command line says of errors that are not its own."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vaebm import cli
from vaebm.errors import UserError


def raising(error: Exception) -> Callable[[object], int]:
    def main(_: object) -> int:
        raise error

    return main


def told(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.run(raising(error), []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") <= 1
    return err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_and_without_a_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    why = os.strerror(number)
    for error, said in (
        (OSError(number, why), f"error: {why}; "),
        (OSError(number, why, "f.npz"), f"error: f.npz: {why}; "),
    ):
        line = told(error, capsys)
        assert line.startswith(said)
        assert "repeat the command (a training with --resume): what was made is kept" in line


def test_other_refusals_of_a_file_system_name_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(PermissionError(errno.EACCES, "Permission denied", "f"), capsys) == "error: f: Permission denied\n"
    assert "f: Read-only file system; choose another folder" in told(
        OSError(errno.EROFS, "Read-only file system", "f"), capsys
    )
    with pytest.raises(OSError, match="no file"):  # a mistake of the program
        cli.run(raising(OSError("no file is named")), [])


def test_what_all_processes_were_told_the_first_one_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, own = UserError("all know"), UserError("mine")
    shared.everywhere = True  # type: ignore[attr-defined]
    assert told(shared, capsys) == "error: all know\n"
    monkeypatch.setenv("RANK", "1")
    assert told(shared, capsys) == ""
    assert told(own, capsys) == "error: mine\n"


def test_the_end_of_another_process_is_no_mistake_of_this_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5")
    with pytest.raises(RuntimeError, match="gloo"):
        cli.run(raising(error), [])
    monkeypatch.setattr(cli, "world_size", lambda: 2)
    assert "another process of this run has ended" in told(error, capsys)
    with pytest.raises(RuntimeError, match="something"):
        cli.run(raising(RuntimeError("something else")), [])


def test_what_is_left_to_be_written_to_a_full_output_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)

        def main(_: object) -> int:
            print("a table")  # into the buffer
            return 0

        assert cli.run(main, []) == 2
    monkeypatch.undo()
    assert "No space left on device" in capsys.readouterr().err
