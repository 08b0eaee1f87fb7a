"""The suite: its options, and a run from images to rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from numpy.typing import ArrayLike

from evaluators.measurement import Measurement
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.metrics.intervals import REPLICATES, check_replicates
from evaluators.ood.data import SCORES_FILE, check_names, check_shapes, prepare
from evaluators.ood.extra import asked_for_images, check_scores, extra_scored
from evaluators.ood.rows import correlations, diagnostics, headline
from evaluators.ood.scores import SCORES, parse_scores
from evaluators.ood.scores.readings import ExtraScore, Readings
from evaluators.ood.scoring import SCORE, Scored, control_scored, system_scored, user_scored
from evaluators.ood.sets import GROUPS, chosen
from evaluators.protocols import Scores
from evaluators.score_files import load_scores, save_scores
from evaluators.score_store import ScoreStore
from evaluators.subjects import SystemUnderTest
from evaluators.suite import NAMED, Bench, Option
from vaebm import parallel
from vaebm.cli import named
from vaebm.data import DATASETS, DataUnavailable, ImageSet
from vaebm.errors import UserError

NUM_IMAGES = 2000  # per set, unless told otherwise
TRAINING_IMAGES = 1000
COEFFICIENTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


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


class OODSuite:
    """Scores systems against outer data sets.

    Args:
        replicates: bootstrap resamples behind the intervals of AUPR, FPR95 and the standard deviations.
        coefficients: weights of the term ``neg_energy``, where a :class:`TermScorer` has it last, at which the AUROC is shown; 1 is the
            headline.
    """

    name: ClassVar[str] = "ood"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)
    options: ClassVar[Mapping[str, Option]] = {
        "--scores": NAMED
        | {"help": "NAME=FILE.npz of your scores: one array per data set, higher = more in-distribution"},
        "--ood": {
            "type": str,
            "default": "usual",  # the columns of the paper's Table 6 for CIFAR-10
            "help": f"sets with commas: a name, NAME=PATH (folder, zip, .npy, .npz) or a group: {', '.join(GROUPS)}",
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
        "--score": {
            "type": str,
            "default": "",
            "metavar": "NAME[:PARAMETER],...",
            "help": f"further scores of every system, beside its own: {', '.join(SCORES)}; as in typicality:25 (images per "
            "batch), likelihood_ratio:SYSTEM, input_complexity:webp, likelihood_regret:50 (steps)",
        },
        "--reference-images": {
            "type": int,
            "default": TRAINING_IMAGES,
            "help": "training images whose mean score typicality is measured from",
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
        extra = parse_scores(options.score)
        scores = {name: load_scores(Path(path)) for name, path in named("--scores", options.scores).items()}
        systems = bench.load_systems(dataset)
        size = next((system.image_shape[:2] for system in systems.values() if system.system is not None), None)
        load = partial(bench.load_images, n=n, size=size, interp=options.interp, seed=options.seed)
        in_dist = load(dataset)
        outer = _outer_sets(load, chosen(options.ood, in_dist.name), in_dist)
        bounds = ["importance_samples" in getattr(system.system, "options", ()) for system in systems.values()]
        if options.importance_samples != 1 and not any(bounds):
            raise UserError(
                "--importance-samples: no chosen system has a bound; leave it out or add vaebm to --systems"
            )
        if options.interp != "neighbours" and "cifar10_interp" not in outer:
            raise UserError("--interp: no interpolated set was chosen; leave it out, or add cifar10_interp to --ood")
        reference = _training_images(load, dataset, options.reference_images, extra)
        store = ScoreStore(bench.folder("scores"))
        out = bench.out if parallel.rank() == 0 else None
        run = {"seed": options.seed, "progress": bench.progress, "out": out, "scores": scores}
        return self.run(systems, in_dist, outer, store=store, extra=extra, reference=reference, **run)

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
        extra: Sequence[ExtraScore] = (),
        reference: ImageSet | DataUnavailable | None = None,
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
            extra: further scores of every system, as ``evaluators.ood.scores.parse_scores`` makes them.
            reference: images of the training split, or the exception that says why there are none; for those further
                scores that need them.

        Returns:
            Rows with suite ``"ood"``. ``n`` counts the images of both sides; ``dataset`` is the outer set, the
            in-distribution set where only that matters, or a mean of outer sets (two or more; empty unless all are
            there): ``"mean"`` of all, ``"mean_near"`` and ``"mean_far"`` of those of their kind (``evaluators.ood.sets``).

            ==========  ====================  =============================  ==========================================
            role        metric                variant                        what
            ==========  ====================  =============================  ==========================================
            headline    auroc, aupr, fpr95                                   the score; auroc also for the means
            diagnostic  auroc                 ``<term>``                     one term alone; also for the means
            diagnostic  auroc_at_coefficient  ``c=<c>``                      the other terms + c x neg_energy, the last one
            diagnostic  sd_<term>                                            spread of a term, in its units
            diagnostic  auroc, aupr, fpr95    ``score:<score>``              a further score; auroc also for the means
            control     rank_correlation      ``[<term>:]<statistic>``       of score or term with a statistic
            control     auroc, aupr, fpr95                                   an image statistic as its own system
            ==========  ====================  =============================  ==========================================

            Rows of terms exist for a :class:`TermScorer`; those of single terms if it has two or more.
            A further score takes the whole score, never a term; where it is about batches, ``n`` counts these.

        Raises:
            UserError: images of a shape a system does not take, too few images, clashing or unusable names, NaN or
                missing scores, an unwritable folder, a further score that no system has.
        """
        given = dict(scores or {})
        data = prepare(in_dist, out_dists)
        check_names(systems, given, data)
        check_scores(extra, systems)
        shown = [system for system in systems.values() if asked_for_images(extra, system)]
        check_shapes(shown, [*data.sets.values(), *([reference] if isinstance(reference, ImageSet) else [])])
        own = [user_scored(name, arrays, data) for name, arrays in given.items()]  # cheap, so bad input is found first
        if out is not None:
            _make_folder(out)

        store = store or ScoreStore(None)
        scored = [system_scored(system, data, store, progress) for system in systems.values()] + own
        controls = [control_scored(name, data, store, progress) for name in IMAGE_STATISTICS]
        raw = {system.name: system.terms for system in [*scored, *controls] if system.terms}
        by_name = {system.name: system for system in scored}
        readings = Readings(systems, by_name, data, reference, store, progress)
        extras = {system.name: extra_scored(extra, system, readings) for system in scored}
        if out is not None:
            try:
                save_scores(out / SCORES_FILE, _with_extra(raw, extras))
            except OSError as error:
                raise _unwritable(out, error) from None

        statistics = {control.name: control.terms[in_dist.name][SCORE] for control in controls}
        rows: list[Measurement] = []
        for system in scored:
            rows += headline(system, data, seed, self.replicates)
            rows += diagnostics(system, data, seed, self.replicates, self.coefficients)
            rows += correlations(system, data, statistics, seed)
            for further in extras[system.name]:
                rows += headline(further, data, seed, self.replicates)
        for control in controls:
            rows += headline(control, data, seed, self.replicates)
        return OODResult(rows, raw, in_dist.name, data.requested)


def _outer_sets(
    load: Callable[..., ImageSet], specs: Sequence[str], in_dist: ImageSet
) -> dict[str, ImageSet | DataUnavailable]:
    """Load the outer sets in the shape of the in-distribution images; the colour of a user's own is left alone."""
    *size, channels = in_dist.images.shape[1:]
    outer: dict[str, ImageSet | DataUnavailable] = {}
    for spec in specs:
        found: ImageSet | DataUnavailable
        try:
            found = load(spec, size=tuple(size), channels=channels if spec in DATASETS else None)
            name = found.name
        except DataUnavailable as reason:  # its cells stay empty and say so; the rest of the table comes out
            found, name = reason, spec
        if name in outer:
            raise UserError(f"--ood: two sets are called {name!r}; needed NAME=PATH with a name of its own")
        outer[name] = found
    return outer


def _training_images(
    load: Callable[..., ImageSet], dataset: str, n: int, scores: Sequence[ExtraScore]
) -> ImageSet | DataUnavailable | None:
    """The images that some of the scores are measured from; None if none of them is."""
    if not any(score.needs_training_images for score in scores):
        if n != TRAINING_IMAGES:
            raise UserError("--reference-images: no chosen score looks at training images; add --score typicality")
        return None
    if n < 1:
        raise UserError(f"--reference-images {n}: needed at least 1")
    if dataset not in DATASETS:
        return DataUnavailable(f"{dataset} is your own set, which has no training split")
    try:
        return load(dataset, split="train", n=n)
    except DataUnavailable as reason:
        return reason


def _with_extra(
    scores: Mapping[str, Mapping[str, Mapping[str, Scores]]], extras: Mapping[str, Sequence[Scored]]
) -> dict[str, dict[str, dict[str, Scores]]]:
    """What the file of scores holds: each system's own and its terms, then its further scores by their variants."""
    found = {name: {dataset: dict(terms) for dataset, terms in sets.items()} for name, sets in scores.items()}
    for name, made in extras.items():
        for extra in made:
            for dataset, terms in extra.terms.items():
                found.setdefault(name, {}).setdefault(dataset, {})[extra.variant] = terms[SCORE]
    return found


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {out}: {error.strerror or error}; choose a writable folder with --out")
