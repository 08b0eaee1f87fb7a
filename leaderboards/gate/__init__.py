"""The regression gate: is a run worse than a stored one, beyond what the intervals of both allow?

    code = check([(Path("results/ood.json"), results)], Path("baseline.json"), Path("results"), correlate=score_correlations)

0: no; 1: yes; 2: no, but something is missing or was measured in another way, or there was nothing to test.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards.files import write_all
from leaderboards.gate.comparison import Correlations, compare, has_scores, judgeable
from leaderboards.gate.files import check_replaceable, join, read_baseline, scores_beside, store_baseline
from leaderboards.gate.report import Report, to_json, to_markdown, to_text
from leaderboards.merge import Run
from vaebm.errors import UserError

__all__ = ["Correlate", "check", "check_replaceable", "compare", "read_baseline", "write_baseline"]

HASH = 64  # letters of a SHA-256

SAME = 1e-9  # two AUROCs of the same scores differ by less

Pairs = Mapping[tuple[str, str], tuple[float, float, float]]  # (system, data set) -> correlation, the AUROC in each run
# Two files of scores and the name of the in-distribution set -> the AUROCs that these scores have, and their correlations.
Correlate = Callable[[Path, Path, str], Pairs]


def check(
    runs: Sequence[Run], baseline: Path, out: Path, correlate: Correlate | None = None, stream: TextIO | None = None
) -> int:
    """Compare runs with a stored one; print what moved and write it to ``out`` as ``check.md`` and ``check.json``.

    Args:
        runs: result files and what is in them, one for each suite.
        baseline: the stored run, which may hold several suites.
        correlate: how far two runs' AUROCs of the same images move together (:func:`evaluators.pairing.score_correlations`). Without it,
            or without the scores of both, they count as independent, which makes the gate milder; so do scores whose AUROC is not
            that of the row.
        stream: where the text goes; stdout by default.

    Returns:
        1 if a cell regressed; else 2 if one is missing or incomparable, a suite of the baseline was not run, or no cell was tested; else 0.

    Raises:
        UserError: the baseline cannot be used or is the run itself; two runs of one suite; ``out`` cannot be written.
    """
    stored = read_baseline(baseline, [path for path, _ in runs])
    report = _report(runs, baseline, stored, correlate)
    write_all({out / "check.md": to_markdown(report).encode(), out / "check.json": to_json(report).encode()})
    print(to_text(report), end="", file=stream or sys.stdout)
    return report.exit_code


def write_baseline(
    runs: Sequence[Run], path: Path, correlate: Correlate | None = None, stream: TextIO | None = None
) -> None:
    """Store runs as the baseline, with the scores of the OOD suite beside it as ``<stem>.scores.npz``: both or none.

    Before another baseline is replaced, what moves is printed; whatever that is, it is replaced. No other file is. Runs
    without any cell that the gate could test are stored with a warning.

    Raises:
        UserError: two runs of one suite; what is there is no baseline; the folder cannot be written.
    """
    rows = join(runs).rows
    check_replaceable(path)
    if path.is_file():
        try:
            text = to_text(_report(runs, path, read_baseline(path), correlate), replaces=True)
        except UserError as error:
            text = f"The old baseline is replaced without a comparison: {error}\n"
        print(text, end="", file=stream or sys.stdout)
    store_baseline(runs, path)
    if not any(row.origin == "measured" and judgeable(row) for row in rows):
        print(
            f"Warning: {path} has no cell that the gate can test; every --check with it will end with exit code 2.",
            file=stream or sys.stdout,
        )


def _report(runs: Sequence[Run], path: Path, baseline: Results, correlate: Correlate | None) -> Report:
    run = join(runs)
    measured = lambda results: [row for row in results.rows if row.origin == "measured"]
    suites = {name for _, results in runs for name in results.suite.split(",")} | {row.suite for row in run.rows}
    stored = [row for row in measured(baseline) if row.suite in suites]
    absent = dict.fromkeys(row.suite for row in measured(baseline) if row.suite not in suites)
    correlations, foreign = _correlations(runs, path, stored, correlate)
    cells = compare(measured(run), stored, correlations)
    return Report(cells, str(path), list(absent), _changed_weights(measured(run), stored), foreign)


def _correlations(
    runs: Sequence[Run], baseline: Path, stored: Sequence[Measurement], correlate: Correlate | None
) -> tuple[Correlations, list[str]]:
    """Of the OOD run's scores with the baseline's, where both are there; and the result files whose scores are not those of their rows."""
    old = scores_beside(baseline)
    inside = [*{str(row.protocol["in_distribution"]) for row in stored if "in_distribution" in row.protocol}]
    if correlate is None or old is None or len(inside) != 1:
        return {}, []
    for path, results in runs:
        new = scores_beside(path)
        if new and any(row.suite == "ood" for row in results.rows):
            pairs = correlate(new, old, inside[0])
            here = _foreign({place: first for place, (_, first, _) in pairs.items()}, results.rows)
            there = _foreign({place: second for place, (_, _, second) in pairs.items()}, stored)
            own = {place: pair[0] for place, pair in pairs.items() if place not in here | there}
            return own, [str(file) for file, places in ((path, here), (baseline, there)) if places]
    return {}, []


def _foreign(aurocs: Mapping[tuple[str, str], float], rows: Sequence[Measurement]) -> set[tuple[str, str]]:
    """Places whose row has another AUROC than the scores, which are another run's then."""
    found = set()
    for row in rows:
        place = row.system, row.dataset
        if row.origin == "measured" and has_scores(row) and row.value is not None and place in aurocs:
            found |= {place} if abs(row.value - aurocs[place]) > SAME else set()
    return found


def _changed_weights(run: Sequence[Measurement], baseline: Sequence[Measurement]) -> list[tuple[str, str, str]]:
    """Systems with other weights: (name, beginning of the old hash, of the new one)."""
    old, new = _weights(baseline), _weights(run)
    changed = {}
    for key in old.keys() & new.keys():
        # A system of two parts has two hashes in one text: the part that differs is to be seen.
        for start in range(0, len(old[key]), HASH):
            parts = old[key][start:][:HASH], new[key][start:][:HASH]
            if parts[0] != parts[1]:
                changed[key] = (key[0], parts[0][:12], parts[1][:12])
                break
    return sorted(set(changed.values()))


def _weights(rows: Sequence[Measurement]) -> dict[tuple[str, str, str], str]:
    """(System, suite, data set) -> hash of its weights: a system may have some for each."""
    found = {}
    for row in rows:
        if row.weights:
            name = f"{row.system} ({row.size})" if row.size else row.system
            found[name, row.suite, row.dataset] = row.weights
    return found
