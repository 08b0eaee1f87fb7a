"""One run at a time in a folder: the second is refused in one line that names the first.

The lock is the kernel's (``flock``), so it ends with the process that holds it, however that process ends: the file ``.lock`` that a killed
one leaves behind locks nothing. It holds between the machines that share a file system as far as that file system carries ``flock``
to its server: NFS 4 does, NFS 3 with its lock service, Lustre mounted with ``flock``. Where there are no locks at all, that is said and
the run goes on without one.
"""

import errno
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vaebm.errors import UserError
from vaebm.parallel import on_main

if TYPE_CHECKING:
    from filelock import BaseFileLock

FILE = ".lock"
WAIT = 0.5  # seconds for a run that is just leaving
_LONGEST = 160  # letters of a command in a message
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(folder: Path, flag: str, shown: Path | None = None) -> Iterator[None]:
    """Hold ``folder``, which is made if it is not there, until the block ends; an empty one that was made goes with it.

    Of several processes that work together the first one holds it, for all. A process that was forked meanwhile holds it too, until it
    ends: start no such process that may outlive the run.

    Args:
        flag: the option that named the folder, for messages.
        shown: what was given to it, where that is not the folder itself.

    Raises:
        UserError: another run holds it (which one is said), or it cannot be made or written to; in every process.
    """
    made: list[Path] = []
    lock: list[BaseFileLock] = []  # of the first process only: what cannot be pickled is not sent to the others
    try:
        on_main(lambda: _take(folder, flag, shown or folder, made, lock))
        yield
    finally:
        for held in lock:
            with suppress(OSError):  # while it is held: nobody can have taken this file meanwhile
                Path(held.lock_file).unlink()
            held.release()
        for path in made:
            with suppress(OSError):
                path.rmdir()


def holder(folder: Path) -> str:
    """Say which run holds a locked folder, as it has written down itself."""
    try:
        return (folder / FILE).read_text(errors="replace").strip() or "another run"
    except OSError:
        return "another run"


def _take(folder: Path, flag: str, shown: Path, made: list[Path], lock: list["BaseFileLock"]) -> None:
    from filelock import FileLock, Timeout

    path = folder / FILE
    # Not waited for with a file that is there or not (a soft lock): one that a killed process leaves would lock for ever. Everybody may
    # open the file, or else that of a killed run could keep out other users of a shared folder.
    taken = FileLock(path, timeout=WAIT, mode=0o666, fallback_to_soft=False)
    try:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        made += missing
        taken.acquire()
    except Timeout:
        raise UserError(
            f"{flag} {shown}: in use by {holder(folder)}; wait until it has ended, or choose another {flag}"
        ) from None
    except (OSError, NotImplementedError) as error:
        number = getattr(error, "errno", errno.ENOSYS)
        if number not in _NO_LOCKS:
            why = "it is a file" if number == errno.EEXIST else getattr(error, "strerror", None) or error
            raise UserError(f"{flag} {shown}: cannot be written ({why}); choose another {flag}") from None
        print(
            f"note: {folder}: its file system has no locks; make sure that no other run writes there", file=sys.stderr
        )
        return
    lock.append(taken)
    with suppress(OSError):  # a full disk: the lock holds, without a name on it
        path.write_text(f"{_about_me()}\n")


def _about_me() -> str:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    command = " ".join(command.split())
    if len(command) > _LONGEST:
        command = f"{command[:_LONGEST]} ..."
    return f"process {os.getpid()} on {platform.node()} since {since} ({command})"
