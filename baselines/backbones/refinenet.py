"""The RefineNet of score networks: dilated residual blocks down, refinement blocks up, images to images of the same shape.

With noise ``levels`` every normalisation has gains of its own per level and stands before every convolution but the first
(NCSN); without, normalisations stand in the residual blocks alone (NCSNv2). Modules are named as in the published checkpoints.

References: Lin et al., "RefineNet", CVPR 2017, https://arxiv.org/abs/1611.06612; Song and Ermon, "Generative Modeling by
Estimating Gradients of the Data Distribution", NeurIPS 2019, appendix A, https://arxiv.org/abs/1907.05600
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNormPlus(nn.Module):
    """y = gamma (h + alpha m) + beta, with h the instance norm of x and m its channel means, standardised over the channels.

    Instance norm alone would forget the means, and with them the colours.

    Args:
        channels: of x (N, C, H, W), at least 2.
        levels: gains per level, an embedding (levels, 3 C) of gamma, alpha, beta; None: one set of them.
    """

    def __init__(self, channels: int, levels: int | None) -> None:
        super().__init__()
        if levels is None:
            self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.beta = nn.Parameter(torch.zeros(channels))
        else:
            self.embed = nn.Embedding(levels, 3 * channels)
            nn.init.normal_(self.embed.weight[:, : 2 * channels], 1.0, 0.02)
            nn.init.zeros_(self.embed.weight[:, 2 * channels :])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        if hasattr(self, "embed"):
            gamma, alpha, beta = self.embed(level)[..., None, None].chunk(3, dim=1)  # (N, C, 1, 1) each
        else:
            gamma, alpha, beta = (gain[:, None, None] for gain in (self.gamma, self.alpha, self.beta))
        variance, means = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)  # (N, C, 1, 1)
        spread, centre = torch.var_mean(means, dim=1, keepdim=True)
        m = (means - centre) * (spread + 1e-5).rsqrt()
        # gamma (x - mean) / std + gamma alpha m + beta, as one scale and one shift of x
        scale = gamma * (variance + 1e-5).rsqrt()
        return torch.addcmul(gamma * alpha * m + beta - scale * means, x, scale)


class NoNorm(nn.Module):
    """The identity, where the unconditional network has no normalisation."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return x


class MeanPoolConv(nn.Module):
    """A convolution at full resolution, then 2x2 means."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class ResidualBlock(nn.Module):
    """y = shortcut(x) + conv(elu(norm(conv(elu(norm(x)))))).

    Args:
        first: of its stage: changes the number of channels and, without dilation, halves the resolution.
        dilation: of all its convolutions, the shortcut's included.
    """

    def __init__(
        self, channels: int, out_channels: int, levels: int | None, *, first: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        conv = lambda to: nn.Conv2d(channels, to, 3, padding=dilation, dilation=dilation)
        down = first and dilation == 1
        self.normalize1 = InstanceNormPlus(channels, levels)
        self.conv1 = conv(channels)
        self.normalize2 = InstanceNormPlus(channels, levels)
        self.conv2 = MeanPoolConv(channels, out_channels, 3) if down else conv(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = MeanPoolConv(channels, out_channels, 1) if down else conv(out_channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.conv1(F.elu(self.normalize1(x, level)))
        return self.shortcut(x) + self.conv2(F.elu(self.normalize2(h, level)))


def plain_conv(channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)


def refining_norm(channels: int, levels: int | None) -> nn.Module:
    return NoNorm() if levels is None else InstanceNormPlus(channels, levels)


class ConvUnits(nn.Module):
    """``units`` times x <- x + conv(elu(norm(conv(elu(norm(x)))))): residual convolution units."""

    def __init__(self, channels: int, units: int, levels: int | None) -> None:
        super().__init__()
        self.names = [(f"{unit}_1", f"{unit}_2") for unit in range(1, units + 1)]
        for unit in self.names:
            for name in unit:
                self.add_module(f"{name}_norm", refining_norm(channels, levels))
                self.add_module(f"{name}_conv", plain_conv(channels, channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        for unit in self.names:
            h = x
            for name in unit:
                h = getattr(self, f"{name}_conv")(F.elu(getattr(self, f"{name}_norm")(h, level)))
            x = x + h
        return x


class ChainedPooling(nn.Module):
    """y = p_0 + p_1 + p_2, p_0 = elu(x), p_{i+1} = conv(pool5x5(norm(p_i))): averages with levels, maxima without."""

    def __init__(self, channels: int, levels: int | None) -> None:
        super().__init__()
        self.pool = F.max_pool2d if levels is None else F.avg_pool2d
        self.norms = nn.ModuleList(refining_norm(channels, levels) for _ in range(2))
        self.convs = nn.ModuleList(plain_conv(channels, channels) for _ in range(2))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        x = path = F.elu(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, level), 5, stride=1, padding=2))
            x = x + path
        return x


class Fusion(nn.Module):
    """Sum of all inputs, brought to the same number of channels and the same resolution (bilinear)."""

    def __init__(self, channels: Sequence[int], out_channels: int, levels: int | None) -> None:
        super().__init__()
        self.norms = nn.ModuleList(refining_norm(each, levels) for each in channels)
        self.convs = nn.ModuleList(plain_conv(each, out_channels, bias=True) for each in channels)

    def forward(self, xs: Sequence[Tensor], level: Tensor) -> Tensor:
        size = xs[0].shape[2:]
        maps = [conv(norm(x, level)) for x, norm, conv in zip(xs, self.norms, self.convs, strict=True)]
        return sum((F.interpolate(h, size=size, mode="bilinear", align_corners=True) for h in maps[1:]), start=maps[0])


class RefineBlock(nn.Module):
    """Adapt every input, fuse them at the resolution of the first, pool, adapt again."""

    def __init__(self, channels: Sequence[int], out_channels: int, levels: int | None, *, units: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ConvUnits(each, 2, levels) for each in channels)
        self.output_convs = ConvUnits(out_channels, units, levels)
        if len(channels) > 1:
            self.msf = Fusion(channels, out_channels, levels)
        self.crp = ChainedPooling(out_channels, levels)

    def forward(self, xs: Sequence[Tensor], level: Tensor) -> Tensor:
        hs = [adapt(x, level) for adapt, x in zip(self.adapt_convs, xs, strict=True)]
        h = self.msf(hs, level) if len(hs) > 1 else hs[0]
        return self.output_convs(self.crp(h, level), level)


class RefineNet(nn.Module):
    """Images (N, C, H, W) in [0, 1], H and W even, to maps of the same shape.

    Four stages of two residual blocks each: w channels at full resolution, then 2w at half, the last two dilated by 2 and 4
    in place of more pooling; four refinement blocks lead back.

    Args:
        image_channels: C.
        width: w, at least 2.
        levels: number of noise levels that the normalisations know; None for none.
    """

    def __init__(self, image_channels: int, width: int, levels: int | None) -> None:
        super().__init__()
        block = lambda a, b, **how: ResidualBlock(a, b, levels, **how)
        w, w2 = width, 2 * width
        self.begin_conv = nn.Conv2d(image_channels, w, 3, padding=1)
        self.res1 = nn.ModuleList([block(w, w), block(w, w)])
        self.res2 = nn.ModuleList([block(w, w2, first=True), block(w2, w2)])
        self.res3 = nn.ModuleList([block(w2, w2, first=True, dilation=2), block(w2, w2, dilation=2)])
        self.res4 = nn.ModuleList([block(w2, w2, first=True, dilation=4), block(w2, w2, dilation=4)])
        self.refine1 = RefineBlock([w2], w2, levels)
        self.refine2 = RefineBlock([w2, w2], w2, levels)
        self.refine3 = RefineBlock([w2, w2], w, levels)
        self.refine4 = RefineBlock([w, w], w, levels, units=3)
        self.normalizer = InstanceNormPlus(w, levels)
        self.end_conv = nn.Conv2d(w, image_channels, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Map x at noise level indices (N,)."""
        h = self.begin_conv((2 * x - 1).contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in (self.res1, self.res2, self.res3, self.res4):
            for block in stage:
                h = block(h, level)
            maps.append(h)  # (N, w, H, W), then (N, 2w, H/2, W/2)
        h = self.refine1([maps[3]], level)
        h = self.refine2([maps[2], h], level)
        h = self.refine3([maps[1], h], level)
        h = self.refine4([maps[0], h], level)
        return self.end_conv(F.elu(self.normalizer(h, level)))
