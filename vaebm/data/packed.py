"""Packed sets: a folder of lossless WebP sheets (grids of equal tiles, row by row) and a ``meta.json`` with a sha256.

``meta.json``: ``shape`` [H, W, C], ``count``, ``sha256`` of the pixels, ``sheets`` [{"file", "count"}]; optional
``split``, ``notes``, and for people ``origin``, ``title``, ``licence``, ``citation``. ``arrays.npz`` beside it may hold
``labels``, ``index`` (position in the official split) or ``official_test_index`` (the same, -1 where the split is not
known).
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from vaebm.data.image_set import ImageSet
from vaebm.data.messages import reason
from vaebm.errors import UserError

TILES_PER_SHEET = 2500

_DAMAGED_META = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
_DAMAGED_FILE = (OSError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error)
_READ_ERRORS = (*_DAMAGED_META, *_DAMAGED_FILE)


def read_packed(folder: Path, name: str, source: str) -> ImageSet:
    """Read a packed folder, all of it, and verify its pixels.

    Raises:
        UserError: a file is missing or damaged, or the pixels do not have the recorded sha256.
    """
    where = f"{name}: packed set {folder}"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        images = _tiles(folder, meta)
        arrays = _arrays(folder)
        expected = meta["sha256"]
    except _READ_ERRORS as error:
        kind = type(error).__name__
        raise UserError(f"{where} cannot be read ({kind}: {reason(error)}); restore or remove it") from None
    if hashlib.sha256(images.data).hexdigest() != expected:
        raise UserError(f"{where}: pixels do not match the sha256 in meta.json; restore or remove it")
    index = arrays.get("official_test_index", arrays.get("index"))
    try:
        return ImageSet(
            name, images, source, meta.get("split", ""), arrays.get("labels"), index, tuple(meta.get("notes", ()))
        )
    except ValueError as error:
        raise UserError(f"{where}: {reason(error)}; restore or remove it") from None


def packed_shape(folder: Path) -> tuple[int, ...] | None:
    """[H, W, C] of a packed folder without reading its pixels; None if it is not one."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return tuple(meta["shape"]) if "sheets" in meta else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_packed(image_set: ImageSet, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write ``image_set`` as a packed folder; it appears under its name only when complete and read back equal.

    Args:
        image_set: what to write.
        folder: must not exist yet; its parent is made.
        extra: further fields of ``meta.json``.

    Raises:
        UserError: ``folder`` exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; remove it or choose another OUT")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)}); choose another OUT") from None
    try:
        _write(image_set, partial, extra)
        again = read_packed(partial, image_set.name, image_set.source)
        if again.sha256 != image_set.sha256:
            raise AssertionError("the sheets do not read back as they were written")
        partial.chmod(0o755)  # mkdtemp makes it private
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _tiles(folder: Path, meta: Mapping[str, Any]) -> np.ndarray:
    h, w, c = meta["shape"]
    tiles = []
    for sheet in meta["sheets"]:
        if PurePath(sheet["file"]).name != sheet["file"]:
            raise ValueError(f"sheet {sheet['file']!r} is not a plain file name")
        with Image.open(folder / sheet["file"]) as picture:
            grid = np.asarray(picture.convert("RGB"))
        rows, columns = grid.shape[0] // h, grid.shape[1] // w
        cells = grid.reshape(rows, h, columns, w, 3).swapaxes(1, 2).reshape(rows * columns, h, w, 3)
        tiles.append(cells[: sheet["count"], ..., :c])
    images = np.concatenate(tiles)
    if len(images) != meta["count"]:
        raise ValueError(f"found {len(images)} tiles, meta.json says {meta['count']}")
    return np.ascontiguousarray(images)


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "arrays.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _write(image_set: ImageSet, folder: Path, extra: Mapping[str, Any]) -> None:
    n, h, w, c = image_set.images.shape
    sheets = []
    for number, start in enumerate(range(0, n, TILES_PER_SHEET)):
        tiles = image_set.images[start : start + TILES_PER_SHEET]
        side = math.ceil(math.sqrt(len(tiles)))
        grid = np.zeros((math.ceil(len(tiles) / side) * side, h, w, 3), dtype=np.uint8)
        grid[: len(tiles)] = tiles
        rows = len(grid) // side
        sheet = grid.reshape(rows, side, h, w, 3).swapaxes(1, 2).reshape(rows * h, side * w, 3)
        file = f"{number:03}.webp"
        Image.fromarray(sheet).save(folder / file, lossless=True, quality=100, method=6)
        sheets.append({"file": file, "count": len(tiles)})
    arrays = {"labels": image_set.labels, "index": image_set.index}
    present = {key: values for key, values in arrays.items() if values is not None}
    if present:
        np.savez_compressed(folder / "arrays.npz", **present)  # type: ignore[arg-type]
    meta = {
        "shape": [h, w, c],
        "count": n,
        "sha256": hashlib.sha256(image_set.images.data).hexdigest(),
        "sheets": sheets,
        "split": image_set.split,
        "notes": list(image_set.notes),
        **extra,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
