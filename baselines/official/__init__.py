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
from vaebm.checkpoints.limits import at_most
from vaebm.checkpoints.pickles import ForeignPickleError, count_tensors, read_pickle
from vaebm.errors import UserError

MAX_WEIGHTS = 5_000  # of a network in a folder; the largest published one that is read here has 1,000
LAYOUTS = sorted(module.name for module in iter_modules(__path__))


def read_official(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a file or folder of a known layout; None where the layout is not known.

    Raises:
        UserError: the file is missing, damaged, or wants to run code; or it is of a known layout with something wrong in it.
    """
    content: Any = None if path.is_dir() else read_pickle(path)
    for layout in LAYOUTS:
        module = import_module(f"baselines.official.{layout}")
        try:
            with at_most(MAX_WEIGHTS if content is None else count_tensors(content), str(path)):
                found = module.read(path, content)
        except ForeignPickleError as error:
            raise UserError(str(error)) from None  # of a file in a folder: no other reader is to try
        except (UserError, OSError):
            raise
        except Exception as error:  # the file may hold anything anywhere
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise UserError(f"{path}: not a checkpoint of the layout {layout} ({why})") from None
        if found is not None:
            return found
    return None
