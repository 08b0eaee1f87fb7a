"""Pack images into a folder of lossless WebP sheets: how the bundled cuts were made.

    python -m vaebm.data.pack svhn vaebm/data/bundled/svhn --count 2000 --data-root DATA --origin "where it came from"
    python -m vaebm.data.pack cifar10 vaebm/data/bundled/cifar10_train --split train --count 1000 --data-root DATA --origin ...

Such a folder is read back by name from a data root, or as ``NAME=OUT``.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vaebm.data.catalogue import DATASETS
from vaebm.data.load import index_note, load_images
from vaebm.data.packed import write_packed
from vaebm.errors import UserError


def pack(
    spec: str,
    out: Path,
    *,
    count: int | None = None,
    split: str = "test",
    data_root: str | None = None,
    origin: str = "",
) -> int:
    """Write the first ``count`` images of ``spec`` to the folder ``out``, which must not exist; returns how many.

    ``origin`` goes into ``meta.json`` (default: the place ``load_images`` found them in).

    Raises:
        UserError: as ``load_images``; or the set may not be redistributed; or ``out`` exists.
    """
    info = DATASETS.get(spec.partition("=")[0])  # so that celeba=PATH is refused as well
    if info is not None and not info.redistributable:
        raise UserError(f"{spec}: {info.licence}; it is not packed, give its own files with --data-root instead")
    images = load_images(spec, split=split, n=count, data_root=data_root)
    # The reader works out the note on gaps afresh, for the part that is asked for then.
    kept = tuple(note for note in images.notes if note != index_note(images))
    terms = {"title": info.title, "licence": info.licence, "citation": info.citation} if info else {}
    write_packed(replace(images, notes=kept), out, {"origin": origin or images.source, **terms})
    return len(images)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m vaebm.data.pack", description="Pack images into lossless WebP sheets."
    )
    parser.add_argument("spec", help=f"{', '.join(DATASETS)}, NAME=PATH or PATH")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--count", type=int, help="how many images (default: all)")
    parser.add_argument("--split", default="test", help="test or train (default: test)")
    parser.add_argument("--data-root", help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--origin", default="", help="a line for meta.json on where the images came from")
    given = parser.parse_args(arguments)
    try:
        count = pack(
            given.spec, given.out, count=given.count, split=given.split, data_root=given.data_root, origin=given.origin
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: {count} images", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
