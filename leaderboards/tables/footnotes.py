"""What a reader must know about the measured cells of a table, in the sentences a paper would print.

Everything else that decides a number stays in the JSON file. Nothing here can hide a difference: rows whose images differ get a sentence
each, and a key of a protocol that has no sentence of its own is named as soon as rows differ in it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.measurement import Measurement
from leaderboards.board import SAMPLING_KEYS


@dataclass(frozen=True)
class Entry:
    """One measured cell: the printed names of its row, column and metric, and how it was made.

    Attributes:
        column: printed name of the out-of-distribution set; empty where only the in-distribution set matters.
        mean: the cell is a mean over sets.
        control: the row is an image statistic.
        source: printed name of the in-distribution set.
        run: which of several joined runs it is from, where they disagree.
    """

    row: str
    column: str
    metric: str
    protocol: dict[str, Any]
    seed: int | None = None
    mean: bool = False
    control: bool = False
    source: str = "CIFAR-10"
    run: str = ""


# The keys that have sentences of their own.
IMAGES = ("in_distribution", "n_in", "n_out", "duplicates_removed", "image_shape", "mean_of")
ORIGINS = tuple(f"{side}_{what}" for side in ("in", "out") for what in ("split", "source", "notes"))
SCORES = ("score", "estimator", "codec", "scale_of")
KNOWN = {*IMAGES, *ORIGINS, *SCORES, *SAMPLING_KEYS, "interval", "base_rate", "coefficient_on"}

DRAWN = "drawn from seed"  # how the source of images begins that nobody took

_DUPLICATES = re.compile(r"\d+ exact duplicates of \S+ removed")  # counted in a sentence already


@dataclass
class _Sides:
    """Rows that stand on the same images: text about the inside, then (count, duplicates removed) per outer set."""

    inside: str
    outer: dict[str, tuple[Any, Any]]
    rows: list[str]
    seeds: set[int]

    def agrees(self, other: "_Sides") -> bool:
        shared = self.outer.keys() & other.outer.keys()
        return self.inside == other.inside and all(self.outer[column] == other.outer[column] for column in shared)


def describe_images(entries: Sequence[Entry]) -> list[str]:
    """Say which images stand against which, once for all rows that agree (a row may lack a set)."""
    groups: list[_Sides] = []
    for row in dict.fromkeys(entry.row for entry in entries):
        own = [entry for entry in entries if entry.row == row and not entry.mean]
        if not own:
            continue
        name = ("controls" + (f" ({own[0].run})" if own[0].run else "")) if own[0].control else row
        made = _Sides(_inside(own[0]), {}, [name], {entry.seed for entry in own if entry.seed is not None})
        for entry in own:
            if entry.column and "n_out" in entry.protocol:
                made.outer[entry.column] = (entry.protocol["n_out"], entry.protocol.get("duplicates_removed"))
        group = next((group for group in groups if group.agrees(made)), None)
        if group is None:
            groups.append(made)
        else:
            group.outer |= made.outer
            group.rows += [name] * (name not in group.rows)
            group.seeds |= made.seeds
    found = [f"{'Measured rows' if len(groups) == 1 else _join(group.rows)}: {_against(group)}." for group in groups]
    return [*found, "Measured rows of different images are not ranked against each other."] if len(found) > 1 else found


def _inside(entry: Entry) -> str:
    """``"300 CIFAR-10 test images (32x32x3)"``."""
    protocol = entry.protocol
    split = {"test": "test ", "train": "training "}.get(protocol.get("in_split", ""), "")
    shape = f" ({protocol['image_shape']})" if "image_shape" in protocol else ""
    return f"{_number(protocol.get('n_in'))} {entry.source} {split}images{shape}"


def _against(group: _Sides) -> str:
    """``"... against 300 of SVHN, 298 of CIFAR-100; duplicates removed: 2 from CIFAR-100; seed 0"``."""
    text = group.inside
    if group.outer:
        counts = _members(group.outer, lambda column: _number(group.outer[column][0]))
        if len(counts) == 1 and len(group.outer) > 1:
            counts = {count: ["each set"] for count in counts}
        text += f" against {', '.join(f'{count} of {_join(sets)}' for count, sets in counts.items())}"
        removed = {column: duplicates for column, (_, duplicates) in group.outer.items()}
        if any(removed.values()):
            text += f"; duplicates removed: {', '.join(f'{n} from {column}' for column, n in removed.items() if n)}"
        else:
            text += "; duplicates not looked for" if None in removed.values() else "; no duplicates found"
    seeds = ", ".join(map(str, sorted(group.seeds)))
    return f"{text}; seed{'s' * (len(group.seeds) > 1)} {seeds}" if seeds else text


def describe_means(entries: Sequence[Entry], usual: Sequence[str], title: Callable[[str], str]) -> list[str]:
    """Say of which sets a measured mean is, where these are not the usual ones.

    Args:
        usual: sets of the paper's mean.
        title: printed name of a set.
    """
    sets = {entry.row: entry.protocol.get("mean_of") for entry in entries if entry.mean}
    known = {row: tuple(map(str, found)) for row, found in sets.items() if isinstance(found, list | tuple)}
    if all(set(found) == set(usual) for found in known.values()):
        return []
    listed = _members(known, lambda row: _join([title(name) for name in known[row]]))
    told = [text if len(listed) == 1 else f"{text} ({_join(rows)})" for text, rows in listed.items()]
    return [
        f"Mean of measured rows: over {'; over '.join(told)}. Means over other sets are not ranked against each other."
    ]


def describe_parts(entries: Sequence[Entry], title: Callable[[str], str]) -> list[str]:
    """Say over which sets each mean of some of the sets is: ``"Near mean: over A and B; Far mean: over C and D."``

    Args:
        entries: of such means only.
        title: printed name of a set.
    """
    told = []
    for column in dict.fromkeys(entry.column for entry in entries):
        sets = {entry.row: entry.protocol.get("mean_of", ()) for entry in entries if entry.column == column}
        listed = _members(sets, lambda row: _join([title(name) for name in sets[row]]))  # noqa: B023 (used here)
        texts = [text if len(listed) == 1 else f"{text} ({_join(rows)})" for text, rows in listed.items()]
        told.append(f"{column}: over {'; over '.join(texts)}")
    return [f"{'; '.join(told)}."] if told else []


def describe_origins(entries: Sequence[Entry]) -> list[str]:
    """Say where the images come from, which are not known to be official test images, and what was done to them."""
    seen: dict[
        str, list[tuple[dict[str, str], list[Entry]]]
    ] = {}  # set -> where its images are from, and for which rows
    for entry in entries:
        for side, name in (("in", entry.source), ("out", "" if entry.mean else entry.column)):
            found = {what: str(entry.protocol.get(f"{side}_{what}", "")) for what in ("split", "source", "notes")}
            if name and found["source"]:
                users = next((users for known, users in seen.setdefault(name, []) if known == found), None)
                if users is None:
                    seen[name].append((found, users := []))
                users.append(entry)
    origins: dict[str, dict[str, str]] = {}
    for name, places_of in seen.items():
        runs = [dict.fromkeys(user.run for user in users) for _, users in places_of]
        # By the names of runs where every place has one and no run has images of two places.
        by_run = all(map(any, runs)) and len({run for each in runs for run in each}) == sum(map(len, runs))
        for (found, users), own in zip(places_of, runs, strict=True):
            where = (
                f"in {_join(list(own))}" if by_run else f"of {_join(list(dict.fromkeys(user.row for user in users)))}"
            )
            origins[name if len(places_of) == 1 else f"{name} {where}"] = found
    made = {name for name, origin in origins.items() if origin["source"].startswith(("interpolated from", DRAWN))}
    places = _members([name for name in origins if name not in made], lambda name: origins[name]["source"])
    sentences = []
    if places:
        listed = [f"{_join(names)}: {place.replace(': ', ', ')}" for place, names in places.items()]
        undrawn = {name: origin for name, origin in origins.items() if not origin["source"].startswith(DRAWN)}
        unofficial = [name for name, origin in undrawn.items() if origin["split"] != "test"]
        warning = f" Not known to be official test images: {_join(unofficial)}." if unofficial else ""
        sentences.append(f"Images: {'; '.join(listed)}.{warning}")
    notes: dict[str, str] = {}
    inside = {note for entry in entries for note in str(entry.protocol.get("in_notes", "")).split("; ")}
    for name, origin in origins.items():
        known = inside if name in made else set()  # what is made of the in-distribution images inherits their notes
        kept = [note for note in origin["notes"].split("; ") if note not in known and not _DUPLICATES.fullmatch(note)]
        notes[name] = "; ".join(kept)
    for note, names in _members(filter(notes.get, notes), lambda name: notes[name]).items():
        sentences.append(f"{_join(names).rstrip('.')}: {note}.")
    return sentences


def describe_scores(entries: Sequence[Entry]) -> list[str]:
    """Say what each system's score is and how it is had; then which way each control points; then what E's scale does."""
    scores: dict[str, str] = {}
    controls: dict[str, str] = {}
    scaled: list[str] = []
    for entry in entries:
        protocol = entry.protocol
        if entry.control:
            controls[entry.row.removesuffix(f" ({entry.run})")] = (
                str(protocol.get("estimator", "")).rpartition("; ")[2].partition(" = ")[0]
            )
            continue
        estimator = protocol.get("estimator", "")
        scores[entry.row] = f"{protocol['score']} ({estimator})" if "score" in protocol else estimator
        if "scale_of" in protocol and entry.row not in scaled:
            scaled.append(entry.row)
    found = []
    if any(scores.values()):
        grouped = _members([row for row in scores if scores[row]], lambda row: scores[row])
        found.append(f"Scores: {'; '.join(f'{_join(rows)}: {text}' for text, rows in grouped.items())}.")
    if any(controls.values()):
        listed = [f"{text} ({row})" for row, text in controls.items() if text]
        found.append(f"Signs of the controls, the same on every set: in-distribution means {', '.join(listed)}.")
    if scaled:
        found.append(
            f"{_join(scaled)}: log p(x) is a bound in nats and E has the scale its training gave it; another scale of E moves this row"
            " (see the table of coefficients)."
        )
    return found


def describe_intervals(entries: Sequence[Entry]) -> list[str]:
    """Say how the intervals were made."""
    metrics = {entry.metric for entry in entries}
    name: Callable[[Entry], str] = lambda entry: entry.metric if len(metrics) > 1 else entry.column
    made: dict[str, list[str]] = {}
    for entry in entries:
        if entry.protocol.get("interval", "95 %") != "95 %":
            names = made.setdefault(str(entry.protocol["interval"]).replace(", 95 %", ""), [])
            names += [name(entry)] * (name(entry) not in names)
    if not made:
        return ["Brackets: 95 % intervals."] if entries else []
    if all(text.startswith("range of") for text in made):  # of too few values to promise 95 %
        return [f"Brackets: {'; '.join(made)}."]
    usual = max(made, key=lambda text: len(made[text]))
    if len(metrics) > 1 and len(made) > 1:
        return ["Brackets: 95 % intervals. " + "; ".join(f"{_join(made[text])}: {text}" for text in made) + "."]
    others = "".join(f"; {_join(made[text])}: {text}" for text in made if text != usual)
    return [f"Brackets: 95 % intervals ({usual}{others})."]


def describe_differences(entries: Sequence[Entry]) -> list[str]:
    """Name every key without a sentence of its own in which rows of one column differ."""
    found = []
    for key in dict.fromkeys(key for entry in entries for key in entry.protocol if key not in KNOWN):
        columns: dict[tuple[str, str], set[str]] = {}
        rows: dict[str, list[str]] = {}  # value -> rows
        for entry in entries:
            value = _text(entry.protocol.get(key))
            columns.setdefault((entry.column, entry.metric), set()).add(value)
            holders = rows.setdefault(value, [])
            holders += [entry.row] * (entry.row not in holders)
        if any(len(held) > 1 for held in columns.values()):
            told = [f"{value} ({_join(holders)})" for value, holders in rows.items()]
            found.append(f"Not ranked against each other, {key.replace('_', ' ')} differs: {'; '.join(told)}.")
    return found


def describe_protocol(entries: Sequence[Entry], skip: Iterable[str] = ()) -> list[str]:
    """Say once what all measured cells share, or all of a metric: ``"Measured rows: reference ...; k 5 (Density), 3 (Recall)."``

    What differs between the rows of one metric is left to :func:`describe_differences`.

    Args:
        skip: keys that are not told.
    """
    told = []
    for key in dict.fromkeys(key for entry in entries for key in entry.protocol if key not in {*KNOWN, *skip}):
        values: dict[str, set[str]] = {}  # metric -> values
        for entry in entries:
            values.setdefault(entry.metric, set()).add(_text(entry.protocol.get(key)))
        agreed = {metric: next(iter(found)) for metric, found in values.items() if len(found) == 1}
        groups = {text: metrics for text, metrics in _members(agreed, agreed.__getitem__).items() if text != "none"}
        everywhere = len(groups) == 1 and [len(metrics) for metrics in groups.values()] == [len(values)]
        shown = [text if everywhere else f"{text} ({_join(metrics)})" for text, metrics in groups.items()]
        told += [f"{key.replace('_', ' ')} {', '.join(shown)}"] if shown else []
    seeds = sorted({entry.seed for entry in entries if entry.seed is not None})
    told += [f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"] if seeds else []
    return [f"Measured rows: {'; '.join(told)}."] if told else []


def describe_sampling(entries: Sequence[Entry]) -> list[str]:
    """Say how each system draws its samples, one sentence for all."""
    recipes: dict[str, str] = {}
    for entry in entries:
        told = {key: value for key, value in entry.protocol.items() if key in SAMPLING_KEYS - {"seconds_per_image"}}
        told |= told.pop("sampling", {}) if isinstance(told.get("sampling"), dict) else {}
        if told:
            recipes.setdefault(entry.row, _text(told))
    groups = _members(recipes, recipes.__getitem__)
    return [f"Samples: {'; '.join(f'{_join(rows)}: {text}' for text, rows in groups.items())}."] if groups else []


def describe_controls(entries: Sequence[Entry], skip: Iterable[str] = ()) -> list[str]:
    """Say in what the protocol of controls differs from that of every measured system with the same metric."""
    usual: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        for key, value in entry.protocol.items():
            if not entry.control:
                usual.setdefault((entry.metric, key), set()).add(_text(value))
    told: dict[str, list[str]] = {}
    for entry in entries:
        for key in entry.protocol.keys() - {*KNOWN, *skip} if entry.control else ():
            known, text = usual.get((entry.metric, key), set()), _text(entry.protocol[key])
            if text not in known and f"{key.replace('_', ' ')} {text}" not in told.setdefault(entry.row, []):
                told[entry.row].append(f"{key.replace('_', ' ')} {text}")
    listed = [f"{row}: {', '.join(sorted(texts))}" for row, texts in told.items() if texts]
    return [f"Controls differ from the systems: {'; '.join(listed)}."] if usual and listed else []


def describe_published(published: Sequence[Measurement], why: str) -> str:
    """Say where published rows come from, then why they are not to be compared with measured ones."""
    places = {"paper": "text"}
    sources = sorted(
        {
            f"{places.get(row.provenance['source'], row.provenance['source'])}, confidence {row.provenance['confidence']}"
            for row in published
        }
    )
    tables = _join(list(dict.fromkeys(str(row.protocol["table"]) for row in published)))
    return f"Published rows: the paper's {tables}, read from its {'; '.join(sources)}. {why}"


def _members(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Group names by a text, in order of first appearance."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40,}", value):
        return value[:12]  # enough of a hash to tell two files apart
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
