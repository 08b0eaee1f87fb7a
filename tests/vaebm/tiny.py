"""Networks and images small enough that a test of them takes milliseconds."""

import numpy as np
import torch
from torch import Tensor, nn

from vaebm.energy import EnergyConfig
from vaebm.nvae import NVAE, NVAEConfig

TINY_NVAE = NVAEConfig(
    image_size=8,
    channels_enc=4,
    channels_dec=4,
    latents_per_group=2,
    groups_per_scale=(1, 2),
    preprocess_cells=1,
    postprocess_cells=1,
    cells_per_group_enc=1,
    cells_per_group_dec=1,
)
TINY_ENERGY = EnergyConfig(channels=4, blocks=((1, True), (2, False)))


def tiny_images(n: int = 40, seed: int = 0) -> np.ndarray:
    """Return smooth random uint8 images (N, 8, 8, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(4, 1).repeat(4, 2))


def lively_nvae(config: NVAEConfig = TINY_NVAE, seed: int = 0) -> NVAE:
    """Return an NVAE in eval mode whose weights and BatchNorm statistics are random, so that nothing is near zero."""
    torch.manual_seed(seed)
    nvae = NVAE(config)
    for module in nvae.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in nvae.named_parameters():
        if name.endswith("squeeze.bias"):  # no unit is dead behind its ReLU
            nn.init.constant_(parameter, 2.0)
        if name.endswith("mu.log_weight_norm"):  # the flows start near the identity
            nn.init.constant_(parameter, 0.0)
    return nvae.eval()


def noise(nvae: NVAE, n: int, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    """Return standard normal noise per group, (N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(n, *shape, generator=generator) for shape in nvae.latent_shapes]


def unit_images(n: int, seed: int = 0) -> Tensor:
    """Return float images in [0, 1], (N, 3, 8, 8)."""
    return torch.from_numpy(tiny_images(n, seed)).permute(0, 3, 1, 2).float() / 255


class ConstantEnergy(nn.Module):
    """E(x) = c."""

    def __init__(self, value: float = 3.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self.value)
