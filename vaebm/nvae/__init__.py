"""NVAE: distributions, cells, flows and the model."""

from vaebm.nvae.distributions import GaussianDecoder, Normal
from vaebm.nvae.model import NVAE, NVAEConfig, Posterior

__all__ = ["NVAE", "GaussianDecoder", "NVAEConfig", "Normal", "Posterior"]
