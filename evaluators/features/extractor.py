"""Feature extractors by name, and the names of metrics measured in their features.

    extractor = load_extractor("inception", device="cuda")
    extractor.extract(images)  # {"features": (n, 2048), "logits": (n, 1008), "spatial": (n, 2023)}

An installed package adds names through the entry-point group ``vaebm.extractors``: ``load(name, options: Options) -> Extractor``.
Importing this module costs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.protocols import Images
from vaebm.errors import UserError
from vaebm.registry import Registry

Heads = dict[str, NDArray[np.floating]]

EXTRACTORS = Registry(
    "feature extractor",
    {
        "inception": "evaluators.features.inception:load",
        "cifar10net": "evaluators.features.bundled:load",
        "mnistnet": "evaluators.features.bundled:load",
        "dinov2_vits14": "evaluators.features.dinov2:load",
        "dinov2_vitb14": "evaluators.features.dinov2:load",
        "dinov2_vitl14": "evaluators.features.dinov2:load",
    },
    group="vaebm.extractors",
)

_INCEPTION_NAMES = {"fd": "fid", "fd_infinity": "fid_infinity", "kd": "kid"}


class Extractor(Protocol):
    """A frozen network that maps images to vectors.

    Attributes:
        name: as it stands in the names of metrics.
        dim: width of the features; None for a user's own before its first images.
        heads: what :meth:`extract` returns, of "features", "logits" (before the softmax) and "spatial".
        fingerprint: JSON-able, all that decides the numbers to the last bit; features are kept under it. None: they are not kept.
        protocol: JSON-able, what a reader compares before ranking two numbers.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int | None: ...
    @property
    def heads(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> Mapping[str, Any] | None: ...
    @property
    def protocol(self) -> Mapping[str, Any]: ...

    def extract(self, images: Images) -> Heads:
        """Return head -> float (n, width) of uint8 (n, H, W, C); an image's numbers do not depend on the others.

        Raises:
            UserError: images of another size or number of channels than the network takes.
        """
        ...


@dataclass(frozen=True)
class Options:
    """How an extractor is loaded; a loader refuses those that would have no effect on it.

    Attributes:
        device: torch's name of one: "cpu", "cuda", "cuda:1".
        batch_size: images per forward pass, the last batch padded to it; ``"auto"``: as many as fit into memory.
        weights: file to take the weights from, instead of the known one.
        resize: "clean", "legacy_tensorflow" or "legacy_pytorch": how images come to Inception's 299x299.
        download: whether weights that are not there may be fetched.
        dtype: "float32" or "float64", of the network and of what it returns.
    """

    device: str = "cpu"
    batch_size: int | str = 100
    weights: Path | None = None
    resize: str = "clean"
    download: bool = True
    dtype: str = "float32"

    def refuse(self, name: str, *idle: str) -> None:
        """Raises: UserError when an option of ``idle`` is set to something else than its default."""
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in idle and value != option.default:
                raise UserError(f"--{option.name} {value}: has no effect on the features of {name}; leave it out")


def load_extractor(
    spec: str,
    *,
    device: str = "cpu",
    batch_size: int | str = 100,
    weights: Path | None = None,
    resize: str = "clean",
    download: bool = True,
    dtype: str = "float32",
) -> Extractor:
    """Load a feature extractor.

    Args:
        spec: a name of :data:`EXTRACTORS`, or ``"module:callable"`` for the user's own (see ``evaluators.features.custom``).
        device, batch_size, weights, resize, download, dtype: see :class:`Options`.

    Raises:
        UserError: the name is unknown, an option is out of range or has no effect on this extractor, or weights are missing.
    """
    if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 1):
        raise UserError(f"--batch-size {batch_size}: needed at least 1, or auto")
    if dtype not in ("float32", "float64"):
        raise UserError(f"--dtype {dtype}: needed float32 or float64")
    options = Options(device, batch_size, None if weights is None else Path(weights), resize, download, dtype)
    if ":" in spec:
        from evaluators.features.custom import load_own

        return load_own(spec, options)
    return EXTRACTORS.load(spec)(spec, options)


def metric_name(metric: str, extractor: str) -> str:
    """Return the name of a row's metric measured in the features of ``extractor``.

    FID, KID and sFID are defined by Inception-v3's features and weights; every other distance says what it is taken in.

    Args:
        metric: "fd", "fd_infinity", "kd", "is", "sfid", "precision", ...
        extractor: its ``name``.
    """
    if extractor == "inception":
        return _INCEPTION_NAMES.get(metric, metric)
    return f"{'sfd' if metric == 'sfid' else metric}_{extractor}"


def check_images(images: Images, name: str) -> None:
    """Raises: UserError unless ``images`` is a non-empty uint8 (n, H, W, 1 or 3)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"{name} takes uint8 images (n, H, W, 1 or 3), at least one; found {images.dtype} {images.shape}"
        )
