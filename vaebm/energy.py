"""Energy networks E_psi(x): convolutional residual nets with weight normalisation, a scalar per image.

3x3 convolution, residual blocks, spatial *sum* pooling, one linear unit. The activation is Swish / 1.1, which is 1-Lipschitz. There is no
normalisation layer: weight normalisation with data-dependent init and a spectral regulariser take the place of IGEBM's spectral norm.

Reference: Xiao et al., "VAEBM", ICLR 2021, section 4 and appendix; facts of the released networks are in docs/algorithm.md.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.nvae.layers import Conv2d


def swish(x: Tensor) -> Tensor:
    """Return x sigmoid(x) / 1.1: Swish scaled to a Lipschitz constant of at most 1."""
    return F.silu(x) / 1.1


@dataclass(frozen=True)
class EnergyConfig:
    """An energy network as data.

    Attributes:
        image_channels: channels of the images.
        channels: width C of the first convolution.
        blocks: one (width multiple, halve) pair per residual block: its output width is multiple * C, and ``halve`` pools at its end.
        contrast_floor: 0 (the published networks) shows E the image as it is. f > 0 shows it (x - m) / (s + f), m and s being
            the mean and standard deviation of the image's own pixels, so that E hardly sees brightness and contrast.
    """

    image_channels: int = 3
    channels: int = 128
    blocks: tuple[tuple[int, bool], ...] = ((1, True), (1, False), (2, True), (2, False), (2, True), (2, False))
    contrast_floor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple((int(width), bool(halve)) for width, halve in self.blocks))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "EnergyConfig":
        """Read a dictionary written by :meth:`to_json`; an unknown key is an error."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown energy settings {sorted(unknown)}")
        return cls(**values)


_W, _WH = (1, False), (1, True)  # the base width, kept and halved
_2W, _2WH, _4W, _4WH, _8W, _8WH = (2, False), (2, True), (4, False), (4, True), (8, False), (8, True)

# The networks of the released code at their published widths.
ENERGIES: Mapping[str, EnergyConfig] = MappingProxyType(
    {
        "mnist": EnergyConfig(channels=64, blocks=(_WH, _W, _2WH, _2W)),
        "cifar10": EnergyConfig(channels=128, blocks=(_WH, _W, _2WH, _2W, _2WH, _2W)),
        "celeba64": EnergyConfig(channels=64, blocks=(_WH, _W, _2WH, _2W, _2WH, _4W, _4WH, _4W)),
        "lsun64": EnergyConfig(channels=64, blocks=(_WH, _W, _2WH, _2W, _2W, _2WH, _4W, _4W, _4WH, _4W)),
        "celebahq256": EnergyConfig(
            channels=64, blocks=(_WH, _W, _2WH, _2W, _2WH, _2W, _4WH, _4W, _4WH, _4W, _8WH, _8W)
        ),
    }
)


class ResidualBlock(nn.Module):
    """act(pool(skip(x) + conv(act(conv(x))))); the skip is a 1x1 convolution where the width changes or the block pools."""

    def __init__(self, c_in: int, c_out: int, halve: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(c_in, c_out, 3)
        self.conv2 = Conv2d(c_out, c_out, 3)
        self.skip = Conv2d(c_in, c_out, 1, bias=False) if halve or c_in != c_out else nn.Identity()
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        out = self.skip(x) + self.conv2(swish(self.conv1(x)))
        return swish(F.avg_pool2d(out, 2) if self.halve else out)


class EnergyNetwork(nn.Module):
    """E_psi: images in [0, 1], (N, C, H, W) -> energies (N,); lower means more like data."""

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels, *(multiple * config.channels for multiple, _ in config.blocks)]
        self.conv1 = Conv2d(config.image_channels, config.channels, 3)
        self.blocks = nn.ModuleList(
            ResidualBlock(c_in, c_out, halve)
            for c_in, c_out, (_, halve) in zip(widths, widths[1:], config.blocks, strict=False)
        )
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.contrast_floor:
            deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
            x = (x - mean) / (deviation + self.config.contrast_floor)
        h = swish(self.conv1(x))
        for block in self.blocks:
            h = block(h)
        # Energies grow large while their differences count: the sum and the head stay in float32 under mixed precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.linear(h.to(self.linear.weight.dtype).sum((2, 3))).squeeze(1)

    def convolutions(self) -> list[Conv2d]:
        """The weight-normalised convolutions, in the order in which they are applied."""
        return [module for module in self.modules() if isinstance(module, Conv2d)]


DATA_INIT_STD = 5.0


@torch.no_grad()
def data_dependent_init(energy: EnergyNetwork, x: Tensor) -> Tensor:
    """Set every convolution's gain and bias so that its output over the batch ``x`` has mean 0 and standard deviation 1/5 per channel.

    Runs one forward pass, layer by layer; the skips without bias keep their mean. Returns the energies (N,) of that pass.

    Reference: Salimans & Kingma, "Weight Normalization", NeurIPS 2016 (there with standard deviation 1).
    """

    def initialise(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, Conv2d)
        assert conv.log_weight_norm is not None
        unit = conv.weight / (conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-5)
        out = F.conv2d(inputs[0], unit, None, conv.stride, conv.padding, groups=conv.groups)
        scale = DATA_INIT_STD * out.std((0, 2, 3)) + 1e-5
        conv.log_weight_norm.copy_(-scale.log().view(-1, 1, 1, 1))
        if conv.bias is not None:
            conv.bias.copy_(-out.mean((0, 2, 3)) / scale)

    hooks = [conv.register_forward_pre_hook(initialise) for conv in energy.convolutions()]
    try:
        return energy(x)
    finally:
        for hook in hooks:
            hook.remove()
