"""Volume-preserving inverse autoregressive flows on a latent group.

One cell maps z to z - mu(z), where mu at a position sees only what comes before it in raster order (and, at the position itself, only
earlier channels); the Jacobian is triangular with ones on its diagonal, so log|det| = 0. A pair runs one cell in raster order and one in
reverse, so that every position sees every other.

Reference: Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebm.nvae.layers import Conv2d


def causal_mask(c_in: int, c_out: int, kernel: int, groups: int, strict: bool, mirror: bool) -> Tensor:
    """Return the 0/1 kernel mask (C_out, C_in / groups, k, k) of a causal convolution.

    Args:
        strict: at the centre, forbid the own channel as well as later ones.
        mirror: reverse the order of positions (the order of channels at a position stays).
    """
    mask = torch.ones(c_out, c_in // groups, kernel, kernel)
    centre = kernel // 2
    mask[:, :, centre, centre + 1 :] = 0
    mask[:, :, centre + 1 :, :] = 0
    if groups == 1:
        # The order is that of the side with fewer channels; the other side's channels come in equal runs per channel of it.
        few = min(c_in, c_out)
        order_out, order_in = torch.arange(c_out) * few // c_out, torch.arange(c_in) * few // c_in
        allowed = order_in[None] < order_out[:, None] if strict else order_in[None] <= order_out[:, None]
        mask[:, :, centre, centre] = allowed.float()
    elif strict:
        mask[:, :, centre, centre] = 0
    return mask.flip(2, 3) if mirror else mask


class CausalConv2d(Conv2d):
    """Weight-normalised convolution whose kernel is masked to be causal."""

    mask: Tensor

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, groups: int = 1, strict: bool, mirror: bool, bias: bool
    ) -> None:
        super().__init__(c_in, c_out, kernel, groups=groups, bias=bias)
        self.register_buffer("mask", causal_mask(c_in, c_out, kernel, groups, strict, mirror), persistent=False)
        with torch.no_grad():
            norm = (self.weight * self.mask).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            assert self.log_weight_norm is not None
            self.log_weight_norm.copy_((norm + 1e-2).log())

    def effective_weight(self) -> Tensor:
        assert self.log_weight_norm is not None
        masked = self.weight * self.mask
        norm = masked.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return self.log_weight_norm.exp() * masked / (norm + 1e-5)


class Flow(nn.Module):
    """z -> z - mu(z), causal in one direction: 3x3 to 6 times the channels, depthwise 5x5, 1x1 back.

    An ELU follows the first convolution and two follow the second: the official layout ends its first stage and begins its last with one.
    """

    EXPANSION = 6

    def __init__(self, latents: int, mirror: bool) -> None:
        super().__init__()
        hidden = self.EXPANSION * latents
        self.expand = CausalConv2d(latents, hidden, 3, strict=True, mirror=mirror, bias=False)
        self.depthwise = CausalConv2d(hidden, hidden, 5, groups=hidden, strict=False, mirror=mirror, bias=False)
        self.mu = CausalConv2d(hidden, latents, 1, strict=False, mirror=mirror, bias=True)
        with torch.no_grad():  # start near the identity
            assert self.mu.log_weight_norm is not None
            self.mu.log_weight_norm.add_(torch.tensor(0.1).log())

    def forward(self, z: Tensor) -> Tensor:
        hidden = F.elu(self.depthwise(F.elu(self.expand(z))))
        return z - self.mu(F.elu(hidden))


class PairedFlow(nn.Module):
    """A causal cell followed by its mirror image."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.cell1 = Flow(latents, mirror=False)
        self.cell2 = Flow(latents, mirror=True)

    def forward(self, z: Tensor) -> Tensor:
        return self.cell2(self.cell1(z))
