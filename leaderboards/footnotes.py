"""Protocols of measured cells in a few sentences: what all share once, what differs by what it differs with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """The protocol of one measured cell, and the printed names of its row, column and metric."""

    row: str
    column: str
    metric: str
    protocol: dict[str, Any]


_FACTORS: tuple[Callable[[Entry], str], ...] = (
    lambda entry: entry.column,
    lambda entry: entry.row,
    lambda entry: entry.metric,
    lambda entry: f"{entry.row} on {entry.column}",
    lambda entry: f"{entry.metric} of {entry.row} on {entry.column}",
)


def describe_protocols(entries: Iterable[Entry]) -> list[str]:
    """Return one sentence on what all measured cells share, then one for each key whose value differs."""
    entries = list(entries)
    keys = list(dict.fromkeys(key for entry in entries for key in entry.protocol))
    shared, varying = [], []
    for key in keys:
        holders = [entry for entry in entries if key in entry.protocol]
        values = {_text(entry.protocol[key]) for entry in holders}
        if len(values) == 1 and len(holders) == len(entries):
            shared.append(f"{_words(key)} {values.pop()}")
        else:
            name = _words(key)
            varying.append(f"{name[:1].upper()}{name[1:]}: {_by_factor(key, holders)}.")
    return ([f"All measured rows: {'; '.join(shared)}."] if shared else []) + varying


def _by_factor(key: str, holders: list[Entry]) -> str:
    """Say the values of a key by the first factor (column, row, metric, ...) that decides them."""
    for factor in _FACTORS:
        values: dict[str, set[str]] = {}
        for entry in holders:
            values.setdefault(factor(entry), set()).add(_text(entry.protocol[key]))
        if all(len(found) == 1 for found in values.values()):
            break
    named: dict[str, list[str]] = {}
    for name, found in values.items():
        named.setdefault(" / ".join(sorted(found)), []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in named.items())


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{_words(str(key))} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
