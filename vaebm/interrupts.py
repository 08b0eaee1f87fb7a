"""Ctrl-C, ``kill`` and a closed terminal end a run in one line, wherever they find it; what was made by then is kept.

The first signal raises :class:`Interrupted` in the main thread, so that a run leaves as it would by any error: partial files go, chunks
that are complete stay. A second signal ends the process at once, and so do ``GRACE`` seconds in which the run has not ended, because it
is deep in a library or waits for another thread or process. Nothing is lost by that: every file is written so that it bears SIGKILL.
"""

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

GRACE = 5.0
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):
    WORDS[signal.SIGHUP] = "the terminal was closed"


class Interrupted(KeyboardInterrupt):
    """A signal, by its number."""

    def __init__(self, number: int) -> None:
        super().__init__(WORDS[signal.Signals(number)])
        self.number = number


@dataclass
class Caught:
    """The first signal that came; 0 if none did."""

    number: int = 0


def watch() -> None:
    """End the process in one line at a signal from now on: for the first lines of a program, whose other imports take a while."""
    for number in _heeded():
        signal.signal(number, lambda number, _: _end(number))


@contextmanager
def interruptible(caught: Caught) -> Iterator[None]:
    """Within the block, let a signal end it as the module says; afterwards everything is as before, unless there was one.

    Args:
        caught: where the first signal is noted.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def handle(number: int, _: Any) -> None:
        if caught.number:
            _end(number)
        caught.number = number
        raise Interrupted(number)

    def unraisable(event: Any) -> None:
        # Raised inside a callback, of which Python would only print that it was ignored.
        if isinstance(event.exc_value, Interrupted):
            _end(event.exc_value.number)
        hook(event)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    threading.Thread(target=_wait, args=(reader,), name="signals", daemon=True).start()
    before = {number: signal.signal(number, handle) for number in _heeded()}
    fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        if not caught.number:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(fd)
            sys.unraisablehook = hook
            writer.close()  # which ends the thread
        else:
            _kept.append(writer)  # until the process ends, which the thread sees to


def say(number: int) -> None:
    """Print the line about a signal, once, and of several processes only in the first."""
    global _said
    if _said or os.environ.get("RANK", "0") != "0":
        return
    _said = True
    # Past Python's buffers, which the main thread may be in the middle of.
    start = "\n" if os.isatty(2) else ""  # there may be half a progress bar
    with suppress(OSError):
        os.write(2, f"{start}{WORDS[signal.Signals(number)]}\n".encode())


_said = False
_kept: list[socket.socket] = []


def _heeded() -> list[signal.Signals]:
    """Those that are not to be ignored: nohup ignores SIGHUP, a shell SIGINT for what runs in the background."""
    return [number for number in WORDS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _wait(reader: socket.socket) -> None:
    """Count seconds from the first signal on, in a thread of its own: the main one may be where no signal reaches Python."""
    with reader:
        first = _next(reader, None)
        if first:
            _end(_next(reader, GRACE) or first)


def _next(reader: socket.socket, seconds: float | None) -> int:
    """The next signal of ours; 0 if there is none in that time, or none will come any more."""
    while select.select([reader], [], [], seconds)[0]:
        read = reader.recv(1)
        if not read:
            return 0
        if read[0] in WORDS:
            return read[0]
    return 0


def _end(number: int) -> NoReturn:
    say(number)
    os._exit(128 + number)


def _in_child() -> None:
    """A forked child has signals of its own; without this, they would be told to its parent."""
    with suppress(ValueError):
        for number in WORDS:
            handler = signal.getsignal(number)
            if getattr(handler, "__module__", "") == __name__:
                signal.set_wakeup_fd(-1)
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
