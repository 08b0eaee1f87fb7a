"""Regularisers of weights: the sum of the largest singular values of all convolutions, and of the largest gains of all BatchNorms.

Reference: Vahdat & Kautz, "NVAE", NeurIPS 2020, section 3.2; Yoshida & Miyato, "Spectral Norm Regularization", 2017.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.nvae.layers import Conv2d


class SpectralRegulariser(nn.Module):
    """sum_l sigma_max(W_l) over the kernels that ``module`` convolves with, reshaped to (C_out, C_in k k), by power iteration.

    Kernels are the effective ones: weight-normalised, and masked in causal convolutions. Those of one shape are iterated together. The
    right singular vectors are buffers, one (layers, C_in k k) per shape: saved and resumed with the run. The gradient flows through W only.

    Args:
        module: its ``Conv2d`` layers are regularised; its parameters do not become this module's own.
        iterations: power iterations per call, each v <- W^T W v / |W^T W v|.
        first_iterations: the same when the regulariser is made.
    """

    def __init__(self, module: nn.Module, iterations: int = 4, first_iterations: int = 40) -> None:
        super().__init__()
        self.iterations = iterations
        self._groups: dict[str, list[Conv2d]] = {}
        for conv in module.modules():
            if isinstance(conv, Conv2d):
                c_out, columns = conv.weight.flatten(1).shape
                self._groups.setdefault(f"v_{c_out}x{columns}", []).append(conv)
        for name, convs in self._groups.items():
            kernels = _kernels(convs).detach()
            self.register_buffer(name, F.normalize(torch.randn_like(kernels[:, 0]), dim=1))
            self._iterate(name, kernels, first_iterations)

    @torch.no_grad()
    def _iterate(self, name: str, kernels: Tensor, iterations: int) -> None:
        v = self.get_buffer(name)
        for _ in range(iterations):
            u = F.normalize(torch.einsum("lrc,lc->lr", kernels, v), dim=1)
            v.copy_(F.normalize(torch.einsum("lrc,lr->lc", kernels, u), dim=1))

    def forward(self) -> Tensor:
        """Advance the power iteration and return the sum of the largest singular values (a scalar)."""
        sums = []
        for name, convs in self._groups.items():
            kernels = _kernels(convs)
            self._iterate(name, kernels.detach(), self.iterations)
            # A copy: the next call changes the buffer before this one's gradient may have been taken.
            v = self.get_buffer(name).clone()
            sums.append(torch.linalg.vector_norm(torch.einsum("lrc,lc->lr", kernels, v), dim=1).sum())
        return torch.stack(sums).sum()


def _kernels(convs: list[Conv2d]) -> Tensor:
    return torch.stack([conv.effective_weight().flatten(1) for conv in convs])  # (layers, C_out, C_in k k)


def batch_norm_gains(module: nn.Module) -> Tensor:
    """Return sum_l max_c |gamma_lc| over the BatchNorms of ``module`` (a scalar; 0 without any)."""
    gains = [norm.weight.abs().max() for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    return torch.stack(gains).sum() if gains else torch.zeros((), device=next(module.parameters()).device)


def annealed(start: float, end: float, beta: float) -> float:
    """Return start^(1 - beta) end^beta: from ``start`` to ``end`` along a line in the logarithm; ``end`` itself if one of them is 0."""
    return math.exp((1 - beta) * math.log(start) + beta * math.log(end)) if start and end else end
