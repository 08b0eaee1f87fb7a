"""``load_images``: from what the user wrote to images, in one fixed order of places."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from vaebm.data import cifar_python, idx, svhn_mat
from vaebm.data.catalogue import DATASETS
from vaebm.data.colour import to_channels
from vaebm.data.cuts import read_bundled
from vaebm.data.digits import PADDED, STACKED, WHOLE, pad, stack
from vaebm.data.download import FILES, read_download
from vaebm.data.image_set import ImageSet
from vaebm.data.interpolation import check_pairing, interpolate
from vaebm.data.own import parse_own, read_own
from vaebm.data.picture_sets import PICTURE_SETS, how_to_get
from vaebm.data.resizing import check_size, resize
from vaebm.data.root import find_in_root
from vaebm.data.synthetic import SYNTHETIC, synthesise
from vaebm.data.unavailable import DataUnavailable
from vaebm.errors import UserError, did_you_mean

SPLITS = ("train", "test")


def load_images(
    spec: str,
    *,
    split: str = "test",
    n: int | None = None,
    data_root: str | Path | None = None,
    download: bool = True,
    interp: str = "neighbours",
    seed: int = 0,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageSet:
    """Load images by name or path.

    A name is looked for in the data root (``data_root``, else ``$VAEBM_DATA``), then among the bundled cuts, then
    downloaded. A bundled cut is passed over when more images are asked for than it holds; if the larger set cannot be
    had, the cut is returned with a note. The cut of a training split is returned only to who asks for no more than it
    holds: nobody trains on a part, or takes it for the whole, in silence. Always the first ``n`` images, in official order.

    Args:
        spec: a name of ``DATASETS``, ``NAME=PATH``, or a path: folder of images, .zip, .npy, .npz, packed folder. A
            known name wins over a file called so; write ``./svhn`` for the file. Some names are made of another set,
            such as ``cifar10``, ``mnist`` or ``celeba``, wherever that is found, and some are drawn from the seed
            (``DatasetInfo.recipe`` says how).
        split: "test" or "train"; a path has no splits.
        n: how many at most; None: all of the first place that has the set (so the bundled cut of "test", if there is one).
        data_root: folder with data sets; the layouts it may have are in ``vaebm.data.root``.
        download: whether the network may be used.
        interp: pairing of ``cifar10_interp``: "neighbours", "batches" or "shuffled" (``vaebm.data.interpolation``). It
            is built from the very images that ``load_images("cifar10", ...)`` returns with the same arguments.
        seed: of the pairing "shuffled", and of the sets that are drawn (10,000 images, unless ``n`` says otherwise).
        size: (H, W) to bring the images to, as ``resize`` does; CelebA's pictures are cropped and reduced in one step.
        channels: 1 or 3 to bring the images to, as ``to_channels`` does.

    Returns:
        An ``ImageSet``; fewer than ``n`` images when the place holds fewer, which a note says.

    Raises:
        DataUnavailable: the set is not here and cannot be had now; the line says how to get it.
        UserError: unknown name, split or pairing; a data root or path that does not exist; damaged or unfit images.
    """
    check_pairing(interp)
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}.{did_you_mean(split, SPLITS)}")
    if n is not None and n < 1:
        raise UserError(f"{spec}: asked for {n} images, needed at least 1")
    if size is not None:
        check_size(spec, size)
    named = partial(_named, split=split, data_root=data_root, download=download)
    if spec == "cifar10_interp":
        images = interpolate(named("cifar10", n=n), interp, seed)
    elif spec in PADDED:
        images = pad(named(PADDED[spec], n=n))
    elif spec in STACKED:
        digits = named(STACKED[spec])
        if n is not None and n > 2 * len(digits):
            digits = named(STACKED[spec], n=WHOLE[split])
        images = _cut(stack(digits), n)
    elif spec in SYNTHETIC:  # drawn in the wanted shape: resized noise is another noise
        info = DATASETS[spec]
        images = synthesise(spec, n, (*(size or info.size), channels or info.channels), seed)
    elif spec == "celeba64":
        images = _celeba64(named("celeba", n=n, size=DATASETS[spec].size))
    elif spec in DATASETS:
        images = named(spec, n=n, size=size)
    else:
        own = parse_own(spec)
        if own is None:
            raise UserError(f"unknown data set {spec!r}; give NAME=PATH for your own.{did_you_mean(spec, DATASETS)}")
        images = _cut(read_own(*own, n), n)
    images = resize(images, size) if size else images
    return to_channels(images, channels) if channels else images


def _celeba64(faces: ImageSet) -> ImageSet:
    needed = DATASETS["celeba64"].size
    found = faces.images.shape[1:3]
    if min(found) < min(needed):  # enlarged faces are nothing to train on
        raise DataUnavailable(
            f"celeba64: found {found[0]}x{found[1]} images ({faces.source}), needed 64x64 or larger; put "
            "img_align_celeba/ or img_align_celeba.zip into the data root"
        )
    return replace(resize(faces, needed), name="celeba64")


def _named(
    name: str,
    *,
    split: str,
    n: int | None = None,
    data_root: str | Path | None,
    download: bool,
    size: tuple[int, int] | None = None,
) -> ImageSet:
    notes: list[str] = []
    root = _root(data_root)
    if root is not None:
        found = find_in_root(root, name, split, n, size)
        if found is not None:
            return _cut(found, n)
        notes.append(f"the data root has no {name} ({split})")
    cut = read_bundled(name, split)
    if cut is not None and (n <= len(cut) if n is not None else split == "test"):
        return _cut(cut, n).with_notes(*notes)
    try:
        return _cut(_downloaded(name, split, download), n).with_notes(*notes)
    except DataUnavailable as error:
        if cut is None or split == "train":
            raise DataUnavailable(_how_to_get(name, split, root, str(error))) from None
        return _cut(cut, n).with_notes(*notes, f"no larger set could be had: {error}")


def _root(data_root: str | Path | None) -> Path | None:
    given, flag = (data_root, "--data-root") if data_root else (os.environ.get("VAEBM_DATA"), "VAEBM_DATA")
    if not given:
        return None
    root = Path(given).expanduser()
    if not root.is_dir():
        raise UserError(f"{flag}: {given} is not a folder; needed one that holds data sets")
    return root


def _downloaded(name: str, split: str, download: bool) -> ImageSet:
    if (name, split) not in FILES:
        raise DataUnavailable("there is no download for it")
    if not download:
        raise DataUnavailable("downloads are switched off")
    return read_download(name, split)


def _how_to_get(name: str, split: str, root: Path | None, reason: str) -> str:
    place = "no data root is given" if root is None else f"not in the data root {root}"
    if name == "celeba":
        return (
            f"celeba ({split}): {place}; CelebA may not be redistributed, so it is neither bundled nor downloaded: set "
            "--data-root or VAEBM_DATA to a folder with celeba/img_align_celeba/ or celeba/img_align_celeba.zip"
        )
    if name in PICTURE_SETS:
        return f"{name} ({split}): {place}, {reason}; set --data-root or VAEBM_DATA to {how_to_get(name, split)}"
    files = {**cifar_python.ARCHIVE, "svhn": svhn_mat.FILE[split], **{k: f"{v}/raw/" for k, v in idx.FOLDER.items()}}
    return f"{name} ({split}): {place}, {reason}; set --data-root or VAEBM_DATA to a folder with {files[name]}, or go online"


def _cut(found: ImageSet, n: int | None) -> ImageSet:
    if n is not None and len(found) < n:
        found = found.with_notes(f"asked for {n} images, this place holds {len(found)}")
    cut = found if n is None else found.head(n)
    note = index_note(cut)
    return cut.with_notes(note) if note and note not in cut.notes else cut


def index_note(images: ImageSet) -> str:
    """What ``index`` says about gaps in the official order and unknown splits; "" when nothing."""
    if images.index is None or len(images) == 0:
        return ""
    known = int((images.index >= 0).sum())
    if known < len(images):
        return f"{known} of these {len(images)} images are known official test images, the rest may be of either split"
    first, last = int(images.index.min()), int(images.index.max())
    missing = last - first + 1 - len(images)
    return f"official positions {first} to {last}, {missing} of them missing" if missing > 0 else ""
