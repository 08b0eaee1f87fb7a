"""What a system under test must offer. Systems implement these structurally and import nothing from here."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (N, H, W, C)
Scores = NDArray[np.float64]  # (N,)


@runtime_checkable
class Sampler(Protocol):
    """Draws images. Image ``i`` depends on ``seeds[i]`` alone: never on batch size, device count or the other seeds."""

    def sample(self, seeds: Sequence[int]) -> Images:
        """Return one uint8 image (N, H, W, C) per seed."""
        ...


@runtime_checkable
class StepSampler(Sampler, Protocol):
    """A sampler whose images improve over steps of a chain, and which can show them on the way."""

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, Images]:
        """Return, for every number of steps on the ladder, what :meth:`sample` draws with so many steps (N, H, W, C)."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Scores images; higher means more in-distribution. A score depends on its own image alone."""

    def score(self, images: Images) -> Scores:
        """Return float64 scores (N,) of uint8 images (N, H, W, C)."""
        ...


@runtime_checkable
class TermScorer(Scorer, Protocol):
    """A scorer whose score is a sum of named terms, e.g. ``{"log_p": ..., "neg_energy": ...}``: score = sum of the terms."""

    def score_terms(self, images: Images) -> dict[str, Scores]:
        """Return the named float64 terms (N,) in a fixed order; their sum is ``score(images)``."""
        ...


@runtime_checkable
class GradientScorer(Protocol):
    """Knows how steep its density is. It need not be a :class:`Scorer`: a network that models the gradient alone has no density.

    What a reader must know of the gradient may stand in an attribute ``gradient_note``: it is printed with the number.
    """

    def score_gradient_norm(self, images: Images) -> Scores:
        """Return the Euclidean norm of d log p / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        ...


@runtime_checkable
class RegretScorer(Protocol):
    """A VAE that fits its posterior to single images."""

    def likelihood_regret(self, images: Images, steps: int) -> Scores:
        """Return how far the ELBO of each uint8 image (N, H, W, C) rises in ``steps`` steps: float64 (N,) in nats, at least 0."""
        ...
