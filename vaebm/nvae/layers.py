"""Layers of NVAE: weight-normalised convolution, BatchNorm, squeeze-excitation, and the two resampling skips."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.parallel import world_size
from vaebm.reductions import sum_over_processes


class Conv2d(nn.Conv2d):
    """Convolution with "same" padding, optionally weight-normalised per output channel: w = exp(g) v / ||v||.

    The state dict holds ``weight`` (v) and ``log_weight_norm`` (g).

    Reference: Salimans & Kingma, "Weight Normalization", NeurIPS 2016.
    """

    log_weight_norm: nn.Parameter | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        weight_norm: bool = True,
    ):
        padding = dilation * (kernel // 2)
        super().__init__(
            c_in, c_out, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        self.log_weight_norm = None
        if weight_norm:
            norm = self.weight.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            # The small offset keeps log finite for a row that happens to start at zero.
            self.log_weight_norm = nn.Parameter((norm + 1e-2).log())

    def effective_weight(self) -> Tensor:
        """Return the kernel that is convolved with, (C_out, C_in / groups, k, k)."""
        if self.log_weight_norm is None:
            return self.weight
        norm = self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return self.log_weight_norm.exp() * self.weight / (norm + 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective_weight(), self.bias)


MOMENTUM = 0.05  # of BatchNorm's running statistics


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm with NVAE's slow statistics, taken over the batches of all processes that train together."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world_size() > 1:
            return self._over_processes(x)
        return super().forward(x)

    def _over_processes(self, x: Tensor) -> Tensor:
        """As one process would normalise the joined batch. (torch's SyncBatchNorm needs a GPU.)"""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        wide = x.float()
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        sums = sum_over_processes(torch.cat([wide.sum((0, 2, 3)), count]))
        total = sums[-1]
        mean = sums[:-1] / total
        # Deviations, not squares: no cancellation.
        deviation = wide - mean[None, :, None, None]
        variance = sum_over_processes(deviation.square().sum((0, 2, 3))) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(variance * total / (total - 1), MOMENTUM)
            self.num_batches_tracked += 1
        scale = (self.weight * (variance + self.eps).rsqrt())[None, :, None, None]
        return (deviation * scale + self.bias[None, :, None, None]).to(x.dtype)


class SqueezeExcite(nn.Module):
    """Per-image channel gates: x * sigmoid(W2 relu(W1 mean_hw(x))), W1: C -> max(C / 16, 4). (Hu et al., CVPR 2018.)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * gates[:, :, None, None]


class FactorizedReduce(nn.Module):
    """Skip path that halves the resolution: Swish, then four strided 1x1 convolutions, one per pixel of each 2x2 block, concatenated."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        quarter = c_out // 4
        widths = (quarter, quarter, quarter, c_out - 3 * quarter)
        self.convs = nn.ModuleList(Conv2d(c_in, width, 1, stride=2) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(x)
        shifted = (x, x[:, :, 1:, 1:], x[:, :, :, 1:], x[:, :, 1:, :])
        return torch.cat([conv(part) for conv, part in zip(self.convs, shifted, strict=True)], dim=1)


class UpsampleSkip(nn.Module):
    """Skip path that doubles the resolution: bilinear interpolation, then a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
