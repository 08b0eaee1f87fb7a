"""A small CIFAR-10 classifier whose penultimate layer gives features for distances, bundled and offline.

A Frechet distance in these features is called by their name (``fd_cifar10net``), never FID: FID is defined by Inception-v3's. It separates
colour, layout and coarse object shape of 32x32 images, and its numbers compare with other numbers in the same features only.

    Space-to-depth 2 - conv 32 - conv 48 - pool - conv 96 + residual - pool - conv 192 + residual - mean over pixels (192 features) - linear

Trained by ``python -m evaluators.features.train`` on the CIFAR-10 training split; accuracy and hash are in ``weights/cifar10net.json``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from vaebm.errors import UserError

WEIGHTS = Path(__file__).parent / "weights" / "cifar10net.safetensors"
FEATURES = 192
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of the training split, per channel


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


class CIFAR10Net(nn.Module):
    """Images (N, 3, 32, 32) in [0, 1] -> (features (N, 192), logits (N, 10))."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            ConvBNReLU(12, 32),
            ConvBNReLU(32, 48),
            nn.MaxPool2d(2),
            ConvBNReLU(48, 96),
            Residual(96),
            nn.MaxPool2d(2),
            ConvBNReLU(96, FEATURES),
            Residual(FEATURES),
        )
        self.linear = nn.Linear(FEATURES, 10)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body((x - self.get_buffer("mean")) / self.get_buffer("std")).mean((2, 3))
        return features, self.linear(features)


def load_cifar10net(path: Path = WEIGHTS) -> tuple[CIFAR10Net, dict[str, Any]]:
    """Read the bundled network, in eval mode, and its card.

    Raises:
        UserError: the file is missing or is not the one its card describes.
    """
    card_path = path.with_suffix(".json")
    if not (path.is_file() and card_path.is_file()):
        raise UserError(f"{path}: no such weights (with {card_path.name} beside them)")
    payload, card = path.read_bytes(), json.loads(card_path.read_text())
    if hashlib.sha256(payload).hexdigest() != card["sha256"]:
        raise UserError(f"{path}: does not match the sha256 in {card_path.name}")
    net = CIFAR10Net()
    net.load_state_dict({name: value.float() for name, value in load_safetensors(payload).items()}, strict=False)
    return net.eval().requires_grad_(False), card


@torch.no_grad()
def extract(net: CIFAR10Net, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Return features, float64 (N, 192), of uint8 images (N, 32, 32, 3).

    Raises:
        UserError: the images are of another size or type.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise UserError(f"cifar10net: found {images.dtype} {images.shape}, needed uint8 (N, 32, 32, 3)")
    device = net.linear.weight.device
    parts = [np.empty((0, FEATURES))]
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size].transpose(0, 3, 1, 2).copy()).to(device).float() / 255
        parts.append(net(x)[0].double().cpu().numpy())
    return np.concatenate(parts)


def augment(x: Tensor, generator: torch.Generator, shift: int = 4) -> Tensor:
    """Mirror with probability 1/2 and shift by up to ``shift`` pixels, reflected at the border, each image by itself."""
    n, _, h, w = x.shape
    x = torch.where((torch.rand(n, generator=generator) < 0.5)[:, None, None, None], x.flip(-1), x)
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    rows = torch.randint(2 * shift + 1, (n, 1), generator=generator) + torch.arange(h)
    columns = torch.randint(2 * shift + 1, (n, 1), generator=generator) + torch.arange(w)
    batch = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
