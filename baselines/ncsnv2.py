"""NCSNv2: NCSN with one set of weights for all levels of noise, s(x, i) = f(x) / sigma_i, and many more levels.

Reference: Song and Ermon, "Improved Techniques for Training Score-Based Generative Models", NeurIPS 2020,
https://arxiv.org/abs/2006.09011
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from baselines.backbones.refinenet import RefineNet
from baselines.ncsn import AnnealedLangevin, NCSNSystem, geometric
from vaebm.errors import UserError


@dataclass(frozen=True)
class NCSNv2Architecture:
    """``image_shape``: (H, W, C), H and W even; ``width``: channels at full resolution; ``levels`` of noise, geometric."""

    image_shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 128
    levels: int = 232
    sigma_begin: float = 50.0
    sigma_end: float = 0.01

    def __post_init__(self) -> None:
        if self.image_shape[0] % 2 or self.image_shape[1] % 2 or self.width < 2 or self.levels < 1:
            raise UserError(
                f"architecture {asdict(self)}: needs image_shape with even H and W, width at least 2, levels at least 1"
            )
        if not 0 < self.sigma_end <= self.sigma_begin:
            raise UserError(f"architecture {asdict(self)}: needs 0 < sigma_end <= sigma_begin")


class NCSNv2(RefineNet):
    """The score s(x, i) = f(x) / sigma_i: images (N, C, H, W) in [0, 1] and level indices (N,) -> (N, C, H, W).

    The noise levels ``sigmas`` (L,) are part of the weights.
    """

    sigmas: Tensor

    def __init__(self, architecture: NCSNv2Architecture) -> None:
        super().__init__(architecture.image_shape[2], architecture.width, None)
        self.architecture = architecture
        levels = geometric(architecture.sigma_begin, architecture.sigma_end, architecture.levels)
        self.register_buffer("sigmas", levels.float())
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return super().forward(x, level) / self.sigmas[level, None, None, None]


@dataclass(frozen=True)
class NCSNv2Sampling(AnnealedLangevin):
    """The published setting for CIFAR-10; without the last, denoising step the samples keep their noise, and the FID shows it."""

    step_lr: float = 6.2e-6
    steps_per_level: int = 5
    denoise: bool = True


class NCSNv2System(NCSNSystem):
    """NCSNv2 as a system under test: as :class:`~baselines.ncsn.NCSNSystem`, with the noise levels of the weights."""

    kind = "ncsnv2"
    Architecture, Network, Recipe = NCSNv2Architecture, NCSNv2, NCSNv2Sampling

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, descending."""
        return self.network.sigmas.tolist()
