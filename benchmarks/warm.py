"""A run with an empty cache against the same command again: wall time, suite by suite.

python benchmarks/warm.py                                                  # all suites, bundled systems
python benchmarks/warm.py --suite ood --systems nvae --num-images 100      # smaller: start-up weighs more

The run fails unless both give the same rows, but for the seconds in them.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from commands import timed
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser
from scale_out import rows_of

from evaluators.result_file import find_results, read_results
from vaebm.cli import parse, run
from vaebm.errors import UserError

COLD, WARM = "cold", "warm"
WANTED = 10.0  # times faster
WHOLE = "whole command"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ratio; fail when rows differ."""
    options = ArgumentParser(prog="warm.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--suite", type=str, default="all")
    options.add_argument("--systems", type=str, default="vaebm,nvae")
    options.add_argument("--num-images", type=int, default=2000, help="per set or system")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    given = parse(options, arguments)
    if given.num_images < 1 or given.repeats < 1:
        raise UserError("--num-images, --repeats: needed at least 1 of each")
    about = ["--suite", given.suite, "--systems", given.systems, "--num-images", str(given.num_images)]
    about += ["--threads", str(given.threads), "--offline", "--no-progress"]
    seconds: dict[str, list[dict[str, float]]] = {COLD: [], WARM: []}
    for k in range(given.repeats):
        with TemporaryDirectory() as folder:
            place, rows = Path(folder), {}
            places = ["--out", str(place / "out"), "--cache", str(place / "cache")]
            for which in (COLD, WARM):
                took = timed([sys.executable, "benchmark.py", *about, *places])
                seconds[which].append({WHOLE: took, **seconds_of_suites(place / "out")})
                rows[which] = rows_of(place)
                print(f"round {k}, {which}: {seconds[which][-1]}", file=sys.stderr, flush=True)
            if differing := [name for name in rows[COLD] if rows[COLD][name] != rows[WARM].get(name)]:
                raise RuntimeError(f"{len(differing)} rows are not the same again: {', '.join(differing[:3])}")
            count = len(rows[COLD])
    found = comparisons(" ".join(about), seconds, count)
    for row in found:
        print(f"{row.what}: warm {row.ours:.3g} s, cold {row.reference:.3g} s: {row.ratio:.3g} times faster")
    if given.json is not None:
        write_json(given.json, {"comparisons": [row.to_json() for row in found[:1]], "seconds": seconds})
    return 0


def seconds_of_suites(out: Path) -> dict[str, float]:
    """Return how long each suite measured, as its result file says: without start-up, tables and plots."""
    return {path.stem: max(0.1, read_results(path).seconds) for path in find_results([out])}


def comparisons(options: str, seconds: Mapping[str, Sequence[Mapping[str, float]]], count: int) -> list[Comparison]:
    """Return the ratio of the whole command, then those of its suites."""
    return [
        Comparison.of(
            "Warm rerun" if what == WHOLE else f"Warm rerun, measuring {what}",
            "empty cache",
            *([run[what] for run in seconds[which]] for which in (WARM, COLD)),
            setting=options,
            unchanged=f"all {count} rows the same",
            wanted=WANTED if what == WHOLE else 0.0,
        )
        for what in seconds[COLD][0]
    ]


if __name__ == "__main__":
    raise SystemExit(run(main))
