"""What was measured before: every run of the front door appends to a small SQLite file, and this lists and draws it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.result_file import Results
from leaderboards import history_store as store
from leaderboards.history_store import Entry
from leaderboards.names import system_label
from leaderboards.render.terminal import SUPERSCRIPTS, plain
from vaebm.errors import UserError, did_you_mean

__all__ = ["FILE", "Entry", "Line", "append", "compared", "differences", "render", "show"]

FILE = "history.db"
LONGEST = 40  # letters of a setting in a footnote
NONE = "–"
# Columns that are shown only where they tell something.
IF_DIFFERENT, IF_FILLED = ("in", "seed"), ("variant", "protocol")


@dataclass(frozen=True)
class Line:
    """A number and how its protocol differs from that of the run before: ``("n: 1000 -> 2000",)``; empty if it does not."""

    entry: Entry
    changed: tuple[str, ...] = ()


def append(results: Results, folder: Path) -> None:
    """Add a run to the history of a folder; the same run twice is one run. Never raises: what stands in the way is said on stderr."""
    try:
        store.add(results, folder / FILE)
    except Exception as error:  # hours of measuring are behind this call, and tables and page are still to come
        print(f"history: not appended: {error}", file=sys.stderr)


def show(path: Path, system: str, metric: str, out: Path, *, pdf: bool = False) -> int:
    """Print what was measured of a system and write ``history_<system>_<metric>.png``; return the exit code.

    Args:
        metric: of this metric, its diagnostics too; empty: all headline numbers (of a control, which has none, all numbers).
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: there is no history, or it is of no use; system or metric are not in it; ``out`` cannot be written.
    """
    from leaderboards.plots.history import write

    systems = store.names(path)
    if system not in systems:
        raise UserError(f"--history {system}: {path} has no such system.{did_you_mean(system, systems)}")
    if metric and metric not in (metrics := store.names(path, system)):
        raise UserError(f"--metric {metric}: never measured of {system} in {path}.{did_you_mean(metric, metrics)}")
    found = store.entries(path, system, metric)
    if not metric:
        found = [entry for entry in found if entry.role == "headline"] or found
    lines = compared(found)
    print(render(lines), end="")
    for written in write(lines, out, pdf=pdf):
        print(written, file=sys.stderr)
    return 0


def compared(entries: Sequence[Entry]) -> list[Line]:
    """Sort entries by metric, set and cell, oldest first within these, and compare each with the one before of its cell.

    Args:
        entries: oldest first.
    """
    first: dict[Any, int] = {}  # in order of first appearance, which is the suite's own
    place = lambda entry: [first.setdefault(part, len(first)) for part in (entry.metric, entry.set, entry.cell)]
    lines: list[Line] = []
    for entry in sorted(entries, key=place):
        before = lines[-1].entry if lines and lines[-1].entry.cell == entry.cell else entry
        lines.append(Line(entry, differences(_settings(before), _settings(entry))))
    return lines


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs between two protocols, by name: ``("n_in: 1000 -> 2000", "sampling.steps: 4 -> 16")``."""
    old, new = dict(_flat(before)), dict(_flat(after))
    shown = lambda settings, key: _shorten(settings[key]) if key in settings else NONE
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key, NONE) != new.get(key, NONE)]
    return tuple(f"{key}: {shown(old, key)} -> {shown(new, key)}" for key in changed)


def render(lines: Sequence[Line]) -> str:
    """Return a table per metric, with a rule between sets and a footnote to every change of protocol."""
    return "\n".join(
        _table([line for line in lines if line.entry.metric == metric])
        for metric in dict.fromkeys(line.entry.metric for line in lines)
    )


def _table(lines: Sequence[Line]) -> str:
    from tabulate import SEPARATING_LINE, tabulate

    entries = [line.entry for line in lines]
    notes = {changed: i + 1 for i, changed in enumerate(dict.fromkeys(line.changed for line in lines if line.changed))}
    columns = {
        "when (UTC)": [entry.created[:16].replace("T", " ") or NONE for entry in entries],
        "commit": [_commit(entry.commit) for entry in entries],
        "weights": [entry.weights[:8] or NONE for entry in entries],
        "suite": [entry.suite for entry in entries],
        "in": [entry.in_distribution for entry in entries],
        "set": [entry.dataset for entry in entries],
        "variant": [entry.variant for entry in entries],
        "size": [entry.size or NONE for entry in entries],
        "seed": [NONE if entry.seed is None else str(entry.seed) for entry in entries],
        "n": [NONE if entry.n is None else str(entry.n) for entry in entries],
        "value": [_number(entry.value) for entry in entries],
        "95 %": [_interval(entry) for entry in entries],
        "protocol": [f"changed{_mark(notes[line.changed])}" if line.changed else "" for line in lines],
    }
    idle = {name for name in IF_DIFFERENT if len(set(columns[name])) == 1}
    idle |= {name for name in IF_FILLED if not any(columns[name])}
    told = {name: cells for name, cells in columns.items() if name not in idle}
    rows: list[Any] = []
    for i, cells in enumerate(zip(*told.values(), strict=True)):
        if i and entries[i].set != entries[i - 1].set:
            rows.append(SEPARATING_LINE)
        rows.append([plain(cell) for cell in cells])
    right = ["right" if name in ("n", "value", "seed") else "left" for name in told]
    text = tabulate(rows, list(told), tablefmt="simple", disable_numparse=True, colalign=right)
    title = f"{system_label(entries[0].system)}: {entries[0].metric}"
    marks = [f"{_mark(number)} against the line above: {'; '.join(changed)}" for changed, number in notes.items()]
    return "\n".join(line.rstrip() for line in [plain(title), *text.splitlines(), *map(plain, marks)]) + "\n"


def _settings(entry: Entry) -> dict[str, Any]:
    """What has to agree. Distances and counts depend on the number of images, and all on the seed; not every protocol repeats them."""
    return {**entry.protocol, "n": entry.n, "seed": entry.seed}


def _flat(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", str(value)


def _commit(commit: str) -> str:
    name, dash, state = commit.partition("-")
    return f"{name[:8]}{dash}{state}" or NONE


def _mark(number: int) -> str:
    return str(number).translate(SUPERSCRIPTS)


def _number(value: float) -> str:
    """Four digits, or as many as stand before the point."""
    return f"{value:#.4g}".removesuffix(".") if abs(value) < 1e4 else f"{value:.0f}"


def _interval(entry: Entry) -> str:
    return NONE if entry.low is None or entry.high is None else f"[{_number(entry.low)}, {_number(entry.high)}]"


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
