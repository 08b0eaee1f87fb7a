"""Grey images for models of colour, and colour images for models of grey."""

from dataclasses import replace

import numpy as np
from PIL import Image

from vaebm.data.image_set import ImageSet


def to_channels(image_set: ImageSet, channels: int) -> ImageSet:
    """Bring every image to ``channels`` channels, 1 or 3.

    Grey is repeated; colour becomes luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as Pillow has it.

    Returns:
        The same object when it has them already; otherwise uint8 (N, H, W, channels) and a note saying what was done.
    """
    n, height, width, found = image_set.images.shape
    if found == channels:
        return image_set
    if channels == 3:
        return replace(image_set, images=image_set.images.repeat(3, axis=3)).with_notes("grey, repeated in 3 channels")
    tall = Image.fromarray(image_set.images.reshape(n * height, width, 3)).convert("L")
    grey = np.asarray(tall).reshape(n, height, width, 1)
    return replace(image_set, images=grey).with_notes("colour made grey (luma of ITU-R BT.601)")
