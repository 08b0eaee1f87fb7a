"""Sets that exist as picture files of many sizes and are brought to one square size while they are read.

The published models train on them with: shorter side to S (Pillow bilinear, antialiased), then a crop of S x S. It is the
centre, except for the training images of LSUN, whose crop is random. There it is drawn once per picture, keyed by the
file's name, and not afresh in every epoch as in the released code: one array then holds the set, and over the set the
positions have the same distribution. (Mirroring is a matter of training.) ``lsun_crop`` is cropped and not reduced.

None of these sets can be downloaded by name: they come from the data root. For a folder name STEM (below) and a split:
``ROOT/STEM_SPLIT/``, ``ROOT/STEM_SPLIT.zip``, ``ROOT/STEM/SPLIT/``, ``ROOT/STEM/SPLIT.zip``; for "test" also
``ROOT/STEM/`` and ``ROOT/STEM.zip``. The picture files may lie in subfolders. Decoding a hundred thousand of them takes
minutes, so what came out once may be kept: ``np.save(f"{ROOT}/lsun_church64_train.npy", found.images)`` is read instead.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from PIL import Image

from vaebm.data.folder import PictureFiles, folder_files, picture_names, zip_files
from vaebm.data.image_set import ImageSet
from vaebm.data.pictures import Prepare
from vaebm.data.resizing import resize_picture
from vaebm.errors import UserError


@dataclass(frozen=True)
class PictureSet:
    """How a set of pictures is found and cropped.

    Attributes:
        stem: name of its folder or zip in the data root.
        side: S, pixels of a side of the result.
        random_crop: whether the training split is cropped at random.
        origin: what the folder has to hold, for people.
        reduced: whether pictures are reduced before they are cropped.
        mixed: whether the order is that of a hash of the files' names, not of the names themselves. Where these are those
            of classes, the first pictures would be of the first classes.
    """

    stem: str
    side: int
    random_crop: bool
    origin: str
    reduced: bool = True
    mixed: bool = False


PICTURE_SETS: Mapping[str, PictureSet] = MappingProxyType(
    {
        "lsun_church64": PictureSet("lsun_church", 64, True, "LSUN's church_outdoor exported from its LMDB"),
        "celebahq256": PictureSet("celebahq", 256, False, "CelebA-HQ, 256x256 or larger"),
        "ffhq256": PictureSet("ffhq", 256, False, "FFHQ, 256x256 or larger"),
        "imagenet32": PictureSet("imagenet32", 32, False, "ImageNet at 32x32"),
        # Called as their archives unpack, so that these serve as they are.
        "textures": PictureSet("dtd", 32, False, "DTD, as dtd-r1.0.1.tar.gz unpacks", mixed=True),
        "places365": PictureSet("places365", 32, False, "Places365, such as its val_256/", mixed=True),
        "tiny_imagenet": PictureSet("tiny-imagenet-200", 32, False, "as tiny-imagenet-200.zip unpacks", mixed=True),
        "lsun_crop": PictureSet("LSUN", 32, False, "ODIN's crops, as its LSUN.tar.gz unpacks", reduced=False),
        "lsun_resize": PictureSet("LSUN_resize", 32, False, "as ODIN's LSUN_resize.tar.gz unpacks"),
    }
)


def read_picture_set(root: Path, name: str, split: str, n: int | None) -> ImageSet | None:
    """The first ``n`` pictures of a split of ``PICTURE_SETS[name]``, in order of their names (or of a hash of these, where the
    set is ``mixed``); None if it is not there.

    Returns:
        uint8 (N, S, S, 3); grey pictures become RGB.

    Raises:
        UserError: a picture is unreadable, or smaller than S x S.
    """
    recipe = PICTURE_SETS[name]
    random_crop = recipe.random_crop and split == "train"
    prepare = _to_square(recipe, random_crop)
    place = "random, one position per picture, by its name" if random_crop else "centre"
    note = f"shorter side to {recipe.side} (Pillow bilinear, antialiased), " if recipe.reduced else ""
    note += f"crop {recipe.side}x{recipe.side}: {place}"
    note += "; order mixed by file names" if recipe.mixed else ""

    def read(files: PictureFiles, kind: str, path: Path, vouched: str) -> ImageSet:
        if recipe.mixed:
            files = PictureFiles(sorted(files.names, key=_digest), files.open_file, files.where)
        source = f"data root: {kind} {path.relative_to(root).as_posix()} ({files.summary()})"
        return ImageSet(name, files.read(n, prepare), source, vouched, notes=(note,))

    for path, vouched in _candidates(root, recipe.stem, split):
        if path.is_dir() and any(True for _ in picture_names(path)):
            return read(folder_files(path, f"{name}: folder {path}"), "folder", path, vouched)
        archive = path.with_name(f"{path.name}.zip")
        if archive.is_file():
            with zip_files(archive, f"{name}: zip {archive}") as files:
                return read(files, "zip", archive, vouched)
    return None


def how_to_get(name: str, split: str) -> str:
    """What the data root has to hold."""
    recipe = PICTURE_SETS[name]
    stem = f"{recipe.stem}_{split}"
    whole = f", or {recipe.stem}/" if split == "test" else ""
    return f"a folder with {stem}/ or {stem}.zip{whole} of picture files ({recipe.origin})"


def _candidates(root: Path, stem: str, split: str) -> Iterator[tuple[Path, str]]:
    """Paths, each with the split that its name vouches for; without a split in its name it is never taken to train on."""
    yield root / f"{stem}_{split}", split
    yield root / stem / split, split
    if split == "test":
        yield root / stem, ""


def _to_square(recipe: PictureSet, random_crop: bool) -> Prepare:
    side = recipe.side

    def prepare(picture: Image.Image, name: str, where: str) -> Image.Image:
        width, height = picture.size
        short = min(width, height)
        if short < side:
            raise UserError(f"{where}: {name} is {height}x{width}, needed at least {side}x{side}; give larger pictures")
        scale = side if recipe.reduced else short
        size = (scale * height // short, scale * width // short)  # (H, W); the longer side is rounded down
        resized = resize_picture(picture.convert("RGB"), size)
        free = size[1] - side, size[0] - side  # room to the right of and below the crop
        left, upper = _position(name, free) if random_crop else (round(free[0] / 2), round(free[1] / 2))
        return resized.crop((left, upper, left + side, upper + side))

    return prepare


def _position(name: str, free: tuple[int, int]) -> tuple[int, int]:
    """Uniform on 0..free for both axes, from a hash of the file's name without folder and suffix."""
    digest = _digest(name)
    across, down = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return across % (free[0] + 1), down % (free[1] + 1)


def _digest(name: str) -> bytes:
    """Of a file's name without folder and suffix."""
    return hashlib.blake2b(PurePosixPath(name).stem.encode(), digest_size=16).digest()
