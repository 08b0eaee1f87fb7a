"""The NVAE and VAEBM adapters: every option of their recipes takes effect, on the bundled models."""

import numpy as np
import pytest

from baselines.load import load_system

SEEDS = range(3)


@pytest.fixture(scope="module")
def default() -> dict[str, np.ndarray]:
    return {name: load_system(name).sample(SEEDS) for name in ("nvae", "vaebm")}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("nvae", {"temperature": 0.5}),
        ("nvae", {"output": "sample"}),
        ("nvae", {"readjust_bn": 2}),
        ("vaebm", {"steps": 1}),
        ("vaebm", {"step_size": 1e-4}),
        ("vaebm", {"target": "official"}),
        ("vaebm", {"temperature": 0.5}),
        ("vaebm", {"metropolis": True}),
        ("vaebm", {"output": "sample"}),
        ("vaebm", {"postprocess": "minmax_per_image"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, *value.items())),
)
def test_option_changes_the_samples(default: dict[str, np.ndarray], name: str, option: dict) -> None:
    found = load_system(name, **option).sample(SEEDS)
    assert found.shape == default[name].shape
    assert not np.array_equal(found, default[name])


def test_readjusted_statistics_leave_scores_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    plain, adjusted = load_system("nvae"), load_system("nvae", readjust_bn=2, temperature=0.6)
    assert np.array_equal(plain.score(images), adjusted.score(images))


def test_stretched_images_span_all_grey_levels() -> None:
    images = load_system("vaebm", postprocess="minmax_per_image").sample(SEEDS)
    assert images.reshape(len(images), -1).min(1).tolist() == [0, 0, 0]
    assert images.reshape(len(images), -1).max(1).tolist() == [255, 255, 255]
