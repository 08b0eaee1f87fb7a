"""DINOv2 through ``torch.hub``: features that follow what people see better than Inception's.

Images go to 224x224 by Pillow's antialiased bicubic filter without rounding, then ImageNet's mean and standard deviation are taken out.
Features are the normalised class token.

References: Oquab et al., DINOv2 (TMLR 2024); Stein et al., Exposing Flaws of Generative Model Evaluation Metrics (NeurIPS 2023).
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.features.extractor import Options
from evaluators.features.network import NetworkExtractor, hash_of_state
from evaluators.protocols import Images
from vaebm.data.messages import reason
from vaebm.data.unavailable import DataUnavailable

REPOSITORY = "facebookresearch/dinov2"
WIDTHS = {"dinov2_vits14": 384, "dinov2_vitb14": 768, "dinov2_vitl14": 1024}
SIDE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def load(name: str, options: Options) -> NetworkExtractor:
    """Load one of :data:`WIDTHS`; its code and weights come from torch.hub's cache, or are downloaded into it.

    Raises:
        DataUnavailable: they are not in the cache and cannot be downloaded.
        UserError: an option has no effect.
    """
    options.refuse(name, "resize", "weights")
    try:
        # Named by the user, hence trusted; a cached repository is used without asking GitHub.
        network = torch.hub.load(REPOSITORY, name, trust_repo=True, skip_validation=True, verbose=False)
    except (OSError, RuntimeError, ImportError) as error:
        raise DataUnavailable(
            f"{name}: torch.hub cannot load {REPOSITORY} ({reason(error)}); load it once where there is a network and "
            f"copy torch.hub's folder to {torch.hub.get_dir()}, or set TORCH_HOME"
        ) from None
    return NetworkExtractor(
        name,
        network,
        prepare,
        {"features": WIDTHS[name]},
        options,
        weights=hash_of_state(network),
        resize=f"to {SIDE}x{SIDE}: Pillow bicubic, antialiased, unrounded",
    )


def prepare(images: Images) -> NDArray[np.float32]:
    """Return (n, 3, 224, 224), normalised; grey images get three equal channels."""
    from cleanfid.resize import make_resizer

    with warnings.catch_warnings():
        resizer = make_resizer("PIL", False, "bicubic", (SIDE, SIDE))
    if images.shape[3] == 1:
        images = images.repeat(3, axis=3)
    resized = np.stack([resizer(image) for image in images]) / np.float32(255)
    return np.ascontiguousarray(((resized - MEAN) / STD).transpose(0, 3, 1, 2))
