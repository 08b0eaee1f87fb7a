"""Runs a stored result again and says what differs."""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluators.suite import destination

# Options that say where things are and what is shown, not what is measured.
PLACES = ("--config", "--list", "--json", "--out", "--cache", "--data-root", "--offline", "--no-progress", "--dry-run")


def deciding_options(options: Any, shown: Iterable[str]) -> dict[str, Any]:
    """Return every option that can decide a number, by name.

    Args:
        shown: flags of further options that decide nothing.
    """
    skipped = {"command", *map(destination, [*PLACES, *shown])}
    parsed: Mapping[str, Any] = options.as_dict()
    return {name: value for name, value in parsed.items() if name not in skipped}
