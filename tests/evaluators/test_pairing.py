"""The correlation of two AUROCs from the same images: against DeLong's paired test, a brute-force computation and repeated draws."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from evaluators.metrics.auroc import auroc, auroc_difference, delong_variance
from evaluators.pairing import auroc_correlation, correlations, mean_auroc_correlation, pairs, score_correlations
from evaluators.score_files import save_scores
from vaebm.errors import UserError


def two_runs(
    seed: int, m: int = 60, n: int = 80, r: float = 0.6, levels: float = 1e6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two scorers that correlate by r; few levels make ties."""
    rng = np.random.default_rng(seed)
    a_in, a_out = rng.normal(1, 1, m), rng.normal(0, 1, n)
    b_in = 1 + r * (a_in - 1) + math.sqrt(1 - r * r) * rng.normal(size=m)
    b_out = r * a_out + math.sqrt(1 - r * r) * rng.normal(size=n)
    return tuple(np.round(x * levels) / levels for x in (a_in, a_out, b_in, b_out))  # type: ignore[return-value]


def kernel(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """1 where an in-distribution score (row) is above an outer one (column), 1/2 for ties."""
    return (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)


@pytest.mark.parametrize("levels", [1e6, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_gives_the_variance_of_the_paired_difference(seed: int, levels: float) -> None:
    a_in, a_out, b_in, b_out = scores = two_runs(seed, levels=levels)
    rho = auroc_correlation(*scores)
    one, other = delong_variance(a_in, a_out), delong_variance(b_in, b_out)
    paired = auroc_difference(*scores)
    s = (paired.high - paired.low) / (2 * norm.ppf(0.975))
    assert one + other - 2 * rho * math.sqrt(one * other) == pytest.approx(s * s, rel=1e-9)


def test_equals_the_correlation_over_repeated_draws() -> None:
    draws = [two_runs(seed, 100, 100, 0.8) for seed in range(600)]
    empirical = np.corrcoef([(auroc(a, b), auroc(c, d)) for a, b, c, d in draws], rowvar=False)[0, 1]
    estimated = np.mean([auroc_correlation(*scores) for scores in draws[:50]])
    assert estimated == pytest.approx(empirical, abs=4 * (1 - empirical**2) / math.sqrt(len(draws)))


def test_of_means_equals_a_brute_force_computation() -> None:
    rng = np.random.default_rng(3)
    a_in, b_in = rng.integers(0, 9, (2, 12)).astype(float)
    outs = [(rng.integers(0, 9, n).astype(float), rng.integers(0, 9, n).astype(float)) for n in (7, 10, 15)]
    a, b = (
        [kernel(inside, out) for out in side]
        for inside, side in zip((a_in, b_in), zip(*outs, strict=True), strict=True)
    )
    rows = [sum(k.mean(1) for k in side) / 3 for side in (a, b)]
    parts = [np.cov(*rows) / 12]
    parts += [np.cov(ka.mean(0), kb.mean(0)) / 9 / ka.shape[1] for ka, kb in zip(a, b, strict=True)]
    covariance = sum(parts)
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert mean_auroc_correlation(a_in, [x for x, _ in outs], b_in, [y for _, y in outs]) == pytest.approx(expected)


def test_mean_over_one_set_is_that_set() -> None:
    a_in, a_out, b_in, b_out = scores = two_runs(1)
    assert mean_auroc_correlation(a_in, [a_out], b_in, [b_out]) == auroc_correlation(*scores)


def test_limits() -> None:
    a_in, a_out, *_ = two_runs(2)
    assert auroc_correlation(a_in, a_out, a_in**3, a_out**3) == pytest.approx(1)  # only the order counts
    assert auroc_correlation(a_in, a_out, -a_in, -a_out) == pytest.approx(-1)
    assert auroc_correlation(a_in, a_out, np.ones(60), np.ones(80)) == 0  # one that never varies
    assert auroc_correlation(a_in, a_out, a_in + 9, a_out) == 0  # perfect: no variance
    assert abs(auroc_correlation(*two_runs(3, 4000, 4000, 0.0))) < 0.06


SCORES = st.lists(st.integers(-3, 3), min_size=3, max_size=3)


@given(SCORES, SCORES, SCORES, SCORES)
def test_stays_in_its_range(a_in: list[int], a_out: list[int], b_in: list[int], b_out: list[int]) -> None:
    rho = auroc_correlation(a_in, a_out, b_in, b_out)
    assert -1 <= rho <= 1
    assert rho == pytest.approx(auroc_correlation(b_in, b_out, a_in, a_out))


def test_refuses_unlike_numbers() -> None:
    with pytest.raises(ValueError, match="must match exactly"):
        auroc_correlation([1, 2, 3], [0, 1], [1, 2], [0, 1])
    with pytest.raises(ValueError, match="argument 2"):
        mean_auroc_correlation([1, 2], [[0, 1], [0, 1]], [1, 2], [[0, 1]])


def runs() -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Two runs of a system on two sets."""
    a_in, a_out, b_in, b_out = two_runs(4)
    first = {"mine": {"cifar10": a_in, "svhn": a_out, "celeba": a_out[::-1]}}
    return first, {"mine": {"cifar10": b_in, "svhn": b_out, "celeba": b_out[::-1]}}


def test_names_every_system_and_set_and_the_mean() -> None:
    first, second = runs()
    found = correlations(first, second, "cifar10")
    assert found.keys() == {("mine", "svhn"), ("mine", "celeba"), ("mine", "mean")}
    inside, outside = first["mine"]["cifar10"], first["mine"]["svhn"]
    assert found["mine", "svhn"] == auroc_correlation(
        inside, outside, second["mine"]["cifar10"], second["mine"]["svhn"]
    )
    # The mean shares its in-distribution images among the sets: it is not the mean of the two.
    both = [[side["mine"]["celeba"], side["mine"]["svhn"]] for side in (first, second)]
    assert found["mine", "mean"] == mean_auroc_correlation(inside, both[0], second["mine"]["cifar10"], both[1])


def test_means_of_near_and_of_far_sets_are_pairs_of_their_own() -> None:
    rng = np.random.default_rng(6)
    sets = {"cifar10": 40, "svhn": 30, "celeba": 20, "cifar100": 25, "cifar10_interp": 30}
    first, second = ({"mine": {name: rng.normal(size=n) for name, n in sets.items()}} for _ in range(2))
    found = pairs(first, second, "cifar10")
    for name, members in (("mean_near", ["cifar10_interp", "cifar100"]), ("mean_far", ["celeba", "svhn"])):
        outs = [[side["mine"][member] for member in members] for side in (first, second)]
        expected = mean_auroc_correlation(first["mine"]["cifar10"], outs[0], second["mine"]["cifar10"], outs[1])
        assert found["mine", name].correlation == pytest.approx(expected, abs=1e-12)
        assert found["mine", name].first == pytest.approx(np.mean([found["mine", m].first for m in members]))
    second["mine"]["celeba"] = second["mine"]["celeba"][:-1]
    left = pairs(first, second, "cifar10")
    assert ("mine", "mean_near") in left  # its sets are whole
    assert not {("mine", "mean"), ("mine", "mean_far")} & left.keys()


def test_leaves_out_what_only_one_run_has_or_has_in_another_number() -> None:
    first, second = runs()
    second["mine"]["celeba"] = second["mine"]["celeba"][:-1]
    assert correlations(first, second, "cifar10").keys() == {("mine", "svhn")}  # no mean without all of its sets
    del second["mine"]["celeba"]
    assert correlations(first, second, "cifar10").keys() == {("mine", "svhn")}
    second["mine"]["cifar10"] = second["mine"]["cifar10"][:-1]
    assert correlations(first, second, "cifar10") == {}
    assert correlations(first, {"other": first["mine"]}, "cifar10") == {}
    assert correlations(first, first, "mnist") == {}


def test_reads_files_of_the_suite_without_their_terms(tmp_path: Path) -> None:
    first, second = runs()
    for name, side in (("a", first), ("b", second)):
        with_terms = {s: {d: {"log_p": v * 0, "score": v} for d, v in sets.items()} for s, sets in side.items()}
        save_scores(tmp_path / f"{name}.npz", with_terms)
    found = score_correlations(tmp_path / "a.npz", tmp_path / "b.npz", "cifar10")
    assert found == pairs(first, second, "cifar10")
    assert {place: pair.correlation for place, pair in found.items()} == correlations(first, second, "cifar10")


def test_tells_the_auroc_that_each_run_has() -> None:
    first, second = runs()
    found = pairs(first, second, "cifar10")
    by_hand = lambda side, name: kernel(side["mine"]["cifar10"], side["mine"][name]).mean()
    for name in ("svhn", "celeba"):
        assert found["mine", name][1:] == pytest.approx((by_hand(first, name), by_hand(second, name)), abs=1e-12)
    assert found["mine", "svhn"].first != pytest.approx(found["mine", "svhn"].second, abs=1e-6)
    means = [(by_hand(side, "svhn") + by_hand(side, "celeba")) / 2 for side in (first, second)]
    assert found["mine", "mean"][1:] == pytest.approx(means, abs=1e-12)


def test_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    first, _ = runs()
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    save_scores(good, {s: {d: {"score": v} for d, v in sets.items()} for s, sets in first.items()})
    for content in (good.read_bytes()[:500], b"", b"text"):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.npz: found no scores in it .* ood_scores\.npz"):
            score_correlations(good, bad, "cifar10")
    np.savez(bad, cifar10=np.ones(3))
    with pytest.raises(UserError, match="found no scores in it"):
        score_correlations(bad, good, "cifar10")
    np.savez(bad, **{"a/b/score": np.array([object()])}, allow_pickle=True)
    with pytest.raises(UserError, match="found no scores in it"):
        score_correlations(bad, good, "cifar10")
    np.savez(bad, **{"mine/cifar10/score": np.array([0.0, np.nan]), "mine/svhn/score": np.ones(2)})
    with pytest.raises(UserError, match=r"bad\.npz: found no scores in it"):
        score_correlations(bad, good, "cifar10")
    with pytest.raises(UserError, match="FileNotFoundError"):
        score_correlations(tmp_path / "none.npz", good, "cifar10")
