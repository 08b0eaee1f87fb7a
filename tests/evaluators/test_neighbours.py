"""Nearest neighbours, and the two figures that catch copies of training images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.metrics.neighbours import authenticity, nearest, nearest_ratio, squared_neighbours
from vaebm.errors import UserError


def written_out(queries: np.ndarray, references: np.ndarray, exclude_self: bool = False) -> np.ndarray:
    distances = np.sqrt(((queries[:, None].astype(float) - references[None]) ** 2).sum(-1))
    return distances + np.diag(np.full(len(queries), np.inf)) if exclude_self else distances


@pytest.mark.parametrize("d", [3, 200])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("block", [10_000, 30, 7])
def test_equals_the_sorted_matrix(monkeypatch: pytest.MonkeyPatch, d: int, exclude_self: bool, block: int) -> None:
    cut = lambda n, size=block: (slice(i, min(i + size, n)) for i in range(0, n, size))
    monkeypatch.setattr("evaluators.metrics.pairs.blocks", cut)
    rng = np.random.default_rng(d)
    references = (rng.normal(size=(97, d)) + 5).astype(np.float32)
    queries = references if exclude_self else (rng.normal(size=(64, d)) + 5).astype(np.float32)
    distances, index = nearest(queries, references, 6, exclude_self=exclude_self)
    matrix = written_out(queries, references, exclude_self)
    np.testing.assert_array_equal(index, np.argsort(matrix, 1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(matrix, 1)[:, :6], rtol=1e-13)
    squared, same = squared_neighbours(queries, references, 6, exclude_self=exclude_self)
    np.testing.assert_array_equal(np.sqrt(squared), distances)
    np.testing.assert_array_equal(same, index)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.sampled_from([1, 4, 130]), k=st.integers(1, 11))
def test_ties_go_to_exact_distances(seed: int, d: int, k: int) -> None:
    x = np.random.default_rng(seed).integers(3, size=(12, d))
    distances, index = nearest(x, x, k, exclude_self=True)
    np.testing.assert_array_equal(distances, np.sort(written_out(x, x, True), 1)[:, :k])
    assert all(len(set(row)) == k and i not in row for i, row in enumerate(index.tolist()))


def test_a_copy_is_at_distance_zero_and_a_twin_is_a_neighbour() -> None:
    x = 100 + np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    distances, index = nearest(x, x)
    np.testing.assert_array_equal(distances[:, 0], 0)
    np.testing.assert_array_equal(index[:, 0], np.arange(50))
    twins = np.concatenate([x, x])
    distances, index = nearest(twins, twins, exclude_self=True)
    np.testing.assert_array_equal(distances[:, 0], 0)
    np.testing.assert_array_equal(index[:, 0], (np.arange(100) + 50) % 100)


def test_uint8_pixels_do_not_wrap() -> None:
    x = np.random.default_rng(0).integers(256, size=(20, 192), dtype=np.uint8)
    np.testing.assert_allclose(nearest(x, x[::-1], 20)[0], np.sort(written_out(x, x), 1), rtol=1e-13)


def test_k_outside_its_range_is_refused() -> None:
    x = np.eye(5)
    for arguments, message in (
        (((x, x, 6), {}), "found k = 6 and 5 images, needed 1 <= k <= the number"),
        (((x, x, 5), {"exclude_self": True}), "found k = 5 and 5 images, needed 1 <= k < the number"),
        (((x, x, 0), {}), "found k = 0"),
        (((x, x[:4]), {"exclude_self": True}), "5 queries and 4 references"),
        (((x, x[:, :4]), {}), "found 5 and 4 features"),
        (((x[:0], x), {}), "queries: found 0 images"),
        (((x, x * np.nan), {}), "references: 5 of 5 images have NaN"),
    ):
        with pytest.raises(UserError, match=message):
            nearest(*arguments[0], **arguments[1])


# --- authenticity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "mutual"), [(1, 2 / 3), (2, 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)))])
def test_authenticity_of_fresh_draws_has_the_closed_form(d: int, mutual: float) -> None:
    # A draw and the point nearest to it are each other's nearest with this probability in an even density.
    rng = np.random.default_rng(d)
    found = [authenticity(rng.uniform(size=(2000, d)), rng.uniform(size=(100, d))) for _ in range(60)]
    values = np.array([e.value for e in found])
    assert values.mean() == pytest.approx(1 - mutual, abs=4 * values.std() / math.sqrt(60))
    assert 0.88 <= np.mean([e.low <= 1 - mutual <= e.high for e in found]) <= 1


def test_copies_are_not_authentic() -> None:
    rng = np.random.default_rng(0)
    train, fresh = rng.normal(size=(500, 150)), rng.normal(size=(300, 150))
    copies = train[rng.integers(500, size=300)]
    exact, noisy = authenticity(train, copies), authenticity(train, copies + 0.05 * rng.normal(size=copies.shape))
    assert (exact.value, exact.low) == (0, 0)
    assert 0 < exact.high < 0.02
    assert noisy.value == 0
    whole = authenticity(train, fresh)
    assert whole.low > 0.3
    half = authenticity(train, np.concatenate([copies, fresh]))
    assert half.value == pytest.approx(whole.value / 2, abs=1e-12)
    assert authenticity(train, fresh + 100).value == 1
    assert authenticity(np.concatenate([train, train]), copies).value == 0  # copies of images that have a twin


def test_authenticity_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    train, samples = rng.normal(size=(60, 5)), rng.normal(size=(40, 5))
    across, own = written_out(samples, train), written_out(train, train, True).min(1)
    expected = np.mean(across.min(1) > own[across.argmin(1)])
    assert authenticity(train, samples).value == expected
    with pytest.raises(UserError, match="training images: found 1 images, needed at least 2"):
        authenticity(train[:1], samples)


# --- ratio of nearest distances ------------------------------------------------------------------------------------


def test_ratio_of_fresh_draws_is_one_and_of_copies_zero() -> None:
    rng = np.random.default_rng(1)
    train = rng.normal(size=(500, 10))
    ratios = [
        nearest_ratio(train, rng.normal(size=(150, 10)), rng.normal(size=(150, 10)), replicates=200) for _ in range(80)
    ]
    assert np.mean([e.value for e in ratios]) == pytest.approx(1, abs=0.01)
    assert 0.9 <= np.mean([e.low <= 1 <= e.high for e in ratios]) <= 1
    held_out, copies = rng.normal(size=(150, 10)), train[:150]
    exact = nearest_ratio(train, held_out, copies)
    assert (exact.value, exact.low, exact.high) == (0, 0, 0)
    near = nearest_ratio(train, held_out, copies + 1e-3 * rng.normal(size=copies.shape))
    assert 0 < near.high < 0.01
    assert nearest_ratio(train, held_out, held_out + 5).low > 2


def test_ratio_is_of_medians_and_repeats_itself() -> None:
    train = np.zeros((3, 1))
    held_out, samples = np.array([[1.0], [2.0], [9.0]]), np.array([[3.0], [-1.0], [5.0], [4.0]])
    found = nearest_ratio(train, held_out, samples, replicates=300)
    assert found.value == 3.5 / 2
    assert 1 / 9 <= found.low < found.value < found.high <= 5
    assert nearest_ratio(train, held_out, samples, replicates=300) == found
    assert nearest_ratio(train, held_out, samples, replicates=2) != found


def test_ratio_refuses_held_out_images_that_were_trained_on() -> None:
    rng = np.random.default_rng(2)
    train, samples = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    with pytest.raises(UserError, match="half of the held-out images are training images"):
        nearest_ratio(train, train[:10], samples)
    with pytest.raises(UserError, match="features of the samples: found 0 images"):
        nearest_ratio(train, samples, samples[:0])
    with pytest.raises(UserError, match="features of the held-out images: found 0 images"):
        nearest_ratio(train, samples[:0], samples)
    with pytest.raises(UserError, match="1 resamples"):
        nearest_ratio(train, samples, samples, replicates=1)
