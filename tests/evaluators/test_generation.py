"""The generation suite on systems of a few lines: what is measured, what takes effect, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_bench import FEATURES, Climber, Painter, make_bench, means, pictures, subject

from evaluators.generation import GenerationResult, GenerationSuite
from evaluators.measurement import Measurement
from evaluators.metrics.frechet import frechet_distance_of_features
from evaluators.quality import METRICS, OF_FEATURES
from vaebm.data import DataUnavailable
from vaebm.errors import UserError

SYSTEMS = {
    "same": subject("same", Painter()),
    "dark": subject("dark", Painter(90)),
    "flat": subject("flat", Painter(128, 4)),
    "nothing": subject("nothing", object()),
}


def run(tmp_path: Path, systems: Any = None, **options: Any) -> GenerationResult:
    given = {"num_images": 200, "features": FEATURES} | options
    return GenerationSuite().measure(make_bench(tmp_path, SYSTEMS if systems is None else systems, **given))


def cell(result: GenerationResult, system: str, metric: str, variant: str = "") -> Measurement:
    (row,) = [
        r for r in result.rows if (r.system, r.metric, r.variant) == (system, f"{metric}_toy_features.means", variant)
    ]
    return row


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> GenerationResult:
    return run(tmp_path_factory.mktemp("generation"))


def test_every_metric_ranks_what_it_should(result: GenerationResult) -> None:
    value = lambda system, metric: cell(result, system, metric).value
    for metric in ("fd", "kd"):
        assert value("same", metric) < value("dark", metric)
        assert value("same", metric) < value("flat", metric)
        assert cell(result, "same", metric).high < cell(result, "dark", metric).low
    assert value("same", "precision") > 0.6 > value("dark", "precision")
    assert value("same", "recall") > 0.6 > value("dark", "recall")
    assert value("same", "coverage") > 0.7 > value("flat", "coverage")
    assert value("same", "density") > value("dark", "density")
    assert abs(value("same", "nearest_ratio") - 1) < 0.1


def test_the_frechet_distance_is_that_of_the_very_images(result: GenerationResult) -> None:
    samples, reference = Painter().sample(range(200)), pictures(400, seed=1)
    direct = frechet_distance_of_features(means(samples), means(reference))
    assert cell(result, "same", "fd").value == pytest.approx(direct, rel=1e-5)  # features are kept in float32


def test_held_out_images_are_the_control(result: GenerationResult) -> None:
    row = cell(result, "test images", "fd")
    assert (row.role, row.n) == ("control", 200)
    assert row.value < cell(result, "dark", "fd").value


def test_protocol_and_provenance_say_what_was_done(result: GenerationResult) -> None:
    row = cell(result, "same", "precision")
    assert row.protocol["features"] == "toy_features.means"
    assert (row.protocol["reference"], row.protocol["n_reference"], row.protocol["k"]) == ("cifar10 train", 400, 3)
    assert row.protocol["sampling"] == {"steps": 8}
    assert (row.n, row.size, row.seed) == (200, "mini", 0)
    assert row.provenance["fingerprint"] == {"weights": "same"}
    assert row.provenance["features"]["fingerprint"] == "toy"


def test_a_system_without_sampler_says_so(result: GenerationResult) -> None:
    assert {(row.value, row.note) for row in result.rows if row.system == "nothing"} == {(None, "has no sampler")}


def test_weights_for_another_data_set_are_not_scored(tmp_path: Path) -> None:
    painter = Painter()
    found = run(tmp_path, {"other": subject("other", painter, dataset="celeba64")})
    notes = {row.note for row in found.rows if row.system == "other"}
    assert notes == {"was trained on celeba64, not on cifar10"}
    assert painter.calls == 0


def test_metrics_are_those_asked_for(tmp_path: Path) -> None:
    found = run(tmp_path, {"same": SYSTEMS["same"]}, metrics="kd,recall")
    assert {row.metric for row in found.rows} == {"kd_toy_features.means", "recall_toy_features.means"}
    by_default = {
        row.metric.removesuffix("_toy_features.means") for row in run(tmp_path, {"same": SYSTEMS["same"]}).rows
    }
    in_pixels = {"authenticity_pixels", "nearest_ratio_pixels"}
    assert by_default == set(METRICS) - {"is", "sfid"} | in_pixels  # these features have no classes and no places
    empty = run(tmp_path, {"same": SYSTEMS["same"]}, metrics="is,sfid")
    assert {row.value for row in empty.rows} == {None}
    assert all("class probabilities" in row.note or "spatial" in row.note for row in empty.rows)


def test_too_few_images_for_a_covariance_leave_their_cell_empty(tmp_path: Path) -> None:
    found = run(tmp_path, {"same": SYSTEMS["same"]}, num_images=20)
    assert cell(found, "same", "fd").value is None
    assert "24" in cell(found, "same", "fd").note
    assert cell(found, "same", "kd").value is not None


def test_samples_are_drawn_once_and_grow(tmp_path: Path) -> None:
    painter = Painter()
    systems = {"same": subject("same", painter)}
    first = run(tmp_path, systems, num_images=100)
    assert painter.calls == 100
    again = run(tmp_path, systems, num_images=100)
    assert painter.calls == 100
    assert [row.to_json() for row in again.rows] == [row.to_json() for row in first.rows]
    run(tmp_path, systems, num_images=160)
    assert painter.calls == 160
    run(tmp_path, {"same": subject("same", painter, sampling={"steps": 9})}, num_images=100)
    assert painter.calls == 260  # another recipe
    run(tmp_path, {"same": subject("same", painter, fingerprint={})}, num_images=100)
    run(tmp_path, {"same": subject("same", painter, fingerprint={})}, num_images=100)
    assert painter.calls == 460  # it does not say what it is, so nothing is kept


def test_steps_give_a_curve(tmp_path: Path) -> None:
    climber = Climber()
    found = run(tmp_path, {"chain": subject("chain", climber)}, steps="8,0,4", metrics="fd", num_images=100)
    curve = [cell(found, "chain", "fd", f"steps={steps}") for steps in (0, 4, 8)]
    assert curve[0].value > curve[1].value > curve[2].value
    assert [row.protocol["steps"] for row in curve] == [0, 4, 8]
    assert [row.role for row in curve] == ["diagnostic"] * 3
    assert 0 == curve[0].protocol["seconds_per_image"] < curve[1].protocol["seconds_per_image"]
    direct = frechet_distance_of_features(means(climber.sample_steps(range(100), [4])[4]), means(pictures(400, seed=1)))
    assert curve[1].value == pytest.approx(direct, rel=1e-5)


@pytest.mark.parametrize("kind", ["npy", "npz", "statistics", "features"])
def test_samples_of_ones_own_measure_as_a_system(tmp_path: Path, kind: str) -> None:
    images = Painter().sample(range(200))
    features = means(images).astype(np.float32)
    path = tmp_path / f"mine.{'npy' if kind == 'npy' else 'npz'}"
    arrays = {
        "npz": {"images": images},
        "statistics": {"mu": features.mean(0, dtype=np.float64), "sigma": np.cov(features.astype(np.float64).T)},
        "features": {"features": features},
    }
    np.save(path, images) if kind == "npy" else np.savez(path, **arrays[kind])
    found = run(tmp_path, {"same": SYSTEMS["same"]}, samples=[f"mine={path}"])
    mine, same = cell(found, "mine", "fd"), cell(found, "same", "fd")
    assert mine.value == pytest.approx(same.value, rel=1e-6)
    if kind == "statistics":
        assert mine.low is None
        assert cell(found, "mine", "kd").value is None
        assert "mean and a covariance only" in cell(found, "mine", "kd").note
    else:
        assert (mine.low, mine.high) == pytest.approx((same.low, same.high), rel=1e-5)
        assert cell(found, "mine", "recall").value == cell(found, "same", "recall").value


def test_all_of_ones_own_samples_are_taken_unless_a_number_is_given(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", Painter().sample(range(90)))
    options = {"samples": [f"mine={tmp_path / 'mine.npy'}"], "metrics": "kd"}
    assert cell(run(tmp_path, {}, num_images=0, **options), "mine", "kd").n == 90
    assert cell(run(tmp_path, {}, num_images=40, **options), "mine", "kd").n == 40


@pytest.mark.parametrize("kind", ["npy", "statistics", "features"])
def test_a_reference_of_ones_own(tmp_path: Path, kind: str) -> None:
    images = pictures(400, seed=1)
    features = means(images).astype(np.float32)
    path = tmp_path / f"reference.{'npy' if kind == 'npy' else 'npz'}"
    arrays = {
        "statistics": {"mu": features.mean(0, dtype=np.float64), "sigma": np.cov(features.astype(np.float64).T)},
        "features": {"features": features},
    }
    np.save(path, images) if kind == "npy" else np.savez(path, **arrays[kind])
    named = run(tmp_path, {"same": SYSTEMS["same"]})
    own = run(tmp_path, {"same": SYSTEMS["same"]}, reference=str(path))
    assert cell(own, "same", "fd").value == pytest.approx(cell(named, "same", "fd").value, rel=1e-6)
    assert cell(own, "same", "fd").protocol["reference"] == path.name
    if kind == "statistics":
        assert "mean and a covariance only" in cell(own, "same", "kd").note
    else:
        assert cell(own, "same", "kd").value == pytest.approx(cell(named, "same", "kd").value, rel=1e-4)
    test = run(tmp_path, {"same": SYSTEMS["same"]}, reference="cifar10:test")
    assert cell(test, "same", "fd").protocol["reference"] == "cifar10 test"


def test_without_a_reference_the_rows_say_what_is_missing(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"same": SYSTEMS["same"]}, train=0, num_images=100, features=FEATURES)
    found = GenerationSuite().measure(bench)
    assert {row.value for row in found.rows} == {None}
    assert all("--data-root" in row.note for row in found.rows)
    assert len(found.samples["same"]) == 64


def test_copies_of_training_images_are_found_and_shown(tmp_path: Path) -> None:
    np.save(tmp_path / "copies.npy", pictures(400, seed=1)[:100])
    found = run(tmp_path, {"same": SYSTEMS["same"]}, samples=[f"copies={tmp_path / 'copies.npy'}"])
    assert cell(found, "copies", "authenticity").value == 0
    assert cell(found, "copies", "nearest_ratio").value == 0
    assert cell(found, "same", "authenticity").value > 0.3
    pixels = {(row.system, row.metric): row for row in found.rows if row.metric.endswith("_pixels")}
    assert pixels["copies", "authenticity_pixels"].value == pixels["copies", "nearest_ratio_pixels"].value == 0
    assert pixels["same", "nearest_ratio_pixels"].value == pytest.approx(1, abs=0.05)
    assert pixels["test images", "nearest_ratio_pixels"].value == 1
    assert pixels["test images", "nearest_ratio_pixels"].role == "control"
    assert pixels["same", "authenticity_pixels"].protocol["n_reference"] == 400
    samples, nearest = found.neighbours["copies"]
    assert nearest.shape == (8, 5, 8, 8, 3)
    np.testing.assert_array_equal(samples, nearest[:, 0])


def test_a_dry_run_says_what_it_costs_and_draws_no_run(tmp_path: Path) -> None:
    painter = Painter()
    bench = make_bench(tmp_path, {"same": subject("same", painter)}, num_images=5000, features=FEATURES)
    text = GenerationSuite().forecast(bench)
    assert "draw same" in text
    assert "5,000" in text
    assert painter.calls < 100


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"metrics": "fd,recal"}, ("--metrics recal", "Did you mean 'recall'?")),
        ({"features": "incepton"}, ("incepton", "Did you mean 'inception'?")),
        ({"features": ""}, ("--features", "found nothing")),
        ({"resize": "legacy_pytorch"}, ("--resize", "inception")),
        ({"weights": "x.pth"}, ("--weights", "inception")),
        ({"steps": "0,many"}, ("--steps 0,many", "needed numbers")),
        ({"steps": "0,4"}, ("--steps", "no chosen system has chain steps")),
        ({"reference": "cifar10"}, ("--reference cifar10", "cifar10:train")),
        ({"reference": "nowhere.npy"}, ("--reference", "nowhere.npy")),
        ({"samples": ["mine=nowhere.npy"]}, ("nowhere.npy",)),
        ({"samples": ["same=nowhere.npy"]}, ("--samples same", "another name")),
        ({"samples": ["nowhere.npy"]}, ("--samples nowhere.npy", "NAME=PATH")),
    ],
    ids=str,
)
def test_a_wrong_word_is_named(tmp_path: Path, options: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path, {"same": SYSTEMS["same"]}, **options)
    for part in parts:
        assert part in str(error.value)


def test_options_of_features_reach_their_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def unavailable(name: str, **how: Any) -> None:
        seen[name] = how
        raise DataUnavailable(f"no weights of {name}")

    monkeypatch.setattr("evaluators.spaces.load_extractor", unavailable)
    options = {"features": "inception,cifar10net", "weights": "w.pth", "resize": "legacy_pytorch", "batch_size": 7}
    found = run(tmp_path, {"same": SYSTEMS["same"]}, num_images=20, offline=False, metrics="fd", **options)
    shared = {"device": "cpu", "batch_size": 7, "download": True}
    assert seen == {
        "inception": {**shared, "weights": Path("w.pth"), "resize": "legacy_pytorch"},
        "cifar10net": shared,
    }
    notes = {row.metric: row.note for row in found.rows if row.system == "same"}
    assert notes == {"fid": "no weights of inception", "fd_cifar10net": "no weights of cifar10net"}


def test_features_of_another_space_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", features=np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32))
    with pytest.raises(UserError, match=r"found 7 features, toy_features\.means has 24"):
        run(tmp_path, {"same": SYSTEMS["same"]}, samples=[f"mine={tmp_path / 'other.npz'}"])


def test_samples_of_another_size_than_the_reference_carry_a_note(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", pictures(100, seed=5).repeat(2, axis=1).repeat(2, axis=2))
    found = run(tmp_path, {"same": SYSTEMS["same"]}, samples=[f"large={tmp_path / 'large.npy'}"])
    assert "sizes: samples are 16x16x3, the reference is 8x8x3" in cell(found, "large", "fd").note
    assert cell(found, "same", "fd").note == ""


def test_what_looks_wrong_with_samples_stands_on_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "unit.npy", (pictures(100, seed=5) > 128).astype(np.uint8))
    found = run(tmp_path, {"same": SYSTEMS["same"]}, samples=[f"unit={tmp_path / 'unit.npy'}"])
    assert "range [0, 1]" in cell(found, "unit", "fd").note
    assert "warning: unit: range [0, 1]" in capsys.readouterr().err


def test_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to measure"):
        run(tmp_path, {})


def test_metrics_of_features_are_known() -> None:
    assert set(METRICS) > OF_FEATURES


def test_nearest_training_images_in_pixels_are_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systems = {"one": subject("one", Painter())}
    bench = make_bench(tmp_path, systems, features=FEATURES, num_images=40, metrics="authenticity,nearest_ratio")
    found = [row.to_json() for row in GenerationSuite().measure(bench).rows if row.metric.endswith("_pixels")]
    assert len(found) == 4
    monkeypatch.setattr("evaluators.pixels._measure", lambda *_: pytest.fail("was searched already"))
    again = [row.to_json() for row in GenerationSuite().measure(bench).rows if row.metric.endswith("_pixels")]
    assert again == found
    with pytest.raises(pytest.fail.Exception):  # other samples are searched anew
        GenerationSuite().measure(
            make_bench(tmp_path, {"two": subject("two", Painter(90))}, features=FEATURES, num_images=40)
        )
