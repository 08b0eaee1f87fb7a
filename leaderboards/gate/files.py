"""The files of the gate: what a run is compared with, and where its scores are."""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluators.result_file import Results, read_results, write_results
from leaderboards.files import write_all
from leaderboards.merge import Run
from vaebm.errors import UserError

SCORES_FILE = "ood_scores.npz"  # beside a result file of the OOD suite


def read_baseline(path: Path, written: Iterable[Path] = ()) -> Results:
    """Read a stored run.

    Args:
        written: the result files of the run that is to be compared with it; none of them can be its own baseline.

    Raises:
        UserError: it is not there, cut off, edited, of a newer version, or no result file; or it is one of ``written``.
    """
    if os.path.realpath(path) in map(os.path.realpath, written):  # unlike resolve(), not lost in a link to itself
        raise UserError(f"--check {path}: found the run's own file; needed a stored one, elsewhere than in --out")
    if not path.exists():
        raise UserError(f"--check {path}: no such file; store the present run as the baseline with --update-baseline")
    try:
        return read_results(path)
    except UserError as error:
        raise UserError(f"--check {error}") from None


def check_replaceable(path: Path) -> None:
    """See that a baseline may be stored in this place: nothing is there, an empty file, or a result file, be it cut off or edited.

    Raises:
        UserError: a folder or another file is there.
    """
    if path.is_dir():
        raise UserError(f"--check {path}: found a folder; needed a file to store the baseline in")
    if path.is_file() and not _is_or_was_result(path.read_bytes()):
        raise UserError(
            f"--check {path}: found a file that is no result file; --update-baseline replaces baselines only: "
            "choose another file with --check, or remove this one"
        )


def join(runs: Sequence[Run]) -> Results:
    """Join runs of unlike suites into one result.

    Raises:
        UserError: no run, or two of one suite.
    """
    if not runs:
        raise UserError("--check: found no run; needed a result file for every suite to compare")
    places: dict[str, Path] = {}
    for path, results in runs:
        for suite in _suites([results]):
            if suite in places:
                raise UserError(f"--check: found two runs of suite {suite}, {places[suite]} and {path}; needed one")
            places[suite] = path
    parts = [results for _, results in runs]
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Results(
        suite=",".join(_suites(parts)),
        rows=[row for part in parts for row in part.rows],
        created=max(part.created for part in parts),
        command=_listed((part.command for part in parts), " && "),
        options={part.suite: part.options for part in parts},
        seconds=sum(part.seconds for part in parts),
        packages={name: _listed(part.packages.get(name, "") for part in parts) for name in first.packages},
        python=_listed(part.python for part in parts),
        commit=_listed(part.commit for part in parts),
        machine=_listed(part.machine for part in parts),
        numerics={
            key: value for key, value in first.numerics.items() if all(p.numerics.get(key) == value for p in parts)
        },
    )


def scores_beside(path: Path) -> Path | None:
    """Return the file of scores that belongs to a result file, or None: ``<stem>.scores.npz`` of a baseline, else the OOD suite's own
    beside its ``ood.json``."""
    kept = _kept_scores(path)
    made = path.with_name(SCORES_FILE)
    if kept.is_file():
        return kept
    return made if path.name == "ood.json" and made.is_file() else None


def store_baseline(runs: Sequence[Run], path: Path) -> None:
    """Write the runs as one result file, and the scores of the OOD suite beside it as ``<stem>.scores.npz``: both or none.

    Scores of an earlier baseline that has none now are removed: they would be paired with rows that are not theirs.

    Raises:
        UserError: two runs of one suite; what is there is no baseline; the folder cannot be written.
    """
    check_replaceable(path)
    results, kept = join(runs), _kept_scores(path)
    found = next((scores for file, _ in runs if (scores := scores_beside(file))), None)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "baseline.json"
        write_results(results, written)
        contents = {path: written.read_bytes()}
    if found:
        contents[kept] = found.read_bytes()
    try:
        write_all(contents)
    except UserError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise UserError(f"--check {path}: cannot write there ({reason}); choose another file with --check") from None
    if found is None:
        kept.unlink(missing_ok=True)


def _is_or_was_result(content: bytes) -> bool:
    text = content.decode(errors="replace").strip()
    try:
        document = json.loads(text or "{}")
    except (ValueError, RecursionError):  # cut off or edited: the key must be there, and an object around it
        return text.startswith("{") and '"schema_version"' in text
    return not text or (isinstance(document, dict) and "schema_version" in document)


def _kept_scores(path: Path) -> Path:
    return path.with_name(f"{path.stem}.scores.npz")


def _suites(parts: Iterable[Results]) -> list[str]:
    """Suites that were run, and those of the rows where that is not known."""
    named = [name for part in parts for name in (*part.suite.split(","), *(row.suite for row in part.rows)) if name]
    return list(dict.fromkeys(named))


def _listed(texts: Iterable[Any], between: str = ", ") -> str:
    return between.join(dict.fromkeys(text for text in texts if text))
