"""The cuts that ship with the project: the first images of some sets, so the first table needs no network.

``bundled/NAME`` is of a set's test split, ``bundled/NAME_train`` of its training split. A training cut is there to be scored (the mean of
log p over training images, say), not to be trained on: see ``vaebm.data.load``.
"""

from dataclasses import replace
from pathlib import Path

from vaebm.data.image_set import ImageSet
from vaebm.data.packed import read_packed

FOLDER = Path(__file__).parent / "bundled"


def bundled_names() -> list[str]:
    """Names of the folders that hold a cut: ``NAME`` or ``NAME_train``."""
    return sorted(path.parent.name for path in FOLDER.glob("*/meta.json"))


def read_bundled(name: str, split: str) -> ImageSet | None:
    """The bundled cut of a split of a set; None if there is none.

    Raises:
        UserError: the installed files are damaged.
    """
    folder = name if split == "test" else f"{name}_{split}"
    if folder not in bundled_names():
        return None
    found = read_packed(FOLDER / folder, name, "")
    which = "images" if split == "test" else "training images"
    return replace(found, source=f"bundled cut (first {len(found)} {which})")
