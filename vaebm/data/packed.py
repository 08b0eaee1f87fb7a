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
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from vaebm.data.arrays import npz_keys, read_npz
from vaebm.data.image_set import ImageSet
from vaebm.data.messages import reason
from vaebm.data.pictures import open_picture
from vaebm.data.spool import empty, release
from vaebm.errors import UserError
from vaebm.json_file import read_object

TILES_PER_SHEET = 2500
MAX_SHEET_PIXELS = 13_000**2  # TILES_PER_SHEET tiles of 256 x 256, and no more than Pillow opens
_ARRAYS = ("labels", "index", "official_test_index")


def read_packed(folder: Path, name: str, source: str) -> ImageSet:
    """Read a packed folder, all of it, and verify its pixels.

    Raises:
        UserError: a file is missing or damaged, or the pixels do not have the recorded sha256.
    """
    where = f"{name}: packed set {folder}"
    try:
        meta = read_object(folder / "meta.json")
        images = _tiles(folder, meta, where)
        arrays = _arrays(folder)
        expected = meta["sha256"]
        split, notes = str(meta.get("split", "")), tuple(map(str, meta.get("notes", ())))
    except UserError:
        raise
    except Exception as error:  # damaged text or pictures make their readers raise nearly anything
        kind = type(error).__name__
        raise UserError(f"{where} cannot be read ({kind}: {reason(error)}); restore or remove it") from None
    if hashlib.sha256(images.data).hexdigest() != expected:
        raise UserError(f"{where}: pixels do not match the sha256 in meta.json; restore or remove it")
    index = arrays.get("official_test_index", arrays.get("index"))
    try:
        return ImageSet(name, images, source, split, arrays.get("labels"), index, notes)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {reason(error)}; restore or remove it") from None


def packed_shape(folder: Path) -> tuple[int, ...] | None:
    """[H, W, C] of a packed folder without reading its pixels; None if it is not one."""
    try:
        meta = read_object(folder / "meta.json")
        return tuple(map(int, meta["shape"])) if "sheets" in meta else None
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


def _tiles(folder: Path, meta: Mapping[str, Any], where: str) -> np.ndarray:
    h, w, c = map(int, meta["shape"])
    if min(h, w, c) < 1:
        raise ValueError(f"shape {[h, w, c]}")
    files, found = [sheet["file"] for sheet in meta["sheets"]], 0
    if len(set(files)) < len(files):  # each costs what is in it
        raise ValueError("a sheet is named twice")
    for file in files:
        if PurePath(file).name != file or not (folder / file).is_file():
            raise ValueError(f"sheet {file!r} is not a plain file name of this folder")
    count = sum(int(sheet["count"]) for sheet in meta["sheets"])
    if count != meta["count"] or min(int(sheet["count"]) for sheet in meta["sheets"]) < 1:
        raise ValueError(f"found {count} tiles, meta.json says {meta['count']}")
    if count * h * w > len(files) * MAX_SHEET_PIXELS:
        raise ValueError(f"{len(files)} sheets cannot hold {count} tiles of {h}x{w}")
    images = empty((count, h, w, c), where)
    for sheet in meta["sheets"]:
        with (folder / sheet["file"]).open("rb") as stream, open_picture(stream, MAX_SHEET_PIXELS) as picture:
            grid = np.asarray(picture.convert("RGB"))
        rows, columns = grid.shape[0] // h, grid.shape[1] // w
        cells = grid.reshape(rows, h, columns, w, 3).swapaxes(1, 2).reshape(rows * columns, h, w, 3)
        images[found : found + sheet["count"]] = cells[: sheet["count"], ..., :c]
        found += sheet["count"]
        release(images)
    return images


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "arrays.npz"
    if not path.exists():
        return {}
    return read_npz(path, [key for key in npz_keys(path) or [] if key in _ARRAYS])


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
