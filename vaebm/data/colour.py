"""Grey images for models of colour, and colour images for models of grey."""

from dataclasses import replace

import numpy as np
from PIL import Image

from vaebm.data.image_set import ImageSet
from vaebm.data.spool import filled


def to_channels(image_set: ImageSet, channels: int) -> ImageSet:
    """Bring every image to ``channels`` channels, 1 or 3.

    Grey is repeated; colour becomes luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as Pillow has it.

    Returns:
        The same object when it has them already; otherwise uint8 (N, H, W, channels) and a note saying what was done.
    """
    n, height, width, found = image_set.images.shape
    if found == channels:
        return image_set
    change, note = (
        (_repeated, "grey, repeated in 3 channels")
        if channels == 3
        else (_grey, "colour made grey (luma of ITU-R BT.601)")
    )
    images, shape = image_set.images, (n, height, width, channels)
    changed = filled(shape, lambda rows: change(images[rows]), image_set.name, [images])
    return replace(image_set, images=changed).with_notes(note)


def _repeated(images: np.ndarray) -> np.ndarray:
    return images.repeat(3, axis=3)


def _grey(images: np.ndarray) -> np.ndarray:
    n, height, width, _ = images.shape
    tall = Image.fromarray(images.reshape(n * height, width, 3)).convert("L")
    return np.asarray(tall).reshape(n, height, width, 1)
