"""Two processes on two cores against one process on one core: wall time of sampling and scoring, and whether anything else differs.

python benchmarks/scale_out.py                                     # 1,000 images of the bundled systems, about four minutes a round
python benchmarks/scale_out.py --num-images 200 --repeats 1        # smaller: start-up weighs more

A round runs `benchmark.py` four times, each way with an empty cache and then again with what that kept. Both ways start up, read images,
compute metrics and write tables in either run; only the first samples, scores and extracts features. So the difference of the two is the
time of these. The rounds alternate which way comes first. The run fails unless samples, scores and features are the same bytes and all
rows of the result files are the same, but for the seconds in them.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from commands import cores_here, timed
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser

from evaluators.result_file import find_results, read_results
from vaebm.cli import parse, run
from vaebm.errors import UserError

ONE, MANY = "one process", "several"
WANTED = 0.9  # of the number of processes, times faster at sampling and scoring
# One thread each, whatever the machine would choose.
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both ratios; fail when anything but seconds differs."""
    options = ArgumentParser(prog="scale_out.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--suite", type=str, default="ood,generation")
    options.add_argument("--systems", type=str, default="vaebm,nvae")
    options.add_argument("--num-images", type=int, default=1000, help="per system and set")
    options.add_argument("--processes", type=int, default=2, help="and as many cores, each with one thread")
    options.add_argument("--repeats", type=int, default=6)
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    given = parse(options, arguments)
    if given.num_images < 1 or given.repeats < 1 or given.processes < 2:
        raise UserError("--num-images, --repeats, --processes: needed at least 1, 1 and 2")
    cores = cores_here()
    if len(cores) < given.processes:
        raise UserError(f"--processes {given.processes}: found {len(cores)} cores to choose from, needed one each")
    seconds: dict[str, list[dict[str, float]]] = {ONE: [], MANY: []}
    for k in range(given.repeats):
        with TemporaryDirectory() as folder:
            for way in (ONE, MANY)[:: 1 if k % 2 == 0 else -1]:
                seconds[way].append(cold_and_warm(way, given, Path(folder) / way.replace(" ", "_"), cores))
                print(f"round {k}, {way}: {seconds[way][-1]}", file=sys.stderr, flush=True)
            places = [Path(folder) / way.replace(" ", "_") for way in (ONE, MANY)]
            if differences := compare(*places):
                raise RuntimeError(f"{given.processes} processes do not give what one gives: {'; '.join(differences)}")
            same = what_is_the_same(places[0])
    rows = comparisons(given, seconds, same)
    for row in rows:
        print(
            f"{row.what}: {row.ours:.3g} s, {row.against} {row.reference:.3g} s: {row.ratio:.3g} times faster "
            f"(wanted >= {row.wanted:g}) in {row.rounds} rounds; {row.unchanged} ({row.setting})"
        )
    if given.json is not None:
        write_json(given.json, {"comparisons": [row.to_json() for row in rows], "seconds": seconds})
    return 0


def cold_and_warm(way: str, given: Any, place: Path, cores: Sequence[int]) -> dict[str, float]:
    """Run ``benchmark.py`` with an empty cache and again; return the wall seconds of both."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(given.processes)]
    about = ["--suite", given.suite, "--systems", given.systems, "--num-images", str(given.num_images)]
    fixed = [
        "--threads",
        "1",
        "--offline",
        "--no-progress",
        "--out",
        str(place / "out"),
        "--cache",
        str(place / "cache"),
    ]
    command = [sys.executable, *(many if way == MANY else []), "benchmark.py", *about, *fixed]
    used = cores[:1] if way == ONE else cores[: given.processes]
    return {which: timed(command, ENVIRONMENT, used) for which in ("cold", "warm")}


def compare(one: Path, other: Path) -> list[str]:
    """Return in words what of two runs differs that must not, a few of each kind: kept arrays and rows of results."""
    found = []
    for what, read in (("kept arrays", arrays), ("rows of results", rows_of)):
        a, b = read(one), read(other)
        differing = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
        if differing:
            found.append(f"{len(differing)} of {len(a)} {what}, {', '.join(differing[:3])}")
    return found


def arrays(place: Path) -> dict[str, str]:
    """Return the sha256 of every array that a run kept, by the path in its cache; but of the seconds that samples took."""
    files = [path for path in sorted((place / "cache").rglob("*.npy")) if "-seconds-" not in path.name]
    return {
        path.relative_to(place / "cache").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def rows_of(place: Path) -> dict[str, Any]:
    """Return the rows of a run's result files by suite and number, without the seconds that were measured along."""
    found: dict[str, Any] = {}
    for path in find_results([place / "out"]):
        for i, row in enumerate(read_results(path).rows):
            name = f"{path.stem} {i} ({row.system}, {row.dataset}, {row.metric}{row.variant and f', {row.variant}'})"
            found[name] = row.to_json() | {"protocol": row.settings}
    return found


def what_is_the_same(place: Path) -> str:
    """Say how much was compared."""
    kinds = [name.partition("/")[0] for name in arrays(place)]
    counted = ", ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    return f"all bytes the same ({counted}) and all {len(rows_of(place))} rows"


def comparisons(given: Any, seconds: Mapping[str, Sequence[Mapping[str, float]]], same: str) -> list[Comparison]:
    """Return both ratios: of sampling and scoring, and of the whole run."""
    setting = (
        f"--suite {given.suite} --systems {given.systems} --num-images {given.num_images}, one thread per process, "
        f"{given.processes} processes on {given.processes} cores against one on one"
    )
    clocks = {
        "Sampling and scoring": (lambda run: run["cold"] - run["warm"], WANTED * given.processes),
        "The same with start-up, metrics and tables": (lambda run: run["cold"], 0.0),
    }
    about = {"setting": setting, "unchanged": same}
    return [
        Comparison.of(
            f"{what}, {given.processes} processes", ONE, *([clock(run) for run in seconds[way]] for way in (MANY, ONE)),
            wanted=wanted, **about,
        )
        for what, (clock, wanted) in clocks.items()
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run(main))
