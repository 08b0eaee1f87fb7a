"""Bundled references: what they hold is what the images give, and other weights do not get them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import evaluators.features.references as references
from evaluators.features import load_extractor
from evaluators.features.references import FOLDER, bundled_reference, main
from evaluators.features.summary import summarise
from vaebm.data import load_images


def test_the_command_writes_what_a_pass_over_the_images_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "FEATURES", 30)
    images = load_images("cifar10", n=40, download=False)
    extractor = load_extractor("cifar10net", batch_size=20)
    assert main(["cifar10net", "cifar10", "test", "--num-images", "40", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10net-cifar10-test.npz"]
    found = bundled_reference(extractor, "cifar10", "test", tmp_path)
    direct = summarise(images.images, extractor, keep_features=True)
    assert found is not None
    assert (found.n, found.sha256, found.image_shape) == (40, images.sha256, (32, 32, 3))
    for mine, theirs in zip(found.moments.statistics(), direct.moments.statistics(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert found.features.shape == (30, extractor.dim)
    np.testing.assert_allclose(found.features, direct.features[:30], rtol=2e-3, atol=1e-3)  # half precision


def test_other_weights_or_splits_have_no_reference(tmp_path: Path) -> None:
    extractor = load_extractor("cifar10net")
    assert bundled_reference(extractor, "cifar10", "train") is not None
    assert bundled_reference(extractor, "svhn", "train") is None
    other = SimpleNamespace(name="cifar10net", fingerprint={"weights": "another"})
    assert bundled_reference(other, "cifar10", "train") is None


def test_the_bundled_reference_is_of_the_whole_training_split(data_root: Path) -> None:
    extractor = load_extractor("cifar10net", batch_size=50)
    found = bundled_reference(extractor, "cifar10", "train")
    assert found is not None
    images = load_images("cifar10", split="train", n=100, data_root=data_root)
    direct = extractor.extract(images.images)["features"]
    np.testing.assert_allclose(found.features[:100], direct, rtol=2e-3, atol=1e-3)
    with np.load(next(FOLDER.glob("cifar10net-*.npz"))) as file:
        assert json.loads(str(file["card"]))["n"] == found.n > 49_000
