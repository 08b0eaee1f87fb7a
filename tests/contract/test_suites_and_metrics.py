"""Every registered suite on systems of a few lines, and every metric against what its docstring promises."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import count, pairwise
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from suite_bench import FEATURES, SHAPE, Climber, Painter, make_bench, subject

import evaluators.metrics
from evaluators import SUITES
from evaluators.gaussians25 import TrueDensity
from evaluators.measurement import Measurement
from evaluators.metrics import (
    arrays,
    aupr,
    auroc,
    fpr95,
    image_statistics,
    intervals,
    logit_interval,
    rank_correlation,
    standard_deviation,
)
from evaluators.result_file import Results, read_results, write_results
from evaluators.subjects import SystemUnderTest
from vaebm.data import DataUnavailable, ImageSet
from vaebm.errors import UserError

REPLICATES = 60


def images(name: str, n: int, contrast: int, seed: int) -> ImageSet:
    noise = np.random.default_rng(seed).normal(128, contrast, (n, *SHAPE))
    return ImageSet(name, np.clip(noise, 0, 255).astype(np.uint8), "made here", "test")


class Mean:
    """A scorer with one number."""

    def score(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2, 3), dtype=np.float64)


class MeanAndSpread(Mean):
    """A scorer with two terms."""

    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": super().score(images), "spread": -images.std(axis=(1, 2, 3), dtype=np.float64)}

    def score(self, images: np.ndarray) -> np.ndarray:
        terms = self.score_terms(images)
        return terms["mean"] + terms["spread"]


def scored(name: str, scorer: object) -> SystemUnderTest:
    return SystemUnderTest(name, scorer, SHAPE, "mini", {"weights": name}, {"score": "a toy's", "estimator": name})


SYSTEMS = {
    name: scored(name, scorer) for name, scorer in {"one": Mean(), "two": MeanAndSpread(), "nothing": object()}.items()
}


def run_ood() -> list[Measurement]:
    outer = {"svhn": images("svhn", 12, 20, 1), "celeba": DataUnavailable("celeba: not here; give --data-root")}
    return SUITES.load("ood")(replicates=REPLICATES).run(SYSTEMS, images("cifar10", 14, 40, 0), outer).rows


def run_generation() -> list[Measurement]:
    drawn = {
        "one": subject("one", Painter()),
        "two": subject("two", Climber()),
        "nothing": subject("nothing", object()),
    }
    with TemporaryDirectory() as folder:
        bench = make_bench(Path(folder), drawn, num_images=60, features=FEATURES, steps="0,8")
        return _without_times(SUITES.load("generation")().measure(bench).rows)


def run_modes() -> list[Measurement]:
    """The part of the plane: stacked digits are in tests/evaluators/test_modes.py."""
    with TemporaryDirectory() as folder:
        bench = make_bench(Path(folder), {"one": subject("one", TrueDensity())}, dataset="gaussians25")
        return SUITES.load("modes")().measure(bench).rows


def run_speed() -> list[Measurement]:
    """On a clock that moves by a second whenever it is looked at; memory, load and time of day stay what they are."""
    drawn = {
        "one": subject("one", Painter()),
        "two": subject("two", Climber()),
        "nothing": subject("nothing", object()),
    }
    seconds = count(1.0)
    with TemporaryDirectory() as folder:
        bench = make_bench(Path(folder), drawn, max_steps=2, against="one")
        rows = SUITES.load("speed")(lambda: (next(seconds), next(seconds))).measure(bench).rows
    steady = [replace(row, provenance={}) for row in rows]
    return [
        replace(row, value=1.0) if row.metric == "peak_memory_gib" and row.value is not None else row for row in steady
    ]


class Rated(Climber, Mean):
    """A chain whose images a score can rate."""


def run_tradeoff() -> list[Measurement]:
    drawn = {"one": subject("one", Rated()), "two": subject("two", Painter()), "nothing": subject("nothing", object())}
    with TemporaryDirectory() as folder:
        bench = make_bench(Path(folder), drawn, num_images=60, features=FEATURES, steps="0,8")
        return _without_times(SUITES.load("tradeoff")().measure(bench).rows)


def _without_times(rows: list[Measurement]) -> list[Measurement]:
    """Seconds differ from run to run, as they should."""
    strip = lambda protocol: {key: value for key, value in protocol.items() if key != "seconds_per_image"}
    return [replace(row, protocol=strip(row.protocol)) for row in rows]


RUNS: dict[str, Callable[[], list[Measurement]]] = {
    "ood": run_ood,
    "generation": run_generation,
    "modes": run_modes,
    "speed": run_speed,
    "tradeoff": run_tradeoff,
}


def test_a_flag_that_two_suites_listen_to_means_one_thing() -> None:
    """The front door adds it once, with the default and the help of the first."""
    meanings: dict[str, list[str]] = {}
    for suite in SUITES:
        for flag, option in SUITES.load(suite).options.items():
            meanings.setdefault(flag, []).append(repr({key: option.get(key) for key in ("type", "action", "default")}))
    assert {flag: found for flag, found in meanings.items() if len(set(found)) > 1} == {}


def test_every_suite_is_run_here() -> None:
    assert set(SUITES) <= set(RUNS), "add the missing suite to RUNS"


@pytest.mark.parametrize("suite", list(RUNS))
def test_a_suite_returns_measurements_that_survive_json(suite: str, tmp_path: Path) -> None:
    rows = RUNS[suite]()
    assert {row.system for row in rows} >= ({"one"} if suite == "modes" else set(SYSTEMS))
    for row in rows:
        assert isinstance(row, Measurement)
        assert (row.suite, row.origin) == (suite, "measured")
        assert row.value is None or type(row.value) is float
        assert row.value is not None or row.note
        if row.low is not None and row.high is not None and row.value is not None:
            assert row.low <= row.value <= row.high
        assert row.seed is not None
        assert row.protocol
    assert all(row.note in ("has no scorer", "has no sampler") for row in rows if row.system == "nothing")
    assert [Measurement.from_json(json.loads(json.dumps(row.to_json(), allow_nan=False))) for row in rows] == rows
    results = Results(suite, rows, commit="abc", options={"seed": 0})
    write_results(results, tmp_path / "rows.json")
    assert read_results(tmp_path / "rows.json") == results
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize("suite", list(RUNS))
def test_a_suite_says_what_it_needs_and_repeats_itself(suite: str) -> None:
    target = SUITES.load(suite)
    assert target.name == suite
    for flag, option in target.options.items():
        assert flag.startswith("--")
        assert option["help"]
    assert set(target.needs) <= {"scorer", "sampler", "features"}
    assert RUNS[suite]() == RUNS[suite]()


# --- metrics: which there are --------------------------------------------------------------------------------------

# Module -> its public functions. A new metric needs a line here, and its promises a test below.
METRICS = {
    "arrays": {"finite_scores"},
    "aupr": {"aupr"},
    "auroc": {
        *("auroc", "placements", "delong_variance", "auroc_interval", "mean_auroc_interval", "auroc_difference"),
    },
    "feature_arrays": {"finite_features", "two_feature_sets"},
    "fpr95": {"fpr95"},
    "frechet": {"frechet_distance", "frechet_distance_of_features", "frechet_estimate", "fd_infinity"},
    "inception_score": {"inception_score", "inception_score_estimate", "inception_score_splits"},
    "jackknife": {"jackknife"},
    "kid": {"kid", "kid_subsets"},
    "modes": {"mode_coverage", "kl_to_uniform", "expected_kl", "expected_modes", "high_quality"},
    "moments": set(),
    "neighbours": {"nearest", "squared_neighbours", "authenticity", "nearest_ratio"},
    "pairs": {"distance_blocks", "exact_squared_distances", "blocks"},
    "prdc": {"prdc", "prdc_and_kid"},
    "proportion": {"proportion_interval"},
    "image_statistics": {"high_pass_energy", "total_variation", "pixel_std", "codec_bytes"},
    "intervals": {"resample_counts", "bootstrap_ranking", "percentiles", "check_confidence", "check_replicates"},
    "logit_interval": {"logit_interval"},
    "rank_correlation": {"rank_correlation"},
    "standard_deviation": {"standard_deviation"},
}


def test_no_metric_is_missed_and_each_says_what_it_is() -> None:
    assert {module.name for module in iter_modules(evaluators.metrics.__path__)} == set(METRICS)
    for name, functions in METRICS.items():
        module = import_module(f"evaluators.metrics.{name}")
        assert module.__doc__
        public = {
            key
            for key, value in vars(module).items()
            if callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__
        }
        assert {key for key in public if not key.startswith("_")} == functions
        for function in functions:
            assert getattr(module, function).__doc__, f"{name}.{function} says nothing of itself"


# --- metrics of a ranking ------------------------------------------------------------------------------------------

Scores = np.ndarray


def two_aurocs(inside: Scores, outside: Scores) -> Any:
    return auroc.mean_auroc_interval(inside, [outside, outside[::2]])


def against_another_scorer(inside: Scores, outside: Scores) -> Any:
    rng = np.random.default_rng(9)
    return auroc.auroc_difference(inside, outside, rng.normal(size=len(inside)), rng.normal(size=len(outside)))


RANKING: dict[str, Callable[[Scores, Scores], Any]] = {
    "auroc": auroc.auroc,
    "auroc_interval": auroc.auroc_interval,
    "mean_auroc_interval": two_aurocs,
    "auroc_difference": against_another_scorer,
    "delong_variance": auroc.delong_variance,
    "aupr": lambda p, q: aupr.aupr(p, q, replicates=REPLICATES),
    "aupr of the others": lambda p, q: aupr.aupr(p, q, positive="out", replicates=REPLICATES),
    "fpr95": lambda p, q: fpr95.fpr95(p, q, replicates=REPLICATES),
}
INCREASING: dict[str, Callable[[Scores], Scores]] = {
    "times 1e4": lambda x: x * 1e4,
    "plus 1e9": lambda x: x + 1e9,
    "cube": lambda x: x**3,
    "exponential": np.exp,
    "ranks": lambda x: np.searchsorted(np.linspace(-9, 9, 4001), x).astype(float),
}


def samples(kind: str) -> tuple[Scores, Scores]:
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(0.5, 1, 41), rng.normal(0, 1.3, 33)
    made = {
        "smooth": (inside, outside),
        "ties": (inside.round(), outside.round()),
        "perfect": (inside + 20, outside),
        "inverted": (inside - 20, outside),
        "constant": (inside * 0, outside * 0),
    }
    return made[kind]


KINDS = ("smooth", "ties", "perfect", "inverted", "constant")


@pytest.mark.parametrize("increasing", INCREASING)
@pytest.mark.parametrize("metric", RANKING)
def test_a_metric_of_a_ranking_sees_nothing_but_the_ranking(metric: str, increasing: str) -> None:
    function, transform = RANKING[metric], INCREASING[increasing]
    for kind in ("ties", "smooth"):
        inside, outside = (np.round(side, 2) for side in samples(kind))
        levels = np.unique(np.r_[inside, outside])
        assert len(np.unique(transform(levels))) == len(levels)  # strictly increasing on these
        assert function(transform(inside), transform(outside)) == function(inside, outside)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", RANKING)
def test_a_metric_of_a_ranking_is_bounded_and_inside_its_interval(metric: str, kind: str) -> None:
    found = RANKING[metric](*samples(kind))
    least = -1 if metric == "auroc_difference" else 0
    if isinstance(found, float):
        assert least <= found <= 1
    else:
        assert least <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    "metric", [name for name in RANKING if name not in ("auroc_difference", "mean_auroc_interval")]
)
def test_a_metric_of_a_ranking_does_not_see_the_order_of_images(metric: str) -> None:
    inside, outside = samples("ties")
    one, other = RANKING[metric](inside, outside), RANKING[metric](inside[::-1], outside[::-1])
    value = lambda found: found if isinstance(found, float) else found.value
    assert value(one) == pytest.approx(value(other), abs=1e-15)


@pytest.mark.parametrize("metric", RANKING)
@pytest.mark.parametrize("bad", [[], [math.nan, 1.0, 2.0], [math.inf, 1.0, 2.0], [[1.0, 2.0]], ["a", "b"]])
def test_a_metric_of_a_ranking_refuses_what_is_no_score(metric: str, bad: list) -> None:
    good = samples("smooth")[0]
    for arguments in ((np.array(bad), good), (good, np.array(bad))):
        with pytest.raises(UserError):
            RANKING[metric](*arguments)


def test_known_ends() -> None:
    for kind, value in (("perfect", 1.0), ("inverted", 0.0), ("constant", 0.5)):
        assert auroc.auroc(*samples(kind)) == value
    assert aupr.aupr(*samples("perfect"), replicates=REPLICATES).value == 1
    assert fpr95.fpr95(*samples("perfect"), replicates=REPLICATES).value == 0
    assert fpr95.fpr95(*samples("inverted"), replicates=REPLICATES).value == 1
    inside, outside = samples("smooth")
    flat = aupr.aupr(*samples("constant"), replicates=REPLICATES)
    assert flat.value == flat.base_rate == len(inside) / (len(inside) + len(outside))


@pytest.mark.parametrize("kind", KINDS)
def test_placements_are_shares_whose_mean_is_the_auroc(kind: str) -> None:
    for side in auroc.placements(*samples(kind)):
        assert 0 <= side.min() <= side.max() <= 1
        assert side.mean() == pytest.approx(auroc.auroc(*samples(kind)), abs=1e-12)


@pytest.mark.parametrize("increasing", INCREASING)
def test_rank_correlation_is_bounded_symmetric_and_monotone_invariant(increasing: str) -> None:
    x = np.random.default_rng(2).normal(size=50).round(2)
    y = (x + np.random.default_rng(3).normal(size=50)).round(2)
    found = rank_correlation.rank_correlation(x, y)
    assert -1 <= found.low < found.value < found.high <= 1
    transform = INCREASING[increasing]
    assert rank_correlation.rank_correlation(transform(x), y) == found
    assert rank_correlation.rank_correlation(x, transform(y)) == found
    assert rank_correlation.rank_correlation(y, x).value == pytest.approx(found.value, abs=1e-15)
    assert rank_correlation.rank_correlation(-x, y).value == pytest.approx(-found.value, abs=1e-15)
    assert rank_correlation.rank_correlation(x, transform(x)).value == 1


def test_standard_deviation_scales_and_ignores_a_shift() -> None:
    x = np.random.default_rng(4).normal(size=50)
    found = standard_deviation.standard_deviation(x, replicates=REPLICATES)
    assert 0 <= found.low <= found.value <= found.high
    for scale in (-3.0, 1e4):
        scaled = standard_deviation.standard_deviation(scale * x + 7, replicates=REPLICATES)
        for end in ("value", "low", "high"):
            assert getattr(scaled, end) == pytest.approx(abs(scale) * getattr(found, end), rel=1e-9)
    assert standard_deviation.standard_deviation(np.ones(9), replicates=REPLICATES).value == 0


@pytest.mark.parametrize("value", [1e-6, 0.05, 0.5, 0.9, 1 - 1e-6])
def test_logit_interval_stays_inside_and_widens(value: float) -> None:
    found = [logit_interval.logit_interval(value, error, 0.95) for error in (0.0, 0.01, 0.1, 3.0)]
    for narrow, wide in pairwise(found):
        assert 0 <= wide.low <= narrow.low <= value * (1 + 1e-9)
        assert value * (1 - 1e-9) <= narrow.high <= wide.high <= 1


def test_bootstrap_parts_keep_their_promises() -> None:
    counts = intervals.resample_counts(30, REPLICATES, 5)
    assert counts.shape == (30, REPLICATES)
    assert set(counts.sum(axis=0)) == {30}
    assert not np.array_equal(counts, intervals.resample_counts(30, REPLICATES, 5, stratum=1))
    share = lambda true, false: true[0] / true[-1] + 0 * false[0]
    inside, outside = samples("smooth")
    value, resampled = intervals.bootstrap_ranking(inside, outside, share, replicates=REPLICATES)
    assert resampled.shape == (REPLICATES,)
    assert intervals.bootstrap_ranking(np.exp(inside), np.exp(outside), share, replicates=REPLICATES)[0] == value
    low, high = intervals.percentiles(resampled, 0.95)
    assert resampled.min() <= low <= high <= resampled.max()
    for confidence in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match="between 0 and 1"):
            intervals.check_confidence(confidence)
    with pytest.raises(UserError, match="at least 2"):
        intervals.check_replicates(1)


def test_finite_scores_returns_float64_of_its_own() -> None:
    for values in ([1, 2], np.array([1, 2], np.int8), np.array([True, False]), np.float32([1, 2])):
        found = arrays.finite_scores(values, "x")
        assert (found.dtype, found.shape) == (np.dtype(np.float64), (2,))


# --- statistics of an image ----------------------------------------------------------------------------------------

BOUNDS = {
    "high_pass_energy": (-27.7, 0.0),
    "total_variation": (0.0, 1.0),
    "pixel_std": (0.0, 0.5),
    "codec_bytes": (1.0, 1e4),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_an_image_statistic_is_bounded_and_a_function_of_its_image_alone(name: str) -> None:
    assert set(BOUNDS) == set(image_statistics.IMAGE_STATISTICS)
    rng = np.random.default_rng(6)
    board = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    shown = np.stack([board, board * 0, rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)])
    score = image_statistics.IMAGE_STATISTICS[name].score
    found = score(shown)
    assert found.dtype == np.float64
    low, high = BOUNDS[name]
    assert low <= found.min() < found.max() <= high
    np.testing.assert_array_equal(score(shown[::-1]), found[::-1])
    np.testing.assert_array_equal(np.concatenate([score(image[None]) for image in shown]), found)
