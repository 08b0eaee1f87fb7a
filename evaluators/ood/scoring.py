"""Scores of systems, of image statistics and of users: every set once."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from evaluators.array_store import source_hash
from evaluators.metrics import image_statistics
from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.ood.data import Data
from evaluators.protocols import Images, Scorer, Scores, TermScorer
from evaluators.score_store import ScoreFunction, ScoreStore
from evaluators.subjects import SystemUnderTest
from vaebm.data import ImageSet
from vaebm.errors import UserError

SCORE = "score"  # the term that is the whole score


@dataclass(frozen=True)
class Scored:
    """A system and all its scores; ``reason`` says why there are none.

    One of a score beyond the paper holds that score alone, under ``variant``.
    """

    name: str
    terms: dict[str, dict[str, Scores]] = field(default_factory=dict)  # dataset -> term -> (N,), "score" last
    role: str = "headline"
    size: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    own_images: bool = False  # the user gave scores, so which images they belong to is not known
    variant: str = ""
    missing: dict[str, str] = field(default_factory=dict)  # outer set -> why it has no scores although it has images
    images_per_value: int = 1  # more where a score is about a batch


def system_scored(system: SystemUnderTest, data: Data, store: ScoreStore, progress: bool) -> Scored:
    """Score every set; a system that has no scorer says so in ``reason``."""
    protocol = {**system.protocol, **_trained_elsewhere(system, data)}
    described = Scored(system.name, size=system.size, protocol=protocol, provenance={"fingerprint": system.fingerprint})
    if not isinstance(system.system, Scorer):
        return dataclasses.replace(described, reason=system.reason or "has no scorer")
    terms = {
        dataset: system_scores(system, images, data.hashes[dataset], store, progress)
        for dataset, images in data.sets.items()
    }
    return dataclasses.replace(described, terms=terms)


def _trained_elsewhere(system: SystemUnderTest, data: Data) -> dict[str, str]:
    """Say so where the "in-distribution" set is not what the system was trained on: its number is then about something else."""
    if system.dataset in ("", data.in_dist.name):
        return {}
    warning = f"trained on {system.dataset}, not on {data.in_dist.name}"
    return {
        "estimator": "; ".join(filter(None, [system.protocol.get("estimator", ""), warning])),
        "trained_on": system.dataset,
    }


def system_scores(
    system: SystemUnderTest, images: ImageSet, data_hash: str, store: ScoreStore, progress: bool
) -> dict[str, Scores]:
    """Score the images of one set: term -> (N,), the whole score last. The system has a scorer."""
    scorer = system.system
    assert isinstance(scorer, Scorer)

    def score_fn(images: Images) -> Mapping[str, Scores]:
        return scorer.score_terms(images) if isinstance(scorer, TermScorer) else {SCORE: scorer.score(images)}

    where, key = own_store(system, store), system_key(system)
    found = answers(where, key, system.name, images, data_hash, score_fn, progress, batch_of(scorer))
    if isinstance(scorer, TermScorer):
        if SCORE in found:
            raise ValueError(f"{system.name}: a term may not be called {SCORE!r}, which is the name of their sum")
        found[SCORE] = weighted(found, list(found), 1.0)
    return found


def batch_of(scorer: object) -> int:
    """How many images a system scores at a time; 1 where it does not say."""
    size = getattr(scorer, "batch_size", 1)
    return size if isinstance(size, int) else 1


def system_key(system: SystemUnderTest) -> dict[str, Any]:
    """What of a system decides its numbers, for the store."""
    return {"system": system.fingerprint, "protocol": system.protocol}


def own_store(system: SystemUnderTest, store: ScoreStore) -> ScoreStore:
    """The store, or none: two systems that say nothing of themselves must not share a cache entry."""
    return store if system.fingerprint else ScoreStore(None)


def control_scored(name: str, data: Data, store: ScoreStore, progress: bool) -> Scored:
    """Score every set by the image statistic ``name``."""
    statistic = IMAGE_STATISTICS[name]
    protocol = {"estimator": f"image statistic, no parameters; {statistic.higher_means}"}
    if statistic.codec:
        protocol["codec"] = statistic.codec
    key = {"statistic": name, "codec": statistic.codec, "code": source_hash([Path(image_statistics.__file__)])}
    terms = {
        dataset: answers(
            store, key, name, images, data.hashes[dataset], lambda x: {SCORE: statistic.score(x)}, progress
        )
        for dataset, images in data.sets.items()
    }
    return Scored(name, terms, role="control", protocol=protocol)


def answers(
    store: ScoreStore,
    key: dict[str, Any],
    who: str,
    images: ImageSet,
    data_hash: str,
    score_fn: ScoreFunction,
    progress: bool,
    unit: int = 1,
) -> dict[str, Scores]:
    """Let ``score_fn`` answer for the images of one set, ``unit`` at a time, from the store where they are there; a bar for ``who``."""
    label = f"{who} on {images.name}"
    with tqdm(total=len(images), desc=label, unit="img", disable=not progress, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        where = {**key, "data": data_hash}
        return store.scores(where, images.images, score_fn, unit=unit, label=label, progress=show)


def user_scored(name: str, arrays: Mapping[str, ArrayLike], data: Data) -> Scored:
    """Check a user's own scores."""
    terms = {}
    for dataset in (data.in_dist.name, *data.requested):
        if dataset in arrays:
            terms[dataset] = {SCORE: finite_scores(arrays[dataset], f"--scores {name}, set {dataset}", at_least=2)}
        elif dataset not in data.missing:
            has = ", ".join(sorted(arrays)) or "nothing"
            raise UserError(
                f"--scores {name}: no scores of {dataset}, found {has}; add the array, or choose the sets with --ood"
            )
    given = {dataset: hashlib.sha256(values[SCORE].tobytes()).hexdigest() for dataset, values in terms.items()}
    protocol = {"estimator": "scores given by the user"}
    return Scored(name, terms, protocol=protocol, provenance={"fingerprint": {"scores": given}}, own_images=True)


def term_names(system: Scored, data: Data) -> list[str]:
    """The terms that a score is the sum of, in order; none where it is one number or there are no scores."""
    return [name for name in system.terms.get(data.in_dist.name, {}) if name != SCORE]


def weighted(terms: Mapping[str, Scores], names: Sequence[str], coefficient: float) -> Scores:
    """Sum of the terms in their order, the last one times ``coefficient``."""
    total = np.zeros_like(terms[names[0]])
    for name in names[:-1]:
        total = total + terms[name]
    return total + coefficient * terms[names[-1]]
