"""Memorisation in pixel space: how near samples are to training images as they are, without any network.

Rows ``authenticity_pixels`` and ``nearest_ratio_pixels``, as in feature space (``evaluators.metrics.neighbours``), against the first
training images; and each sample's nearest ones to look at. Copies are found here even where a network's features blur them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators import drawing
from evaluators.array_store import ArrayStore, source_hash
from evaluators.drawing import Drawn
from evaluators.measurement import Measurement
from evaluators.metrics import neighbours
from evaluators.metrics.intervals import Estimate
from evaluators.metrics.neighbours import authenticity, nearest, nearest_ratio
from evaluators.protocols import Images
from evaluators.suite import Bench
from vaebm import parallel
from vaebm.data import DataUnavailable, ImageSet
from vaebm.data.image_set import images_sha256
from vaebm.errors import UserError

METRICS = ("authenticity", "nearest_ratio")
MOST = 10_000  # images of either side: the numbers depend on both


def pixel_rows(
    bench: Bench, dataset: str, drawn: Sequence[Drawn], held_out: Drawn, metrics: Sequence[str]
) -> tuple[list[Measurement], Images | None]:
    """Measure every set of images that is no rung of a curve; return the rows and the training images, or None and why in the rows.

    Args:
        metrics: of :data:`METRICS`; others are left alone.
    """
    chosen = [metric for metric in METRICS if metric in metrics]
    reason, train = "", None
    if not chosen:
        return [], None
    try:
        train = bench.load_images(dataset, split="train", n=MOST)
    except (DataUnavailable, UserError) as error:
        reason = f"no training images: {error}"

    def look(job: tuple[Drawn, str]) -> tuple[Estimate | None, str]:
        each, metric = job
        if reason or each.reason or train is None:
            return None, reason or each.reason
        try:
            return _kept(bench, metric, train, each, held_out), ""
        except UserError as error:
            return None, str(error)

    looked_at = (
        each for each in [*drawn, held_out] if each.steps is None and (each.given is None or each.images is not None)
    )
    jobs = [(each, metric) for each in looked_at for metric in chosen]
    found = zip(jobs, parallel.in_turns(jobs, look), strict=True)
    rows = [_row(bench, dataset, each, metric, *result, train) for (each, metric), result in found]
    return rows, None if train is None else train.images


def nearest_images(samples: Images, train: Images, k: int) -> Images:
    """Return each sample's ``k`` nearest training images in pixels, nearest first, (n, k, H, W, C)."""
    return train[nearest(_flat(samples), _flat(train), k=k)[1]]


def _kept(bench: Bench, metric: str, train: ImageSet, each: Drawn, held_out: Drawn) -> Estimate:
    """Search the training images once for each set of images: what was found is kept."""
    files = [Path(__file__), *Path(neighbours.__file__).parent.glob("*.py")]
    key: dict[str, Any] = {"pixels": metric, "train": train.sha256, "code": source_hash(files)}
    for name, images in (("images", each.images), ("held_out", held_out.images)):
        key[name] = None if images is None else images_sha256(np.asarray(images[:MOST]))

    def search(start: int, stop: int) -> dict[str, Any]:
        found = _measure(metric, train.images, each, held_out)
        return {"estimate": np.array([[found.value, found.low, found.high]])}

    label = f"{metric} of {each.name} in pixels"
    found = ArrayStore(bench.folder("pixels")).compute(key, 1, search, label=label, alone=True)
    return Estimate(*map(float, found["estimate"][0]))


def _measure(metric: str, train: Images, each: Drawn, held_out: Drawn) -> Estimate:
    if each.images.shape[1:] != train.shape[1:]:
        sizes = ["x".join(map(str, images.shape[1:])) for images in (each.images, train)]
        raise UserError(f"found samples of {sizes[0]} and training images of {sizes[1]}, needed one size")
    if metric == "authenticity":
        return authenticity(_flat(train), _flat(each.images))
    if held_out.reason:
        raise UserError(f"no held-out images: {held_out.reason}")
    return nearest_ratio(_flat(train), _flat(held_out.images), _flat(each.images))


def _flat(images: Any) -> NDArray[np.float32]:
    """Pixels in [0, 1], (n, H W C), of the first images."""
    part = np.asarray(images[:MOST])
    return part.reshape(len(part), -1).astype(np.float32) / np.float32(255)


def _row(
    bench: Bench,
    dataset: str,
    drawn: Drawn,
    metric: str,
    estimate: Estimate | None,
    reason: str,
    train: ImageSet | None,
) -> Measurement:
    n_reference = 0 if train is None else len(train.images)
    protocol = {"features": "pixels", "reference": f"{dataset} train", "n_reference": n_reference}
    return drawing.row(
        "generation",
        drawn,
        dataset,
        f"{metric}_pixels",
        estimate,
        n=0 if drawn.images is None else min(len(drawn.images), MOST),
        seed=bench.options.seed,
        role="control" if drawn.name == "test images" else "headline",
        protocol={**protocol, "interval": "95 %", "sampling": drawn.sampling},
        note=reason or "; ".join(drawn.notes),
        **({} if train is None else {"reference": train.sha256}),
    )
