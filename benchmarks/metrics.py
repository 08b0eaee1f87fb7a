"""Time of the sample-quality metrics beside the packages users have, on the same features, in one run.

OMP_NUM_THREADS=1 python benchmarks/metrics.py                      # everything; needs pip install -e .[peers]
OMP_NUM_THREADS=1 python benchmarks/metrics.py --only prdc          # one part: frechet, kid, prdc or all
python benchmarks/metrics.py --images 1000 --dim 256 --repeats 3    # smaller

Features are synthetic: non-negative, correlated, float32 as extractors give them. Rounds are interleaved, every contender computes in
each, and the run fails unless the values agree to what a contender's own precision allows. CPU seconds are those of all threads; prdc
starts eight whatever OMP_NUM_THREADS says. "all" is what a user wants of 10,000 images: Frechet distance, KID, IS, precision, recall,
density, coverage; its peers are the package that has each metric.
"""

import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from peers import peer
from scipy.special import softmax

from evaluators.metrics.frechet import FrechetReference, frechet_distance
from evaluators.metrics.inception_score import inception_score
from evaluators.metrics.kid import kid_subsets
from evaluators.metrics.moments import GroupedMoments
from evaluators.metrics.prdc import PRDC, prdc, prdc_and_kid
from vaebm.cli import parse, run
from vaebm.errors import UserError

Features = NDArray[np.float32]
Values = dict[str, float]
CLASSES = 1008


@dataclass(frozen=True)
class Contender:
    """A way to the same values.

    Attributes:
        compute: returns named values.
        tolerance: how far each may be from ours.
        wanted: times slower than ours that this contender is asked to be at least; 0 = no such aim.
    """

    name: str
    compute: Callable[[], Values]
    tolerance: Values
    wanted: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; fail when values disagree."""
    options = ArgumentParser(prog="metrics.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--only", type=str, default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    options.add_argument("--images", type=int, default=10_000, help="images a set")
    options.add_argument("--kid-images", type=int, default=50_000, help="images a set in the part kid")
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--subsets", type=int, default=100, help="of KID")
    options.add_argument("--size", type=int, default=1000, help="of a KID subset")
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    options.add_argument("--peak-of-prdc", action="store_true", help="print the extra memory of prdc in bytes and stop")
    given = parse(options, arguments)
    parts = [part for part in given.only.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--only {unknown[0]}: needed some of {', '.join(PARTS)}")
    smallest = min(given.images, given.kid_images, given.dim, given.size)
    if min(smallest, given.subsets, given.repeats) < 1:
        raise UserError("--images, --kid-images, --dim, --subsets, --size, --repeats: needed at least 1 of each")
    if given.peak_of_prdc:
        print(extra_memory(*pair(given.images, given.dim)))
        return 0

    record: dict[str, Any] = {"setting": vars(given).copy(), "machine": machine(), "parts": {}, "comparisons": []}
    record["setting"]["json"] = str(given.json)
    print(f"{record['machine']}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    for part in parts:
        title, contenders = PARTS[part](given)
        found, apart = measure(contenders, given.repeats)
        memory = measured_memory(given) if part == "prdc" else None
        record["parts"][part] = {"seconds": found, "differences": apart, "memory_bytes": memory}
        record["comparisons"] += [row.to_json() for row in comparisons(title, contenders, found, apart)]
        print(f"\n{title}\n\n{report(contenders, found)}", flush=True)
        if memory is not None:
            print(f"\nMemory of ours beyond the features: {memory / 1e6:.0f} MB (wanted: at most 300 MB).")
    if given.json is not None:
        write_json(given.json, record)
    return 0


def features(n: int, d: int, seed: int, scale: float = 1.0) -> Features:
    """Rectified sums of d / 8 common factors and noise."""
    factors = max(1, d // 8)
    weights = np.random.default_rng(0).normal(size=(factors, d), scale=1 / math.sqrt(factors)).astype(np.float32)
    rng = np.random.default_rng(seed)
    x = (scale * rng.standard_normal((n, factors), dtype=np.float32)) @ weights
    x += 0.3 * rng.standard_normal((n, d), dtype=np.float32)
    x += np.float32(0.3)
    return np.maximum(x, 0, out=x)


def pair(n: int, d: int) -> tuple[Features, Features]:
    """Real and fake features."""
    return features(n, d, 1), features(n, d, 2, 1.05)


def frechet_part(given: Any) -> tuple[str, list[Contender]]:
    """From means and covariances, both sides new to the function."""
    clean, fidelity = peer("cleanfid.fid"), peer("torch_fidelity.metric_fid")
    mu1, cov1, mu2, cov2 = [part for x in pair(given.images, given.dim) for part in moments(x)]
    ones = [{"mu": mu1, "sigma": cov1}, {"mu": mu2, "sigma": cov2}]
    allowed = {"frechet": 1e-8 * float(frechet_distance(mu1, cov1, mu2, cov2))}
    return f"Frechet distance of statistics, {given.dim} features", [
        Contender("ours", lambda: {"frechet": frechet_distance(mu1, cov1, mu2, cov2)}, {}),
        Contender(
            "torch-fidelity",
            lambda: {"frechet": fidelity.fid_statistics_to_metric(*ones, False)["frechet_inception_distance"]},
            allowed,
            2,
        ),
        Contender("clean-fid", lambda: {"frechet": float(clean.frechet_distance(mu1, cov1, mu2, cov2))}, allowed, 8),
    ]


def kid_part(given: Any) -> tuple[str, list[Contender]]:
    """torch-fidelity's subsets; clean-fid's are its own. Either is given float32, as extractors write it, and float64, which it needs for
    the digits that ours has from float32."""
    x, y = pair(given.kid_images, given.dim)
    own, spread = kid_subsets(x, y, subsets=min(10, given.subsets), size=given.size)
    sampling = 8 * spread / math.sqrt(given.subsets) + 1e-12
    title = f"KID, {given.subsets} subsets of {given.size} from {given.kid_images} images, {given.dim} features"

    def ours() -> Values:
        return {"kid": kid_subsets(x, y, subsets=given.subsets, size=given.size, seed=2020)[0]}

    def clean(x: NDArray, y: NDArray) -> Values:
        np.random.seed(0)
        return {"kid": kernel_distance(y, x, given.subsets, given.size)}

    kernel_distance = peer("cleanfid.fid").kernel_distance
    exact = x.astype(np.float64), y.astype(np.float64)
    return title, [
        Contender("ours (float32 in)", ours, {}),
        Contender("torch-fidelity, float64 in", lambda: fidelity_kid(*exact, given), {"kid": 1e-5 * abs(own)}, 2),
        Contender("torch-fidelity, float32 in", lambda: fidelity_kid(x, y, given), {"kid": 5e-2 * abs(own)}),
        Contender("clean-fid, float64 in", lambda: clean(*exact), {"kid": sampling}, 2),
        Contender("clean-fid, float32 in", lambda: clean(x, y), {"kid": sampling + 5e-2 * abs(own)}),
    ]


def prdc_part(given: Any) -> tuple[str, list[Contender]]:
    """The same k for all four."""
    peer("prdc")
    x, y = pair(given.images, given.dim)
    exact = x.astype(np.float64), y.astype(np.float64)
    close = dict.fromkeys(("precision", "recall", "density", "coverage"), 1e-9)
    title = f"Precision, recall, density, coverage, k = 5, {given.images} + {given.images} images, {given.dim} features"
    return title, [
        Contender("ours (float32 in)", lambda: four_values(prdc(x, y, k=5, k_precision=5)), {}),
        Contender("prdc, float32 in", lambda: peer_prdc(x, y), close, 2),
        Contender("prdc, float64 in", lambda: peer_prdc(*exact), close, 2),
    ]


def all_part(given: Any) -> tuple[str, list[Contender]]:
    """Each metric from the package that has it; KID of ours is the full statistic, of the peer its subsets."""
    clean, scores = peer("cleanfid.fid"), peer("torch_fidelity.metric_isc")
    precision_recall, torch = peer("torch_fidelity.metric_prc"), import_module("torch")
    peer("prdc")
    x, y = pair(given.images, given.dim)
    logits = 3 * np.random.default_rng(3).standard_normal((given.images, CLASSES), dtype=np.float32)

    def ours() -> Values:
        one, two = (GroupedMoments.from_features(z).statistics()[1:] for z in (x, y))
        found, kernel_distance = prdc_and_kid(x, y, k=5, k_precision=3)
        return {
            "frechet": FrechetReference(*one).distance(*two),
            "kid": kernel_distance.value,
            "is": inception_score(softmax(logits.astype(np.float64), axis=1))[0],
            **four_values(found),
        }

    def frechet() -> Values:
        # What clean-fid does with features.
        statistics = [part for z in (x, y) for part in (np.mean(z, axis=0), np.cov(z, rowvar=False))]
        return {"frechet": float(clean.frechet_distance(*statistics))}

    def score() -> Values:
        return {"is": scores.isc_features_to_metric(torch.from_numpy(logits), splits=1)["inception_score_mean"]}

    def prc() -> Values:
        found = precision_recall.prc_features_to_metric(torch.from_numpy(y), torch.from_numpy(x), verbose=False)
        return {name: found[name] for name in ("precision", "recall")}

    def density() -> Values:
        found = peer_prdc(x, y)
        return {name: found[name] for name in ("density", "coverage")}

    size = min(given.size, given.images)
    spread = kid_subsets(y, x, subsets=min(10, given.subsets), size=size)[1]
    return f"All metrics of {given.images} + {given.images} images with cached features, {given.dim} features", [
        Contender("ours", ours, {}),
        Contender(FRECHET_OF_ALL, frechet, {"frechet": 1e-4}),
        Contender(
            "torch-fidelity: KID",
            lambda: fidelity_kid(y, x, given),
            {"kid": 8 * spread / math.sqrt(given.subsets) + 1e-12},
        ),
        Contender("torch-fidelity: IS", score, {"is": 1e-6}),
        Contender("torch-fidelity: precision, recall", prc, {"precision": 1e-3, "recall": 1e-3}),
        Contender("prdc: density, coverage", density, {"density": 1e-9, "coverage": 1e-9}),
    ]


PARTS: dict[str, Callable[[Any], tuple[str, list[Contender]]]] = {
    "frechet": frechet_part,
    "kid": kid_part,
    "prdc": prdc_part,
    "all": all_part,
}
SUM, SUM_WANTED = "sum of the peers", 4.0
FRECHET_OF_ALL = "clean-fid: Frechet distance"  # what tells the part "all", whose peers share the values out


def moments(x: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance in float64."""
    return x.mean(axis=0, dtype=np.float64), np.cov(x, rowvar=False)


def fidelity_kid(x: NDArray, y: NDArray, given: Any) -> Values:
    """Its mean over subsets, drawn by its own seed, 2020."""
    function, torch = peer("torch_fidelity.metric_kid").kid_features_to_metric, import_module("torch")
    a, b = (torch.from_numpy(z) for z in (x, y))
    size = min(given.size, len(x), len(y))
    found = function(a, b, kid_subsets=given.subsets, kid_subset_size=size, verbose=False)
    return {"kid": found["kernel_inception_distance_mean"]}


def four_values(found: PRDC) -> Values:
    """Without the intervals."""
    return {name: getattr(found, name).value for name in ("precision", "recall", "density", "coverage")}


def peer_prdc(x: NDArray, y: NDArray) -> Values:
    """As the package gives them; it prints its sizes, which do not belong into the table."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        return {name: float(value) for name, value in peer("prdc").compute_prdc(x, y, nearest_k=5).items()}
    finally:
        sys.stdout = stdout


def measure(
    contenders: Sequence[Contender], repeats: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Values]]:
    """Run all in turns; return (wall, CPU) seconds of each round, and how far values were from ours at most.

    Raises:
        RuntimeError: a value is further from ours than allowed.
    """
    times: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in contenders}
    apart: dict[str, Values] = {contender.name: dict.fromkeys(contender.tolerance, 0.0) for contender in contenders}
    for k in range(repeats):
        ours: Values = {}
        for contender in contenders:
            began, began_cpu = time.perf_counter(), time.process_time()
            values = contender.compute()
            times[contender.name].append((time.perf_counter() - began, time.process_time() - began_cpu))
            print(
                f"round {k}, {contender.name}: {times[contender.name][-1][0]:.2f} s, {values}",
                file=sys.stderr,
                flush=True,
            )
            ours = ours or values
            for name, allowed in contender.tolerance.items():
                difference = abs(values[name] - ours[name])
                if not difference <= allowed:
                    raise RuntimeError(
                        f"{contender.name}: {name} is {values[name]}, ours {ours[name]} (allowed: {allowed:.1e})"
                    )
                apart[contender.name][name] = max(difference, apart[contender.name][name])
    return times, apart


def comparisons(
    title: str, contenders: Sequence[Contender], times: dict[str, list[tuple[float, float]]], apart: dict[str, Values]
) -> list[Comparison]:
    """Return a row per contender; where each peer has only some of the values, one of their sum."""
    wall = {name: [seconds[0] for seconds in rounds] for name, rounds in times.items()}
    own, *others = (contender.name for contender in contenders)
    wanted = {contender.name: contender.wanted for contender in contenders}
    if FRECHET_OF_ALL in wall:
        wall[SUM] = np.sum([wall[name] for name in others], axis=0).tolist()
        wanted[SUM], apart = SUM_WANTED, {SUM: {k: v for name in others for k, v in apart[name].items()}}
        others = [SUM]
    return [
        Comparison.of(
            title,
            name,
            wall[own],
            wall[name],
            setting=f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}",
            unchanged=", ".join(f"{metric} {difference:.0e}" for metric, difference in apart[name].items()),
            wanted=wanted[name],
        )
        for name in others
    ]


def report(contenders: Sequence[Contender], times: dict[str, list[tuple[float, float]]]) -> str:
    """Return the table: median seconds, and how many times slower than ours each is within a round (median)."""
    seconds = {name: np.array(rounds) for name, rounds in times.items()}  # (rounds, 2)
    own, *others = (contender.name for contender in contenders)
    wanted = {contender.name: contender.wanted for contender in contenders}
    if FRECHET_OF_ALL in seconds:
        seconds[SUM] = np.sum([seconds[name] for name in others], axis=0)
        wanted[SUM] = SUM_WANTED
    lines = [
        "| | wall seconds | CPU seconds | wall, times ours | CPU, times ours | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in seconds.items():
        ratios = np.median(rounds / seconds[own], axis=0)
        cells = [f"{value:.3g}" for value in (*np.median(rounds, axis=0), *ratios)]
        lines.append(f"| {name} | {' | '.join(cells)} | {f'>= {wanted[name]:g}' if wanted[name] else ''} |")
    return "\n".join(lines)


def measured_memory(given: Any) -> int:
    """Extra memory of prdc, in bytes, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of-prdc", "--images", str(given.images), "--dim", str(given.dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring memory failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return int(done.stdout.split()[-1])


def extra_memory(real: Features, fake: Features) -> int:
    """Peak of this process during prdc above what it holds before, in bytes."""
    prdc(real[:10], fake[:10])  # imports and buffers of the libraries
    before = peak()
    if (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")  # forget the peak of making the features
        before = peak()
    prdc(real, fake)
    return peak() - before


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> str:
    """What the numbers belong to."""
    return f"{platform.system()} {platform.machine()}, numpy {np.__version__}"


if __name__ == "__main__":
    raise SystemExit(run(main))
