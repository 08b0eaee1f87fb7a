"""The bundled classifiers as feature extractors: ``cifar10net`` for colours at 32x32, ``mnistnet`` for digits at 28x28."""

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from evaluators.features.classifiers import CLASSIFIERS, load_classifier
from evaluators.features.extractor import Options
from evaluators.features.network import NetworkExtractor
from evaluators.protocols import Images
from vaebm.data import ImageSet
from vaebm.data import resize as resize_set
from vaebm.data.messages import reason
from vaebm.errors import UserError

CROPPED = "none; 32x32 is cropped to its middle 28x28"
RESIZED = "to 32x32: Pillow bilinear, antialiased"


def load(name: str, options: Options) -> NetworkExtractor:
    """Load ``"cifar10net"`` or ``"mnistnet"``; ``options.weights`` is another file of that architecture, its card beside it.

    Raises:
        UserError: the weights are missing or damaged, or ``options.resize`` is set.
    """
    options.refuse(name, "resize")
    try:
        network, card = load_classifier(name, options.weights)
    except (RuntimeError, SafetensorError) as error:
        where = f"--weights {options.weights}" if options.weights else name
        raise UserError(
            f"{where}: {reason(error)}; needed weights of {name} as evaluators.features.train writes them"
        ) from None
    colours = CLASSIFIERS[name].image_shape[2] == 3
    return NetworkExtractor(
        name,
        network,
        prepare_colours if colours else prepare_digits,
        {"features": network.linear.in_features, "logits": network.linear.out_features},
        options,
        weights=card["sha256"],
        resize=RESIZED if colours else CROPPED,
        example=CLASSIFIERS[name].image_shape,
    )


def prepare_colours(images: Images) -> NDArray[np.float32]:
    """Return (n, 3, 32, 32) in [0, 1]; images of another size go through the project's one resize path, whatever set they are of.

    Raises:
        UserError: the images are grey.
    """
    if images.shape[3] != 3:
        raise UserError("cifar10net takes RGB images, found grey ones; for digits ask for the features of mnistnet")
    return _unit(resize_set(ImageSet("images", images, "", ""), (32, 32)).images)


def prepare_digits(images: Images) -> NDArray[np.float32]:
    """Return (n, 1, 28, 28) in [0, 1]; 32x32 are digits padded by 2, as models take them.

    Raises:
        UserError: the images are not 28x28 or 32x32, or not grey.
    """
    if images.shape[1:] == (32, 32, 1):
        images = images[:, 2:-2, 2:-2]
    if images.shape[1:] != (28, 28, 1):
        height, width, channels = images.shape[1:]
        raise UserError(
            f"mnistnet takes grey images of 28x28 or padded to 32x32, found {height}x{width}x{channels}; "
            "of stacked digits, give it one channel at a time"
        )
    return _unit(images)


def _unit(images: Images) -> NDArray[np.float32]:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
