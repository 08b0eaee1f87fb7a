"""AUPR, FPR95, the bootstrap behind them, and rank correlation."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, spearmanr
from sklearn.metrics import average_precision_score, roc_curve

from evaluators.metrics import intervals
from evaluators.metrics.aupr import aupr
from evaluators.metrics.fpr95 import fpr95
from evaluators.metrics.intervals import resample_counts
from evaluators.metrics.rank_correlation import rank_correlation
from evaluators.metrics.standard_deviation import standard_deviation
from vaebm.errors import UserError

FEW = 3  # resamples, where only the value is looked at


def labelled(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[np.ones(len(p)), np.zeros(len(q))], np.r_[p, q]


def sklearn_fpr95(p: np.ndarray, q: np.ndarray) -> float:
    fpr, tpr, _ = roc_curve(*labelled(p, q), drop_intermediate=False)
    return float(fpr[tpr >= 0.95].min())


SCORES = st.lists(st.integers(-6, 6), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(p=SCORES, q=SCORES)
def test_values_equal_scikit_learn_with_ties(p: list[int], q: list[int]) -> None:
    a, b = np.array(p) * 1e4, np.array(q) * 1e4
    assert aupr(a, b, replicates=FEW).value == pytest.approx(average_precision_score(*labelled(a, b)), abs=1e-12)
    out = average_precision_score(*labelled(-b, -a))
    assert aupr(a, b, positive="out", replicates=FEW).value == pytest.approx(out, abs=1e-12)
    assert fpr95(a, b, replicates=FEW).value == pytest.approx(sklearn_fpr95(a, b), abs=1e-12)


def test_values_equal_scikit_learn_without_ties() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(1, 1, 999), rng.normal(0, 1, 1503)
    assert aupr(p, q, replicates=FEW).value == pytest.approx(average_precision_score(*labelled(p, q)), abs=1e-12)
    assert fpr95(p, q, replicates=FEW).value == pytest.approx(sklearn_fpr95(p, q), abs=1e-12)


def test_fpr95_keeps_exactly_19_of_20_and_counts_ties() -> None:
    p = np.arange(20, 40)
    assert fpr95(p, [20.5, 21, 0, 0], replicates=FEW).value == 0.25  # threshold 21, where 19 of 20 are kept
    assert fpr95(np.ones(30), np.ones(10), replicates=FEW).value == 1
    assert fpr95(p, [0, 1], replicates=FEW).value == 0


def test_base_rate_is_what_a_constant_scorer_gets() -> None:
    found = aupr(np.ones(30), np.ones(10), replicates=FEW)
    assert (found.value, found.base_rate) == (0.75, 0.75)
    assert aupr(np.ones(30), np.ones(10), positive="out", replicates=FEW).base_rate == 0.25
    with pytest.raises(UserError, match="positive 'both'"):
        aupr([1], [0], positive="both")


def test_bootstrap_equals_resampling_one_by_one() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.integers(9, size=35) + 1.0, rng.integers(9, size=50) * 1.0
    values, rates = [], []
    for b in range(200):
        again_p = np.repeat(p, resample_counts(len(p), 200, 5, 0)[:, b])
        again_q = np.repeat(q, resample_counts(len(q), 200, 5, 1)[:, b])
        values.append(average_precision_score(*labelled(again_p, again_q)))
        rates.append(sklearn_fpr95(again_p, again_q))
    precision, rate = aupr(p, q, seed=5, replicates=200), fpr95(p, q, seed=5, replicates=200)
    exact = binomtest(round(rate.value * len(q)), len(q)).proportion_ci(method="exact")
    low, high = np.quantile(rates, [0.025, 0.975])
    np.testing.assert_allclose([rate.low, rate.high], [min(low, exact.low), max(high, exact.high)], atol=1e-12)
    half = norm.ppf(0.975) * np.std(values, ddof=1) / (precision.value * (1 - precision.value))
    ends = expit(logit(precision.value) + np.array([-half, half]))
    np.testing.assert_allclose([precision.low, precision.high], ends, atol=1e-12)


def test_bootstrap_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    p, q = rng.normal(1, 1, 60), rng.normal(0, 1, 70)
    whole = aupr(p, q, replicates=50)
    monkeypatch.setattr(intervals, "_BLOCK", 400)
    assert aupr(p, q, replicates=50) == whole


def test_options_of_the_bootstrap_take_effect() -> None:
    rng = np.random.default_rng(3)
    p, q = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
    for metric in (aupr, fpr95):
        # of FPR95 at 0.5 or so the bootstrap ends are the outer ones
        base = metric(p, q)
        assert metric(p, q) == base
        assert metric(p, q, seed=1).low != base.low
        assert metric(p, q, replicates=300) != base
        narrow = metric(p, q, confidence=0.5)
        assert base.low < narrow.low < base.value < narrow.high < base.high
        with pytest.raises(UserError, match="1 resamples"):
            metric(p, q, replicates=1)
        with pytest.raises(UserError, match="NaN"):
            metric(p, np.r_[q, np.nan])


@pytest.mark.parametrize("d", [-2.3, 0.0, 1.2])  # AUROC 0.05, 0.5, 0.8
def test_intervals_cover_inverted_scorers_too(d: float) -> None:
    rng = np.random.default_rng(4)
    many = rng.normal(d, 1, 200_000), rng.normal(0, 1, 200_000)
    n, runs = 150, 400
    samples = [(rng.normal(d, 1, n), rng.normal(0, 1, n)) for _ in range(runs)]
    for metric in (aupr, fpr95):
        true = metric(*many, replicates=2).value
        found = [metric(p, q, replicates=200) for p, q in samples]
        assert all(f.low <= f.value <= f.high for f in found)
        covered = np.mean([f.low <= true <= f.high for f in found])
        # Where nearly every outer image passes, FPR95 is a count of almost none: no interval of it is below 99 %.
        assert 0.92 <= covered <= (1 if metric is fpr95 and d < 0 else 0.98)


def test_a_perfect_sample_does_not_make_fpr95_certain() -> None:
    found = fpr95(np.arange(10, 60), np.arange(10))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert (aupr(np.arange(10, 60), np.arange(10)).low, fpr95(np.zeros(9), np.ones(10)).high) == (1, 1)


def test_four_thousand_images_take_well_under_a_second() -> None:
    rng = np.random.default_rng(5)
    p, q = rng.normal(1, 1, 2000), rng.normal(0, 1, 2000)
    start = time.process_time()
    aupr(p, q)
    fpr95(p, q)
    assert time.process_time() - start < 1.5  # measured 0.15


def test_resamples_are_resamples() -> None:
    counts = resample_counts(50, 400, 0)
    assert counts.shape == (50, 400)
    assert (counts.sum(axis=0) == 50).all()
    assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.25)
    assert (counts != resample_counts(50, 400, 0, 1)).any()


def test_standard_deviation() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(1e4, 1100, 3000)
    found = standard_deviation(x)
    assert found.value == pytest.approx(np.std(x, ddof=1))
    assert found.low < 1100 < found.high
    # for normal values the standard error is sd / sqrt(2 N)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 1100 / np.sqrt(6000), rel=0.15)
    assert standard_deviation(x, seed=1).low != found.low
    with pytest.raises(UserError, match="at least 2"):
        standard_deviation([1.0])


def test_rank_correlation_equals_scipy_and_covers() -> None:
    rng = np.random.default_rng(7)
    rho = 0.7
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's rho of a bivariate normal
    hits = 0
    for _ in range(1000):
        x = rng.normal(size=120)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=120)
        found = rank_correlation(x, y)
        hits += found.low <= true <= found.high
    assert found.value == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert 0.93 <= hits / 1000 <= 0.97
    assert rank_correlation(x, y, confidence=0.5).low > found.low


def test_rank_correlation_of_degenerate_values() -> None:
    x = np.arange(10.0)
    assert rank_correlation(x, np.exp(x)).low == 1
    assert rank_correlation(x, -x).value == -1
    with pytest.raises(UserError, match="all values of one side are equal"):
        rank_correlation(x, np.ones(10))
    with pytest.raises(UserError, match="found 10 and 9"):
        rank_correlation(x, x[:9])
    with pytest.raises(UserError, match="at least 4"):
        rank_correlation([1, 2, 3], [1, 2, 3])
