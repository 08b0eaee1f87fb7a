"""Inception score: closed forms, the field's implementation, and the same from sums over groups."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from evaluators.metrics.inception_score import inception_score, inception_score_estimate, inception_score_splits
from evaluators.metrics.moments import ClassSums
from vaebm.errors import UserError


def logits(n: int = 200, k: int = 7, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k)) * scale


def sums(rows: np.ndarray, groups: int = 20) -> ClassSums:
    found = ClassSums(rows.shape[1], groups)
    found.add(rows, 0)
    return found


def test_of_no_information_is_one() -> None:
    assert inception_score(np.full((50, 10), 0.1)) == (pytest.approx(1, rel=1e-12), 0)
    same = np.tile(softmax(logits(1)), (50, 1))  # every image alike: sure of itself or not, nothing varies
    assert inception_score(same, splits=5) == (pytest.approx(1, rel=1e-12), pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_of_certain_and_even_classes_is_their_number(k: int) -> None:
    one_hot = np.eye(k)[np.arange(3 * k) % k]
    assert inception_score(one_hot)[0] == pytest.approx(k, rel=1e-12)
    # half of the classes: half of the score
    assert inception_score(one_hot[one_hot[:, : k // 2].any(1)])[0] == pytest.approx(k // 2, rel=1e-12)


def test_two_classes_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.3, 0.7]])
    kl = [sum(a * math.log(a / b) for a, b in zip(row, (0.6, 0.4), strict=True)) for row in p]
    assert inception_score(p)[0] == pytest.approx(math.exp(sum(kl) / 2), rel=1e-12)


@pytest.mark.parametrize("splits", [1, 2, 7, 10])
def test_equals_torch_fidelity(splits: int) -> None:
    peer = pytest.importorskip("torch_fidelity.metric_isc")
    torch = pytest.importorskip("torch")
    rows = logits(211).astype(np.float32)  # not a multiple of the splits
    expected = peer.isc_features_to_metric(torch.from_numpy(rows), splits=splits, shuffle=False)
    mean, std = inception_score(softmax(rows.astype(np.float64), axis=1), splits)
    assert mean == pytest.approx(expected[peer.KEY_METRIC_ISC_MEAN], rel=1e-10)
    assert std == pytest.approx(expected[peer.KEY_METRIC_ISC_STD], rel=1e-7, abs=1e-12)
    assert (std > 0) == (splits > 1)


def test_splits_are_runs_of_consecutive_images() -> None:
    p = np.repeat(np.eye(2), 50, axis=0)  # 50 images of one class, then 50 of the other
    assert inception_score(p)[0] == pytest.approx(2)
    assert inception_score(p, splits=2) == (pytest.approx(1), pytest.approx(0))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), n=st.integers(2, 60), k=st.integers(2, 9), scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_is_between_one_and_the_number_of_classes(seed: int, n: int, k: int, scale: float) -> None:
    rows = logits(n, k, seed, scale)
    p = softmax(rows, axis=1)
    value = inception_score(p)[0]
    assert 1 - 1e-12 <= value <= k * (1 + 1e-12)
    assert inception_score(p[::-1])[0] == pytest.approx(value, rel=1e-12)
    assert inception_score(p[:, ::-1])[0] == pytest.approx(value, rel=1e-12)
    assert inception_score(np.tile(p, (2, 1)))[0] == pytest.approx(value, rel=1e-12)
    found = inception_score_estimate(sums(rows))
    assert found.value == pytest.approx(value, rel=1e-10)
    assert found.low <= found.value <= found.high <= max(k, found.value)


# --- from sums -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [1, 2, 5, 10, 20])
def test_splits_from_sums_are_those_of_reordered_images(splits: int) -> None:
    rows = logits(200)
    reordered = np.concatenate([rows[s::splits] for s in range(splits)])
    expected = inception_score(softmax(reordered, axis=1), splits)
    assert inception_score_splits(sums(rows), splits) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_interval_of_certainty_is_a_point_where_groups_are_alike() -> None:
    rows = np.where(np.eye(10)[np.arange(2000) // 20 % 10] > 0, 0, -1e4)
    found = inception_score_estimate(sums(rows))
    assert found.value == pytest.approx(10)
    assert found.low == pytest.approx(10)
    assert found.low <= found.value <= found.high


def test_interval_covers() -> None:
    rng = np.random.default_rng(0)
    centres = logits(5, 5, 1)
    draw = lambda n: centres[rng.integers(5, size=n)] + rng.normal(size=(n, 5))
    true = inception_score(softmax(draw(400_000), axis=1))[0]
    hits, runs = 0, 300
    for _ in range(runs):
        found = inception_score_estimate(sums(draw(2000)))
        hits += found.low <= true <= found.high
    assert 0.91 <= hits / runs <= 0.98


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.zeros((0, 3)), "found 0 images"),
        (np.ones((1, 1)), "found 1 images for 1 splits"),
        (np.full((5, 2), np.nan), "NaN"),
        (logits(), "logits need a softmax first"),
        (np.ones((5, 2)), "sum 2"),
        (np.array([[1.5, -0.5]] * 4), "minimum -0.5"),
        (np.ones(5), "shape"),
    ],
)
def test_probabilities_that_are_none(p: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inception_score(p)


@pytest.mark.parametrize("splits", [0, 6])
def test_splits_that_are_too_many(splits: int) -> None:
    with pytest.raises(UserError, match=f"found 10 images for {splits} splits, needed at least 2"):
        inception_score(np.full((10, 2), 0.5), splits)


def test_sums_that_are_too_few() -> None:
    with pytest.raises(UserError, match="found 1 images, needed at least 2"):
        inception_score_estimate(sums(logits(1)))
    with pytest.raises(UserError, match="found 0 images"):
        inception_score_estimate(ClassSums(3))
    for splits in (0, 3, 40):
        with pytest.raises(UserError, match=f"found {splits} splits, needed a divisor of the 20 groups"):
            inception_score_splits(sums(logits()), splits)
    with pytest.raises(UserError, match="found 30 images for 20 splits"):
        inception_score_splits(sums(logits(30)), 20)
