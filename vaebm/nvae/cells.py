"""Residual cells of NVAE, and the cells that join encoder features, latents and decoder features.

Every residual cell computes skip(x) + 0.1 branch(x); the branch ends in an optional squeeze-excitation gate. ``stride`` says what happens
to the resolution: 2 halves it, 1 keeps it, -1 doubles it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.nvae.layers import BNSwish, Conv2d, FactorizedReduce, SqueezeExcite, UpsampleSkip, batch_norm

RESIDUAL_SCALE = 0.1


class BNSwishConv(nn.Module):
    """BatchNorm - Swish - 3x3 convolution (weight-normalised); upsamples by nearest neighbour first when ``stride`` is -1."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.up = stride == -1
        self.bn = BNSwish(c_in)
        self.conv = Conv2d(c_in, c_out, 3, stride=abs(stride))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x)


class ConvBNSwish(nn.Module):
    """Convolution (no bias, no weight norm) - BatchNorm - Swish."""

    def __init__(self, c_in: int, c_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(c_in, c_out, kernel, groups=groups, bias=False, weight_norm=False)
        self.bn = BNSwish(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class MobileConv(nn.Module):
    """Inverted residual: BN - 1x1 to ``expansion`` times the channels - depthwise 5x5 - 1x1 back - BN (the cell of NVAE's decoder)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.up = stride == -1
        self.bn_in = batch_norm(c_in)
        self.expand = ConvBNSwish(c_in, hidden, 1)
        self.depthwise = ConvBNSwish(hidden, hidden, 5, groups=hidden)
        self.project = Conv2d(hidden, c_out, 1, bias=False, weight_norm=False)
        self.bn_out = batch_norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.bn_out(self.project(self.depthwise(self.expand(self.bn_in(x)))))


class ResidualCell(nn.Module):
    """skip(x) + 0.1 SE(branch(x)).

    Args:
        kind: ``"bnswish"`` (two BNSwishConv) or ``"mconv_e3"`` / ``"mconv_e6"`` (one MobileConv of that expansion).
        c_in: channels in. ``stride`` 2 doubles them, 1 keeps them, -1 halves them.
        stride: 2, 1 or -1.
        squeeze_excite: gate the branch.
    """

    def __init__(self, kind: str, c_in: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        c_out = {2: c_in * 2, 1: c_in, -1: c_in // 2}[stride]
        self.skip: nn.Module = nn.Identity()
        if stride != 1:
            self.skip = FactorizedReduce(c_in, c_out) if stride == 2 else UpsampleSkip(c_in, c_out)
        if kind == "bnswish":
            self.branch = nn.Sequential(BNSwishConv(c_in, c_out, stride), BNSwishConv(c_out, c_out, 1))
        elif kind in ("mconv_e3", "mconv_e6"):
            if stride == 2:
                raise ValueError("a mobile cell does not halve the resolution")
            self.branch = nn.Sequential(MobileConv(c_in, c_out, stride, int(kind[-1])))
        else:
            raise ValueError(f"unknown cell {kind!r}")
        self.se = SqueezeExcite(c_out) if squeeze_excite else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + RESIDUAL_SCALE * self.se(self.branch(x))


class EncoderCombiner(nn.Module):
    """Joins the encoder's features with the decoder's at one group: x_enc + conv1x1(x_dec)."""

    def __init__(self, c_enc: int, c_dec: int) -> None:
        super().__init__()
        self.conv = Conv2d(c_dec, c_enc, 1)

    def forward(self, x_enc: Tensor, x_dec: Tensor) -> Tensor:
        return x_enc + self.conv(x_dec)


class DecoderCombiner(nn.Module):
    """Feeds a latent group into the decoder: conv1x1([x, z])."""

    def __init__(self, channels: int, latents: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels + latents, channels, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.conv(torch.cat([x, z], dim=1))
