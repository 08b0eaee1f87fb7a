"""AUROC, DeLong's variance and the two intervals built on it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from evaluators.metrics.auroc import (
    auroc,
    auroc_difference,
    auroc_interval,
    delong_variance,
    mean_auroc_interval,
    placements,
)
from vaebm.errors import UserError


def sklearn_auroc(p: np.ndarray, q: np.ndarray) -> float:
    return roc_auc_score(np.r_[np.ones(len(p)), np.zeros(len(q))], np.r_[p, q])


@pytest.mark.parametrize("levels", [2, 5, 40, 10**6])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-9])
def test_equals_scikit_learn_with_ties(levels: int, scale: float) -> None:
    rng = np.random.default_rng(levels)
    p, q = rng.integers(levels, size=317) * scale, rng.integers(levels, size=211) * scale - scale
    assert auroc(p, q) == pytest.approx(sklearn_auroc(p, q), abs=1e-12)


def test_hand_count() -> None:
    assert auroc([3, 2, 1], [2, 0]) == (2 + 1.5 + 1) / 6
    assert auroc([1, 1], [1, 1, 1]) == 0.5
    assert auroc([1], [0]) == 1
    assert auroc([0], [1]) == 0


@pytest.mark.parametrize("d", [-1.5, 0.0, 0.4, 2.0])
def test_gaussians_have_the_closed_form(d: float) -> None:
    rng = np.random.default_rng(1)
    found = auroc_interval(rng.normal(d, 1, 20_000), rng.normal(0, 1, 20_000))
    exact = norm.cdf(d / math.sqrt(2))
    assert found.value == pytest.approx(exact, abs=0.01)
    assert found.low < exact < found.high


MAPS = {
    "affine": lambda x: 3 * x - 1e6,
    "cube": lambda x: x**3,
    "exp": lambda x: np.exp(x / 40),  # up to 1e108, far beyond float32
    "sinh": lambda x: np.sinh(x / 20),
    "ranks": lambda x: np.unique(x, return_inverse=True)[1],
}
SCORES = st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=30)


@settings(max_examples=60, deadline=None)
@given(p=SCORES, q=SCORES, name=st.sampled_from(sorted(MAPS)))
def test_depends_on_the_order_of_scores_alone(p: list[int], q: list[int], name: str) -> None:
    scores = np.array(p + q, dtype=np.float64)
    mapped = MAPS[name](scores)
    if len(np.unique(mapped)) == len(np.unique(scores)):  # rounding may merge scores that differ in the last digit
        m = len(p)
        assert auroc_interval(mapped[:m], mapped[m:]) == auroc_interval(scores[:m], scores[m:])


def test_survives_where_a_float32_sigmoid_does_not() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(11_000, 500, 300), rng.normal(10_000, 500, 300)
    assert auroc(p, q) == pytest.approx(sklearn_auroc(p, q), abs=1e-12)
    assert auroc(p, q) > 0.9


@settings(max_examples=40, deadline=None)
@given(p=SCORES, q=SCORES)
def test_swapping_or_negating_gives_one_minus(p: list[int], q: list[int]) -> None:
    assert auroc(q, p) == pytest.approx(1 - auroc(p, q), abs=1e-12)
    assert auroc(np.negative(p), np.negative(q)) == pytest.approx(1 - auroc(p, q), abs=1e-12)


@pytest.mark.parametrize("levels", [4, 10**6])
def test_variance_equals_the_double_loop(levels: int) -> None:
    rng = np.random.default_rng(2)
    p, q = rng.integers(levels, size=41) + levels / 4, rng.integers(levels, size=29)
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in q] for x in p])
    v10, v01 = placements(p, q)
    np.testing.assert_allclose(v10, psi.mean(1), atol=1e-14)
    np.testing.assert_allclose(v01, psi.mean(0), atol=1e-14)
    # DeLong's S10 / m + S01 / n, written out
    a = psi.mean()
    s10 = sum((row.mean() - a) ** 2 for row in psi) / (len(p) - 1)
    s01 = sum((column.mean() - a) ** 2 for column in psi.T) / (len(q) - 1)
    assert delong_variance(p, q) == pytest.approx(s10 / len(p) + s01 / len(q), rel=1e-12)


@pytest.mark.parametrize(("true", "sd"), [(0.05, 1.0), (0.3, 2.0), (0.5, 1.0), (0.8, 1.5), (0.95, 1.0), (0.95, 2.0)])
def test_interval_covers(true: float, sd: float) -> None:
    rng = np.random.default_rng(round(100 * true + sd))
    d = norm.ppf(true) * math.hypot(1, sd)
    runs = 1500
    hits = 0
    for _ in range(runs):
        found = auroc_interval(rng.normal(d, 1, 200), rng.normal(0, sd, 200))
        hits += found.low <= true <= found.high
    assert 0.93 <= hits / runs <= 0.97


def test_confidence_takes_effect() -> None:
    rng = np.random.default_rng(3)
    p, q = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
    wide, narrow = auroc_interval(p, q, confidence=0.99), auroc_interval(p, q, confidence=0.8)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    for function in (auroc_interval, mean_auroc_interval):
        with pytest.raises(UserError, match=r"confidence 95"):
            function(p, [q] if function is mean_auroc_interval else q, confidence=95)


def test_perfect_separation_has_an_exact_one_sided_end() -> None:
    good = auroc_interval(np.arange(10, 30), np.arange(10))
    assert (good.value, good.high) == (1, 1)
    assert good.low**10 == pytest.approx(0.025)
    bad = auroc_interval(np.arange(10), np.arange(10, 30))
    assert (bad.value, bad.low, bad.high) == (0, 0, pytest.approx(1 - good.low))
    constant = auroc_interval(np.ones(5), np.ones(7))
    assert (constant.value, constant.low, constant.high) == (0.5, 0.5, 0.5)
    for found in (auroc_interval([5, 6, 7], [1, 2, 6.5]), auroc_interval([1, 2], [1.5, 0])):
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_mean_covers_and_knows_the_shared_sample() -> None:
    rng = np.random.default_rng(5)
    shifts = (0.5, 1.0, 1.5)
    true = np.mean([norm.cdf(d / math.sqrt(2)) for d in shifts])
    hits, naive = 0, 0
    runs = 800
    for _ in range(runs):
        p = rng.normal(0, 1, 80)
        outs = [rng.normal(-d, 1, 200) for d in shifts]
        found = mean_auroc_interval(p, outs)
        hits += found.low <= true <= found.high
        independent = sum(delong_variance(p, q) for q in outs) / len(outs) ** 2
        naive += abs(found.value - true) <= 1.96 * math.sqrt(independent)
    assert 0.93 <= hits / runs <= 0.97
    assert naive / runs < 0.9  # what ignoring the shared sample would give


def test_mean_of_one_set_is_the_auroc() -> None:
    rng = np.random.default_rng(6)
    p, q = rng.normal(1, 1, 50), rng.normal(0, 1, 60)
    assert mean_auroc_interval(p, [q]) == auroc_interval(p, q)
    assert mean_auroc_interval(p, [q, q - 1]).value == pytest.approx((auroc(p, q) + auroc(p, q - 1)) / 2)


def test_mean_of_opposite_perfect_scores_is_not_certain() -> None:
    found = mean_auroc_interval(np.arange(10.0, 20), [np.arange(5.0), np.arange(30.0, 35)])
    assert found.value == 0.5
    assert found.low < 0.4
    assert found.high > 0.6


def test_paired_difference_covers_and_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(7)
    m, runs, hits, false_alarms = 150, 800, 0, 0
    true = norm.cdf(1 / math.sqrt(2)) - norm.cdf(0.8 / math.sqrt(2))
    for _ in range(runs):
        common_in, common_out = rng.normal(0, 1, m), rng.normal(0, 1, m)

        def scorer(shift: float, x: np.ndarray = common_in, y: np.ndarray = common_out) -> tuple:
            noise = rng.normal(0, 0.6, (2, m))
            return math.sqrt(0.64) * x + noise[0] + shift, math.sqrt(0.64) * y + noise[1]

        a, b = scorer(1.0), scorer(0.8)
        found = auroc_difference(*a, *b)
        hits += found.low <= true <= found.high
        false_alarms += auroc_difference(*a, *scorer(1.0)).p < 0.05
    assert 0.93 <= hits / runs <= 0.97
    assert 0.03 <= false_alarms / runs <= 0.07
    one, two = auroc_interval(*a), auroc_interval(*b)
    assert found.high - found.low < (one.high - one.low) + (two.high - two.low)
    assert found.value == pytest.approx(one.value - two.value)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_paired_difference_of_equal_and_of_perfect_scorers() -> None:
    rng = np.random.default_rng(8)
    p, q = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    same = auroc_difference(p, q, np.exp(p), np.exp(q))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    up, down = (np.arange(20, 40), np.arange(20)), (np.arange(20), np.arange(20, 40))
    opposite = auroc_difference(*up, *down)
    assert (opposite.value, opposite.high) == (1, 1)
    assert 0.5 < opposite.low < 1
    assert opposite.p == 2.0**-19
    both = auroc_difference(*up, *up)
    assert both.low < 0 < both.high
    assert both.p == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_named(bad: float) -> None:
    with pytest.raises(UserError, match=r"out-of-distribution scores: 1 of 3 .* position 1"):
        auroc([1, 2], [0, bad, 1])
    with pytest.raises(UserError, match="in-distribution scores"):
        auroc_interval([bad, 2], [0, 1])


def test_other_bad_input() -> None:
    with pytest.raises(UserError, match="found 0 scores"):
        auroc([], [1])
    with pytest.raises(UserError, match="at least 2"):
        auroc_interval([1], [0, 1])
    with pytest.raises(UserError, match=r"shape \(2, 2\)"):
        auroc(np.ones((2, 2)), [1])
    with pytest.raises(UserError, match="real numbers"):
        auroc(np.array(["a"]), [1])
    with pytest.raises(UserError, match="same images"):
        auroc_difference([1, 2], [0, 1], [1, 2, 3], [0, 1])
    with pytest.raises(UserError, match="at least one set"):
        mean_auroc_interval([1, 2], [])
