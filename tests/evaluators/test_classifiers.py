"""The bundled classifiers: what they are, that they classify, and how they are trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.features.classifiers import CLASSIFIERS, WEIGHTS, Classifier, load_classifier
from evaluators.features.train import augment, main
from vaebm.data import ImageSet, load_images
from vaebm.errors import UserError

MOST_BYTES = 4_000_000  # of weights in the repository


def small_set(name: str) -> ImageSet:
    """Images of the classifier's shape whose brightness is their class: learnt by a network that works at all."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 10
    shape = CLASSIFIERS[name].image_shape
    images = 25 * labels[:, None, None, None] + rng.integers(0, 10, (80, *shape))
    return ImageSet(name, images.astype(np.uint8), "made here", "train", labels)


def train_small(name: str, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr("evaluators.features.train.load_images", lambda *_, **__: small_set(name))
    few = ("--epochs", "1", "--batch-size", "16", "--num-images", "80")
    assert main([name, "--out", str(out), *few, *more]) == 0


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_bundled_network_classifies_as_well_as_its_card_says(name: str) -> None:
    if not (WEIGHTS / f"{name}.safetensors").is_file():
        pytest.skip(f"{name} is not bundled")
    net, card = load_classifier(name)
    test = load_images(CLASSIFIERS[name].dataset, split="test", n=1000, download=False)
    assert test.labels is not None
    with torch.no_grad():
        x = torch.from_numpy(test.images.transpose(0, 3, 1, 2).copy()).float() / 255
        accuracy = float((net(x)[1].argmax(1).numpy() == test.labels).mean())
    assert card["features"] == CLASSIFIERS[name].widths[2]
    assert abs(accuracy - card["test_accuracy"]) < 4 * np.sqrt(accuracy * (1 - accuracy) / 1000) + 1e-3
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_features_are_what_the_logits_are_read_from(name: str) -> None:
    settings = CLASSIFIERS[name]
    net = Classifier(settings).eval()
    height, width, channels = settings.image_shape
    features, logits = net(torch.rand(3, channels, height, width))
    assert features.shape == (3, settings.widths[2])
    torch.testing.assert_close(logits, features @ net.linear.weight.T + net.linear.bias)


def test_augmentation_shifts_and_mirrors_only() -> None:
    ramp = torch.arange(32.0).expand(200, 3, 32, 32)
    out = augment(ramp, torch.Generator().manual_seed(0), 4, mirrored=True)
    steps = out[:, 0, 0, 10:20].diff(dim=1)
    assert set(steps.unique().tolist()) == {-1.0, 1.0}
    assert 60 < int((steps[:, 0] < 0).sum()) < 140
    centres = (out[:, 0, 0, 15] + out[:, 0, 0, 16]) / 2
    assert (centres - 15.5).abs().max() == 4


def test_digits_are_not_mirrored() -> None:
    ramp = torch.arange(28.0).expand(100, 1, 28, 28)
    out = augment(ramp, torch.Generator().manual_seed(0), 2, mirrored=False)
    assert (out[:, 0, 0, 10:20].diff(dim=1) == 1).all()
    assert (out[:, 0, 0, 14] - 14).abs().max() == 2


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_training_writes_weights_that_load(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.safetensors"
    train_small(name, out, monkeypatch)
    net, card = load_classifier(name, out)
    assert (card["kind"], card["training"]["epochs"]) == (name, 1)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert {path.name for path in tmp_path.iterdir()} == {
        "net.safetensors",
        "net.json",
    }  # no state of an unfinished training


def test_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.safetensors"
    train_small("mnistnet", out, monkeypatch, "--epochs", "12", "--rate", "0.05")
    assert json.loads(out.with_suffix(".json").read_text())["test_accuracy"] > 0.5


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    train_small("mnistnet", whole, monkeypatch, "--epochs", "2")

    calls = []

    def killed(*arguments: object, **keywords: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:  # in the second epoch of five batches each
            raise KeyboardInterrupt
        return augment(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("evaluators.features.train.augment", killed)
        with pytest.raises(KeyboardInterrupt):
            train_small("mnistnet", broken, patch, "--epochs", "2")
    assert not broken.exists()
    train_small("mnistnet", broken, monkeypatch, "--epochs", "2")
    assert broken.read_bytes() == whole.read_bytes()


def test_damaged_and_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.safetensors"
    train_small("mnistnet", out, monkeypatch)
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(UserError, match="does not match the sha256"):
        load_classifier("mnistnet", out)
    with pytest.raises(UserError, match="no such weights"):
        load_classifier("cifar10net", tmp_path / "absent.safetensors")
