"""Kill a run again and again, repeat its command each time, and see whether anything is lost, different or computed twice.

python benchmarks/kills.py                                                              # 20 kills of a sampling-and-scoring run
python benchmarks/kills.py --kills 3 --suite ood --systems nvae --num-images 16 --json kills.json

The run is made once undisturbed. Then it is started in new folders and killed (SIGKILL to all its processes) after a random time between
nothing and what the undisturbed run took, as often as asked; after each kill the same command follows in the same folders. Where a run
ends before its kill it is compared, and the next one starts in new folders. At the end the last one is left alone.

Compared are the result files of all suites, in everything but times: every value, interval, number of images, protocol, hash. Chunks that
are computed are counted by a hook in the array store; what was complete when a run was killed must not be computed by a later one.
"""

import hashlib
import json
import os
import platform
import random
import re
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonargparse import ArgumentParser
from tabulate import tabulate

from vaebm.atomic import write_atomically
from vaebm.cli import parse, run
from vaebm.errors import UserError

ROOT = Path(__file__).parents[1]
LOG = "VAEBM_COUNTED"  # names the file that the hook writes to
# What is never the same twice: when, how long, and in which folders.
TIMES = ("created", "checksum", "command", "seconds", "seconds_per_image")

Rows = dict[str, set[int]]  # of each key of the store


@dataclass
class Attempt:
    """One start of the command.

    Attributes:
        life: number of the folders it worked in.
        killed_after: seconds after its start; None for one that was left to end.
        found_doing: what it was doing when it was killed, or "ended".
        found: rows that were complete in the store when it started.
        made: rows that it computed and that were complete when it ended.
        lost: rows that it was computing when it was killed.
        repeated: rows that it computed although they were complete when it started.
    """

    life: int
    killed_after: float | None
    found_doing: str
    found: int
    made: int
    lost: int
    repeated: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per attempt; return 1 if anything was lost, different or computed twice."""
    options = ArgumentParser(prog="kills.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--suite", type=str, default="ood,generation")
    options.add_argument("--systems", type=str, default="vaebm,nvae")
    options.add_argument("--num-images", type=int, default=300)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    given = parse(options, arguments)
    if given.kills < 1:
        raise UserError(f"--kills {given.kills}: needed at least 1")
    command = ["--suite", given.suite, "--systems", given.systems, "--num-images", str(given.num_images)]
    with TemporaryDirectory() as folder:
        record = kill_again_and_again([*command, "--offline", "--threads", "1"], given.kills, given.seed, Path(folder))
    print(report(record))
    if given.json is not None:
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(given.json, lambda partial: partial.write_text(text))
    return 0 if not record["differences"] and not record["repeated_rows"] else 1


def kill_again_and_again(command: Sequence[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run ``benchmark.py`` with these options as the module says; return what happened, ready for JSON.

    Args:
        folder: an empty one, for everything.
    """
    began = time.monotonic()
    undisturbed, _ = attempt(command, folder / "undisturbed", 0, None, {})
    seconds = time.monotonic() - began
    expected = results(folder / "undisturbed")
    moments = random.Random(seed)
    attempts, differences = [undisturbed], list[str]()
    life, complete, left = 1, Rows(), kills
    while left:
        made, complete = attempt(command, folder / str(life), life, moments.uniform(0, seconds), complete)
        attempts.append(made)
        if made.killed_after is not None:
            left -= 1
        else:
            differences += compare(expected, results(folder / str(life)))
            life, complete = life + 1, Rows()
    made, _ = attempt(command, folder / str(life), life, None, complete)
    attempts.append(made)
    differences += compare(expected, results(folder / str(life)))
    return {
        "command": " ".join(["benchmark.py", *command]),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "seed": seed,
        "kills": kills,
        "lives": life,
        "seconds_undisturbed": round(seconds, 1),
        "rows": undisturbed.made,
        "measurements": sum(len(document["measurements"]) for document in expected.values()),
        "kills_by_phase": dict(Counter(one.found_doing for one in attempts if one.killed_after is not None)),
        "repeated_rows": sum(one.repeated for one in attempts),
        "lost_rows": sum(one.lost for one in attempts),
        "differences": differences,
        "attempts": [asdict(one) for one in attempts],
    }


def attempt(
    command: Sequence[str], folder: Path, life: int, moment: float | None, complete: Rows
) -> tuple[Attempt, Rows]:
    """Start the command in the folder and kill it at the moment, if it has not ended; return what happened, and what the store has then."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "computed.log"
    log.write_text("")
    told = folder / "told.txt"
    with told.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, __file__, *command, "--cache", folder / "cache", "--out", folder / "out"],
            env={**os.environ, LOG: str(log)},
            cwd=ROOT,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        began = time.monotonic()
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            after = time.monotonic() - began
        else:
            after = None
            if process.returncode:
                raise RuntimeError(f"the command ended with {process.returncode}: {told.read_text()[-2000:]}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    begun, doing = Rows(), "starting"
    for line in log.read_text().splitlines():
        what, *about = line.split("\t")
        if what == "computes":
            key, start, stop, label = about
            begun.setdefault(key, set()).update(range(int(start), int(stop)))
            doing = f"computing {label}"
        elif what == "computed":
            doing = "keeping, or between two"
        else:
            doing = f"writing {about[0]}"
    now = in_store(folder / "cache")
    both = lambda one, other: sum(len(rows & other.get(key, set())) for key, rows in one.items())
    count = lambda rows: sum(map(len, rows.values()))
    made = both(begun, now)
    return (
        Attempt(
            life,
            None if after is None else round(after, 1),
            "ended" if after is None else doing,
            found=count(complete),
            made=made,
            lost=count(begun) - made,
            repeated=both(begun, complete),
        ),
        now,
    )


def in_store(cache: Path) -> Rows:
    """Return which rows of which keys are complete: described, with all their files."""
    rows = Rows()
    for described in cache.rglob("*-*.json"):
        if span := re.fullmatch(r"(\d+)-(\d+)\.json", described.name):
            files = [about["file"] for about in json.loads(described.read_text())["arrays"].values()]
            if all((described.parent / file).is_file() for file in files):
                rows.setdefault(described.parent.name, set()).update(range(int(span[1]), int(span[2])))
    return rows


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the result files of a run by name, without times."""
    found = {}
    for path in sorted((folder / "out").glob("*.json")):
        document = json.loads(path.read_text())
        if "measurements" in document:
            found[path.name] = without_times(document)
    return found


def without_times(value: Any) -> Any:
    """Return a part of a JSON document without what is never the same twice."""
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def compare(expected: Any, found: Any, place: str = "") -> list[str]:
    """Return where two parts of JSON documents differ; numbers to the last bit."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = dict.fromkeys([*expected, *found])
        return [said for name in names for said in compare(expected.get(name), found.get(name), f"{place}.{name}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [said for i, pair in pairs for said in compare(*pair, f"{place}[{i}]")]
    return [] if expected == found else [f"{place}: {expected!r} undisturbed, {found!r} after kills"]


def report(record: dict[str, Any]) -> str:
    """Return the attempts as a table and what they prove in a line."""
    names = list(record["attempts"][0])
    table = tabulate(
        [[("-" if one[name] is None else one[name]) for name in names] for one in record["attempts"]],
        [name.replace("_", " ") for name in names],
    )
    verdict = (
        f"{record['kills']} kills in {record['lives']} runs of {record['seconds_undisturbed']:.0f} s: "
        f"{len(record['differences'])} differences in {record['measurements']} measurements; "
        f"{record['repeated_rows']} complete rows computed again, {record['lost_rows']} lost in the middle of {record['rows']} a run"
    )
    return "\n".join([table, *record["differences"][:20], verdict])


# In the process that is killed


def counted(log: Path) -> None:
    """Be ``benchmark.py``, with a note in ``log`` of every chunk that is computed and every result file that is written."""
    sys.path[0] = str(ROOT)
    import evaluators.array_store as store
    from evaluators import result_file

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    note = lambda *parts: os.write(descriptor, ("\t".join(map(str, parts)) + "\n").encode())
    compute, write = store.ArrayStore.compute, result_file.write_results

    def noted(self: Any, key: Any, total: int, function: Any, *more: Any, **how: Any) -> Any:
        name = hashlib.sha256(store._text(key).encode()).hexdigest()

        def one(start: int, stop: int) -> Any:
            note("computes", name, start, stop, how.get("label", "arrays"))
            made = function(start, stop)
            note("computed")
            return made

        return compute(self, key, total, one, *more, **how)

    def written(results: Any, path: Path) -> None:
        note("writes", path.stem)
        write(results, path)

    store.ArrayStore.compute, result_file.write_results = noted, written  # type: ignore[method-assign]
    sys.argv[0] = "benchmark.py"
    runpy.run_path(str(ROOT / "benchmark.py"), run_name="__main__")


if __name__ == "__main__":
    if LOG not in os.environ:
        raise SystemExit(run(main))
    counted(Path(os.environ[LOG]))
