"""Joins the rows of several result files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evaluators.measurement import Measurement
from evaluators.result_file import Results

RUN = "run"  # key of the provenance under which a row says which of several runs it is from


def merge(runs: Sequence[tuple[Path, Results]]) -> list[Measurement]:
    """Return the rows of all runs, each once.

    A system whose rows in one run disagree with those of another run gets a row per run in the tables: its measurements carry
    the name of the run, that of the folder or file, in ``provenance["run"]``.
    """
    names = _names([path for path, _ in runs])
    seen: dict[tuple[str, ...], str] = {}
    clashing: set[tuple[str, str]] = set()
    for _, results in runs:
        for row in results.rows:
            if seen.setdefault(_place(row), _content(row)) != _content(row):
                clashing.add((row.suite, row.system))
    merged: dict[tuple[str, ...], Measurement] = {}
    for name, (_, results) in zip(names, runs, strict=True):
        for row in results.rows:
            marked = (row.suite, row.system) in clashing
            made = replace(row, provenance={**row.provenance, RUN: name}) if marked else row
            merged.setdefault((*_place(row), name if marked else ""), made)
    return list(merged.values())


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names where these tell the runs apart, else the whole paths."""
    for name in (lambda path: path.resolve().parent.name, lambda path: path.stem):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _place(row: Measurement) -> tuple[str, ...]:
    place = (row.suite, row.system, row.dataset, row.metric, row.variant, row.role, row.size, row.seed)
    return tuple(map(str, (*place, row.protocol.get("in_distribution"))))


def _content(row: Measurement) -> str:
    protocol = {key: value for key, value in row.protocol.items() if key != "seconds_per_image"}  # never the same twice
    return json.dumps([row.value, row.low, row.high, row.n, protocol, row.note], sort_keys=True, default=str)
