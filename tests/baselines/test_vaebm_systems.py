"""What the NVAE and VAEBM adapters do with their options, on the bundled models (that each has an effect is a contract)."""

import numpy as np

from baselines.load import load_system

SEEDS = range(3)


def test_readjusted_statistics_leave_scores_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    plain, adjusted = load_system("nvae"), load_system("nvae", readjust_bn=2, temperature=0.6)
    assert np.array_equal(plain.score(images), adjusted.score(images))


def test_stretched_images_span_all_grey_levels() -> None:
    images = load_system("vaebm", postprocess="minmax_per_image").sample(SEEDS)
    assert images.reshape(len(images), -1).min(1).tolist() == [0, 0, 0]
    assert images.reshape(len(images), -1).max(1).tolist() == [255, 255, 255]
