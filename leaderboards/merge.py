"""Joins the rows of several result files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evaluators.measurement import Measurement
from evaluators.result_file import Results

RUN = "run"  # key of the provenance under which a row says which of several runs it is from
Run = tuple[Path, Results]  # a result file and its content
System = tuple[str, str, str]  # suite, name, size


def merge(runs: Sequence[Run]) -> list[Measurement]:
    """Return the rows of all runs, each once.

    A line of a table is of one run, never of two: where several runs measured a system and one of them does not hold all that the
    others found, its measurements carry the name of their run, that of the folder or file, in ``provenance["run"]``.
    """
    found: dict[System, dict[int, set[str]]] = {}  # system -> run -> what it says
    for i, (_, results) in enumerate(runs):
        for row in results.rows:
            found.setdefault(_system(row), {}).setdefault(i, set()).add(_content(row))
    names = {suite: _names(runs, suite) for suite in {suite for suite, *_ in found}}
    merged: dict[tuple[str, str], Measurement] = {}
    for i, (_, results) in enumerate(runs):
        for row in results.rows:
            said = found[_system(row)].values()
            run = "" if set.union(*said) in said else names[row.suite][i]
            made = replace(row, provenance={**row.provenance, RUN: run}) if run else row
            merged.setdefault((_content(row), run), made)
    return list(merged.values())


def _names(runs: Sequence[Run], suite: str) -> dict[int, str]:
    """Of the runs with that suite, the shortest names that tell them apart: of folders, of files, of both, else whole paths."""
    paths = {i: path for i, (path, results) in enumerate(runs) if any(row.suite == suite for row in results.rows)}
    for name in (
        lambda path: path.parent.name,
        lambda path: path.stem,
        lambda path: f"{path.parent.name}/{path.stem}",
        lambda path: f"{path.parent.parent.name}/{path.parent.name}",
    ):
        names = {i: name(path.resolve()) for i, path in paths.items()}
        if len({*names.values()}) == len(names):
            return names
    return {i: str(path) for i, path in paths.items()}


def _system(row: Measurement) -> System:
    return row.suite, row.system, row.size


def _content(row: Measurement) -> str:
    """All that a row says, without times, which are never the same twice, and without what else is only in its provenance."""
    fingerprint = row.provenance.get("fingerprint")
    known = fingerprint if isinstance(fingerprint, dict) else {}
    said = row.to_json() | {"protocol": row.settings, "provenance": [row.weights, known.get("scores")]}
    return json.dumps(said, sort_keys=True, default=str)
