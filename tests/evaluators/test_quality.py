"""Metrics that share their work are the same with and without each other."""

from unittest.mock import Mock

import numpy as np
import pytest

from evaluators import quality
from evaluators.features.summary import FeatureSummary
from evaluators.metrics.kid import kid
from evaluators.metrics.prdc import prdc
from evaluators.quality import Quality, Reference, measure_quality

ASKED = ("precision", "kd", "coverage")


def features(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 140)).astype(np.float32)


def measured(samples: np.ndarray, real: np.ndarray, metrics: tuple[str, ...]) -> dict[str, Quality]:
    reference = Reference("these", FeatureSummary.from_features(real))
    return {found.metric: found for found in measure_quality(FeatureSummary.from_features(samples), reference, metrics)}


@pytest.mark.parametrize(("n", "passes"), [(60, 1), (61, 0)])
def test_one_pass_where_the_samples_are_the_same(monkeypatch: pytest.MonkeyPatch, n: int, passes: int) -> None:
    monkeypatch.setattr(quality, "NEIGHBOURHOOD", 60)  # a kernel distance is of all samples, a neighbourhood of so many
    together = Mock(wraps=quality.prdc_and_kid)
    monkeypatch.setattr(quality, "prdc_and_kid", together)
    samples, real = features(n, 0), features(80, 1)
    found = measured(samples, real, ASKED)
    assert together.call_count == passes
    assert found["kd"].estimate == kid(samples, real[:60])
    assert found["precision"].estimate == prdc(real[:60], samples[:60]).precision
    assert found["coverage"].estimate == prdc(real[:60], samples[:60]).coverage
    for metric in ASKED:
        assert measured(samples, real, (metric,))[metric] == found[metric]
    assert together.call_count == passes  # one alone shares nothing


def test_one_that_cannot_be_had_does_not_take_the_other_along() -> None:
    real = features(80, 1)
    few = measured(features(3, 0), real, ASKED)
    assert few["kd"].estimate is not None
    assert "k_precision = 3" in few["precision"].reason
    large = measured(1e15 * real, real, ASKED)
    assert large["precision"].estimate is not None
    assert "overflows float32" in large["kd"].reason
