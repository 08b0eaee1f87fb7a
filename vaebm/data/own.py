"""The user's own images: ``NAME=PATH`` or ``PATH``."""

import re
from pathlib import Path

from vaebm.data.arrays import read_array
from vaebm.data.folder import PictureFiles, folder_files, zip_files
from vaebm.data.image_set import ImageSet
from vaebm.data.messages import reason
from vaebm.data.packed import packed_shape, read_packed
from vaebm.errors import UserError

ARRAYS = (".npy", ".npz")
MAX_NAME = 80  # letters


def user_path(given: str) -> Path:
    """The path that a user wrote, ``~`` and ``~name`` resolved. Raises: UserError when there is no such user or no path can be so."""
    try:
        path = Path(given).expanduser()
        path.exists()
        return path
    except (RuntimeError, ValueError) as error:  # no home; a character that no path can have
        raise UserError(f"{given!r} is no path ({reason(error)})") from None


def parse_own(spec: str) -> tuple[str, str] | None:
    """(name, path) when ``spec`` is the user's own: ``NAME=PATH``, or a path (which exists, or looks like one).

    Raises:
        UserError: NAME or PATH is empty, or NAME holds a character that has no place in a table or file name.
    """
    if spec and user_path(spec).exists():
        return _stem(spec), spec
    if "=" in spec:
        name, _, path = spec.partition("=")
        if not re.fullmatch(r"[\w.+-]+", name) or name.strip(".") == "" or len(name) > MAX_NAME or not path:
            shown = spec if len(spec) <= 160 else f"{spec[:157]}..."
            raise UserError(
                f"{shown!r}: needed NAME=PATH, NAME of letters, digits and _ . + - (e.g. --ood mine=folder/)"
            )
        return name, path
    looks_like_path = "/" in spec or "\\" in spec or spec.lower().endswith((*ARRAYS, ".zip"))
    return (_stem(spec), spec) if looks_like_path else None


def read_own(name: str, path_as_given: str, n: int | None) -> ImageSet:
    """The first ``n`` images of a folder, .zip, .npy, .npz or packed folder, in order of file names or of the array.

    Raises:
        UserError: the path does not exist, is of no known kind, or its content is refused by its reader.
    """
    path = user_path(path_as_given)
    if not path.exists():
        raise UserError(f"{name}: {path_as_given} does not exist; needed a folder, .zip, .npy or .npz of images")
    if path.is_dir():
        if packed_shape(path):
            found = read_packed(path, name, f"packed folder {path_as_given}")
            return found if n is None else found.head(n)
        files = folder_files(path, f"folder {path_as_given}")
        return _pictures(name, files, n)
    if not path.is_file():  # opening a pipe would wait for ever, and a device may never end
        raise UserError(f"{name}: {path_as_given} is a pipe or a device, needed a folder or a regular file")
    if path.suffix.lower() == ".zip":
        with zip_files(path, f"zip {path_as_given}") as files:
            return _pictures(name, files, n)
    if path.suffix.lower() in ARRAYS:
        images, labels = read_array(path, n)
        return ImageSet(name, images, f"array {path_as_given}", "", labels)
    raise UserError(f"{name}: {path_as_given} is no folder, .zip, .npy or .npz, needed one of these")


def _pictures(name: str, files: PictureFiles, n: int | None) -> ImageSet:
    notes = files.survey(n)  # first: a truncated file is found before thousands are decoded
    return ImageSet(name, files.read(n), f"{files.where} ({files.summary()})", "", notes=notes)


def _stem(path: str) -> str:
    return user_path(path).resolve().stem
