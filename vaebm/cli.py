"""What the command lines share: strict typed options (command line > --config file > default), one-line errors, exit code 2."""

import difflib
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from vaebm.errors import UserError, did_you_mean


def parse(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Parse strictly and build the dataclasses that options describe.

    Raises:
        UserError: an option or a value is wrong; for an unknown option, with the nearest known one.
    """
    try:
        return parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, ValueError, TypeError, KeyError) as error:
        message = " ".join(str(error).split())
        unknown = re.search(r"(?:unrecognized arguments:|does not accept option) '?(-*[\w.-]+)", message)
        if unknown:
            options = [option for action in parser._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[1], options or [], n=1, cutoff=0.5)
            message = f"unknown option {unknown[1]}." + (f" Did you mean {near[0]}?" if near else " See --help.")
        if missing := re.search(r"arguments are required: (.+)", message):  # by their names in Python
            flags = {action.dest: (action.option_strings or [action.dest])[-1] for action in parser._actions}
            message = "needed: " + ", ".join(flags.get(name, name) for name in missing[1].split(", "))
        raise UserError(message) from None


def run(main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Call ``main`` and turn a :class:`UserError`, a file system's refusal or a full device into one line and exit code 2; a closed pipe
    ends quietly."""
    try:
        return main(arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no permission, no such folder, disk full: the user's to mend, where it names a file
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; importing torch for it would cost a second
            raise
        how = "needed fewer images at a time (--batch-size, or batch_size of a training)"
        print(f"error: {str(error).splitlines()[0]} {how}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def find_config(name: str, folder: Path) -> Path:
    """Return the configuration file a user means: a path to a .toml, or the name of one in ``folder``.

    Raises:
        UserError: neither exists.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UserError(f"--config {name}: no such file")
        return Path(name)
    known = {path.stem: path for path in folder.glob("*.toml")}
    if name not in known:
        raise UserError(f"unknown configuration {name!r} for --config.{did_you_mean(name, known)}")
    return known[name]


def named(flag: str, values: Sequence[str]) -> dict[str, str]:
    """Read repeated NAME=PATH options.

    Raises:
        UserError: one is not of that form, or a name is given twice.
    """
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise UserError(f"{flag} {value}: needed NAME=PATH")
        if name in pairs:
            raise UserError(f"{flag} {name}=...: the name is given twice; needed one file per name")
        pairs[name] = path
    return pairs


def use_device(device: str, threads: int = 0) -> None:
    """Set the number of CPU threads (0: torch's choice) and make sure that the device is there.

    Raises:
        UserError: it is not, or ``threads`` is negative.
    """
    import torch

    if threads < 0:
        raise UserError(f"--threads {threads}: needed 0 (torch's choice) or more")
    if threads:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {device}: not available ({str(error).splitlines()[0]})") from None
