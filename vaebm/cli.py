"""What the command lines share: strict typed options (command line > --config file > default), one-line errors, exit code 2."""

import difflib
import errno
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from vaebm.atomic import FULL
from vaebm.config_file import check_configs
from vaebm.errors import UserError, did_you_mean
from vaebm.interrupts import Caught, interruptible, say
from vaebm.parallel import number, world_size

_NAME = re.compile(r"[\w.+-]{1,80}")  # it stands in tables, and in the names of files and of arrays


MOST_THREADS = 1024


def parse(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Parse strictly and build the dataclasses that options describe.

    Raises:
        UserError: an option or a value is wrong; for an unknown option, with the nearest known one.
    """
    try:
        return _parsed(parser, arguments)
    except UserError as error:
        error.everywhere = True  # all processes of a run were given the same words
        raise


def _parsed(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    given = sys.argv[1:] if arguments is None else arguments
    for word in given:
        if not word.isascii() and not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word!r}: is no text (not UTF-8); rename the file or choose another name")
    check_configs(given)
    try:
        return parser.instantiate(parser.parse_args(arguments))
    except RecursionError:
        raise UserError("--config: what it holds is nested too deep") from None
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
    """Call ``main`` and turn a :class:`UserError`, a file system's refusal, a full device or a signal into one line and an exit code.

    Returns:
        What ``main`` does; 2 for a mistake or a refusal; 130, 143 or 129 for Ctrl-C, SIGTERM or a closed terminal
        (:mod:`vaebm.interrupts`). A closed pipe ends quietly with 0.
    """
    caught = Caught()
    try:
        with interruptible(caught):
            code = _call(main, arguments, caught)
    except BaseException:  # an interrupt comes out of a library as anything
        if not caught.number:
            raise
        say(caught.number)
        code = 130
    return 128 + caught.number if caught.number and code == 130 else code


def _call(main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None, caught: Caught) -> int:
    try:
        code = main(arguments)
        sys.stdout.flush()  # what it does not take is said now, not by Python after the end
        return code
    except KeyboardInterrupt:
        if caught.number:
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if caught.number:
            raise
        if isinstance(error, OSError):
            _empty_stdout()
        if isinstance(error, BrokenPipeError):
            return 0
        said = _in_one_line(error)
        if said is None:
            raise
        if not (getattr(error, "everywhere", False) and number()):  # what all processes were told, the first one says
            print(f"error: {said}", file=sys.stderr)
        return 2


def _empty_stdout() -> None:
    """Where it takes nothing any more, a closed pipe or a full disk, let go what is still to be written to it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_one_line(error: Exception) -> str | None:
    """What the user can mend, said for them; None for a mistake of the program."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):  # no permission, no such folder, disk full
        if error.filename is not None:
            return f"{error.filename}: {error.strerror or error}{_WHAT_NOW.get(error.errno or 0, '')}"
        return f"{error.strerror}{_WHAT_NOW[error.errno]}" if error.errno in _WHAT_NOW else None
    if (
        isinstance(error, RuntimeError)
        and world_size() > 1
        and ("gloo" in str(error) or "Dist" in type(error).__name__)
    ):
        return "another process of this run has ended; what it said tells why"
    if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch for it would cost a second
        how = "needed fewer images at a time (--batch-size, or batch_size of a training)"
        return f"{str(error).splitlines()[0]} {how}"
    return None


# Where no file is named, too: writing fails long after opening.
_WHAT_NOW = dict.fromkeys(
    FULL, "; free some space and repeat the command (a training with --resume): what was made is kept"
)
_WHAT_NOW[errno.EROFS] = "; choose another folder"


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
        if not _NAME.fullmatch(name) or not name.strip("."):
            raise UserError(f"{flag} {name[:80]!r}=...: needed a NAME of letters, digits and _ . + -, at most 80")
        if name in pairs:
            raise UserError(f"{flag} {name}=...: the name is given twice; needed one file per name")
        pairs[name] = path
    return pairs


def number_or_auto(text: str | int) -> int | str:
    """Read a number of images, or the word ``auto``. Raises: ValueError."""
    return text if text == "auto" else int(str(text))


def use_device(device: str, threads: int = 0) -> None:
    """Set the number of CPU threads (0: torch's choice), make sure that the device is there, and turn TF32 off.

    Raises:
        UserError: it is not, or ``threads`` is negative.
    """
    import torch

    from vaebm.arithmetic import exact

    if not 0 <= threads <= MOST_THREADS:
        raise UserError(f"--threads {threads}: needed 0 (torch's choice) to {MOST_THREADS}")
    if threads:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (
            str(error).splitlines()[0].partition(". ")[0][:160]
        )  # torch goes on to list all that there might have been
        raise UserError(f"--device {device}: not available ({why})") from None
    exact()
