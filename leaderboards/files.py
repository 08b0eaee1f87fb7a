"""Files that are either whole or not there."""

from collections.abc import Mapping
from errno import EISDIR
from pathlib import Path

from vaebm.errors import UserError


def write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write every file beside its place first, then move all: an error leaves none of them half-written.

    Raises:
        UserError: the folder cannot be made or written.
    """
    partials = {path: path.with_name(path.name + ".partial") for path in contents}
    try:
        for path, content in contents.items():
            if path.is_dir():  # found now, before any file has been moved
                raise IsADirectoryError(EISDIR, f"{path.name} is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            partials[path].write_bytes(content)
        for path, partial in partials.items():
            partial.replace(path)
    except OSError as error:
        for partial in partials.values():
            if partial.is_file():
                partial.unlink()
        folder = next(iter(contents)).parent
        raise UserError(f"--out {folder}: cannot write there ({error.strerror}); choose another with --out") from error
    return list(contents)
