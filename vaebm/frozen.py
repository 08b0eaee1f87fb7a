"""Networks frozen for sampling: the same function with nothing left to normalise.

Langevin dynamics differentiates the same weights thousands of times with respect to its noise alone, so all that depends on the weights
only can be worked out once:

* a weight-normalised kernel becomes a plain one, w = exp(g) v / ||v||;
* BatchNorm in eval mode is an affine map a x + b per channel. After a convolution it scales the kernel's rows and enters the bias; before a
  1x1 convolution, which pads nothing, it scales the columns. Where neither neighbour is a convolution it stays as a x + b;
* an upsampling cell's 1x1 convolution commutes with the upsampling (interpolation weights sum to 1) and runs on a quarter of the pixels.

Outputs agree with the original's to rounding. Weights are in channels-last order, in which 1x1 convolutions are matrix products.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.langevin import Potential
from vaebm.nvae.cells import ActivatedConv, MobileConv
from vaebm.nvae.layers import Conv2d, UpsampleSkip

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def freeze(module: Network) -> Network:
    """Return a copy for inference and Langevin dynamics: same class, methods and outputs (1e-5 relative in float32), in eval mode.

    Works for an NVAE, an energy network, a VAEBM or any part of one; modules that are not known here are only copied. No weight asks for
    a gradient, and nothing is shared with ``module``. The copy cannot be trained, its statistics cannot be re-adjusted
    (:mod:`vaebm.nvae.readjust` comes first), and its state dict has other names.
    """
    frozen = cast(Network, _frozen(copy.deepcopy(module).eval()))
    frozen.requires_grad_(False)
    return frozen.to(memory_format=torch.channels_last)


def capture(potential: Potential, state: Sequence[Tensor]) -> Potential:
    """Return ``potential`` with its forward and backward pass captured as CUDA graphs, for states shaped like ``state``.

    A step at small batch sizes is thousands of short kernels; a graph launches them at once. Only dU / d state is available. Where there
    is no CUDA device, or the capture fails, the potential itself comes back (the latter with a warning): results are the same.
    """
    if not all(part.is_cuda for part in state):
        return potential
    example = tuple(part.detach().clone().requires_grad_() for part in state)
    try:
        graphed = torch.cuda.make_graphed_callables(lambda *eps: potential(eps), example)
    except RuntimeError as error:
        warnings.warn(f"no CUDA graph of the potential: {str(error).splitlines()[0]}", RuntimeWarning, stacklevel=2)
        return potential

    def replayed(eps: Sequence[Tensor]) -> Tensor:
        # The graph writes to the same memory every time; its value leaves as a copy, and so do the gradients (those of a product).
        return cast(Tensor, graphed(*(part * 1 for part in eps))).clone()

    return replayed


class Affine(nn.Module):
    """A BatchNorm in eval mode: a x + b per channel, a = gamma / sqrt(var + eps), b = beta - a mean."""

    def __init__(self, bn: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = affine(bn)
        self.scale = nn.Parameter(scale.to(bn.weight.dtype).view(1, -1, 1, 1))
        self.shift = nn.Parameter(shift.to(bn.weight.dtype).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class FrozenMobileConv(nn.Module):
    """A :class:`vaebm.nvae.cells.MobileConv` as three convolutions with biases."""

    def __init__(self, cell: MobileConv) -> None:
        super().__init__()
        self.up = cell.up
        self.expand = after(before(cell.bn_in, plain(cell.expand.conv)), cell.expand.bn)
        self.depthwise = after(plain(cell.depthwise.conv), cell.depthwise.bn)
        self.project = after(plain(cell.project), cell.bn_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.expand(x))
        if self.up:  # pointwise maps commute with nearest neighbours
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.project(F.silu(self.depthwise(x)))


class FrozenUpsampleSkip(nn.Module):
    """A :class:`vaebm.nvae.layers.UpsampleSkip`, the 1x1 convolution first."""

    def __init__(self, skip: UpsampleSkip) -> None:
        super().__init__()
        self.conv = plain(skip.conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=True)


def affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return (a, b) of a BatchNorm in eval mode, float64 (C,)."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    return scale, bn.bias.double() - scale * bn.running_mean.double()


def plain(conv: Conv2d) -> nn.Conv2d:
    """Return the convolution with its effective kernel."""
    return _with(conv, conv.effective_weight(), conv.bias)


def before(bn: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Return conv(bn(.)) as one convolution; exact for an ungrouped 1x1 kernel, where no padding hides b."""
    assert conv.kernel_size == (1, 1)
    assert conv.groups == 1
    scale, shift = affine(bn)
    kernel = conv.weight.double()
    return _with(conv, kernel * scale.view(1, -1, 1, 1), _bias(conv) + kernel.flatten(1) @ shift)


def after(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return bn(conv(.)) as one convolution."""
    scale, shift = affine(bn)
    return _with(conv, conv.weight.double() * scale.view(-1, 1, 1, 1), scale * _bias(conv) + shift)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels).double() if conv.bias is None else conv.bias.double()


def _with(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a plain convolution of ``conv``'s geometry and dtype with this kernel and bias."""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=False,
        device="meta",
    )
    made.weight = nn.Parameter(weight.to(conv.weight.dtype))
    made.bias = None if bias is None else nn.Parameter(bias.to(conv.weight.dtype))
    return made


def _frozen(module: nn.Module) -> nn.Module:
    """Return what takes the place of ``module``: a new module, or itself with its children replaced."""
    if isinstance(module, MobileConv):
        return FrozenMobileConv(module)
    if isinstance(module, UpsampleSkip):
        return FrozenUpsampleSkip(module)
    if isinstance(module, Conv2d):
        return plain(module)
    if isinstance(module, nn.BatchNorm2d):
        return Affine(module)
    if isinstance(module, nn.Sequential):
        # The BatchNorm that begins one primitive of a branch follows the convolution that ends the primitive before it.
        for first, second in zip(module, list(module)[1:], strict=False):
            if isinstance(first, ActivatedConv) and isinstance(second, ActivatedConv):
                _join(first, second)
    for name, child in module.named_children():
        setattr(module, name, _frozen(child))
    return module


def _join(first: ActivatedConv, second: ActivatedConv) -> None:
    if isinstance(second.bn, nn.BatchNorm2d):
        first.conv = after(plain(first.conv), second.bn)  # type: ignore[assignment]
        second.bn = nn.Identity()
