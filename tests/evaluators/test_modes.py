"""The mode-coverage suite on samplers of a few lines and a classifier that reads brightness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suite_bench import Painter, make_bench, subject

import evaluators.features
from evaluators.measurement import Measurement
from evaluators.metrics.modes import expected_kl, expected_modes
from evaluators.modes import ModesResult, ModesSuite
from vaebm.data import ImageSet
from vaebm.errors import UserError


class Stacked:
    """Draws triples of "digits": channel c of image i has brightness 25 d + 12. ``digits`` are those it knows."""

    def __init__(self, digits: int = 10, size: int = 32) -> None:
        self.digits, self.size = digits, size

    def sample(self, seeds: Any) -> np.ndarray:
        digits = np.stack([np.random.default_rng(seed).integers(self.digits, size=3) for seed in seeds])
        images = np.zeros((len(digits), self.size, self.size, 3), np.uint8)
        frame = (self.size - 28) // 2
        inside = slice(frame, frame + 28)
        images[:, inside, inside] = (25 * digits + 12)[:, None, None]
        return images


class Climbing(Stacked):
    """Knows one digit more with every step."""

    def sample_steps(self, seeds: Any, ladder: Any) -> dict[int, np.ndarray]:
        return {steps: Stacked(min(10, 2 + steps), self.size).sample(seeds) for steps in ladder}


class Reader:
    """Names the digit of a plane from its brightness; its frame must have been cropped."""

    fingerprint, protocol = {"weights": "reader"}, {"weights": "sha256:reader"}

    def extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.shape[1:] == (28, 28, 1)
        assert images.min() > 0
        digits = (images.mean((1, 2, 3)) - 12) / 25
        return {"logits": (-4 * (digits[:, None] - np.arange(10)) ** 2).astype(np.float32)}


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators.features, "load_extractor", lambda *_, **__: Reader())


def run(tmp_path: Path, systems: dict[str, object], n: int = 3000, **options: Any) -> ModesResult:
    subjects = {name: subject(name, system, image_shape=(32, 32, 3)) for name, system in systems.items()}
    bench = make_bench(tmp_path, subjects, **{"num_images": n, "dataset": "stacked_mnist"} | options)

    def load_images(spec: str, *, split: str = "test", n: int, **_: Any) -> ImageSet:
        assert (spec, split) == ("stacked_mnist", "test")
        labels = np.random.default_rng(3).integers(1000, size=min(n, 500))
        digits = np.stack([labels // 100, labels // 10 % 10, labels % 10], 1)
        images = np.zeros((len(labels), 32, 32, 3), np.uint8)
        images[:, 2:-2, 2:-2] = (25 * digits + 12)[:, None, None]
        return ImageSet(spec, images, "made here", split, labels=labels)

    object.__setattr__(bench, "load_images", load_images)
    return ModesSuite().measure(bench)


def cell(result: ModesResult, system: str, metric: str, variant: str = "") -> Measurement:
    (row,) = [row for row in result.rows if (row.system, row.metric, row.variant) == (system, metric, variant)]
    return row


def test_modes_and_kl_are_those_of_the_triples(tmp_path: Path) -> None:
    found = run(tmp_path, {"all": Stacked(), "half": Stacked(5)})
    counts = found.counts["all"]
    assert counts.sum() == 3000
    assert cell(found, "all", "modes").value == (counts > 0).sum()
    p = counts[counts > 0] / 3000
    assert cell(found, "all", "kl").value == pytest.approx((p * np.log(1000 * p)).sum())
    assert cell(found, "half", "modes").value == 125
    assert cell(found, "half", "kl").value == pytest.approx(np.log(8), abs=0.05)
    assert cell(found, "all", "kl").high < cell(found, "half", "kl").low


def test_the_floor_of_a_perfect_sampler_stands_beside(tmp_path: Path) -> None:
    found = run(tmp_path, {"all": Stacked()})
    for metric, expected in (("kl", expected_kl(3000, 1000)), ("modes", expected_modes(3000, 1000))):
        row = cell(found, "perfect sampler", metric)
        assert (row.value, row.role) == (expected, "control")
        assert cell(found, "all", metric).value == pytest.approx(expected, rel=0.1)
    assert cell(found, "all", "kl").protocol["kl_floor"] == expected_kl(3000, 1000)


def test_test_images_are_a_control_and_check_the_classifier(tmp_path: Path) -> None:
    found = run(tmp_path, {"all": Stacked()})
    agreement = cell(found, "test images", "classifier_agreement")
    assert (agreement.value, agreement.n, agreement.role) == (1.0, 500, "control")
    assert cell(found, "test images", "kl").n == 500


def test_confidence_is_the_mean_probability_of_the_named_digits(tmp_path: Path) -> None:
    found = run(tmp_path, {"all": Stacked()}, n=400)
    weights = np.exp(-4.0 * np.arange(-9, 10) ** 2)
    middle = 1 / weights[5:-5].sum()
    row = cell(found, "all", "classifier_confidence")
    assert row.value == pytest.approx(middle, abs=0.01)
    assert row.role == "diagnostic"


def test_twenty_eight_pixels_need_no_cropping_and_others_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", Stacked(size=28).sample(range(300)))
    np.save(tmp_path / "odd.npy", Stacked(size=30).sample(range(300)))
    found = run(tmp_path, {"all": Stacked()}, n=300, samples=[f"small={tmp_path / 'small.npy'}"])
    for metric in ("modes", "kl"):
        assert cell(found, "small", metric).value == cell(found, "all", metric).value
    with pytest.raises(UserError, match="--samples odd: found 30x30"):
        run(tmp_path, {"all": Stacked()}, n=300, samples=[f"odd={tmp_path / 'odd.npy'}"])


def test_steps_give_a_curve(tmp_path: Path) -> None:
    found = run(tmp_path, {"chain": Climbing()}, n=500, steps="0,2,8")
    values = [cell(found, "chain", "modes", f"steps={steps}").value for steps in (0, 2, 8)]
    assert values[0] < values[1] < values[2]
    assert values[0] <= 8
    assert set(found.counts) == {"chain"}


def test_what_has_no_images_or_no_sampler_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", features=np.zeros((9, 4), np.float32) + np.arange(9)[:, None])
    found = run(tmp_path, {"scorer": object()}, n=300, samples=[f"features={tmp_path / 'features.npz'}"])
    assert cell(found, "scorer", "kl").note == "has no sampler"
    assert "counted in images" in cell(found, "features", "modes").note
    assert {row.value for row in found.rows if row.system in ("scorer", "features")} == {None}


def test_an_unknown_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--dataset stacked_minst.*Did you mean 'stacked_mnist'"):
        run(tmp_path, {"all": Painter()}, dataset="stacked_minst")


def test_default_number_of_samples_is_the_fields(tmp_path: Path) -> None:
    found = run(tmp_path, {"few": Stacked(2, size=28)}, n=0)
    assert cell(found, "few", "kl").n == 26_000
    assert len(found.samples["few"]) == 100


def test_digits_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, {"one": Stacked()}, 30)
    monkeypatch.setattr(Reader, "extract", lambda *_: pytest.fail("was read already"))
    again = run(tmp_path, {"one": Stacked()}, 30)
    assert [row.value for row in again.rows] == [row.value for row in first.rows]
    assert np.array_equal(again.counts["one"], first.counts["one"])
