"""The bundled classifier: what it is, that it classifies, and that its features do not depend on batches."""

import numpy as np
import pytest
import torch

from evaluators.features.cifar10net import FEATURES, WEIGHTS, CIFAR10Net, augment, extract, load_cifar10net
from evaluators.features.train import main
from vaebm.data import load_images
from vaebm.errors import UserError


def test_bundled_network_classifies_as_well_as_its_card_says() -> None:
    net, card = load_cifar10net()
    test = load_images("cifar10", n=1000, download=False)
    assert test.labels is not None
    with torch.no_grad():
        x = torch.from_numpy(test.images.transpose(0, 3, 1, 2).copy()).float() / 255
        accuracy = float((net(x)[1].argmax(1).numpy() == test.labels).mean())
    assert card["features"] == FEATURES
    assert abs(accuracy - card["test_accuracy"]) < 4 * np.sqrt(accuracy * (1 - accuracy) / 1000)


def test_features_do_not_depend_on_the_batch() -> None:
    net, _ = load_cifar10net()
    images = load_images("cifar10", n=21, download=False).images
    together, apart = extract(net, images), extract(net, images, batch_size=4)
    assert together.shape == (21, FEATURES)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_augmentation_shifts_and_mirrors_only() -> None:
    ramp = torch.arange(32.0).expand(1, 3, 32, 32).contiguous()
    out = augment(ramp.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    steps = out[:, 0, 0, 10:20].diff(dim=1)
    assert set(steps.unique().tolist()) == {-1.0, 1.0}
    assert 60 < int((steps[:, 0] < 0).sum()) < 140
    centres = (out[:, 0, 0, 15] + out[:, 0, 0, 16]) / 2
    assert (centres - 15.5).abs().max() == 4


def test_training_writes_weights_that_load(tmp_path, monkeypatch) -> None:
    bundled = load_images("cifar10", split="test", n=64, download=False)
    monkeypatch.setattr("evaluators.features.train.load_images", lambda *_, **__: bundled)
    out = tmp_path / "net.safetensors"
    assert main(["--out", str(out), "--epochs", "1", "--batch-size", "16", "--num-images", "64"]) == 0
    net, card = load_cifar10net(out)
    assert card["training"]["epochs"] == 1
    assert extract(net, bundled.images[:2]).shape == (2, FEATURES)
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(UserError, match="does not match the sha256"):
        load_cifar10net(out)


def test_unfit_input_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"found uint8 \(2, 28, 28, 1\)"):
        extract(CIFAR10Net(), np.zeros((2, 28, 28, 1), np.uint8))
    with pytest.raises(UserError, match="no such weights"):
        load_cifar10net(tmp_path / "none.safetensors")
    assert WEIGHTS.name == "cifar10net.safetensors"
