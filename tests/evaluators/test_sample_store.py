"""Stored samples: drawn once, grown, resumed, hashed, and timed."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluators.sample_store import SampleStore
from vaebm.data import ImageSet
from vaebm.errors import UserError

KEY = {"weights": "abc", "steps": 16, "seed": 0}


class Sampler:
    """Image i is a function of i; counts what it draws, and can die."""

    def __init__(self, dies_at: int = 10**9, sleeps: float = 0.0) -> None:
        self.drawn: list[int] = []
        self.dies_at, self.sleeps = dies_at, sleeps

    def __call__(self, seeds: Sequence[int]) -> np.ndarray:
        if seeds[0] >= self.dies_at:
            raise UserError(f"image {seeds[0]} is not finite")
        self.drawn += seeds
        time.sleep(self.sleeps)
        return np.stack([np.random.default_rng(i).integers(256, size=(4, 3, 3), dtype=np.uint8) for i in seeds])


def plain(n: int, first: int = 0) -> np.ndarray:
    return Sampler()(range(first, first + n))


def test_grown_resumed_and_direct_samples_are_the_same_and_hash_alike(tmp_path: Path) -> None:
    direct = SampleStore(None).images(KEY, 50, Sampler(), chunk=8)
    assert direct.path is None
    with pytest.raises(UserError, match="image 16 is not finite"):
        SampleStore(tmp_path).images(KEY, 50, Sampler(dies_at=16), chunk=8)
    store = SampleStore(tmp_path)
    sampler = Sampler()
    assert [store.available(KEY, n) for n in (10, 50)] == [10, 16]
    assert store.available(KEY, 50, first=1) == SampleStore(None).available(KEY, 50) == 0
    small = store.images(KEY, 20, sampler, chunk=8)
    grown = store.images(KEY, 50, sampler, chunk=8)
    cut = SampleStore(tmp_path).images(KEY, 20, Sampler(dies_at=0))
    assert sampler.drawn == list(range(16, 50))
    for found, n in ((direct, 50), (grown, 50), (small, 20), (cut, 20)):
        assert found.images.dtype == np.uint8
        np.testing.assert_array_equal(found.images, plain(n))
        assert found.sha256 == ImageSet("x", plain(n), "", "").sha256
        payload = repr((n, 4, 3, 3)).encode() + plain(n).tobytes()
        assert found.sha256 == hashlib.sha256(payload).hexdigest()
    assert isinstance(grown.images, np.memmap)
    assert isinstance(cut.images, np.memmap)
    assert cut.path == grown.path
    np.testing.assert_array_equal(np.load(grown.path), plain(50))


def test_seconds_are_those_of_drawing_these_images_whenever_that_was(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    first = store.images(KEY, 20, Sampler(sleeps=0.05), chunk=10)
    assert 0.1 <= first.seconds < 2
    grown = store.images(KEY, 40, Sampler(sleeps=0.1), chunk=10)
    assert grown.seconds >= first.seconds + 0.2 - 1e-9
    assert store.images(KEY, 40, Sampler(dies_at=0)).seconds == grown.seconds
    assert store.images(KEY, 20, Sampler(dies_at=0)).seconds == pytest.approx(first.seconds)


def test_first_is_the_number_of_the_first_image_and_part_of_the_key(tmp_path: Path) -> None:
    store, sampler = SampleStore(tmp_path), Sampler()
    np.testing.assert_array_equal(store.images(KEY, 6, sampler, first=100).images, plain(6, 100))
    np.testing.assert_array_equal(store.images(KEY, 6, sampler).images, plain(6))
    store.images({**KEY, "seed": 1}, 6, sampler)
    assert sampler.drawn == [*range(100, 106), *range(6), *range(6)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.astype(np.float32) / 255,
        lambda x: x.astype(np.int64),
        lambda x: x[:-1],
        lambda x: x[..., 0],
        lambda x: x.transpose(0, 3, 2, 1),
        lambda x: x[..., :2],
    ],
)
def test_what_is_no_image_is_refused_and_not_kept(tmp_path: Path, wrong) -> None:
    with pytest.raises(UserError, match=r"mine: found .* for 5 images, needed uint8 \(5, H, W, 1 or 3\)"):
        SampleStore(tmp_path).images(KEY, 5, lambda seeds: wrong(plain(5)), label="mine")
    assert list(tmp_path.iterdir()) == []


def test_progress_is_on_stderr_with_rate_and_time_left_and_can_be_silenced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SampleStore(tmp_path)
    store.images(KEY, 20, Sampler(), chunk=10)
    assert capsys.readouterr() == ("", "")
    store.images(KEY, 60, Sampler(sleeps=0.15), chunk=10, label="samples of mine", progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert "samples of mine" in said.err
    assert "20/60" in said.err
    assert "images/s" in said.err


def test_bad_folder_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache"):
        SampleStore(tmp_path / "file" / "cache")
