"""Decoding single picture files into uint8 arrays, strictly: what is ambiguous is refused, not converted."""

import lzma
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import IO

import numpy as np
from PIL import Image

from vaebm.data.messages import reason
from vaebm.data.spool import BLOCK, empty, release
from vaebm.errors import UserError

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".bmp")
# Whatever a file is called, no other decoder of Pillow sees it: some are rarely used, and one hands the file to Ghostscript.
FORMATS = ("PNG", "WEBP", "JPEG", "BMP")
# A few kilobytes can unpack to gigabytes; this is 8192 x 8192, 192 MiB in colour.
MAX_PIXELS = 2**26
LOSSY = {"jpeg", "lossy webp"}  # kinds, as ``kind_of`` calls them
_PNG_END = b"IEND\xaeB`\x82"

# What is done to each decoded picture, given the picture, its file's name and what messages call its container.
Prepare = Callable[[Image.Image, str, str], Image.Image]

# Of the archive that a file comes from, not of the file: its reader says what is wrong.
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)


def is_picture(name: str) -> bool:
    """Whether a file name is that of a picture (hidden files and macOS resource forks are not)."""
    path = PurePath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts if part not in (".", ".."))
    return path.suffix.lower() in SUFFIXES and not hidden


def read_pictures(
    names: Sequence[str], open_file: Callable[[str], IO[bytes]], where: str, prepare: Prepare | None = None
) -> np.ndarray:
    """Decode files of one size and colour into one array.

    Args:
        names: at least one; the order of the result.
        open_file: opens one of them for reading.
        where: how messages call the folder or archive.
        prepare: done to each picture before it takes its place: a crop, a change of size.

    Returns:
        uint8 (N, H, W, C), C = 1 or 3; memory-mapped from a temporary file where that is large (``vaebm.data.spool``).

    Raises:
        UserError: a file is unreadable, truncated, 16-bit, CMYK, transparent, an animation or of more than ``MAX_PIXELS``, or
            differs from the first in size or colour; or there is no room for all of them.
    """
    pixels = np.empty((0,), dtype=np.uint8)
    rows = 1
    for position, name in enumerate(names):
        picture = decode(name, open_file, where)
        if prepare is not None:
            picture = prepare(picture, name, where)
        array = np.asarray(picture)
        array = array[..., None] if array.ndim == 2 else array
        if position == 0:
            try:
                pixels = empty((len(names), *array.shape), where)
                rows = max(1, BLOCK // max(1, array.nbytes))
            except MemoryError:
                needed = len(names) * array.size / 2**30
                raise UserError(
                    f"{where}: {len(names)} images of {_describe(array)} need {needed:,.0f} GiB of memory; give fewer or smaller ones"
                ) from None
        if array.shape != pixels.shape[1:]:
            raise UserError(
                f"{where}: {name} is {_describe(array)} but {names[0]} is {_describe(pixels[0])}; "
                "all images of a set need one size and one colour mode"
            )
        pixels[position] = array
        if position % rows == rows - 1:
            release(pixels)
    return pixels


def kind_of(name: str, open_file: Callable[[str], IO[bytes]]) -> tuple[str, bool]:
    """The kind of a picture file by its first bytes (its suffix, when they say nothing), and whether it ends as that kind does."""
    try:
        with open_file(name) as stream:
            head = stream.read(16)
            stream.seek(-len(_PNG_END), os.SEEK_END)
            tail = stream.read()
    except (OSError, ValueError):  # decoding it says what is wrong
        return PurePath(name).suffix.lower().lstrip("."), False
    if head.startswith(b"\x89PNG"):
        return "png", tail == _PNG_END
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg", tail.endswith(b"\xff\xd9")
    if head.startswith(b"RIFF"):
        return "lossy webp" if head.endswith(b"VP8 ") else "webp", True
    return PurePath(name).suffix.lower().lstrip("."), True


def decode(name: str, open_file: Callable[[str], IO[bytes]], where: str) -> Image.Image:
    """One file as a picture of mode L or RGB. Raises: UserError as ``read_pictures``."""
    try:
        with open_file(name) as stream, open_picture(stream) as picture:
            if picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False):
                raise _RefusedError("is an animation; needed one picture")
            picture.load()
            return _plain(picture)
    except _RefusedError as refused:
        raise UserError(f"{where}: {name} {refused}") from None
    except _ARCHIVE_ERRORS:
        raise
    except Exception as error:  # a damaged picture makes its decoder raise nearly anything
        raise UserError(f"{where}: cannot read {name} as an image ({reason(error)}); remove or replace it") from None


def open_picture(stream: IO[bytes], most: int = MAX_PIXELS) -> Image.Image:
    """Open a picture of ``FORMATS``, of which nothing but the header is read yet.

    Raises:
        ValueError: it has more than ``most`` pixels.
        Exception: what Pillow raises, which is nearly anything where the file is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of a limit above ours
        picture = Image.open(stream, formats=FORMATS)
    width, height = picture.size
    if width * height > most:
        raise ValueError(f"it is {height}x{width}, more than {most:,} pixels")
    return picture


class _RefusedError(Exception):
    pass


def _plain(picture: Image.Image) -> Image.Image:
    """The picture in mode L or RGB, when that loses nothing."""
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture.copy()
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("P", "RGBA", "LA", "PA", "L", "RGB"):
        rgba = picture.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise _RefusedError("has transparent pixels; needed 8-bit grey or RGB")
        return rgba.convert("L" if picture.mode in ("LA", "L") else "RGB")
    raise _RefusedError(f"has Pillow mode {picture.mode!r}; needed 8-bit grey or RGB")


def _describe(array: np.ndarray) -> str:
    height, width, channels = array.shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"
