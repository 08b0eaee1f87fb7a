"""A named set in the user's data root, in whichever of the usual layouts it lies there.

For a set ``NAME`` and a split, in this order; ``BASE`` is ``ROOT`` or ``ROOT/NAME``:

1. packed sheets: ``ROOT/NAME_SPLIT/meta.json``, ``ROOT/NAME/meta.json`` (CelebA: also ``ROOT/celeba64``, ``celeba32``);
2. as published (and as torchvision keeps it): ``BASE/cifar-10-batches-py`` or ``cifar-10-python.tar.gz``,
   ``BASE/cifar-100-python`` or ``.tar.gz``, ``BASE/test_32x32.mat``, ``BASE/MNIST/raw``, ``BASE/FashionMNIST/raw``,
   ``BASE/KMNIST/raw``, ``BASE/img_align_celeba`` or ``img_align_celeba.zip``;
3. arrays: ``ROOT/NAME_SPLIT.npy``, ``.npz``, ``ROOT/NAME.npy``, ``.npz``;
4. picture folders: ``ROOT/NAME_SPLIT/``, ``ROOT/NAME/``; for the sets of ``PICTURE_SETS`` pictures of any size, in the
   folders and zips of ``vaebm.data.picture_sets`` (packed sheets and arrays of these are taken as prepared).

A path without the split in its name can serve as "test" (any part of a set is fine to be scored) but never as "train".
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vaebm.data import cifar_python, idx, svhn_mat
from vaebm.data.arrays import read_array
from vaebm.data.catalogue import DATASETS
from vaebm.data.celeba import of_partition, read_celeba
from vaebm.data.folder import folder_files, picture_names
from vaebm.data.image_set import ImageSet
from vaebm.data.packed import packed_shape, read_packed
from vaebm.data.picture_sets import PICTURE_SETS, read_picture_set
from vaebm.data.resizing import require


def find_in_root(root: Path, name: str, split: str, n: int | None, size: tuple[int, int] | None) -> ImageSet | None:
    """The set in ``root``, or None if no known layout of it is there; at least its first ``n`` images.

    Raises:
        UserError: it is there, but damaged.
    """
    for find in (_packed, _published, _array, _pictures):
        found = find(root, name, split, n, size)
        if found is not None:
            return require(found, DATASETS[name].size, 3) if name in PICTURE_SETS else found
    return None


def _stems(name: str, split: str) -> Iterator[tuple[str, str]]:
    """Names a set may have in the root, each with the split that name vouches for."""
    yield f"{name}_{split}", split
    if split == "test":
        yield name, ""


def _packed(root: Path, name: str, split: str, n: int | None, size: tuple[int, int] | None) -> ImageSet | None:
    source = "data root: packed sheets"
    for stem, vouched in _stems(name, split):
        if packed_shape(root / stem):
            found = read_packed(root / stem, name, source)
            return replace(found, split=vouched or found.split)
    if name != "celeba":
        return None
    sides = {shape[0]: path for path in root.glob("celeba*") if (shape := packed_shape(path))}
    if not sides:
        return None
    wanted = size[0] if size else max(sides)
    # Reducing loses less than enlarging: the smallest that is large enough, else the largest there is.
    side = min((s for s in sides if s >= wanted), default=max(sides))
    found = read_packed(sides[side], name, f"{source} ({side}x{side})")
    if found.index is None:
        return found if split == "test" else None
    chosen, vouched, notes = of_partition(found.index, split)
    return replace(found.take(chosen).with_notes(*notes), split=vouched) if len(chosen) else None


def _published(root: Path, name: str, split: str, n: int | None, size: tuple[int, int] | None) -> ImageSet | None:
    for base in (root, root / name):
        if name in cifar_python.FOLDER:
            for file in (cifar_python.FOLDER[name], cifar_python.ARCHIVE[name]):
                if (base / file).exists():
                    images, labels = cifar_python.read_cifar(base / file, name, split)
                    return ImageSet(name, images, f"data root: {file}", split, labels)
        elif name == "svhn":
            file = svhn_mat.FILE[split]
            if (base / file).is_file():
                images, labels = svhn_mat.read_svhn(base / file)
                return ImageSet(name, images, f"data root: {file}", split, labels)
        elif name in idx.FOLDER:
            pair = idx.read_idx_pair(base / idx.FOLDER[name] / "raw", split)
            if pair is not None:
                return ImageSet(name, pair[0], f"data root: {idx.FOLDER[name]}/raw", split, pair[1])
        elif name == "celeba":
            found = _celeba(base, split, n, size or DATASETS[name].size)
            if found is not None:
                return found
    return None


def _celeba(base: Path, split: str, n: int | None, size: tuple[int, int]) -> ImageSet | None:
    for file in ("img_align_celeba", "img_align_celeba.zip"):
        path = base / file
        if path.is_file() or _holds_pictures(path):
            return read_celeba(path, split, n, size, f"data root: {file}")
    return None


def _array(root: Path, name: str, split: str, n: int | None, size: tuple[int, int] | None) -> ImageSet | None:
    for stem, vouched in _stems(name, split):
        for suffix in (".npy", ".npz"):
            path = root / f"{stem}{suffix}"
            if path.is_file():
                images, labels = read_array(path, n)
                return ImageSet(name, images, f"data root: {path.name}", vouched, labels)
    return None


def _pictures(root: Path, name: str, split: str, n: int | None, size: tuple[int, int] | None) -> ImageSet | None:
    if name in PICTURE_SETS:
        return read_picture_set(root, name, split, n)
    for stem, vouched in _stems(name, split):
        if _holds_pictures(root / stem):
            files = folder_files(root / stem)
            return ImageSet(name, files.read(n), f"data root: folder {stem} ({files.summary()})", vouched)
    return None


def _holds_pictures(path: Path) -> bool:
    return path.is_dir() and any(True for _ in picture_names(path))
