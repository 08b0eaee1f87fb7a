"""Samples of a model, drawn once and then read: the first N images of (weights, sampler, seed), for any N.

    store = SampleStore(Path("cache/samples"))
    found = store.images({"weights": "9f86d0...", "steps": 16, "seed": 0}, 50_000, sampler.sample, progress=True)

Image i depends on its own number alone, so images 0 to 999 are the beginning of 0 to 49,999: a run with more images draws the missing
ones only, and one that was killed goes on (``evaluators.array_store``).
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evaluators.array_store import ArrayStore
from evaluators.protocols import Images
from vaebm.data.image_set import images_sha256
from vaebm.errors import UserError

CHUNK = 128  # images between two writes


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Samples, and what they are and cost.

    Attributes:
        images: uint8 (N, H, W, C), a read-only memory map when there is a file.
        sha256: of shape and pixels of exactly these N images (as ``ImageSet.sha256``).
        seconds: it took to draw them, whenever that was, in whole batches.
        path: the .npy whose first N rows they are; None when nothing is kept.
    """

    images: Images
    sha256: str
    seconds: float
    path: Path | None


class SampleStore:
    """Samples by content, on disk or (``folder=None``) not kept at all.

    Args:
        folder: where the files live; created when missing.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._arrays = ArrayStore(folder)

    def available(self, key: Mapping[str, Any], n: int, *, first: int = 0) -> int:
        """How many of these images are there already: what a forecast needs to know. Nothing is read or drawn."""
        return self._arrays.available(_key(key, first), n)

    def images(
        self,
        key: Mapping[str, Any],
        n: int,
        draw: Callable[[Sequence[int]], Images],
        *,
        first: int = 0,
        chunk: int = CHUNK,
        unit: int = 1,
        label: str = "samples",
        progress: bool = False,
    ) -> StoredImages:
        """Return images ``first`` to ``first + n - 1``, from the store where they are there, else drawn.

        Args:
            key: JSON-able; everything that decides image i besides i: weights, sampling recipe, seed of the run, code version.
            draw: numbers of images -> uint8 (len, H, W, C), C = 1 or 3; image i must not depend on the others. It gets ``chunk``
                numbers at a time (fewer at the end) and may cut them into batches as it likes.
            first: number of the first image.
            chunk, unit: images between two writes, and images that ``draw`` makes at a time (see ``ArrayStore.compute``).
            label: what is drawn, for messages: ``"samples of vaebm"``.
            progress: show images done, images/s and the time left on stderr.

        Raises:
            UserError: the folder cannot be written, or what ``draw`` raises; complete chunks are kept.
            UserError: ``draw``, which may be another package's, gave other than n images of one size, in uint8.
            ValueError: n or chunk below 1.
            TypeError: the key is not JSON-able.
        """
        drawn = 0

        def timed(start: int, stop: int) -> dict[str, np.ndarray]:
            nonlocal drawn
            began = time.perf_counter()
            images = np.asarray(draw(range(first + start, first + stop)))
            # A last batch is filled up and costs as much as a whole one: an image's seconds are those of an image in a whole batch.
            seconds = (time.perf_counter() - began) / (-(-(stop - start) // unit) * unit)
            if (
                images.dtype != np.uint8
                or images.ndim != 4
                or len(images) != stop - start
                or images.shape[3] not in (1, 3)
            ):
                raise UserError(
                    f"{label}: found {images.dtype} {images.shape} for {stop - start} images, "
                    f"needed uint8 ({stop - start}, H, W, 1 or 3)"
                )
            drawn += len(images)
            # A row of its own per image, so that the cost of any first N of them is known.
            return {"images": images, "seconds": np.full(len(images), seconds)}

        with tqdm(
            total=n, desc=label, unit=" images", disable=not progress, file=sys.stderr, smoothing=0.1, leave=False
        ) as bar:

            def show(done: int, total: int) -> None:
                if drawn == 0:  # found, not drawn: it tells nothing of the speed
                    bar.initial = bar.n = bar.last_print_n = done
                    bar.refresh()
                else:
                    bar.update(done - bar.n)

            how: dict[str, Any] = {"chunk": chunk, "unit": unit, "label": label, "progress": show}
            found = self._arrays.compute(_key(key, first), n, timed, **how)
        images = found["images"]
        path = Path(images.filename) if isinstance(images, np.memmap) and images.filename else None
        return StoredImages(images, images_sha256(images), float(found["seconds"].sum()), path)


def _key(key: Mapping[str, Any], first: int) -> dict[str, Any]:
    return {"samples": dict(key), "first": first}
