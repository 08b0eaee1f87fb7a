"""What a user gives instead of a system: images, statistics or saved features, as NAME=PATH.

    given = read_input("mine", "samples.npz", flag="--samples")

Images are uint8 and nothing else, as everywhere in this project; float arrays are refused with the conversion that fits their range. What
is allowed but often a mistake (a wrong range, stretched contrast, JPEG files, ...) comes back as notes that begin with its name. The order
of colour channels cannot be told from pixels, so RGB is taken for granted.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaebm.data.arrays import as_images, images_key, npz_keys, open_array, read_npz
from vaebm.data.image_set import ImageSet, blocks, images_sha256
from vaebm.data.own import ARRAYS, read_own, user_path
from vaebm.data.resizing import check_size, resize
from vaebm.errors import UserError

# A natural image spans 0 to 255 by chance: one in ten of CIFAR-10, one in 300 of SVHN. This many all doing so is no chance.
_STRETCHED_AT_LEAST = 16
# Digits and drawings span it too, being mostly black and white (82 % of MNIST's values are 0 or 255; 0.9 % of such CIFAR-10 images').
_SATURATED = 0.1
_SYMMETRIC = 1e-6  # of the largest variance


@dataclass(frozen=True, eq=False)
class ImageInput:
    """Images.

    Attributes:
        images: uint8 (N, H, W, C), N >= 2, C = 1 or 3; memory-mapped and read-only when it is a .npy.
        sha256: of shape and pixels, as ``ImageSet.sha256``.
        source: one line for people.
        notes: what a reader of a result must know, each beginning with its name: ``"min-max stretched: ..."``.
    """

    name: str
    images: NDArray[np.uint8]
    sha256: str
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class StatisticsInput:
    """Mean and covariance of features.

    Attributes:
        mu: float64 (D,).
        sigma: float64 (D, D), symmetric.
        n: images behind them, where the file says so (an integer under "n").
        sha256: of both arrays.
    """

    name: str
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int | None
    sha256: str
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FeatureInput:
    """Features of images that somebody else has computed.

    Attributes:
        features: float32 or float64 (N, D), N >= 2, finite.
        sha256: of dtype, shape and values.
    """

    name: str
    features: NDArray[np.float32] | NDArray[np.float64]
    sha256: str
    source: str = ""
    notes: tuple[str, ...] = ()


Input = ImageInput | StatisticsInput | FeatureInput


def read_input(
    name: str, path: str, n: int | None = None, size: tuple[int, int] | None = None, flag: str = "--samples"
) -> Input:
    """Read what the user gave as ``flag`` NAME=PATH.

    Args:
        path: a folder or .zip of picture files, a packed folder, a .npy of images, or a .npz. In a .npz images are under "images", "arr_0"
            or "samples", else "features" (N, D), else "mu" (D,) and "sigma" (D, D) as clean-fid, pytorch-fid and the TTUR code write
            them, else its only array holds the images. The first kind that is there is taken.
        n: take the first ``n`` images or features; statistics are of as many as they are.
        size: (H, W) to bring images to; those that have it are left alone.
        flag: what messages call the option.

    Raises:
        UserError: the path does not exist or is of no known kind; nothing or one image in it; a damaged file (named); images of mixed
            sizes; another dtype than uint8; wrong names in a .npz; pickled objects; a zip that is a bomb or points outside itself; NaN
            or infinity; statistics that are no mean and covariance.
    """
    try:
        if n is not None and n < 1:
            raise UserError(f"{name}: asked for {n} images, needed at least 1")
        if size is not None:
            check_size(name, size)
        file = user_path(path)
        kind = _kind(file)
        if kind == "statistics":
            return _statistics(name, file)
        if kind == "features":
            return _features(name, file, n)
        return _images(name, path, n, size)
    except UserError as error:
        raise UserError(f"{flag} {name}: {str(error).removeprefix(f'{name}: ')}") from None


def inspect(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Notes on images whose values look like a common mistake; empty when nothing does.

    One pass, some megabytes at a time. The names of the notes: "range [0, 1]", "range [-1, 1]", "half range", "min-max stretched", "grey as
    RGB", "constant images", "duplicates".

    Args:
        images: uint8 (N, H, W, C).
    """
    counts = np.zeros(256, dtype=np.int64)
    spans, saturated, digests = [], [], []
    grey = images.shape[3] == 3
    for block in blocks(images):
        flat = block.reshape(len(block), -1)
        counts += np.bincount(flat.ravel(), minlength=256)
        spans.append(np.stack([flat.min(1), flat.max(1)], axis=1))
        saturated.append(((flat == 0) | (flat == 255)).mean(1))
        digests.append(np.array([hashlib.sha256(image.data).digest()[:16] for image in flat], dtype="S16"))
        grey = grey and bool((block == block[..., :1]).all())
    low, high = np.concatenate(spans).T
    values = np.flatnonzero(counts)
    notes = []
    if high.max() == 1:
        notes.append("range [0, 1]: no value above 1; floats in [0, 1] saved as uint8? Convert with np.rint(x * 255)")
    elif set(values) <= {0, 1, 255} and counts[1] and counts[255]:
        notes.append(
            "range [-1, 1]: no values but 0, 1 and 255; floats in [-1, 1] saved as uint8? Convert with np.rint((x + 1) * 127.5)"
        )
    elif low.min() >= 127 and high.max() > low.min():
        notes.append("half range: no value below 127; [0, 1] taken for [-1, 1] when it was saved?")
    elif 64 < high.max() <= 128:
        notes.append("half range: no value above 128; [-1, 1] saved as [0, 1], or [0, 1] times 127.5?")
    varied = low < high
    spanning = (low == 0) & (high == 255)
    typical = np.median(np.concatenate(saturated)[spanning]) if spanning.any() else 1.0
    if varied.sum() >= _STRETCHED_AT_LEAST and spanning[varied].all() and typical < _SATURATED:
        notes.append(
            "min-max stretched: every image spans exactly 0 to 255; saved by save_image(normalize=True), as the released VAEBM code does? "
            "It changes contrast, hence every distance"
        )
    if grey:
        notes.append("grey as RGB: all three channels are equal in every image")
    if not varied.all():
        notes.append(f"constant images: {_share(int((~varied).sum()), len(varied))} have one value throughout")
    distinct = len(np.unique(np.concatenate(digests)))
    if distinct < len(low):
        notes.append(f"duplicates: {_share(len(low) - distinct, len(low))} repeat another one exactly")
    return tuple(notes)


def _kind(file: Path) -> str:
    if file.suffix.lower() != ".npz" or not file.is_file():
        return "images"
    keys = npz_keys(file)
    if keys is None:
        return "images"
    for kind, needed in (
        *(("images", {key}) for key in ("images", "arr_0", "samples")),
        ("features", {"features"}),
        ("statistics", {"mu", "sigma"}),
    ):
        if needed <= set(keys):
            return kind
    if images_key(keys) is None or {"mu", "sigma"} & set(keys):
        raise UserError(
            f"{file}: found arrays {', '.join(keys) or 'nothing'}; needed 'images' (or 'arr_0', 'samples'), 'features', "
            "or 'mu' and 'sigma'"
        )
    return "images"


def _images(name: str, path: str, n: int | None, size: tuple[int, int] | None) -> ImageInput:
    file = user_path(path)
    notes: tuple[str, ...] = ()
    if file.suffix.lower() in ARRAYS and file.is_file():
        raw = open_array(file)[0]
        if raw.ndim == 2 and raw.dtype.kind == "f":
            raise UserError(
                f"{file}: found {raw.dtype} {raw.shape}, needed images; features are given as np.savez(PATH, features=x)"
            )
        images, source = as_images(raw, str(file))[:n], f"array {path}"
    else:
        read = read_own(name, path, n)
        images, source, notes = read.images, read.source, read.notes
    if len(images) < 2:
        raise UserError(f"{source}: found 1 image, needed at least 2; one image has no distribution")
    if size is not None and images.shape[1:3] != tuple(size):
        resized = resize(ImageSet(name, images, source, "", notes=notes), size)
        images, notes = resized.images, resized.notes
    notes = (*notes, *_fewer(n, len(images), "images"), *inspect(images))
    return ImageInput(name, images, images_sha256(images), source, notes)


def _statistics(name: str, file: Path) -> StatisticsInput:
    keys = npz_keys(file) or []
    arrays = read_npz(file, [key for key in ("mu", "sigma", "n") if key in keys])
    mu, sigma = (_real(file, key, arrays[key]).astype(np.float64) for key in ("mu", "sigma"))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or len(mu) == 0:
        raise UserError(f"{file}: found mu {mu.shape} and sigma {sigma.shape}, needed (D,) and (D, D)")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{file}: mu or sigma holds NaN or infinity; compute them again")
    variances = np.diag(sigma)
    if variances.min() < 0 or np.abs(sigma - sigma.T).max() > _SYMMETRIC * max(variances.max(), 0.0):
        raise UserError(
            f"{file}: sigma is no covariance (not symmetric, or a negative variance); compute it again with np.cov"
        )
    n = arrays.get("n")
    if n is not None and (n.size != 1 or n.dtype.kind not in "iu" or int(n.reshape(())) < 2):
        raise UserError(
            f"{file}: found n {n.dtype} {n.tolist()}, needed one integer of at least 2: how many images there were"
        )
    count = None if n is None else int(n.reshape(()))
    return StatisticsInput(name, mu, sigma, count, _sha256(mu, sigma), f"statistics {file}", _unused(keys, arrays))


def _features(name: str, file: Path, n: int | None) -> FeatureInput:
    raw = read_npz(file, ["features"])["features"]
    if raw.ndim != 2 or len(raw) < 2 or raw.shape[1] == 0:
        raise UserError(f"{file}: found features {raw.shape}, needed (N, D) with N of at least 2")
    raw = raw[:n]
    if len(raw) < 2:
        raise UserError(f"{file}: asked for {n} of the features, needed at least 2")
    features = _real(file, "features", raw)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise UserError(
            f"{file}: features of {int(bad.sum())} images are NaN or infinite (the first: image {int(bad.argmax())}); compute them again"
        )
    notes = (*_fewer(n, len(features), "features"), *_unused(npz_keys(file) or [], {"features": raw}))
    return FeatureInput(name, features, _sha256(features), f"features {file}", notes)


def _real(file: Path, what: str, array: np.ndarray) -> np.ndarray:
    """As float32 where it is that, else float64."""
    if array.dtype.kind not in "fiu":
        raise UserError(f"{file}: found {what} of dtype {array.dtype}, needed real numbers")
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _unused(keys: list[str], used: dict[str, np.ndarray]) -> tuple[str, ...]:
    others = [key for key in keys if key not in used]
    return (f"not used: {', '.join(others)} in the same file",) if others else ()


def _fewer(n: int | None, found: int, what: str) -> tuple[str, ...]:
    return (f"fewer than asked for: {found} of {n} {what}",) if n is not None and found < n else ()


def _share(count: int, total: int) -> str:
    return f"{count} of {total} images ({100 * count / total:.3g} %)"
