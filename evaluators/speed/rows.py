"""From times to rows: medians over rounds with intervals, ratios within rounds, what the first round counted."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.measurement import Measurement
from evaluators.speed.machine import arithmetic, machine
from evaluators.speed.order_statistics import CONFIDENCE, median_of
from evaluators.speed.rounds import Timed
from evaluators.speed.run import Taken
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench

SUITE = "speed"
DATASET = "cifar10"
PAPER_IMAGES = 50  # that the paper's seconds are for
METRICS = (
    "seconds_per_50_images",
    "seconds_per_image",
    "network_evaluations",
    "gradient_evaluations",
    "peak_memory_gib",
)
RANDOM = "weights are random: only time and memory mean anything"
PROCESSORS = (
    "processor time"  # variant of rows whose clock is that of this process's work, which others do not slow as much
)
COUNTED = "forward hooks on all modules with parameters, mean of their calls weighted by parameters"
MEMORY = "what a block needs beyond what was there before, and the weights"


def rows_of(
    bench: Bench, timed: Mapping[str, Timed], taken: Taken, against: Sequence[str]
) -> dict[str, list[Measurement]]:
    """Return the rows of every timed system, by its name.

    Args:
        against: systems that all others are compared with, timed or not.
    """
    return {name: _rows(bench, list(timed.values()), taken, i, against) for i, name in enumerate(timed)}


def empty_rows(
    bench: Bench, subject: SystemUnderTest, reason: str, metrics: Sequence[str] = METRICS
) -> list[Measurement]:
    """Return rows that say why they are empty."""
    return [_row(bench, subject, metric, note=reason) for metric in metrics]


def _rows(bench: Bench, timed: Sequence[Timed], taken: Taken, i: int, against: Sequence[str]) -> list[Measurement]:
    """Return the rows of system ``i``."""
    each, first = timed[i], taken.first[i]
    others = [(j, name) for name in against for j, t in enumerate(timed) if t.subject.name == name and j != i]
    ratios = [f"speedup_over_{name}" for _, name in others]
    if first["reason"]:
        return empty_rows(bench, each.subject, first["reason"], (*METRICS, *ratios))
    part = f"extrapolated from {each.steps:,} of {each.total:,} steps" if each.extrapolated else ""
    rows = [*_evaluation_rows(bench, each, first, part), _memory_row(bench, each, first)]
    about = {"rounds": _rounds(taken, i, each.block)}
    on_processors = not bench.options.device.startswith("cuda")  # beside a GPU their time means little
    for found, variant in ((taken.seconds, ""), (taken.processor_seconds, PROCESSORS))[: 1 + on_processors]:
        seconds = found[:, i] / each.block
        made = lambda metric, values, *notes, variant=variant, **provenance: _timed_row(
            bench, each, metric, values, variant, notes, provenance
        )
        rows.append(made("seconds_per_50_images", PAPER_IMAGES * seconds, part, **about))
        rows.append(made("seconds_per_image", seconds, part, **about))
        for (j, name), metric in zip(others, ratios, strict=True):
            if taken.first[j]["reason"]:
                rows += [] if variant else empty_rows(bench, each.subject, f"{name} could not be timed", [metric])
                continue
            other = timed[j]
            theirs = f"{name} extrapolated from {other.steps:,} of {other.total:,} steps" if other.extrapolated else ""
            rows.append(made(metric, found[:, j] / other.block / seconds, part, theirs))
    names = [t.subject.name for t in timed]
    for name in against:
        if name == each.subject.name:
            rows += empty_rows(bench, each.subject, "it is what others are compared with", [f"speedup_over_{name}"])
        elif name not in names:
            rows += empty_rows(bench, each.subject, f"{name} was not timed in this run", [f"speedup_over_{name}"])
    return rows


def _rounds(taken: Taken, i: int, block: int) -> list[dict[str, Any]]:
    """What a reader needs to judge the noise: per round seconds per image, when it was, and how busy the machine."""
    return [
        {
            "seconds_per_image": float(taken.seconds[r, i] / block),
            "cpu_seconds_per_image": float(taken.processor_seconds[r, i] / block),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(taken.when[r])),
            "load_average": None if np.isnan(taken.load[r]) else round(float(taken.load[r]), 2),
        }
        for r in range(len(taken.seconds))
    ]


def _timed_row(
    bench: Bench,
    each: Timed,
    metric: str,
    values: NDArray[np.float64],
    variant: str,
    notes: Sequence[str],
    provenance: Mapping[str, Any],
) -> Measurement:
    median, rounds = median_of(values.tolist()), len(values)
    interval = f"median of {rounds} rounds, order statistics, 95 %"
    if median.coverage < CONFIDENCE:
        interval = f"range of {rounds} rounds, which holds their median with probability {median.coverage:.2f} only"
    return _row(
        bench,
        each.subject,
        metric,
        each,
        value=median.value,
        low=median.low,
        high=median.high,
        n=rounds * each.block,
        note=_joined(notes),
        variant=variant,
        protocol={"interval": interval} if rounds > 1 else {"rounds": rounds},
        provenance={"quartiles": list(median.quartiles), **provenance},
    )


def _evaluation_rows(bench: Bench, each: Timed, first: Mapping[str, Any], part: str) -> list[Measurement]:
    found = first["evaluations"]
    reason = "" if found else "shows no networks whose evaluations could be counted"
    if found and not any(count["forward"] for count in found.values()):
        reason = "its networks are not called as modules, so that hooks count nothing"
    rows = []
    for metric, what in (("network_evaluations", "forward"), ("gradient_evaluations", "backward")):
        if reason:
            rows.append(_row(bench, each.subject, metric, note=reason))
            continue
        listed = " + ".join(f"{name} {count[what]:,.6g}" for name, count in found.items()) if len(found) > 1 else ""
        own = getattr(each.subject.system, "evaluation_note", "") if what == "forward" else ""
        uneven = [(name, count["calls"]) for name, count in found.items() if count["calls"][0] < count["calls"][1]]
        timed = " in the timed steps" if part else ""
        parts = "; ".join(
            f"parts of {name} were called {few:,} to {many:,} times{timed}" for name, (few, many) in uneven
        )
        rows.append(
            _row(
                bench,
                each.subject,
                metric,
                each,
                value=float(sum(count[what] for count in found.values())),
                n=each.block,
                note=_joined([listed, own, parts, part]),
                protocol={"counted": COUNTED},
                provenance={"evaluations": found},
            )
        )
    return rows


def _memory_row(bench: Bench, each: Timed, first: Mapping[str, Any]) -> Measurement:
    bytes_, reason = first["memory"], first["memory_reason"]
    without = "" if first["evaluations"] else "weights not counted: it shows no networks"
    return _row(
        bench,
        each.subject,
        "peak_memory_gib",
        each,
        value=None if bytes_ is None else bytes_ / 2**30,
        n=None if bytes_ is None else each.block,
        note=reason or without,
        protocol={"memory": MEMORY},
    )


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(filter(None, notes))


def _row(
    bench: Bench,
    subject: SystemUnderTest,
    metric: str,
    each: Timed | None = None,
    *,
    value: float | None = None,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    variant: str = "",
    note: str = "",
    protocol: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Measurement:
    """Return one number of a system; without a value the note says why."""
    options, found = bench.options, machine(bench.options.device)
    about: dict[str, Any] = {"device": found["device"], **arithmetic(bench.options)}
    if not options.device.startswith("cuda"):
        about["threads"] = found["threads"]
    if each is not None:
        about["sample_batch"] = each.block
    about["image_shape"] = "x".join(map(str, subject.image_shape))
    about["sampling"] = subject.sampling
    random, _, architecture = str(subject.fingerprint.get("weights", "")).partition(": ")
    if architecture:
        about["architecture"] = architecture
    return Measurement(
        suite=SUITE,
        system=subject.name,
        dataset=options.dataset or DATASET,
        metric=metric,
        value=value,
        low=low,
        high=high,
        n=n,
        seed=options.seed,
        role="diagnostic" if variant else "headline",
        variant=variant,
        size=subject.size,
        protocol=about | dict(protocol or {}),
        provenance={"fingerprint": subject.fingerprint, **(provenance or {})},
        note=_joined([note, RANDOM]) if random.startswith("random") and value is not None else note,
    )
