"""The control scorers: values, signs and independence of the batch."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.protocols import Scorer

RNG = np.random.default_rng(0)
NOISE = RNG.integers(256, size=(7, 12, 10, 3), dtype=np.uint8)
FLAT = np.full((1, 12, 10, 3), 77, dtype=np.uint8)
SMOOTH = np.broadcast_to(np.linspace(100, 130, 10).astype(np.uint8)[None, None, :, None], (1, 12, 10, 3)).copy()


def score(name: str, images: np.ndarray) -> np.ndarray:
    return IMAGE_STATISTICS[name].score(images)


@pytest.mark.parametrize("name", IMAGE_STATISTICS)
def test_every_statistic_is_a_scorer_with_its_sign(name: str) -> None:
    statistic = IMAGE_STATISTICS[name]
    assert isinstance(statistic, Scorer)
    assert statistic.name == name
    assert statistic.higher_means.endswith("= in-distribution")
    found = score(name, NOISE)
    assert found.shape == (7,)
    assert found.dtype == np.float64
    one_by_one = np.concatenate([score(name, NOISE[i : i + 1]) for i in range(7)])
    np.testing.assert_array_equal(found, one_by_one)
    assert score(name, NOISE).min() > score(name, SMOOTH)[0] > score(name, FLAT)[0]
    assert np.isfinite(score(name, NOISE[..., :1])).all()
    with pytest.raises(ValueError, match="uint8"):
        statistic.score(NOISE.astype(np.float32))


def test_high_pass_energy_by_another_filter() -> None:
    x = NOISE / 255.0
    blurred = uniform_filter(x, size=(1, 3, 3, 1), mode="nearest")
    expected = np.log(((x - blurred) ** 2).mean(axis=(1, 2, 3)) + 1e-12)
    np.testing.assert_allclose(score("high_pass_energy", NOISE), expected, rtol=1e-12)
    assert score("high_pass_energy", FLAT)[0] == pytest.approx(np.log(1e-12))


def test_the_smallest_texture_is_above_a_flat_image() -> None:
    image = np.zeros((2, 256, 256, 3), dtype=np.uint8)
    image[1, 100, 100, 0] = 1
    flat, textured = score("high_pass_energy", image)
    assert textured > flat


def test_total_variation_and_standard_deviation_by_hand() -> None:
    image = np.array([[0, 255], [255, 255]], dtype=np.uint8)[None, :, :, None]
    assert score("total_variation", image)[0] == 0.5  # two of four pairs differ by 1
    np.testing.assert_allclose(score("pixel_std", NOISE), (NOISE / 255.0).std(axis=(1, 2, 3)), rtol=1e-12)
    assert score("pixel_std", image)[0] == pytest.approx(np.sqrt(3) / 4)
    assert score("total_variation", image[:, :1, :1])[0] == 0  # a single pixel has no neighbours


def test_codec_bytes_are_of_a_lossless_png() -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE[0]).save(buffer, "PNG", compress_level=9)
    assert score("codec_bytes", NOISE)[0] == len(buffer.getvalue())
    np.testing.assert_array_equal(np.asarray(Image.open(buffer)), NOISE[0])
    assert score("codec_bytes", NOISE)[0] > len(zlib.compress(FLAT.tobytes(), 9))
    assert "Pillow" in IMAGE_STATISTICS["codec_bytes"].codec
