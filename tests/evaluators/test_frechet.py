"""Frechet distance: closed forms, the field's implementations, singular covariances, interval and extrapolation."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.metrics.frechet import (
    FrechetReference,
    fd_infinity,
    frechet_distance,
    frechet_distance_of_features,
    frechet_estimate,
)
from evaluators.metrics.jackknife import jackknife
from evaluators.metrics.moments import GroupedMoments
from vaebm.errors import UserError

Statistics = tuple[np.ndarray, np.ndarray]


def covariance(d: int, seed: int, rank: int | None = None) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(d, rank or 3 * d))
    return a @ a.T / a.shape[1]


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def statistics(x: np.ndarray) -> Statistics:
    return x.mean(0), np.cov(x.T.astype(np.float64))


def inception_like(n: int, d: int, seed: int) -> np.ndarray:
    """Non-negative, correlated, of very unlike scales."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) / math.sqrt(d)
    return np.maximum(rng.normal(size=(n, d)) @ mix + 0.3 + 0.01 * seed, 0) * np.logspace(-2, 0, d)


# --- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_commuting_covariances_have_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, a, b, shift = rotation(9, seed), rng.exponential(size=9), rng.exponential(size=9), rng.normal(size=9)
    expected = shift @ shift + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(np.zeros(9), (q * a) @ q.T, shift, (q * b) @ q.T)
    assert found == pytest.approx(expected, rel=1e-12)


def test_equal_covariances_leave_the_means() -> None:
    mu, cov = np.arange(5.0), covariance(5, 0)
    assert frechet_distance(mu, cov, mu + 2, cov) == pytest.approx(20, rel=1e-12)


def test_one_dimension() -> None:
    assert frechet_distance([1.0], [[4.0]], [3.0], [[9.0]]) == pytest.approx(4 + 1, rel=1e-14)


@pytest.mark.parametrize("rank", [None, 5, 1])
def test_identity_is_zero(rank: int | None) -> None:
    mu, cov = np.ones(20), covariance(20, 1, rank)
    assert 0 <= frechet_distance(mu, cov, mu, cov) <= 1e-12 * np.trace(cov)
    x = inception_like(12 if rank else 200, 20, 0)
    assert 0 <= frechet_distance_of_features(x, x[::-1]) <= 1e-12


def test_constant_features() -> None:
    zero, cov = np.zeros((6, 6)), covariance(6, 2)
    assert frechet_distance(np.ones(6), zero, np.zeros(6), zero) == 6
    assert frechet_distance(np.zeros(6), cov, np.zeros(6), zero) == pytest.approx(np.trace(cov), rel=1e-14)
    assert frechet_distance(np.zeros(6), zero, np.zeros(6), cov) == pytest.approx(np.trace(cov), rel=1e-14)
    one, other = np.full((30, 6), 2.0), np.full((9, 6), 3.0)
    assert frechet_distance_of_features(one, other) == 6
    assert frechet_distance_of_features(one[:3], other[:3]) == 6
    one[:, :3] = np.random.default_rng(0).normal(size=(30, 3))  # some columns constant, as dead units are
    exact = frechet_distance_of_features(one[:, :3], one[::-1, :3] * 2) + 3 * 4
    assert frechet_distance_of_features(one, one[::-1] * 2) == pytest.approx(exact, rel=1e-12)


def test_singular_covariances_have_the_closed_form() -> None:
    q = rotation(12, 3)
    a = np.r_[np.arange(1.0, 6), np.zeros(7)]
    b = np.r_[np.zeros(3), np.arange(1.0, 5), np.zeros(5)]
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(np.zeros(12), (q * a) @ q.T, np.zeros(12), (q * b) @ q.T)
    assert found == pytest.approx(expected, rel=1e-12)
    full = (q * np.arange(1.0, 13)) @ q.T
    expected = ((np.sqrt(np.arange(1.0, 13)) - np.sqrt(b)) ** 2).sum()
    for pair in ((full, (q * b) @ q.T), ((q * b) @ q.T, full)):
        assert frechet_distance(np.zeros(12), pair[0], np.zeros(12), pair[1]) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("n1", "n2"), [(2, 2), (10, 17), (40, 41), (30, 300), (300, 8)])
def test_few_images_agree_with_the_covariances(n1: int, n2: int) -> None:
    a, b = inception_like(n1, 40, 1), inception_like(n2, 40, 5)
    through_covariances = frechet_distance(*statistics(a), *statistics(b))
    assert frechet_distance_of_features(a, b) == pytest.approx(through_covariances, rel=2e-7)
    assert frechet_distance_of_features(b, a) == pytest.approx(frechet_distance_of_features(a, b), rel=1e-10)


def test_many_images_take_the_covariances() -> None:
    a, b = inception_like(300, 10, 1).astype(np.float32), inception_like(200, 10, 5).astype(np.float32)
    expected = frechet_distance(*statistics(a.astype(np.float64)), *statistics(b.astype(np.float64)))
    assert frechet_distance_of_features(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance_of_features(a[:, :1], b[:, :1]) == pytest.approx(
        frechet_distance_of_features(a[:, :1].astype(np.float64), b[:, :1].astype(np.float64)), rel=1e-12
    )


# --- independent implementations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [3, 64, 200])
def test_equals_the_peers(d: int) -> None:
    a, b = statistics(inception_like(6 * d, d, 1)), statistics(inception_like(5 * d, d, 7))
    found = frechet_distance(*a, *b)
    assert found > 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of scipy.linalg.sqrtm, which they call
        cleanfid = pytest.importorskip("cleanfid.fid")
        pytorch_fid = pytest.importorskip("pytorch_fid.fid_score")
        assert found == pytest.approx(cleanfid.frechet_distance(*a, *b), rel=1e-8)
        assert found == pytest.approx(pytorch_fid.calculate_frechet_distance(*a, *b), rel=1e-8)


def test_equals_torch_fidelity() -> None:
    peer = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = statistics(inception_like(400, 64, 1)), statistics(inception_like(300, 64, 7))
    first, second = ({"mu": mu, "sigma": sigma} for mu, sigma in (a, b))
    expected = peer.fid_statistics_to_metric(first, second, False)[peer.KEY_METRIC_FID]
    assert frechet_distance(*a, *b) == pytest.approx(expected, rel=1e-8)


# --- properties ----------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**20)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, d=st.integers(1, 12), rank1=st.integers(1, 24), rank2=st.integers(1, 24))
def test_symmetric_not_negative_and_blind_to_rotation_and_shift(seed: int, d: int, rank1: int, rank2: int) -> None:
    rng = np.random.default_rng(seed)
    (mu1, mu2, shift), q = rng.normal(size=(3, d)), rotation(d, seed)
    s1, s2 = covariance(d, seed, rank1), covariance(d, seed + 1, rank2)
    found = frechet_distance(mu1, s1, mu2, s2)
    assert found >= 0
    near = lambda value: pytest.approx(value, rel=1e-6, abs=1e-6)
    assert frechet_distance(mu2, s2, mu1, s1) == near(found)
    assert frechet_distance(mu1 + shift, s1, mu2 + shift, s2) == near(found)
    turn = lambda s: (q @ s @ q.T + q @ s.T @ q.T) / 2
    assert frechet_distance(q @ mu1, turn(s1), q @ mu2, turn(s2)) == near(found)
    assert frechet_distance(3 * mu1, 9 * s1, 3 * mu2, 9 * s2) == near(9 * found)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n1=st.integers(2, 30), n2=st.integers(2, 30), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_of_features_is_symmetric_not_negative_and_scales(seed: int, n1: int, n2: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b, q = rng.normal(size=(n1, 9)), rng.normal(size=(n2, 9)) + 0.2, rotation(9, seed)
    found = frechet_distance_of_features(a, b)
    assert found >= 0
    assert frechet_distance_of_features(b, a) == pytest.approx(found, rel=1e-7)
    assert frechet_distance_of_features(a @ q + 5, b @ q + 5) == pytest.approx(found, rel=1e-6)
    assert frechet_distance_of_features(a * scale, b * scale) == pytest.approx(found * scale**2, rel=1e-6)


def test_the_map_transports_one_covariance_to_the_other() -> None:
    s1, s2 = covariance(8, 0), covariance(8, 1)
    distance, transport = FrechetReference(np.zeros(8), s1).distance_and_map(np.ones(8), s2)
    np.testing.assert_allclose(transport @ s2 @ transport, s1, atol=1e-10)
    assert distance == pytest.approx(frechet_distance(np.zeros(8), s1, np.ones(8), s2), rel=1e-12)
    # and 1 - T is the derivative
    change = covariance(8, 2)
    step = lambda e: FrechetReference(np.zeros(8), s1).distance(np.ones(8), s2 + e * change)
    assert (step(1e-5) - step(-1e-5)) / 2e-5 == pytest.approx(np.sum((np.eye(8) - transport) * change), rel=1e-6)


# --- interval ------------------------------------------------------------------------------------------------------


def samples(rng: np.random.Generator, n: int, d: int, spread: float = 1.3, shift: float = 0.3) -> np.ndarray:
    return rng.normal(size=(n, d)) * np.linspace(spread, 1.0, d) + shift


def exact_distance(d: int, spread: float = 1.3, shift: float = 0.3) -> float:
    return d * shift**2 + ((np.linspace(spread, 1.0, d) - 1) ** 2).sum()


def unit(d: int) -> FrechetReference:
    return FrechetReference(np.zeros(d), np.eye(d))


@pytest.mark.parametrize(("d", "n"), [(4, 2000), (8, 2000), (8, 4003)])
def test_intervals_cover(d: int, n: int) -> None:
    rng = np.random.default_rng(d + n)
    plain = infinity = 0
    runs, true, reference = 200, exact_distance(d), unit(d)
    for _ in range(runs):
        moments = GroupedMoments.from_features(samples(rng, n, d))
        found = frechet_estimate(moments, reference)
        plain += found.low <= true <= found.high
        limit = fd_infinity(moments, reference, found)
        infinity += limit.low <= true <= limit.high
    assert 0.90 <= plain / runs <= 0.99
    assert 0.90 <= infinity / runs <= 0.99


@pytest.mark.parametrize(("n", "within"), [(30, 0.4), (90, 0.25), (300, 0.2), (3000, 0.1)])
def test_interval_is_near_the_exact_jackknifes(n: int, within: float) -> None:
    d, rng = 40, np.random.default_rng(5)
    reference, ratios = FrechetReference(np.zeros(d), covariance(d, 4)), []
    for _ in range(10):
        moments = GroupedMoments.from_features(samples(rng, n, d))
        found = frechet_estimate(moments, reference)
        left_out = [
            reference.distance(*moments.statistics([g for g in range(20) if g != out])[1:]) for out in range(20)
        ]
        exact = jackknife(found.value, left_out, moments.counts)
        assert found.value == pytest.approx(reference.distance(*moments.statistics()[1:]), rel=1e-9)
        ratios.append((found.high - found.value) / (exact.high - exact.value))
    assert np.mean(ratios) == pytest.approx(1, abs=within)


def test_interval_of_equal_distributions_stays_above_zero() -> None:
    found = frechet_estimate(GroupedMoments.from_features(np.random.default_rng(0).normal(size=(60, 4))), unit(4))
    assert 0 <= found.low <= found.value <= found.high


def test_infinity_removes_the_bias() -> None:
    d, n, runs = 30, 300, 80
    rng, true, reference = np.random.default_rng(1), exact_distance(30), unit(30)
    plain, infinity = [], []
    for _ in range(runs):
        moments = GroupedMoments.from_features(samples(rng, n, d))
        estimate = frechet_estimate(moments, reference)
        plain.append(estimate.value)
        infinity.append(fd_infinity(moments, reference))
        assert infinity[-1] == fd_infinity(moments, reference, estimate)
    bias = np.mean(plain) - true
    error = np.std(plain) / math.sqrt(runs)
    assert bias > 20 * error  # plain FD is biased, far beyond the noise of this test
    left = np.mean([found.value for found in infinity]) - true
    assert abs(left) < 0.1 * bias
    assert np.std([found.value for found in infinity]) < 1.5 * np.std(plain)  # and the noise is not magnified much
    assert np.mean([found.low <= true <= found.high for found in infinity]) > 0.85


def test_infinity_is_the_line_through_unequal_unions() -> None:
    rng, reference = np.random.default_rng(2), unit(3)
    x = samples(rng, 47, 3)
    moments = GroupedMoments.from_features(x, 6)
    group, parts = np.arange(47) % 6, ([0, 1], [2, 3], [4], [5])
    found = [x[~np.isin(group, part)] for part in parts]
    inverse = [1 / 47, float(np.mean([1 / len(rest) for rest in found]))]
    distances = [reference.distance(*statistics(rest)) for rest in found]
    line = np.polyfit(inverse, [reference.distance(*statistics(x)), np.mean(distances)], 1)
    assert fd_infinity(moments, reference).value == pytest.approx(line[1], rel=1e-9)


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu2": np.zeros(3)}, r"mean of shape \(3,\) and a covariance of shape \(4, 4\)"),
        ({"mu2": np.zeros(3), "cov2": np.eye(3)}, "found 3 features, needed 4"),
        ({"mu1": np.zeros((4, 1))}, "needed \\(D,\\)"),
        ({"mu1": np.zeros(0), "cov1": np.zeros((0, 0))}, "needed \\(D,\\)"),
        ({"mu1": np.array([0, 0, np.nan, 0])}, "reference statistics: some entries are NaN"),
        ({"cov2": np.full((4, 4), np.inf)}, "NaN or infinite"),
        ({"cov2": np.eye(4) * 1j}, "complex128"),
        ({"cov1": np.triu(np.ones((4, 4)))}, "not symmetric"),
        ({"cov1": np.diag([1.0, 1, 1, -1])}, "negative eigenvalues"),
        ({"cov2": np.diag([1.0, 1, 1, -1])}, "negative eigenvalues"),
    ],
)
def test_statistics_that_are_none(change: dict, message: str) -> None:
    good = {"mu1": np.zeros(4), "cov1": np.eye(4), "mu2": np.zeros(4), "cov2": np.eye(4)}
    with pytest.raises(UserError, match=message):
        frechet_distance(**{**good, **change})


def test_float32_statistics_are_taken() -> None:
    cov = covariance(40, 0, rank=10).astype(np.float32)  # its zero eigenvalues are +-1e-7
    found = frechet_distance(np.zeros(40, np.float32), cov, np.zeros(40), 4 * np.eye(40))
    exact = np.trace(cov) + 160 - 4 * np.sqrt(np.clip(np.linalg.eigvalsh(cov.astype(np.float64)), 1e-6, None)).sum()
    assert found == pytest.approx(exact, rel=1e-3)


def test_features_that_are_none() -> None:
    good = np.random.default_rng(0).normal(size=(9, 4))
    bad = {
        "found 1 images, needed at least 2": good[:1],
        "NaN or infinite": np.where(good > 1, np.nan, good),
        "found an array of shape": good[0],
        "unlike|found 4 and 3|found 3 and 4": good[:, :3],
    }
    for message, features in bad.items():
        for pair in ((good, features), (features, good)):
            with pytest.raises(UserError, match=message):
                frechet_distance_of_features(*pair)


def test_too_few_images_for_an_interval() -> None:
    rng = np.random.default_rng(0)
    for n, function, message in [
        (1, frechet_estimate, "found 1 images, needed at least 2"),
        (2, frechet_estimate, "2 left when one group is left out"),
        (3, fd_infinity, "found 3 groups"),
        (9, fd_infinity, "found 9 images of 8 features, needed more than 8 in three quarters"),
    ]:
        with pytest.raises(UserError, match=message):
            function(GroupedMoments.from_features(rng.normal(size=(n, 8))), unit(8))
    with pytest.raises(UserError, match="found 7 features, needed 8"):
        frechet_estimate(GroupedMoments.from_features(rng.normal(size=(30, 7))), unit(8))
    assert frechet_estimate(GroupedMoments.from_features(rng.normal(size=(3, 8))), unit(8)).value > 0
