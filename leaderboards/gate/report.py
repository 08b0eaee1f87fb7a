"""What the gate says: text for a terminal, Markdown for a job's summary, JSON for programs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.measurement import Measurement
from leaderboards.gate.comparison import Comparison, Outcome
from leaderboards.gate.statistics import ALPHA
from leaderboards.render.markdown import escape
from leaderboards.render.terminal import plain

COLUMNS = ("system", "set", "metric", "baseline", "run", "change", "tolerance", "verdict")
DECIDED = (Outcome.REGRESSED, Outcome.IMPROVED, Outcome.NOISE, Outcome.EQUAL)
STOPPED = (Outcome.INCOMPARABLE, Outcome.MISSING)
_SHOWN = 10  # rows of a terminal's table of what is not judged
_LONGEST = 60  # letters of a reason in a terminal's table


@dataclass(frozen=True)
class Report:
    """All cells of a run beside its baseline.

    Attributes:
        cells: the comparisons.
        baseline: file of the stored run.
        missing_suites: suites of the baseline that were not run.
        weights: systems whose weights changed, with the beginnings of their hashes: (name, in the baseline, in the run).
        foreign_scores: result files beside which lie scores of another run.
    """

    cells: Sequence[Comparison]
    baseline: str
    missing_suites: Sequence[str] = ()
    weights: Sequence[tuple[str, str, str]] = ()
    foreign_scores: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Cells by outcome; a suite that was not run counts as one missing cell."""
        found = Counter(str(cell.outcome) for cell in self.cells)
        found[Outcome.MISSING] += len(self.missing_suites)
        return {str(outcome): found[outcome] for outcome in Outcome}

    @property
    def exit_code(self) -> int:
        """1: something regressed; else 2: something is missing or cannot be compared, or nothing was tested; else 0."""
        if self.counts[Outcome.REGRESSED]:
            return 1
        return 2 if self.stopped or not self.judged else 0

    @property
    def stopped(self) -> int:
        """Cells that are missing or incomparable."""
        return sum(self.counts[outcome] for outcome in STOPPED)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.exit_code == 1:
            return f"Fails: {_number(self.counts[Outcome.REGRESSED], 'cell')} regressed (exit code 1)."
        if self.stopped:
            return f"Not compared: {_number(self.stopped, 'cell')} missing or incomparable (exit code 2)."
        if not self.judged:
            return "Not compared: there was no cell to test (exit code 2)."
        return "Passes: nothing regressed (exit code 0)."

    @property
    def judged(self) -> int:
        """Cells that were tested."""
        return sum(cell.outcome in DECIDED for cell in self.cells)

    def moved(self) -> list[Comparison]:
        """What moved or is gone, or is equal with another caveat, worst first, without what is not judged."""
        order = {
            Outcome.REGRESSED: 0,
            Outcome.INCOMPARABLE: 1,
            Outcome.MISSING: 2,
            Outcome.NOISE: 3,
            Outcome.IMPROVED: 3,
            Outcome.EQUAL: 4,
        }
        told = [
            cell for cell in self.cells if cell.outcome in order and (cell.outcome is not Outcome.EQUAL or cell.reason)
        ]
        return sorted(told, key=lambda c: (order[c.outcome], -c.sigmas))

    def not_judged(self) -> list[Comparison]:
        """What moved but is not judged."""
        return [cell for cell in self.cells if cell.outcome is Outcome.NOT_JUDGED and cell.change]


def to_text(report: Report, *, replaces: bool = False) -> str:
    """Return the table of what moved and the verdict as aligned text.

    Args:
        replaces: the run replaces the baseline, so that nothing passes or fails: without the verdict.
    """
    lines = ["Replaces the old baseline; against it:" if replaces else f"Compared with {plain(report.baseline)}:"]
    if moved := report.moved():
        lines += ["", *_aligned([COLUMNS, *(_line(cell, _LONGEST) for cell in moved)])]
    if silent := report.not_judged():
        shown = _aligned(
            [(*COLUMNS[:6], "not judged"), *(_not_judged_line(cell, _LONGEST) for cell in silent[:_SHOWN])]
        )
        lines += ["", *shown]
        rest = f"... and {len(silent) - _SHOWN} more" + ("" if replaces else " in check.md")
        lines += [rest] if len(silent) > _SHOWN else []
    lines += ["", *map(plain, _notes(report)), *([] if replaces else [report.verdict])]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def to_markdown(report: Report) -> str:
    """Return the same for GitHub; what is not judged is folded away."""
    lines = ["### Regression gate", "", f"**{report.verdict}**", ""]
    if moved := report.moved():
        lines += [*_table(COLUMNS, [_line(cell) for cell in moved]), ""]
    lines += [f"- {escape(note)}" for note in _notes(report)]
    if silent := report.not_judged():
        lines += ["", f"<details><summary>{_number(len(silent), 'cell')} moved, not judged</summary>", ""]
        lines += [*_table((*COLUMNS[:6], "why"), [_not_judged_line(cell) for cell in silent]), "", "</details>"]
    return "\n".join(lines) + "\n"


def to_json(report: Report) -> str:
    """Return everything: the verdict, counts, and every cell with both rows' numbers."""
    document = {
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "alpha": ALPHA,
        "baseline": report.baseline,
        "judged": report.judged,
        "counts": report.counts,
        "missing_suites": list(report.missing_suites),
        "weights_changed": [dict(zip(("system", "baseline", "run"), entry, strict=True)) for entry in report.weights],
        "foreign_scores": list(report.foreign_scores),
        "cells": [_record(cell) for cell in report.cells],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _notes(report: Report) -> Iterator[str]:
    counts = report.counts
    for suite in report.missing_suites:
        yield f"Suite {suite} of the baseline was not run."
    for system, old, new in report.weights:
        yield f"{system}: other weights than in the baseline ({old}, now {new})."
    for file in report.foreign_scores:
        yield f"The scores beside {file} are not those of its rows: their cells are not compared image by image."
    if paired := sum(cell.correlation != 0 for cell in report.cells):
        yield f"Compared image by image, by the scores of both runs: {_number(paired, 'cell')}."
    tested = ", ".join(f"{counts[outcome]} {outcome}" for outcome in DECIDED)
    rest = ", ".join(f"{counts[outcome]} {outcome}" for outcome in (*STOPPED, Outcome.NEW, Outcome.NOT_JUDGED))
    yield f"{_number(report.judged, 'cell')} tested at a family-wise level of {ALPHA:g} (Holm): {tested}. Others: {rest}."


def _line(cell: Comparison, longest: int = 0) -> tuple[str, ...]:
    """The words of a row; a terminal shortens the reason."""
    reason = _shortened(cell.reason, longest)
    tolerance = "" if cell.tolerance is None else f"{cell.tolerance:.2g}"
    return (*_names(cell.row), *_numbers(cell), tolerance, f"{cell.outcome}: {reason}" if reason else str(cell.outcome))


def _not_judged_line(cell: Comparison, longest: int = 0) -> tuple[str, ...]:
    return (*_names(cell.row), *_numbers(cell), _shortened(cell.reason, longest))


def _names(row: Measurement) -> tuple[str, str, str]:
    system = f"{row.system} ({row.size})" if row.size else row.system
    return system, row.dataset, f"{row.metric} {row.variant}".strip()


def _numbers(cell: Comparison) -> tuple[str, str, str]:
    change = "" if cell.change is None else f"{cell.change:+.3g}"
    return _with_interval(cell.baseline), _with_interval(cell.run), change


def _with_interval(row: Measurement | None) -> str:
    if row is None or row.value is None:
        return "–"
    show: Callable[[float], str] = lambda value: f"{value:#.4g}".removesuffix(".")
    return show(row.value) + (
        f" [{show(row.low)}, {show(row.high)}]" if row.low is not None and row.high is not None else ""
    )


def _record(cell: Comparison) -> dict[str, Any]:
    row = cell.row
    keys = ("suite", "system", "size", "dataset", "metric", "role", "variant")
    numbers = lambda side: (
        {key: getattr(side, key) for key in ("value", "low", "high", "n", "seed", "note")} if side else None
    )
    return {
        **{key: getattr(row, key) for key in keys},
        "in_distribution": row.protocol.get("in_distribution"),
        "outcome": str(cell.outcome),
        "reason": cell.reason,
        "baseline": numbers(cell.baseline),
        "run": numbers(cell.run),
        "change": cell.change,
        "worse": cell.worse,
        "tolerance": cell.tolerance,
        "p": cell.p,
        "correlation": cell.correlation,
    }


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|:--" * len(header) + "|"
    for line in lines:
        yield "| " + " | ".join(map(escape, line)) + " |"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    from tabulate import tabulate

    return tabulate([list(map(plain, line)) for line in lines], tablefmt="plain", disable_numparse=True).splitlines()


def _shortened(text: str, longest: int) -> str:
    return f"{text[: longest - 1]}…" if 0 < longest < len(text) else text


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
