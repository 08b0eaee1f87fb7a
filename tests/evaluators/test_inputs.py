"""What users give: every kind that is read, every note by name, and every mistake in one line that names file and remedy."""

import io
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaebm.data.folder
import vaebm.data.pictures
from evaluators.inputs import FeatureInput, ImageInput, StatisticsInput, inspect, read_input
from vaebm.data import ImageSet, load_images, resize
from vaebm.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(3, 250, (20, 8, 6, 3), dtype=np.uint8)
GREY = RGB[..., :1]
FEATURES = RNG.normal(size=(50, 5))
MU, SIGMA = FEATURES.mean(0), np.cov(FEATURES, rowvar=False)


def encoded(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, kind, **options)
    return stream.getvalue()


def write_folder(
    folder: Path, images: np.ndarray = RGB, kind: str = "PNG", suffix: str = "", **options: object
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:04}.{suffix or kind.lower()}").write_bytes(encoded(image, kind, **options))
    return folder


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


# --- images ----------------------------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda t: write_folder(t / "x"),
    "nested folders": lambda t: write_folder(t / "x" / "a", RGB[:7]) and write_folder(t / "x" / "b", RGB[7:]).parent,
    "zip": lambda t: write_zip(t / "x.zip", {f"{i:04}.png": encoded(x) for i, x in enumerate(RGB)}),
    "nested zip": lambda t: write_zip(t / "x.zip", {f"a/b/{i:04}.png": encoded(x) for i, x in enumerate(RGB)}),
    "npy": lambda t: npy(t / "x.npy", RGB),
    "channels first": lambda t: npy(t / "x.npy", RGB.transpose(0, 3, 1, 2)),
    "images": lambda t: npz(t / "x.npz", images=RGB, labels=np.arange(20)),
    "arr_0": lambda t: npz(t / "x.npz", arr_0=RGB, other=np.zeros(3)),
    "samples": lambda t: npz(t / "x.npz", samples=RGB, y=np.zeros(3)),
    "any one name": lambda t: npz(t / "x.npz", x=RGB),
    "images and statistics": lambda t: npz(t / "x.npz", arr_0=RGB, mu=MU, sigma=SIGMA, mu_s=MU, sigma_s=SIGMA),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_same_images_from_anywhere(tmp_path: Path, place: str) -> None:
    path = PLACES[place](tmp_path)
    found = read_input("mine", str(path))
    assert isinstance(found, ImageInput)
    assert found.name == "mine"
    assert found.notes == ()
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images, RGB)
    assert found.sha256 == ImageSet("x", RGB, "", "").sha256
    assert str(path) in found.source
    some = read_input("mine", str(path), n=7)
    assert isinstance(some, ImageInput)
    np.testing.assert_array_equal(some.images, RGB[:7])
    assert some.sha256 == ImageSet("x", RGB[:7], "", "").sha256
    more = read_input("mine", str(path), n=30)
    assert more.notes == ("fewer than asked for: 20 of 30 images",)


@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 3, 1, 2)])
def test_a_npy_stays_on_disk(tmp_path: Path, layout: tuple[int, ...]) -> None:
    images = np.zeros((20_000, 32, 32, 3), np.uint8).transpose(layout)
    path = npy(tmp_path / "x.npy", np.ascontiguousarray(images))
    tracemalloc.start()
    found = read_input("mine", str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, ImageInput)
    assert isinstance(found.images, np.memmap)
    assert found.images.shape == (20_000, 32, 32, 3)
    assert peak < images.nbytes  # of what is looked at together


def test_size_is_that_of_vaebm_data(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", RGB)
    found = read_input("mine", str(path), size=(4, 4))
    assert isinstance(found, ImageInput)
    expected = resize(ImageSet("x", RGB, "", ""), (4, 4))
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.sha256 == expected.sha256
    assert "resized from 8x6 to 4x4" in found.notes[0]
    assert read_input("mine", str(path), size=(8, 6)).notes == ()


# --- notes -----------------------------------------------------------------------------------------------------------


def stretched(images: np.ndarray) -> np.ndarray:
    x = images.astype(float)
    low, high = x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True)
    return np.rint((x - low) / (high - low) * 255).astype(np.uint8)


SMOOTH = np.linspace(0.05, 0.9, RGB.size).reshape(RGB.shape)

NOTES: dict[str, tuple[np.ndarray, str]] = {
    "range [0, 1]": ((RGB > 120).astype(np.uint8), "no value above 1"),
    "range [-1, 1]": (RNG.choice(np.array([0, 1, 255], np.uint8), RGB.shape), "0, 1 and 255"),
    "half range": (127 + RGB // 2, "no value below 127"),
    "half range ": (RGB // 2, "no value above 128"),
    "min-max stretched": (stretched(RGB), "normalize=True"),
    "grey as RGB": (GREY.repeat(3, 3), "equal in every image"),
    "constant images": (np.concatenate([RGB[:-1], RGB[:1] * 0]), "1 of 20 images (5 %)"),
    "duplicates": (np.concatenate([RGB[:15], RGB[:5]]), "5 of 20 images (25 %) repeat"),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_mistake_is_noted_by_its_name_and_alone(tmp_path: Path, name: str) -> None:
    images, detail = NOTES[name]
    (note,) = inspect(images)
    assert note.startswith(f"{name.strip()}: ")
    assert detail in note
    assert "\n" not in note
    assert read_input("mine", str(npy(tmp_path / "x.npy", images))).notes == (note,)


@pytest.mark.parametrize(
    "images",
    [
        RGB,
        GREY,
        np.where(RGB > 120, np.uint8(255), np.uint8(0)),  # drawings
        stretched(RGB)[:10],  # too few to tell
        np.concatenate([stretched(RGB), RGB[:1]]),
    ],
)
def test_what_is_no_mistake_is_not_noted(images: np.ndarray) -> None:
    assert inspect(images) == ()


@pytest.mark.parametrize("name", ["cifar10", "svhn", "cifar100", "mnist", "stacked_mnist"])
def test_real_images_are_not_suspected(name: str) -> None:
    images = load_images(name, n=1000, download=False).images
    assert [note for note in inspect(images) if not note.startswith("duplicates")] == []
    if name != "mnist" and name != "stacked_mnist":
        assert any(note.startswith("min-max stretched") for note in inspect(stretched(images)))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([stretched(RGB), stretched(RGB)[:2]])
    whole = inspect(images)
    monkeypatch.setattr("vaebm.data.image_set._BLOCK", 1)
    assert inspect(images) == whole
    assert len(whole) == 2


def notes_of(path: Path) -> list[str]:
    return [note.split(":")[0] for note in read_input("mine", str(path)).notes]


def test_lossy_and_mixed_files_are_noted_by_content(tmp_path: Path) -> None:
    assert notes_of(write_folder(tmp_path / "jpeg", RGB, "JPEG")) == ["lossy files"]
    assert notes_of(write_folder(tmp_path / "misnamed", RGB, "JPEG", suffix="png")) == ["lossy files"]
    assert notes_of(write_folder(tmp_path / "webp", RGB, "WEBP", lossless=True)) == []
    assert notes_of(write_folder(tmp_path / "lossy", RGB, "WEBP", quality=50)) == ["lossy files"]
    write_folder(tmp_path / "mixed", RGB[:5])
    write_folder(tmp_path / "mixed", RGB[5:8], "JPEG")
    found = read_input("mine", str(tmp_path / "mixed")).notes
    assert found[0].startswith("mixed file kinds: 3 jpeg, 5 png")
    assert found[1].startswith("lossy files: 3 of 8 are jpeg")
    # Only the files that are read are looked at.
    assert read_input("mine", str(tmp_path / "mixed"), n=2).notes[0].startswith("mixed file kinds: 1 jpeg, 1 png")
    members = {f"{i}.jpg": encoded(image, "JPEG") for i, image in enumerate(RGB)}
    assert notes_of(write_zip(tmp_path / "x.zip", members)) == ["lossy files"]


# --- statistics and features -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [{}, {"n": np.array(50)}, {"mu_s": MU, "sigma_s": SIGMA}])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_statistics_of_peers(tmp_path: Path, layout: dict, dtype: type) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, mu=MU.astype(dtype), sigma=SIGMA.astype(dtype), **layout)
    found = read_input("mine", str(path), flag="--reference")
    assert isinstance(found, StatisticsInput)
    assert found.mu.dtype == found.sigma.dtype == np.float64
    np.testing.assert_array_equal(found.mu, MU.astype(dtype))
    np.testing.assert_array_equal(found.sigma, SIGMA.astype(dtype))
    assert found.n == (50 if "n" in layout else None)
    assert found.notes == (("not used: mu_s, sigma_s in the same file",) if "mu_s" in layout else ())
    other = npz(tmp_path / "y.npz", mu=MU + 1e-9, sigma=SIGMA)
    assert read_input("mine", str(other)).sha256 != found.sha256
    assert read_input("mine", str(path)).sha256 == found.sha256


@pytest.mark.parametrize(("dtype", "kept"), [("f8", "f8"), ("f4", "f4"), ("f2", "f8"), ("i4", "f8")])
def test_features(tmp_path: Path, dtype: str, kept: str) -> None:
    features = FEATURES.astype(dtype)
    found = read_input("mine", str(npz(tmp_path / "x.npz", features=features)))
    assert isinstance(found, FeatureInput)
    assert found.features.dtype == np.dtype(kept)
    np.testing.assert_array_equal(found.features, features)
    few = read_input("mine", str(tmp_path / "x.npz"), n=9)
    assert isinstance(few, FeatureInput)
    np.testing.assert_array_equal(few.features, features[:9])
    assert few.sha256 != found.sha256
    assert read_input("mine", str(tmp_path / "x.npz"), n=60).notes == ("fewer than asked for: 50 of 60 features",)


# --- mistakes --------------------------------------------------------------------------------------------------------


def holes(array: np.ndarray, value: float = np.nan) -> np.ndarray:
    found = array.astype(np.float32)
    found[3] = value
    return found


def truncated(path: Path, share: float = 0.5) -> Path:
    os.truncate(path, int(path.stat().st_size * share))
    return path


def with_file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder


def pickled(path: Path) -> Path:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


def folder_of(path: Path, name: str = "0.txt") -> Path:
    path.mkdir()
    (path / name).write_text("")
    return path


JUNK = RNG.integers(0, 256, 4000, dtype=np.uint8).tobytes()

MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such path": (lambda t: t / "no.npz", r"no\.npz does not exist; needed a folder, \.zip, \.npy or \.npz"),
    "another kind of file": (lambda t: with_file(t, "x.pt", b"x") / "x.pt", "is no folder, .zip, .npy or .npz"),
    "empty folder": (lambda t: folder_of(t / "x"), "no image in it, needed png"),
    "hidden files only": (lambda t: folder_of(t / "x", ".a.png"), "no image in it"),
    "empty zip": (lambda t: write_zip(t / "x.zip", {}), "no image in it"),
    "empty array": (lambda t: npy(t / "x.npy", RGB[:0]), r"found uint8 \(0, 8, 6, 3\), needed uint8 .* none of them 0"),
    "one image in a folder": (lambda t: write_folder(t / "x", RGB[:1]), "found 1 image, needed at least 2"),
    "one image in an array": (lambda t: npy(t / "x.npy", RGB[:1]), "found 1 image, needed at least 2"),
    "mixed sizes": (
        lambda t: with_file(write_folder(t / "x"), "z.png", encoded(RGB[0, :4])),
        "z.png is 4x6 RGB but 0000.png is 8x6 RGB",
    ),
    "mixed colours": (
        lambda t: with_file(write_folder(t / "x"), "z.png", encoded(GREY[0])),
        "z.png is 8x6 grey but 0000.png is 8x6 RGB",
    ),
    "truncated png": (
        lambda t: truncated(write_folder(t / "x") / "0013.png").parent,
        r"cannot read 0013\.png as an image .*; remove or replace it",
    ),
    "empty png": (lambda t: with_file(write_folder(t / "x"), "0013.png", b""), r"cannot read 0013\.png"),
    "text called png": (lambda t: with_file(write_folder(t / "x"), "0013.png", b"hello"), r"cannot read 0013\.png"),
    "truncated jpeg": (
        lambda t: truncated(write_folder(t / "x", RGB, "JPEG") / "0013.jpeg").parent,
        r"cannot read 0013\.jpeg",
    ),
    "transparent png": (
        lambda t: with_file(write_folder(t / "x"), "z.png", encoded(np.dstack([RGB[0], GREY[0]]))),
        r"z\.png has transparent pixels; needed 8-bit grey or RGB",
    ),
    "floats in [0, 1]": (lambda t: npy(t / "x.npy", RGB / 255), r"convert with np.rint\(x \* 255\)"),
    "floats in [-1, 1]": (
        lambda t: npz(t / "x.npz", images=RGB / 127.5 - 1),
        r"convert with np.rint\(\(x \+ 1\) \* 127.5\)",
    ),
    "NaN images": (lambda t: npy(t / "x.npy", holes(RGB / 255)), "found float32 .* it holds NaN or infinity"),
    "infinite images": (lambda t: npz(t / "x.npz", images=holes(RGB, np.inf)), "it holds NaN or infinity"),
    "integers": (lambda t: npy(t / "x.npy", RGB.astype(np.int64)), r"convert with x.astype\(np.uint8\)"),
    "four channels": (lambda t: npy(t / "x.npy", RGB[..., [0, 1, 2, 0]]), r"found uint8 \(20, 8, 6, 4\)"),
    "features called images": (lambda t: npz(t / "x.npz", images=FEATURES), r"np.savez\(PATH, features=x\)"),
    "features as npy": (lambda t: npy(t / "x.npy", FEATURES), r"np.savez\(PATH, features=x\)"),
    "wrong names": (
        lambda t: npz(t / "x.npz", a=RGB, b=RGB),
        "found arrays a, b; needed 'images' .*, 'features', or 'mu' and 'sigma'",
    ),
    "mu alone": (lambda t: npz(t / "x.npz", mu=MU), "found arrays mu; needed"),
    "mu and cov": (lambda t: npz(t / "x.npz", mu=MU, cov=SIGMA), "found arrays mu, cov; needed"),
    "empty npz": (lambda t: npz(t / "x.npz"), "found arrays nothing; needed"),
    "pickled npy": (lambda t: pickled(t / "x.npy"), "pickled Python objects, which are never loaded"),
    "pickled npz": (
        lambda t: npz(t / "x.npz", images=np.array([{}])),
        "pickled Python objects, which are never loaded",
    ),
    "pickled features": (lambda t: npz(t / "x.npz", features=np.array([{}])), "which are never loaded"),
    "truncated npy": (lambda t: truncated(npy(t / "x.npy", RGB)), r"x\.npy: cannot be read .*; save it again"),
    "truncated npz": (lambda t: truncated(npz(t / "x.npz", images=RGB)), r"x\.npz: cannot be read .*; save it again"),
    "junk called npz": (lambda t: with_file(t, "x.npz", JUNK) / "x.npz", r"x\.npz: cannot be read"),
    "empty npz file": (lambda t: with_file(t, "x.npz", b"") / "x.npz", r"x\.npz: cannot be read"),
    "junk called zip": (lambda t: with_file(t, "x.zip", JUNK) / "x.zip", "not a readable zip archive"),
    "truncated zip": (
        lambda t: truncated(write_zip(t / "x.zip", {"a.png": encoded(RGB[0]), "b.png": encoded(RGB[1])})),
        "not a readable zip archive",
    ),
    "truncated png in a zip": (
        lambda t: write_zip(t / "x.zip", {"a.png": encoded(RGB[0]), "b.png": encoded(RGB[1])[:120]}),
        r"cannot read b\.png",
    ),
    "zip that leaves itself": (
        lambda t: write_zip(t / "x.zip", {"a.png": encoded(RGB[0]), "../b.png": encoded(RGB[1])}),
        "points outside the archive",
    ),
    "zip bomb": (
        lambda t: write_zip(t / "x.zip", {"a.png": encoded(RGB[0]), "b.png": bytes(200_000)}),
        "holds 20.* bytes uncompressed, the limit is 100,000; give the unpacked folder",
    ),
    "npz bomb": (
        lambda t: np.savez_compressed(t / "x.npz", images=np.zeros((200, 32, 32, 1), np.uint8)) or t / "x.npz",
        r"the limit is 100,000; save the images as \.npy",
    ),
    "statistics of other shapes": (
        lambda t: npz(t / "x.npz", mu=MU, sigma=np.eye(4)),
        r"found mu \(5,\) and sigma \(4, 4\), needed \(D,\) and \(D, D\)",
    ),
    "a row for a mean": (lambda t: npz(t / "x.npz", mu=MU[None], sigma=SIGMA), r"found mu \(1, 5\)"),
    "NaN statistics": (lambda t: npz(t / "x.npz", mu=MU, sigma=holes(SIGMA)), "holds NaN or infinity"),
    "complex statistics": (lambda t: npz(t / "x.npz", mu=MU, sigma=SIGMA * 1j), "complex128, needed real numbers"),
    "no covariance": (lambda t: npz(t / "x.npz", mu=MU, sigma=np.triu(SIGMA)), "sigma is no covariance"),
    "negative variance": (lambda t: npz(t / "x.npz", mu=MU, sigma=-SIGMA), "sigma is no covariance"),
    "statistics of one image": (lambda t: npz(t / "x.npz", mu=MU, sigma=SIGMA, n=1), "found n int64 1, needed"),
    "half an image": (lambda t: npz(t / "x.npz", mu=MU, sigma=SIGMA, n=2.5), "found n float64 2.5, needed"),
    "NaN features": (
        lambda t: npz(t / "x.npz", features=holes(FEATURES)),
        r"features of 1 images are NaN or infinite \(the first: image 3\)",
    ),
    "one feature vector": (
        lambda t: npz(t / "x.npz", features=FEATURES[:1]),
        r"found features \(1, 5\), needed \(N, D\)",
    ),
    "spatial features": (lambda t: npz(t / "x.npz", features=FEATURES[..., None]), r"found features \(50, 5, 1\)"),
    "text for features": (lambda t: npz(t / "x.npz", features=np.full((3, 2), "a")), "needed real numbers"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_option_file_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    if "bomb" in mistake:
        monkeypatch.setattr(vaebm.data.folder, "MAX_ZIP_BYTES", 100_000)
    make, message = MISTAKES[mistake]
    path = make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read_input("mine", str(path), flag="--reference")
    said = str(caught.value)
    assert said.startswith("--reference mine: ")
    assert said.count("mine: ") == 1
    assert str(path) in said
    assert "\n" not in said


def test_impossible_numbers(tmp_path: Path) -> None:
    path = str(npy(tmp_path / "x.npy", RGB))
    for arguments, message in (
        ({"n": 0}, "asked for 0"),
        ({"n": 1}, "found 1 image"),
        ({"size": (0, 4)}, "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            read_input("mine", path, **arguments)
    with pytest.raises(UserError, match="asked for 1 of the features, needed at least 2"):
        read_input("mine", str(npz(tmp_path / "x.npz", features=FEATURES)), n=1)


def test_a_truncated_file_among_thousands_is_found_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    data = encoded(RGB[0])
    for i in range(3000):
        (folder / f"{i:05}.png").write_bytes(data if i != 2990 else data[:-30])
    decoded = []
    decode = vaebm.data.pictures.decode
    spy = lambda name, *rest: (decoded.append(name), decode(name, *rest))[1]
    monkeypatch.setattr(vaebm.data.folder, "decode", spy)
    monkeypatch.setattr(vaebm.data.pictures, "decode", spy)
    began = time.perf_counter()
    with pytest.raises(UserError, match=r"cannot read 02990\.png"):
        read_input("mine", str(folder))
    assert decoded == ["02990.png"]
    assert time.perf_counter() - began < 10
    monkeypatch.undo()
    assert len(read_input("mine", str(folder), n=2000).images) == 2000


def test_bytes_after_the_end_of_a_picture_do_no_harm(tmp_path: Path) -> None:
    folder = with_file(write_folder(tmp_path / "x"), "0003.png", encoded(RGB[3]) + b"appended")
    found = read_input("mine", str(folder))
    assert isinstance(found, ImageInput)
    np.testing.assert_array_equal(found.images, RGB)
    assert found.notes == ()


def test_more_than_memory_holds_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, empty = write_folder(tmp_path / "x"), np.empty

    def no_memory(shape: tuple[int, ...], *args: object, **kwargs: object) -> np.ndarray:
        if shape == (20, 8, 6, 3):
            raise MemoryError
        return empty(shape, *args, **kwargs)

    monkeypatch.setattr(vaebm.data.pictures.np, "empty", no_memory)
    with pytest.raises(UserError, match=r"20 images of 8x6 RGB need 0 GiB of memory; give fewer or smaller ones"):
        read_input("mine", str(folder))
