"""Synthetic results of the generation and modes suites: rows as these suites make them, arrays for their plots."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluators.measurement import Measurement

NO_WEIGHTS = "No Inception weights: give them with --weights or run without --offline."
REFERENCE = {"reference": "cifar10 train, 50,000 images", "post_processing": "8 bit, no JPEG"}
SAMPLING = {
    "vaebm": {"steps": 16, "step_size": 8e-05, "temperature": 1.0},
    "nvae": {"temperature": 1.0},
}
FD = {"vaebm": 11.372, "nvae": 48.91, "igebm": 62.5, "mine": 9.8}
STEPS = (0, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class GenerationResult:
    rows: list[Measurement]
    samples: dict[str, np.ndarray]
    neighbours: dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class DensityMap:
    density: np.ndarray
    extent: tuple[float, float]
    points: np.ndarray


@dataclass(frozen=True)
class ModesResult:
    rows: list[Measurement] = field(default_factory=list)
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    densities: dict[str, DensityMap] = field(default_factory=dict)


def row(system: str, metric: str, value: float | None, **more: Any) -> Measurement:
    """A row of the generation suite with an interval of 3 %."""
    spread = 0.03 * abs(value or 0)
    features = metric.rpartition("_")[2] if metric.endswith("net") else "inception (clean)"
    interval = "delete-group jackknife, 20 groups, 95 %"
    fields: dict[str, Any] = {
        "suite": "generation",
        "dataset": "cifar10",
        "low": None if value is None else value - spread,
        "high": None if value is None else value + spread,
        "n": None if value is None else 10000,
        "seed": 0,
        "size": "mini" if system in ("vaebm", "nvae", "igebm") else "",
        "protocol": {**REFERENCE, "features": features, "interval": interval}
        | ({"sampling": SAMPLING[system]} if system in SAMPLING else {})
        | more.pop("protocol", {}),
    }
    return Measurement(system=system, metric=metric, value=value, **{**fields, **more})


def generation_rows() -> list[Measurement]:
    """Four systems, two of them with Inception numbers; a curve over Langevin steps; real images as controls."""
    rows = []
    for system, fd in FD.items():
        rows += [
            row(system, "fd_cifar10net", fd),
            row(system, "fd_infinity_cifar10net", fd * 0.97),
            row(system, "kd_cifar10net", fd * 1e-4),
            row(system, "is_cifar10net", 9 - fd / 20),
            row(system, "precision_cifar10net", 0.9 - fd / 200, protocol={"k": 3}),
            row(system, "recall_cifar10net", 0.4 + fd / 500, protocol={"k": 3}),
            row(system, "density_cifar10net", 1.1 - fd / 100, protocol={"k": 5}),
            row(system, "coverage_cifar10net", 0.95 - fd / 100, protocol={"k": 5}),
            row(system, "authenticity_cifar10net", 0.71),
            row(system, "nearest_ratio_cifar10net", 1.02),
        ]
    rows += [row("vaebm", "fid", 31.2034), row("vaebm", "is", 6.511), row("nvae", "fid", 74.812)]
    rows += [row("nvae", "is", None, note=NO_WEIGHTS), row("mine", "fid", 28.7)]
    rows += [row("test images", m, v, role="control") for m, v in (("fid", 3.15), ("fd_cifar10net", 0.2841))]
    rows.append(row("reference split", "fd_cifar10net", 0.1502, role="control"))
    for steps in STEPS:
        told = {"steps": steps, "seconds_per_image": 0.01 + 0.0123 * steps}
        value = 48.9 * 0.6 ** (steps**0.5) + 0.05 * steps + 1
        rows.append(row("vaebm", "fd_cifar10net", value, role="diagnostic", variant=f"steps={steps}", protocol=told))
        rows.append(
            row("vaebm", "is_cifar10net", 9 - value / 20, role="diagnostic", variant=f"steps={steps}", protocol=told)
        )
    return rows


def modes_rows() -> list[Measurement]:
    """Rows of both data sets with their controls."""
    shared = {"suite": "modes", "dataset": "stacked_mnist", "n": 26000, "seed": 0}
    shared |= {"protocol": {"classifier": "mnistnet 0b1c2d3e", "N": 26000, "interval": "bootstrap, 95 %"}}
    rows = []
    for system, modes, kl, role, size in (
        ("vaebm", 1000.0, 0.0312, "headline", "mini"),
        ("nvae", 997.0, 0.2173, "headline", "mini"),
        ("test images", 1000.0, 0.0195, "control", ""),
        ("perfect sampler", 1000.0, 0.01941, "control", ""),
    ):
        rows += [
            Measurement(
                system=system, metric="modes", value=modes, low=modes - 2, high=modes, role=role, size=size, **shared
            ),
            Measurement(
                system=system, metric="kl", value=kl, low=kl * 0.95, high=kl * 1.05, role=role, size=size, **shared
            ),
        ]
    sure = {"metric": "classifier_confidence", "role": "diagnostic", "size": "mini"}
    rows.append(Measurement(system="vaebm", value=0.971, **sure, **shared))
    toy = {
        "suite": "modes",
        "dataset": "gaussians25",
        "n": 10000,
        "seed": 0,
        "protocol": {"interval": "bootstrap, 95 %"},
    }
    for system, values, role in (
        ("vaebm", (-1.5123, 25.0, 0.962), "headline"),
        ("nvae", (-2.913, 25.0, 0.411), "headline"),
        ("true density", (-1.4516, 25.0, 0.989), "control"),
    ):
        for metric, value in zip(("log_likelihood", "modes", "high_quality"), values, strict=True):
            ends = {"low": value - 0.011, "high": value + 0.011} if metric != "modes" else {}
            rows.append(Measurement(system=system, metric=metric, value=value, role=role, **ends, **toy))
    off = {"metric": "log_likelihood", "role": "diagnostic", "variant": "minus true density"}
    rows.append(Measurement(system="vaebm", value=-0.0607, low=-0.07, high=-0.05, **off, **toy))
    return rows


def pictures(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Coloured gradients, so that order and orientation can be seen: uint8 (n, size, size, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    ends = rng.uniform(40, 215, (n, 3, 1, 1)) + rng.uniform(-40, 40, (n, 3, 1, 1)) * x + 40 * (y - 0.5)
    return ends.transpose(0, 2, 3, 1).astype(np.uint8)


def generation_result() -> GenerationResult:
    samples = {"vaebm": pictures(100, 32), "nvae": pictures(100, 32, 1), "mine": pictures(6, 64, 2)}
    near = {
        name: np.stack([images[:10]] * 5, axis=1) // np.arange(1, 6, dtype=np.uint8)[None, :, None, None, None]
        for name, images in samples.items()
    }
    return GenerationResult(generation_rows(), samples, {name: (samples[name][:10], near[name]) for name in samples})


def modes_result() -> ModesResult:
    rng = np.random.default_rng(0)
    even = np.bincount(rng.integers(0, 1000, 26000), minlength=1000)
    weights = rng.gamma(3, size=1000)
    uneven = rng.multinomial(26000, weights / weights.sum())
    collapsed = np.zeros(1000, int)
    collapsed[::10] = 260
    grid = np.linspace(-5, 5, 301)
    centres = np.array([(a, b) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)])

    def mixture(sd: float) -> DensityMap:
        one = np.exp(-((grid[:, None] - np.array([-4, -2, 0, 2, 4])) ** 2) / (2 * sd**2)).sum(1) / (
            5 * sd * np.sqrt(2 * np.pi)
        )
        points = centres[rng.integers(0, 25, 5000)] + sd * rng.normal(size=(5000, 2))
        return DensityMap(one[:, None] * one[None, :], (-5.0, 5.0), points)

    densities = {"true density": mixture(0.1), "nvae": mixture(0.3), "vaebm": mixture(0.08)}
    images = {"vaebm": pictures(64, 28), "nvae": pictures(64, 28, 1)[..., :1]}
    return ModesResult(modes_rows(), images, {"vaebm": even, "nvae": uneven, "mine": collapsed}, densities)
