"""Residual cells of NVAE, and the cells that join encoder features, latents and decoder features.

Every residual cell computes skip(x) + 0.1 branch(x); the branch is a chain of primitives and ends in an optional squeeze-excitation gate.
``stride`` says what happens to the resolution: 2 halves it, 1 keeps it, -1 doubles it.

Primitives, by the names that checkpoints of the released code carry:

* ``res_elu``: ELU - 3x3;  ``res_bnelu``: BatchNorm - ELU - 3x3;  ``res_bnswish``: BatchNorm - Swish - 3x3;
  ``res_bnswish5``: the same with a dilation of 2, so that it sees 5x5 pixels. These convolutions are weight-normalised.
* ``mconv_e<E>k<K>g<G>``: inverted residual with E-fold expansion and a KxK convolution in G groups (0: depthwise).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.nvae.layers import BatchNorm, Conv2d, FactorizedReduce, SqueezeExcite, UpsampleSkip

RESIDUAL_SCALE = 0.1


@dataclass(frozen=True)
class Cells:
    """The primitives of a cell in each of the four parts of an NVAE."""

    pre: tuple[str, ...]
    enc: tuple[str, ...]
    dec: tuple[str, ...]
    post: tuple[str, ...]


def _alike(primitive: str) -> Cells:
    pair = (primitive, primitive)
    return Cells(pair, pair, pair, pair)


def _residual_then_mobile(first: str, second: str, kernel: int = 5) -> Cells:
    pair = (first, second)
    return Cells(pair, pair, (f"mconv_e6k{kernel}g0",), (f"mconv_e3k{kernel}g0",))


_SWISH, _SWISH5 = "res_bnswish", "res_bnswish5"

# By the names of the released code's --arch_instance; the published models use res_mbconv. (res_bnswish5 is a primitive there.)
CELLS: Mapping[str, Cells] = MappingProxyType(
    {
        "res_elu": _alike("res_elu"),
        "res_bnelu": _alike("res_bnelu"),
        "res_bnswish": _alike(_SWISH),
        "res_bnswish5": _alike(_SWISH5),
        "res_mbconv": _residual_then_mobile(_SWISH, _SWISH),
        "res53_mbconv": _residual_then_mobile(_SWISH5, _SWISH),
        "res35_mbconv": _residual_then_mobile(_SWISH, _SWISH5),
        "res55_mbconv": _residual_then_mobile(_SWISH5, _SWISH5),
        "res_mbconv9": _residual_then_mobile(_SWISH, _SWISH, kernel=9),
        "mbconv_sep": Cells(("mconv_e3k5g0",), ("mconv_e6k5g0",), ("mconv_e6k5g0",), ("mconv_e3k5g0",)),
        "mbconv_sep11": Cells(("mconv_e3k5g0",), ("mconv_e6k11g0",), ("mconv_e6k11g0",), ("mconv_e3k5g0",)),
        "mbconv_res": Cells(("mconv_e3k5g0",), ("mconv_e6k5g0",), (_SWISH, _SWISH), (_SWISH, _SWISH)),
        "mbconv_den": Cells(("mconv_e3k5g8",), ("mconv_e6k5g0",), ("mconv_e6k5g0",), ("mconv_e3k5g8",)),
    }
)


class ActivatedConv(nn.Module):
    """(BatchNorm -) activation - 3x3 convolution (weight-normalised); upsamples by nearest neighbour in between when ``stride`` is -1."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, normalise: bool = True, elu: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        self.up, self.elu = stride == -1, elu
        self.bn = BatchNorm(c_in) if normalise else nn.Identity()
        self.conv = Conv2d(c_in, c_out, 3, stride=abs(stride), dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        x = F.elu(x) if self.elu else F.silu(x)
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x)


class ConvBNSwish(nn.Module):
    """Convolution (no bias, no weight norm) - BatchNorm - Swish."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(c_in, c_out, kernel, stride=stride, groups=groups, bias=False, weight_norm=False)
        self.bn = BatchNorm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class MobileConv(nn.Module):
    """Inverted residual: BN - 1x1 to ``expansion`` times the channels - KxK in groups - 1x1 back - BN (the cell of NVAE's decoder)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int, kernel: int, groups: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.up = stride == -1
        self.bn_in = BatchNorm(c_in)
        self.expand = ConvBNSwish(c_in, hidden, 1)
        self.depthwise = ConvBNSwish(hidden, hidden, kernel, stride=abs(stride), groups=groups or hidden)
        self.project = Conv2d(hidden, c_out, 1, bias=False, weight_norm=False)
        self.bn_out = BatchNorm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.bn_out(self.project(self.depthwise(self.expand(self.bn_in(x)))))


def make_primitive(name: str, c_in: int, c_out: int, stride: int) -> nn.Module:
    """Build a primitive from its name (see the module's docstring).

    Raises:
        ValueError: there is no such primitive.
    """
    if name == "res_elu":
        return ActivatedConv(c_in, c_out, stride, normalise=False, elu=True)
    if name == "res_bnelu":
        return ActivatedConv(c_in, c_out, stride, elu=True)
    if name in (_SWISH, _SWISH5):
        return ActivatedConv(c_in, c_out, stride, dilation=2 if name == _SWISH5 else 1)
    if mobile := re.fullmatch(r"mconv_e(\d+)k(\d+)g(\d+)", name):
        expansion, kernel, groups = map(int, mobile.groups())
        return MobileConv(c_in, c_out, stride, expansion, kernel, groups)
    raise ValueError(f"unknown primitive {name!r} of an NVAE cell")


class ResidualCell(nn.Module):
    """skip(x) + 0.1 SE(branch(x)).

    Args:
        primitives: names of the branch's parts, in order; the first one changes resolution and width.
        c_in: channels in. ``stride`` 2 doubles them, 1 keeps them, -1 halves them.
        stride: 2, 1 or -1.
        squeeze_excite: gate the branch.
    """

    def __init__(self, primitives: tuple[str, ...], c_in: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        c_out = {2: c_in * 2, 1: c_in, -1: c_in // 2}[stride]
        self.skip: nn.Module = nn.Identity()
        if stride != 1:
            self.skip = FactorizedReduce(c_in, c_out) if stride == 2 else UpsampleSkip(c_in, c_out)
        first, *others = primitives
        self.branch = nn.Sequential(
            make_primitive(first, c_in, c_out, stride), *(make_primitive(name, c_out, c_out, 1) for name in others)
        )
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
