"""Measuring models of the 25 Gaussians: rows, density maps, what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.array_store import ArrayStore
from evaluators.gaussians25 import (
    CONTROL,
    DensityMap,
    KeptModel,
    TrueDensity,
    density_map,
    mean_log_likelihood,
    measure,
    rows,
)
from evaluators.measurement import Measurement
from vaebm.data import gaussians25
from vaebm.errors import UserError


class Gaussian:
    """One round Gaussian: KL(mixture || it) has a closed form."""

    size, protocol = "mini", {"steps": 3}

    def __init__(self, centre: Sequence[float] = (0.0, 0.0), sd: float = 3.0) -> None:
        self.centre, self.sd = np.array(centre), sd

    def sample_points(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        return np.array([np.random.default_rng(seed).normal(self.centre, self.sd) for seed in seeds])

    def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.square(points - self.centre).sum(1) / (2 * self.sd**2) - math.log(2 * math.pi * self.sd**2)

    @property
    def expected(self) -> float:
        """E log p over the mixture: each coordinate of the centres has variance 8 about 0."""
        second_moment = 2 * (8 + gaussians25.SD**2) + np.square(self.centre).sum()
        return -second_moment / (2 * self.sd**2) - math.log(2 * math.pi * self.sd**2)


def pick(found: list[Measurement], system: str, metric: str, variant: str = "") -> Measurement:
    (row,) = [row for row in found if (row.system, row.metric, row.variant) == (system, metric, variant)]
    return row


def test_rows_of_a_gaussian_and_of_the_truth() -> None:
    found = rows(
        {"wide": Gaussian(), "mode": Gaussian((2.0, 0.0), gaussians25.SD)}, n_test=4000, n_samples=2000, seed=1
    )
    for name, expected in (("wide", Gaussian().expected), (CONTROL, gaussians25.EXPECTED_LOG_LIKELIHOOD)):
        row = pick(found, name, "log_likelihood")
        assert abs(row.value - expected) < row.high - row.low  # four standard errors
        assert row.high - row.low < 0.2
    assert pick(found, CONTROL, "modes").value == 25
    share = pick(found, CONTROL, "high_quality")
    assert share.low < 1 - math.exp(-4.5) < share.high
    assert pick(found, "mode", "modes").value == 1
    area = 25 * math.pi * 0.3**2  # covered by the neighbourhoods, under a density of at most 1 / (2 pi 9)
    assert 0.2 * area / (2 * math.pi * 9) < pick(found, "wide", "high_quality").value < area / (2 * math.pi * 9)
    assert {row.role for row in found if row.system == CONTROL} == {"control"}
    assert {row.suite for row in found} == {"modes"}
    assert {row.dataset for row in found} == {"gaussians25"}
    wide = pick(found, "wide", "log_likelihood")
    assert (wide.role, wide.size, wide.n, wide.seed) == ("headline", "mini", 4000, 1)
    assert wide.protocol["steps"] == 3
    assert wide.protocol["n_test"] == 4000
    assert pick(found, "wide", "modes").protocol["n_samples"] == 2000


def test_differences_are_paired() -> None:
    shift = 0.01

    class Worse(TrueDensity):
        def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
            return super().log_density(points) - shift

    found = rows({"worse": Worse(), "wide": Gaussian()}, n_test=300, n_samples=50)
    difference = pick(found, "worse", "log_likelihood", f"minus {CONTROL}")
    assert difference.value == pytest.approx(-shift)
    assert difference.high - difference.low < 1e-9  # far below the intervals of the two, about 0.2 each
    assert difference.role == "diagnostic"
    own, other = (pick(found, name, "log_likelihood").value for name in ("wide", "worse"))
    assert pick(found, "wide", "log_likelihood", "minus worse").value == pytest.approx(own - other)


def test_seed_and_sizes_take_effect() -> None:
    values = lambda **options: [
        row.value for row in rows({"wide": Gaussian()}, **{"n_test": 50, "n_samples": 60, **options})
    ]
    first = values()
    assert values() == first
    for changed in ({"seed": 1}, {"n_test": 51}):
        assert pick(rows({}, **{"n_test": 50, "n_samples": 60, **changed}), CONTROL, "log_likelihood").value != first[0]
    assert values(n_samples=61) != first


def test_interval_of_a_mean_covers() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        found.low < 1 < found.high for found in (mean_log_likelihood(rng.exponential(1, 400)) for _ in range(1000))
    )
    assert 925 <= hits <= 970
    narrow, wide = (mean_log_likelihood(np.arange(9.0), confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value == 4 < narrow.high < wide.high


class Slanted(Gaussian):
    """A model that offers a grid, and whose axes are not alike."""

    def grid_log_density(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        points = np.stack(np.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
        return self.log_density(points).reshape(len(first), len(second))


@pytest.mark.parametrize("kind", [Gaussian, Slanted])
def test_density_map_shows_x1_to_the_right_and_x2_upwards(kind: type[Gaussian]) -> None:
    found = density_map(kind((2.0, -1.0), 0.5), extent=(-4.0, 4.0), resolution=81, n_points=7)
    row, column = np.unravel_index(found.density.argmax(), found.density.shape)
    assert (found.axis[column], found.axis[row]) == (pytest.approx(2.0), pytest.approx(-1.0))
    assert found.density.max() == pytest.approx(1 / (2 * math.pi * 0.25))
    assert found.density.sum() * 0.1**2 == pytest.approx(1, abs=1e-3)
    assert found.points.shape == (7, 2)


def test_map_of_the_truth_integrates_to_one() -> None:
    found = density_map(TrueDensity(), n_points=10)
    assert found.density.sum() * (found.axis[1] - found.axis[0]) ** 2 == pytest.approx(1, abs=1e-6)
    assert found.points.shape == (10, 2)
    assert not np.array_equal(found.points, density_map(TrueDensity(), n_points=10, seed=1).points)


def test_measure_gives_rows_and_a_map_of_each() -> None:
    found, maps = measure({"wide": Gaussian()}, n_test=20, n_samples=20)
    assert set(maps) == {"wide", CONTROL}
    assert all(isinstance(each, DensityMap) for each in maps.values())
    assert {row.system for row in found} == {"wide", CONTROL}


def test_unusable_input_is_named() -> None:
    class Short(Gaussian):
        def sample_points(self, seeds: Sequence[int]) -> NDArray[np.float64]:
            return super().sample_points(seeds[1:])

    class Lost(Gaussian):
        def sample_points(self, seeds: Sequence[int]) -> NDArray[np.float64]:
            return np.full((len(seeds), 2), np.nan)

    class Flat(Gaussian):
        def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.zeros((len(points), 1))

    class Uniform(Gaussian):
        def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.where(np.abs(points).max(1) < 3, -math.log(36), -np.inf)

    for model, message in (
        (Short(), r"m: sample_points gave shape \(9, 2\) for 10 seeds, needed \(10, 2\)"),
        (Lost(), r"m: sample_points gave a coordinate that is not finite"),
        (Flat(), r"m: log_density gave shape \(20, 1\) for 20 points, needed \(20,\)"),
        (Uniform(), r"m: .* of 20 log p are not finite"),
    ):
        with pytest.raises(UserError, match=message):
            rows({"m": model}, n_test=20, n_samples=10)
    with pytest.raises(UserError, match="1 test points, needed at least 2"):
        rows({}, n_test=1)
    with pytest.raises(UserError, match="0 samples, needed at least 2"):
        rows({}, n_samples=0)
    with pytest.raises(UserError, match="name of the control"):
        rows({CONTROL: Gaussian()})
    with pytest.raises(UserError, match="needed low < high"):
        density_map(Gaussian(), extent=(1.0, 1.0))
    with pytest.raises(UserError, match="at least 2 points"):
        mean_log_likelihood([1.0])


class Counting:
    """A mixture's own density, counted; without a way for whole grids."""

    size, protocol = "mini", {"quadrature_z": 3}

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sample_points(self, seeds: Sequence[int]) -> np.ndarray:
        self.calls.append("sample_points")
        return gaussians25.sample_points(seeds)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        self.calls.append("log_density")
        return gaussians25.log_density(points)


@pytest.mark.parametrize(("about", "asked"), [({"weights": "a"}, 3), ({}, 6)])
def test_answers_of_a_model_are_kept_under_what_decides_them(about: dict, asked: int, tmp_path: Path) -> None:
    model, points, axis = Counting(), gaussians25.sample_points(range(9)), np.linspace(-1, 1, 4)
    for _ in range(2):
        kept = KeptModel(model, about, ArrayStore(tmp_path))
        np.testing.assert_array_equal(kept.log_density(points), gaussians25.log_density(points))
        np.testing.assert_array_equal(kept.sample_points(range(5)), gaussians25.sample_points(range(5)))
        grid = kept.grid_log_density(axis, axis)
        assert grid[1, 3] == pytest.approx(gaussians25.log_density(np.array([[axis[1], axis[3]]]))[0])
    assert len(model.calls) == asked
    assert (kept.size, kept.protocol) == ("mini", {"quadrature_z": 3})
    kept.log_density(points[:5])  # other points are another question
    KeptModel(model, about and {"weights": "b"}, ArrayStore(tmp_path)).log_density(points)  # and so is another model
    assert len(model.calls) == asked + 2
