"""Wide residual network without normalisation: images to class logits, as JEM and HDGE have it.

Reference: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.errors import UserError

SLOPE = 0.2  # of every leaky ReLU


@dataclass(frozen=True)
class WideResNetArchitecture:
    """WRN-depth-widen: three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times ``widen`` channels, resolution halved twice.

    ``image_shape``: (H, W, C). ``stem_stride``: of the first convolution; 1 as published, 2 for a quarter of the work.
    ``classes``: number of logits.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    depth: int = 28
    widen: int = 10
    stem_stride: int = 1
    classes: int = 10

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"architecture: depth = {self.depth}, needed 10, 16, 22, 28, ...")
        if min(self.widen, self.stem_stride) < 1 or self.classes < 2:
            raise UserError("architecture: widen and stem_stride must be at least 1, classes at least 2")
        if any(side % (4 * self.stem_stride) for side in self.image_shape[:2]):
            raise UserError(f"architecture: image_shape needs H and W divisible by {4 * self.stem_stride}")

    @property
    def blocks(self) -> int:
        """Blocks per stage."""
        return (self.depth - 4) // 6


class Block(nn.Module):
    """y = shortcut(x) + conv2(lrelu(conv1(lrelu(x)))); it is the second convolution that has the stride."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1)
        self.shortcut = (
            nn.Identity() if stride == 1 and channels == out_channels else nn.Conv2d(channels, out_channels, 1, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, SLOPE)), SLOPE))


class WideResNet(nn.Module):
    """The logits f(x)[y]: (N, C, H, W) in [-1, 1] -> (N, classes), float32."""

    def __init__(self, architecture: WideResNetArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width = 16 * architecture.widen
        self.stem = nn.Conv2d(architecture.image_shape[2], 16, 3, architecture.stem_stride, padding=1)
        blocks, channels = [], 16
        for stage, stride in enumerate((1, 2, 2)):
            for i in range(architecture.blocks):
                blocks.append(Block(channels, width << stage, stride if i == 0 else 1))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(channels, architecture.classes)
        self._initialise()
        self.to(memory_format=torch.channels_last)  # several times faster than NCHW on CPUs

    def _initialise(self) -> None:
        """Keep the variance of activations through two convolutions, and the branches small enough that it does not grow with depth."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block):
                module.conv2.weight.data.mul_(len(self.blocks) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.contiguous(memory_format=torch.channels_last))  # (N, 16, H/s, W/s)
        h = F.leaky_relu(self.blocks(h), SLOPE)  # (N, 64 widen, H/4s, W/4s)
        with torch.autocast(x.device.type, enabled=False):  # half precision would lose small differences between logits
            return self.last(h.float().mean(dim=(2, 3)))
