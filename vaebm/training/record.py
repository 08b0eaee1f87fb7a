"""What a run was started with, kept beside its checkpoints: a resumed run must be the same run."""

import json
from pathlib import Path
from typing import Any

from vaebm.atomic import write_atomically
from vaebm.errors import UserError
from vaebm.parallel import rank

FILE = "run.json"
FREE = (
    "command",
    "guard_retries",
)  # the same settings can be asked for in other words; a stopped run may be given more retries


def record_run(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Write ``settings`` to the run folder, or, for a resumed run, hold them against what is there.

    What does not change the updates made so far may change: the words of the command, and how often the guard may still retry.

    Raises:
        UserError: a resumed run has other settings than it was started with (the first difference is named), or the folder cannot be
            written.
    """
    path = folder / FILE
    plain = json.loads(json.dumps(settings))  # tuples become lists, as they will be read back
    if resume and path.exists():
        before = json.loads(path.read_text())
        difference = next((d for d in _differences(before, plain) if d[0].split(".")[-1] not in FREE), None)
        if difference:
            key, then, now = difference
            raise UserError(f"--resume: {key} is now {now!r}, but the run in {folder} was started with {then!r}")
    elif rank() == 0 and not (folder / "checkpoint.pt").exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda partial: partial.write_text(json.dumps(plain, indent=1) + "\n"))
        except OSError as error:
            raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None


def read_run(folder: Path) -> dict[str, Any]:
    """Return what :func:`record_run` wrote.

    Raises:
        UserError: the folder holds no run.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder (no {FILE})")
    return json.loads(path.read_text())


def _differences(then: Any, now: Any, key: str = ""):
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            yield from _differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif then != now:
        yield key, then, now
