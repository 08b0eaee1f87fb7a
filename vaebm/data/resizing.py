"""The one way images change size in this project, and the check that they have the size a model takes."""

from dataclasses import replace

import numpy as np
from PIL import Image

from vaebm.data.image_set import ImageSet
from vaebm.data.spool import filled
from vaebm.errors import UserError

# Pillow's bilinear filter widens with the reduction, so it is antialiased; it is what torchvision's Resize does to PIL
# images by default, hence what VAEBM, NVAE, JEM and HDGE trained and scored with, and it cannot overshoot 0..255.
FILTER = Image.Resampling.BILINEAR


def resize_picture(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """``picture`` at ``size`` = (H, W); the very same picture when it has that size."""
    height, width = size
    return picture if picture.size == (width, height) else picture.resize((width, height), FILTER)


def resize(image_set: ImageSet, size: tuple[int, int]) -> ImageSet:
    """Bring every image to ``size`` = (H, W) with Pillow's antialiased bilinear filter; the aspect may change.

    Returns:
        The same object when the size is right already; otherwise uint8 (N, H, W, C) and a note saying what was done.

    Raises:
        UserError: a side of ``size`` is below 1.

    Reference: Parmar et al., On Aliased Resizing (CVPR 2022), on why antialiasing decides the numbers.
    """
    check_size(image_set.name, size)
    _, height, width, channels = image_set.images.shape
    if (height, width) == tuple(size):
        return image_set
    shape = (len(image_set), *size, channels)
    resized = filled(shape, lambda rows: _resized(image_set.images[rows], size), image_set.name, [image_set.images])
    note = f"resized from {height}x{width} to {size[0]}x{size[1]} (Pillow bilinear, antialiased)"
    return replace(image_set, images=resized).with_notes(note)


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pictures = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    return np.stack([np.asarray(resize_picture(picture, size)) for picture in pictures]).reshape(
        len(images), *size, images.shape[3]
    )


def check_size(name: str, size: tuple[int, int]) -> None:
    """Raises: UserError when a side of ``size`` is below 1."""
    if min(size) < 1:
        raise UserError(f"cannot resize {name} to {size[0]}x{size[1]}: both sides must be at least 1")


def require(image_set: ImageSet, size: tuple[int, int], channels: int) -> ImageSet:
    """Return ``image_set`` if its images are (H, W) = ``size`` with ``channels`` channels.

    Raises:
        UserError: they are not; names the set, what was found and what was needed.
    """
    _, height, width, found = image_set.images.shape
    if (height, width, found) == (*size, channels):
        return image_set
    raise UserError(
        f"{image_set.name} ({image_set.source}): found {height}x{width} {_colour(found)} images, "
        f"needed {size[0]}x{size[1]} {_colour(channels)}; choose another set or convert it first"
    )


def _colour(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
