"""Small convolutional networks between images and vectors: strided convolutions down, transposed ones up.

Reference: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016, https://arxiv.org/abs/1511.06434
"""

import torch
from torch import Tensor, nn


def _block(conv: nn.Module, channels: int, batch_norm: bool) -> list[nn.Module]:
    return [conv, *([nn.BatchNorm2d(channels)] if batch_norm else []), nn.LeakyReLU(0.2)]


class ConvEncoder(nn.Module):
    """Images (N, C, S, S) to vectors (N, out_features): halved three times with w, 2w, 4w channels, then one kernel over all.

    Args:
        channels: C.
        size: S, divisible by 8.
        width: w.
        out_features: of the vectors.
        batch_norm: normalise after the second and third convolution. An energy has none: the energy of an image may not
            depend on the rest of its batch.
    """

    def __init__(self, channels: int, size: int, width: int, out_features: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(nn.Conv2d(channels, width, 4, stride=2, padding=1), width, False),
            *_block(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), 2 * width, batch_norm),
            *_block(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1), 4 * width, batch_norm),
            nn.Conv2d(4 * width, out_features, size // 8),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).flatten(1)


class ConvGenerator(nn.Module):
    """Vectors (N, latent) to images in (-1, 1), (N, C, S, S): the mirror image of :class:`ConvEncoder`.

    Args:
        latent: length of the vectors.
        channels, size, width, batch_norm: as there.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(nn.ConvTranspose2d(latent, 4 * width, size // 8), 4 * width, batch_norm),
            *_block(nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1), 2 * width, batch_norm),
            *_block(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), width, batch_norm),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None].contiguous(memory_format=torch.channels_last))
