"""The sets of a run: without duplicates, named without clashes, of a shape that the systems take."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.ood.sets import MEANS, means
from evaluators.subjects import SystemUnderTest
from vaebm.data import DataUnavailable, ImageSet, remove_duplicates, require
from vaebm.errors import UserError

SCORES_FILE = "ood_scores.npz"


@dataclass(frozen=True)
class Data:
    """The images of a run after the removal of duplicates."""

    in_dist: ImageSet
    out: dict[str, ImageSet]
    removed: dict[str, int]  # duplicates of in-distribution images
    missing: dict[str, str]  # outer set -> why it is not there
    requested: tuple[str, ...]
    hashes: dict[str, str]

    @property
    def sets(self) -> dict[str, ImageSet]:
        """Every set that has images, the in-distribution one first."""
        return {self.in_dist.name: self.in_dist, **self.out}

    @property
    def means(self) -> dict[str, tuple[str, ...]]:
        """Name of a mean -> the sets that were asked for and that it is over; see ``evaluators.ood.sets.means``."""
        return means(self.in_dist.name, self.requested)


def prepare(in_dist: ImageSet, out_dists: Mapping[str, ImageSet | DataUnavailable]) -> Data:
    """Remove from each outer set what is also in the in-distribution one.

    Raises:
        UserError: no outer set, or too few images.
    """
    if not out_dists:
        raise UserError("ood: found no out-of-distribution set, needed at least one (--ood)")
    if len(in_dist) < 4:
        raise UserError(
            f"{in_dist.name}: found {len(in_dist)} in-distribution images, needed at least 4 (--num-images)"
        )
    kept: dict[str, ImageSet] = {}
    removed: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name, images in out_dists.items():
        if isinstance(images, Exception):
            missing[name] = str(images)
            continue
        left, removed[name] = remove_duplicates(images, in_dist)
        kept[name] = dataclasses.replace(left, name=name)
        if len(kept[name]) < 2:
            raise UserError(
                f"{name}: found {len(images)} images, {removed[name]} of them also in {in_dist.name}, needed at least "
                "2 others; choose another set (--ood) or more images (--num-images)"
            )
    hashes = {in_dist.name: in_dist.sha256, **{name: images.sha256 for name, images in kept.items()}}
    return Data(in_dist, kept, removed, missing, tuple(out_dists), hashes)


def check_names(systems: Mapping[str, SystemUnderTest], given: Mapping[str, Any], data: Data) -> None:
    """Raise a UserError where a name means two things, or cannot stand in the file of scores."""
    for name in data.requested:
        if name in (*MEANS, data.in_dist.name):
            what = f"the mean of {MEANS[name]}" if name in MEANS else "the in-distribution set"
            raise UserError(f"out-of-distribution set {name!r}: the name stands for {what}; give it another (--ood)")
    for key, system in systems.items():
        if key != system.name:
            raise ValueError(f"system {system.name!r} was passed under the name {key!r}")
    for name in given:
        if name in systems:
            raise UserError(f"--scores {name}=...: a system of this name is measured already; choose another name")
    for name in [*systems, *given]:
        if name in IMAGE_STATISTICS:
            raise UserError(f"system {name!r}: the name belongs to a control statistic; choose another")
    for name in [*systems, *given, *data.requested, data.in_dist.name]:
        if not name or "/" in name:
            raise UserError(f"name {name!r}: needed one without '/', which divides the names in {SCORES_FILE}")


def check_shapes(systems: Iterable[SystemUnderTest], sets: Iterable[ImageSet]) -> None:
    """Raise a UserError where a system does not take images of a set's shape."""
    for system, images in itertools.product(systems, sets):
        try:
            require(images, system.image_shape[:2], system.image_shape[2])
        except UserError as error:
            modelled = f", which models {system.dataset}" if system.dataset not in ("", images.name) else ""
            raise UserError(f"{system.name}{modelled}: {error}") from None
