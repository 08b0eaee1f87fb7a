"""What a system under test must offer. Systems implement these structurally and import nothing from here."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

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
class LongSampler(Sampler, Protocol):
    """A sampler whose image is the end of :attr:`total_steps` steps that cost the same, and which can be stopped early."""

    @property
    def total_steps(self) -> int:
        """Steps behind every image of :meth:`sample`."""
        ...

    def sample_part(self, seeds: Sequence[int], steps: int) -> Images:
        """Return what there is after the first ``steps`` of all steps (N, H, W, C): good for timing, and for nothing else."""
        ...


@runtime_checkable
class TunableSampler(Sampler, Protocol):
    """A sampler whose recipe can be changed without loading its network again."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How it samples, as on its card: ``{"steps": 16, "step_size": 8e-5}``."""
        ...

    def with_recipe(self, **changes: Any) -> Self:
        """Return the same network under a changed recipe.

        Raises:
            UserError: an entry that the recipe does not have, or a value out of range.
        """
        ...


@runtime_checkable
class Networked(Protocol):
    """Shows the networks that its sampling runs through, so that their evaluations can be counted."""

    @property
    def networks(self) -> Mapping[str, Any]:
        """Torch modules by name, as they are run."""
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
