"""Configuration files are looked at before they are parsed: a few lines of YAML can stand for more than any memory holds."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from vaebm.errors import UserError

MAX_BYTES = 2**20


def check_configs(arguments: Sequence[str]) -> None:
    """Refuse what no parser should see of the files that ``--config`` names; what is wrong besides, their parser says.

    Raises:
        UserError: no regular file, more than ``MAX_BYTES``, or YAML with aliases, by which lists of lists grow without end.
    """
    for word, following in pairwise([*arguments, ""]):
        given = following if word == "--config" else word.removeprefix("--config=")
        path = Path(given)
        if (given == word and word != "--config") or not given or not path.exists():
            continue
        if not path.is_file():  # opening a pipe would wait for ever
            raise UserError(f"--config {given}: no regular file")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"--config {given}: has more than {MAX_BYTES:,} bytes")
        if path.suffix.lower() != ".toml" and _has_aliases(path):
            raise UserError(f"--config {given}: has YAML aliases (*name); write out what they stand for")


def _has_aliases(path: Path) -> bool:
    import yaml

    try:
        return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError):  # its parser says what is wrong
        return False
