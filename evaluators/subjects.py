"""What a suite is given about each system: the system itself and what decides the meaning of its numbers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SystemUnderTest:
    """A system and its papers.

    Attributes:
        name: as in result rows, e.g. ``"vaebm"``.
        scorer: an object with ``score`` and perhaps ``score_terms`` (``evaluators.protocols``). An object without
            ``score``, or None, gets empty rows that say so.
        image_shape: (H, W, C) of the uint8 images it takes.
        size: ``"mini"``, ``"small"``, ``"paper"`` or empty.
        fingerprint: JSON-able; everything that decides the scores and is not in ``protocol``: hash of the weights,
            recipe, seed, code version, dtype, device kind. Goes into the cache key and the provenance. Empty: the
            scores are never cached.
        protocol: JSON-able; how a score is made, as readers compare it: ``{"estimator": "log p bound, IW-10"}``. In the
            key too.
    """

    name: str
    scorer: object
    image_shape: tuple[int, int, int]
    size: str = ""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
