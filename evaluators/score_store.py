"""A cache of per-image scores, found by content and never by name alone.

    store = ScoreStore(Path("cache/scores"))
    terms = store.scores({"system": {"weights": "9f86d0..."}, "data": "60303a..."}, images, score_fn)

The key holds everything that decides the numbers; the file name is a hash of the key. A set is scored in chunks of
fixed size, each written as soon as it is done, so that a run that was killed goes on where it stopped.
"""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.protocols import Images, Scores
from vaebm.errors import UserError

CHUNK = 200
_FORMAT = 1  # of the files; part of the key, so that files of an older format are simply not found
_TERM = "term:"

ScoreFunction = Callable[[Images], Mapping[str, Any]]
Progress = Callable[[int, int], None]


class ScoreStore:
    """Scores by content, on disk or (``folder=None``) not kept at all.

    Args:
        folder: where the files live; created when missing. ``<hash>.npz`` is a complete set, ``<hash>/`` the chunks of
            an unfinished one.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            # Found out now, not after the first minutes of scoring.
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / f".probe-{uuid.uuid4().hex}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise _unwritable(folder, error) from None

    def scores(
        self,
        key: Mapping[str, Any],
        images: Images,
        score_fn: ScoreFunction,
        *,
        label: str = "scores",
        chunk: int = CHUNK,
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
            chunk: images between two writes.
            progress: called with (images done, N) after each chunk and once at the start when some are done already.

        Returns:
            name -> float64 (N,), bit for bit the same whether computed, resumed or read.

        Raises:
            UserError: ``score_fn`` gave NaN or infinity (nothing bad is kept), or the folder cannot be written.
            ValueError: ``score_fn`` gave other names or shapes than it should.
            TypeError: the key is not JSON-able.
        """
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, found {chunk}")
        text = canonical_json({"format": _FORMAT, "key": dict(key)})
        digest, total = hashlib.sha256(text.encode()).hexdigest(), len(images)
        complete = None if self.folder is None else self.folder / f"{digest}.npz"
        if complete is not None and (found := _read(complete, text, total)) is not None:
            _report(progress, total, total)
            return found

        parts: list[dict[str, Scores]] = []
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            path = None if self.folder is None else self.folder / digest / f"{start}-{stop}.npz"
            part = None if path is None else _read(path, text, stop - start)
            if part is None:
                part = _checked(score_fn(images[start:stop]), stop - start, label, start)
                if path is not None:
                    self._write(path, text, part)
            if parts and list(part) != list(parts[0]):
                raise ValueError(f"{label}: terms {list(part)} at image {start}, {list(parts[0])} before")
            parts.append(part)
            _report(progress, stop, total)
        if not parts:
            raise UserError(f"{label}: found no images to score")
        result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if complete is not None:
            self._write(complete, text, result)
            _remove_folder(complete.with_suffix(""))
        return result

    def _write(self, path: Path, key_text: str, terms: Mapping[str, Scores]) -> None:
        arrays: dict[str, np.ndarray] = {_TERM + name: values for name, values in terms.items()}
        arrays["key"] = np.array(key_text)
        arrays["checksum"] = np.array(_checksum(key_text, terms))
        assert self.folder is not None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_npz(path, arrays)
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; TypeError or ValueError for what JSON cannot hold (NaN included)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def source_hash(files: Iterable[Path]) -> str:
    """A code version for keys: sha256 over the contents of source files, whatever their order and wherever they lie."""
    hashes = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed ``.npz`` atomically: readers see the old file or the whole new one. Raises: OSError."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, key_text: str, n: int) -> dict[str, Scores] | None:
    """The terms in ``path``, or None. A file that is not what it should be is removed and counts as not there."""
    if not path.is_file():
        return None
    try:
        # Opened here: numpy leaves the handle open when the zip is damaged.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            terms = {name.removeprefix(_TERM): file[name] for name in file.files if name.startswith(_TERM)}
            intact = str(file["key"]) == key_text and str(file["checksum"]) == _checksum(key_text, terms)
    except Exception:  # zip, zlib, npy header, missing entry: whatever is wrong with the bytes, the answer is the same
        intact, terms = False, {}
    if intact and terms and all(t.dtype == np.float64 and t.shape == (n,) for t in terms.values()):
        return terms
    print(f"note: {path} is damaged or no score file of this run; removed, to be scored again", file=sys.stderr)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    return None


def _checksum(key_text: str, terms: Mapping[str, Scores]) -> str:
    digest = hashlib.sha256(key_text.encode())
    for name, values in terms.items():
        digest.update(f"\0{name}\0{values.dtype.str}{values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _checked(terms: Mapping[str, Any], n: int, label: str, start: int) -> dict[str, Scores]:
    if not terms:
        raise ValueError(f"{label}: the scorer returned no scores")
    checked = {}
    for name, values in terms.items():
        array = np.array(values, dtype=np.float64)  # a copy: the scorer may reuse its buffer
        if array.shape != (n,):
            raise ValueError(f"{label}: {name} has shape {array.shape} for {n} images, needed ({n},)")
        bad = ~np.isfinite(array)
        if bad.any():
            first = start + int(np.argmax(bad))
            raise UserError(
                f"{label}: {name} is NaN or infinite for {int(bad.sum())} of images {start} to {start + n - 1} "
                f"(the first: image {first}); a broken checkpoint? Nothing of these images was kept"
            )
        checked[name] = array
    return checked


def _remove_folder(folder: Path) -> None:
    # The complete file is in place: what is left of its chunks is only litter, and not worth an error.
    try:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    except OSError:
        pass


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot keep scores in {folder}: {error.strerror or error}; choose a writable folder with --cache"
    )
