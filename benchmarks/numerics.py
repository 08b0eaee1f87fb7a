"""What every option of arithmetic and batch size gains and what it does to the numbers, on this machine, in one run.

OMP_NUM_THREADS=1 python benchmarks/numerics.py                     # every option; minutes, most of them torch.compile's
OMP_NUM_THREADS=1 python benchmarks/numerics.py --only noise,layout
python benchmarks/numerics.py --device cuda --images 1000 --threads 0

Rounds with and without the option are interleaved. The number beside the seconds is AUROC of CIFAR-10 against SVHN for scores and the
Frechet distance in the bundled classifier's features for samples, both of the same images or seeds, each with its 95 % interval: the run
fails where the option brings one out of the interval of the other. A dtype that one pass shows to be slower than float32 is measured all
the same, on fewer images.
"""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser, Namespace

from baselines import numerics
from baselines.load import load_system
from evaluators.features import load_extractor
from evaluators.features.references import bundled_reference
from evaluators.features.summary import summarise
from evaluators.metrics.auroc import auroc_interval
from evaluators.metrics.frechet import FrechetReference, frechet_estimate
from evaluators.metrics.intervals import Estimate
from evaluators.protocols import Images
from vaebm import model as vaebm_model
from vaebm.cli import parse, run, use_device
from vaebm.data import load_images
from vaebm.errors import UserError
from vaebm.noise import ahead, normal
from vaebm.nvae import NVAEConfig

EXTRACTOR = "cifar10net"
PATIENCE = 3.0  # times slower than float32 that a dtype may be and still get all images
FEW = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per option; fail where an option changes a number beyond its interval."""
    options = ArgumentParser(prog="numerics.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--only", type=str, default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    options.add_argument("--images", type=int, default=96, help="of either set for scores, and samples")
    options.add_argument("--repeats", type=int, default=6, help="rounds, after one that warms up")
    options.add_argument("--device", type=str, default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    given = parse(options, arguments)
    chosen = [part for part in given.only.split(",") if part]
    if unknown := [part for part in chosen if part not in PARTS]:
        raise UserError(f"--only {unknown[0]}: needed some of {', '.join(PARTS)}")
    if given.images < FEW or given.repeats < 1:
        raise UserError(f"--images {given.images}, --repeats {given.repeats}: needed at least {FEW} and 1")
    use_device(given.device, given.threads)
    rows, moved = [], []
    for part in chosen:
        for row, holds in PARTS[part](given):
            rows.append(row)
            moved += [] if holds else [row.what]
            print(as_line(row), flush=True)
    if given.json is not None:
        write_json(given.json, {"comparisons": [row.to_json() for row in rows]})
    if moved:
        print(f"changed beyond their intervals: {'; '.join(moved)}", file=sys.stderr)
    return 1 if moved else 0


def as_line(row: Comparison) -> str:
    """Return a row for a terminal."""
    if row.ratio is None:
        return f"{row.what}: {row.reason}"
    interval = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
    seconds = f"{row.reference:.3g} -> {row.ours:.3g} s"
    return f"{row.what}: {seconds}, {row.ratio:.2f} times faster{interval}; {row.unchanged} ({row.setting})"


# What is compared


Row = tuple[Comparison, bool]


@dataclass(frozen=True)
class Way:
    """One way to compute something: ``once`` returns it, ``metric`` is its number."""

    once: Callable[[], Any]
    metric: Callable[[Any], Estimate]


def compared(what: str, against: str, name: str, before: Way, after: Way, given: Namespace, setting: str) -> Row:
    """Time the two in turns after one of each that warms up, which gives their numbers."""
    metrics = before.metric(before.once()), after.metric(after.once())
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(given.repeats):
        for way, found in zip((before, after), seconds, strict=True):
            began = time.perf_counter()
            way.once()
            if given.device != "cpu":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - began)
    old, new = metrics
    within = old.low <= new.value <= old.high and new.low <= old.value <= new.high
    unchanged = f"{name} {as_text(old)} -> {as_text(new)}"
    about = f"{setting}, {given.device}, {torch.get_num_threads()} threads"
    return Comparison.of(what, against, seconds[1], seconds[0], setting=about, unchanged=unchanged), within


def as_text(found: Estimate) -> str:
    """Return a value with its interval."""
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def scoring(system: Any, n: int) -> Way:
    """Score ``n`` CIFAR-10 and ``n`` SVHN images."""
    sets = [load_images(name, n=n).images for name in ("cifar10", "svhn")]
    return Way(lambda: [system.score(images) for images in sets], lambda scores: auroc_interval(*scores))


def sampling(system: Any, n: int) -> Way:
    """Draw ``n`` images."""
    return Way(lambda: system.sample(range(n)), distance)


@cache
def reference() -> tuple[Any, FrechetReference]:
    """The bundled classifier, and its features of CIFAR-10."""
    extractor = load_extractor(EXTRACTOR)
    found = bundled_reference(extractor, "cifar10", "train")
    if found is None:
        raise UserError(f"features of {EXTRACTOR}: no bundled statistics of cifar10 train")
    return extractor, FrechetReference(*found.moments.statistics()[1:])


def distance(images: Images) -> Estimate:
    """Frechet distance of images to CIFAR-10 in the classifier's features."""
    extractor, known = reference()
    return frechet_estimate(summarise(images, extractor).moments, known)


# The options


def dtypes(given: Namespace) -> Iterator[Row]:
    """Scores and samples of the bundled VAEBM in each dtype that the device computes in."""
    plain = load_system("vaebm", device=given.device)
    for dtype in numerics.DTYPES[1:]:
        try:
            lower = load_system("vaebm", device=given.device, dtype=dtype)
        except UserError as error:
            yield Comparison.missing(f"--dtype {dtype}", "float32", str(error)), True
            continue
        slower = seconds_of(lambda lower=lower: lower.sample(range(16))) / seconds_of(lambda: plain.sample(range(16)))
        n = given.images if slower <= PATIENCE else FEW
        rounds = given if slower <= PATIENCE else Namespace(**{**given.as_dict(), "repeats": 1})
        said = f"{n} images" if slower <= PATIENCE else f"{n} images and 1 round, since this device only emulates it"
        for what, way, metric in (("scores", scoring, "AUROC"), ("samples", sampling, f"fd_{EXTRACTOR}")):
            row = f"--dtype {dtype}: {what} of the bundled vaebm"
            yield compared(row, "float32", metric, way(plain, n), way(lower, n), rounds, said)


def seconds_of(once: Callable[[], Any]) -> float:
    """Seconds of a second call."""
    once()
    began = time.perf_counter()
    once()
    return time.perf_counter() - began


def compile_(given: Namespace) -> Iterator[Row]:
    """Scores through compiled networks."""
    for name in ("vaebm", "jem"):
        plain = load_system(name, device=given.device)
        try:
            fast = load_system(name, device=given.device, compile=True)
        except UserError as error:
            yield Comparison.missing(f"--compile: scores of the bundled {name}", "not compiled", str(error)), True
            continue
        began = time.perf_counter()
        before, after = scoring(plain, given.images), scoring(fast, given.images)
        after.once()
        setting = f"2 x {given.images} images, first call {time.perf_counter() - began:.0f} s"
        what = f"--compile: scores of the bundled {name}"
        yield compared(what, "not compiled", "AUROC", before, after, given, setting)


def layout(given: Namespace) -> Iterator[Row]:
    """Features with the network and its images in channels-last order, as they are on CPUs, and in torch's own order."""
    last = load_extractor(EXTRACTOR, device=given.device)
    first = copy.copy(last)
    first.network = copy.deepcopy(last.network).to(memory_format=torch.contiguous_format)  # type: ignore[attr-defined]
    first.layout = torch.contiguous_format  # type: ignore[attr-defined]
    last.layout = torch.channels_last  # type: ignore[attr-defined]
    last.network.to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    images, known = load_images("cifar10", n=4 * given.images).images, reference()[1]
    ways = [
        Way(
            lambda extractor=extractor: summarise(images, extractor),
            lambda found: frechet_estimate(found.moments, known),
        )
        for extractor in (first, last)
    ]
    what, setting = f"channels-last: features of {EXTRACTOR}", f"{len(images)} images, batch {last.batch_size}"  # type: ignore[attr-defined]
    yield compared(what, "channels first", f"fd_{EXTRACTOR}", *ways, given, setting)


def batch_size(given: Namespace) -> Iterator[Row]:
    """Scores with the batch size that is chosen, and with the usual one."""
    auto, plain = (load_system("vaebm", device=given.device, batch_size=size) for size in ("auto", 100))
    before, after = scoring(plain, given.images), scoring(auto, given.images)
    after.once()
    setting = f"2 x {given.images} images, chosen {auto.batch_size}"
    what = "--batch-size auto: scores of the bundled vaebm"
    yield compared(what, "100", "AUROC", before, after, given, setting)


def sample_batch(given: Namespace) -> Iterator[Row]:
    """Samples with as many images together as fit."""
    for name in ("pixelcnn", "vaebm"):
        plain, many = load_system(name, device=given.device), load_system(name, device=given.device)
        numerics.apply(many, sample_batch="auto")
        n = -(-given.images // many.sample_batch) * many.sample_batch
        what = f"--sample-batch auto: samples of the bundled {name}"
        ways = sampling(plain, n), sampling(many, n)
        setting = f"{n} images, chosen {many.sample_batch}"
        yield compared(what, f"{plain.sample_batch} together", f"fd_{EXTRACTOR}", *ways, given, setting)


def noise(given: Namespace) -> Iterator[Row]:
    """Chains whose next noise is drawn while the network computes."""
    system = load_system("vaebm", device=given.device)

    def in_turn() -> Images:
        with mock.patch.object(vaebm_model, "ahead", lambda draw, steps: nullcontext(draw)):
            return system.sample(range(given.images))

    what = "noise drawn ahead: samples of the bundled vaebm"
    before = Way(in_turn, distance)
    yield compared(
        what,
        "drawn in turn",
        f"fd_{EXTRACTOR}",
        before,
        sampling(system, given.images),
        given,
        f"{given.images} images",
    )
    yield paper_noise(given)


def paper_noise(given: Namespace) -> Row:
    """A chain of 50 images with the noise of the published CIFAR-10 setting, whose step leaves the CPU idle for 0.1 s, as a GPU does."""
    shapes, seeds, steps = [(3, 32, 32), *NVAEConfig().latent_shapes], range(50), 4
    draw = lambda k: [normal(0, seeds, f"langevin.{k}.{i}", shape) for i, shape in enumerate(shapes)]

    @contextmanager
    def in_turn(draw: Any, steps: int) -> Iterator[Any]:
        yield draw

    def chain(how: Any) -> float:
        with how(draw, steps) as noise:
            total = 0.0
            for k in range(steps):
                time.sleep(0.1)
                total += float(sum(part.sum() for part in noise(k)))
        return total

    same = lambda total: Estimate(total, total, total)
    row, holds = compared(
        "noise drawn ahead: the noise of the published VAEBM, network replaced by a pause",
        "drawn in turn",
        "sum of all noise",
        Way(lambda: chain(in_turn), same),
        Way(lambda: chain(ahead), same),
        given,
        f"50 chains, {steps} steps of 0.1 s, a simulation",
    )
    return replace(row, unchanged="the same noise"), holds


PARTS: dict[str, Callable[[Namespace], Iterator[Row]]] = {
    "dtype": dtypes,
    "compile": compile_,
    "layout": layout,
    "batch-size": batch_size,
    "sample-batch": sample_batch,
    "noise": noise,
}


if __name__ == "__main__":
    raise SystemExit(run(main))
