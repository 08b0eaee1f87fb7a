"""The kernel distance: its formula, its standard error, and the subset form of the field."""

import math

import numpy as np
import pytest

from evaluators.metrics.intervals import Estimate
from evaluators.metrics.kid import kid, kid_subsets
from vaebm.errors import UserError


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Non-negative, of scale 1, as pooled activations are."""
    return np.maximum(np.random.default_rng(seed).normal(0.3 + shift, 0.5, (n, d)), 0).astype(np.float32)


def written_out(x: np.ndarray, y: np.ndarray, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    kernel = lambda a, b: (a @ b.T * (1 / x.shape[1] if gamma is None else gamma) + coef0) ** degree
    m, n = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return within - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("kernel", [{}, {"degree": 1}, {"degree": 2, "gamma": 0.3, "coef0": 0.0}])
def test_equals_the_formula_in_float64_with_unequal_sizes(kernel: dict) -> None:
    x, y = features(203, 64, 0, 0.05), features(117, 64, 1)
    assert kid(x, y, **kernel).value == pytest.approx(written_out(x, y, **kernel), rel=2e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(203, 64, 0, 0.05), features(117, 64, 1)
    whole = kid(x, y)
    for size in (200, 117, 50, 7):
        cut = lambda n, size=size: (slice(i, min(i + size, n)) for i in range(0, n, size))
        monkeypatch.setattr("evaluators.metrics.pairs.blocks", cut)
        found = kid(x, y)
        assert found.value == pytest.approx(whole.value, rel=1e-5)
        assert found.high - found.low == pytest.approx(whole.high - whole.low, rel=1e-5)


def test_standard_error_is_the_linear_part() -> None:
    x, y = features(41, 8, 2, 0.3).astype(float), features(29, 8, 3).astype(float)
    kernel = lambda a, b: (a @ b / 8 + 1) ** 3
    m, n = len(x), len(y)
    a = [
        np.mean([kernel(x[i], x[j]) for j in range(m) if j != i]) - np.mean([kernel(x[i], b) for b in y])
        for i in range(m)
    ]
    b = [
        np.mean([kernel(y[i], y[j]) for j in range(n) if j != i]) - np.mean([kernel(y[i], b) for b in x])
        for i in range(n)
    ]
    s = 2 * math.sqrt(np.var(a, ddof=1) / m + np.var(b, ddof=1) / n)
    found = kid(x, y)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * s, rel=1e-4)
    assert found.high - found.value == pytest.approx(found.value - found.low)


def test_interval_covers_the_closed_form() -> None:
    # Degree 2, coef0 0, gamma 1: MMD^2 = |E xx' - E yy'|_F^2, which for N(0, s^2 I) in d dimensions is d (s_x^2 - s_y^2)^2.
    rng = np.random.default_rng(4)
    d, sd, runs = 4, 1.3, 800
    true = d * (sd**2 - 1) ** 2
    found = [
        kid(rng.normal(0, sd, (150, d)), rng.normal(0, 1, (200, d)), degree=2, gamma=1, coef0=0) for _ in range(runs)
    ]
    assert 0.92 <= np.mean([e.low <= true <= e.high for e in found]) <= 0.97
    values = np.array([e.value for e in found])
    assert abs(values.mean() - true) < 4 * values.std() / math.sqrt(runs)  # unbiased
    assert np.mean([(e.high - e.low) / 3.92 for e in found]) == pytest.approx(values.std(), rel=0.1)


def test_interval_of_one_distribution_covers_zero_and_is_not_too_wide() -> None:
    found = [kid(features(150, 16, 2 * s), features(150, 16, 2 * s + 1)) for s in range(400)]
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 4 * values.std() / 20
    assert values.min() < 0  # unbiased, so it falls below
    assert np.mean([e.low <= 0 <= e.high for e in found]) > 0.95
    assert 1.2 < np.mean([(e.high - e.low) / 3.92 for e in found]) / values.std() < 1.7


def test_symmetry_and_identity() -> None:
    x, y = features(90, 32, 0, 0.1), features(70, 32, 1)
    assert kid(x, y).value == pytest.approx(kid(y, x).value, rel=1e-6)
    same = kid(x, x.copy())  # pairs with oneself count in the cross term alone
    assert -0.1 < same.value < 0


def test_large_features_stay_in_range_or_are_refused() -> None:
    x, y = 1e3 * features(40, 16, 0, 0.2), 1e3 * features(40, 16, 1)
    assert kid(x, y).value == pytest.approx(written_out(x, y), rel=1e-4)
    with pytest.raises(UserError, match="overflows float32"):
        kid(1e5 * x, 1e5 * y)
    with pytest.raises(UserError, match="overflows float32"):
        kid_subsets(1e5 * x, 1e5 * y, subsets=1, size=10)


# --- subsets -------------------------------------------------------------------------------------------------------


def test_subsets_equal_torch_fidelity() -> None:
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(700, 256, 5, 0.02), features(600, 256, 6)
    # float64 there: in float32 its sums keep four digits.
    theirs = peer.kid_features_to_metric(
        *(torch.from_numpy(z.astype(np.float64)) for z in (x, y)), kid_subsets=12, kid_subset_size=300, verbose=False
    )
    mean, std = kid_subsets(x, y, subsets=12, size=300, seed=2020)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)


def test_all_images_in_one_subset_is_the_full_statistic() -> None:
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(511, 128, 5, 0.02), features(511, 128, 6)
    theirs = peer.kid_features_to_metric(
        *(torch.from_numpy(z.astype(np.float64)) for z in (x, y)), kid_subsets=1, kid_subset_size=511, verbose=False
    )
    assert kid(x, y).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=2e-5)
    assert kid_subsets(x, y, subsets=1, size=511) == (pytest.approx(kid(x, y).value, rel=2e-5), 0)


def test_subsets_agree_with_clean_fid_within_their_spread() -> None:
    peer = pytest.importorskip("cleanfid.fid")
    x, y = features(400, 64, 7, 0.05), features(400, 64, 8)
    np.random.seed(0)  # it draws from the global generator
    theirs = peer.kernel_distance(x.astype(np.float64), y.astype(np.float64), num_subsets=60, max_subset_size=100)
    mean, std = kid_subsets(x, y, subsets=60, size=100)
    assert abs(mean - theirs) < 4 * std * math.sqrt(2 / 60)
    assert abs(mean - kid(x, y).value) < 4 * std / math.sqrt(60)


def test_a_subset_is_the_formula_at_its_indices() -> None:
    x, y = features(60, 16, 9, 0.1), features(50, 16, 10)
    rng = np.random.RandomState(3)
    expected = [
        written_out(x[rng.choice(60, 31, replace=False)], y[rng.choice(50, 31, replace=False)], degree=2)
        for _ in range(4)
    ]
    mean, std = kid_subsets(x, y, subsets=4, size=31, seed=3, degree=2)
    assert mean == pytest.approx(np.mean(expected), rel=1e-5)
    assert std == pytest.approx(np.std(expected), rel=1e-4)
    assert kid_subsets(x, y, subsets=4, size=31, seed=4, degree=2)[0] != mean


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [kid, kid_subsets])
def test_bad_features_are_named(function: object) -> None:
    assert callable(function)
    good = features(20, 4, 0)
    bad = good.copy()
    bad[7, 2] = np.nan
    for x, message in (
        (bad, "KID features: 1 of 20 images have NaN or infinite features .* position 7"),
        (good[:1], "KID features: found 1 images, needed at least 2"),
        (good[:0], "found 0 images"),
        (good[0], r"shape \(4,\)"),
        (good[:, :3], "found 3 and 4 features"),
        (good.astype(str), "needed real numbers"),
    ):
        with pytest.raises(UserError, match=message):
            function(x, good)


def test_bad_settings_are_named() -> None:
    x = features(20, 4, 0)
    # Both ways round: a peer's message had them reversed.
    with pytest.raises(UserError, match="sets of 20 and 10 images, needed at least the subset size 15"):
        kid_subsets(x, x[:10], size=15)
    with pytest.raises(UserError, match="0 subsets"):
        kid_subsets(x, x, subsets=0, size=5)
    with pytest.raises(UserError, match="subsets of 1 images"):
        kid_subsets(x, x, size=1)
    with pytest.raises(UserError, match="degree 0"):
        kid(x, x, degree=0)


def test_estimate_is_of_plain_floats() -> None:
    found = kid(features(20, 4, 0), features(20, 4, 1))
    assert isinstance(found, Estimate)
    assert {type(found.value), type(found.low), type(found.high)} == {float}
