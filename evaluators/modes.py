"""The mode-coverage suite: of the modes that the data has, how many does a model draw, and how evenly?

StackedMNIST (Srivastava et al., "VEEGAN", NIPS 2017; protocol of Lin et al., "PacGAN", NeurIPS 2018): three MNIST digits as colour
channels make 1,000 modes. A classifier names the digit of every channel; the suite counts the distinct triples among N samples and takes
KL(share of the triples || uniform) in nats. Even a perfect sampler has KL > 0 at finite N: that floor stands in the table.

25 Gaussians: points in the plane, where densities are exact (``evaluators.gaussians25``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from evaluators import drawing, gaussians25
from evaluators.array_store import ArrayStore, source_hash
from evaluators.drawing import Drawn
from evaluators.gaussians25 import DensityMap
from evaluators.measurement import Measurement
from evaluators.metrics.intervals import Estimate
from evaluators.metrics.modes import expected_kl, expected_modes, mode_coverage
from evaluators.protocols import Images
from evaluators.suite import Bench, Option
from vaebm.data import DataUnavailable
from vaebm.data.image_set import images_sha256
from vaebm.errors import UserError, did_you_mean

DATASETS = ("stacked_mnist", "gaussians25")
NUM_IMAGES = 26_000  # as PacGAN and the papers after it
MODES = 1000
SHOWN = 100  # samples in the grid
_BATCH = 500


@dataclass(frozen=True)
class ModesResult:
    """What a run found.

    Attributes:
        rows: see :meth:`ModesSuite.measure`.
        samples: system -> its first images.
        counts: system -> how often each of the 1,000 triples was drawn.
        densities: name -> its density in the plane and points drawn from it.
    """

    rows: list[Measurement]
    samples: dict[str, Images] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    densities: dict[str, DensityMap] = field(default_factory=dict)


class ModesSuite:
    """Counts modes. It has no settings beside its options."""

    name: ClassVar[str] = "modes"
    needs: ClassVar[tuple[str, ...]] = ("sampler",)
    options: ClassVar[Mapping[str, Option]] = drawing.OPTIONS

    def measure(self, bench: Bench) -> ModesResult:
        """Measure StackedMNIST, the 25 Gaussians, or both (the default).

        Returns:
            Rows with suite ``"modes"``; ``n`` is the number of samples.

            ==============  =========================  ===========================================  =====================
            dataset         metric                     what                                         control systems
            ==============  =========================  ===========================================  =====================
            stacked_mnist   modes                      distinct triples, of 1,000                   perfect sampler,
            stacked_mnist   kl                         KL(samples || uniform), nats                 test images
            stacked_mnist   classifier_confidence      mean probability of the named digits
            gaussians25     log_likelihood             of test points, nats, exact                  true density
            gaussians25     modes, high_quality        of 25; share of samples near a mode
            ==============  =========================  ===========================================  =====================

        Raises:
            UserError: an unknown data set, or unusable samples.
        """
        chosen = bench.options.dataset
        if chosen and chosen not in DATASETS:
            raise UserError(f"--dataset {chosen}: --suite modes knows no modes of it.{did_you_mean(chosen, DATASETS)}")
        result = ModesResult([])
        if chosen != "gaussians25":
            _stacked_mnist(bench, result)
        if chosen != "stacked_mnist":
            _gaussians25(bench, result)
        return result

    def forecast(self, bench: Bench) -> str:
        """Return what drawing the samples would cost."""
        return drawing.forecast(bench, "stacked_mnist", bench.options.num_images or NUM_IMAGES, {})


# --- StackedMNIST ----------------------------------------------------------------------------------------------------


def _stacked_mnist(bench: Bench, result: ModesResult) -> None:
    n, seed = bench.options.num_images or NUM_IMAGES, bench.options.seed
    drawn = drawing.draw(bench, "stacked_mnist", n, {})
    classifier = _Digits(bench)
    for each in drawn:
        if each.reason or each.images is None:
            reason = each.reason or "modes are counted in images, not in statistics or features"
            result.rows.extend(_row(each, metric, None, 0, seed, {}, reason) for metric in ("modes", "kl"))
            continue
        labels, confidence = classifier.read(each.images, f"{each.name}: digits", each.name)
        result.rows.extend(_coverage_rows(each, labels, confidence, classifier.protocol, seed))
        if each.steps is None:
            result.samples[each.name] = np.asarray(each.images[:SHOWN])
            result.counts[each.name] = np.bincount(labels, minlength=MODES)
    result.rows.extend(_perfect(n, seed, classifier.protocol))
    try:
        real = bench.load_images("stacked_mnist", n=n, split="test")
    except DataUnavailable as reason:
        test = Drawn("test images", reason=str(reason))
        result.rows.extend(_row(test, m, None, 0, seed, {}, str(reason), "control") for m in ("modes", "kl"))
        return
    test = Drawn("test images", real.images, sampling={"source": real.source}, fingerprint={"data": real.sha256})
    labels, confidence = classifier.read(real.images, "test images: digits", "test images")
    result.rows.extend(_coverage_rows(test, labels, confidence, classifier.protocol, seed, "control"))
    if real.labels is not None:
        agreement = float((labels == real.labels).mean())
        estimate = Estimate(agreement, *_binomial(agreement, len(labels)))
        about = {**classifier.protocol, **test.sampling}
        result.rows.append(_row(test, "classifier_agreement", estimate, len(labels), seed, about, role="control"))


class _Digits:
    """The bundled MNIST classifier on the channels of stacked digits."""

    def __init__(self, bench: Bench) -> None:
        from evaluators.features import load_extractor

        self.bench = bench
        self.extractor = load_extractor("mnistnet", device=bench.options.device, batch_size=_BATCH)
        self.protocol = {"classifier": "mnistnet", "weights": self.extractor.protocol["weights"]}

    def read(self, images: Images, label: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return triples 100 d0 + 10 d1 + d2 (N,) and the probability of the named digits, mean of the three (N,)."""
        n, (height, width, channels) = len(images), images.shape[1:]
        if channels != 3 or (height, width) not in ((28, 28), (32, 32)):
            raise UserError(
                f"--samples {name}: found {height}x{width} images of {channels} channels, needed StackedMNIST: 28x28 or "
                "32x32 (28x28 in a frame of 2 pixels), 3 channels"
            )
        frame = (height - 28) // 2

        def named(start: int, stop: int) -> dict[str, NDArray[Any]]:
            part = np.asarray(images[start:stop])[:, frame : frame + 28, frame : frame + 28]
            digits = np.ascontiguousarray(part.transpose(0, 3, 1, 2)).reshape(-1, 28, 28, 1)
            logits = self.extractor.extract(digits)["logits"].astype(np.float64).reshape(-1, 3, 10)
            shifted = np.exp(logits - logits.max(2, keepdims=True))
            return {
                "labels": logits.argmax(2) @ np.array([100, 10, 1]),
                "confidence": (1 / shifted.sum(2)).mean(1),
            }

        key = {"digits of": images_sha256(np.asarray(images)), "classifier": dict(self.extractor.fingerprint or {})}
        key["code"] = source_hash([Path(__file__)])
        with tqdm(total=n, desc=label, unit="img", disable=not self.bench.progress, leave=False) as bar:
            show = lambda done, total: bar.update(done - bar.n)
            how: dict[str, Any] = {"chunk": _BATCH, "unit": _BATCH, "label": label, "progress": show}
            found = ArrayStore(self.bench.folder("digits")).compute(key, n, named, **how)
        return np.array(found["labels"], np.int64), np.array(found["confidence"], np.float64)


def _coverage_rows(
    drawn: Drawn,
    labels: NDArray[np.int64],
    confidence: NDArray[np.float64],
    protocol: Mapping[str, Any],
    seed: int,
    role: str = "headline",
) -> list[Measurement]:
    n = len(labels)
    coverage = mode_coverage(labels, MODES)
    error = 1.959963984540054 * float(confidence.std(ddof=1)) / np.sqrt(n)
    mean = float(confidence.mean())
    sure = Estimate(mean, max(0.0, mean - error), min(1.0, mean + error))
    about = {**protocol, "sampling": drawn.sampling, "kl_floor": coverage.kl_floor}
    if drawn.steps is not None:
        about |= {"steps": drawn.steps}
    if drawn.steps is not None or drawn.seconds:
        about |= {"seconds_per_image": drawn.seconds}
    rows = [
        _row(drawn, "modes", coverage.modes, n, seed, about, role=role),
        _row(drawn, "kl", coverage.kl, n, seed, about, role=role),
    ]
    sure_role = "diagnostic" if role == "headline" else role
    return [*rows, _row(drawn, "classifier_confidence", sure, n, seed, about, role=sure_role)]


def _perfect(n: int, seed: int, protocol: Mapping[str, Any]) -> list[Measurement]:
    """What a sampler that draws all triples alike is expected to get at this N."""
    perfect = Drawn("perfect sampler")
    values = {"modes": expected_modes(n, MODES), "kl": expected_kl(n, MODES)}
    return [
        _row(
            perfect, metric, Estimate(v, math.nan, math.nan), n, seed, {**protocol, "expected": "exact"}, role="control"
        )
        for metric, v in values.items()
    ]


def _row(
    drawn: Drawn,
    metric: str,
    estimate: Estimate | None,
    n: int,
    seed: int,
    protocol: Mapping[str, Any],
    reason: str = "",
    role: str = "headline",
) -> Measurement:
    about = dict(protocol) or {"sampling": drawn.sampling}
    return drawing.row(
        ModesSuite.name,
        drawn,
        "stacked_mnist",
        metric,
        estimate,
        n=n,
        seed=seed,
        role=role,
        protocol=about,
        note=reason,
    )


def _binomial(share: float, n: int) -> tuple[float, float]:
    spread = 1.959963984540054 * float(np.sqrt(share * (1 - share) / n))
    return max(0.0, share - spread), min(1.0, share + spread)


# --- 25 Gaussians ----------------------------------------------------------------------------------------------------


def _gaussians25(bench: Bench, result: ModesResult) -> None:
    tested, store = bench.load_systems("gaussians25"), ArrayStore(bench.folder("densities"))
    systems: dict[str, Any] = {
        name: gaussians25.KeptModel(each.system, each.fingerprint, store)  # type: ignore[arg-type]
        for name, each in tested.items()
        if each.system is not None
    }
    rows, densities = gaussians25.measure(systems, seed=bench.options.seed)
    of = lambda row: {"fingerprint": dict(tested[row.system].fingerprint)} if row.system in tested else {}
    rows = [replace(row, provenance=of(row)) for row in rows]
    result.rows.extend(rows)
    result.densities.update(densities)
