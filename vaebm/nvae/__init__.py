"""NVAE: distributions, decoders, cells, flows and the model."""

from vaebm.nvae.decoders import BernoulliDecoder, Decoder, GaussianDecoder, LogisticMixtureDecoder
from vaebm.nvae.distributions import Normal
from vaebm.nvae.model import NVAE, Decoded, Encoded, NVAEConfig, adaptive_groups

__all__ = [
    "NVAE",
    "BernoulliDecoder",
    "Decoded",
    "Decoder",
    "Encoded",
    "GaussianDecoder",
    "LogisticMixtureDecoder",
    "NVAEConfig",
    "Normal",
    "adaptive_groups",
]
