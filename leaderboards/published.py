"""The numbers that papers report, read from ``published.csv``: the only place they are written down; and what is known
of single ones beyond their table, read from ``deviations.toml``."""

import csv
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from evaluators.measurement import Measurement
from vaebm.errors import UserError

PUBLISHED_CSV = Path(__file__).with_name("published.csv")
DEVIATIONS_TOML = Path(__file__).with_name("deviations.toml")
REFERENCES_BIB = Path(__file__).with_name("references.bib")

COLUMNS = (
    "suite",
    "table",
    "model",
    "model_key",
    "category",
    "dataset",
    "metric",
    "value",
    "higher_is_better",
    "citation_key",
    "source",
    "confidence",
)

# The file names suites by what the paper does, the program by what the user types.
SUITES = {
    "image_generation": "generation",
    "ablation": "ablation",
    "mode_coverage": "modes",
    "ood_detection": "ood",
    "sampling_speed": "speed",
}


def read_published(path: Path = PUBLISHED_CSV) -> list[Measurement]:
    """Read published results, in the order of the file (which is the order of the papers' tables).

    ``protocol`` holds ``table`` and ``higher_is_better``; ``provenance`` holds ``label`` (the model as printed),
    ``category`` (its block of the table), ``citation`` (a key of references.bib), ``source`` and ``confidence``.

    Raises:
        UserError: the columns are not exactly those expected, or a value is unusable; the message names file and line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = list(reader.fieldnames or [])
        unknown, missing = sorted(set(found) - set(COLUMNS)), sorted(set(COLUMNS) - set(found))
        if unknown or missing or len(found) != len(COLUMNS):
            needed = ", ".join(COLUMNS)
            raise UserError(
                f"{path}: unknown columns {unknown}, missing columns {missing}; needed, once each: {needed}"
            )
        return [_measurement(row, f"{path}:{reader.line_num}") for row in reader]


def _measurement(row: dict[str, str], where: str) -> Measurement:
    if None in row or None in row.values():
        raise UserError(f"{where}: found a line with more or fewer than the {len(COLUMNS)} needed cells")
    if row["suite"] not in SUITES:
        raise UserError(f"{where}: unknown suite {row['suite']!r}; needed one of {', '.join(SUITES)}")
    if row["higher_is_better"] not in ("true", "false"):
        raise UserError(f"{where}: higher_is_better is {row['higher_is_better']!r}; needed true or false")
    try:
        value = float(row["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: value is {row['value']!r}; needed a finite number")
    return Measurement(
        suite=SUITES[row["suite"]],
        system=row["model_key"],
        dataset=row["dataset"],
        metric=row["metric"],
        value=value,
        size="paper",
        protocol={"table": row["table"], "higher_is_better": row["higher_is_better"] == "true"},
        provenance={
            "label": row["model"],
            "category": row["category"],
            "citation": row["citation_key"],
            "source": row["source"],
            "confidence": row["confidence"],
        },
        origin="published",
    )


@dataclass(frozen=True)
class Deviation:
    """What is known of one published number.

    Attributes:
        note: sentences, and where they are from.
        ranked: whether it may be ranked against the other published numbers.
    """

    note: str
    ranked: bool


def read_deviations(path: Path = DEVIATIONS_TOML) -> dict[tuple[str, str, str], Deviation]:
    """Read what is known of published numbers, by (table, system, metric).

    Raises:
        UserError: the file is no TOML, an entry lacks a key, has another, or belongs to no published number.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: found no TOML ({error}); needed tables [[deviation]]") from None
    kinds = {"table": str, "system": str, "metrics": list, "ranked": bool, "note": str, "evidence": str}
    known = {(row.protocol["table"], row.system, row.metric) for row in read_published()}
    found: dict[tuple[str, str, str], Deviation] = {}
    for i, entry in enumerate(document.get("deviation", []), 1):
        if entry.keys() != kinds.keys() or any(not isinstance(entry[key], kind) for key, kind in kinds.items()):
            needed = ", ".join(f"{key} ({kind.__name__})" for key, kind in kinds.items())
            raise UserError(f"{path}: entry {i} has {', '.join(entry) or 'nothing'}; needed {needed}")
        for metric in entry["metrics"]:
            place = (entry["table"], entry["system"], metric)
            if place not in known or place in found:
                why = "a second one for it" if place in found else "no such published number"
                raise UserError(f"{path}: entry {i} is about {' / '.join(place)}: {why}")
            found[place] = Deviation(f"{entry['note']} Source: {entry['evidence']}.", entry["ranked"])
    return found
