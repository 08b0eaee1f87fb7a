"""Runs a stored result again.

options = stored_options(parser(), arguments, shown)  # of --reproduce results/ood.json, in place of what was typed
run = run_suite(...)                                  # as ever
return report(options, run)
"""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators import SUITES
from evaluators.differences import differences
from evaluators.result_file import Results, read_results
from evaluators.suite import destination
from vaebm.cli import parse
from vaebm.errors import UserError

# Options that say where things are and what is shown, not what is measured.
PLACES = (
    *("--config", "--list", "--json", "--out", "--cache", "--data-root", "--offline", "--no-progress", "--dry-run"),
    "--reproduce",
)
# What a run may be moved to: it decides the last digits, and is then named among what differs.
MACHINE = ("--device", "--threads", "--batch-size")
FOLDER = "reproduced"  # beside the file, unless --out says otherwise


def deciding_options(options: Any, shown: Iterable[str]) -> dict[str, Any]:
    """Return every option that can decide a number, by name, as JSON can hold it.

    Args:
        shown: flags of further options that decide nothing.
    """
    skipped = {"command", *map(destination, [*PLACES, *shown])}
    parsed: Mapping[str, Any] = options.as_dict()
    plain = lambda value: str(value) if isinstance(value, Path) else value
    return {name: plain(value) for name, value in parsed.items() if name not in skipped}


def stored_options(parser: Any, arguments: Sequence[str] | None, shown: Iterable[str]) -> Any:
    """Return the options of a run that repeats the one in ``--reproduce FILE``.

    What decides a number is taken from the file: its options; for a file of version 1, which has none, its command line. Places and what is
    shown are those of the present command line. Without ``--cache`` nothing is taken from the cache, since numbers that are only read
    again prove nothing; without ``--out`` results go to a folder ``reproduced`` beside the file.

    Args:
        parser: of the front door, with ``--reproduce``.
        arguments: the present command line; None for ``sys.argv``.
        shown: as for :func:`deciding_options`.

    Raises:
        UserError: the file cannot be read or was not made by one suite and one command; it has an option that this version does not
            know, or a value that it refuses; the present command line has options that the file decides, or would replace the file.
    """
    shown = tuple(shown)
    now = parse(parser, arguments)
    typed = set(parser.parse_args(arguments, defaults=False).as_dict())
    path, decided = Path(now.reproduce), deciding_options(now, shown)
    moved = {destination(flag) for flag in MACHINE} & typed
    if settled := sorted((typed & decided.keys()) - moved):
        raise UserError(f"--{settled[0].replace('_', '-')}: --reproduce takes it from {path}; leave it out")
    stored = read_results(path)
    try:
        options = _then(parser, stored, shown)
    except UserError as error:
        raise UserError(f"{path}: cannot be run again: {error}") from None
    for name in now.as_dict():
        if name not in decided or name in moved:
            options[name] = now[name]
    options.cache = now.cache if "cache" in typed else "none"
    options.out = now.out if "out" in typed else path.parent / FOLDER
    if (options.out / f"{stored.suite}.json").resolve() == path.resolve():
        raise UserError(f"--out {options.out}: the run would replace {path}; needed another folder")
    return options


def _then(parser: Any, stored: Results, shown: Iterable[str]) -> Any:
    """The options of then, parsed by the rules of now."""
    if "," in stored.suite:
        raise UserError(f"it joins runs of {stored.suite}; needed the file of one suite")
    if stored.options:
        kept = dict(stored.options)
    else:
        words = shlex.split(stored.command)
        door = next((i for i, word in enumerate(words) if Path(word).name == "benchmark.py"), None)
        if door is None:
            raise UserError("it holds neither options nor a command line of benchmark.py")
        kept = deciding_options(parse(parser, words[door + 1 :]), shown)
    kept["suite"] = stored.suite
    heard = SUITES.load(stored.suite).options
    for suite in SUITES:  # `--suite all --samples ...`: what this suite did not listen to
        for flag in SUITES.load(suite).options.keys() - heard.keys():
            kept.pop(destination(flag), None)
    options = parse(parser, _words(kept))
    parsed = deciding_options(options, ())
    for name, value in kept.items():
        if parsed.get(name) != value:
            raise UserError(f"this version reads its {name} {value!r} as {parsed.get(name)!r}")
    return options


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options as they are typed, so that they are checked as those are."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] * value
        elif isinstance(value, list):
            words += [f"{flag}={item}" for item in value]
        elif value is not None:
            words.append(f"{flag}={value}")
    return words


def report(options: Any, run: tuple[Path, Results]) -> int:
    """Compare a run with the file that it repeats and print what differs; return the exit code.

    It goes to stdout, or to stderr where ``--json`` has put the result file on stdout.
    """
    again, results = run
    found = differences(read_results(options.reproduce), results)
    print(
        f"\n{options.reproduce} and, run again, {again}\n{found.text()}",
        file=sys.stderr if options.json else sys.stdout,
    )
    return found.exit_code
