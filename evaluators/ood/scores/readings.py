"""What scores are made of: whole scores of systems, of training images, and answers to other questions, each asked once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from evaluators.ood.data import Data
from evaluators.ood.scoring import SCORE, Scored, answers, batch_of, own_store, system_key, system_scores
from evaluators.protocols import Images, Scorer, Scores
from evaluators.score_store import ScoreStore
from evaluators.subjects import SystemUnderTest
from vaebm.data import DataUnavailable, ImageSet


class NoScoreError(Exception):
    """Why a system has no such score here: the note of the empty cells."""


@dataclass(frozen=True)
class Found:
    """A score of one system.

    Attributes:
        values: data set -> float64 (n,), higher = more in-distribution. The in-distribution set is there.
        score: formula and unit, as a protocol says it; ``s`` stands for the system's own score.
        estimator: what else decides the numbers: codec, steps, reference images.
        missing: outer set -> why it has no values although it has images.
        images_per_value: more than 1 where a value is about a batch.
        provenance: numbers and hashes behind it.
    """

    values: dict[str, Scores]
    score: str
    estimator: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    images_per_value: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)


class Readings:
    """Reads systems on the sets of a run.

    Args:
        systems: name -> system.
        scored: name -> the system's own scores of every set.
        data: the sets.
        reference: images of the training split; the exception that says why there are none; or None if nobody needs them.
    """

    def __init__(
        self,
        systems: Mapping[str, SystemUnderTest],
        scored: Mapping[str, Scored],
        data: Data,
        reference: ImageSet | DataUnavailable | None,
        store: ScoreStore,
        progress: bool,
    ) -> None:
        self.systems, self.data, self.reference = systems, data, reference
        self._scored, self._store, self._progress = scored, store, progress
        self._on_reference: dict[str, Scores] = {}

    def whole(self, system: str) -> dict[str, Scores]:
        """The system's own score per set, float64 (N,); of a sum of terms the sum.

        Raises:
            NoScoreError: it has none.
        """
        scored = self._scored[system]
        if scored.reason:
            raise NoScoreError(scored.reason)
        return {dataset: terms[SCORE] for dataset, terms in scored.terms.items()}

    def training_images(self) -> ImageSet:
        """The reference images.

        Raises:
            NoScoreError: there are none.
        """
        if not isinstance(self.reference, ImageSet):
            raise NoScoreError(f"needs training images: {self.reference or 'none were given'}")
        return self.reference

    def on_training_images(self, system: str) -> Scores:
        """The system's own score of the reference images, float64 (n,). Raises: NoScoreError."""
        images = self.training_images()
        if system not in self._on_reference:
            subject, sha256 = self.systems[system], images.sha256
            self._on_reference[system] = system_scores(subject, images, sha256, self._store, self._progress)[SCORE]
        return self._on_reference[system]

    def ask(
        self, system: str, question: str, settings: Mapping[str, Any], answer: Callable[[Images], Scores]
    ) -> dict[str, Scores]:
        """Let a system answer for every image of every set: data set -> float64 (N,), kept in the store of scores.

        Args:
            settings: JSON-able; what decides the answer besides the system.
        """
        subject = self.systems[system]
        key = {**system_key(subject), "question": question, **settings}
        label = f"{system}, {question.replace('_', ' ')}"
        return self._answers(key, label, answer, own_store(subject, self._store), batch_of(subject.system))

    def of_images(self, key: Mapping[str, Any], label: str, function: Callable[[Images], Scores]) -> dict[str, Scores]:
        """A number of every image of every set that no system decides: data set -> float64 (N,).

        Args:
            key: JSON-able; all that decides the number: function, code, versions of libraries.
        """
        return self._answers(dict(key), label, function, self._store)

    def _answers(
        self,
        key: dict[str, Any],
        label: str,
        function: Callable[[Images], Scores],
        store: ScoreStore,
        unit: int = 1,
    ) -> dict[str, Scores]:
        ask = lambda images: {SCORE: function(images)}
        hashes = self.data.hashes
        return {
            dataset: answers(store, key, label, images, hashes[dataset], ask, self._progress, unit)[SCORE]
            for dataset, images in self.data.sets.items()
        }


class ExtraScore(Protocol):
    """A score beyond the paper; a class of it is made of the text behind the colon, and refuses what it does not understand.

    Attributes:
        spec: name and parameters in one spelling: ``"input_complexity:png"``. It names the rows.
        needs_training_images: whether it looks at the reference images.
    """

    spec: str
    needs_training_images: ClassVar[bool]

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """Return why a system can have no such score; empty if it can.

        Raises:
            UserError: no system can, since the parameter names something that is not there.
        """
        ...

    def read(self, system: str, readings: Readings) -> Found:
        """Score every set.

        Raises:
            NoScoreError: it turns out that it cannot be had.
        """
        ...


def lacks_score(system: SystemUnderTest) -> str:
    """Return why a system has no score of its own; empty if it has one."""
    return "" if isinstance(system.system, Scorer) else system.reason or "has no scorer"
