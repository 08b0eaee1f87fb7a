"""Result files: the rows of one run with what is needed to trust, read and repeat them.

A result file is one JSON document; ``schemas/results-2.json`` describes it. It carries a checksum of its content, so that a
file that was edited or damaged is told from one that was measured.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from evaluators.measurement import Measurement
from vaebm.atomic import write_atomically
from vaebm.errors import UserError

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).with_name("schemas") / f"results-{SCHEMA_VERSION}.json"
NO_RESULTS = "needed a result file, as benchmark.py writes for every suite (results/ood.json)"


@dataclass(frozen=True)
class Results:
    """What one run measured, and how.

    Attributes:
        suite: the suite that was run; several with commas where results were joined.
        rows: the measurements.
        created: when it ended, UTC, ISO 8601 to the second; empty if not known (files of version 1).
        command: the command line as typed.
        options: every option that can decide a number, as parsed; empty if not known (files of version 1).
        seconds: the time the run took, with what came from the cache.
        packages, python, commit, machine: see :func:`evaluators.provenance.environment`.
    """

    suite: str
    rows: list[Measurement]
    created: str = ""
    command: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    packages: dict[str, str] = field(default_factory=dict)
    python: str = ""
    commit: str = ""
    machine: str = ""


def write_results(results: Results, path: Path) -> None:
    """Write a result file, whole or not at all.

    Raises:
        ValueError: the rows do not fit the schema.
        OSError: the folder cannot be written.
    """
    import jsonschema

    document = {"schema_version": SCHEMA_VERSION, **asdict(results)}
    document["measurements"] = document.pop("rows")
    document = json.loads(json.dumps(document, allow_nan=False))  # as it will be read: tuples are lists
    document = {"schema_version": SCHEMA_VERSION, "checksum": checksum(document), **document}
    try:
        jsonschema.validate(document, _schema())
    except jsonschema.ValidationError as error:
        raise ValueError(f"{path}: {error.json_path}: {error.message}") from None
    write_atomically(Path(path), lambda partial: partial.write_text(json.dumps(document, indent=1) + "\n"))


def read_results(path: Path) -> Results:
    """Read a result file of this or an older version.

    Raises:
        UserError: the file is missing, cut off, edited, of a newer version, or no result file; the message says which.
    """
    import jsonschema

    def refuse(why: str) -> NoReturn:
        raise UserError(f"{path}: {why}")

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        refuse(f"cannot be read ({error.strerror}); {NO_RESULTS}")
    except UnicodeDecodeError:
        refuse(f"found no text; {NO_RESULTS}")
    try:
        document = json.loads(text, parse_constant=lambda name: refuse(f"found {name} for a number; it was edited"))
    except ValueError as error:
        refuse(f"found no whole JSON document ({error}): it was cut off or edited; measure again")
    except RecursionError:
        refuse(f"found JSON nested without end; {NO_RESULTS}")
    if not isinstance(document, dict) or not {"schema_version", "measurements"} <= document.keys():
        refuse(f"found JSON of another kind; {NO_RESULTS}")
    version = document["schema_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        refuse(f"found schema version {version!r}; {NO_RESULTS}")
    if version > SCHEMA_VERSION:
        refuse(f"written by a newer version (schema {version}; this program reads up to {SCHEMA_VERSION}): update it")
    if version == SCHEMA_VERSION and document.get("checksum") != checksum(document):
        refuse("its content does not match its checksum: it was edited or damaged after it was measured; measure again")
    for older in range(version, SCHEMA_VERSION):
        document = UPGRADES[older](document)
    try:
        jsonschema.validate(document, _schema())
    except jsonschema.ValidationError as error:
        refuse(
            f"{error.json_path.removeprefix('$.')}: {error.message[:200]}; it was edited, or another program wrote it"
        )
    known = {key: value for key, value in document.items() if key not in ("schema_version", "checksum", "measurements")}
    try:
        return Results(rows=[Measurement.from_json(row) for row in document["measurements"]], **known)
    except ValueError as error:
        refuse(str(error))


def find_results(places: Sequence[Path]) -> list[Path]:
    """Return the result files among files and folders; in a folder, every JSON file that is one, by name.

    Raises:
        UserError: a place does not exist or holds no result file.
    """
    found: list[Path] = []
    for place in map(Path, places):
        inside = sorted(place.glob("*.json")) if place.is_dir() else [place]
        files = [path for path in inside if not place.is_dir() or _seems_result(path)]
        if not files:
            raise UserError(f"{place}: found no result file in this folder; {NO_RESULTS}")
        found += [path for path in files if path not in found]
    return found


def checksum(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document without its own ``checksum``, in hexadecimal: of its compact JSON with sorted keys."""
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _seems_result(path: Path) -> bool:
    """A file cut off is still meant to be one: it is to be refused, not passed over."""
    with path.open("rb") as file:
        return b'"schema_version"' in file.read(100)


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no time, no options, no suite and no checksum."""
    kept = {
        key: document[key]
        for key in ("command", "seconds", "packages", "python", "commit", "machine")
        if key in document
    }
    rows = document["measurements"]
    known = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    suite = ",".join(dict.fromkeys(str(row.get("suite", "")) for row in rows)) if known else ""
    blank = asdict(Results(suite, []))
    del blank["rows"]
    return {**blank, **kept, "suite": suite, "schema_version": 2, "checksum": "", "measurements": rows}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1}


@cache
def _schema() -> dict[str, Any]:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))
