"""The trade-off suite on chains of a few lines: which settings are drawn, what is measured at each, what is refused."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from suite_bench import FEATURES, SHAPE, Painter, make_bench, means, pictures, subject

from evaluators.differences import IDENTICAL, TIME, differences
from evaluators.measurement import Measurement
from evaluators.metrics.auroc import auroc
from evaluators.metrics.frechet import frechet_distance_of_features
from evaluators.protocols import LongSampler, StepSampler, TermScorer, TunableSampler
from evaluators.result_file import Results
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench, destination
from evaluators.tradeoff import TradeoffResult, TradeoffSuite
from evaluators.tradeoff.gap import standardised_gap
from evaluators.tradeoff.points import _Costs
from evaluators.tradeoff.sweep import OWN, Asked, Setting, numbers, plan
from vaebm.data import DataUnavailable, ImageSet
from vaebm.errors import UserError

N = 60  # images: more than the toy's features


class Pixel:
    """Scores an image by its first pixel."""

    def __init__(self) -> None:
        self.scored = 0

    def score(self, images: np.ndarray) -> np.ndarray:
        self.scored += len(images)
        return images[:, 0, 0, 0].astype(np.float64)


class Still(Painter, Pixel):
    """A sampler without steps, whose recipe can be changed."""

    options: ClassVar[dict[str, Any]] = {"temperature": 1.0}

    def __init__(self, **recipe: Any) -> None:
        Painter.__init__(self)
        Pixel.__init__(self)
        self.recipe = {**self.options, **recipe}
        self.counts = {"drawn": 0}  # of all recipes together

    def with_recipe(self, **changes: Any) -> "Still":
        if unknown := changes.keys() - self.recipe.keys():
            raise UserError(f"unknown option {min(unknown)}")
        if changes.get("temperature", 1.0) > 2:
            raise UserError("temperature 3.0: needed a number in [0, 2]")
        other = type(self)(**{**self.recipe, **changes})
        other.counts = self.counts
        return other

    def paint(self, seeds: Sequence[int], brightness: float) -> np.ndarray:
        self.counts["drawn"] += len(seeds)
        return Painter(brightness, 40 * self.recipe["temperature"]).sample(seeds)

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        return self.paint(seeds, 150)


class Chain(Still):
    """A chain from a brightness of 208 that falls by ``step_size`` with every step; the data's is 128."""

    options: ClassVar[dict[str, Any]] = {"steps": 4, "step_size": 10.0, "temperature": 1.0}

    def at(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        return self.paint(seeds, max(128.0, 208 - self.recipe["step_size"] * steps))

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        return self.at(seeds, self.recipe["steps"])

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        return {steps: self.at(seeds, steps) for steps in ladder}


class Terms(Chain):
    """One whose score is a sum with an energy in it."""

    def score_terms(self, images: np.ndarray) -> dict[str, np.ndarray]:
        x = images.astype(np.float64)
        return {"log_p": x[:, 0, 0, 0], "neg_energy": -x[:, 1, 1, 1]}

    def score(self, images: np.ndarray) -> np.ndarray:
        return sum(self.score_terms(images).values(), start=np.zeros(len(images)))


class Long(Chain):
    """One whose every length is a chain of its own."""

    total_steps = 100

    def sample_part(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        return self.at(seeds, steps)


def chosen(name: str, system: Any, **about: Any) -> SystemUnderTest:
    return subject(name, system, **{"sampling": dict(system.recipe), "protocol": {"score": "a pixel"}} | about)


def bench_of(tmp_path: Path, systems: Mapping[str, SystemUnderTest], **options: Any) -> Bench:
    defaults = {destination(flag): option["default"] for flag, option in TradeoffSuite.options.items()}
    return make_bench(tmp_path, systems, **defaults | {"num_images": N, "features": FEATURES} | options)


def run(tmp_path: Path, systems: Mapping[str, SystemUnderTest] | None = None, **options: Any) -> TradeoffResult:
    return TradeoffSuite().measure(bench_of(tmp_path, systems or {"chain": chosen("chain", Chain())}, **options))


def cell(result: TradeoffResult, system: str, metric: str, variant: str) -> Measurement:
    name = f"{metric}_toy_features.means" if metric in ("fd", "kd") else metric
    (row,) = [r for r in result.rows if (r.system, r.metric, r.variant) == (system, name, variant)]
    return row


def variants(result: TradeoffResult, system: str = "chain") -> list[str]:
    return list(dict.fromkeys(row.variant for row in result.rows if (row.system, row.role) == (system, "diagnostic")))


def test_the_toys_are_what_they_stand_for() -> None:
    assert isinstance(Chain(), StepSampler)
    assert isinstance(Chain(), TunableSampler)
    assert isinstance(Long(), LongSampler)
    assert isinstance(Terms(), TermScorer)
    assert not isinstance(Still(), StepSampler)


# --- which settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "rungs"), [(16, (0, 4, 8, 16, 32)), (4, (0, 1, 2, 4, 8)), (1, (0, 1, 2)), (3, (0, 1, 2, 3, 6)), (0, (0,))]
)
def test_the_ladder_stands_around_the_systems_own_number_of_steps(own: int, rungs: tuple[int, ...]) -> None:
    (series,) = plan(chosen("chain", Chain(steps=own)), Asked())
    assert (series.rungs, series.setting, series.changes) == (rungs, Setting(), {})


def test_a_long_chain_is_not_made_longer() -> None:
    assert [series.rungs for series in plan(chosen("long", Long()), Asked())] == [(25,), (50,), (100,)]


def test_a_long_chain_takes_the_numbers_of_steps_that_can_be_had() -> None:
    class Coarse(Long):
        def nearest_steps(self, steps: float) -> int:
            return 1 + 11 * max(1, round((steps - 1) / 11))

    assert [series.rungs for series in plan(chosen("long", Coarse()), Asked())] == [(23,), (45,), (100,)]


def test_step_sizes_make_a_grid_with_steps_and_temperatures_do_not() -> None:
    system = chosen("chain", Chain(step_size=8.0))
    found = plan(system, Asked((0, 2), (0.5, 1.0, 2.0), (0.7, 1.0)))
    assert [(s.setting, s.changes, s.rungs) for s in found] == [
        (Setting(), {}, (0, 2)),
        (Setting(step_size=0.5), {"step_size": 4.0}, (2,)),  # the start has no step size
        (Setting(step_size=2.0), {"step_size": 16.0}, (2,)),
        (Setting(temperature=0.7), {"temperature": 0.7}, (0, 2)),
    ]


@pytest.mark.parametrize("entry", ["step_size", "prior_step_size", "step_lr"])
def test_a_step_size_is_found_by_the_names_that_recipes_have_for_it(entry: str) -> None:
    system = chosen("still", Still(**{entry: 3.0}))
    assert [series.changes for series in plan(system, Asked(step_sizes=(2.0,)))] == [{}, {entry: 6.0}]


def test_variants_name_what_differs_from_the_recipe() -> None:
    assert Setting(8).variant == "steps=8"
    assert Setting(8, 0.5).variant == "steps=8, step_size=x0.5"
    assert Setting(0, None, 0.7).variant == "steps=0, temperature=0.7"
    assert Setting().variant == OWN


@pytest.mark.parametrize("text", ["abc", "0.5,x", "-1", "nan", "inf", "1;2", "0.5 1"])
def test_multiples_and_temperatures_that_are_no_numbers_are_refused(text: str, tmp_path: Path) -> None:
    for flag in ("--step-sizes", "--temperatures"):
        with pytest.raises(UserError, match=flag) as error:
            run(tmp_path, **{destination(flag): text})
        assert "\n" not in str(error.value)


def test_a_step_of_size_0_is_none_and_a_temperature_of_0_is_one() -> None:
    with pytest.raises(UserError, match=r"--step-sizes 0,1: found '0', needed positive numbers"):
        numbers("--step-sizes", "0,1", zero=False)
    assert numbers("--temperatures", "1,0,,1", zero=True) == (0.0, 1.0)
    assert numbers("--step-sizes", "", zero=False) == ()


@pytest.mark.parametrize("text", ["x", "-1", "1.5"])
def test_steps_that_are_no_numbers_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--steps"):
        run(tmp_path, steps=text)


def test_an_option_that_no_system_listens_to_is_refused(tmp_path: Path) -> None:
    still = {"still": chosen("still", Painted())}
    for name, value in (("steps", "2"), ("step_sizes", "2"), ("temperatures", "2")):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: no chosen system"):
            run(tmp_path, still, **{name: value})
    with pytest.raises(UserError, match="--outer cifar10"):
        run(tmp_path, outer="cifar10")
    with pytest.raises(UserError, match="nothing to measure"):
        TradeoffSuite().measure(bench_of(tmp_path, {}))


class Painted(Painter):
    """A sampler of which nothing can be changed."""

    recipe: ClassVar[dict[str, Any]] = {}


# --- what stands at a setting --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> TradeoffResult:
    systems = {
        "chain": chosen("chain", Chain()),
        "still": chosen("still", Still()),
        "painter": subject("painter", Painter()),
    }
    folder = tmp_path_factory.mktemp("tradeoff")
    return run(folder, systems, step_sizes="0.5,2", temperatures="0.5", num_images=200)


def test_every_setting_has_its_rows(grid: TradeoffResult) -> None:
    own, longer = (0, 1, 2, 4, 8), (1, 2, 4, 8)
    assert variants(grid) == [
        *(f"steps={k}" for k in own),
        *(f"steps={k}, step_size=x0.5" for k in longer),
        *(f"steps={k}, step_size=x2" for k in longer),
        *(f"steps={k}, temperature=0.5" for k in own),
    ]
    metrics = {"fd_toy_features.means", "kd_toy_features.means", "score_gap", *(f"auroc_{k}" for k in AUROCS)}
    for variant in variants(grid):
        assert {row.metric for row in grid.rows if (row.system, row.variant) == ("chain", variant)} == metrics
    assert {row.suite for row in grid.rows} == {"tradeoff"}
    assert {row.role for row in grid.rows} == {"diagnostic", "control"}


AUROCS = ("test_over_samples", "samples_over_outer")


def test_the_distance_is_that_of_the_images_of_the_setting(grid: TradeoffResult) -> None:
    expected = {
        "steps=4": Chain().at(range(200), 4),
        "steps=4, step_size=x2": Chain(step_size=20.0).at(range(200), 4),
        "steps=8, step_size=x0.5": Chain(step_size=5.0).at(range(200), 8),
        "steps=2, temperature=0.5": Chain(temperature=0.5).at(range(200), 2),
    }
    reference = means(pictures(400, seed=1))
    for variant, images in expected.items():
        direct = frechet_distance_of_features(means(images), reference)
        assert cell(grid, "chain", "fd", variant).value == pytest.approx(direct, rel=1e-4)
    falling = [cell(grid, "chain", "fd", f"steps={k}").value for k in (0, 1, 2, 4, 8)]
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) == 5


def test_the_protocol_says_the_whole_recipe_and_which_is_the_systems_own(grid: TradeoffResult) -> None:
    row = cell(grid, "chain", "fd", "steps=2, step_size=x0.5")
    assert row.protocol["sampling"] == {"steps": 2, "step_size": 5.0, "temperature": 1.0}
    assert (row.protocol["steps"], row.n, row.size, row.seed) == (2, 200, "mini", 0)
    assert row.provenance["fingerprint"] == {"weights": "chain"}
    own = {row.variant for row in grid.rows if row.system == "chain" and row.protocol.get("own_recipe")}
    assert own == {"steps=4"}
    assert cell(grid, "still", "fd", OWN).protocol["own_recipe"] is True
    assert cell(grid, "still", "fd", "temperature=0.5").protocol["sampling"] == {"temperature": 0.5}
    assert all(
        row.protocol["seconds_per_image"] > 0 for row in grid.rows if row.role != "control" and row.value is not None
    )
    assert all("seconds_per_image" not in row.settings for row in grid.rows)


def test_what_a_system_lacks_its_rows_say(grid: TradeoffResult) -> None:
    notes = lambda system, variant: {r.note for r in grid.rows if (r.system, r.variant) == (system, variant)}
    assert notes("still", "step_size=x0.5") == {"has no step size"}
    assert notes("painter", "temperature=0.5") == {"has no temperature", "has no scorer"}
    assert {cell(grid, "painter", name, OWN).note for name in ("score_gap", "auroc_test_over_samples")} == {
        "has no scorer"
    }
    assert cell(grid, "painter", "fd", OWN).value is not None
    assert not [row for row in grid.rows if row.system == "painter" and row.role == "control"]


def test_a_sampler_that_cannot_be_changed_or_refuses_says_so(tmp_path: Path) -> None:
    class Fixed(Painter):
        pass

    class Fussy(Chain):
        def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
            if bad := [steps for steps in ladder if steps % 2]:
                raise UserError(f"{bad[0]} steps: needed a multiple of 2")
            return super().sample_steps(seeds, ladder)

    systems = {
        "fixed": subject("fixed", Fixed(), sampling={"temperature": 1.0}),
        "fussy": chosen("fussy", Fussy()),
        "other": chosen("other", Still(), dataset="celeba64"),
        "absent": SystemUnderTest("absent", None, (0, 0, 0), reason="no weights for cifar10 are bundled"),
    }
    found = run(tmp_path, systems, temperatures="3", steps="3,4")
    reasons = lambda system: {
        (row.variant, row.note) for row in found.rows if row.system == system and row.value is None
    }
    assert ("temperature=3", "its recipe cannot be changed") in reasons("fixed")
    assert cell(found, "fixed", "fd", OWN).value is not None
    assert ("steps=4", "3 steps: needed a multiple of 2") in reasons("fussy")
    assert ("steps=4, temperature=3", "temperature 3.0: needed a number in [0, 2]") in reasons("fussy")
    assert {note for _, note in reasons("other")} == {"was trained on celeba64, not on cifar10"}
    assert {note for _, note in reasons("absent")} == {"no weights for cifar10 are bundled"}
    assert "fussy" not in found.strips


def test_a_chain_that_does_not_say_its_steps_needs_them_named(tmp_path: Path) -> None:
    silent = {"silent": chosen("silent", Chain(), sampling={})}
    assert "--steps" in cell(run(tmp_path, silent), "silent", "fd", OWN).note
    assert cell(run(tmp_path, silent, steps="2"), "silent", "fd", "steps=2").value is not None


def test_numbers_of_samples_and_spaces_are_those_asked_for(tmp_path: Path) -> None:
    few = run(tmp_path, num_images=40, steps="2")
    assert cell(few, "chain", "fd", "steps=2").n == 40
    assert cell(few, "chain", "auroc_test_over_samples", "steps=2").n == 80
    too_few = run(tmp_path, num_images=1, steps="2")
    assert "--num-images" in cell(too_few, "chain", "score_gap", "steps=2").note
    default = TradeoffSuite().measure(bench_of(tmp_path, {"c": chosen("c", Still())}, num_images=0))
    assert cell(default, "c", "fd", OWN).n == 500


def test_the_reference_and_the_features_are_those_asked_for(tmp_path: Path) -> None:
    images = Painter(90).sample(range(100))
    np.save(tmp_path / "dark.npy", images)
    row = cell(run(tmp_path, steps="8", reference=str(tmp_path / "dark.npy")), "chain", "fd", "steps=8")
    direct = frechet_distance_of_features(means(Chain().at(range(N), 8)), means(images))
    assert row.value == pytest.approx(direct, rel=1e-4)
    assert row.protocol["reference"] == "dark.npy"
    for flag, value in (("weights", "inception.pth"), ("resize", "legacy_pytorch")):
        with pytest.raises(UserError, match=f"--{flag}: only inception"):
            run(tmp_path, **{flag: value})
    with pytest.raises(UserError, match="--features"):
        run(tmp_path, features="")


# --- scores --------------------------------------------------------------------------------------------------------


def test_aurocs_are_those_of_gaussians(tmp_path: Path) -> None:
    """Pixels of data are N(128, 40^2), of samples N(b, 40^2): P(data > sample) = Phi((128 - b) / (40 sqrt 2))."""
    found = run(tmp_path, num_images=300, steps="0,4,8")
    for steps, brightness in ((0, 208), (4, 168), (8, 128)):
        exact = norm.cdf((128 - brightness) / (40 * math.sqrt(2)))
        row = cell(found, "chain", "auroc_test_over_samples", f"steps={steps}")
        assert row.low <= exact <= row.high
        assert row.value == pytest.approx(exact, abs=0.06)
        # The bench's outer set is its test set: the other way round.
        other = cell(found, "chain", "auroc_samples_over_outer", f"steps={steps}")
        assert other.value == pytest.approx(1 - row.value)
        gap = cell(found, "chain", "score_gap", f"steps={steps}")
        assert gap.value == pytest.approx((brightness - 128) / 40, abs=0.25)


def test_the_outer_set_is_the_one_asked_for(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, {"chain": chosen("chain", Chain())}, steps="8", outer="mnist")
    loaded = []

    def load(spec: str, **how: Any) -> ImageSet:
        loaded.append((spec, how.get("size"), how.get("channels")))
        found = bench.load_images(spec, **how)
        return replace(found, images=pictures(N, 40, seed=9)) if spec == "mnist" else found

    found = TradeoffSuite().measure(replace(bench, load_images=load))
    assert ("mnist", (8, 8), 3) in loaded
    row = cell(found, "chain", "auroc_samples_over_outer", "steps=8")
    samples = Chain().at(range(N), 8)
    assert row.value == pytest.approx(auroc(samples[:, 0, 0, 0], pictures(N, 40, seed=9)[:, 0, 0, 0]))
    assert row.protocol["outer"] == "mnist"
    (control,) = [r for r in found.rows if r.system == "chain" and r.role == "control"]
    held_out = pictures(N, seed=2)[:, 0, 0, 0]
    assert (control.metric, control.variant) == ("auroc_samples_over_outer", "test images")
    assert control.value == pytest.approx(auroc(held_out, pictures(N, 40, seed=9)[:, 0, 0, 0]))
    assert cell(run(tmp_path, steps="8"), "chain", "auroc_samples_over_outer", "steps=8").protocol["outer"] == "svhn"


def test_missing_sets_leave_their_cells_empty_and_say_why(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, {"chain": chosen("chain", Chain())}, steps="8")

    def load(spec: str, **how: Any) -> ImageSet:
        if spec == "svhn":
            raise DataUnavailable("svhn: not here; set --data-root")
        return bench.load_images(spec, **how)

    found = TradeoffSuite().measure(replace(bench, load_images=load))
    assert cell(found, "chain", "auroc_samples_over_outer", "steps=8").note == "svhn: not here; set --data-root"
    assert cell(found, "chain", "auroc_test_over_samples", "steps=8").value is not None


def test_the_energy_stands_alone_where_it_is_a_term(tmp_path: Path) -> None:
    systems = {"terms": chosen("terms", Terms()), "chain": chosen("chain", Chain())}
    found = run(tmp_path, systems, steps="0,8", num_images=150)
    images, held = Terms().at(range(150), 0).astype(float), pictures(150, seed=2).astype(float)
    energy = standardised_gap(images[:, 1, 1, 1], held[:, 1, 1, 1])
    row = cell(found, "terms", "energy_gap", "steps=0")
    assert (row.value, row.low, row.high) == pytest.approx((energy.value, energy.low, energy.high))
    whole = standardised_gap(images[:, 0, 0, 0] - images[:, 1, 1, 1], held[:, 0, 0, 0] - held[:, 1, 1, 1])
    assert cell(found, "terms", "score_gap", "steps=0").value == pytest.approx(whole.value)
    assert cell(found, "chain", "energy_gap", "steps=0").note == "its score has no term neg_energy"
    assert not [row for row in run(tmp_path, steps="8").rows if row.metric == "energy_gap"]


def test_a_score_of_another_size_of_image_says_so(tmp_path: Path) -> None:
    class Wide(Still):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            return np.repeat(super().sample(seeds), 2, axis=2)

    found = run(tmp_path, {"wide": chosen("wide", Wide(), image_shape=(8, 16, 3))})
    assert "8x8x3" in cell(found, "wide", "score_gap", OWN).note
    assert "8x16x3" in cell(found, "wide", "score_gap", OWN).note


gaussian = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(2, 30)))


@settings(max_examples=50, deadline=None)
@given(gaussian, st.floats(0.01, 100), st.floats(-1000, 1000))
def test_a_gap_has_no_unit(xy: np.ndarray, scale: float, shift: float) -> None:
    x, y = xy
    plain, moved, turned = (
        standardised_gap(f(x), f(y)) for f in (lambda v: v, lambda v: scale * v + shift, lambda v: -v)
    )
    assert (moved.value, moved.low, moved.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-6)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-plain.value, -plain.high, -plain.low))
    assert plain.low <= plain.value <= plain.high


def test_a_gaps_interval_covers() -> None:
    """Independent Gaussian scores, true gap 2: 1,000 intervals of 95 % hold it 950 times, give or take."""
    rng = np.random.default_rng(0)
    found = [standardised_gap(rng.normal(2, 1.5, 80), rng.normal(0, 1, 80)) for _ in range(1000)]
    assert 925 <= sum(each.low <= 2 <= each.high for each in found) <= 975


def test_a_gap_needs_a_spread() -> None:
    with pytest.raises(UserError, match="spread"):
        standardised_gap([1.0, 2.0], [3.0, 3.0])
    with pytest.raises(UserError, match="at least 2"):
        standardised_gap([1.0], [1.0, 2.0])
    value = standardised_gap([2.0, 2.0], [0.0, 2.0]).value
    assert value == pytest.approx(1 / math.sqrt(2))


# --- cost ------------------------------------------------------------------------------------------------------------


class Clock:
    """In place of a store: a chain of no steps takes ``begun`` seconds per image."""

    def __init__(self, begun: float) -> None:
        self.begun, self.asked = begun, list[int]()

    def images(self, key: Any, n: int, *_: Any, **__: Any) -> Any:
        self.asked.append(n)
        return SimpleNamespace(seconds=self.begun * n)


def costs(system: Any, passes: Sequence[tuple[tuple[int, ...], float]], begun: float = 0.5) -> _Costs:
    return _Costs(chosen("x", system), passes, 1000, Clock(begun))  # type: ignore[arg-type]


def test_a_pass_is_shared_out_by_its_images_and_steps() -> None:
    """Shown images 0.5 s each, steps 0.25 s each."""
    found = costs(Chain(), [((0, 2, 4), 3 * 0.5 + 4 * 0.25), ((2, 4), 2 * 0.5 + 4 * 0.25)])
    assert [found.of(k) for k in (0, 2, 4)] == pytest.approx([0.5, 1.0, 1.5])
    alone = costs(Chain(), [((0,), 0.4)])
    assert alone.of(0) == 0.4
    assert costs(Chain(), [((0, 4), 0.1)]).of(4) == 0.5  # less than timing can tell


def test_chains_of_their_own_share_by_all_their_steps_and_samplers_without_steps_by_passes() -> None:
    long = costs(Long(), [((25, 50, 100), 175 * 0.1)])
    assert [long.of(k) for k in (25, 100)] == pytest.approx([2.5, 10.0])
    still = costs(Still(), [((), 0.2), ((), 0.4)])
    assert still.of(0) == pytest.approx(0.3)
    assert costs(Chain(), []).of(3) == 0


def test_one_pass_makes_all_rungs_and_a_second_run_makes_none(tmp_path: Path) -> None:
    chain = Chain()
    systems = {"chain": chosen("chain", chain)}
    first = run(tmp_path, systems, steps="0,2,4", step_sizes="3")
    starts = min(N, 64)
    assert chain.counts["drawn"] == N * (3 + 2) + starts  # rungs of the two passes, and the timed start
    scored = chain.scored
    assert scored == N * (5 + 1)  # and the test set, which is the outer one, too
    again = run(tmp_path, systems, steps="0,2,4", step_sizes="3")
    assert (chain.counts["drawn"], chain.scored) == (N * 5 + starts, scored)
    assert [row.to_json() for row in again.rows] == [row.to_json() for row in first.rows]
    run(tmp_path, systems, steps="0,2,4", step_sizes="3", num_images=N + 20)
    assert chain.counts["drawn"] == N * 5 + starts + 20 * 5 + (64 - starts)


def test_a_system_that_says_nothing_of_itself_shares_no_samples(tmp_path: Path) -> None:
    for _ in range(2):
        chain = Chain()
        run(tmp_path, {"chain": chosen("chain", chain, fingerprint={})}, steps="2")
        assert chain.counts["drawn"] > N


def test_a_rerun_without_a_cache_reproduces_all_but_the_times(tmp_path: Path) -> None:
    systems = {"terms": chosen("terms", Terms()), "still": chosen("still", Still())}
    runs = []
    for name in ("a", "b"):
        bench = replace(bench_of(tmp_path / name, systems, steps="0,4", step_sizes="2"), cache=None)
        runs.append(Results("tradeoff", TradeoffSuite().measure(bench).rows))
    times = [[row.protocol.get("seconds_per_image") for row in run.rows] for run in runs]
    assert times[0] != times[1]
    found = differences(*runs)
    assert found.exit_code == 0
    assert {pair.verdict for pair in found.pairs} == {IDENTICAL}


def test_a_time_as_a_row_of_its_own_would_be_nobodys_fault() -> None:
    rows = [Measurement("tradeoff", "chain", "cifar10", "seconds_per_image", value) for value in (0.1, 0.2)]
    (pair,) = differences(*(Results("tradeoff", [row]) for row in rows)).pairs
    assert pair.verdict == TIME


def test_strips_are_the_first_chains_at_the_systems_own_settings(grid: TradeoffResult, tmp_path: Path) -> None:
    images, rungs = grid.strips["chain"]
    assert (images.shape, rungs) == ((8, 5, *SHAPE), (0, 1, 2, 4, 8))
    np.testing.assert_array_equal(images[:, 3], Chain().at(range(8), 4))
    assert set(grid.strips) == {"chain"}


def test_a_forecast_names_every_series_and_draws_a_block_of_each(tmp_path: Path) -> None:
    chain = Chain()
    systems = {"chain": chosen("chain", chain), "none": subject("none", object())}
    text = TradeoffSuite().forecast(bench_of(tmp_path, systems, steps="0,2", step_sizes="2", temperatures="3"))
    assert chain.counts["drawn"] == 16 * (2 + 1)  # a temperature of 3 is refused
    for line in ("draw chain, 2 steps ", "draw chain, 2 steps, step_size=x2", "score by chain", "extract toy_features"):
        assert line in text
    assert "none" not in text


def test_rows_survive_json(grid: TradeoffResult) -> None:
    for row in grid.rows:
        assert Measurement.from_json(json.loads(json.dumps(row.to_json(), allow_nan=False))) == row
