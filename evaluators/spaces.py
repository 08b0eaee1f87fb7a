"""A feature space of a run: its network, the reference in it, and the rows of every set of images that is measured in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluators import drawing
from evaluators.ahead import Ahead
from evaluators.drawing import Drawn
from evaluators.features import EXTRACTORS, load_extractor, metric_name
from evaluators.features.extractor import Extractor
from evaluators.features.references import bundled_reference
from evaluators.features.summary import FeatureSummary, summarise
from evaluators.inputs import FeatureInput, StatisticsInput, read_input
from evaluators.measurement import Measurement
from evaluators.quality import OF_FEATURES, Quality, Reference, measure_quality
from evaluators.suite import Bench, Option
from vaebm.data import DATASETS, DataUnavailable, ImageSet
from vaebm.errors import UserError

# Options of every suite that measures in feature spaces.
OPTIONS: Mapping[str, Option] = {
    "--features": {
        "type": str,
        "default": "cifar10net",
        "help": "feature spaces with commas: inception (FID, KID, IS), cifar10net, dinov2_vitb14, ..., module:callable",
    },
    "--reference": {
        "type": str,
        "default": "",
        "help": "what samples are compared with: SET:SPLIT, a folder, images, statistics or features (default: "
        "the data set's training split)",
    },
    "--resize": {
        "type": str,
        "default": "clean",
        "help": "of inception: clean, legacy_tensorflow (as TTUR's FID) or legacy_pytorch (as pytorch-fid)",
    },
    "--weights": {"type": str, "default": "", "help": "file of inception's weights, in place of the download"},
}


def load_extractors(bench: Bench) -> dict[str, Extractor | DataUnavailable]:
    """Feature spaces by name; the reason in place of one that cannot be had now, whose rows will say so."""
    options = bench.options
    names = list(dict.fromkeys(word for word in options.features.split(",") if word))
    if not names:
        raise UserError(f"--features: found nothing, needed one of {', '.join(EXTRACTORS)} or module:callable")
    for flag, default in (("--weights", ""), ("--resize", "clean")):
        if getattr(options, flag[2:]) != default and "inception" not in names:
            raise UserError(f"{flag}: only inception listens to it; add inception to --features")
    found: dict[str, Extractor | DataUnavailable] = {}
    for name in names:
        how: dict[str, Any] = {
            "device": options.device,
            "batch_size": options.batch_size,
            "download": not options.offline,
        }
        if name == "inception":
            how |= {"weights": Path(options.weights) if options.weights else None, "resize": options.resize}
        try:
            found[name] = load_extractor(name, **how)
        except DataUnavailable as reason:
            found[name] = reason
    return found


def available(found: Mapping[str, Extractor | DataUnavailable]) -> dict[str, Extractor]:
    """Leave out those that cannot be had."""
    return {name: extractor for name, extractor in found.items() if not isinstance(extractor, DataUnavailable)}


def held_out_images(bench: Bench, dataset: str, n: int) -> Drawn:
    """Test images in the place of samples: what a perfect model would get at this N."""
    try:
        images = bench.load_images(dataset, split="test", n=n)
    except (DataUnavailable, UserError) as reason:
        return Drawn("test images", reason=str(reason))
    about: dict[str, Any] = {"sampling": {"source": f"{dataset} test"}, "fingerprint": {"data": images.sha256}}
    return Drawn("test images", images.images, **about)


def begin(drawn: Drawn, chosen: Sequence["Space"], ahead: Ahead) -> None:
    """Have the features of these images extracted in every space, ahead of their being asked for."""
    for space in chosen:
        space.begin(drawn, ahead)


class Space:
    """One feature space: the reference in it, and the rows of everything that is measured in it."""

    def __init__(
        self,
        suite: str,
        bench: Bench,
        dataset: str,
        name: str,
        found: Extractor | DataUnavailable,
        metrics: Sequence[str],
    ) -> None:
        self.suite, self.bench, self.dataset, self.found = suite, bench, dataset, found
        self.reason = str(found) if isinstance(found, DataUnavailable) else ""
        self.name = name if self.reason else self.extractor.name  # other weights of a network have another name
        heads = () if isinstance(found, DataUnavailable) else found.heads
        lacking = {"is": "logits", "sfid": "spatial"}
        asked_for = bool(bench.options.metrics)
        self.metrics = [m for m in metrics if asked_for or not heads or lacking.get(m, "features") in heads]
        self.keep = any(metric in OF_FEATURES for metric in self.metrics)
        self.reference: Reference | None = None
        self.control: FeatureSummary | None = None  # of the held-out images, where the reference needed it
        self.begun: dict[int, Callable[[], FeatureSummary]] = {}  # by the identity of the images

    @property
    def extractor(self) -> Extractor:
        """The network, where :attr:`reason` is empty."""
        assert not isinstance(self.found, DataUnavailable)
        return self.found

    def begin(self, drawn: Drawn, ahead: Ahead) -> None:
        """Have the features of these images extracted, ahead of their being asked for."""
        if drawn.images is not None and not self.reason:
            label = self._label(drawn)
            self.begun[id(drawn.images)] = ahead.call(lambda: self._summarise(drawn.images, label, quiet=True))

    def prepare(self, held_out: Drawn) -> None:
        """Find the reference; a reason is kept where it cannot be had."""
        if self.reason:
            return
        spec = self.bench.options.reference or f"{self.dataset}:train"
        try:
            self.reference = self._reference(spec)
        except DataUnavailable as reason:
            self.reason = f"no reference: {reason}"
            return
        if "nearest_ratio" in self.metrics and not held_out.reason:
            self.control = self._summary(held_out)
            self.reference = replace(self.reference, held_out=self.control.features, factors={})

    def _reference(self, spec: str) -> Reference:
        name, _, split = spec.rpartition(":")
        if name in DATASETS:
            bundled = bundled_reference(self.extractor, name, split) if self.bench.options.reference == "" else None
            return Reference(f"{name} {split}", bundled or self._of_images(self.bench.load_images(name, split=split)))
        if spec in DATASETS:
            raise UserError(f"--reference {spec}: which split? needed {spec}:train or {spec}:test")
        given = read_input("reference", spec, flag="--reference")
        label = Path(spec).name
        if isinstance(given, StatisticsInput):
            self._fits(given.mu.shape[0], spec)
            return Reference(label, FeatureSummary.from_statistics(given.mu, given.sigma, given.n))
        if isinstance(given, FeatureInput):
            self._fits(given.features.shape[1], spec)
            return Reference(label, FeatureSummary.from_features(given.features))
        return Reference(label, self._summarise(given.images, f"reference {label}"))

    def _of_images(self, images: ImageSet) -> FeatureSummary:
        return self._summarise(images.images, f"reference {images.name}")

    def _fits(self, dim: int, what: str) -> None:
        if self.extractor.dim not in (None, dim):
            raise UserError(
                f"{what}: found {dim} features, {self.name} has {self.extractor.dim}; choose their feature space with --features"
            )

    def _summary(self, drawn: Drawn) -> FeatureSummary:
        if isinstance(drawn.given, StatisticsInput):
            self._fits(drawn.given.mu.shape[0], drawn.name)
            return FeatureSummary.from_statistics(drawn.given.mu, drawn.given.sigma, drawn.given.n)
        if isinstance(drawn.given, FeatureInput):
            self._fits(drawn.given.features.shape[1], drawn.name)
            return FeatureSummary.from_features(drawn.given.features)
        if begun := self.begun.pop(id(drawn.images), None):
            return begun()
        return self._summarise(drawn.images, self._label(drawn))

    def _label(self, drawn: Drawn) -> str:
        steps = "" if drawn.steps is None else f", {drawn.steps} steps"
        return f"{drawn.name}{steps}: {self.name}"

    def _summarise(self, images: Any, label: str, *, quiet: bool = False) -> FeatureSummary:
        hidden = quiet or not self.bench.progress
        with tqdm(total=len(images), desc=label, unit="img", disable=hidden, leave=False) as bar:

            def show(done: int, total: int) -> None:
                bar.update(done - bar.n)

            return summarise(
                images,
                self.extractor,
                keep_features=self.keep,
                spatial="sfid" in self.metrics and "spatial" in self.extractor.heads,
                cache=self.bench.folder("features"),
                progress=show,
                name=label,
            )

    def rows(self, drawn: Drawn, role: str = "headline") -> list[Measurement]:
        """Return the rows of one set of images."""
        reason = drawn.reason or self.reason
        if reason or self.reference is None:
            return self.empty(drawn, reason, role)
        summary = self.control if role == "control" and self.control else self._summary(drawn)
        shape = self.reference.summary.image_shape
        if summary.image_shape and shape and summary.image_shape != shape:
            sizes = ["x".join(map(str, found)) for found in (summary.image_shape, shape)]
            drawn = replace(drawn, notes=(*drawn.notes, f"sizes: samples are {sizes[0]}, the reference is {sizes[1]}"))
        return [self._row(drawn, quality, role) for quality in measure_quality(summary, self.reference, self.metrics)]

    def empty(self, drawn: Drawn, reason: str, role: str = "headline") -> list[Measurement]:
        """Return rows that say why they are empty."""
        return [self._row(drawn, Quality(metric, None, 0, {}, reason), role) for metric in self.metrics]

    def _row(self, drawn: Drawn, quality: Quality, role: str) -> Measurement:
        described = not isinstance(self.found, DataUnavailable)
        protocol: dict[str, Any] = dict(self.extractor.protocol) if described else {"features": self.name}
        protocol |= {**quality.protocol, "sampling": drawn.sampling}
        if drawn.steps is not None:
            protocol |= {"steps": drawn.steps}
        if drawn.steps is not None or drawn.seconds:
            protocol |= {"seconds_per_image": drawn.seconds}
        return drawing.row(
            self.suite,
            drawn,
            self.dataset,
            metric_name(quality.metric, self.name),
            quality.estimate,
            n=quality.n,
            seed=self.bench.options.seed,
            role=role,
            protocol=protocol,
            note=quality.reason or "; ".join(drawn.notes),
            **({"features": dict(self.extractor.fingerprint or {})} if described else {}),
            **({"reference": self.reference.summary.sha256} if self.reference else {}),
        )
