"""Every sample-quality number of one set of images against one reference, in one feature space.

The metrics by their generic names, as ``--metrics`` takes them; a row's name also says the features (``metric_name``):

==================  ===============================================================  =========================  ========
name                what                                                             reference                  better
==================  ===============================================================  =========================  ========
fd                  Frechet distance (FID in Inception features)                     mean and covariance        lower
fd_infinity         the same, extrapolated to infinitely many samples                mean and covariance        lower
kd                  unbiased polynomial MMD^2 (KID in Inception features)            features                   lower
is                  Inception score, one split                                       none                       higher
sfid                Frechet distance of spatial features                             mean and covariance        lower
precision, recall   share of samples on the data's manifold, and of data on theirs   features                   higher
density, coverage   the same with counts, and with nearest-neighbour balls           features                   higher
authenticity        share of samples that are no copies of training images           features                   higher
nearest_ratio       distance to the nearest training image, held-out images being 1  features, held-out images  1
==================  ===============================================================  =========================  ========
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.features.summary import FeatureSummary, Statistics
from evaluators.metrics.frechet import FrechetReference, fd_infinity, frechet_estimate
from evaluators.metrics.inception_score import inception_score_estimate
from evaluators.metrics.intervals import Estimate
from evaluators.metrics.kid import kid
from evaluators.metrics.moments import GroupedMoments
from evaluators.metrics.neighbours import authenticity, nearest_ratio
from evaluators.metrics.prdc import PRDC, prdc, prdc_and_kid
from vaebm.errors import UserError

METRICS = (
    *("fd", "fd_infinity", "kd", "is", "sfid", "precision", "recall", "density", "coverage"),
    *("authenticity", "nearest_ratio"),
)
OF_FEATURES = frozenset(METRICS) - {"fd", "fd_infinity", "is", "sfid"}  # these need every image's features
K, K_PRECISION = 5, 3
_OF_NEIGHBOURS = OF_FEATURES - {"kd"}
_OF_PRDC = frozenset({"precision", "recall", "density", "coverage"})
NEIGHBOURHOOD = 10_000  # images of either side in the metrics of neighbourhoods, whose values depend on it

Features = NDArray[np.floating]


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Attributes:
        name: for protocols: ``"cifar10 train"``.
        summary: statistics, and features where they are had.
        held_out: features of images of the same distribution that are not in the reference, or None.
        factors: Frechet factors of its covariances, made once.
    """

    name: str
    summary: FeatureSummary
    held_out: Features | None = None
    factors: dict[str, FrechetReference] = field(default_factory=dict)

    def factor(self, head: str) -> FrechetReference:
        """Return the factored mean and covariance of ``"features"`` or ``"spatial"``."""
        if head not in self.factors:
            moments = self.summary.moments if head == "features" else self.summary.spatial
            if moments is None:
                raise UserError(f"the reference {self.name} has no statistics of {head}")
            _, mu, cov = moments.statistics()
            self.factors[head] = FrechetReference(mu, cov)
        return self.factors[head]

    @property
    def features(self) -> Features:
        """Features of its first images.

        Raises:
            UserError: only its mean and covariance are known.
        """
        if self.summary.features is None:
            raise UserError(f"the reference {self.name} holds a mean and a covariance only; needed images or features")
        return self.summary.features[:NEIGHBOURHOOD]


@dataclass(frozen=True)
class Quality:
    """One number: its value or why there is none, and what belongs to its protocol."""

    metric: str
    estimate: Estimate | None  # low and high are NaN where there is no interval
    n: int | None
    protocol: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def measure_quality(samples: FeatureSummary, reference: Reference, metrics: Sequence[str]) -> list[Quality]:
    """Measure ``metrics`` in their order; one that cannot be had says why and stops no other.

    Args:
        samples: summary of the samples, with features where :data:`OF_FEATURES` are asked for.
        metrics: of :data:`METRICS`.
    """
    measuring, found = _Measuring(samples, reference, metrics), []
    for metric in metrics:
        n = min(samples.n or 0, NEIGHBOURHOOD) if metric in _OF_NEIGHBOURS else samples.n
        about = _protocol(metric, reference)
        try:
            found.append(Quality(metric, getattr(measuring, metric if metric != "is" else "inception_score"), n, about))
        except UserError as error:  # too few images, no features, no logits: this cell is empty, the table is not
            found.append(Quality(metric, None, n, about, str(error)))
    return found


class _Measuring:
    """Every metric as a property; what several share is made when the first asks."""

    def __init__(self, samples: FeatureSummary, reference: Reference, metrics: Sequence[str]) -> None:
        self.samples, self.reference, self.metrics = samples, reference, metrics

    @cached_property
    def fd(self) -> Estimate:
        return self._frechet(self.samples.moments, "features")

    @property
    def fd_infinity(self) -> Estimate:
        if isinstance(self.samples.moments, Statistics):
            raise UserError("found a mean and a covariance only; an extrapolation needs images or features")
        plain = self.fd  # refuses too few images
        return fd_infinity(self.samples.moments, self.reference.factor("features"), plain)

    @property
    def sfid(self) -> Estimate:
        if self.samples.spatial is None:
            raise UserError("these features have no spatial part; sfid needs --features inception")
        return self._frechet(self.samples.spatial, "spatial")

    def _frechet(self, moments: GroupedMoments | Statistics, head: str) -> Estimate:
        factor = self.reference.factor(head)
        if isinstance(moments, Statistics):  # somebody's mean and covariance: no interval
            _, mu, cov = moments.statistics()
            return Estimate(factor.distance(mu, cov), math.nan, math.nan)
        if moments.n <= moments.dim:  # it could be computed, and would mostly be bias
            raise UserError(
                f"found {moments.n} images, a covariance of {moments.dim} features needs more (--num-images), or features "
                "of fewer dimensions (--features)"
            )
        return frechet_estimate(moments, factor)

    @property
    def inception_score(self) -> Estimate:
        if self.samples.classes is None:
            raise UserError("these features come without class probabilities")
        return inception_score_estimate(self.samples.classes)

    @property
    def kd(self) -> Estimate:
        return self._prdc_and_kd[1] if self._prdc_and_kd else kid(self._features(), self.reference.features)

    @cached_property
    def prdc(self) -> PRDC:
        if self._prdc_and_kd:
            return self._prdc_and_kd[0]
        return prdc(self.reference.features, self._features(NEIGHBOURHOOD), k=K, k_precision=K_PRECISION)

    @cached_property
    def _prdc_and_kd(self) -> tuple[PRDC, Estimate] | None:
        """Both in the time of one, where both are asked for and of the same samples."""
        if "kd" not in self.metrics or _OF_PRDC.isdisjoint(self.metrics) or len(self._features()) > NEIGHBOURHOOD:
            return None
        try:
            return prdc_and_kid(self.reference.features, self._features(), k=K, k_precision=K_PRECISION)
        except UserError:  # one of them cannot be had; each says so for itself
            return None

    @property
    def precision(self) -> Estimate:
        return self.prdc.precision

    @property
    def recall(self) -> Estimate:
        return self.prdc.recall

    @property
    def density(self) -> Estimate:
        return self.prdc.density

    @property
    def coverage(self) -> Estimate:
        return self.prdc.coverage

    @property
    def authenticity(self) -> Estimate:
        return authenticity(self.reference.features, self._features(NEIGHBOURHOOD))

    @property
    def nearest_ratio(self) -> Estimate:
        if self.reference.held_out is None:
            raise UserError(f"no held-out images of {self.reference.name} were had")
        return nearest_ratio(self.reference.features, self.reference.held_out, self._features(NEIGHBOURHOOD))

    def _features(self, most: int | None = None) -> Features:
        if self.samples.features is None:
            raise UserError("found a mean and a covariance only; needed images or features")
        return self.samples.features[:most]


def _protocol(metric: str, reference: Reference) -> dict[str, Any]:
    """What decides whether two values of this metric are comparable, besides features and sampling."""
    if metric == "is":
        return {"splits": 1, "interval": "delete-group jackknife, 95 %"}
    n_features = 0 if reference.summary.features is None else len(reference.features)
    jackknife = "delete-group jackknife over samples, 95 %"
    abouts: dict[str, dict[str, Any]] = {
        "fd": {"n_reference": reference.summary.n, "interval": jackknife},
        "fd_infinity": {"n_reference": reference.summary.n, "interval": "delete-group jackknife of fd, 95 %"},
        "sfid": {"n_reference": reference.summary.n, "interval": jackknife},
        "kd": {"n_reference": n_features, "kernel": "(x.y/d + 1)^3", "interval": "U-statistic, both sides, 95 %"},
    }
    about = abouts.get(metric, {"n_reference": n_features, "interval": "95 %"})
    k = {"precision": K_PRECISION, "recall": K_PRECISION, "density": K, "coverage": K}.get(metric)
    return {"reference": reference.name, **about, **({"k": k} if k else {})}
