"""Reading and writing checkpoints: native (safetensors + JSON card) and official (files of NVlabs/NVAE and NVlabs/VAEBM)."""

from vaebm.checkpoints.native import Checkpoint, load_checkpoint, load_network, load_weights, save_checkpoint
from vaebm.checkpoints.official import load_official, read_official, save_official

__all__ = [
    "Checkpoint",
    "load_checkpoint",
    "load_network",
    "load_official",
    "load_weights",
    "read_official",
    "save_checkpoint",
    "save_official",
]
