"""Checkpoints that other people published, by the layout of their files.

A module here is one layout. Its ``read(path, content)`` returns a :class:`~vaebm.checkpoints.Checkpoint` whose card says what the
weights are and how they are to be used, with weights named as the native system names them, or None where the file is of another layout.
``content`` is what the pickle holds (loaded without running code), None for a folder.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.pickles import read_pickle

LAYOUTS = sorted(module.name for module in iter_modules(__path__))


def read_official(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a file or folder of a known layout; None where the layout is not known.

    Raises:
        UserError: the file is missing, damaged, or wants to run code; or it is of a known layout with something wrong in it.
    """
    content: Any = None if path.is_dir() else read_pickle(path)
    for layout in LAYOUTS:
        found = import_module(f"baselines.official.{layout}").read(path, content)
        if found is not None:
            return found
    return None
