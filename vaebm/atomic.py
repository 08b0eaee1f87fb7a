"""Files that are either complete or not there: written beside their place, then put there in one stroke."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with the path of a partial file, then replace ``path`` by it; a process killed meanwhile leaves ``path`` as it was."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
