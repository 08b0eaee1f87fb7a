"""Commands that are timed: run to their end, on chosen cores, and never left behind."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from vaebm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 5.0  # seconds between asking a command to end and ending it


class CommandError(UserError):
    """A command that did not do what it should; ``reason`` is the last line that it said."""

    def __init__(self, command: Sequence[str], code: int, reason: str) -> None:
        super().__init__(f"{shlex.join(['python', *command[1:]])}: ended with exit code {code}: {reason}")
        self.reason = reason


def timed(
    command: Sequence[str], environment: Mapping[str, str] | None = None, cores: Collection[int] | None = None
) -> float:
    """Run a command in the root of the checkout and return its wall seconds. What it says on stderr is passed on, its stdout dropped.

    Args:
        environment: variables beside this process's own.
        cores: the numbers of those it may use, it and all that it starts; None: as this process.

    Raises:
        CommandError: its exit code is not 0.
    """
    began = time.perf_counter()
    last = "no message"
    with on_cores(cores):
        process = Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=DEVNULL,
            stderr=PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that all of it can be ended together
        )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last
            print(line, end="", file=sys.stderr, flush=True)
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise CommandError(command, code, last.removeprefix("error: "))
    return time.perf_counter() - began


@contextmanager
def on_cores(cores: Collection[int] | None) -> Iterator[None]:
    """Let what is started within the block use these cores only."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores_here() -> list[int]:
    """Return the numbers of the cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _end(process: Popen[str]) -> None:
    """End a command that is still running, as an interrupted benchmark leaves it: first ask, so that torchrun can end its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(TimeoutExpired):
                process.wait(PATIENCE)
