"""Modes reached, their KL to an even spread with its floor, and points of high quality."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, multinomial

from evaluators.metrics.modes import expected_kl, expected_modes, high_quality, kl_to_uniform, mode_coverage
from vaebm.errors import UserError

Z = NormalDist().inv_cdf(0.975)


# --- KL ------------------------------------------------------------------------------------------------------------


def test_kl_closed_forms() -> None:
    assert kl_to_uniform(np.full(1000, 26)) == 0
    assert kl_to_uniform([7, 0, 0, 0]) == pytest.approx(math.log(4), rel=1e-14)
    assert kl_to_uniform([1, 1, 0, 0]) == pytest.approx(math.log(2), rel=1e-14)
    assert kl_to_uniform([3, 1]) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-14)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_kl_is_scipys_bounded_and_blind_to_order_and_size(counts: list[int]) -> None:
    found = kl_to_uniform(counts)
    assert found == pytest.approx(entropy(counts, np.ones(len(counts))), abs=1e-12)
    assert 0 <= found <= math.log(len(counts)) + 1e-12
    assert kl_to_uniform(counts[::-1]) == pytest.approx(found, abs=1e-12)
    assert kl_to_uniform(3 * np.array(counts)) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize(("n", "modes"), [(1, 3), (4, 3), (7, 2)])
def test_expected_kl_is_the_sum_over_all_outcomes(n: int, modes: int) -> None:
    outcomes = [c for c in np.ndindex(*[n + 1] * modes) if sum(c) == n]
    chance = multinomial.pmf(outcomes, n, np.full(modes, 1 / modes))
    expected = sum(p * kl_to_uniform(c) for p, c in zip(chance, outcomes, strict=True))
    assert expected_kl(n, modes) == pytest.approx(expected, rel=1e-10)
    reached = sum(p * np.count_nonzero(c) for p, c in zip(chance, outcomes, strict=True))
    assert expected_modes(n, modes) == pytest.approx(reached, rel=1e-10)


@pytest.mark.parametrize(("n", "modes"), [(26_000, 1000), (1500, 1000), (100, 25)])
def test_expected_values_are_the_simulated_ones(n: int, modes: int) -> None:
    drawn = np.random.default_rng(n).multinomial(n, np.full(modes, 1 / modes), size=200)
    kls, reached = [kl_to_uniform(counts) for counts in drawn], np.count_nonzero(drawn, axis=1)
    assert expected_kl(n, modes) == pytest.approx(np.mean(kls), abs=4 * np.std(kls) / math.sqrt(200))
    assert expected_modes(n, modes) == pytest.approx(reached.mean(), abs=4 * reached.std() / math.sqrt(200) + 1e-6)


def test_expected_kl_for_many_samples_is_half_the_modes_over_the_samples() -> None:
    for n, modes in ((10**6, 1000), (10**5, 25), (26_000, 1000)):
        assert expected_kl(n, modes) == pytest.approx((modes - 1) / (2 * n), rel=modes / n)
    assert expected_kl(26_000, 1000) == pytest.approx(0.01934, abs=5e-6)  # the floor under StackedMNIST's Table 5
    assert expected_kl(1, 1000) == pytest.approx(math.log(1000), rel=1e-12)
    assert (expected_kl(5, 1), expected_modes(5, 1)) == (0, 1)


# --- coverage of modes ---------------------------------------------------------------------------------------------


def test_coverage_by_hand() -> None:
    found = mode_coverage([0, 0, 0, 5, 5, 9], modes=10)
    assert found.modes.value == 3
    assert found.kl.value == kl_to_uniform([3, 0, 0, 0, 0, 2, 0, 0, 0, 1])
    assert found.kl_floor == expected_kl(6, 10)
    half = Z * math.sqrt(1 - 1 / 6)
    assert (found.modes.low, found.modes.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    terms = np.log(10 * np.array([3, 3, 3, 2, 2, 1]) / 6)  # the value is the mean of these over images
    assert found.kl.value == pytest.approx(terms.mean(), rel=1e-12)
    assert found.kl.high - found.kl.value == pytest.approx(Z * terms.std() / math.sqrt(6), rel=1e-10)


def test_intervals_of_the_mode_count_are_those_of_the_jackknife() -> None:
    labels = np.random.default_rng(0).integers(40, size=50)
    value = len(np.unique(labels))
    left_out = np.array([len(np.unique(np.delete(labels, i))) for i in range(50)])
    variance = 49 * np.var(left_out)  # (n - 1) / n times the sum of squares
    found = mode_coverage(labels, 10**6).modes
    # f1 (1 - f1 / N) is it without the factor (n - 1) / n
    assert found.high - value == pytest.approx(Z * math.sqrt(variance * 50 / 49), rel=1e-10)


def test_ends() -> None:
    even = mode_coverage(np.arange(4000) % 1000)
    assert (even.modes.value, even.modes.low, even.modes.high) == (1000, 1000, 1000)
    assert (even.kl.value, even.kl.low) == (0, 0)
    one = mode_coverage(np.full(50, 7))
    assert (one.modes.value, one.modes.low, one.modes.high) == (1, 1, 1)
    assert one.kl.value == one.kl.low == one.kl.high == pytest.approx(math.log(1000))
    alone = mode_coverage([3], modes=5)
    assert (alone.modes.value, alone.kl.value) == (1, pytest.approx(math.log(5)))
    assert mode_coverage(np.arange(1000)).modes.high == 1000


@pytest.mark.parametrize(
    ("weights", "n"),
    [
        (np.ones(1000), 26_000),
        (np.ones(1000), 3000),
        (np.exp(np.random.default_rng(1).normal(size=1000)), 26_000),
        (1 / np.arange(1, 1001) ** 2, 26_000),
        (np.ones(25), 10_000),
    ],
    ids=["even", "even, few samples", "uneven", "collapsing", "25"],
)
def test_intervals_cover(weights: np.ndarray, n: int) -> None:
    rng, k, runs = np.random.default_rng(2), len(weights), 200
    found = [
        mode_coverage(np.repeat(np.arange(k), rng.multinomial(n, weights / weights.sum())), k) for _ in range(runs)
    ]
    for name in ("kl", "modes"):
        estimates = [getattr(coverage, name) for coverage in found]
        expected = np.mean([estimate.value for estimate in estimates])
        hits = np.mean([estimate.low <= expected <= estimate.high for estimate in estimates])
        assert hits >= 0.9, name
        assert all(estimate.low <= estimate.value <= estimate.high <= k for estimate in estimates)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "found 0 samples and 10 modes"),
        ([0, 10], r"1 of 2 are outside 0 to 9 \(the first, 10, at position 1\)"),
        ([-1, 3, -2], r"2 of 3 are outside 0 to 9 \(the first, -1, at position 0\)"),
        ([0.0, 1.0], "float64"),
        ([True, False], "bool"),
        ([[0, 1]], "shape \\(1, 2\\)"),
    ],
)
def test_labels_that_are_none(labels: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mode_coverage(labels, modes=10)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [1.0, np.nan], [[1, 2]], ["a"]])
def test_counts_that_are_none(counts: list) -> None:
    with pytest.raises(UserError, match="mode counts"):
        kl_to_uniform(counts)


@pytest.mark.parametrize("function", [expected_kl, expected_modes])
def test_sizes_that_are_none(function) -> None:
    for n, modes in ((0, 5), (5, 0)):
        with pytest.raises(UserError, match=f"found {n} samples and {modes} modes"):
            function(n, modes)


# --- points of high quality ----------------------------------------------------------------------------------------

GRID = np.array([(a, b) for a in range(5) for b in range(5)], dtype=float)


@pytest.mark.parametrize("within", [1.0, 3.0])
def test_share_of_the_mixture_itself_has_the_closed_form(within: float) -> None:
    rng = np.random.default_rng(0)
    points = GRID[rng.integers(25, size=20_000)] + 0.05 * rng.normal(size=(20_000, 2))
    found = high_quality(points, GRID, 0.05, within)
    assert found.modes == 25
    assert found.share.low < 1 - math.exp(-(within**2) / 2) < found.share.high


def test_a_mode_counts_from_its_first_point_on() -> None:
    points = np.array([[0.0, 0.29], [0.0, 0.31], [4.0, 4.0], [4.0, 4.1], [2.5, 2.5]])
    modes, share = high_quality(points, GRID, 0.1)
    assert (modes, share.value) == (2, 0.6)
    assert high_quality(points, GRID, 0.1, within=3.2) == high_quality(points, GRID, 0.16, within=2.0)
    assert high_quality(points, GRID, 0.1, within=3.2).share.value == 0.8
    assert high_quality(points + 100, GRID, 0.1)[0] == 0


def test_share_has_wilsons_interval() -> None:
    good, n = 8, 10
    points = np.r_[np.zeros((good, 2)), np.full((n - good, 2), 50.0)]
    found = high_quality(points, GRID, 1.0).share
    for end in (found.low, found.high):  # the ends solve |share - p| = z sqrt(p (1 - p) / n)
        assert abs(0.8 - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), rel=1e-10)
    every, none = high_quality(points[:good], GRID, 1.0).share, high_quality(points[good:], GRID, 1.0).share
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(good / (good + Z**2))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(Z**2 / (2 + Z**2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), n=st.integers(1, 50))
def test_is_the_double_loop_and_blind_to_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 5, size=(n, 2))
    nearest = [min(range(25), key=lambda k, p=p: math.dist(p, GRID[k])) for p in points]
    good = {i for i, k in enumerate(nearest) if math.dist(points[i], GRID[k]) <= 0.3}
    found = high_quality(points, GRID, 0.1)
    assert found.modes == len({nearest[i] for i in good})
    assert found.share.value == len(good) / n
    assert 0 <= found.share.low <= found.share.value <= found.share.high <= 1
    assert high_quality(points[::-1], GRID[::-1], 0.1) == found


def test_points_that_are_none() -> None:
    points = np.zeros((3, 2))
    for arguments, message in [
        ((np.zeros((0, 2)), GRID, 1.0), "points: found 0"),
        ((points, GRID[:0], 1.0), "centres: found 0"),
        ((points, np.zeros((3, 3)), 1.0), "found 2 and 3"),
        ((np.full((3, 2), np.nan), GRID, 1.0), "NaN"),
        ((points, GRID, 0.0), "found sd 0.0"),
        ((points, GRID, math.nan), "found sd nan"),
        ((points, GRID, 1.0, -3.0), "found within -3.0"),
    ]:
        with pytest.raises(UserError, match=message):
            high_quality(*arguments)
