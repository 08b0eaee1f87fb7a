"""Reading and writing checkpoints: native (safetensors + JSON card)."""

from vaebm.checkpoints.native import Checkpoint, load_checkpoint, load_weights, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "load_weights", "save_checkpoint"]
