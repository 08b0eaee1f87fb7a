"""Blocks of squared distances: every pair, once, and within the doubt they state."""

import numpy as np
import pytest

from evaluators.metrics.pairs import blocks, distance_blocks, exact_squared_distances


def features(n: int, d: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + 2).astype(np.float32)


@pytest.mark.parametrize(("d", "dtype"), [(128, np.float64), (129, np.float32), (700, np.float32)])
@pytest.mark.parametrize("size", [1000, 13])
def test_every_pair_once_and_within_its_doubt(monkeypatch: pytest.MonkeyPatch, d: int, dtype: type, size: int) -> None:
    cut = lambda n, size=size: blocks(n, size)
    monkeypatch.setattr("evaluators.metrics.pairs.blocks", cut)
    a, b = features(40, d, 0), features(31, d, 1)
    for left, right, options in (
        (a, b, {}),
        (a, b, {"centre": a.mean(axis=0)}),
        (a, a, {"within": True}),
    ):
        found = np.zeros((len(left), len(right)))
        seen = np.zeros_like(found)
        exact = ((left[:, None].astype(float) - right) ** 2).sum(-1)
        for block in distance_blocks(left, right, **options):
            here = block.rows, block.columns
            assert block.squared.dtype == dtype
            doubt = block.row_doubt[:, None] + block.column_doubt
            assert np.all(np.abs(block.squared - exact[here]) < doubt)
            assert doubt.max() < 1e-4 * exact.max()
            seen[here] += 1
        if "within" in options:
            assert seen.max() == 1
            seen = np.maximum(seen, seen.T)
        np.testing.assert_array_equal(seen, 1)


def test_exact_distances_are_differences_in_float64() -> None:
    # |a|^2 + |b|^2 - 2 a . b would give 0: 1 is lost beside 1e20.
    a, b = np.array([[1e10, 0.0], [0.0, 0.0]]), np.array([[1e10, 1.0], [3.0, 4.0]], dtype=np.float32)
    i, j = np.array([0, 1]), np.array([0, 1])
    np.testing.assert_array_equal(exact_squared_distances(a, b, i, j), [1, 25])
    np.testing.assert_array_equal(exact_squared_distances(b, a, j, i), [1, 25])
    assert exact_squared_distances(a, b, i[:0], j[:0]).shape == (0,)


def test_slices_cover_a_range_without_overlap() -> None:
    for n in (0, 1, 9, 10, 11):
        assert [i for part in blocks(n, 5) for i in range(n)[part]] == list(range(n))
        assert all(0 < part.stop - part.start <= 5 for part in blocks(n, 5))
