"""MNIST, and the sets made to replace it, in the forms that models train on: padded to 32x32, stacked three deep, binarised."""

from dataclasses import replace

import numpy as np

from vaebm.data.catalogue import DATASETS
from vaebm.data.image_set import ImageSet
from vaebm.data.resizing import require

DIGIT, PADDING = (28, 28), 2  # 28 + 2 + 2 = 32; NVAEConfig.border = 2 leaves the frame out of the likelihood
WHOLE = {"train": 60_000, "test": 10_000}
STACK_SEED = 0

# What is made of which set. The sets beside MNIST are made by the same recipe, so that nothing but their content tells them from it.
PADDED = {"mnist32": "mnist", "fashion_mnist32": "fashion_mnist", "kmnist32": "kmnist"}
STACKED = {"stacked_mnist": "mnist", "stacked_fashion_mnist": "fashion_mnist", "stacked_kmnist": "kmnist"}


def pad(digits: ImageSet) -> ImageSet:
    """``mnist32`` and its like: a frame of ``PADDING`` black pixels around every digit, as the released code pads.

    Returns:
        uint8 (N, 32, 32, 1) with labels and index kept, and a note.

    Raises:
        UserError: the images are not 28x28 grey.
    """
    require(digits, DIGIT, 1)
    return replace(digits, name=f"{digits.name}32", images=_padded(digits.images)).with_notes(
        f"28x28 padded by {PADDING} px to 32x32; train with nvae.border = {PADDING}"
    )


def stack(digits: ImageSet, seed: int = STACK_SEED) -> ImageSet:
    """``stacked_mnist`` and its like: three digits as the colour channels of one image, 1,000 modes.

    Channel c takes its digits in the order of two permutations of all N digits, one after the other, independent over
    channels; so every digit occurs twice per channel. The released code draws them from an unseeded generator; here
    ``seed`` decides them, on every platform.

    Returns:
        uint8 (2 N, 32, 32, 3), labels 100 d0 + 10 d1 + d2 where the digits have labels, no index. 120,000 images of
        MNIST's train split, 20,000 of its test split; a note says so when ``digits`` are not a whole split.

    Raises:
        UserError: the images are not 28x28 grey.

    Reference: Metz et al., "Unrolled Generative Adversarial Networks", ICLR 2017.
    """
    require(digits, DIGIT, 1)
    # RandomState and not Generator: its stream is frozen, so the same seed gives the same images with every numpy.
    draw = np.random.RandomState(seed)
    n = len(digits)
    order = np.stack([np.concatenate([draw.permutation(n), draw.permutation(n)]) for _ in range(3)])  # (3, 2 N)
    images = np.stack([digits.images[channel, ..., 0] for channel in order], axis=-1)  # (2 N, 28, 28, 3)
    labels = None if digits.labels is None else np.array([100, 10, 1]) @ digits.labels[order]
    notes = [f"channels by independent permutations of seed {seed}, each digit twice per channel; padded to 32x32"]
    if n != WHOLE.get(digits.split):
        title = DATASETS[digits.name].title if digits.name in DATASETS else digits.name
        notes.append(f"stacked from the {n} {title} images at hand, not from a whole split")
    return replace(
        digits,
        name=f"stacked_{digits.name}",
        images=_padded(images),
        source=f"stacked from {digits.name}: {digits.source}",
        labels=labels,
        index=None,
    ).with_notes(*notes)


def binarise(images: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draw each pixel black or white with its grey value as the probability of white: "dynamically binarised" MNIST.

    Args:
        images: uint8, any shape.
        uniform: numbers in [0, 1), same shape. Training draws new ones for every batch; an evaluation keys them by the
            content of the image.

    Returns:
        uint8, 0 or 255: 255 with probability images / 255. Images of 0 and 255 come back as they were.

    Reference: Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008.
    """
    return np.where(uniform < images / 255, 255, 0).astype(np.uint8)


def _padded(images: np.ndarray) -> np.ndarray:
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
