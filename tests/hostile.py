"""Hostile and broken inputs for every door, each with the command that is given it. Nothing here is ever run by who wrote it.

A case is a function that writes an input under a folder and returns the command line: ``Command(door, arguments, named)``, where
``named`` is what the one line on stderr has to name.
"""

import functools
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from suite_bench import FEATURES

import baselines

CHECKPOINTS = Path(baselines.__file__).parent / "checkpoints"
RNG = np.random.default_rng(0)
RGB = RNG.integers(3, 250, (20, 8, 8, 3), dtype=np.uint8)
N = np.random.default_rng(1).normal(size=(60, 5))
MU, SIGMA = N.mean(0), np.cov(N, rowvar=False)
OWNED = "owned"  # what a pickle that is run would leave behind in the working folder


@dataclass(frozen=True)
class Command:
    """``door`` is "benchmark", "board", "vaebm" or "baselines"; ``named`` what stderr must name."""

    door: str
    arguments: list[str]
    named: str


Case = Callable[[Path], Command]
CASES: dict[str, Case] = {}
SLOW: set[str] = (
    set()
)  # those that take seconds, and those that knock at a second door with what was refused at the first


class Evil:
    """A pickle of it runs a shell."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {OWNED}",)


def case(name: str, slow: bool = False) -> Callable[[Case], Case]:
    def add(make: Case) -> Case:
        assert name not in CASES
        CASES[name] = make
        if slow:
            SLOW.add(name)
        return make

    return add


# --- doors -----------------------------------------------------------------------------------------------------------


def generation(*more: str) -> list[str]:
    return ["--suite", "generation", "--systems", "none", "--features", FEATURES, "--offline", "--no-progress", *more]


def samples(path: Path | str, *more: str, name: str = "mine") -> Command:
    return Command("benchmark", generation("--samples", f"{name}={path}", *more), str(path))


def reference(path: Path) -> Command:
    ok = path.parent / "ok.npy"
    np.save(ok, RGB)
    return Command("benchmark", generation("--samples", f"fine={ok}", "--reference", str(path)), str(path))


def ood(path: Path | str, name: str = "mine") -> Command:
    arguments = ["--suite", "ood", "--systems", "glow", "--ood", f"{name}={path}", "--num-images", "4"]
    return Command("benchmark", [*arguments, "--offline", "--no-progress"], str(path))


def scores(path: Path | str) -> Command:
    arguments = [
        "--suite",
        "ood",
        "--systems",
        "none",
        "--ood",
        "svhn",
        "--scores",
        f"mine={path}",
        "--num-images",
        "4",
    ]
    return Command("benchmark", [*arguments, "--offline", "--no-progress"], str(path))


def checkpoint(path: Path | str, named: str = "") -> Command:
    arguments = ["--suite", "ood", "--systems", "none", "--ood", "svhn", "--checkpoint", f"mine={path}"]
    return Command("benchmark", [*arguments, "--num-images", "4", "--offline", "--no-progress"], named or str(path))


def weights(path: Path) -> Command:
    arguments = ["--suite", "generation", "--systems", "none", "--features", "inception", "--weights", str(path)]
    ok = path.parent / "ok.npy"
    np.save(ok, np.zeros((4, 8, 8, 3), np.uint8))
    return Command("benchmark", [*arguments, "--samples", f"fine={ok}", "--offline", "--no-progress"], str(path))


def root(folder: Path, named: str, dataset: str = "cifar10") -> Command:
    arguments = ["--suite", "ood", "--systems", "glow", "--ood", dataset, "--dataset", "svhn", "--num-images", "4"]
    arguments = [*arguments, "--data-root", str(folder), "--offline", "--no-progress"]
    return Command("benchmark", arguments, named)


def info(path: Path) -> Command:
    return Command("vaebm", ["info", str(path)], path.name)


def board(path: Path) -> Command:
    return Command("board", ["--board", str(path)], str(path))


# --- files -----------------------------------------------------------------------------------------------------------


def png(image: np.ndarray = RGB[0], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, kind, **options)
    return stream.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def folder(path: Path, **files: bytes) -> Path:
    """Two good pictures and others; ``__`` in a name is a dot."""
    for name, data in {"a__png": png(), "b__png": png(RGB[1]), **files}.items():
        write(path / name.replace("__", "."), data)
    return path


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def pictures_zip(path: Path, **members: bytes) -> Path:
    return zipped(path, {"a.png": png(), "b.png": png(RGB[1])} | {k.replace("__", "."): v for k, v in members.items()})


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def npy(path: Path, array: Any, **options: Any) -> Path:
    np.save(path, array, **options)
    return path


def npy_header(path: Path, header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> Path:
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header) + 1)
    return write(path, b"\x93NUMPY" + version + size + header.encode() + b"\n" + data)


def header(shape: object, descr: str = "|u1", order: bool = False) -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


def png_header(width: int, height: int) -> bytes:
    """A PNG of whatever size that ends after a few pixels."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def patched(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """Replace bytes of a file by as many others."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new, count))
    return path


def truncated(path: Path, keep: float = 0.5) -> Path:
    os.truncate(path, int(path.stat().st_size * keep))
    return path


# --- pictures --------------------------------------------------------------------------------------------------------


def _picture(name: str, data: Callable[[], bytes], suffix: str = "png") -> None:
    """A folder and a zip with one bad picture among good ones: the line names it."""

    @case(f"{name}, in a folder")
    def in_folder(t: Path) -> Command:
        return Command("benchmark", samples(folder(t / "x", **{f"bad__{suffix}": data()})).arguments, f"bad.{suffix}")

    @case(f"{name}, in a zip", slow=True)
    def in_zip(t: Path) -> Command:
        path = pictures_zip(t / "x.zip", **{f"bad__{suffix}": data()})
        return Command("benchmark", ood(path).arguments, f"bad.{suffix}")


def _animated(kind: str) -> bytes:
    stream, frames = io.BytesIO(), [Image.fromarray(image) for image in RGB[:3]]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


_picture("a picture of 60000x60000 by its header", lambda: png_header(60_000, 60_000))
_picture("a picture of 9000x9000 by its header", lambda: png_header(9_000, 9_000))
_picture("a truncated PNG", lambda: png()[:-40])
_picture("a truncated JPEG", lambda: png(kind="JPEG")[:-40], "jpg")
_picture("a file of zero bytes", lambda: b"")
_picture("an animated WebP", lambda: _animated("WEBP"), "webp")
_picture("an animated PNG", lambda: _animated("PNG"))
_picture("an animated GIF called PNG", lambda: _animated("GIF"))
_picture(
    "a PostScript file called PNG", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nquit\n"
)
_picture("a 16-bit PNG", lambda: png(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900))
_picture("a CMYK JPEG", lambda: _cmyk(), "jpg")
_picture("a transparent PNG", lambda: png(np.dstack([RGB[0], RGB[0][..., :1]])))
_picture("a palette PNG with transparency", lambda: _palette())
_picture("noise called PNG", lambda: RNG.integers(0, 256, 4000, dtype=np.uint8).tobytes())


def _cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGB[0]).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


def _palette() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGB[0]).quantize(8).save(stream, "PNG", transparency=0)
    return stream.getvalue()


# --- folders ---------------------------------------------------------------------------------------------------------


@case("a folder of links to itself, to devices and to nothing, and a pipe")
def _links(t: Path) -> Command:
    path = t / "x"
    path.mkdir()
    (path / "loop").symlink_to(path)
    (path / "itself.png").symlink_to(path / "itself.png")
    (path / "zero.png").symlink_to("/dev/zero")
    (path / "gone.png").symlink_to(t / "gone.png")
    os.mkfifo(path / "pipe.png")
    return samples(path)


@case("a pipe called zip")
def _pipe_zip(t: Path) -> Command:
    os.mkfifo(t / "x.zip")
    return samples(t / "x.zip")


@case("a pipe called npy")
def _pipe_npy(t: Path) -> Command:
    os.mkfifo(t / "x.npy")
    return ood(t / "x.npy")


@case("a pipe called npz, as scores")
def _pipe_scores(t: Path) -> Command:
    os.mkfifo(t / "x.npz")
    return scores(t / "x.npz")


@case("a pipe for a checkpoint")
def _pipe_checkpoint(t: Path) -> Command:
    os.mkfifo(t / "x.pt")
    return checkpoint(t / "x.pt")


@case("a pipe for a native checkpoint")
def _pipe_native(t: Path) -> Command:
    os.mkfifo(t / "x.safetensors")
    write(t / "x.json", "{}")
    return checkpoint(t / "x.safetensors")


@case("a pipe for a card")
def _pipe_card(t: Path) -> Command:
    path = glow(t)
    path.with_suffix(".json").unlink()
    os.mkfifo(path.with_suffix(".json"))
    return checkpoint(path, path.with_suffix(".json").name)


@case("a pipe for a result file")
def _pipe_board(t: Path) -> Command:
    os.mkfifo(t / "x.json")
    return board(t / "x.json")


@case("/dev/zero called npy")
def _zero_npy(t: Path) -> Command:
    (t / "x.npy").symlink_to("/dev/zero")
    return samples(t / "x.npy")


@case("/dev/zero called npz, as a reference")
def _zero_npz(t: Path) -> Command:
    (t / "x.npz").symlink_to("/dev/zero")
    return reference(t / "x.npz")


@case("/dev/zero for Inception's weights")
def _zero_weights(t: Path) -> Command:
    (t / "x.pth").symlink_to("/dev/zero")
    return weights(t / "x.pth")


@case("a folder that is a device")
def _device(t: Path) -> Command:
    return samples("/dev/zero")


# --- zips ------------------------------------------------------------------------------------------------------------


@case("a zip bomb: 17 GB of zeros by its own account")
def _bomb(t: Path) -> Command:
    path = pictures_zip(t / "x.zip")
    info = zipfile.ZipFile(path).infolist()[0]
    return samples(patched(path, struct.pack("<I", info.file_size), struct.pack("<I", 2**32 - 2)) and _many_big(path))


def _many_big(path: Path) -> Path:
    """Four more members whose declared sizes lie, too."""
    with zipfile.ZipFile(path, "a") as archive:
        for k in range(5):
            archive.writestr(f"{k}.png", bytes(1234 + k))
    for k in range(5):
        patched(path, struct.pack("<I", 1234 + k), struct.pack("<I", 2**32 - 3 - k))
    return path


@case("a zip whose member unpacks to 100 MB of zeros called PNG", slow=True)
def _zeros(t: Path) -> Command:
    stream = io.BytesIO(png(RGB[0]))
    data = stream.getvalue()[:33] + bytes(100_000_000)
    return Command("benchmark", ood(pictures_zip(t / "x.zip", bad__png=data)).arguments, "bad.png")


@case("a zip of zips")
def _nested(t: Path) -> Command:
    inner = pictures_zip(t / "inner.zip").read_bytes()
    return samples(zipped(t / "x.zip", {f"{k}.zip": inner for k in range(16)}))


@case("a zip whose members overlap")
def _overlap(t: Path) -> Command:
    path = zipped(t / "x.zip", {"a.png": png(), "b.png": png(RGB[1])}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    offsets = [info.header_offset for info in zipfile.ZipFile(path).infolist()]
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", offsets[0])  # the second member is where the first one is
    path.write_bytes(data)
    return samples(path)


@case("a zip whose member says that it is smaller than it is")
def _smaller(t: Path) -> Command:
    path = pictures_zip(t / "x.zip", c__png=png(RGB[2]))
    size = zipfile.ZipFile(path).getinfo("c.png").file_size
    return samples(patched(path, struct.pack("<I", size), struct.pack("<I", size // 2)))


@case("a zip whose checksum is wrong")
def _checksum(t: Path) -> Command:
    path = zipped(t / "x.zip", {"a.png": png(), "b.png": png(RGB[1])}, zipfile.ZIP_STORED)
    crc = zipfile.ZipFile(path).getinfo("b.png").CRC
    return samples(patched(path, struct.pack("<I", crc), struct.pack("<I", crc ^ 1)))


for _name in ("../b.png", "/etc/b.png", "a/../../b.png", "C:\\b.png", "..\\b.png"):

    @case(f"a zip with {_name}")
    def _outside(t: Path, name: str = _name) -> Command:
        return samples(zipped(t / "x.zip", {"a.png": png(), name: png(RGB[1])}))


@case("a zip with links")
def _zip_links(t: Path) -> Command:
    with zipfile.ZipFile(t / "x.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return Command("benchmark", samples(t / "x.zip").arguments, "a.png")


@case("a zip with encrypted members")
def _encrypted(t: Path) -> Command:
    path = zipped(t / "x.zip", {"a.png": png(), "b.png": png(RGB[1])}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(sign)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(sign, start + 1)
    path.write_bytes(data)
    return samples(path)


@case("a zip with an unknown method")
def _method(t: Path) -> Command:
    path = zipped(t / "x.zip", {"a.png": png(), "b.png": png(RGB[1])}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.find(sign)
        while start >= 0:
            data[start + at] = 77
            start = data.find(sign, start + 1)
    path.write_bytes(data)
    return samples(path)


@case("a zip with a name twice")
def _twice(t: Path) -> Command:
    with zipfile.ZipFile(t / "x.zip", "w") as archive:
        for name, image in zip(("a.png", "b.png"), RGB, strict=False):
            archive.writestr(name, png(image))
    patched(t / "x.zip", b"b.png", b"a.png")
    return samples(t / "x.zip")


def _names(path: Path, count: int) -> Path:
    """A zip that is nothing but a list of ``count`` members."""
    entry = lambda k: b"PK\x01\x02" + bytes(24) + struct.pack("<H", 11) + bytes(16) + b"%07d.png" % k
    listed = b"".join(map(entry, range(count)))
    end_64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(listed), 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(listed), 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return write(path, listed + end_64 + locator + end)


@case("a zip that lists 600,000 members")
def _million(t: Path) -> Command:
    return samples(_names(t / "x.zip", 600_000))


@case("a zip that lists as many members as it may, none of them there", slow=True)
def _most(t: Path) -> Command:
    return samples(_names(t / "x.zip", 2**25 // 57))


@case("an npz that lists a million members", slow=True)
def _million_npz(t: Path) -> Command:
    return scores(_names(t / "x.npz", 1_000_000))


@case("a truncated zip")
def _cut_zip(t: Path) -> Command:
    return samples(truncated(pictures_zip(t / "x.zip")))


@case("an empty file called zip")
def _empty_zip(t: Path) -> Command:
    return ood(write(t / "x.zip", b""))


# --- arrays ----------------------------------------------------------------------------------------------------------


HEADERS = {
    "a shape of 10^12": header((10**12, 8, 8, 3)),
    "a shape beyond 64 bits": header((2**40, 2**40, 8, 3)),
    "a negative shape": header((-4, 8, 8, 3)),
    "a shape of text": header("('a', 8)"),
    "a shape that is no tuple": header("[20, 8, 8, 3]"),
    "a header that is no literal": "__import__('os').system('touch owned')",
    "a header that is no dictionary": "[1, 2, 3]",
    "a header that nests deep": "(" * 5000 + ")" * 5000,
    "a dtype of objects": header((4,), "|O"),
    "a dtype of no size": header((10**9, 10**9), "|V0"),
    "an unknown dtype": header((4,), "x9"),
    "a header without a shape": "{'descr': '|u1', 'fortran_order': False}",
}

for _name, _header in HEADERS.items():

    @case(f"a npy with {_name}")
    def _bad_header(t: Path, text: str = _header) -> Command:
        return samples(npy_header(t / "x.npy", text, RGB.tobytes()))

    @case(f"a npz with {_name}", slow=True)
    def _bad_member(t: Path, text: str = _header) -> Command:
        data = npy_header(t / "x.npy", text, RGB.tobytes()).read_bytes()
        return scores(zipped(t / "x.npz", {"svhn.npy": data}))


@case("a npy with a huge header")
def _huge_header(t: Path) -> Command:
    return samples(npy_header(t / "x.npy", header((20, 8, 8, 3)) + " " * 2_000_000, RGB.tobytes(), b"\x02\x00"))


@case("a npy whose header says that it has 4 GB")
def _long_header(t: Path) -> Command:
    return samples(write(t / "x.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b"{" * 100))


@case("a npy of another version")
def _version(t: Path) -> Command:
    return samples(write(t / "x.npy", b"\x93NUMPY\x09\x00" + b"\x00" * 100))


@case("a npy with pickled objects")
def _objects(t: Path) -> Command:
    return samples(npy(t / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True))


@case("a pickle called npy")
def _pickle_npy(t: Path) -> Command:
    return ood(write(t / "x.npy", pickle.dumps(Evil())))


@case("a pickle called npz")
def _pickle_npz(t: Path) -> Command:
    return reference(write(t / "x.npz", pickle.dumps(Evil())))


@case("a npy of structures")
def _structure(t: Path) -> Command:
    return samples(npy(t / "x.npy", np.zeros(4, dtype=[("a", "u1"), ("b", "f8")])))


@case("a npy of big-endian 16-bit numbers")
def _big_endian(t: Path) -> Command:
    return samples(npy(t / "x.npy", RGB.astype(">u2")))


@case("a npy of dates")
def _dates(t: Path) -> Command:
    return samples(npy(t / "x.npy", np.zeros((4, 8, 8, 3), "M8[s]")))


@case("a npz with objects for images")
def _object_npz(t: Path) -> Command:
    return samples(npz(t / "x.npz", images=np.array([Evil()], dtype=object)))


@case("a npz with objects for features")
def _object_features(t: Path) -> Command:
    return samples(npz(t / "x.npz", features=np.array([Evil()], dtype=object)))


@case("a npz with an array twice")
def _npz_twice(t: Path) -> Command:
    with zipfile.ZipFile(npz(t / "x.npz", images=RGB, imageS=RGB), "a"):
        pass
    return samples(patched(t / "x.npz", b"imageS.npy", b"images.npy"))


@case("a npz with names with and without npy")
def _npz_both(t: Path) -> Command:
    data = npy(t / "y.npy", RGB).read_bytes()
    return samples(zipped(t / "x.npz", {"images.npy": data, "images": data}))


@case("a npz that unpacks to 17 GB of zeros")
def _npz_bomb(t: Path) -> Command:
    path = zipped(t / "x.npz", {f"{k}.npy": bytes(7000 + k) for k in range(5)})
    for k in range(5):
        patched(path, struct.pack("<I", 7000 + k), struct.pack("<I", 2**32 - 4 - k))
    return scores(path)


@case("a npz whose array is longer than its header says")
def _npz_long(t: Path) -> Command:
    return samples(zipped(t / "x.npz", {"images.npy": npy(t / "y.npy", RGB).read_bytes() + b"more"}))


@case("a npz whose array is shorter than its header says")
def _npz_short(t: Path) -> Command:
    return samples(zipped(t / "x.npz", {"images.npy": npy(t / "y.npy", RGB).read_bytes()[:-9]}))


@case("a truncated npz")
def _npz_cut(t: Path) -> Command:
    return reference(truncated(npz(t / "x.npz", images=RGB)))


@case("statistics with NaN")
def _nan_statistics(t: Path) -> Command:
    return reference(npz(t / "x.npz", mu=MU, sigma=np.where(SIGMA > 0, np.nan, SIGMA)))


@case("complex statistics")
def _complex_statistics(t: Path) -> Command:
    return samples(npz(t / "x.npz", mu=MU, sigma=SIGMA * 1j))


@case("statistics that are not symmetric")
def _asymmetric(t: Path) -> Command:
    return reference(npz(t / "x.npz", mu=MU, sigma=np.triu(SIGMA)))


@case("statistics of infinity")
def _huge_statistics(t: Path) -> Command:
    return samples(npz(t / "x.npz", mu=MU, sigma=np.full_like(SIGMA, np.inf)))


@case("statistics of text")
def _text_statistics(t: Path) -> Command:
    return samples(npz(t / "x.npz", mu=np.array(["a"]), sigma=SIGMA))


@case("statistics of no image")
def _n_statistics(t: Path) -> Command:
    return samples(npz(t / "x.npz", mu=MU, sigma=SIGMA, n=-5))


@case("features with infinity")
def _infinite_features(t: Path) -> Command:
    return samples(npz(t / "x.npz", features=np.where(N > 1, np.inf, N)))


# --- scores ----------------------------------------------------------------------------------------------------------

SCORES: dict[str, Any] = {
    "NaN": np.array([1.0, np.nan, 2.0, 3.0]),
    "infinity": np.array([1.0, -np.inf, 2.0, 3.0]),
    "text": np.array(["a", "b", "c", "d"]),
    "one number without an axis": np.array(3.0),
    "complex numbers": np.arange(4) * 1j,
    "objects": np.array([Evil(), Evil()], dtype=object),
    "none": np.zeros(0),
    "structures": np.zeros(4, dtype=[("a", "f8")]),
    "dates": np.zeros(4, "M8[s]"),
}
for _name, _values in SCORES.items():

    @case(f"scores that are {_name}")
    def _bad_scores(t: Path, values: Any = _values) -> Command:
        return scores(npz(t / "x.npz", cifar10=np.arange(4.0), svhn=values))


@case("scores in a file of text")
def _text_scores(t: Path) -> Command:
    return scores(write(t / "x.npz", "cifar10: 1, 2, 3"))


@case("scores of names that leave their folder")
def _named_scores(t: Path) -> Command:
    path = zipped(t / "x.npz", {"../../svhn.npy": npy(t / "y.npy", np.arange(4.0)).read_bytes()})
    return Command("benchmark", scores(path).arguments, "mine")


# --- native checkpoints ----------------------------------------------------------------------------------------------


def glow(t: Path, change: Callable[[dict[str, Any]], Any] | None = None, weights: bytes | None = None) -> Path:
    """A copy of the bundled Glow, spoiled; its hash is right again."""
    path, source = t / "bad.safetensors", CHECKPOINTS / "glow-mini-cifar10.safetensors"
    payload = source.read_bytes() if weights is None else weights
    card = json.loads(source.with_suffix(".json").read_text())
    card["sha256"] = sha256(payload).hexdigest()
    if change is not None:
        change(card)
    path.write_bytes(payload)
    write(path.with_suffix(".json"), json.dumps(card))
    return path


@functools.cache
def _glow_weights() -> dict[str, torch.Tensor]:
    return load_file(CHECKPOINTS / "glow-mini-cifar10.safetensors")


def spoiled_glow(t: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    found = dict(_glow_weights())
    change(found)
    return glow(t, weights=to_safetensors(found))


def safetensors_header(text: str | bytes, data: bytes = b"", size: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


HEADERS_OF_WEIGHTS: dict[str, bytes] = {
    "overlapping offsets": safetensors_header(
        json.dumps({k: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for k in "ab"}), bytes(16)
    ),
    "offsets beyond the file": safetensors_header(
        json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]}}), bytes(16)
    ),
    "a shape that is not its size": safetensors_header(
        json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 16]}}), bytes(16)
    ),
    "a header of 2^63 bytes": safetensors_header("{}", size=2**63),
    "a header of 2^64 - 1 bytes": safetensors_header("{}", size=2**64 - 1),
    "a header that is no JSON": safetensors_header("not JSON"),
    "a header that is no text": safetensors_header(b"\xff\xfe\xff"),
    "a header that nests deep": safetensors_header('{"a":' * 5000 + "1" + "}" * 5000),
    "an unknown dtype": safetensors_header(
        json.dumps({"a": {"dtype": "X7", "shape": [4], "data_offsets": [0, 16]}}), bytes(16)
    ),
    "three bytes": b"abc",
    "nothing": b"",
}
for _name, _payload in HEADERS_OF_WEIGHTS.items():

    @case(f"safetensors with {_name}")
    def _bad_safetensors(t: Path, payload: bytes = _payload) -> Command:
        return checkpoint(glow(t, weights=payload))

    @case(f"info of safetensors with {_name}", slow=True)
    def _info_safetensors(t: Path, payload: bytes = _payload) -> Command:
        return info(glow(t, weights=payload))


def _first(found: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in found.items() if value.dtype == torch.float16)


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "NaN": lambda found: found[_first(found)].flatten()[:1].fill_(torch.nan),
    "infinity": lambda found: found[_first(found)].flatten()[:1].fill_(torch.inf),
    "doubles beyond float32": lambda found: found.update({_first(found): found[_first(found)].double() + 1e300}),
    "integers": lambda found: found.update({_first(found): found[_first(found)].to(torch.int64)}),
    "truth values": lambda found: found.update({_first(found): found[_first(found)] > 0}),
    "one missing": lambda found: found.pop(_first(found)),
    "one unknown": lambda found: found.update(extra=torch.zeros(3)),
    "another shape": lambda found: found.update({_first(found): torch.zeros(7)}),
}
for _name, _change in WEIGHTS.items():

    @case(f"weights: {_name}")
    def _bad_weights(t: Path, change: Callable[[Any], Any] = _change) -> Command:
        def apart(found: dict[str, torch.Tensor]) -> None:
            name = _first(found)
            found[name] = found[name].clone()
            change(found)

        return checkpoint(spoiled_glow(t, apart))


def _set(part: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda card: card[part].update(values)


CARDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a width of 10^9": _set("architecture", width=10**9),
    "10^9 steps of a flow": _set("architecture", steps=10**9),
    "a negative width": _set("architecture", width=-96),
    "a width of text": _set("architecture", width="96"),
    "a width of 10^400": _set("architecture", width=10**400),
    "an infinite width": _set("architecture", width=float("inf")),
    "images of 10^9": _set("architecture", image_shape=[10**9, 10**9, 3]),
    "an unknown setting": _set("architecture", evil=1),
    "a list of settings": lambda card: card.update(architecture=[1, 2]),
    "no architecture": lambda card: card.pop("architecture"),
    "a recipe of text": lambda card: card.update(sampling="slow"),
    "an unknown entry of the recipe": _set("sampling", evil=1),
    "NaN in the recipe": _set("sampling", temperature=float("nan")),
    "another hash": lambda card: card.update(sha256="0" * 64),
    "a hash that is a number": lambda card: card.update(sha256=5),
    "a kind that nobody knows": lambda card: card.update(kind="evil"),
    "a kind that is a list": lambda card: card.update(kind=["glow"]),
    "a kind of a path": lambda card: card.update(kind="../../evil"),
    "another format": lambda card: card.update(format=10**100),
    "an NVAE for a Glow": lambda card: card.update(kind="nvae"),
    "an architecture nested deep": lambda card: card["architecture"].update(
        width=functools.reduce(lambda inner, _: [inner], range(50), 1)
    ),
}
for _name, _change in CARDS.items():

    @case(f"a card with {_name}")
    def _bad_card(t: Path, change: Callable[[dict[str, Any]], Any] = _change) -> Command:
        return checkpoint(glow(t, change), "bad.")


@case("a card with a width of 60000")
def _wide(t: Path) -> Command:
    return checkpoint(glow(t, _set("architecture", width=60_000)), "bad.")


TEXTS: dict[str, bytes] = {
    "nested deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "with a byte order mark": b"\xef\xbb\xbf{}",
    "in UTF-16": '{"kind": "glow"}'.encode("utf-16"),
    "no text": bytes(range(256)),
    "empty": b"",
    "a list": b"[]",
    "a huge number": b'{"kind": ' + b"9" * 100_000 + b"}",
    "a key twice": b'{"kind": "glow", "kind": "nvae", "format": 1}',
    "20 MB of spaces": b" " * 20_000_000,
}
for _name, _text in TEXTS.items():

    @case(f"a card that is {_name}")
    def _text_card(t: Path, text: bytes = _text) -> Command:
        path = glow(t)
        write(path.with_suffix(".json"), text)
        return checkpoint(path, path.with_suffix(".json").name)

    @case(f"a result file that is {_name}", slow=True)
    def _text_board(t: Path, text: bytes = _text) -> Command:
        return board(write(t / "x.json", text))

    @case(f"a diffusers folder whose config is {_name}", slow=True)
    def _text_diffusers(t: Path, text: bytes = _text) -> Command:
        write(t / "x" / "config.json", text)
        return checkpoint(t / "x", "config.json")


@case("a VAEBM whose NVAE is named by a path")
def _far_nvae(t: Path) -> Command:
    source = CHECKPOINTS / "vaebm-mini-cifar10.safetensors"
    card = json.loads(source.with_suffix(".json").read_text())
    card["nvae"]["file"] = "../../../etc/passwd.safetensors"
    (t / "bad.safetensors").write_bytes(source.read_bytes())
    write(t / "bad.json", json.dumps(card))
    return checkpoint(t / "bad.safetensors")


NVAES: dict[str, dict[str, Any]] = {
    "10^9 groups": {"groups_per_scale": [10**9]},
    "60000 groups": {"groups_per_scale": [60_000]},
    "a width of 60000": {"channels_enc": 60_000, "channels_dec": 60_000},
    "60000 cells": {"preprocess_cells": 60_000},
    "60000 blocks": {"preprocess_blocks": 60_000, "postprocess_blocks": 60_000},
    "images of 2^16": {"image_size": 2**16},
    "groups that are a number": {"groups_per_scale": 5},
}
for _name, _values in NVAES.items():

    @case(f"an NVAE of {_name}")
    def _bad_nvae(t: Path, values: dict[str, Any] = _values) -> Command:
        source = CHECKPOINTS / "nvae-mini-cifar10.safetensors"
        card = json.loads(source.with_suffix(".json").read_text())
        card["architecture"]["nvae"] |= values
        (t / "bad.safetensors").write_bytes(source.read_bytes())
        write(t / "bad.json", json.dumps(card))
        return Command("vaebm", ["sample", "--checkpoint", str(t / "bad.safetensors"), "--to", "x.npz"], "bad.")


# --- official checkpoints --------------------------------------------------------------------------------------------

FIXTURES = Path(__file__).parent / "vaebm" / "fixtures"


def torch_file(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


class Foreign:
    """A class that no reader knows."""


OFFICIAL: dict[str, Callable[[Path], Path]] = {
    "a pickle that runs a shell": lambda t: write(t / "x.pt", pickle.dumps(Evil())),
    "a file of torch.save that runs a shell": lambda t: torch_file(t / "x.pt", {"state_dict": Evil()}),
    "an old file of torch.save that runs a shell": lambda t: torch_file(
        t / "x.pt", {"model": Evil()}, _use_new_zipfile_serialization=False
    ),
    "a class that nobody knows": lambda t: torch_file(t / "x.pt", {"model": Foreign()}),
    "a pickle of protocol 0 that evaluates": lambda t: write(t / "x.pt", b"cbuiltins\neval\n(S'1'\ntR."),
    "a truncated file": lambda t: truncated(torch_file(t / "x.pt", {"model": torch.zeros(999)})),
    "a truncated old file": lambda t: truncated(
        torch_file(t / "x.pt", {"model": torch.zeros(999)}, _use_new_zipfile_serialization=False)
    ),
    "nothing": lambda t: write(t / "x.pt", b""),
    "noise": lambda t: write(t / "x.pt", RNG.integers(0, 256, 4000, dtype=np.uint8).tobytes()),
    "a tar of the first torch": lambda t: _tar(t / "x.pt"),
    "a zip without a pickle": lambda t: zipped(t / "x.pt", {"a": b"b"}),
    "a compressed pickle of 50 MB": lambda t: zipped(t / "x.pt", {"x/data.pkl": bytes(50_000_000), "x/version": b"3"}),
    "a pickle of 100 MB": lambda t: zipped(
        t / "x.pt", {"x/data.pkl": bytes(100_000_000), "x/version": b"3"}, zipfile.ZIP_STORED
    ),
    "a list of lists of lists": lambda t: torch_file(
        t / "x.pt", {"model": functools.reduce(lambda inner, _: [inner], range(300), 1)}
    ),
    "a list of itself": lambda t: _cycle(t / "x.pt"),
    "a place in the memory of pickles beyond all others": lambda t: write(t / "x.pt", b"\x80\x02}r\xff\xff\xff\x7f."),
    "a text of 2^60 letters": lambda t: write(t / "x.pt", b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"abc."),
    "a tensor of 4 TB in four bytes": lambda t: torch_file(
        t / "x.pt", {"model": {"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}}
    ),
    "a tensor without values": lambda t: torch_file(
        t / "x.pt", {"model": {"blocks.0.conv1.weight": torch.zeros(3, device="meta")}}
    ),
    "a sparse tensor": lambda t: torch_file(t / "x.pt", {"model": {"blocks.0.conv1.weight": torch.eye(3).to_sparse()}}),
    "numbers": lambda t: torch_file(t / "x.pt", 5),
    "keys that are no texts": lambda t: torch_file(t / "x.pt", {1: torch.zeros(3), (2, 3): torch.zeros(1)}),
    "an energy of NaN": lambda t: _energy(t / "x.pt", lambda state: state["conv1.bias"].fill_(torch.nan)),
    "an energy of integers": lambda t: _energy(t / "x.pt", lambda s: s.update({"conv1.bias": s["conv1.bias"].long()})),
    "10^9 scales of an NVAE": lambda t: _nvae(t / "x.pt", num_latent_scales=10**9),
    "10^9 groups of an NVAE": lambda t: _nvae(t / "x.pt", num_groups_per_scale=10**9),
    "60000 groups of an NVAE": lambda t: _nvae(t / "x.pt", num_groups_per_scale=60_000),
    "an NVAE of negative width": lambda t: _nvae(t / "x.pt", num_channels_enc=-8),
    "an NVAE of 10^9 blocks": lambda t: _nvae(t / "x.pt", num_preprocess_blocks=10**9, num_postprocess_blocks=10**9),
    "an NVAE whose width is a list": lambda t: _nvae(t / "x.pt", num_channels_enc=[8]),
    "a JEM of 10^9 blocks": lambda t: torch_file(
        t / "x.pt",
        {
            "model_state_dict": {
                "f.conv1.weight": torch.zeros(16, 3, 3, 3),
                "f.layer1.0.conv1.weight": torch.zeros(16, 16, 3, 3),
                "f.layer1.999999999.conv1.weight": torch.zeros(16, 16, 3, 3),
                "class_output.weight": torch.zeros(10, 64),
            }
        },
    ),
    "a JEM whose blocks have no number": lambda t: torch_file(
        t / "x.pt",
        {
            "model_state_dict": {
                "f.conv1.weight": torch.zeros(16, 3, 3, 3),
                "f.layer1.0.conv1.weight": torch.zeros(16, 16, 3, 3),
                "f.layer1.x.conv1.weight": torch.zeros(16, 16, 3, 3),
                "class_output.weight": torch.zeros(10, 64),
            }
        },
    ),
    "a Glow of one layer": lambda t: torch_file(t / "x.pt", {"flow.layers.1.actnorm.bias": torch.zeros(1, 12, 1, 1)}),
    "an NCSN without kernels": lambda t: torch_file(t / "x.pth", [{"module.refine1.x": torch.zeros(3)}]),
    "an NCSNv2 of no levels": lambda t: torch_file(
        t / "x.pth",
        [
            {
                "module.refine1.x": torch.zeros(3),
                "module.begin_conv.weight": torch.zeros(4, 3, 3, 3),
                "module.end_conv.weight": torch.zeros(3, 4, 3, 3),
                "module.sigmas": torch.full((3,), torch.nan),
            }
        ],
    ),
    "a DDPM of 10^9 resolutions": lambda t: torch_file(
        t / "x.ckpt", {"temb.dense.0.weight": torch.zeros(3), "down.999999999.block.0.conv1.weight": torch.zeros(3)}
    ),
}


def _tar(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Evil())
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("sys_info")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def _cycle(path: Path) -> Path:
    itself: list[Any] = []
    itself.append(itself)
    return torch_file(path, {"model": itself})


def _energy(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = torch.load(FIXTURES / "cifar10_tiny_ebm.pth", weights_only=True)
    change(content["model"])
    return torch_file(path, content)


def _nvae(path: Path, **arguments: Any) -> Path:
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(FIXTURES / "cifar10_tiny_nvae_checkpoint.pt", weights_only=True)
    vars(content["args"]).update(arguments)
    return torch_file(path, content)


for _name, _make in OFFICIAL.items():

    @case(f"an official file with {_name}")
    def _bad_official(t: Path, make: Callable[[Path], Path] = _make) -> Command:
        path = make(t)
        return checkpoint(path, path.name)


for _name in ("a pickle that runs a shell", "a file of torch.save that runs a shell", "a class that nobody knows"):

    @case(f"Inception's weights: {_name}", slow=True)
    def _bad_inception(t: Path, make: Callable[[Path], Path] = OFFICIAL[_name]) -> Command:
        return weights(make(t))

    @case(f"to be converted: {_name}", slow=True)
    def _bad_convert(t: Path, make: Callable[[Path], Path] = OFFICIAL[_name]) -> Command:
        return Command("vaebm", ["convert", str(make(t)), "converted.safetensors"], "x.pt")


UNET: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
}
UNETS: dict[str, dict[str, Any]] = {
    "a width of 10^9": {"block_out_channels": [10**9, 10**9]},
    "10^9 layers": {"layers_per_block": 10**9},
    "30000 layers": {"layers_per_block": 30_000},
    "another class": {"_class_name": "os.system"},
    "blocks that nobody knows": {"down_block_types": ["os.system", "DownBlock2D"]},
}
for _name, _values in UNETS.items():

    @case(f"a diffusers folder with {_name}", slow=_name == "30000 layers")
    def _bad_unet(t: Path, values: dict[str, Any] = _values) -> Command:
        write(t / "x" / "config.json", json.dumps(UNET | values))
        write(t / "x" / "scheduler_config.json", json.dumps({"num_train_timesteps": 12}))
        write(t / "x" / "diffusion_pytorch_model.safetensors", to_safetensors({"a": torch.zeros(2)}))
        return checkpoint(t / "x", str(t / "x"))


@case("a diffusers folder whose weights run a shell")
def _evil_diffusers(t: Path) -> Command:
    write(t / "x" / "config.json", json.dumps(UNET))
    write(t / "x" / "scheduler_config.json", json.dumps({"num_train_timesteps": 12}))
    torch_file(t / "x" / "diffusion_pytorch_model.bin", {"a": Evil()})
    return checkpoint(t / "x", "diffusion_pytorch_model.bin")


@case("a diffusers folder of 10^12 time steps")
def _long_schedule(t: Path) -> Command:
    write(t / "x" / "config.json", json.dumps(UNET))
    write(t / "x" / "scheduler_config.json", json.dumps({"num_train_timesteps": 10**12}))
    write(t / "x" / "diffusion_pytorch_model.safetensors", to_safetensors({"a": torch.zeros(2)}))
    return checkpoint(t / "x", str(t / "x"))


# --- features, configurations, results -------------------------------------------------------------------------------

MODULE = """
def raises(x): raise RuntimeError("two\\nlines")
def none(x): return None
def text(x): return "features"
def few(x): return [[1.0]]
def nan(x): return [[float("nan")] * 4] * len(x)
def complexes(x): return [[1j] * 4] * len(x)
def leaves(x): raise SystemExit(3)
number = 5
"""

for _name in ("raises", "none", "text", "few", "nan", "complexes", "number", "missing"):

    @case(f"features of the user's own: {_name}")
    def _bad_features(t: Path, name: str = _name) -> Command:
        write(t / "hostile_module.py", MODULE)
        arguments = generation("--samples", f"fine={npy(t / 'ok.npy', RGB)}", "--reference", str(npy(t / "r.npy", RGB)))
        arguments[arguments.index(FEATURES)] = f"hostile_module:{name}"
        return Command("benchmark", arguments, f"hostile_module:{name}" if name != "nan" else "hostile_module.nan")


@case("features of a module that is not there")
def _no_module(t: Path) -> Command:
    arguments = generation("--samples", f"fine={npy(t / 'ok.npy', RGB)}")
    arguments[arguments.index(FEATURES)] = "no.such.module:f"
    return Command("benchmark", arguments, "no.such.module:f")


def _laughs(depth: int = 12) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, depth)]
    return "\n".join(lines) + f"\nsuite: *a{depth - 1}\n"


CONFIGS: dict[str, str | bytes] = {
    "a billion laughs": _laughs(),
    "an unknown option": "evil: 1\n",
    "a number for a suite": "suite: [1, 2]\n",
    "an object to build": "suite: !!python/object/apply:os.system ['touch owned']\n",
    "a list": "- 1\n- 2\n",
    "noise": bytes(range(256)),
    "a tab": "suite:\t\t- x: {\n",
    "a NUL in a path": 'suite: generation\nsystems: none\nsamples: ["mine=a\\0b.npy"]\n',
    "text for a number": "suite: ood\nnum_images: many\n",
    "a list nested deep": "suite: " + "[" * 1200 + "]" * 1200 + "\n",
}
for _name, _content in CONFIGS.items():

    @case(f"a configuration with {_name}")
    def _bad_config(t: Path, content: str | bytes = _content) -> Command:
        path = write(t / "x.yaml", content)
        return Command("benchmark", ["--config", str(path), "--offline", "--no-progress"], "")


TOMLS: dict[str, str | bytes] = {
    "no TOML": "= = =",
    "noise": bytes(range(256)),
    "an unknown setting": "[nvae]\nevil = 1\n",
    "a width of text": '[nvae]\nchannels_enc = "wide"\n',
    "lists nested deep": "a = " + "[" * 3000 + "]" * 3000 + "\n",
}
for _name, _content in TOMLS.items():

    @case(f"a training configuration with {_name}")
    def _bad_toml(t: Path, content: str | bytes = _content) -> Command:
        path = write(t / "x.toml", content)
        return Command("vaebm", ["train", "vae", "--config", str(path), "--out", "run", "--no-progress"], "")

    @case(f"a baseline's training configuration with {_name}", slow=True)
    def _bad_baseline_toml(t: Path, content: str | bytes = _content) -> Command:
        path = write(t / "x.toml", content)
        return Command("baselines", ["train", "glow", "--config", str(path), "--out", "run", "--no-progress"], "")


@case("a baseline of results that is damaged")
def _bad_check(t: Path) -> Command:
    path = write(t / "baseline.json", '{"schema_version": 2, "measurements": [')
    ok = npy(t / "ok.npy", RGB)
    arguments = generation("--samples", f"fine={ok}", "--reference", str(ok), "--check", str(path))
    return Command("benchmark", arguments, str(path))


@case("a result file to reproduce that names an evil option")
def _bad_reproduce(t: Path) -> Command:
    return Command("benchmark", ["--reproduce", str(write(t / "x.json", '{"schema_version": 99}'))], "x.json")


@case("a result file with rows of a million", slow=True)
def _rows(t: Path) -> Command:
    return board(write(t / "x.json", '{"schema_version": 2, "measurements": [' + "[],".rstrip() * 300_000 + "[]]}"))


# --- data roots ------------------------------------------------------------------------------------------------------


@case("a CIFAR batch that runs a shell")
def _evil_cifar(t: Path) -> Command:
    write(t / "cifar-10-batches-py" / "test_batch", pickle.dumps({b"data": Evil()}))
    return root(t, "test_batch")


@case("a CIFAR batch that names a place beyond all others")
def _cifar_memo(t: Path) -> Command:
    write(t / "cifar-10-batches-py" / "test_batch", b"\x80\x02}r\xff\xff\xff\x7f.")
    return root(t, "test_batch")


@case("a CIFAR batch that is a pipe")
def _cifar_pipe(t: Path) -> Command:
    (t / "cifar-10-batches-py").mkdir()
    os.mkfifo(t / "cifar-10-batches-py" / "test_batch")
    return root(t, "test_batch")


@case("a CIFAR archive of zeros", slow=True)
def _cifar_bomb(t: Path) -> Command:
    with tarfile.open(t / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        info.size = 300_000_000
        archive.addfile(info, _Zeros(info.size))
    return root(t, "cifar-10-python.tar.gz")


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        size = min(self.left, size)
        self.left -= size
        return bytes(size)


@case("an MNIST file that unpacks to 10^12 values")
def _idx_bomb(t: Path) -> Command:
    import gzip

    data = bytes((0, 0, 8, 3)) + np.array((10_000, 10_000, 10_000), ">u4").tobytes()
    write(t / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz", gzip.compress(data + bytes(1000)))
    return root(t, "t10k-images-idx3-ubyte.gz", "mnist")


@case("an MNIST file that goes on and on", slow=True)
def _idx_long(t: Path) -> Command:
    import gzip

    data = bytes((0, 0, 8, 3)) + np.array((2, 28, 28), ">u4").tobytes()
    write(t / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz", gzip.compress(data + bytes(300_000_000), 1))
    return root(t, "t10k-images-idx3-ubyte.gz", "mnist")


@case("an SVHN file of too many images")
def _svhn(t: Path) -> Command:
    from scipy.io import savemat

    savemat(t / "test_32x32.mat", {"X": np.zeros((32, 32, 3, 1234), np.uint8), "y": np.zeros(9)})
    patched(t / "test_32x32.mat", struct.pack("<I", 1234), struct.pack("<I", 10**9))
    return root(t, "test_32x32.mat")


PACKED: dict[str, Any] = {
    "a sheet outside its folder": {"sheets": [{"file": "../evil.webp", "count": 4}]},
    "a sheet a thousand times": {"sheets": [{"file": "000.webp", "count": 4}] * 1000, "count": 4000},
    "10^12 tiles": {"sheets": [{"file": "000.webp", "count": 10**12}], "count": 10**12},
    "tiles of 10^9": {"shape": [10**9, 10**9, 3]},
    "notes that are a number": {"notes": 5},
    "a shape of text": {"shape": "abc"},
    "sheets that are a number": {"sheets": 5},
}
for _name, _values in PACKED.items():

    @case(f"a packed set with {_name}")
    def _bad_packed(t: Path, values: dict[str, Any] = _values) -> Command:
        sheet = np.concatenate([np.concatenate(RGB[:2], 1), np.concatenate(RGB[2:4], 1)])
        write(t / "x" / "000.webp", png(sheet, "WEBP", lossless=True))
        digest = sha256(np.ascontiguousarray(RGB[:4]).tobytes()).hexdigest()
        meta = {"shape": [8, 8, 3], "count": 4, "sha256": digest, "sheets": [{"file": "000.webp", "count": 4}]}
        write(t / "x" / "meta.json", json.dumps(meta | values))
        return Command("benchmark", ood(t / "x").arguments, "mine")


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "../../evil": "a name that leaves the folder",
    "/tmp/evil": "a name that is a path",
    "..": "a name of two dots",
    "a/b": "a name with a slash",
    "a\nb": "a name with a line break",
    "a\0b": "a name with NUL",
    "\x1b[31mred": "a name that colours the terminal",
    "x" * 5000: "a name of 5000 letters",
    "a\udcffb": "a name that is no text",
    "": "a name of nothing",
}
for _value, _name in NAMES.items():

    @case(f"samples of {_name}")
    def _bad_name(t: Path, name: str = _value) -> Command:
        ok = npy(t / "ok.npy", RGB)
        arguments = generation("--samples", f"{name}={ok}", "--reference", str(ok))
        return Command("benchmark", arguments, "" if name == "a\udcffb" else "--samples")

    @case(f"an outer set of {_name}", slow=True)
    def _bad_ood_name(t: Path, name: str = _value) -> Command:
        return Command("benchmark", ood(npy(t / "ok.npy", RGB), name).arguments, "")

    @case(f"scores of {_name}", slow=True)
    def _bad_scores_name(t: Path, name: str = _value) -> Command:
        path = npz(t / "x.npz", cifar10=np.arange(4.0), svhn=np.arange(4.0))
        arguments = [word if not word.startswith("mine=") else f"{name}={path}" for word in scores(path).arguments]
        return Command("benchmark", arguments, "" if name == "a\udcffb" else "--scores")

    @case(f"a checkpoint of {_name}", slow=True)
    def _bad_checkpoint_name(t: Path, name: str = _value) -> Command:
        arguments = [
            word if not word.startswith("mine=") else f"{name}={glow(t)}" for word in checkpoint("x").arguments
        ]
        return Command("benchmark", arguments, "" if name == "a\udcffb" else "--checkpoint")


PATHS = {
    "a path with a line break": "no\nsuch\nfile.npy",
    "a path of 5000 letters": "x" * 5000 + ".npy",
    "a path that is no text": "\udcff.npy",
    "a path of nothing": "",
    "a path of a user who is not there": "~nobody-of-that-name/x.npy",
}
for _name, _value in PATHS.items():

    @case(f"samples at {_name}")
    def _bad_path(t: Path, value: str = _value) -> Command:
        return Command("benchmark", generation("--samples", f"mine={value}"), "x" * 99 if "xxx" in value else "")

    @case(f"a checkpoint at {_name}", slow=True)
    def _bad_checkpoint_path(t: Path, value: str = _value) -> Command:
        return Command("benchmark", checkpoint(value.replace(".npy", ".pt"), "mine").arguments, "")
