"""Reading JSON files that somebody else may have written."""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 2**24  # the largest that is written here has some thousands


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of UTF-8, strictly.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, larger than ``MAX_BYTES``, no JSON, another value than an object, nested too deep, or has a key
            twice, of which Python would keep the last in silence. The message is of one line and does not name the file.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    try:
        found = json.loads(data.decode(), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, needed an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"it has {twice[:40]!r} twice in one object")
    return found
