"""Readers: pictures, zips, arrays, packed sheets, CIFAR pickles, SVHN .mat, idx, CelebA; and their bad twins."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import vaebm.data.folder
import vaebm.data.load
from vaebm.data import DataUnavailable, load_images
from vaebm.data.cifar_python import load_batch
from vaebm.data.pack import main as pack_main
from vaebm.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
GREY = RGB[..., :1]
SMALL = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setattr(vaebm.data.load, "read_download", _no_network)


def _no_network(name, split):
    raise DataUnavailable("no network")


def png(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, kind)
    return stream.getvalue()


def write_folder(folder, images, suffix="png"):
    folder.mkdir(parents=True)
    for k, image in enumerate(images):
        (folder / f"{k:04}.{suffix}").write_bytes(png(image, suffix.upper()))
    return folder


def refused(message, spec, **kwargs):
    with pytest.raises(UserError, match=message) as caught:
        load_images(str(spec), **kwargs)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DataUnavailable)
    return str(caught.value)


# Folders of pictures


@pytest.mark.parametrize("images", [RGB, GREY])
@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_folder(tmp_path, images, suffix):
    found = load_images(f"mine={write_folder(tmp_path / 'x', images, suffix)}")
    assert (found.images == images).all()
    assert found.name == "mine"
    assert found.split == ""
    assert f"(4 {suffix})" in found.source


def test_bare_path_is_named_after_the_file_and_n_is_obeyed(tmp_path):
    folder = write_folder(tmp_path / "holiday", RGB)
    found = load_images(str(folder), n=2)
    assert found.name == "holiday"
    assert (found.images == RGB[:2]).all()
    assert "holds 4" in load_images(str(folder), n=9).notes[0]


def test_subfolders_in_order_of_names_without_hidden_files(tmp_path):
    write_folder(tmp_path / "x" / "b", RGB[:1])
    write_folder(tmp_path / "x" / "a", RGB[1:2])
    (tmp_path / "x" / ".hidden.png").write_bytes(b"junk")
    (tmp_path / "x" / "notes.txt").write_text("not an image")
    assert (load_images(str(tmp_path / "x")).images == RGB[[1, 0]]).all()


def test_a_path_with_an_equals_sign(tmp_path):
    assert len(load_images(str(write_folder(tmp_path / "a=b", RGB)))) == 4


def test_other_modes_that_lose_nothing(tmp_path):
    for k, mode in enumerate(["RGB", "RGBA", "P"]):
        picture = Image.fromarray(RGB[0]).quantize(16).convert("RGB").convert(mode)
        (tmp_path / "x").mkdir(exist_ok=True)
        picture.save(tmp_path / "x" / f"{k}.png")
    found = load_images(str(tmp_path / "x")).images
    assert (found[0] == found[1]).all()
    (tmp_path / "y").mkdir()
    Image.fromarray(GREY[0, ..., 0] > 127).save(tmp_path / "y" / "0.png")  # mode 1
    Image.fromarray(GREY[0, ..., 0]).convert("LA").save(tmp_path / "y" / "1.png")
    found = load_images(str(tmp_path / "y")).images
    assert (found == [np.where(GREY[0] > 127, 255, 0), GREY[0]]).all()


@pytest.mark.parametrize("mode", ["I;16", "CMYK", "RGBA", "P"])
def test_other_modes_that_would_lose_something(tmp_path, mode):
    (tmp_path / "x").mkdir()
    if mode == "I;16":
        Image.fromarray(GREY[0, ..., 0].astype(np.uint16) * 256).save(tmp_path / "x" / "a.png")
    elif mode == "CMYK":
        Image.fromarray(RGB[0]).convert("CMYK").save(tmp_path / "x" / "a.jpg")
    elif mode == "P":
        Image.fromarray(RGB[0]).quantize(4).save(tmp_path / "x" / "a.png", transparency=0)
    else:
        Image.fromarray(np.dstack([RGB[0], GREY[0]])).save(tmp_path / "x" / "a.png")
    refused(r"a\.(png|jpg).*needed 8-bit grey or RGB", tmp_path / "x")


def test_empty_mixed_and_damaged_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("no image in it", tmp_path / "empty")
    folder = write_folder(tmp_path / "sizes", RGB)
    (folder / "z.png").write_bytes(png(RGB[0, :3]))
    refused("z.png is 3x5 RGB but 0000.png is 6x5 RGB", folder)
    folder = write_folder(tmp_path / "colours", RGB)
    (folder / "z.png").write_bytes(png(GREY[0]))
    refused("z.png is 6x5 grey", folder)
    folder = write_folder(tmp_path / "truncated", SMALL)
    (folder / "0002.png").write_bytes(png(SMALL[2])[:200])
    refused("cannot read 0002.png", folder)
    (folder / "0002.png").write_bytes(b"hello")
    refused("cannot read 0002.png", folder)
    (folder / "0002.png").write_bytes(b"")
    refused("cannot read 0002.png", folder)


def test_paths_that_are_nothing(tmp_path):
    refused("does not exist", f"mine={tmp_path}/no.npz")
    refused("does not exist", tmp_path / "no")
    (tmp_path / "x.tiff").write_bytes(b"")
    refused("no folder, .zip, .npy or .npz", tmp_path / "x.tiff")
    refused("NAME=PATH", "a b=c")
    refused("NAME=PATH", "=c")
    refused("NAME=PATH", "mine=")


# Zips


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_zip(tmp_path):
    members = {f"d/{k}.png": png(RGB[k]) for k in (2, 0, 1)}
    found = load_images(f"mine={write_zip(tmp_path / 'x.zip', members | {'__MACOSX/d/0.png': b'junk'})}")
    assert (found.images == RGB[:3]).all()
    assert "(3 png)" in found.source


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_zip_with_path_traversal_is_refused(tmp_path, name):
    before = sorted(tmp_path.parent.iterdir())
    refused("points outside the archive", write_zip(tmp_path / "x.zip", {"a.png": png(RGB[0]), name: png(RGB[0])}))
    assert sorted(tmp_path.parent.iterdir()) == before


def test_bad_zips(tmp_path, monkeypatch):
    (tmp_path / "not.zip").write_bytes(b"hello")
    refused("not a readable zip", tmp_path / "not.zip")
    refused("no image in it", write_zip(tmp_path / "empty.zip", {"a.txt": b""}))
    path = write_zip(tmp_path / "damaged.zip", {"a.png": png(SMALL[0])})
    data = bytearray(path.read_bytes())
    data[100:140] = bytes(40)
    path.write_bytes(data)
    refused("damaged.zip", path)
    monkeypatch.setattr(vaebm.data.folder, "MAX_ZIP_BYTES", 1000)
    refused("the limit is 1,000", write_zip(tmp_path / "bomb.zip", {"a.png": bytes(100_000)}))


# Arrays


@pytest.mark.parametrize("save", ["npy", "arr_0", "images", "only", "images+labels"])
def test_arrays(tmp_path, save):
    path = tmp_path / ("x.npy" if save == "npy" else "x.npz")
    if save == "npy":
        np.save(path, RGB)
    elif save == "arr_0":
        np.savez(path, RGB, other=np.zeros(3))
    elif save == "images+labels":
        np.savez(path, images=RGB, labels=np.arange(4), junk=np.zeros(1))
    else:
        np.savez_compressed(path, **{save: RGB})
    found = load_images(f"mine={path}", n=3)
    assert (found.images == RGB[:3]).all()
    assert (found.labels is not None) == (save == "images+labels")


def test_array_layouts(tmp_path):
    for array, expected in [(RGB.transpose(0, 3, 1, 2), RGB), (GREY[..., 0], GREY), (GREY.transpose(0, 3, 1, 2), GREY)]:
        np.save(tmp_path / "x.npy", array)
        assert (load_images(str(tmp_path / "x.npy")).images == expected).all()


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (RGB / 255.0, r"np.rint\(x \* 255\)"),
        (RGB / np.float32(127.5) - 1, r"np.rint\(\(x \+ 1\) \* 127.5\)"),
        (RGB.astype(np.float32), r"np.rint\(x\).astype"),
        (RGB.astype(np.int64), r"x.astype\(np.uint8\)"),
        (RGB.astype(np.int64) * 300, "no known image range"),
        (RGB > 127, r"\* 255"),
        (np.full((2, 4, 4, 3), np.nan), "float64"),
        (RGB.astype(complex), "complex128"),
    ],
)
def test_other_dtypes_are_refused_with_the_exact_conversion(tmp_path, array, hint):
    np.save(tmp_path / "x.npy", array)
    refused(f"needed uint8.*{hint}" if hint not in ("float64", "complex128") else hint, tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 2), (0, 4, 4, 3), (2, 0, 4, 3), (1, 2, 3, 4, 3), ()])
def test_other_shapes_are_refused(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    refused("needed uint8", tmp_path / "x.npy")


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_bad_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "two.npz", a=RGB, b=RGB)
    refused("found arrays a, b", "two.npz")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    refused("statistics", "stats.npz")
    np.savez(tmp_path / "labels.npz", images=RGB, labels=np.arange(9))
    refused(r"labels int64 \(9,\)", "labels.npz")
    np.savez(tmp_path / "ok.npz", images=SMALL)
    for cut in (0, 50, 3000):
        (tmp_path / "cut.npz").write_bytes((tmp_path / "ok.npz").read_bytes()[:cut])
        refused("cut.npz: cannot be read", "cut.npz")
    np.save(tmp_path / "ok.npy", SMALL)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "ok.npy").read_bytes()[:3000])
    refused("cut.npy: cannot be read", "cut.npy")
    np.save(tmp_path / "object.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    refused("never loaded", "object.npy")
    np.savez(tmp_path / "object.npz", images=np.array([Evil()], dtype=object))
    refused("never loaded", "object.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Evil()))
    refused("never loaded", "pickle.npz")
    assert not (tmp_path / "owned").exists()


# Packed sheets


def test_pack_round_trip(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(7))
    out = tmp_path / "root" / "kmnist_test"
    assert pack_main([f"mine={tmp_path / 'x.npz'}", str(out), "--count", "6", "--origin", "here"]) == 0
    for found in (load_images(f"mine={out}"), load_images("kmnist", data_root=tmp_path / "root")):
        assert (found.images == images[:6]).all()
        assert found.labels.tolist() == list(range(6))
    assert len(load_images(f"mine={out}", n=2)) == 2
    assert found.split == "test"
    assert found.source == "data root: packed sheets"
    assert json.loads((out / "meta.json").read_text())["origin"] == "here"
    assert [p.name for p in out.parent.iterdir()] == ["kmnist_test"]


def test_pack_takes_several_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr("vaebm.data.packed.TILES_PER_SHEET", 3)
    np.save(tmp_path / "x.npy", RGB)
    assert pack_main([str(tmp_path / "x.npy"), str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.webp")) == ["000.webp", "001.webp"]
    assert (load_images(str(tmp_path / "out")).images == RGB).all()


def test_pack_refuses_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", RGB)
    before = sorted(tmp_path.iterdir())
    assert pack_main(["celeba", str(tmp_path / "out")]) == 2
    assert "no redistribution" in capsys.readouterr().err
    assert pack_main([f"celeba={tmp_path / 'x.npy'}", str(tmp_path / "out")]) == 2
    assert "no redistribution" in capsys.readouterr().err
    assert pack_main([str(tmp_path / "x.npy"), str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert pack_main(["svhn", str(tmp_path / "x.npy" / "out"), "--count", "1"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert pack_main(["svhn", str(tmp_path / "out"), "--split", "valid"]) == 2
    monkeypatch.setattr("vaebm.data.packed.read_packed", lambda *_: load_images("mnist", n=1))
    with pytest.raises(AssertionError):
        pack_main([str(tmp_path / "x.npy"), str(tmp_path / "out")])
    assert sorted(tmp_path.iterdir()) == before


def test_damaged_packed_sets(tmp_path):
    np.save(tmp_path / "x.npy", RGB)
    out = tmp_path / "out"
    assert pack_main([str(tmp_path / "x.npy"), str(out)]) == 0
    meta = json.loads((out / "meta.json").read_text())

    def with_meta(**changes):
        (out / "meta.json").write_text(json.dumps({**meta, **changes}))

    with_meta(sha256="0" * 64)
    refused("do not match the sha256", out)
    with_meta(count=9)
    refused("found 4 tiles", out)
    with_meta(sheets=[{"file": "../x.npy", "count": 4}])
    refused("not a plain file name", out)
    with_meta(shape=[6, 5])
    refused("cannot be read", out)
    with_meta(shape=[0, 5, 3])
    refused("cannot be read", out)
    (out / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "sha256"}))
    refused("KeyError", out)
    with_meta()
    np.savez(out / "arrays.npz", labels=np.arange(3))
    refused("labels", out)
    (out / "arrays.npz").write_bytes(b"PK")
    refused("cannot be read", out)
    (out / "arrays.npz").unlink()
    (out / "000.webp").write_bytes((out / "000.webp").read_bytes()[:40])
    refused("cannot be read", out)


# CIFAR pickles


def cifar_batch(images, key=b"labels", **extra):
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    return pickle.dumps({b"data": pixels, key: list(range(len(images))), **extra}, protocol=3)


def write_cifar(folder):
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(cifar_batch(SMALL))
    for k in range(1, 6):
        (folder / f"data_batch_{k}").write_bytes(cifar_batch(SMALL[k - 1 : k]))


def test_cifar10_folder_and_archive(tmp_path):
    write_cifar(tmp_path / "a" / "cifar-10-batches-py")
    (tmp_path / "b" / "cifar10").mkdir(parents=True)
    with tarfile.open(tmp_path / "b" / "cifar10" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a" / "cifar-10-batches-py", "cifar-10-batches-py")
    for root in ("a", "b"):
        test = load_images("cifar10", data_root=tmp_path / root)
        assert (test.images == SMALL).all()
        assert test.labels.tolist() == [0, 1, 2, 3, 4]
        assert test.split == "test"
        assert (load_images("cifar10", split="train", data_root=tmp_path / root).images == SMALL).all()


def test_cifar100_folder(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "test").write_bytes(cifar_batch(SMALL, b"fine_labels", coarse_labels=[0] * 5))
    assert (load_images("cifar100", data_root=tmp_path).images == SMALL).all()
    refused("cannot be read", "cifar100", split="train", data_root=tmp_path)


def test_cifar_as_python_2_wrote_it():
    # Protocol 2, byte strings, numpy.core: the layout of the published files.
    pixels = SMALL[:1].tobytes()
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tbU\x06labelsq\x07]q\x08K\x03au."
    )
    batch = load_batch(data, "x")
    assert batch["labels"] == [3]
    assert batch["data"].tobytes() == pixels
    assert batch["data"].shape == (1, 3072)


def test_pickles_that_want_more_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    message = refused(rf"asks for {os.system.__module__}\.system", "cifar10", data_root=tmp_path)
    assert "test_batch" in message
    assert not (tmp_path / "owned").exists()
    for name in (b"builtins\neval", b"numpy\nload", b"numpy.core.multiarray\nscalar"):
        (folder / "test_batch").write_bytes(b"\x80\x02c" + name + b"\n.")
        refused("asks for " + name.decode().replace("\n", r"\."), "cifar10", data_root=tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        pickle.dumps([1]),
        pickle.dumps({b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": SMALL.astype(np.float32), b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": SMALL.reshape(5, -1), b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": SMALL.reshape(5, -1), b"labels": [b"x"] * 5}, protocol=3),
        cifar_batch(SMALL)[:-4000],
        b"\x80\x02}(U\x04datacnumpy\nndarray\n)Ru.",
    ],
)
def test_damaged_batches(tmp_path, data):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(data)
    refused("again", "cifar10", data_root=tmp_path)


def test_damaged_archive(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"hello"))
    refused("download cifar-10-python.tar.gz again", "cifar10", data_root=tmp_path)


# SVHN, idx


def test_svhn_mat(tmp_path):
    from scipy.io import savemat

    content = {"X": SMALL.transpose(1, 2, 3, 0), "y": np.array([[5], [10], [1], [2], [3]], np.uint8)}
    savemat(tmp_path / "test_32x32.mat", content)
    (tmp_path / "svhn").mkdir()
    savemat(tmp_path / "svhn" / "train_32x32.mat", content)
    for split in ("test", "train"):
        found = load_images("svhn", split=split, data_root=tmp_path)
        assert (found.images == SMALL).all()
        assert found.labels.tolist() == [5, 0, 1, 2, 3]
        assert found.source == f"data root: {split}_32x32.mat"
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    for data in (b"", b"hello", whole[:3000]):
        (tmp_path / "test_32x32.mat").write_bytes(data)
        refused("not a readable SVHN file", "svhn", data_root=tmp_path)
    savemat(tmp_path / "test_32x32.mat", {"X": SMALL, "y": np.arange(5)})
    refused("found X", "svhn", data_root=tmp_path)


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_idx(tmp_path, name, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(GREY[..., 0]))
    assert load_images(name, data_root=tmp_path).labels is None
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(4))))
    found = load_images(name, data_root=tmp_path)
    assert (found.images == GREY).all()
    assert found.labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataUnavailable):
        load_images(name, split="train", data_root=tmp_path)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(3))))
    refused("found 3 labels, needed 4", name, data_root=tmp_path)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(3)))[:-9])
    refused("cannot be read", name, data_root=tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(GREY[..., 0])[:-1])
    refused("found 119 values", name, data_root=tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"hello")
    refused("not an idx file", name, data_root=tmp_path)


# Data root: arrays, folders, splits


def test_root_folder_and_array(tmp_path):
    write_folder(tmp_path / "kmnist", GREY)
    found = load_images("kmnist", data_root=tmp_path)
    assert (found.images == GREY).all()
    assert found.split == ""
    assert found.source == "data root: folder kmnist (4 png)"
    with pytest.raises(DataUnavailable):  # a folder without a split in its name is never taken to train on
        load_images("kmnist", split="train", data_root=tmp_path)
    np.savez(tmp_path / "kmnist_train.npz", GREY[:2])
    assert load_images("kmnist", split="train", data_root=tmp_path).split == "train"


# CelebA


def faces(numbers, folder):
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    for number in numbers:
        Image.fromarray(np.roll(pixels, number, axis=0)).save(folder / f"{number:06}.png")
    return pixels


def test_celeba_is_cropped_then_resized_once(tmp_path):
    pixels = faces([182_638, 182_640, 1], tmp_path / "celeba" / "img_align_celeba")
    expected = Image.fromarray(np.roll(pixels, 182_638, axis=0)).crop((15, 40, 163, 188))
    found = load_images("celeba", data_root=tmp_path, size=(32, 32))
    assert (found.images[0] == np.asarray(expected.resize((32, 32), Image.Resampling.BILINEAR))).all()
    assert found.index.tolist() == [182_638, 182_640]
    assert found.split == "test"
    assert "15, 40, 163, 188" in found.notes[0]
    assert load_images("celeba", data_root=tmp_path).images.shape == (2, 64, 64, 3)
    assert load_images("celeba", data_root=tmp_path, split="train").index.tolist() == [1]
    assert len(load_images("celeba", data_root=tmp_path, n=1)) == 1


def test_celeba_zip_and_missing_partitions(tmp_path):
    faces([1, 2], tmp_path / "made")
    (tmp_path / "a").mkdir()
    members = {f"img_align_celeba/{p.name}": p.read_bytes() for p in (tmp_path / "made").iterdir()}
    write_zip(tmp_path / "a" / "img_align_celeba.zip", members)
    found = load_images("celeba", data_root=tmp_path / "a")
    assert found.index.tolist() == [1, 2]
    assert found.split == ""
    assert any("no image of CelebA's test partition" in note for note in found.notes)
    faces([182_638], tmp_path / "b" / "img_align_celeba")
    with pytest.raises(DataUnavailable):
        load_images("celeba", split="train", data_root=tmp_path / "b")


def test_celeba_of_another_size_is_refused(tmp_path):
    write_folder(tmp_path / "celeba" / "img_align_celeba", SMALL)
    refused("32x32, needed the aligned CelebA pictures of 218x178", "celeba", data_root=tmp_path)


def test_packed_celeba_takes_the_nearest_larger_size(tmp_path):
    for side in (32, 64):
        np.save(tmp_path / "x.npy", np.full((2, side, side, 3), side, np.uint8))
        assert pack_main([str(tmp_path / "x.npy"), str(tmp_path / "root" / f"celeba{side}")]) == 0
    value = lambda size: int(load_images("celeba", data_root=tmp_path / "root", size=size).images[0, 0, 0, 0])
    assert value(None) == value((64, 64)) == value((48, 48)) == value((99, 99)) == 64
    assert value((32, 32)) == value((16, 16)) == 32
    with pytest.raises(DataUnavailable):
        load_images("celeba", split="train", data_root=tmp_path / "root")
