"""Sums over groups of images, and the delete-group jackknife on them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import t

from evaluators.metrics import moments as module
from evaluators.metrics.jackknife import jackknife
from evaluators.metrics.moments import GROUPS, ClassSums, GroupedMoments
from vaebm.errors import UserError


def features(n: int = 300, d: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3).astype(np.float32)


def in_batches(sums: GroupedMoments | ClassSums, rows: np.ndarray, sizes: list[int]) -> None:
    start = 0
    for size in [*sizes, len(rows)]:
        sums.add(rows[start : start + size], start)
        start = min(len(rows), start + size)


@pytest.mark.parametrize("n", [2, 19, 300])
def test_statistics_are_numpys(n: int) -> None:
    x = features(n)
    found, mu, cov = GroupedMoments.from_features(x).statistics()
    assert found == n
    np.testing.assert_allclose(mu, x.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x.T.astype(np.float64)), rtol=1e-10, atol=1e-12)
    assert np.array_equal(cov, cov.T)


@pytest.mark.parametrize("groups", [1, 3, 20])
def test_image_i_is_in_group_i_modulo_groups(groups: int) -> None:
    x = features(101).astype(np.float64)
    moments = GroupedMoments.from_features(x, groups)
    for group in range(groups):
        mine = x[group::groups] - x[0]
        assert moments.counts[group] == len(mine)
        np.testing.assert_allclose(moments.sums[group], mine.sum(0), atol=1e-10)
        np.testing.assert_allclose(moments.grams[group], np.tril(mine.T @ mine), atol=1e-10)
    some = [0, groups - 1] if groups > 1 else [0]
    n, mu, cov = moments.statistics(some)
    chosen = x[np.isin(np.arange(101) % groups, some)]
    assert n == len(chosen)
    np.testing.assert_allclose(mu, chosen.mean(0), atol=1e-12)
    np.testing.assert_allclose(cov, np.cov(chosen.T), atol=1e-10)


def test_quadratic_forms() -> None:
    x = features(50).astype(np.float64)
    a = np.random.default_rng(1).normal(size=(5, 5))
    a = a + a.T
    expected = [np.einsum("ni,ij,nj->", z, a, z) for z in (x[g::4] - x[0] for g in range(4))]
    np.testing.assert_allclose(GroupedMoments.from_features(x, 4).quadratic(a), expected, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 90), max_size=12), reads=st.booleans())
def test_batches_do_not_matter(sizes: list[int], reads: bool) -> None:
    x = features(200)
    whole, cut = GroupedMoments.from_features(x, 7), GroupedMoments(5, 7)
    in_batches(cut, x[:50], sizes)
    if reads:  # what is read on the way is complete, and does not disturb what follows
        assert cut.counts.sum() == cut.n == 50
    cut.add(x[50:], 50)
    assert np.array_equal(cut.counts, whole.counts)
    for name in ("sums", "grams", "pivot"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-11, atol=1e-9)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features(500)
    expected = GroupedMoments.from_features(x, 3).to_arrays()
    monkeypatch.setattr(module, "_ROWS", 8)
    small = GroupedMoments(5, 3)
    in_batches(small, x, [1, 30, 7])
    for name, array in small.to_arrays().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-11, atol=1e-9)


def test_a_large_mean_costs_no_digits() -> None:
    x = np.random.default_rng(2).normal(size=(400, 4))
    expected = np.cov(x.T)
    _, mu, cov = GroupedMoments.from_features(x + 1e7).statistics()
    np.testing.assert_allclose(cov, expected, atol=1e-8)  # x + 1e7 itself is rounded to 1e-9
    shifted = x + 1e7
    without_pivot = (shifted.T @ shifted - 400 * np.outer(mu, mu)) / 399
    assert np.abs(without_pivot - expected).max() > 1e-3  # so the test above can fail


def test_the_caller_keeps_its_arrays() -> None:
    x = features(30)
    moments = GroupedMoments(5)
    buffer = x[:10].copy()
    for start in (0, 10, 20):
        buffer[:] = x[start : start + 10]
        moments.add(buffer, start)
    buffer[:] = np.nan
    np.testing.assert_allclose(moments.statistics()[1], x.mean(0), rtol=1e-6)


@pytest.mark.parametrize("kind", [GroupedMoments, ClassSums])
def test_arrays_survive_a_file(kind: type, tmp_path) -> None:
    x = features(40)
    half, whole = kind(5, 4), kind(5, 4)
    half.add(x[:13], 0)
    whole.add(x, 0)
    np.savez(tmp_path / "sums.npz", **half.to_arrays())
    with np.load(tmp_path / "sums.npz") as file:
        read = kind.from_arrays(file)
    read.add(x[13:], 13)
    assert read.n == 40
    for name, array in whole.to_arrays().items():
        np.testing.assert_allclose(read.to_arrays()[name], array, atol=1e-9)


def test_broken_arrays_are_refused() -> None:
    for kind, names in ((GroupedMoments, "counts sums grams pivot"), (ClassSums, "counts sum_p sum_plogp")):
        sums = kind(5, 4)
        sums.add(features(8), 0)
        for name in names.split():
            arrays = dict(sums.to_arrays())
            kept = arrays.pop(name)
            with pytest.raises(UserError, match=f"no array '{name}'"):
                kind.from_arrays(arrays)
            with pytest.raises(UserError, match="found"):
                kind.from_arrays({**arrays, name: kept[:-1]})


def test_class_sums_are_the_direct_ones() -> None:
    logits = features(101, 6) * 3
    p = softmax(logits.astype(np.float64), axis=1)
    cut = ClassSums(6, 4)
    in_batches(cut, logits, [3, 0, 50])
    assert cut.n == 101
    for group in range(4):
        mine = p[group::4]
        assert cut.counts[group] == len(mine)
        np.testing.assert_allclose(cut.sum_p[group], mine.sum(0), rtol=1e-12)
        assert cut.sum_plogp[group] == pytest.approx((mine * np.log(mine)).sum(), rel=1e-12)


def test_class_sums_survive_certainty() -> None:
    sums = ClassSums(3)
    sums.add(np.array([[1e4, -1e4, 0.0], [0, 0, 1e30]]), 0)
    assert sums.sum_plogp.sum() == 0
    np.testing.assert_array_equal(sums.sum_p.sum(0), [1, 0, 1])


@pytest.mark.parametrize("kind", [GroupedMoments, ClassSums])
def test_what_is_refused(kind: type) -> None:
    with pytest.raises(UserError, match="needed at least"):
        kind(0)
    with pytest.raises(UserError, match="0 groups"):
        kind(5, 0)
    sums = kind(5)
    with pytest.raises(UserError, match="found 4"):
        sums.add(np.zeros((3, 4)), 0)
    with pytest.raises(UserError, match="NaN"):
        sums.add(np.array([[0, 0, 0, 0, np.nan]]), 0)
    assert sums.n == 0


@pytest.mark.parametrize("n", [0, 1])
def test_a_covariance_needs_two_images(n: int) -> None:
    moments = GroupedMoments(5)
    moments.add(features(n), 0)
    with pytest.raises(UserError, match=f"found {n} images, needed at least 2"):
        moments.statistics()


# --- jackknife -----------------------------------------------------------------------------------------------------


def of_means(x: np.ndarray, groups: int) -> tuple[float, list[float], np.ndarray]:
    group = np.arange(len(x)) % groups
    return x.mean(), [x[group != g].mean() for g in range(groups)], np.bincount(group)


def test_of_a_mean_with_one_image_a_group_is_students() -> None:
    x = np.random.default_rng(0).exponential(size=15)
    found = jackknife(*of_means(x, 15))
    half = t.ppf(0.975, 14) * x.std(ddof=1) / math.sqrt(15)
    assert found.value == x.mean()
    assert found.low == pytest.approx(x.mean() - half, rel=1e-10)
    assert found.high == pytest.approx(x.mean() + half, rel=1e-10)


def test_of_a_mean_in_unequal_groups_is_the_weighted_spread_of_group_means() -> None:
    x = np.random.default_rng(1).normal(size=17)
    value, left_out, counts = of_means(x, 5)  # groups of 4, 4, 3, 3, 3
    assert len(set(counts)) == 2
    means = np.array([x[g::5].mean() for g in range(5)])
    h = 17 / counts
    # the pseudo-values of a mean are the groups' means, and their mean is the weighted one: the value
    variance = np.mean((means - value) ** 2 / (h - 1))
    found = jackknife(value, left_out, counts)
    assert found.high - value == pytest.approx(t.ppf(0.975, 4) * math.sqrt(variance), rel=1e-10)


def test_empty_groups_are_ignored_and_two_are_needed() -> None:
    x = np.random.default_rng(2).normal(size=12)
    value, left_out, counts = of_means(x, 4)
    assert jackknife(value, [*left_out, math.nan], [*counts, 0]) == jackknife(value, left_out, counts)
    with pytest.raises(UserError, match="found 1 groups"):
        jackknife(1.0, [1.0, 2.0], [5, 0])


def test_interval_covers_a_variance() -> None:
    rng = np.random.default_rng(3)
    hits, runs = 0, 400
    for _ in range(runs):
        moments = GroupedMoments.from_features(rng.normal(size=(400, 1)))
        left_out = [moments.statistics([g for g in range(GROUPS) if g != out])[2][0, 0] for out in range(GROUPS)]
        found = jackknife(float(moments.statistics()[2][0, 0]), left_out, moments.counts)
        hits += found.low <= 1 <= found.high
    assert 0.91 <= hits / runs <= 0.98


@pytest.mark.parametrize("own", [range(0, 20, 2), range(25, 20, 32), range(19, 20, 32)])
def test_owners_of_some_groups_add_up_to_the_owner_of_all(own: range) -> None:
    """One that owns none, among many, sees the same pivot, too."""
    features = np.random.default_rng(0).normal(5, 1, (9000, 3))
    whole, part = GroupedMoments(3), GroupedMoments(3, own=own)
    for start in range(0, len(features), 500):
        for moments in (whole, part):
            moments.add(features[start : start + 500], start)
    assert part.pivot.tolist() == whole.pivot.tolist()
    for name in ("counts", "sums", "grams"):
        mine, all_of_them = getattr(part, name), getattr(whole, name)
        np.testing.assert_array_equal(mine[list(own)], all_of_them[list(own)])
        assert not mine[[group for group in range(20) if group not in own]].any()
