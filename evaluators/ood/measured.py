"""One row: a number, or the reason why there is none, with the protocol and provenance of its system and sets."""

from typing import Any

import numpy as np
import scipy

from evaluators.measurement import Measurement
from evaluators.metrics.intervals import Estimate
from evaluators.ood.data import Data
from evaluators.ood.scoring import SCORE, Scored
from vaebm.data import ImageSet

SUITE = "ood"


def measured(
    system: Scored,
    data: Data,
    dataset: str,
    metric: str,
    estimate: Estimate,
    seed: int,
    *,
    variant: str | None = None,
    **details: Any,
) -> Measurement:
    """A number; ``details`` go into its protocol, ``n`` counts what was ranked on both sides: images, or batches of them."""
    protocol, provenance = describe(system, data, dataset)
    involved = dict.fromkeys([data.in_dist.name, *data.means.get(dataset, [dataset])])
    return Measurement(
        suite=SUITE,
        system=system.name,
        dataset=dataset,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=sum(len(system.terms[name][SCORE]) for name in involved),
        seed=seed,
        role=system.role,
        variant=system.variant if variant is None else variant,
        size=system.size,
        protocol={**protocol, **details},
        provenance=provenance,
    )


def unmeasured(
    system: Scored, data: Data, dataset: str, metric: str, reason: str, seed: int, *, variant: str | None = None
) -> Measurement:
    """No number, and why."""
    protocol, provenance = describe(system, data, dataset)
    return Measurement(
        suite=SUITE,
        system=system.name,
        dataset=dataset,
        metric=metric,
        value=None,
        seed=seed,
        role=system.role,
        variant=system.variant if variant is None else variant,
        size=system.size,
        protocol=protocol,
        provenance=provenance,
        note=reason,
    )


def describe(system: Scored, data: Data, dataset: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Protocol and provenance of a row about ``dataset``: in-distribution side, outer side, the system's own."""
    inner, given = data.in_dist.name, system.own_images
    protocol: dict[str, Any] = {"in_distribution": inner, "n_in": count(system, inner, data)}
    protocol |= {} if given else _origin("in", data.in_dist)
    averaged = data.means.get(dataset)
    outer = list(averaged) if averaged else [] if dataset == inner else [dataset]
    if outer:
        counts = [count(system, name, data) for name in outer]
        removed = [None if given else data.removed.get(name) for name in outer]
        one = averaged is None
        protocol |= {} if one else {"mean_of": outer}
        protocol |= {"n_out": counts[0] if one else counts, "duplicates_removed": removed[0] if one else removed}
        protocol |= _origin("out", data.out[dataset]) if one and dataset in data.out and not given else {}
    provenance = {**system.provenance, "numpy": np.__version__, "scipy": scipy.__version__}
    if not given:
        provenance["data"] = {name: data.hashes[name] for name in (inner, *outer) if name in data.hashes}
    return {**protocol, **system.protocol}, provenance


def _origin(prefix: str, images: ImageSet) -> dict[str, Any]:
    found = {"split": images.split, "source": images.source, "notes": "; ".join(images.notes)}
    shape = "x".join(map(str, images.images.shape[1:]))
    return {"image_shape": shape, **{f"{prefix}_{key}": text for key, text in found.items() if text}}


def count(system: Scored, name: str, data: Data) -> int | None:
    """How many images of a set a system's numbers are of; None where that is not known."""
    if name in system.terms:
        return len(system.terms[name][SCORE]) * system.images_per_value
    return len(data.sets[name]) if name in data.sets and not system.own_images else None
