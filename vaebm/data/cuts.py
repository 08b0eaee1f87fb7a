"""The cuts that ship with the project: the first images of some test sets, so the first table needs no network."""

from dataclasses import replace
from pathlib import Path

from vaebm.data.image_set import ImageSet
from vaebm.data.packed import read_packed

FOLDER = Path(__file__).parent / "bundled"


def bundled_names() -> list[str]:
    """Names of the sets of which a cut is bundled."""
    return sorted(path.parent.name for path in FOLDER.glob("*/meta.json"))


def read_bundled(name: str, split: str) -> ImageSet | None:
    """The bundled cut of a set; None if there is none, or for the train split (only test images are bundled).

    Raises:
        UserError: the installed files are damaged.
    """
    if split != "test" or name not in bundled_names():
        return None
    found = read_packed(FOLDER / name, name, "")
    return replace(found, source=f"bundled cut (first {len(found)} images)")
