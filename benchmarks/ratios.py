"""Every ratio of this project against its reference: runs the benchmarks one after the other and collects one table.

OMP_NUM_THREADS=1 python benchmarks/ratios.py                               # everything, into docs/results/ratios.json; an hour or two
OMP_NUM_THREADS=1 python benchmarks/ratios.py --only langevin,metrics-kid   # some parts, into the same table
python benchmarks/ratios.py --quick                                         # tries every part at its smallest, into results/
python benchmarks/ratios.py --show docs/results/ratios.json                 # the table of a file

Nothing runs beside a part, and nothing else should: its load average at the start stands in the table. A run that was ended keeps the parts
that were done, and the same command goes on with the others; what could not be measured stands in the table with its reason and is tried
again. --fresh measures all of them again.
"""

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from commands import ROOT, CommandError, cores_here, timed
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser
from peers import PEERS

from evaluators.provenance import commit, numerics, package_versions
from evaluators.speed.machine import load, processor
from vaebm.cli import parse, run
from vaebm.errors import UserError, did_you_mean
from vaebm.lock import locked

OUT, QUICK_OUT = ROOT / "docs" / "results" / "ratios.json", ROOT / "results" / "ratios.json"
KIND = "ratios-1"  # of the file
COLUMNS = (
    "what",
    "compared with",
    "ours, s",
    "theirs, s",
    "times faster",
    "wanted",
    "rounds",
    "difference of the numbers",
)


@dataclass(frozen=True)
class Part:
    """A benchmark.

    Attributes:
        command: script and options, without --json.
        quick: options that make it small.
        minutes: it takes on two cores that do nothing else.
    """

    command: str
    quick: str
    minutes: float

    def words(self, quick: bool) -> list[str]:
        """What comes after ``python``."""
        script, *options = shlex.split(self.command)
        return [f"benchmarks/{script}", *options, *(shlex.split(self.quick) if quick else [])]


PARTS = {
    "langevin": Part("langevin.py --batch-size 2 --repeats 6 --memory=", "--config mini --batch-size 1 --repeats 1", 2),
    "langevin-cuda": Part(
        "langevin.py --device cuda --batch-size 64 --repeats 20 --memory=",
        "--config mini --batch-size 1 --repeats 1",
        3,
    ),
    **{
        f"metrics-{part}": Part(
            f"metrics.py --only {part} --repeats {repeats}",
            "--images 300 --kid-images 300 --dim 64 --subsets 3 --size 100 --repeats 1",
            minutes,
        )
        for part, repeats, minutes in (("frechet", 6, 3), ("kid", 3, 5), ("prdc", 3, 6), ("all", 3, 7))
    },
    "extraction": Part("extraction.py", "--images 2 --batch-size 2 --kept-images 100 --repeats 1", 5),
    "extraction-cuda": Part(
        "extraction.py --device cuda --images 1024 --batch-size 64 --kept-images 10000 --threads 0",
        "--images 2 --batch-size 2 --kept-images 100 --repeats 1",
        3,
    ),
    "numerics": Part("numerics.py", "--only layout,noise --images 16 --repeats 1", 15),
    "numerics-cuda": Part(
        "numerics.py --device cuda --images 1000 --threads 0", "--only layout,noise --images 16 --repeats 1", 5
    ),
    "scale-out": Part("scale_out.py --num-images 600 --repeats 3", "--num-images 16 --repeats 1", 10),
    "warm": Part("warm.py --num-images 1200", "--suite ood --systems nvae --num-images 16 --repeats 1", 8),
}


@dataclass(frozen=True)
class Done:
    """A part that was run.

    Attributes:
        command: as typed.
        began: UTC, ISO 8601 to the second.
        load: processes the machine was busy with before, mean of a minute.
        seconds: it took.
        commit: of the checkout.
        rows: what it found.
        reason: why there are none, or what is wrong with them.
    """

    command: str
    began: str
    load: float | None
    seconds: float
    commit: str
    rows: tuple[Comparison, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Ratios:
    """What a file holds: parts by name, all of one machine."""

    machine: dict[str, Any]
    parts: dict[str, Done] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    options = ArgumentParser(prog="ratios.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--only", type=str, default="", help=f"parts with commas, of {', '.join(PARTS)}")
    options.add_argument("--quick", action="store_true", help="every part at its smallest: to see that it runs")
    options.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    options.add_argument("--out", type=Path, default=None, help="file to write (default: docs/results/ratios.json)")
    options.add_argument("--show", type=Path, default=None, metavar="FILE", help="print the table of a file and stop")
    given = parse(options, arguments)
    if given.show is not None:
        print(report(read(given.show)))
        return 0
    chosen = chosen_parts(given.only)
    out = given.out or (QUICK_OUT if given.quick else OUT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of every part
    with locked(out.parent, "--out"):
        found = begin(out, machine(), chosen if given.fresh else [])
        todo = [name for name in chosen if not is_done(found, name, PARTS[name].words(given.quick))]
        minutes = sum(PARTS[name].minutes for name in todo)
        print(
            f"{len(todo)} of {len(chosen)} parts to measure"
            + ("" if given.quick else f", about {minutes:.0f} minutes")
            + f": {', '.join(todo) or 'none; --fresh measures again'}",
            file=sys.stderr,
        )
        for name in todo:
            found.parts[name] = measure(name, PARTS[name].words(given.quick))
            write_json(out, as_document(found))
    print(report(read(out)))
    return 0


def chosen_parts(only: str) -> list[str]:
    """Return the parts that ``--only`` names, each by its name or by what stands before the dash; all where it names none.

    Raises:
        UserError: there is none of that name.
    """
    words = [word for word in only.split(",") if word]
    for word in words:
        if not any(word in (name, name.split("-")[0]) for name in PARTS):
            raise UserError(f"--only {word}: unknown.{did_you_mean(word, PARTS)}")
    return [name for name in PARTS if not words or name in words or name.split("-")[0] in words]


def begin(out: Path, here: dict[str, Any], again: Sequence[str]) -> Ratios:
    """Return what the file holds but the parts to be measured again; nothing where there is no file.

    Raises:
        UserError: it was measured elsewhere, or is another file.
    """
    if not out.exists():
        return Ratios(here)
    found = read(out)
    kept = {name: done for name, done in found.parts.items() if name not in again}
    differing = [key for key in here.keys() | found.machine.keys() if here.get(key) != found.machine.get(key)]
    if kept and differing:
        key = min(differing)
        raise UserError(
            f"--out {out}: was measured with {key} {found.machine.get(key)}, here it is {here.get(key)}; "
            "choose another file, or measure all parts with --fresh"
        )
    return Ratios(here, kept)


def is_done(found: Ratios, name: str, words: Sequence[str]) -> bool:
    """Whether a part has been measured by this very command."""
    done = found.parts.get(name)
    return done is not None and not done.reason and done.command == shlex.join(["python", *words])


def measure(name: str, words: Sequence[str]) -> Done:
    """Run a part; where it fails, keep why."""
    busy, began = load(), time.perf_counter()
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = shlex.join(["python", *words])
    print(f"--- {name}: {command} (load {busy:.1f})", file=sys.stderr, flush=True)
    rows: tuple[Comparison, ...] = ()
    reason = ""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        try:
            timed([sys.executable, *words, "--json", str(file)])
        except CommandError as error:
            reason = error.reason
        try:  # one whose numbers disagree has written them all the same
            rows = tuple(Comparison(**row) for row in json.loads(file.read_text(encoding="utf-8"))["comparisons"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = reason or f"wrote no ratios ({type(error).__name__})"
    if reason:
        print(f"--- {name}: failed: {reason}", file=sys.stderr, flush=True)
    seconds = round(time.perf_counter() - began, 1)
    loaded = None if math.isnan(busy) else round(busy, 2)
    return Done(command, when, loaded, seconds, commit(ROOT), rows, " ".join(reason.split()))


def machine() -> dict[str, Any]:
    """Return what the seconds belong to: kind of machine, versions, threads."""
    versions = {}
    for package in PEERS.values():
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    arithmetic = {key: value for key, value in numerics().items() if key not in ("torch", "gpu")}
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": len(cores_here()) or os.cpu_count(),
        "gpu": gpu(),
        "python": platform.python_version(),
        **package_versions(),
        **versions,
        **arithmetic,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
    }


def gpu() -> str:
    """Return what the GPUs are called, without taking any of their memory; empty where there is none."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(sorted({line.strip() for line in found.splitlines() if line.strip()}))


def as_document(found: Ratios) -> dict[str, Any]:
    """Return what is written: parts in the order of :data:`PARTS`."""
    names = [name for name in PARTS if name in found.parts] + [name for name in found.parts if name not in PARTS]
    return {"kind": KIND, "machine": found.machine, "parts": {name: asdict(found.parts[name]) for name in names}}


def read(path: Path) -> Ratios:
    """Read a file of ratios.

    Raises:
        UserError: it is not there, or is none.
    """
    try:
        return from_document(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: needed a file that benchmarks/ratios.py wrote; found another") from None


def is_one(path: Path) -> bool:
    """Whether a file says that it is one of ratios."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and str(document.get("kind", "")).startswith("ratios-")


def from_document(document: Mapping[str, Any]) -> Ratios:
    """Return what a file holds. Raises: ValueError, KeyError or TypeError where it is another file."""
    if document["kind"] != KIND:
        raise ValueError(document["kind"])
    parts = {name: Done(**part) for name, part in document["parts"].items()}
    whole = lambda done: replace(done, rows=tuple(Comparison(**row) for row in done.rows))
    return Ratios(dict(document["machine"]), {name: whole(done) for name, done in parts.items()})


def report(found: Ratios) -> str:
    """Return the table, and below it what machine and which commands it was made with."""
    lines = [as_row(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for name, done in found.parts.items():
        lines += [as_row(cells(row)) for row in done.rows]
        if done.reason:
            lines.append(as_row([name, "", "", "", "failed" if done.rows else "not measured", "", "", done.reason]))
    hidden = ("system", "processor", "cores", "gpu")
    about = ", ".join(f"{key} {value}" for key, value in found.machine.items() if key not in hidden and value != "")
    lines += [
        "",
        "Times faster: wall seconds of the reference divided by ours within a round, median over rounds "
        "[interval of the median: 95 % from six rounds on, else least to most].",
        "",
        f"Machine: {found.machine.get('processor')}, {found.machine.get('cores')} cores, "
        f"{found.machine.get('gpu') or 'no GPU'}, {found.machine.get('system')}; {about}.",
        "",
    ]
    for name, done in found.parts.items():
        busy = "unknown" if done.load is None else f"{done.load:.1f}"
        settings = "; ".join(dict.fromkeys(row.setting for row in done.rows if row.setting))
        lines.append(
            f"- {name}: `{done.command}` in {done.seconds:.0f} s on {done.began[:10]} at {done.began[11:16]} UTC, load "
            f"average before it {busy}, commit `{done.commit[:12] or 'unknown'}`"
            + (f": {settings}." if settings else ".")
        )
    return "\n".join(lines)


def cells(row: Comparison) -> Iterator[str]:
    """Yield what stands in a row of the table."""
    yield from (row.what, row.against)
    if row.ratio is None:
        yield from ("", "", "not measured", "", "", row.reason)
        return
    ends = "" if row.low is None else f" [{row.low:.3g}, {row.high:.3g}]"
    yield from (f"{row.ours:.3g}", f"{row.reference:.3g}", f"{row.ratio:.3g}{ends}")
    yield from (f">= {row.wanted:g}" if row.wanted else "", str(row.rounds), row.unchanged)


def as_row(words: Sequence[str] | Iterator[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(word.replace('|', '/') for word in words)} |"


if __name__ == "__main__":
    raise SystemExit(run(main))
