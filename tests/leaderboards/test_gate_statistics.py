"""The tests behind the gate: MOVER and Holm against closed forms, independent computations and their own guarantees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from leaderboards.gate.statistics import ALPHA, holm, p_value, standard_error, tolerance

Z = norm.ppf(0.975)
P_VALUES = st.lists(st.floats(0, 1), max_size=30)


def reference_holm(p: list[float], alpha: float) -> list[bool]:
    """Holm's adjusted p-values, the running maximum of (m - k) p_(k), held against alpha."""
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate([(len(p) - k) * p[i] for k, i in enumerate(order)]) if p else []
    return [bool(adjusted[list(order).index(i)] <= alpha) for i in range(len(p))]


def test_symmetric_intervals_of_independent_numbers_give_the_root_of_the_sum_of_squares() -> None:
    s = standard_error((0.8, 0.8 - 0.03 * Z, 0.8 + 0.03 * Z), (0.7, 0.7 - 0.04 * Z, 0.7 + 0.04 * Z))
    assert s == pytest.approx(0.05, rel=1e-12)


def test_the_sides_that_face_each_other_count() -> None:
    greater, less = (0.9, 0.8, 0.999), (0.6, 0.001, 0.7)
    assert standard_error(greater, less) == pytest.approx(math.hypot(0.1, 0.1) / Z)
    assert standard_error((0.9, 0.8, 0.91), (0.6, 0.59, 0.7)) == standard_error(greater, less)


@pytest.mark.parametrize("rho", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_correlation_is_taken_off(rho: float) -> None:
    s = standard_error((3.0, 3 - 2 * Z, 9.0), (1.0, 0.0, 1 + 3 * Z), rho)
    assert s == pytest.approx(math.sqrt(4 + 9 - 2 * rho * 6), rel=1e-12)


def test_difference_of_two_normal_means_is_the_z_test() -> None:
    """An independent computation: the two-sample z-test with known variances."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.2, 1, 400), rng.normal(0, 2, 300)
    ends = lambda values, sd: (values.mean(), values.mean() - Z * sd, values.mean() + Z * sd)
    s = standard_error(ends(x, 1 / 20), ends(y, 2 / math.sqrt(300)))
    z = (x.mean() - y.mean()) / math.sqrt(1 / 400 + 4 / 300)
    assert p_value(x.mean() - y.mean(), s) == pytest.approx(norm.sf(z), rel=1e-9)


def test_no_width_beside_some_is_as_wide_as_the_other() -> None:
    perfect, near = (1.0, 1.0, 1.0), (0.98, 0.97, 0.99)
    assert standard_error(perfect, near) == pytest.approx(math.sqrt(2) * 0.01 / Z)
    assert standard_error((0.98, 0.97, 0.99), (0.9, 0.9, 0.9)) == pytest.approx(math.sqrt(2) * 0.01 / Z)
    assert standard_error(perfect, (0.9, 0.9, 0.9)) == 0


def test_an_end_on_the_wrong_side_of_its_value_counts_as_the_value() -> None:
    # A percentile interval of a count of modes may lie below the count.
    assert standard_error((1000, 997, 1001), (990, 970, 985)) == pytest.approx(3 / Z)


def test_p_values() -> None:
    assert p_value(0, 0) == 1
    assert p_value(0, 3.0) == 1
    assert p_value(1e-9, 0) == 0
    assert p_value(3.0, 1.0) == pytest.approx(norm.sf(3), rel=1e-12)
    assert p_value(12.0, 1.0) == pytest.approx(norm.sf(12), rel=1e-9)  # far out in the tail


@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_is_holm(p: list[float], alpha: float) -> None:
    assert holm(p, alpha) == reference_holm(p, alpha)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [
        True,
        False,
        False,
        True,
    ]  # 0.03 is above 0.05 / 2, and 0.04 stops with it
    assert holm([0.0125, 0.0166, 0.025, 0.05]) == [True, True, True, True]
    assert holm([0.013, 0.0, 0.9]) == [True, True, False]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
def test_a_smaller_p_value_never_saves_a_cell(p: list[float], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(p) - 1))
    smaller = [*p]
    smaller[i] = data.draw(st.floats(0, p[i]))
    before, after = holm(p), holm(smaller)
    assert all(now for then, now in zip(before, after, strict=True) if then)


def test_holm_keeps_the_family_wise_rate_where_a_plain_test_does_not() -> None:
    rng = np.random.default_rng(0)
    families = rng.uniform(size=(4000, 52))
    corrected = np.mean([any(holm(list(p))) for p in families])
    assert corrected < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean((families <= ALPHA).any(1)) > 0.9


@pytest.mark.parametrize("cells", [1, 2, 52, 1000])
def test_a_gap_beyond_the_tolerance_is_one_that_holms_first_step_rejects(cells: int) -> None:
    limit = tolerance(0.01, cells)
    others = [1.0] * (cells - 1)
    assert holm([p_value(limit * 1.0001, 0.01), *others])[0]
    assert not holm([p_value(limit * 0.9999, 0.01), *others])[0]
