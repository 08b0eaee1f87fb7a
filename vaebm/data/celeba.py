"""CelebA from the user's own copy of the aligned pictures. It may not be redistributed: never bundled, never packed.

Each 218 x 178 picture is cropped to the 148 x 148 box (left 15, upper 40, right 163, lower 188), as in the official
NVAE and VAEBM code for CelebA 64, and then brought to the wanted size in one step. (IGEBM, JEM and HDGE did not crop
for their OOD column.)
"""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vaebm.data.folder import PictureFiles, folder_files, zip_files
from vaebm.data.image_set import ImageSet
from vaebm.data.resizing import resize_picture
from vaebm.errors import UserError

ALIGNED = (178, 218)  # (W, H) of the published pictures
BOX = (15, 40, 163, 188)
# Official partition, by the number in the file name (the published list_eval_partition.txt is contiguous).
PARTITION = {"train": (1, 162_770), "test": (182_638, 202_599)}


def read_celeba(path: Path, split: str, n: int | None, size: tuple[int, int], source: str) -> ImageSet | None:
    """The first ``n`` cropped faces of a partition, from the folder or zip of ``img_align_celeba``.

    Returns:
        uint8 (N, H, W, 3) at ``size`` = (H, W), with ``index`` = the number in the file name. When ``path`` holds no
        image of the test partition, what it holds, with ``split`` "" and a note; None for a missing train partition.

    Raises:
        UserError: unreadable pictures, or pictures of another size than 218 x 178.
    """
    if path.is_dir():
        return _read(folder_files(path, f"celeba: folder {path}"), split, n, size, source)
    with zip_files(path, f"celeba: zip {path}") as files:
        return _read(files, split, n, size, source)


def _read(files: PictureFiles, split: str, n: int | None, size: tuple[int, int], source: str) -> ImageSet | None:
    numbers = np.array([_number(name) for name in files.names], dtype=np.int64)
    chosen, split, notes = of_partition(numbers, split)
    if len(chosen) == 0:
        return None
    chosen = chosen[:n]
    wanted = PictureFiles([files.names[k] for k in chosen], files.open_file, files.where)
    images = wanted.read(prepare=lambda picture, name, where: _crop(picture, name, where, size))
    crop = f"cropped to the box {BOX}, then to {size[0]}x{size[1]} (Pillow bilinear, antialiased)"
    return ImageSet("celeba", images, source, split, index=numbers[chosen], notes=(crop, *notes))


def _crop(picture: Image.Image, name: str, where: str, size: tuple[int, int]) -> Image.Image:
    if picture.size != ALIGNED:
        width, height = picture.size
        raise UserError(
            f"{where}: {name} is {height}x{width}, needed the aligned CelebA pictures of 218x178; pictures cropped "
            "already are read with celeba=PATH"
        )
    return resize_picture(picture.crop(BOX), size)


def of_partition(numbers: np.ndarray, split: str) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Positions of the images of a partition; for "test" all of them, with split "" and a note, if it has none.

    As out-of-distribution data for another set's model any partition serves; to train on, only the right one does.
    """
    first, last = PARTITION[split]
    chosen = np.flatnonzero((numbers >= first) & (numbers <= last))
    if len(chosen) or split == "train":
        return chosen, split, ()
    return np.arange(len(numbers)), "", ("no image of CelebA's test partition here; these are of its other partitions",)


def _number(name: str) -> int:
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() else -1
