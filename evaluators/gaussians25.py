"""The 25-Gaussians toy: exact log-likelihood, modes and high-quality share of models on points of the plane.

A model offers samples and a normalised density (see :class:`PointModel`); the mixture itself stands beside the models as a control: its
log-likelihood is the ceiling, and its modes and share are those of a perfect sampler at that number of samples.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from evaluators.array_store import ArrayStore, canonical_json
from evaluators.measurement import Measurement
from evaluators.metrics.intervals import CONFIDENCE, Estimate, check_confidence
from evaluators.metrics.modes import high_quality
from vaebm.data import gaussians25
from vaebm.errors import UserError

SUITE, DATASET, CONTROL = "modes", "gaussians25", "true density"
N_TEST = 5000
N_SAMPLES = 10_000
WITHIN = 3.0  # standard deviations of a mode that count as its neighbourhood
EXTENT = (-5.0, 5.0)
RESOLUTION = 400

Points = NDArray[np.float64]  # (N, 2)


class PointModel(Protocol):
    """A model of points of the plane. A model may also have ``protocol``, a dict of what decides its numbers, and ``size``."""

    def sample_points(self, seeds: Sequence[int]) -> Points:
        """Return one point per seed, (N, 2); each depends on its own seed alone."""
        ...

    def log_density(self, points: Points) -> NDArray[np.float64]:
        """Return the normalised log p(x) at points (N, 2): float64 (N,), in nats."""
        ...


@runtime_checkable
class GridModel(PointModel, Protocol):
    """A model whose density is cheaper on a whole grid than point by point."""

    def grid_log_density(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log p at the points (first[i], second[j]), float64 (len(first), len(second)); -inf where the density is 0."""
        ...


@dataclass(frozen=True)
class DensityMap:
    """A density over a square, and samples.

    Attributes:
        density: float64 (H, W), per unit of area; row i, column j is the point (x_1, x_2) = (axis[j], axis[i]), so that an image drawn with
            its origin at the lower left shows x_1 to the right and x_2 upwards.
        extent: (low, high) of both axes: the centres of the first and the last pixel.
        points: samples (n, 2), in and out of the square.
    """

    density: NDArray[np.float64]
    extent: tuple[float, float]
    points: Points

    @property
    def axis(self) -> NDArray[np.float64]:
        """Coordinates of the rows and of the columns."""
        return np.linspace(*self.extent, len(self.density))


class TrueDensity:
    """The mixture itself: the control of every row."""

    def sample_points(self, seeds: Sequence[int]) -> Points:
        """Draw one point per seed."""
        return gaussians25.sample_points(seeds)

    def log_density(self, points: Points) -> NDArray[np.float64]:
        """Return log p(x), (N,)."""
        return gaussians25.log_density(points)


class KeptModel:
    """A model whose answers are kept between runs: exact densities are dear.

    Args:
        about: JSON-able; everything that decides the model's answers. Empty: nothing is kept.
    """

    def __init__(self, model: PointModel, about: Mapping[str, Any], store: ArrayStore) -> None:
        self.model, self.about = model, dict(about)
        self.store = store if about else ArrayStore(None)
        self.size, self.protocol = getattr(model, "size", ""), getattr(model, "protocol", {})

    def sample_points(self, seeds: Sequence[int]) -> Points:
        """See :class:`PointModel`."""
        return self._kept("sample_points", [list(seeds)], lambda: self.model.sample_points(seeds))

    def log_density(self, points: Points) -> NDArray[np.float64]:
        """See :class:`PointModel`."""
        return self._kept("log_density", [_digest(points)], lambda: self.model.log_density(points))

    def grid_log_density(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`GridModel`; point by point where the model has no better way."""

        def whole() -> ArrayLike:
            if isinstance(self.model, GridModel):
                return self.model.grid_log_density(first, second)
            points = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
            return self.model.log_density(points).reshape(len(first), len(second))

        return self._kept("grid_log_density", [_digest(first), _digest(second)], whole)

    def _kept(self, what: str, given: list[Any], answer: Callable[[], ArrayLike]) -> NDArray[np.float64]:
        # Minus infinity is a log density of 0, and no mistake: the store takes any number.
        key = {"model": self.about, "what": what, "given": hashlib.sha256(canonical_json(given).encode()).hexdigest()}
        found = self.store.compute(key, 1, lambda *_: {"answer": np.asarray(answer())[None]}, label=what, alone=True)
        return np.array(found["answer"][0], dtype=np.float64)


def _digest(array: NDArray[np.float64]) -> str:
    return hashlib.sha256(
        f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
    ).hexdigest()


def mean_log_likelihood(log_p: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of log p over test points, with the interval of its standard error.

    mean +- z s / sqrt(n), with s the standard deviation (divisor n - 1). For the difference of two models on the same points, pass the
    difference of their log p: what is common to both then cancels.

    Args:
        log_p: (n,) in nats, n >= 2, finite: a density that is 0 at a test point has no mean log-likelihood.

    Raises:
        UserError: fewer than two values, or one that is not finite.
    """
    check_confidence(confidence)
    values = np.asarray(log_p, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise UserError(f"log-likelihood: found shape {values.shape}, needed log p of at least 2 points, (n,)")
    if not np.isfinite(values).all():
        raise UserError(f"log-likelihood: {int((~np.isfinite(values)).sum())} of {len(values)} log p are not finite")
    half = float(norm.ppf((1 + confidence) / 2) * values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def density_map(
    model: PointModel,
    *,
    extent: tuple[float, float] = EXTENT,
    resolution: int = RESOLUTION,
    n_points: int = 2000,
    seed: int = 0,
) -> DensityMap:
    """Evaluate a model's density on a grid of ``resolution`` x ``resolution`` points and draw ``n_points`` samples.

    Raises:
        UserError: an empty square, or a resolution below 2.
    """
    low, high = extent
    if not low < high or resolution < 2:
        raise UserError(
            f"density map: found the square {low} to {high} at {resolution} points a side, needed low < high and at least 2 points"
        )
    axis = np.linspace(low, high, resolution)
    if isinstance(model, GridModel):
        log_p = model.grid_log_density(axis, axis).T  # x_1 runs along the columns
    else:
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        log_p = _log_density("model", model, grid).reshape(resolution, resolution)
    density = np.exp(log_p)
    return DensityMap(density, (low, high), _points("model", model.sample_points(_seeds(n_points, seed)), n_points))


def rows(
    systems: Mapping[str, PointModel], *, n_test: int = N_TEST, n_samples: int = N_SAMPLES, seed: int = 0
) -> list[Measurement]:
    """Measure every system, and the true density as the control.

    Rows: ``log_likelihood`` (nats per point, mean over ``n_test`` test points), ``modes`` (of 25; a mode counts with at least one sample
    within 3 standard deviations) and ``high_quality`` (share of samples within 3 standard deviations of a centre). Diagnostic rows say by
    how much the log-likelihood differs, on the same points: variant ``"minus true density"`` for every system, and ``"minus NAME"`` for
    every pair of systems.

    Args:
        systems: by name.
        n_test: test points, drawn from the mixture; the same for all systems.
        n_samples: samples of each system.
        seed: decides test points and samples. Seeds do not overlap between runs of fewer than 2^32 points.

    Raises:
        UserError: fewer than 2 test points or samples, a system's output is of the wrong shape or not finite, or a system is named as the
            control.
    """
    for what, n in (("test points", n_test), ("samples", n_samples)):
        if n < 2:
            raise UserError(f"25 Gaussians: found {n} {what}, needed at least 2")
    if CONTROL in systems:
        raise UserError(f"25 Gaussians: {CONTROL!r} is the name of the control; give the system another")
    seeds = _seeds(max(n_test, n_samples), seed)
    test = gaussians25.sample_points(seeds[:n_test], "test")
    everyone: dict[str, PointModel] = {CONTROL: TrueDensity(), **systems}
    log_p = {name: _log_density(name, model, test, finite=True) for name, model in everyone.items()}
    found = []
    for position, (name, model) in enumerate(everyone.items()):
        likelihood = {"n_test": n_test, "unit": "nats per point"}
        found.append(_row(name, model, "log_likelihood", mean_log_likelihood(log_p[name]), n_test, seed, likelihood))
        for other in list(everyone)[:position]:
            difference = mean_log_likelihood(log_p[name] - log_p[other])
            paired = _row(name, model, "log_likelihood", difference, n_test, seed, {**likelihood, "paired": True})
            found.append(replace(paired, role="diagnostic", variant=f"minus {other}"))
        points = _points(name, model.sample_points(seeds[:n_samples]), n_samples)
        modes, share = high_quality(points, gaussians25.CENTRES, gaussians25.SD, within=WITHIN)
        sampled = {"n_samples": n_samples, "within_sd": WITHIN}
        found.append(_row(name, model, "modes", modes, n_samples, seed, sampled))
        found.append(_row(name, model, "high_quality", share, n_samples, seed, sampled))
    return found


def measure(
    systems: Mapping[str, PointModel], *, n_test: int = N_TEST, n_samples: int = N_SAMPLES, seed: int = 0
) -> tuple[list[Measurement], dict[str, DensityMap]]:
    """Return :func:`rows` and a :func:`density_map` of the true density and of every system, by name."""
    everyone: dict[str, PointModel] = {**systems, CONTROL: TrueDensity()}
    return rows(systems, n_test=n_test, n_samples=n_samples, seed=seed), {
        name: density_map(model, seed=seed) for name, model in everyone.items()
    }


def _seeds(n: int, seed: int) -> list[int]:
    return [seed * 2**32 + i for i in range(n)]


def _row(
    name: str, model: PointModel, metric: str, value: Estimate | int, n: int, seed: int, protocol: dict[str, Any]
) -> Measurement:
    low, high = (value.low, value.high) if isinstance(value, Estimate) else (None, None)
    return Measurement(
        suite=SUITE,
        system=name,
        dataset=DATASET,
        metric=metric,
        value=float(value.value if isinstance(value, Estimate) else value),
        low=low,
        high=high,
        n=n,
        seed=seed,
        role="control" if name == CONTROL else "headline",
        size=getattr(model, "size", ""),
        protocol={"sd": gaussians25.SD, **getattr(model, "protocol", {}), **protocol},
    )


def _log_density(name: str, model: PointModel, points: Points, finite: bool = False) -> NDArray[np.float64]:
    values = np.asarray(model.log_density(points), dtype=np.float64)
    if values.shape != (len(points),):
        raise UserError(
            f"{name}: log_density gave shape {values.shape} for {len(points)} points, needed ({len(points)},)"
        )
    if finite and not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise UserError(
            f"{name}: {wrong} of {len(points)} log p are not finite, needed a density above 0 at every test point"
        )
    return values


def _points(name: str, points: ArrayLike, n: int) -> Points:
    values = np.asarray(points, dtype=np.float64)
    if values.shape != (n, 2):
        raise UserError(f"{name}: sample_points gave shape {values.shape} for {n} seeds, needed ({n}, 2)")
    if not np.isfinite(values).all():
        raise UserError(f"{name}: sample_points gave a coordinate that is not finite")
    return values
