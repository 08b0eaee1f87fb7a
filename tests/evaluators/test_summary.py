"""Summaries of images in a feature space: the same whatever the chunks, the cache and the interruptions."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.features.extractor import Heads
from evaluators.features.summary import FeatureSummary, Statistics, summarise
from evaluators.metrics.frechet import FrechetReference, frechet_distance, frechet_estimate
from evaluators.metrics.inception_score import inception_score, inception_score_estimate
from evaluators.protocols import Images
from vaebm.data import ImageSet
from vaebm.errors import UserError

DIM = 6


class Means:
    """Means of the image in stripes; as logits and spatial features, functions of them. It counts what it is asked for."""

    name = "means"
    dim = DIM
    heads = ("features", "logits", "spatial")
    protocol: Mapping[str, Any] = {"features": "means"}

    def __init__(self, version: int | None = 0, bad: int | None = None) -> None:
        self.fingerprint = None if version is None else {"version": version}
        self.bad = bad
        self.sizes: list[int] = []

    def extract(self, images: Images) -> Heads:
        self.sizes.append(len(images))
        features = images.reshape(len(images), DIM, -1).mean(2).astype(np.float32) / 100
        if self.bad is not None and self.bad in images[:, 0, 0, 0]:
            features[images[:, 0, 0, 0] == self.bad] = np.nan
        return {"features": features, "logits": features[:, :3] * 2, "spatial": features**2}


def pictures(n: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 200, (n, 6, 4, 3), dtype=np.uint8)


def same(a: FeatureSummary, b: FeatureSummary) -> None:
    assert (a.n, a.sha256, a.image_shape) == (b.n, b.sha256, b.image_shape)
    for left, right in ((a.moments, b.moments), (a.spatial, b.spatial), (a.classes, b.classes)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            pairs = zip(left.to_arrays().values(), right.to_arrays().values(), strict=True)  # type: ignore[union-attr]
            for x, y in pairs:
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def test_summary_is_what_numpy_says_of_all_features_at_once(tmp_path: Path) -> None:
    images = pictures(230)
    heads = Means().extract(images)
    done: list[tuple[int, int]] = []
    report = lambda *counts: done.append(counts)
    found = summarise(images, Means(), keep_features=True, spatial=True, chunk=100, progress=report, cache=tmp_path)
    assert done == [(100, 230), (200, 230), (230, 230)]
    assert found.features is not None
    np.testing.assert_array_equal(found.features, heads["features"])
    for moments, values in ((found.moments, heads["features"]), (found.spatial, heads["spatial"])):
        assert moments is not None
        n, mu, cov = moments.statistics()
        assert n == 230
        np.testing.assert_allclose(mu, values.mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(cov, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-15)
    p = np.exp(heads["logits"].astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert found.classes is not None
    assert inception_score_estimate(found.classes).value == pytest.approx(inception_score(p)[0], rel=1e-12)
    assert found.image_shape == (6, 4, 3)


def test_hash_is_that_of_an_image_set() -> None:
    images = pictures(25)
    assert summarise(images, Means(), chunk=7).sha256 == ImageSet("any", images, "", "").sha256


@given(chunk=st.integers(1, 60), n=st.integers(1, 50))
def test_chunks_decide_nothing(chunk: int, n: int) -> None:
    images = pictures(n)
    same(summarise(images, Means(), chunk=chunk, spatial=True), summarise(images, Means(), chunk=1000, spatial=True))


def test_chunks_are_whole_batches() -> None:
    extractor = Means()
    extractor.batch_size = 8  # type: ignore[attr-defined]
    summarise(pictures(50), extractor, chunk=20)
    assert extractor.sizes == [24, 24, 2]


def test_groups_are_those_asked_for() -> None:
    found = summarise(pictures(30), Means(), groups=7, chunk=8)
    assert found.moments.to_arrays()["counts"].tolist() == [5, 5, 4, 4, 4, 4, 4]  # type: ignore[union-attr]
    assert found.classes is not None
    assert found.classes.counts.tolist() == [5, 5, 4, 4, 4, 4, 4]


def test_only_what_is_asked_for_is_kept() -> None:
    found = summarise(pictures(5), Means())
    assert found.features is None
    assert found.spatial is None
    assert found.classes is not None


def test_the_cache_answers_for_the_same_images_and_fingerprint_alone(tmp_path: Path) -> None:
    images = pictures(50)
    first = summarise(images, Means(), chunk=20, cache=tmp_path)
    again = Means()
    same(summarise(images, again, chunk=20, cache=tmp_path), first)
    assert again.sizes == []
    changed = images.copy()
    changed[30, 0, 0, 0] ^= 1
    once = Means()
    assert summarise(changed, once, chunk=20, cache=tmp_path).sha256 != first.sha256
    assert once.sizes == [20]  # its chunk, and no other
    other = Means(version=1)
    summarise(images, other, chunk=20, cache=tmp_path)
    assert sum(other.sizes) == 50
    more = Means()
    summarise(images, more, chunk=20, cache=tmp_path, spatial=True)  # what was kept has no spatial features
    assert sum(more.sizes) == 50
    grown = Means()
    summarise(np.concatenate([images[:40], pictures(40, seed=1)]), grown, chunk=20, cache=tmp_path)
    assert sum(grown.sizes) == 40
    unknown = Means(version=None)
    for _ in range(2):
        summarise(images, unknown, chunk=20, cache=tmp_path)
    assert sum(unknown.sizes) == 100


def test_a_killed_run_loses_the_chunk_it_worked_on(tmp_path: Path) -> None:
    images = pictures(100)

    class Killed(Means):
        def extract(self, images: Images) -> Heads:
            if len(self.sizes) == 3:
                raise KeyboardInterrupt
            return super().extract(images)

    with pytest.raises(KeyboardInterrupt):
        summarise(images, Killed(), chunk=20, cache=tmp_path)
    rest = Means()
    found = summarise(images, rest, chunk=20, cache=tmp_path, keep_features=True)
    assert rest.sizes == [20, 20]
    same(found, summarise(images, Means(), keep_features=True))
    assert found.features is not None
    np.testing.assert_array_equal(found.features, Means().extract(images)["features"])


def test_damaged_cache_files_are_made_again_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(40)
    first = summarise(images, Means(), chunk=20, cache=tmp_path)
    files = sorted(path for path in tmp_path.rglob("*.npy"))
    assert files
    for file in files:
        payload = bytearray(file.read_bytes())
        payload[-1] ^= 1
        file.write_bytes(payload)
    again = Means()
    same(summarise(images, again, chunk=20, cache=tmp_path), first)
    assert again.sizes == [20, 20]
    assert capsys.readouterr().err.count("is damaged") == 2


class Endless:
    """Images that are made when asked for, as a memory map of a file would be read."""

    def __init__(self, n: int) -> None:
        self.shape = (n, 6, 40, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> Images:
        start, stop, _ = key.indices(len(self))
        return np.random.default_rng(start).integers(0, 255, (stop - start, *self.shape[1:]), dtype=np.uint8)


def peak(n: int, keep: bool, cache: Path | None) -> int:
    tracemalloc.start()
    try:
        summarise(Endless(n), Means(), keep_features=keep, spatial=True, groups=2, chunk=100, cache=cache)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    peak(500, False, tmp_path / "warm")  # imports
    for few, many in ((None, None), (tmp_path / "few", tmp_path / "many")):
        assert (
            peak(5000, False, many) - peak(1000, False, few) < 4000 * DIM * 4 / 2
        )  # half of what features alone would take
    assert peak(20_000, True, None) > peak(20_000, False, None) + 20_000 * DIM * 4 * 0.9  # the test can see what grows


def test_memory_maps_are_read_in_pieces(tmp_path: Path) -> None:
    images = pictures(30)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    same(summarise(mapped, Means(), chunk=8), summarise(images, Means()))


def test_features_that_are_no_numbers_are_refused_and_not_kept(tmp_path: Path) -> None:
    images = pictures(50)
    images[:, 0, 0, 0] = np.arange(50)
    with pytest.raises(UserError, match=r"features of mine by means, images 20 to 39: 1 of 20 .* NaN.* position 7"):
        summarise(images, Means(bad=27), chunk=20, name="mine", cache=tmp_path)
    healthy = Means()
    summarise(images, healthy, chunk=20, cache=tmp_path)
    assert healthy.sizes == [20, 10]


def test_a_single_image_has_a_summary_and_no_covariance() -> None:
    found = summarise(pictures(1), Means(), keep_features=True)
    assert found.n == 1
    with pytest.raises(UserError, match="found 1 images, needed at least 2"):
        found.moments.statistics()


def test_no_images_and_no_spatial_features_are_refused() -> None:
    with pytest.raises(UserError, match="mine: found no images"):
        summarise(pictures(0), Means(), name="mine")

    class Plain(Means):
        heads = ("features",)

    assert summarise(pictures(3), Plain()).classes is None
    with pytest.raises(UserError, match="no spatial part"):
        summarise(pictures(3), Plain(), spatial=True)


def test_saved_features_and_statistics_give_the_distance_of_their_images() -> None:
    a, b = pictures(60), pictures(80, seed=1)
    samples, reference = summarise(a, Means()), summarise(b, Means(), keep_features=True)
    assert reference.features is not None
    _, mu, cov = reference.moments.statistics()
    exact = frechet_distance(*samples.moments.statistics()[1:], mu, cov)
    of_features = FeatureSummary.from_features(reference.features)
    of_statistics = FeatureSummary.from_statistics(mu.astype(np.float64), cov, n=80)
    assert (of_features.n, of_statistics.n) == (80, 80)
    assert isinstance(of_statistics.moments, Statistics)
    for summary in (reference, of_features, of_statistics):
        _, mean, covariance = summary.moments.statistics()
        found = frechet_estimate(samples.moments, FrechetReference(mean, covariance))  # type: ignore[arg-type]
        assert found.value == pytest.approx(exact, rel=1e-9)
    assert len({s.sha256 for s in (reference, of_features, of_statistics)}) == 3


def test_saved_features_that_are_no_numbers_are_refused() -> None:
    features = np.ones((4, 3))
    features[2, 1] = np.inf
    with pytest.raises(UserError, match=r"mine\.npz: 1 of 4 .* position 2"):
        FeatureSummary.from_features(features, name="mine.npz")
