"""What a suite is given about each system: the system itself and what decides the meaning of its numbers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SystemUnderTest:
    """A system and its papers.

    Attributes:
        name: as in result rows, e.g. ``"vaebm"``.
        system: an object that implements some of ``evaluators.protocols``. Where it lacks what a suite needs, or is None, the
            rows are empty and say so.
        image_shape: (H, W, C) of the uint8 images it takes or draws.
        size: ``"mini"``, ``"small"``, ``"paper"`` or empty.
        fingerprint: JSON-able; everything that decides scores and samples and is not in ``protocol`` or ``sampling``: hash
            of the weights, seed, code version, dtype, device kind. Goes into the cache key and the provenance. Empty:
            nothing is ever cached.
        protocol: JSON-able; how a score is made, as readers compare it: ``{"estimator": "log p bound, IW-10"}``. In the
            key of scores too.
        sampling: JSON-able; the recipe of its samples: ``{"steps": 16, "step_size": 8e-5}``. In the key of samples too.
        dataset: what it was trained on; empty: not known.
        reason: why there is no system: ``"no weights for stacked_mnist are bundled"``.
    """

    name: str
    system: object
    image_shape: tuple[int, int, int]
    size: str = ""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    reason: str = ""
