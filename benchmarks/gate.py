"""How often the regression gate is wrong: runs of scores whose truth is known, through the project's own metrics, pairing and gate.

OMP_NUM_THREADS=1 python benchmarks/gate.py | tee docs/results/gate.txt        # under an hour on one core; --jobs 8 shares it
python benchmarks/gate.py --runs 20 --replicates 20                            # a minute

Four systems on four sets, scores Gaussian on either side, so that every AUROC is known. The second run has either other images, or the
same images with scores that correlate with those of the first. First table: nothing changed, and the share of runs in which the gate
calls any cell at all a regression. Second table: the AUROC of one cell fell, and the share of runs in which that very cell is called one
(its AUPR, FPR95 and the mean are left as they were, so that they cannot help).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluators.measurement import Measurement
from evaluators.metrics.aupr import aupr
from evaluators.metrics.auroc import auroc_interval, mean_auroc_interval
from evaluators.metrics.fpr95 import fpr95
from evaluators.metrics.intervals import Estimate
from evaluators.pairing import correlations
from leaderboards.gate.comparison import Outcome, compare
from leaderboards.gate.statistics import ALPHA
from vaebm.cli import parse, run
from vaebm.errors import UserError

Scores = dict[str, NDArray[np.float64]]  # set -> (N,)

INSIDE = "inside"
TRUTH = {  # system -> AUROC on each of four sets: from far below chance to nearly perfect, as the paper's Table 6 and the bundled models
    "a": (0.97, 0.90, 0.80, 0.70),
    "b": (0.95, 0.85, 0.75, 0.65),
    "c": (0.55, 0.50, 0.52, 0.60),
    "d": (0.05, 0.30, 0.45, 0.98),
}
DROPS = (0.55, 0.65, 0.75, 0.85, 0.95, 0.98)  # AUROC of the cells that are let down, one at a time
NEW_IMAGES = "other images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    options = ArgumentParser(prog="gate.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--runs", type=int, default=1000, help="pairs of runs for every row of the tables")
    options.add_argument("--n", type=int, default=2000, help="images a set")
    options.add_argument("--drop", type=float, default=0.03, help="how far the true AUROC falls in the second table")
    options.add_argument("--correlations", type=str, default="0.5,0.8,0.9", help="of two runs' scores of one image")
    options.add_argument(
        "--replicates", type=int, default=200, help="bootstrap resamples of AUPR and FPR95; the suite takes 1000"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=1, help="processes")
    given = parse(options, arguments)
    if min(given.runs, given.jobs) < 1 or given.n < 2 or given.replicates < 2:
        raise UserError("--runs, --jobs: needed at least 1; --n, --replicates: needed at least 2")
    if not 0 <= given.drop < min(DROPS):
        raise UserError(f"--drop {given.drop}: needed a number from 0 to below {min(DROPS)}")
    shared = tuple(float(text) for text in given.correlations.split(",") if text)
    if not all(0 <= r < 1 for r in shared):
        raise UserError(f"--correlations {given.correlations}: needed numbers from 0 to below 1")

    trial = partial(simulate, n=given.n, drop=given.drop, shared=shared, replicates=given.replicates)
    seeds = [[given.seed, i] for i in range(given.runs)]
    if given.jobs == 1:
        found = list(map(trial, seeds))
    else:
        with ProcessPoolExecutor(given.jobs) as pool:
            found = list(pool.map(trial, seeds, chunksize=max(1, given.runs // 200)))
    counts = sum(found, Counter())
    print(report(counts, given, [NEW_IMAGES, *(f"the same, scores correlate {r:g}" for r in shared)]))
    return 0


def report(counts: Counter[tuple[str, ...]], given: Any, cases: Sequence[str]) -> str:
    """Both tables in Markdown, under a line that says how they were made."""
    runs, n, drop = given.runs, given.n, given.drop
    cells = len(TRUTH) * (3 * len(next(iter(TRUTH.values()))) + 1)
    share = lambda key: counts[key] / runs
    ends = lambda key: binomtest(counts[key], runs).proportion_ci(0.95, "exact")  # Clopper and Pearson
    interval = lambda key: f"[{ends(key).low:.4f}, {ends(key).high:.4f}]"
    lines = [
        f"{runs} pairs of runs for each row, {n} + {n} images a cell, {cells} cells a run, {given.replicates} resamples, "
        f"family-wise level {ALPHA:g}, brackets: Clopper-Pearson, 95 %.",
        "",
        "| nothing changed; images of the second run | correlation of the AUROCs | runs that fail | share |",
        "|:--|--:|--:|:--|",
    ]
    for case in cases:
        mean = counts["correlation", case] / runs
        lines.append(
            f"| {case} | {mean:.2f} | {counts['fails', case]} | {share(('fails', case)):.3f} {interval(('fails', case))} |"
        )
    lines += [
        "",
        f"| caught: an AUROC that fell by {drop:g} from | " + " | ".join(cases) + " |",
        "|--:" + "|:--" * len(cases) + "|",
    ]
    for base in DROPS:
        keys = [("caught", case, f"{base:g}") for case in cases]
        lines.append(f"| {base:g} | " + " | ".join(f"{share(key):.3f} {interval(key)}" for key in keys) + " |")
    return "\n".join(lines)


def simulate(
    seed: Sequence[int], *, n: int, drop: float, shared: Sequence[float], replicates: int
) -> Counter[tuple[str, ...]]:
    """One stored run, then a second run of every kind beside it; count what the gate says."""
    rng = np.random.default_rng(seed)
    stored = {system: draw(rng, truth, n) for system, truth in TRUTH.items()}
    before = [r for system in TRUTH for r in measure(system, stored[system], "first", replicates)]
    counts: Counter[tuple[str, ...]] = Counter()
    for r in (None, *shared):
        case = NEW_IMAGES if r is None else f"the same, scores correlate {r:g}"
        images = "second" if r is None else "first"
        noise = {system: redraw(rng, stored[system], TRUTH[system], r or 0.0) for system in TRUTH}
        after = [r for system in TRUTH for r in measure(system, noise[system], images, replicates)]
        pairs = {} if r is None else correlations(stored, noise, INSIDE)
        counts["correlation", case] += float(np.mean(list(pairs.values() or [0])))  # type: ignore[assignment]
        cells = compare(after, before, pairs)
        counts["fails", case] += any(cell.outcome is Outcome.REGRESSED for cell in cells)
        for base in DROPS:
            system, k = next((name, truth.index(base)) for name, truth in TRUTH.items() if base in truth)
            fallen = let_down(noise[system], k, base, drop)
            place = (system, f"set{k}", "auroc")
            rest = [r for r in after if (r.system, r.dataset, r.metric) != place]
            changed = correlations({system: one_set(stored[system], k)}, {system: fallen}, INSIDE) if pairs else {}
            lower = auroc_interval(fallen[INSIDE], fallen[f"set{k}"])
            judged = compare([*rest, row(system, f"set{k}", "auroc", lower, images)], before, {**pairs, **changed})
            named = {(c.row.system, c.row.dataset, c.row.metric) for c in judged if c.outcome is Outcome.REGRESSED}
            counts["caught", case, f"{base:g}"] += place in named
    return counts


def distance(auroc: float) -> float:
    """How far apart two normal distributions of variance 1 are for this AUROC: sqrt(2) Phi^-1(AUROC)."""
    return math.sqrt(2) * NormalDist().inv_cdf(auroc)


def one_set(scores: Scores, k: int) -> Scores:
    """The scores inside and of set k alone."""
    return {name: scores[name] for name in (INSIDE, f"set{k}")}


def let_down(scores: Scores, k: int, auroc: float, drop: float) -> Scores:
    """The scores inside and of set k, whose true AUROC is lowered by ``drop``."""
    alone = one_set(scores, k)
    return alone | {f"set{k}": alone[f"set{k}"] + distance(auroc) - distance(auroc - drop)}


def draw(rng: np.random.Generator, truth: Sequence[float], n: int) -> Scores:
    """Scores (n,) of one system's images, inside and of every set."""
    inside = {INSIDE: rng.standard_normal(n)}
    return inside | {f"set{k}": rng.standard_normal(n) - distance(auroc) for k, auroc in enumerate(truth)}


def redraw(rng: np.random.Generator, first: Scores, truth: Sequence[float], r: float) -> Scores:
    """Scores of the same truth, each of correlation ``r`` with that of the same image in ``first``."""
    centres = {INSIDE: 0.0, **{f"set{k}": -distance(auroc) for k, auroc in enumerate(truth)}}
    fresh = lambda values: math.sqrt(1 - r * r) * rng.standard_normal(len(values))
    return {name: centres[name] + r * (values - centres[name]) + fresh(values) for name, values in first.items()}


def measure(system: str, scores: Scores, images: str, replicates: int) -> list[Measurement]:
    """The rows that the OOD suite has of these scores."""
    rows = aurocs(system, scores, images)
    for name in scores.keys() - {INSIDE}:
        pair, how = (scores[INSIDE], scores[name]), {"replicates": replicates}
        rows += [
            row(system, name, "aupr", aupr(*pair, **how), images),
            row(system, name, "fpr95", fpr95(*pair, **how), images),
        ]
    return rows


def aurocs(system: str, scores: Scores, images: str) -> list[Measurement]:
    """AUROC of every set, then their mean."""
    outer = {name: values for name, values in scores.items() if name != INSIDE}
    rows = [row(system, name, "auroc", auroc_interval(scores[INSIDE], outer[name]), images) for name in outer]
    return [*rows, row(system, "mean", "auroc", mean_auroc_interval(scores[INSIDE], list(outer.values())), images)]


def row(system: str, dataset: str, metric: str, found: Estimate, images: str) -> Measurement:
    """A row as of the OOD suite; ``images`` stands for the hash of the data."""
    data: Mapping[str, str] = {INSIDE: images, dataset: images}
    about = {"protocol": {"in_distribution": INSIDE}, "provenance": {"data": data}}
    return Measurement("ood", system, dataset, metric, found.value, found.low, found.high, **about)


if __name__ == "__main__":
    raise SystemExit(run(main))
