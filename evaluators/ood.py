"""The out-of-distribution suite: does a score rank images of the training distribution above images of others?

For every system and every outer data set: AUROC (DeLong interval), AUPR and FPR95 (bootstrap intervals), the mean AUROC,
and what keeps these numbers honest: each additive term of the score alone, the AUROC as a function of the weight of the last term,
zero-parameter image statistics as rivals, and the rank correlation of each system with them.

Reference for the protocol: Xiao, Kreis, Kautz and Vahdat, VAEBM (ICLR 2021), table 6. In-distribution = positive,
higher score = in-distribution.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import ArrayLike
from tqdm import tqdm

from evaluators.array_store import source_hash
from evaluators.measurement import Measurement
from evaluators.metrics import image_statistics
from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.aupr import aupr
from evaluators.metrics.auroc import auroc_interval, mean_auroc_interval
from evaluators.metrics.fpr95 import fpr95
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.metrics.intervals import REPLICATES, Estimate, check_replicates
from evaluators.metrics.rank_correlation import rank_correlation
from evaluators.metrics.standard_deviation import standard_deviation
from evaluators.protocols import Images, Scorer, Scores, TermScorer
from evaluators.score_files import load_scores, save_scores
from evaluators.score_store import ScoreFunction, ScoreStore
from evaluators.subjects import SystemUnderTest
from evaluators.suite import NAMED, Bench, Option
from vaebm.cli import named
from vaebm.data import DataUnavailable, ImageSet, remove_duplicates, require
from vaebm.errors import UserError

__all__ = ["COEFFICIENTS", "OODResult", "OODSuite", "load_scores"]

NUM_IMAGES = 2000  # per set, unless told otherwise
COEFFICIENTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
METRICS = ("auroc", "aupr", "fpr95")
SCORE, MEAN = "score", "mean"
SCORES_FILE = "ood_scores.npz"

_DELONG = "DeLong, logit scale, 95 %"
_FISHER = "Fisher z, Bonett-Wright variance, 95 %"


@dataclass(frozen=True)
class OODResult:
    """What a run found.

    Attributes:
        rows: see :meth:`OODSuite.run`.
        scores: system -> dataset -> term -> float64 (N,); the term ``"score"`` is the whole score, and is always there.
        in_dist: name of the in-distribution set.
        out_dists: names of the outer sets that were asked for, in order; sets without data have no scores.
    """

    rows: list[Measurement]
    scores: dict[str, dict[str, dict[str, Scores]]]
    in_dist: str
    out_dists: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    """The images of a run after the removal of duplicates."""

    in_dist: ImageSet
    out: dict[str, ImageSet]
    removed: dict[str, int]  # duplicates of in-distribution images
    missing: dict[str, str]  # outer set -> why it is not there
    requested: tuple[str, ...]
    hashes: dict[str, str]

    @property
    def sets(self) -> dict[str, ImageSet]:
        return {self.in_dist.name: self.in_dist, **self.out}


@dataclass(frozen=True)
class _Scored:
    """A system and all its scores; ``reason`` says why there are none."""

    name: str
    terms: dict[str, dict[str, Scores]] = field(default_factory=dict)  # dataset -> term -> (N,), "score" last
    role: str = "headline"
    size: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    own_images: bool = False  # the user gave scores, so which images they belong to is not known


class OODSuite:
    """Scores systems against outer data sets.

    Args:
        replicates: bootstrap resamples behind the intervals of AUPR, FPR95 and the standard deviations.
        coefficients: weights of the last term of a :class:`TermScorer` at which its AUROC is shown; 1 is the headline.
    """

    name: ClassVar[str] = "ood"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)
    options: ClassVar[Mapping[str, Option]] = {
        "--scores": NAMED
        | {"help": "NAME=FILE.npz of your scores: one array per data set, higher = more in-distribution"},
        "--ood": {
            "type": str,
            "default": "svhn,cifar10_interp,cifar100,celeba",  # the columns of the paper's Table 6
            "help": "sets with commas: a name or NAME=PATH (folder, zip, .npy, .npz)",
        },
        "--importance-samples": {
            "type": int,
            "default": 1,
            "help": "K of the bound on log p(x) of VAEs; 1 is the ELBO",
        },
        "--interp": {
            "type": str,
            "default": "neighbours",
            "help": "pairs of the interpolated set: neighbours, batches, shuffled",
        },
    }

    def __init__(self, replicates: int = REPLICATES, coefficients: Sequence[float] = COEFFICIENTS) -> None:
        check_replicates(replicates)
        self.replicates = replicates
        self.coefficients = tuple(coefficients)

    def measure(self, bench: Bench) -> OODResult:
        """Load what the options name, and :meth:`run`.

        Raises:
            UserError: as :meth:`run`; an option that nothing listens to.
        """
        options = bench.options
        n = options.num_images or NUM_IMAGES
        dataset = options.dataset or "cifar10"
        if n < 4:
            raise UserError(f"--num-images {n}: needed at least 4")
        if options.importance_samples < 1:
            raise UserError(f"--importance-samples {options.importance_samples}: needed at least 1")
        scores = {name: load_scores(Path(path)) for name, path in named("--scores", options.scores).items()}
        systems = bench.load_systems(dataset)
        size = next((system.image_shape[:2] for system in systems.values() if system.system is not None), None)
        load = partial(bench.load_images, n=n, size=size, interp=options.interp, seed=options.seed)
        in_dist = load(dataset)
        outer: dict[str, ImageSet | DataUnavailable] = {}
        for spec in filter(None, options.ood.split(",")):
            found: ImageSet | DataUnavailable
            try:
                found = load(spec)
                name = found.name
            except DataUnavailable as reason:  # its cells stay empty and say so; the rest of the table comes out
                found, name = reason, spec
            if name in outer:
                raise UserError(f"--ood: two sets are called {name!r}; needed NAME=PATH with a name of its own")
            outer[name] = found
        bounds = ["importance_samples" in getattr(system.system, "options", ()) for system in systems.values()]
        if options.importance_samples != 1 and not any(bounds):
            raise UserError(
                "--importance-samples: no chosen system has a bound; leave it out or add vaebm to --systems"
            )
        if options.interp != "neighbours" and "cifar10_interp" not in outer:
            raise UserError("--interp: no interpolated set was chosen; leave it out, or add cifar10_interp to --ood")
        store = ScoreStore(bench.folder("scores"))
        run = {"seed": options.seed, "progress": bench.progress, "out": bench.out, "scores": scores}
        return self.run(systems, in_dist, outer, store=store, **run)

    def run(
        self,
        systems: Mapping[str, SystemUnderTest],
        in_dist: ImageSet,
        out_dists: Mapping[str, ImageSet | DataUnavailable],
        *,
        seed: int = 0,
        store: ScoreStore | None = None,
        progress: bool = False,
        out: Path | None = None,
        scores: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    ) -> OODResult:
        """Score every set once per system and measure.

        Images of an outer set that are also in the in-distribution set are removed (and counted in the protocol) before
        anything is scored.

        Args:
            systems: name -> system.
            in_dist: the positive images, 4 or more.
            out_dists: name -> images (2 or more), or the exception that says why they cannot be had.
            seed: of the bootstrap.
            store: where scores are kept between runs; None: nowhere.
            progress: a bar per system and set on stderr.
            out: folder for ``ood_scores.npz`` (see ``evaluators.score_files``); None: not written.
            scores: a user's own scores, name -> {data set: (N,)}, higher = more in-distribution, with the
                in-distribution set and every outer set that has images; other arrays are left alone. No duplicates are
                removed: there are no images to compare.

        Returns:
            Rows with suite ``"ood"``. ``n`` counts the images of both sides; ``dataset`` is the outer set, ``"mean"``
            (of all outer sets, if two or more; empty unless all are there), or the in-distribution set where only that
            matters.

            ==========  ====================  =============================  ==========================================
            role        metric                variant                        what
            ==========  ====================  =============================  ==========================================
            headline    auroc, aupr, fpr95                                   the score; auroc also for ``"mean"``
            diagnostic  auroc                 ``<term>``                     one term alone; also for ``"mean"``
            diagnostic  auroc_at_coefficient  ``c=<c>``                      the other terms + c x the last one
            diagnostic  sd_<term>                                            spread of a term, in its units
            control     rank_correlation      ``[<term>:]<statistic>``       of score or term with a statistic
            control     auroc, aupr, fpr95                                   an image statistic as its own system
            ==========  ====================  =============================  ==========================================

            Rows of terms exist for a :class:`TermScorer`; those of single terms and coefficients if it has two or more.

        Raises:
            UserError: images of a shape a system does not take, too few images, clashing or unusable names, NaN or
                missing scores, an unwritable folder.
        """
        given = dict(scores or {})
        data = _prepare(in_dist, out_dists)
        _check_names(systems, given, data)
        _check_shapes(systems, data)
        own = [_user_scored(name, arrays, data) for name, arrays in given.items()]  # cheap, so bad input is found first
        if out is not None:
            _make_folder(out)

        store = store or ScoreStore(None)
        scored = [_system_scored(system, data, store, progress) for system in systems.values()] + own
        controls = [_control_scored(name, data, store, progress) for name in IMAGE_STATISTICS]
        raw = {system.name: system.terms for system in [*scored, *controls] if system.terms}
        if out is not None:
            try:
                save_scores(out / SCORES_FILE, raw)
            except OSError as error:
                raise _unwritable(out, error) from None

        statistics = {control.name: control.terms[in_dist.name][SCORE] for control in controls}
        rows: list[Measurement] = []
        for system in scored:
            rows += self._headline(system, data, seed)
            rows += self._diagnostics(system, data, seed)
            rows += _correlations(system, data, statistics, seed)
        for control in controls:
            rows += self._headline(control, data, seed)
        return OODResult(rows, raw, in_dist.name, data.requested)

    def _headline(self, system: _Scored, data: _Data, seed: int) -> list[Measurement]:
        """auroc, aupr, fpr95 per outer set, then the mean."""
        bootstrap = f"stratified bootstrap, {self.replicates} resamples"
        names = _term_names(system, data)
        # Another scale of the last term moves the number: see auroc_at_coefficient.
        scale = {"scale_of": names[-1]} if len(names) > 1 else {}
        rows = []
        for dataset in data.requested:
            reason = system.reason or ("" if dataset in system.terms else data.missing[dataset])
            if reason:
                rows += [_empty(system, data, dataset, metric, reason, seed) for metric in METRICS]
                continue
            inside, outside = system.terms[data.in_dist.name][SCORE], system.terms[dataset][SCORE]
            ranked = auroc_interval(inside, outside)
            precision = aupr(inside, outside, seed=seed, replicates=self.replicates)
            details: dict[str, Any] = {
                "interval": f"{bootstrap}, logit scale, 95 %",
                "base_rate": precision.base_rate,
            }
            exact = f"{bootstrap}, percentiles and Clopper-Pearson, 95 %"
            accepted = fpr95(inside, outside, seed=seed, replicates=self.replicates)
            rows += [
                _row(system, data, dataset, "auroc", ranked, seed, interval=_DELONG, **scale),
                _row(system, data, dataset, "aupr", precision, seed, **details),
                _row(system, data, dataset, "fpr95", accepted, seed, interval=exact),
            ]
        return rows + _mean_row(system, data, SCORE, seed)

    def _diagnostics(self, system: _Scored, data: _Data, seed: int) -> list[Measurement]:
        """Terms alone, the coefficient curve, the spread of each term. Terms are known only where there are scores."""
        names = _term_names(system, data)
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
                        rows.append(_empty(part, data, dataset, "auroc", data.missing[dataset], seed, variant=name))
                        continue
                    estimate = auroc_interval(inside[name], system.terms[dataset][name])
                    rows.append(_row(part, data, dataset, "auroc", estimate, seed, variant=name, interval=_DELONG))
                rows += _mean_row(part, data, name, seed)
            for dataset in present:
                for c in self.coefficients:
                    estimate = auroc_interval(_weighted(inside, names, c), _weighted(system.terms[dataset], names, c))
                    details = {"interval": _DELONG, "coefficient_on": names[-1]}
                    metric, variant = "auroc_at_coefficient", f"c={c:g}"
                    rows.append(_row(part, data, dataset, metric, estimate, seed, variant=variant, **details))
        interval = f"percentile bootstrap, {self.replicates} resamples, 95 %"
        for name in names:
            estimate = standard_deviation(inside[name], seed=seed, replicates=self.replicates)
            rows.append(_row(part, data, data.in_dist.name, f"sd_{name}", estimate, seed, interval=interval))
        return rows


# --- input -----------------------------------------------------------------------------------------------------


def _prepare(in_dist: ImageSet, out_dists: Mapping[str, ImageSet | DataUnavailable]) -> _Data:
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
    return _Data(in_dist, kept, removed, missing, tuple(out_dists), hashes)


def _check_names(systems: Mapping[str, SystemUnderTest], given: Mapping[str, Any], data: _Data) -> None:
    for name in data.requested:
        if name in (MEAN, data.in_dist.name):
            what = "the mean of all sets" if name == MEAN else "the in-distribution set"
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


def _check_shapes(systems: Mapping[str, SystemUnderTest], data: _Data) -> None:
    for system in systems.values():
        if _has_scorer(system):
            for images in data.sets.values():
                try:
                    require(images, system.image_shape[:2], system.image_shape[2])
                except UserError as error:
                    raise UserError(f"{system.name}: {error}") from None


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {out}: {error.strerror or error}; choose a writable folder with --out")


# --- scoring ---------------------------------------------------------------------------------------------------


def _has_scorer(system: SystemUnderTest) -> bool:
    return isinstance(system.system, Scorer)


def _system_scored(system: SystemUnderTest, data: _Data, store: ScoreStore, progress: bool) -> _Scored:
    described = _Scored(
        system.name, size=system.size, protocol=system.protocol, provenance={"fingerprint": system.fingerprint}
    )
    scorer = system.system
    if not isinstance(scorer, Scorer):
        return dataclasses.replace(described, reason=system.reason or "has no scorer")

    def score_fn(images: Images) -> Mapping[str, Scores]:
        return scorer.score_terms(images) if isinstance(scorer, TermScorer) else {SCORE: scorer.score(images)}

    key = {"system": system.fingerprint, "protocol": system.protocol}
    # Two systems that say nothing of themselves must not share a cache entry.
    kept_in = store if system.fingerprint else ScoreStore(None)
    terms = {}
    for dataset, images in data.sets.items():
        found = _scores(kept_in, key, system.name, images, data.hashes[dataset], score_fn, progress)
        if isinstance(scorer, TermScorer):
            if SCORE in found:
                raise ValueError(f"{system.name}: a term may not be called {SCORE!r}, which is the name of their sum")
            found[SCORE] = _weighted(found, list(found), 1.0)
        terms[dataset] = found
    return dataclasses.replace(described, terms=terms)


def _control_scored(name: str, data: _Data, store: ScoreStore, progress: bool) -> _Scored:
    statistic = IMAGE_STATISTICS[name]
    protocol = {"estimator": f"image statistic, no parameters; {statistic.higher_means}"}
    if statistic.codec:
        protocol["codec"] = statistic.codec
    key = {"statistic": name, "codec": statistic.codec, "code": source_hash([Path(image_statistics.__file__)])}
    terms = {
        dataset: _scores(
            store, key, name, images, data.hashes[dataset], lambda x: {SCORE: statistic.score(x)}, progress
        )
        for dataset, images in data.sets.items()
    }
    return _Scored(name, terms, role="control", protocol=protocol)


def _scores(
    store: ScoreStore,
    key: dict[str, Any],
    system: str,
    images: ImageSet,
    data_hash: str,
    score_fn: ScoreFunction,
    progress: bool,
) -> dict[str, Scores]:
    label = f"{system} on {images.name}"
    with tqdm(total=len(images), desc=label, unit="img", disable=not progress, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        return store.scores({**key, "data": data_hash}, images.images, score_fn, label=label, progress=show)


def _user_scored(name: str, arrays: Mapping[str, ArrayLike], data: _Data) -> _Scored:
    """Checks a user's own scores."""
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
    return _Scored(name, terms, protocol=protocol, provenance={"fingerprint": {"scores": given}}, own_images=True)


def _term_names(system: _Scored, data: _Data) -> list[str]:
    return [name for name in system.terms.get(data.in_dist.name, {}) if name != SCORE]


def _weighted(terms: Mapping[str, Scores], names: Sequence[str], coefficient: float) -> Scores:
    """Sum of the terms in their order, the last one times ``coefficient``."""
    total = np.zeros_like(terms[names[0]])
    for name in names[:-1]:
        total = total + terms[name]
    return total + coefficient * terms[names[-1]]


# --- rows ------------------------------------------------------------------------------------------------------


def _mean_row(system: _Scored, data: _Data, term: str, seed: int) -> list[Measurement]:
    if len(data.requested) < 2:
        return []
    variant = "" if term == SCORE else term
    absent = [dataset for dataset in data.requested if dataset not in system.terms]
    if absent:
        reason = (
            system.reason or f"mean of {len(data.requested)} sets needs all of them; not there: {', '.join(absent)}"
        )
        return [_empty(system, data, MEAN, "auroc", reason, seed, variant=variant)]
    outside = [system.terms[dataset][term] for dataset in data.requested]
    estimate = mean_auroc_interval(system.terms[data.in_dist.name][term], outside)
    interval = f"{_DELONG}, covariance through the shared in-distribution images"
    return [_row(system, data, MEAN, "auroc", estimate, seed, variant=variant, interval=interval)]


def _correlations(system: _Scored, data: _Data, statistics: Mapping[str, Scores], seed: int) -> list[Measurement]:
    name = data.in_dist.name
    control = dataclasses.replace(system, role="control")
    reason = system.reason or ("scores were given without their images" if system.own_images else "")
    rows = []
    for term in [SCORE, *_term_names(system, data)]:
        for statistic, values in statistics.items():
            variant = statistic if term == SCORE else f"{term}:{statistic}"
            if not reason:
                try:
                    estimate = rank_correlation(system.terms[name][term], values)
                    row = _row(
                        control, data, name, "rank_correlation", estimate, seed, variant=variant, interval=_FISHER
                    )
                except UserError as error:  # a constant score has no ranking: that cell is empty, the table is not
                    row = _empty(control, data, name, "rank_correlation", str(error), seed, variant=variant)
            else:
                row = _empty(control, data, name, "rank_correlation", reason, seed, variant=variant)
            rows.append(row)
    return rows


def _row(
    system: _Scored,
    data: _Data,
    dataset: str,
    metric: str,
    estimate: Estimate,
    seed: int,
    *,
    variant: str = "",
    **details: Any,
) -> Measurement:
    protocol, provenance = _describe(system, data, dataset)
    involved = dict.fromkeys([data.in_dist.name, *(data.requested if dataset == MEAN else [dataset])])
    return Measurement(
        suite=OODSuite.name,
        system=system.name,
        dataset=dataset,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=sum(len(system.terms[name][SCORE]) for name in involved),
        seed=seed,
        role=system.role,
        variant=variant,
        size=system.size,
        protocol={**protocol, **details},
        provenance=provenance,
    )


def _empty(
    system: _Scored, data: _Data, dataset: str, metric: str, reason: str, seed: int, *, variant: str = ""
) -> Measurement:
    protocol, provenance = _describe(system, data, dataset)
    return Measurement(
        suite=OODSuite.name,
        system=system.name,
        dataset=dataset,
        metric=metric,
        value=None,
        seed=seed,
        role=system.role,
        variant=variant,
        size=system.size,
        protocol=protocol,
        provenance=provenance,
        note=reason,
    )


def _describe(system: _Scored, data: _Data, dataset: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Protocol and provenance of a row about ``dataset``: in-distribution side, outer side, the system's own."""
    inner, given = data.in_dist.name, system.own_images
    protocol: dict[str, Any] = {"in_distribution": inner, "n_in": _count(system, inner, data)}
    protocol |= {} if given else _origin("in", data.in_dist)
    outer = list(data.requested) if dataset == MEAN else [] if dataset == inner else [dataset]
    if outer:
        counts = [_count(system, name, data) for name in outer]
        removed = [None if given else data.removed.get(name) for name in outer]
        one = dataset != MEAN
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


def _count(system: _Scored, name: str, data: _Data) -> int | None:
    if name in system.terms:
        return len(system.terms[name][SCORE])
    return len(data.sets[name]) if name in data.sets and not system.own_images else None
