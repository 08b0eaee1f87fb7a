"""Files that are either whole or not there, and the names of those that a run writes."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from vaebm.atomic import replace_together
from vaebm.errors import UserError

TABLES = (".md", ".csv", "_tables.json", ".tex", "_standalone.tex", ".bib")  # after the name of a suite
SHARED = ("index.html", "history.db")


def names_of(suites: Iterable[str]) -> list[str]:
    """Return the names of the files that a run of these suites writes, but for plots and what a suite keeps for itself."""
    return [f"{suite}{ending}" for suite in suites for ending in (".json", *TABLES)] + list(SHARED)


def write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write every file beside its place first, then move all: an error leaves none of them half-written, and each as it was.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def write(content: bytes, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    try:
        replace_together({path: partial(write, content) for path, content in contents.items()})
    except OSError as error:
        path = Path(error.filename)
        reason = f"{path.name} is a folder" if path.is_dir() else error.strerror
        folder = next(iter(contents)).parent
        raise UserError(f"--out {folder}: cannot write there ({reason}); choose another with --out") from error
    return list(contents)
