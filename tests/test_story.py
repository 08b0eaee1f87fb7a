"""The paper's story on bundled models and images, asserted only where the effect is large."""

import numpy as np
import pytest

from baselines.load import load_system
from evaluators.metrics.auroc import auroc, auroc_interval
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.metrics.rank_correlation import rank_correlation
from vaebm.data import load_images

N = 300


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, np.ndarray]]:
    sets = {name: load_images(name, n=N, download=False).images for name in ("cifar10", "svhn")}
    return {
        system: {name: load_system(system).score(images) for name, images in sets.items()}
        for system in ("vaebm", "nvae", "glow")
    }


def test_the_energy_lifts_svhn_far_above_the_nvae_alone(scores: dict[str, dict[str, np.ndarray]]) -> None:
    vaebm = auroc_interval(scores["vaebm"]["cifar10"], scores["vaebm"]["svhn"])
    nvae = auroc_interval(scores["nvae"]["cifar10"], scores["nvae"]["svhn"])
    assert vaebm.value >= nvae.value + 0.2
    assert vaebm.low > nvae.high


def test_a_likelihood_finds_svhn_more_likely_than_its_own_test_images(scores: dict[str, dict[str, np.ndarray]]) -> None:
    assert auroc(scores["glow"]["cifar10"], scores["glow"]["svhn"]) < 0.5
    assert auroc(scores["nvae"]["cifar10"], scores["nvae"]["svhn"]) < 0.5


def test_the_vaebm_is_no_sharpness_detector_while_the_nvae_is_an_inverted_one(
    scores: dict[str, dict[str, np.ndarray]],
) -> None:
    sharpness = IMAGE_STATISTICS["high_pass_energy"].score(load_images("cifar10", n=N, download=False).images)
    assert abs(rank_correlation(scores["vaebm"]["cifar10"], sharpness).value) < 0.5
    assert rank_correlation(scores["nvae"]["cifar10"], sharpness).value < -0.5
