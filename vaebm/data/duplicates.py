"""Removal of images that also occur in another set."""

import hashlib

import numpy as np

from vaebm.data.image_set import ImageSet


def remove_duplicates(images: ImageSet, reference: ImageSet) -> tuple[ImageSet, int]:
    """Remove from ``images`` every image that equals some image of ``reference`` pixel for pixel.

    CIFAR-100 holds a few images of CIFAR-10; as out-of-distribution data they would be counted against any model.
    Repeats inside ``images`` itself are kept.

    Returns:
        What is left (with a note, when anything went), and how many were removed. Sets whose images differ in shape
        have none in common.
    """
    if images.images.shape[1:] != reference.images.shape[1:]:
        return images, 0
    known = {_digest(image) for image in reference.images}
    keep = np.array([_digest(image) not in known for image in images.images], dtype=bool)
    removed = int(len(keep) - keep.sum())
    if removed == 0:
        return images, 0
    return images.take(keep).with_notes(f"{removed} exact duplicates of {reference.name} removed"), removed


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.data).digest()
