"""Typicality: is the score as high as that of training images, neither lower nor higher?

An image may have a higher density than every image that a model was trained on and yet be unlike all of them: density times
volume decides what is drawn, not density alone. So what is asked is how far log p(x) lies from its mean over training images.

Reference: Nalisnick, Matsukawa, Teh and Lakshminarayanan, Detecting Out-of-Distribution Inputs to Deep Generative Models Using
Typicality (2019), arXiv 1906.02994, equation 3.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from evaluators.metrics.arrays import finite_scores
from evaluators.ood.scores import whole
from evaluators.ood.scores.readings import Found, NoScoreError, Readings, lacks_score
from evaluators.protocols import Scores
from evaluators.subjects import SystemUnderTest

FEWEST = 2  # values that a set needs, so that its ranking has an interval


def typicality(scores: ArrayLike, training_mean: float, batch: int = 1) -> Scores:
    """-|mean of s over a batch - mean of s over training images|.

    Adding a constant to every s, as an unknown log Z does, changes nothing.

    Args:
        scores: s (N,), finite, in nats where s is log p(x). Batches are the first M, the next M and so on; what is left over at
            the end is not used.
        training_mean: mean of s over training images.
        batch: M >= 1 images of one unknown source, judged together.

    Returns:
        float64 (N // M,), at most 0, in the units of s; higher = more typical.

    Raises:
        UserError: NaN or infinite scores.
    """
    values = finite_scores(scores, "scores")
    batches = values[: len(values) // batch * batch].reshape(-1, batch)
    return -np.abs(batches.mean(axis=1) - training_mean)


class Typicality:
    """``typicality`` or ``typicality:M``, M images a batch."""

    needs_training_images: ClassVar[bool] = True

    def __init__(self, parameter: str = "") -> None:
        self.batch = whole(parameter, "the number of images in a batch", 1)
        self.spec = "typicality" if self.batch == 1 else f"typicality:{self.batch}"

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """It needs a score."""
        return lacks_score(system)

    def read(self, system: str, readings: Readings) -> Found:
        """See :func:`typicality`."""
        training = readings.training_images()
        reference = float(readings.on_training_images(system).mean())
        values, missing = {}, {}
        for dataset, scores in readings.whole(system).items():
            values[dataset] = typicality(scores, reference, self.batch)
            if (found := len(values[dataset])) < FEWEST:
                missing[dataset] = (
                    f"{dataset}: found {found} batch{'es' * (found != 1)} of {self.batch}, needed at least {FEWEST} (--num-images)"
                )
                del values[dataset]
        inside = readings.data.in_dist.name
        if inside in missing:
            raise NoScoreError(missing[inside])
        mean = (
            f"mean of s over {len(training)} {training.name} {training.split or 'training'} images, {training.source}"
        )
        form = "s" if self.batch == 1 else "mean of s over a batch of M consecutive images"
        return Found(
            values,
            score=f"-|{form} - mean of s over training images|" + "; n counts batches" * (self.batch > 1),
            estimator=mean,
            missing=missing,
            images_per_value=self.batch,
            provenance={"training_mean": reference, "training_images": training.sha256},
        )
