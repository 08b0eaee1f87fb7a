"""The small classifiers that are bundled: features and class probabilities offline, for 32x32 colours and for digits.

A Frechet distance in such features is called by their name (``fd_cifar10net``), never FID: FID is defined by Inception-v3's.
Its numbers compare with other numbers in the same features only.

    Space-to-depth 2 - conv a - conv a - pool - conv b + residual - pool - conv c + residual - mean over pixels (c features) - linear

Trained by ``python -m evaluators.features.train NAME`` on the training split; accuracy and hash are in ``weights/NAME.json``.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from vaebm.errors import UserError

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Settings:
    """One of the bundled classifiers.

    Attributes:
        dataset: what it was trained on; it has 10 classes.
        image_shape: (H, W, C) of its images.
        widths: (a, b, c) of the module's formula.
        mean, std: of the training split, per channel.
        mirrored: whether a mirrored image is still one of its class.
        epochs, shift: of its training; images are moved by up to ``shift`` pixels.
    """

    dataset: str
    image_shape: tuple[int, int, int]
    widths: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool
    epochs: int
    shift: int


CLASSIFIERS = {
    "cifar10net": Settings(
        "cifar10", (32, 32, 3), (64, 128, 256), (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), True, 16, 3
    ),
    "mnistnet": Settings("mnist", (28, 28, 1), (32, 64, 128), (0.1307,), (0.3081,), False, 6, 2),
}


class ConvBNReLU(nn.Sequential):
    """3x3 convolution - BatchNorm - ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


class Residual(nn.Module):
    """x + two ConvBNReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ConvBNReLU(channels, channels), ConvBNReLU(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Classifier(nn.Module):
    """Images (N, C, H, W) in [0, 1] -> (features (N, c), logits (N, 10))."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        a, b, c = settings.widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            ConvBNReLU(4 * settings.image_shape[2], a),
            ConvBNReLU(a, a),
            nn.MaxPool2d(2),
            ConvBNReLU(a, b),
            Residual(b),
            nn.MaxPool2d(2),
            ConvBNReLU(b, c),
            Residual(c),
        )
        self.linear = nn.Linear(c, 10)
        self.register_buffer("mean", torch.tensor(settings.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body((x - self.get_buffer("mean")) / self.get_buffer("std")).mean((2, 3))
        return features, self.linear(features)


def load_classifier(name: str, path: Path | None = None) -> tuple[Classifier, dict[str, Any]]:
    """Read a bundled network, in eval mode, and its card.

    Args:
        name: of :data:`CLASSIFIERS`.
        path: other weights of that architecture, their card beside them.

    Raises:
        UserError: the file is missing or is not the one its card describes.
        RuntimeError: it holds weights of another architecture.
    """
    path = path or WEIGHTS / f"{name}.safetensors"
    card_path = path.with_suffix(".json")
    if not (path.is_file() and card_path.is_file()):
        raise UserError(f"{path}: no such weights (with {card_path.name} beside them)")
    payload, card = path.read_bytes(), json.loads(card_path.read_text())
    if hashlib.sha256(payload).hexdigest() != card["sha256"]:
        raise UserError(f"{path}: does not match the sha256 in {card_path.name}")
    net = Classifier(CLASSIFIERS[name])
    weights = {key: value.float() for key, value in load_safetensors(payload).items()}
    # BatchNorm's counters of batches are not kept; they play no part in eval mode.
    weights |= {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False), card
