"""The regression gate: is a run worse than a stored one, beyond what the intervals of both allow?

    code = check([(Path("results/ood.json"), results)], Path("baseline.json"), Path("results"), correlate=score_correlations)

0: no; 1: yes; 2: no, but something is missing or was measured in another way, or there was nothing to test.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards.files import write_all
from leaderboards.gate.comparison import Correlations, compare, judgeable
from leaderboards.gate.files import Run, join, read_baseline, scores_beside, store_baseline
from leaderboards.gate.report import Report, to_json, to_markdown, to_text
from vaebm.errors import UserError

__all__ = ["Correlate", "check", "compare", "read_baseline", "write_baseline"]

HASH = 64  # letters of a SHA-256

# Two files of scores and the name of the in-distribution set -> correlations of the AUROCs that these scores have.
Correlate = Callable[[Path, Path, str], Correlations]


def check(
    runs: Sequence[Run], baseline: Path, out: Path, correlate: Correlate | None = None, stream: TextIO | None = None
) -> int:
    """Compare runs with a stored one; print what moved and write it to ``out`` as ``check.md`` and ``check.json``.

    Args:
        runs: result files and what is in them, one for each suite.
        baseline: the stored run, which may hold several suites.
        correlate: how far two runs' AUROCs of the same images move together (:func:`evaluators.pairing.score_correlations`). Without it,
            or without the scores of both, they count as independent, which makes the gate milder.
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

    Before another baseline is replaced, what moves is printed; whatever that is, it is replaced. Runs without any cell that the gate could
    test are stored with a warning.

    Raises:
        UserError: two runs of one suite; the folder cannot be written.
    """
    rows = join(runs).rows
    if path.is_file():
        try:
            text = to_text(_report(runs, path, read_baseline(path), correlate))
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
    cells = compare(measured(run), stored, _correlations(runs, path, stored, correlate))
    return Report(cells, str(path), list(absent), _changed_weights(measured(run), stored))


def _correlations(
    runs: Sequence[Run], baseline: Path, stored: Sequence[Measurement], correlate: Correlate | None
) -> Correlations:
    """Of the OOD run's scores with the baseline's, where both are there."""
    old = scores_beside(baseline)
    inside = [*{row.protocol["in_distribution"] for row in stored if "in_distribution" in row.protocol}]
    if correlate is None or old is None or len(inside) != 1:
        return {}
    for path, results in runs:
        new = scores_beside(path)
        if new and any(row.suite == "ood" for row in results.rows):
            return correlate(new, old, inside[0])
    return {}


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
        fingerprint = row.provenance.get("fingerprint")
        if isinstance(fingerprint, dict) and fingerprint.get("weights"):
            name = f"{row.system} ({row.size})" if row.size else row.system
            found[name, row.suite, row.dataset] = str(fingerprint["weights"])
    return found
