"""Precision, recall, density and coverage: values of the peers, which is which, ties, intervals and memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.metrics.kid import kid
from evaluators.metrics.prdc import PRDC, prdc, prdc_and_kid
from vaebm.errors import UserError

NAMES = ("precision", "recall", "density", "coverage")


def draws(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Points near a subspace of 8 dimensions."""
    basis = np.random.default_rng(99).normal(size=(8, d)) / 3
    rng = np.random.default_rng(seed)
    return (rng.normal(0, scale, (n, 8)) @ basis + 0.1 * rng.normal(size=(n, d)) + 3).astype(np.float32)


def values(found: PRDC) -> dict[str, float]:
    return {name: getattr(found, name).value for name in NAMES}


def cut_into(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    cut = lambda n, size=block: (slice(i, min(i + size, n)) for i in range(0, n, size))
    monkeypatch.setattr("evaluators.metrics.pairs.blocks", cut)


def written_out(real: np.ndarray, fake: np.ndarray, k: int, k_precision: int) -> dict[str, float]:
    """The definitions, with the whole matrices in float64."""
    distances = lambda a, b: ((a[:, None].astype(float) - b[None]) ** 2).sum(-1)
    radius = lambda a, k: np.sort(distances(a, a) + np.diag(np.full(len(a), np.inf)), 1)[:, k - 1]
    between = distances(real, fake)
    inside = between < radius(real, k)[:, None]
    return {
        "precision": (between <= radius(real, k_precision)[:, None]).any(0).mean(),
        "recall": (between <= radius(fake, k_precision)).any(1).mean(),
        "density": inside.sum(0).mean() / k,
        "coverage": inside.any(1).mean(),
    }


@pytest.mark.parametrize("d", [2, 128, 129, 512])
@pytest.mark.parametrize("scale", [0.8, 1.1])
def test_equals_the_prdc_package(d: int, scale: float) -> None:
    peer = pytest.importorskip("prdc")
    real, fake = draws(310, d, 0), draws(257, d, 1, scale)
    for k in (3, 5):
        theirs = peer.compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=k)
        assert values(prdc(real, fake, k=k, k_precision=k)) == pytest.approx(theirs, abs=1e-12)
    mixed = values(prdc(real, fake))  # k = 5 and k_precision = 3
    assert mixed["density"] == pytest.approx(theirs["density"], abs=1e-12)
    assert mixed["precision"] <= theirs["precision"]  # smaller balls


def test_equals_torch_fidelity() -> None:
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = draws(310, 200, 0), draws(257, 200, 1, 0.9)
    for save_cpu_ram in (False, True):
        theirs = peer.prc_features_to_metric(
            *(torch.from_numpy(x.astype(np.float64)) for x in (fake, real)), save_cpu_ram=save_cpu_ram, verbose=False
        )
        found = values(prdc(real, fake))
        # It takes means in float32.
        assert {name: found[name] for name in NAMES[:2]} == pytest.approx(
            {name: theirs[name] for name in NAMES[:2]}, abs=1e-6
        )


@pytest.mark.parametrize("block", [1, 7, 50])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    real, fake = draws(61, 140, 2), draws(50, 140, 3)
    whole = prdc(real, fake)
    cut_into(monkeypatch, block)
    assert prdc(real, fake) == whole


def test_float32_products_give_the_float64_values_far_from_the_origin() -> None:
    # Differences of 1e-3 at 1e3: |a|^2 + |b|^2 - 2 a . b in float32 would know nothing of them.
    real = 1000 + 1e-3 * np.random.default_rng(0).normal(size=(80, 150))
    fake = 1000 + 1e-3 * np.random.default_rng(1).normal(size=(70, 150))
    assert values(prdc(real, fake)) == pytest.approx(written_out(real, fake, 5, 3), abs=1e-12)


# --- with the kernel distance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [16, 300])
def test_both_together_are_each_alone(d: int) -> None:
    real, fake = draws(2310, d, 0), draws(1057, d, 1, 1.1)
    both = prdc_and_kid(real, fake, k=4, k_precision=6)
    assert both == (prdc(real, fake, k=4, k_precision=6), kid(fake, real))


def test_one_set_against_itself_counts_pairs_with_oneself() -> None:
    real = draws(60, 140, 0)
    assert prdc_and_kid(real, real) == prdc_and_kid(real, real.copy()) == (prdc(real, real), kid(real, real))


def test_together_refuse_what_either_does() -> None:
    real = draws(10, 140, 0)
    for fake, message in (
        (real[:3], "found k_precision = 3"),
        (1e15 * real, "overflows float32"),
        (real * np.nan, "fake images: 10 of 10 images have NaN"),
    ):
        with pytest.raises(UserError, match=message):
            prdc_and_kid(real, fake)


# --- which is which ------------------------------------------------------------------------------------------------


def two_modes(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)) + 20 * rng.integers(2, size=(n, 1))


def test_a_model_of_one_mode_keeps_precision_and_loses_recall() -> None:
    real = two_modes(400, 0)
    one = np.random.default_rng(1).normal(size=(400, 4))
    found = prdc(real, one)
    lower = np.mean(real.mean(1) < 10)
    assert found.precision.value > 0.85
    assert found.recall.value == pytest.approx(lower, abs=0.06)
    assert found.recall.high < found.precision.low
    assert found.coverage.value == pytest.approx(lower, abs=0.03)


def test_a_model_of_a_mode_too_many_loses_precision_and_keeps_recall() -> None:
    fake = two_modes(400, 2)
    found = prdc(np.random.default_rng(3).normal(size=(400, 4)), fake)
    assert found.recall.value > 0.85
    assert found.precision.value == pytest.approx(np.mean(fake.mean(1) < 10), abs=0.06)
    assert found.precision.high < found.recall.low


def test_one_image_over_and_over_has_no_recall() -> None:
    real = two_modes(200, 4)
    found = prdc(real, np.repeat(real[:1] + 0.01, 200, axis=0))
    assert found.precision.value == 1
    assert found.recall.value == 0
    assert 0 < found.recall.high < 0.02
    assert found.coverage.value < 0.05


def test_extremes() -> None:
    real = two_modes(100, 5)
    assert values(prdc(real, real.copy())) == pytest.approx(dict.fromkeys(NAMES, 1))
    assert values(prdc(real, real + 1e4)) == dict.fromkeys(NAMES, 0.0)


def test_density_of_the_real_distribution_is_one() -> None:
    rng = np.random.default_rng(6)
    found = [prdc(rng.normal(size=(150, 3)), rng.normal(size=(150, 3))).density.value for _ in range(60)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / np.sqrt(60))


# --- ties ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(2, 5), d=st.sampled_from([1, 2, 5, 130]))
def test_ties_and_duplicates_follow_the_definitions(seed: int, levels: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    # A lattice: whole-number distances, most of them equal to some radius, many images equal.
    real, fake = rng.integers(levels, size=(23, d)), rng.integers(levels, size=(17, d))
    real[:, 5:], fake[:, 5:] = 0, 0
    assert values(prdc(real, fake, k=4, k_precision=2)) == written_out(real, fake, 4, 2)


def test_constant_features_are_defined() -> None:
    found = prdc(np.ones((30, 200)), np.ones((30, 200)))
    # All radii are 0: at a radius is inside (<=) for precision and recall, outside (<) for density and coverage.
    assert values(found) == {"precision": 1, "recall": 1, "density": 0, "coverage": 0}


# --- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.85, 1.15])
def test_intervals_cover_what_repeats_give(scale: float) -> None:
    rng = np.random.default_rng(round(scale * 100))
    runs = [prdc(rng.normal(size=(150, 6)), rng.normal(0, scale, (150, 6))) for _ in range(150)]
    for name in NAMES:
        found = [getattr(run, name) for run in runs]
        mean, sd = np.mean([e.value for e in found]), np.std([e.value for e in found])
        assert np.mean([e.low <= mean <= e.high for e in found]) > 0.88, name
        assert np.median([(e.high - e.low) / 3.92 for e in found]) < 2.8 * sd, name
        assert all(0 <= e.low <= e.value <= e.high for e in found)
        assert name == "density" or all(e.high <= 1 for e in found)


def test_intervals_shrink_with_the_images_of_both_sets() -> None:
    width = lambda e: e.high - e.low
    small = prdc(draws(200, 16, 0), draws(200, 16, 1, 0.9))
    large = prdc(draws(1800, 16, 0), draws(1800, 16, 1, 0.9))
    for name in NAMES:
        assert width(getattr(large, name)) < 0.6 * width(getattr(small, name))


# --- memory and bad input ------------------------------------------------------------------------------------------


def test_blocks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    n, d, block = 3000, 64, 100
    real, fake = draws(n, d, 0), draws(n, d, 1)
    cut_into(monkeypatch, block)
    tracemalloc.start()
    prdc(real, fake)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    matrix = n * n * 4  # one matrix of distances in float32, of which peers keep three
    assert peak < matrix / 6


@pytest.mark.parametrize(
    ("k", "k_precision", "message"),
    [
        (10, 3, "found k = 10, 10 real and 8 fake images, needed 1 <= k < the number of images"),
        (5, 8, "found k_precision = 8, 10 real and 8 fake images"),
        (0, 3, "found k = 0"),
        (5, 0, "found k_precision = 0"),
    ],
)
def test_k_outside_its_range_is_refused(k: int, k_precision: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prdc(draws(10, 4, 0), draws(8, 4, 1), k=k, k_precision=k_precision)


def test_bad_features_are_named() -> None:
    good, bad = draws(10, 4, 0), draws(10, 4, 0)
    bad[3] = np.inf
    with pytest.raises(UserError, match=r"features of the real images: 1 of 10 images .* position 3"):
        prdc(bad, good)
    with pytest.raises(UserError, match="features of the fake images"):
        prdc(good, bad)
    with pytest.raises(UserError, match="found 4 and 3 features per image"):
        prdc(good, good[:, :3])
    with pytest.raises(UserError, match="found 0 images"):
        prdc(good, good[:0])
