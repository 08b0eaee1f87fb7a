"""Rows of scores: the headline, its diagnostics, its correlation with image statistics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.measurement import Measurement
from evaluators.metrics.aupr import aupr
from evaluators.metrics.auroc import auroc_interval, mean_auroc_interval
from evaluators.metrics.fpr95 import fpr95
from evaluators.metrics.rank_correlation import rank_correlation
from evaluators.metrics.standard_deviation import standard_deviation
from evaluators.ood.data import Data
from evaluators.ood.measured import measured, unmeasured
from evaluators.ood.scoring import SCORE, Scored, term_names, weighted
from evaluators.protocols import Scores
from vaebm.errors import UserError

METRICS = ("auroc", "aupr", "fpr95")
# -E(x): the one term whose scale is an accident of training, so that a coefficient on it is shown.
ENERGY = "neg_energy"

_DELONG = "DeLong, logit scale, 95 %"
_FISHER = "Fisher z, Bonett-Wright variance, 95 %"


def headline(system: Scored, data: Data, seed: int, replicates: int) -> list[Measurement]:
    """auroc, aupr, fpr95 per outer set, then the means."""
    bootstrap = f"stratified bootstrap, {replicates} resamples"
    names = term_names(system, data)
    # Another scale of the energy moves the number: see auroc_at_coefficient.
    scale = {"scale_of": ENERGY} if len(names) > 1 and names[-1] == ENERGY else {}
    rows = []
    for dataset in data.requested:
        reason = system.reason
        if not reason and dataset not in system.terms:
            reason = system.missing.get(dataset) or data.missing[dataset]
        if reason:
            rows += [unmeasured(system, data, dataset, metric, reason, seed) for metric in METRICS]
            continue
        inside, outside = system.terms[data.in_dist.name][SCORE], system.terms[dataset][SCORE]
        ranked = auroc_interval(inside, outside)
        precision = aupr(inside, outside, seed=seed, replicates=replicates)
        details: dict[str, Any] = {
            "interval": f"{bootstrap}, logit scale, 95 %",
            "base_rate": precision.base_rate,
        }
        exact = f"{bootstrap}, percentiles and Clopper-Pearson, 95 %"
        accepted = fpr95(inside, outside, seed=seed, replicates=replicates)
        rows += [
            measured(system, data, dataset, "auroc", ranked, seed, interval=_DELONG, **scale),
            measured(system, data, dataset, "aupr", precision, seed, **details),
            measured(system, data, dataset, "fpr95", accepted, seed, interval=exact),
        ]
    return rows + mean_rows(system, data, SCORE, seed)


def diagnostics(
    system: Scored, data: Data, seed: int, replicates: int, coefficients: Sequence[float]
) -> list[Measurement]:
    """Terms alone, the coefficient curve, the spread of each term. Terms are known only where there are scores."""
    names = term_names(system, data)
    if not names:
        return []
    part = dataclasses.replace(system, role="diagnostic")
    inside = system.terms[data.in_dist.name]
    present = [dataset for dataset in data.requested if dataset in system.terms]
    rows = []
    if len(names) > 1:
        for name in names:
            for dataset in data.requested:
                if dataset not in system.terms:
                    rows.append(unmeasured(part, data, dataset, "auroc", data.missing[dataset], seed, variant=name))
                    continue
                estimate = auroc_interval(inside[name], system.terms[dataset][name])
                rows.append(measured(part, data, dataset, "auroc", estimate, seed, variant=name, interval=_DELONG))
            rows += mean_rows(part, data, name, seed)
        for dataset in present if names[-1] == ENERGY else ():
            for c in coefficients:
                estimate = auroc_interval(weighted(inside, names, c), weighted(system.terms[dataset], names, c))
                details = {"interval": _DELONG, "coefficient_on": names[-1]}
                metric, variant = "auroc_at_coefficient", f"c={c:g}"
                rows.append(measured(part, data, dataset, metric, estimate, seed, variant=variant, **details))
    interval = f"percentile bootstrap, {replicates} resamples, 95 %"
    for name in names:
        estimate = standard_deviation(inside[name], seed=seed, replicates=replicates)
        rows.append(measured(part, data, data.in_dist.name, f"sd_{name}", estimate, seed, interval=interval))
    return rows


def mean_rows(system: Scored, data: Data, term: str, seed: int) -> list[Measurement]:
    """The mean AUROC of all outer sets, of the near and of the far ones; empty unless all of them are there."""
    variant = system.variant if term == SCORE else term
    interval = f"{_DELONG}, covariance through the shared in-distribution images"
    rows = []
    for name, sets in data.means.items():
        absent = [dataset for dataset in sets if dataset not in system.terms]
        if absent:
            reason = system.reason or f"mean of {len(sets)} sets needs all of them; not there: {', '.join(absent)}"
            rows.append(unmeasured(system, data, name, "auroc", reason, seed, variant=variant))
            continue
        outside = [system.terms[dataset][term] for dataset in sets]
        estimate = mean_auroc_interval(system.terms[data.in_dist.name][term], outside)
        rows.append(measured(system, data, name, "auroc", estimate, seed, variant=variant, interval=interval))
    return rows


def correlations(system: Scored, data: Data, statistics: Mapping[str, Scores], seed: int) -> list[Measurement]:
    """Rank correlation of the score, and of each term, with each image statistic on the in-distribution images."""
    name = data.in_dist.name
    control = dataclasses.replace(system, role="control")
    reason = system.reason or ("scores were given without their images" if system.own_images else "")
    rows = []
    for term in [SCORE, *term_names(system, data)]:
        for statistic, values in statistics.items():
            variant = statistic if term == SCORE else f"{term}:{statistic}"
            if not reason:
                try:
                    estimate = rank_correlation(system.terms[name][term], values)
                    row = measured(
                        control, data, name, "rank_correlation", estimate, seed, variant=variant, interval=_FISHER
                    )
                except UserError as error:  # a constant score has no ranking: that cell is empty, the table is not
                    row = unmeasured(control, data, name, "rank_correlation", str(error), seed, variant=variant)
            else:
                row = unmeasured(control, data, name, "rank_correlation", reason, seed, variant=variant)
            rows.append(row)
    return rows
