"""A cache of per-image scores, found by content and never by name alone.

    store = ScoreStore(Path("cache/scores"))
    terms = store.scores({"system": {"weights": "9f86d0..."}, "data": "60303a..."}, images, score_fn)

How they are kept is in ``evaluators.array_store``; here is what makes an array a score.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.array_store import CHUNK, ArrayStore, Progress
from evaluators.protocols import Images, Scores
from vaebm.atomic import write_atomically
from vaebm.errors import UserError

ScoreFunction = Callable[[Images], Mapping[str, Any]]


class ScoreStore:
    """Scores by content, on disk or (``folder=None``) not kept at all.

    Args:
        folder: where the files live; created when missing.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._arrays = ArrayStore(folder)

    def scores(
        self,
        key: Mapping[str, Any],
        images: Images,
        score_fn: ScoreFunction,
        *,
        label: str = "scores",
        chunk: int = CHUNK,
        unit: int = 1,
        progress: Progress | None = None,
    ) -> dict[str, Scores]:
        """Return named scores of ``images``, from the store where they are there, else from ``score_fn``.

        Args:
            key: JSON-able; everything that decides the numbers: weights, recipe, code version, hash of the images.
            images: uint8 (N, H, W, C).
            score_fn: uint8 (n, H, W, C) -> {name: (n,)}, the same names in the same order each time. An image's score
                must not depend on the others; it gets ``chunk`` images at a time (fewer at the end) and may cut them
                into batches as it likes.
            label: what is being scored, for messages: ``"vaebm on svhn"``.
            chunk, unit: images between two writes, and images that ``score_fn`` takes at a time (see ``ArrayStore.compute``).
            progress: called with (images done, N) after each chunk that was found or scored.

        Returns:
            name -> float64 (N,), bit for bit the same whether computed, resumed or read.

        Raises:
            UserError: ``score_fn`` gave NaN or infinity (nothing bad is kept), or the folder cannot be written.
            UserError: ``score_fn``, which may be another package's, gave other names or shapes than it should.
            TypeError: the key is not JSON-able.
        """
        if len(images) == 0:
            raise UserError(f"{label}: found no images to score")

        def scored(start: int, stop: int) -> dict[str, Scores]:
            return _checked(score_fn(images[start:stop]), stop - start, label, start)

        how: dict[str, Any] = {"chunk": chunk, "unit": unit, "label": label, "progress": progress}
        found = self._arrays.compute({"scores": dict(key)}, len(images), scored, **how)
        return {name: np.array(values) for name, values in found.items()}


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed ``.npz`` atomically: readers see the old file or the whole new one. Raises: OSError."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # numpy would add an ending of its own to a name
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def _checked(terms: Mapping[str, Any], n: int, label: str, start: int) -> dict[str, Scores]:
    if not terms:
        raise UserError(f"{label}: the scorer returned no scores")
    checked = {}
    for name, values in terms.items():
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (n,):
            raise UserError(f"{label}: {name} has shape {array.shape} for {n} images, needed ({n},)")
        bad = ~np.isfinite(array)
        if bad.any():
            first = start + int(np.argmax(bad))
            raise UserError(
                f"{label}: {name} is NaN or infinite for {int(bad.sum())} of images {start} to {start + n - 1} "
                f"(the first: image {first}); a broken checkpoint? Nothing of these images was kept"
            )
        checked[name] = array
    return checked
