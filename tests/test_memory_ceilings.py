"""Memory does not grow with the number of images: sets larger than the ceiling, in every form, read and measured in a process of their own.

What is counted is memory that the kernel cannot take back: pages without a file behind them. Those of a memory-mapped file it takes when it
needs them. docs/limits.md states the ceilings.
"""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaebm.data import ImageSet, load_images, resize, spool, to_channels
from vaebm.data.image_set import blocks, images_sha256
from vaebm.data.spool import contiguous, empty, filled, release, taken
from vaebm.errors import UserError

MIB = 2**20
CEILING = 96 * MIB  # of reading and summarising images with the limits as they are, docs/limits.md
SMALL_LIMIT, SMALL_CEILING = 2 * MIB, 24 * MIB  # with a lower limit for what is held in memory
TESTS = Path(__file__).parent

MEASURE = """
import json, resource, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
from suite_bench import FEATURES
from evaluators.features.extractor import load_extractor
from evaluators.features.summary import summarise
from evaluators.inputs import read_input
from vaebm.data import spool
spool.IN_MEMORY = {limit}

def held():
    lines = open("/proc/self/status").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024

def work(path):
    given = read_input("mine", path)
    summary = summarise(given.images, load_extractor(FEATURES), name="mine")
    return given, summary

np.save({small!r}, np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8))
work({small!r})  # what is imported and made once
highest, stop = 0, False

def watch():
    global highest
    while not stop:
        highest = max(highest, held())
        time.sleep(0.002)

before = held()
thread = threading.Thread(target=watch)
thread.start()
given, summary = work({path!r})
stop = True
thread.join()
n, mu, _ = summary.moments.statistics()
found = {{"grown": highest - before, "n": n, "sha256": given.sha256, "mapped": isinstance(given.images, np.memmap)}}
print(json.dumps(found))
"""


def picture_set(n: int, seed: int = 0) -> np.ndarray:
    """Pictures that compress a little, none twice: a number drawn into noise of few levels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 16, (n, 32, 32, 3), dtype=np.uint8) * 9 + 20
    images[:, 0, :4, 0] = np.arange(n, dtype=">u4").view(np.uint8).reshape(n, 4)
    return images


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def as_npy(path: Path, images: np.ndarray) -> Path:
    np.save(path / "x.npy", images)
    return path / "x.npy"


def as_channels_first(path: Path, images: np.ndarray) -> Path:
    np.save(path / "x.npy", images.transpose(0, 3, 1, 2))  # channels first
    return path / "x.npy"


def as_npz(path: Path, images: np.ndarray) -> Path:
    np.savez(path / "x.npz", images=images, labels=np.arange(len(images)))
    return path / "x.npz"


def as_compressed(path: Path, images: np.ndarray) -> Path:
    np.savez_compressed(path / "x.npz", images=images)
    return path / "x.npz"


def as_folder(path: Path, images: np.ndarray) -> Path:
    (path / "x").mkdir()
    for i, image in enumerate(images):
        (path / "x" / f"{i:06}.png").write_bytes(png(image))
    return path / "x"


def as_zip(path: Path, images: np.ndarray) -> Path:
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        for i, image in enumerate(images):
            archive.writestr(f"{i:06}.png", png(image))
    return path / "x.zip"


def measured(path: Path, limit: int) -> dict[str, Any]:
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system does not tell how much memory a process holds")
    small = path.parent / "small.npy"
    code = MEASURE.format(tests=str(TESTS), limit=limit, small=str(small), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("make", "n"),
    [
        (as_npy, 20_000),
        (as_channels_first, 20_000),
        (as_npz, 20_000),
        (as_compressed, 10_000),
        (as_folder, 9_000),
        (as_zip, 9_000),
    ],
)
def test_a_set_larger_than_the_ceiling_fits_below_it(
    tmp_path: Path, make: Callable[[Path, np.ndarray], Path], n: int
) -> None:
    images = picture_set(n)
    assert images.nbytes > SMALL_CEILING
    found = measured(make(tmp_path, images), SMALL_LIMIT)
    print(f"{make.__name__}: {found['grown'] / MIB:.1f} MiB")
    assert found["n"] == n
    assert found["sha256"] == images_sha256(images)
    assert found["mapped"]
    assert found["grown"] < SMALL_CEILING, f"{found['grown'] / MIB:.0f} MiB"


@pytest.mark.slow
@pytest.mark.parametrize("make", [as_npy, as_npz, as_compressed, as_folder, as_zip])
def test_100_000_images_fit_below_the_stated_ceiling(tmp_path: Path, make: Callable[[Path, np.ndarray], Path]) -> None:
    images = picture_set(100_000)
    path, digest = make(tmp_path, images), images_sha256(images)
    del images
    found = measured(path, spool.IN_MEMORY)
    print(f"{make.__name__}: {found['grown'] / MIB:.0f} MiB")
    assert (found["n"], found["sha256"], found["mapped"]) == (100_000, digest, True)
    assert found["grown"] < CEILING, f"{found['grown'] / MIB:.0f} MiB"


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its size, an array of images lies in a file."""
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    monkeypatch.setattr(spool, "BLOCK", 1000)


IMAGES = np.random.default_rng(0).integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)


@pytest.mark.usefixtures("on_disk")
def test_what_lies_in_a_file_is_what_lies_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(source: np.ndarray) -> list[np.ndarray]:
        given = ImageSet("x", source, "", "", np.arange(50))
        picked = np.arange(50) % 3 == 0
        sets = [given, given.head(7), given.take(picked), given.take(np.array([4, 2])), resize(given, (4, 5))]
        return [one.images for one in (*sets, to_channels(given, 1), to_channels(to_channels(given, 1), 3))]

    in_files = everything(IMAGES)
    assert all(isinstance(array, np.memmap) for array in in_files[2:])
    monkeypatch.setattr(spool, "IN_MEMORY", 2**30)
    in_memory = everything(IMAGES)
    assert not any(isinstance(array, np.memmap) for array in in_memory)
    for one, other in zip(in_files, in_memory, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("make", [as_npz, as_compressed, as_folder, as_zip, as_channels_first])
def test_images_and_labels_are_the_same_from_files(tmp_path: Path, make: Callable[[Path, np.ndarray], Path]) -> None:
    found = load_images(f"mine={make(tmp_path, IMAGES)}", n=30)
    assert isinstance(found.images, np.memmap)
    assert found.images.flags.c_contiguous
    np.testing.assert_array_equal(found.images, IMAGES[:30])
    if make is as_npz:
        assert found.labels is not None
        assert found.labels.tolist() == list(range(30))


@pytest.mark.usefixtures("on_disk")
def test_a_member_that_is_not_compressed_is_mapped_where_it_lies(tmp_path: Path) -> None:
    found = load_images(f"mine={as_npz(tmp_path, IMAGES)}")
    base: Any = found.images
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert Path(base.filename).name == "x.npz"
    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("make", [as_npz, as_compressed])
def test_damage_is_found_before_anything_is_mapped(tmp_path: Path, make: Callable[[Path, np.ndarray], Path]) -> None:
    path = make(tmp_path, IMAGES)
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.npz: cannot be read"):
        load_images(f"mine={path}")


def test_letting_go_loses_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    for mode in ("r", "r+", "c"):
        array = np.load(tmp_path / "x.npy", mmap_mode=mode)
        if mode != "r":
            array[0] = 7
        release(array[3:])
        release(array.transpose(0, 3, 1, 2))
        expected = IMAGES.copy()
        expected[0] = 7 if mode != "r" else IMAGES[0]
        np.testing.assert_array_equal(array, expected)
        np.save(tmp_path / "x.npy", IMAGES)
    release(IMAGES)  # no file behind it: nothing happens


def test_a_file_without_a_name_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 10)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    array = empty((5, 4), "x", np.float32)
    array[...] = np.arange(20).reshape(5, 4)
    assert list(tmp_path.iterdir()) == []
    release(array)
    np.testing.assert_array_equal(array, np.arange(20, dtype=np.float32).reshape(5, 4))
    assert not isinstance(empty((2, 4), "x"), np.memmap)


def test_contiguous_and_taken_copy_only_what_they_must() -> None:
    assert contiguous(IMAGES, "x") is IMAGES
    turned = contiguous(IMAGES.transpose(0, 2, 1, 3), "x")
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, IMAGES.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(taken(IMAGES, np.array([3, 3, 0]), "x"), IMAGES[[3, 3, 0]])
    assert len(taken(IMAGES, np.zeros(50, bool), "x")) == 0
    seen: list[slice] = []
    filled((50, 8, 6, 3), lambda rows: (seen.append(rows), IMAGES[rows])[1], "x", [])
    assert seen[0].start == 0
    assert sum(len(IMAGES[rows]) for rows in seen) == 50
    assert sum(map(len, blocks(IMAGES))) == 50


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = as_zip(tmp_path, IMAGES)
    monkeypatch.setattr(spool, "IN_MEMORY", 10)
    monkeypatch.setattr(spool.os, "posix_fallocate", full)
    with pytest.raises(
        UserError, match=r"x\.zip: .* needs 7,200 bytes in the temporary folder .* \(No space left.*TMPDIR"
    ) as caught:
        load_images(f"mine={path}")
    assert "\n" not in str(caught.value)


def test_a_temporary_folder_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_compressed(tmp_path, IMAGES)
    monkeypatch.setattr(spool, "IN_MEMORY", 10)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"x\.npz.* needs 7,200 bytes in the temporary folder .*gone"):
        load_images(f"mine={path}")
