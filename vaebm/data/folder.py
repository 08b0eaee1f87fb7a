"""Folders and zip archives of picture files."""

import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from vaebm.data.messages import reason
from vaebm.data.pictures import LOSSY, Prepare, decode, is_picture, kind_of, read_pictures
from vaebm.data.zips import open_zip, points_outside
from vaebm.errors import UserError

# A zip of a few megabytes can unpack to terabytes; 60,000 images of 256 x 256 RGB are 12 GB uncompressed.
MAX_ZIP_BYTES = 16 * 2**30


@dataclass(frozen=True)
class PictureFiles:
    """Picture files in order of their names, before any is read.

    Attributes:
        names: relative posix paths, sorted.
        open_file: opens one of them.
        where: how messages call the container.
    """

    names: Sequence[str]
    open_file: Callable[[str], IO[bytes]]
    where: str

    def summary(self) -> str:
        """``"1234 png"`` or ``"10 jpg, 3 png"``."""
        kinds = Counter(PurePosixPath(name).suffix.lower().lstrip(".") for name in self.names)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))

    def read(self, n: int | None = None, prepare: Prepare | None = None) -> np.ndarray:
        """uint8 (N, H, W, C) of the first ``n`` files. Raises: UserError as ``read_pictures``, or a damaged zip."""
        with self._unpacking():
            return read_pictures(self.names[:n], self.open_file, self.where, prepare)

    def survey(self, n: int | None = None) -> tuple[str, ...]:
        """Look at the first and last bytes of the first ``n`` files, which takes a moment where decoding takes minutes.

        Returns:
            Notes: files of several kinds, and kinds that lose detail.

        Raises:
            UserError: a file that ends too early cannot be decoded.
        """
        kinds: Counter[str] = Counter()
        for name in self.names[:n]:
            with self._unpacking():
                kind, whole = kind_of(name, self.open_file)
                if not whole:
                    decode(name, self.open_file, self.where)
            kinds[kind] += 1
        total, notes = sum(kinds.values()), []
        if len(kinds) > 1:
            held = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            notes.append(f"mixed file kinds: {held}; they may have been made in different ways")
        for kind in sorted(kinds.keys() & LOSSY):
            notes.append(
                f"lossy files: {kinds[kind]} of {total} are {kind}, whose artefacts count as differences to PNGs"
            )
        return tuple(notes)

    @contextmanager
    def _unpacking(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError) as error:
            raise UserError(f"{self.where}: cannot be unpacked ({reason(error)}); zip it again, unencrypted") from None


def folder_files(path: Path, where: str | None = None) -> PictureFiles:
    """The picture files under a folder, subfolders included.

    Raises:
        UserError: there is none.
    """
    where = where or f"folder {path}"
    names = sorted(picture_names(path))
    if not names:
        raise UserError(f"{where}: no image in it, needed png, webp, jpg or bmp files")
    return PictureFiles(names, lambda name: (path / name).open("rb"), where)


def picture_names(path: Path) -> Iterator[str]:
    """Relative posix paths of the picture files under a folder, in no order. Links to folders are not followed: they may lead round."""
    for folder, _, names in os.walk(path):  # names alone: objects for a million files would take a gigabyte
        inside = Path(folder).relative_to(path).as_posix()
        for name in names:
            relative = name if inside == "." else f"{inside}/{name}"
            if is_picture(relative) and os.path.isfile(os.path.join(folder, name)):
                yield relative


def check_unpacked_size(archive: zipfile.ZipFile, where: str, remedy: str) -> None:
    """Raises: UserError when an archive holds more than ``MAX_ZIP_BYTES`` of uncompressed data, by its own account."""
    total = sum(member.file_size for member in archive.infolist())
    if total > MAX_ZIP_BYTES:
        raise UserError(f"{where}: holds {total:,} bytes uncompressed, the limit is {MAX_ZIP_BYTES:,}; {remedy}")


@contextmanager
def zip_files(path: Path, where: str | None = None) -> Iterator[PictureFiles]:
    """The picture files in a zip; nothing is ever unpacked to disk.

    Raises:
        UserError: not a zip, no picture in it, a member whose path leaves the archive, a name twice, a list of members of more
            than ``MAX_LIST_BYTES``, or more than ``MAX_ZIP_BYTES`` of uncompressed data.
    """
    where = where or f"zip {path}"
    with ExitStack() as opened:
        try:
            archive = opened.enter_context(open_zip(opened.enter_context(path.open("rb"))))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{where}: not a readable zip archive ({reason(error)}); make it again") from None
        for name in archive.namelist():
            # Nothing is written to disk, so such a name could do no harm here; but nobody who means well makes one.
            if points_outside(name):
                raise UserError(f"{where}: member {name!r} points outside the archive; make the zip again")
        check_unpacked_size(archive, where, "give the unpacked folder")
        names = sorted(name for name in archive.namelist() if is_picture(name))
        if not names:
            raise UserError(f"{where}: no image in it, needed png, webp, jpg or bmp files")
        yield PictureFiles(names, archive.open, where)
