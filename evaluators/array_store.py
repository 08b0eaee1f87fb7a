"""A cache of arrays with one row per item, found by content and never by name alone.

    store = ArrayStore(Path("cache"))
    found = store.compute({"weights": "9f86d0..."}, 50_000, lambda start, stop: {"images": draw(start, stop)})

The key holds everything that decides the rows except how many there are: row i depends on the key and on i alone. So a run that was
killed goes on where it stopped, rows made for a smaller total are the beginning of a larger one, and a larger one serves a smaller.

Where several processes work together (``vaebm.parallel``), each makes its share of what is missing. They meet in the folder, which all of
them must see, as several machines do on a shared file system; without a folder they hand the rows to each other.

Files: ``<folder>/<hash of the key>/<start>-<stop>.json`` says what the rows from start to stop are (key, and per array file, dtype,
shape and sha256); the rows lie beside it, one .npy per array. Chunks are joined into ``0-<total>`` at the end.
"""

import hashlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vaebm import parallel
from vaebm.atomic import FULL
from vaebm.errors import UserError

CHUNK = 200
SHARES = 4  # chunks for each of several processes, at least: one that has less to do does not wait long for the others
_FORMAT = 2  # of the files; part of the key, so that files of another format are simply not found
_BLOCK = 2**24  # bytes that are hashed and written at a time
_STALE = 24 * 3600  # seconds without a write after which a partial file is litter of a process that was killed

Arrays = dict[str, np.ndarray]
Progress = Callable[[int, int], None]


class ArrayStore:
    """Arrays by content, on disk or (``folder=None``) not kept at all.

    Args:
        folder: where the files live; created when missing. Processes that share it may make the same rows twice, but never spoil
            each other's.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            # Found out now, not after the first minutes of work.
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / f".probe-{uuid.uuid4().hex}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise _unwritable(folder, error) from None

    def available(self, key: Mapping[str, Any], total: int) -> int:
        """How many of the first ``total`` rows the store claims to have; whether they are intact is seen when they are read."""
        if self.folder is None:
            return 0
        spans = _Entry(self.folder, _text(key)).spans()
        return len({row for start, stop in spans for row in range(start, min(stop, total))})

    def compute(
        self,
        key: Mapping[str, Any],
        total: int,
        function: Callable[[int, int], Mapping[str, Any]],
        *,
        chunk: int = CHUNK,
        unit: int = 1,
        label: str = "arrays",
        progress: Progress | None = None,
        alone: bool = False,
    ) -> Arrays:
        """Return the first ``total`` rows, from the store where they are there, else from ``function``.

        Args:
            key: JSON-able; everything that decides a row besides its number.
            function: (start, stop) -> {name: array (stop - start, ...)}, at most ``chunk`` rows; the same names in the same order,
                dtypes and shapes of a row each time. An error that it raises leaves the rows made before in the store.
            chunk: rows between two writes, rounded up to whole units; decides no row.
            unit: rows that ``function`` makes at a time. Another batch size may choose other kernels, so chunks begin where a batch does,
                however many processes share them.
            label: what is made, for messages.
            progress: called with (rows done, total) after each part that was found or made.
            alone: share nothing out to other processes: the caller does.

        Returns:
            name -> array (total, ...); with a folder a read-only memory map, so that memory does not grow with ``total``.

        Raises:
            UserError: the folder cannot be written.
            UserError: ``function`` broke its promise.
            ValueError: chunk, unit or total below 1.
            TypeError: the key is not JSON-able.
        """
        for what, value in (("chunk", chunk), ("unit", unit), ("total", total)):
            if value < 1:
                raise ValueError(f"{label}: {what} must be at least 1, found {value}")
        text = _text(key)
        entry = None if self.folder is None else _Entry(self.folder, text)
        make = lambda start, stop: _checked(function(start, stop), stop - start, label)
        chunk = -(-chunk // unit) * unit
        if alone or parallel.world_size() == 1:
            return _compute(entry, total, make, chunk, label, progress)
        chunk = min(chunk, max(unit, total // (SHARES * parallel.world_size()) // unit * unit))
        asked = parallel.gather_objects((text, total, chunk))
        if len({(key, n) for key, n, _ in asked}) > 1:  # as where one machine lacks a file that the others have
            raise UserError(
                f"{label}: the processes of this run are about to measure different things; needed the same data, weights, code "
                "and options on every machine"
            )
        chunk = asked[0][2]  # units may differ: a batch may have been halved in one of them
        made = _share_out(entry, total, make, chunk, progress)
        # The first process joins the chunks; the others read what it has joined.
        again = lambda start, stop: made.pop(start, None) or make(start, stop)
        return parallel.main_first(lambda: _compute(entry, total, again, chunk, label, None))


def _compute(
    entry: "_Entry | None",
    total: int,
    make: Callable[[int, int], Arrays],
    chunk: int,
    label: str,
    progress: Progress | None,
) -> Arrays:
    """Return rows 0 to ``total``: found, or made in chunks; a chunk is written while the next one is being made."""
    parts: list[tuple[int, int, Arrays | Future[Arrays]]] = []
    layout = ""
    done = 0
    with ThreadPoolExecutor(1) as writer:  # waits for what is being written, whatever happens here
        while done < total:
            found = None if entry is None else entry.find(done)
            if found is not None:
                start, stop, arrays = found
                parts.append(found)
            else:
                start, stop = done, _end(entry, done, total, chunk)
                arrays = make(start, stop)
                if entry is None:
                    parts.append((start, stop, arrays))
                else:
                    if parts and isinstance(before := parts[-1][2], Future):
                        before.result()  # a full disk ends the run now
                    parts.append((start, stop, writer.submit(entry.write, start, stop, [arrays])))
            layout = layout or _layout(arrays)
            if _layout(arrays) != layout:
                raise UserError(f"{label}: rows {done} on are {_layout(arrays)}, those before {layout}")
            done = min(stop, total)
            if progress is not None:
                progress(done, total)
    written = [(start, stop, rows.result() if isinstance(rows, Future) else rows) for start, stop, rows in parts]
    # A part may begin before the end of the one before it, and reach beyond the total.
    pieces, done = [], 0
    for start, stop, arrays in written:
        pieces.append({name: rows[done - start : total - start] for name, rows in arrays.items()})
        done = min(stop, total)
    if entry is None:
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if len(pieces) > 1:
        pieces, stop = [entry.write(0, total, pieces)], total
    else:
        stop = written[0][1]
    entry.tidy(stop)
    return pieces[0]


def _end(entry: "_Entry | None", start: int, total: int, chunk: int) -> int:
    """Where a chunk from ``start`` ends: where others are there already, at the latest."""
    later = [] if entry is None else [first for first, _ in entry.spans() if first > start]
    return min(start + chunk, total, *later)


def _share_out(
    entry: "_Entry | None", total: int, make: Callable[[int, int], Arrays], chunk: int, progress: Progress | None
) -> dict[int, Arrays]:
    """Let the processes make what is missing, each its share; return it by first row where there is no folder to keep it in."""
    world = parallel.world_size()

    def missing() -> list[tuple[int, int]]:
        spans, start = [], 0
        there = set() if entry is None else {row for first, last in entry.spans() for row in range(first, last)}
        while start < total:
            if start not in there:
                spans.append((start, _end(entry, start, total, chunk)))
            start = spans[-1][1] if spans and spans[-1][0] == start else start + 1
        return spans

    done = 0

    def one(span: tuple[int, int]) -> tuple[int, Arrays | None]:
        nonlocal done
        arrays = make(*span)
        done += world * len(next(iter(arrays.values())))  # the others are about as far
        if progress is not None:
            progress(min(done, total), total)
        if entry is None:
            return span[0], arrays
        entry.write(*span, [arrays])
        return span[0], None

    spans = parallel.on_main(missing)
    made = parallel.in_turns(spans, one)
    if entry is not None:
        entry.known.update(spans, [(0, total)])
    return {start: arrays for start, arrays in made if arrays is not None}


class _Entry:
    """What is kept under one key.

    Attributes:
        known: (start, stop) of what other processes have written, which the listing of a shared folder may not show for a while.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.store, self.key = folder, key
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()
        self.known: set[tuple[int, int]] = set()

    def spans(self) -> list[tuple[int, int]]:
        """(start, stop) of what claims to be there."""
        try:
            names = os.listdir(self.folder)
        except OSError:  # not there yet, or not to be read: writing to it says what is wrong
            names = []
        spans = (re.fullmatch(r"(\d+)-(\d+)\.json", name) for name in names if name.endswith(".json"))
        return list({(int(span[1]), int(span[2])) for span in spans if span} | self.known)

    def find(self, position: int) -> tuple[int, int, Arrays] | None:
        """(start, stop, arrays) of the intact rows that hold ``position`` and reach furthest. Damaged ones met on the way are removed."""
        tried: set[tuple[int, int]] = set()  # a listing may still name what is gone
        while covering := [(b, a) for a, b in self.spans() if a <= position < b and (a, b) not in tried]:
            stop, start = max(covering)
            arrays = self._read(start, stop)
            if arrays is not None:
                return start, stop, arrays
            tried.add((start, stop))
            self.known.discard((start, stop))
        return None

    def write(self, start: int, stop: int, parts: Sequence[Arrays]) -> Arrays:
        """Write ``parts``, one after the other, as the rows from start to stop; returns them memory-mapped."""
        arrays: Arrays = {}
        about: dict[str, Any] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, first in parts[0].items():
                shape = (stop - start, *first.shape[1:])
                with _partial(self.folder) as partial:
                    sha256 = _write_npy(partial, first.dtype, shape, (part[name] for part in parts))
                    mapped = np.load(partial, mmap_mode="r", allow_pickle=False)
                    file = self._file(start, stop, name, sha256)
                    partial.replace(file)
                mapped.filename = file
                arrays[name] = mapped
                about[name] = {"file": file.name, "dtype": first.dtype.str, "shape": list(shape), "sha256": sha256}
            with _partial(self.folder) as partial:
                partial.write_text(json.dumps({**json.loads(self.key), "arrays": about}, indent=1) + "\n")
                partial.replace(self.folder / f"{start}-{stop}.json")
        except OSError as error:
            raise _unwritable(self.store, error) from None
        return arrays

    def tidy(self, stop: int) -> None:
        """Remove what the rows from 0 to ``stop`` make superfluous. It is only litter, and not worth an error."""
        for path in self.folder.iterdir():
            span = re.match(r"(\d+)-(\d+)[.-]", path.name)
            inside = span is not None and int(span[2]) <= stop and (span[1], span[2]) != ("0", str(stop))
            with suppress(OSError):
                if inside or (path.suffix == ".partial" and time.time() - path.stat().st_mtime > _STALE):
                    path.unlink()

    def _file(self, start: int, stop: int, name: str, sha256: str) -> Path:
        # With the content in its name, a file can never be taken for that of another process.
        return self.folder / f"{start}-{stop}-{quote(name, safe='')}-{sha256[:16]}.npy"

    def _read(self, start: int, stop: int) -> Arrays | None:
        """The rows, memory-mapped, or None. What is not what it should be is removed and counts as not there."""
        described = path = self.folder / f"{start}-{stop}.json"
        arrays: Arrays = {}
        try:
            meta = json.loads(path.read_text())
            intact = canonical_json({"format": meta["format"], "key": meta["key"]}) == self.key and bool(meta["arrays"])
            for name, about in meta["arrays"].items() if intact else ():
                path = self._file(start, stop, name, about["sha256"])
                arrays[name] = rows = np.load(path, mmap_mode="r", allow_pickle=False)
                alike = (rows.dtype.str, list(rows.shape)) == (about["dtype"], about["shape"]) and len(
                    rows
                ) == stop - start
                intact = intact and alike and _sha256(path, rows.offset) == about["sha256"]
                if not intact:
                    break
        except Exception:  # JSON, npy header, missing file: whatever is wrong with the bytes, the answer is the same
            intact = False
        if intact:
            return arrays
        if described.exists():  # else another process has tidied it away
            print(f"note: {path} is damaged or no file of this run; removed, to be made again", file=sys.stderr)
        try:
            described.unlink(missing_ok=True)
            for file in self.folder.glob(f"{start}-{stop}-*.npy"):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.store, error) from None
        return None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; TypeError or ValueError for what JSON cannot hold (NaN included)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _text(key: Mapping[str, Any]) -> str:
    return canonical_json({"format": _FORMAT, "key": dict(key)})


def source_hash(files: Iterable[Path]) -> str:
    """A code version for keys: sha256 over the contents of source files, whatever their order and wherever they lie."""
    hashes = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A name that no other process has, for a file that is then put in its place; removed when it was not."""
    path = folder / f".{uuid.uuid4().hex}.partial"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write_npy(path: Path, dtype: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> str:
    """Write a .npy without ever holding all of it; returns the sha256 of its data."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    digest = hashlib.sha256()
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        # Plain writes and no writable memory map: on a full disk that would end the process with SIGBUS.
        for block in (block for part in parts for block in _blocks(part)):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _sha256(path: Path, offset: int) -> str:
    # By plain reads: through the memory map, all of the file would count as this process's memory.
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blocks(array: np.ndarray) -> Iterator[bytes]:
    rows = max(1, _BLOCK // max(1, array[:1].nbytes))
    return (array[start : start + rows].tobytes() for start in range(0, len(array), rows))


def _checked(made: Mapping[str, Any], n: int, label: str) -> Arrays:
    if not made:
        raise UserError(f"{label}: the function returned no arrays")
    arrays = {name: np.array(rows) for name, rows in made.items()}  # copies: the function may reuse its buffers
    for name, rows in arrays.items():
        if rows.shape[:1] != (n,) or rows.dtype.hasobject:
            raise UserError(f"{label}: {name} is {rows.dtype} {rows.shape} for {n} items, needed numbers ({n}, ...)")
    return arrays


def _layout(arrays: Arrays) -> str:
    return ", ".join(f"{name} {rows.dtype} {rows.shape[1:]}" for name, rows in arrays.items())


def _unwritable(folder: Path, error: OSError) -> UserError:
    full = error.errno in FULL
    remedy = (
        "free some space or choose another folder with --cache" if full else "choose a writable folder with --cache"
    )
    return UserError(f"cannot keep results in {folder}: {error.strerror or error}; {remedy}")
