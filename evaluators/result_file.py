"""Result files: the rows of one run with what is needed to trust, read and repeat them.

A result file is one JSON document; ``schemas/results-2.json`` describes it. It carries a checksum of its content, so that a
file that was edited or damaged is told from one that was measured. The checksum is no signature: it finds accidents and
careless hands, not forgers.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from evaluators.measurement import Measurement
from vaebm.atomic import write_atomically
from vaebm.errors import UserError

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).with_name("schemas") / f"results-{SCHEMA_VERSION}.json"
NO_RESULTS = "needed a result file, as benchmark.py writes for every suite (results/ood.json)"
EDITED = "it was edited, or another program wrote it"
_TOKEN = 8  # more than the longest unit of JSON that is of no use when it is cut: false, \u00e9


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
        packages, python, commit, machine, numerics: see :func:`evaluators.provenance.environment`.
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
    numerics: dict[str, Any] = field(default_factory=dict)


def write_results(results: Results, path: Path) -> None:
    """Write a result file, whole or not at all.

    Raises:
        ValueError: the content does not fit the schema.
        TypeError: a protocol, a provenance or an option holds what JSON has not.
        UserError: it cannot be written there.
    """
    document = to_document(results)
    if complaint := _complaint(document):
        raise ValueError(f"{path}: {complaint}")
    try:
        write_atomically(Path(path), lambda partial: partial.write_text(json.dumps(document, indent=1) + "\n"))
    except OSError as error:
        raise _unwritable(Path(path), error.strerror or str(error)) from error


def check_destinations(folder: Path, names: Iterable[str]) -> None:
    """Make sure, before the work that fills them, that nothing is in the way of files of these names.

    Raises:
        UserError: one of them is a folder.
    """
    for name in names:
        if (folder / name).is_dir():
            raise _unwritable(folder / name, "it is a folder")


def _unwritable(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: cannot be written ({reason}); choose another folder with --out")


def to_document(results: Results) -> dict[str, Any]:
    """Return what a result file holds, with its checksum.

    Raises:
        ValueError: a number is not finite.
        TypeError: a protocol, a provenance or an option holds what JSON has not.
    """
    document = {"schema_version": SCHEMA_VERSION, **asdict(results)}
    document["measurements"] = document.pop("rows")
    document = json.loads(json.dumps(document, allow_nan=False))  # as it will be read: tuples are lists
    return {"schema_version": SCHEMA_VERSION, "checksum": checksum(document), **document}


def read_results(path: Path) -> Results:
    """Read a result file of this or an older version.

    Raises:
        UserError: the file is missing, cut off, edited, of a newer version, or no result file; the message says which.
    """
    try:
        if Path(path).exists() and not (
            Path(path).is_file() or Path(path).is_dir()
        ):  # opening a pipe would wait for ever
            raise UserError(f"is a pipe or a device; {NO_RESULTS}")
        return _results(_parse(Path(path).read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {NO_RESULTS}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: found JSON nested too deep; {NO_RESULTS}") from None


def find_results(places: Sequence[Path]) -> list[Path]:
    """Return the result files among files and folders, each once; of a folder, by name, all its JSON files but those of another kind.

    A JSON file that is not whole may have been a result file, so it is returned: to be refused when it is read, and not passed over.

    Raises:
        UserError: a folder holds no result file.
    """
    found: dict[str, Path] = {}
    for place in map(Path, places):
        files = [path for path in sorted(place.glob("*.json")) if _is_or_was_one(path)] if place.is_dir() else [place]
        if not files:
            raise UserError(f"{place}: found no result file in this folder; {NO_RESULTS}")
        for path in files:
            found.setdefault(os.path.realpath(path), path)  # of a link to itself, too: reading it says what is wrong
    return list(found.values())


def checksum(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document without its own ``checksum``, in hexadecimal: of its compact JSON with sorted keys."""
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- reading ---------------------------------------------------------------------------------------------------


def _parse(data: bytes) -> Any:
    """Strictly: no NaN, no infinity, no key twice, of which Python would keep the last in silence."""

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise UserError(f"found {text} for a number; {EDITED}")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UserError(f"found {_short(key)} twice in one object; {EDITED}")
            found[key] = value
        return found

    try:
        return json.loads(data, parse_float=number, parse_constant=number, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        text = error.doc.strip()
        if not text:
            raise UserError(f"is empty; {NO_RESULTS}") from None
        if text[0] not in "{[":
            raise UserError(f"found no JSON; {NO_RESULTS}") from None
        if _ends_early(error):
            raise UserError(f"ends in the middle, at line {error.lineno}: it was cut off; measure again") from None
        raise UserError(
            f"line {error.lineno}: {error.msg}: it was edited or damaged after it was measured; measure again"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"found no text; {NO_RESULTS}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{error}; {EDITED}") from None


def _ends_early(error: json.JSONDecodeError) -> bool:
    """Cut off, a document breaks in its last token; a string there lacks its end."""
    return error.msg.startswith("Unterminated") or len(error.doc.rstrip()) - error.pos < _TOKEN


def _results(document: Any) -> Results:
    if not isinstance(document, dict) or not {"schema_version", "measurements"} <= document.keys():
        raise UserError(f"found JSON of another kind; {NO_RESULTS}")
    version = document["schema_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(f"found schema version {_short(version)}; {NO_RESULTS}")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"was written by a newer version (schema {version}, here up to {SCHEMA_VERSION}): update vaebm-bench"
        )
    if version == SCHEMA_VERSION and document.get("checksum") != checksum(document):
        raise UserError("does not match its checksum: it was edited or damaged after it was measured; measure again")
    for older in range(version, SCHEMA_VERSION):
        document = UPGRADES[older](document)
    if complaint := _complaint(document):
        raise UserError(f"{complaint}; {EDITED}")
    rows = []
    for i, row in enumerate(document["measurements"]):
        try:
            rows.append(Measurement.from_json({**row, **_whole_numbers(row)}))
        except ValueError as error:
            raise UserError(f"measurements[{i}]: {error}; {EDITED}") from None
    about = {key: value for key, value in document.items() if key not in ("schema_version", "checksum", "measurements")}
    return Results(rows=rows, **about)


def _whole_numbers(row: Mapping[str, Any]) -> dict[str, int]:
    """JSON Schema takes 4000.0 for an integer; Python would go on with a float."""
    return {key: int(row[key]) for key in ("n", "seed") if row.get(key) is not None}


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no time, no options, no suite and no checksum."""
    known = ("command", "seconds", "packages", "python", "commit", "machine")
    for key in document.keys() - {"schema_version", "measurements", *known}:  # version 2 with its number changed, too
        raise UserError(f"found {_short(key)}, which files of version 1 do not have; {EDITED}")
    rows = document["measurements"]
    suites = [str(row.get("suite", "")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    blank = asdict(Results(",".join(dict.fromkeys(suites)), []))
    del blank["rows"]
    return {**blank, **document, "schema_version": 2, "checksum": ""}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_version_1}


def _is_or_was_one(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(document, dict) and "schema_version" in document


# --- the schema ------------------------------------------------------------------------------------------------


def _complaint(document: Any) -> str:
    """Return where and how a document does not fit the schema; empty if it does."""
    for error in _validator().iter_errors(document):
        place, meaning = error.json_path.removeprefix("$").removeprefix("."), error.schema.get("description", "")
        said = f"{error.instance!r} does not match" if error.validator == "pattern" else error.message
        return f"{place or 'document'}: {_short(said)}" + (f" ({meaning.rstrip('.')})" if meaning else "")
    return ""


@cache
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _short(found: object) -> str:
    """Without its middle, where it is long: a message of the validator begins with all that it found."""
    text = found if isinstance(found, str) else repr(found)
    return text if len(text) <= 120 else f"{text[:50]} ... {text[-60:]}"
