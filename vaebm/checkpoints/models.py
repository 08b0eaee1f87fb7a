"""From a checkpoint to the model that its card describes."""

from vaebm.checkpoints.native import Checkpoint, load_weights
from vaebm.nvae import NVAE, NVAEConfig


def build_nvae(checkpoint: Checkpoint, origin: str) -> NVAE:
    """Return the NVAE of a checkpoint of kind "nvae".

    Args:
        origin: where the checkpoint came from, for error messages.

    Raises:
        UserError: the weights do not fit the card's architecture.
    """
    nvae = NVAE(NVAEConfig.from_json(checkpoint.card["architecture"]["nvae"]))
    load_weights(nvae, checkpoint.part("nvae"), origin)
    return nvae
