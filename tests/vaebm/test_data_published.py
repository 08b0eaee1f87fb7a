"""The sets that the published models train on: stacked and padded MNIST, CelebA 64, and the sets that are picture files."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import vaebm.data.load
from vaebm.data import DATASETS, DataUnavailable, ImageSet, binarise, load_images
from vaebm.data.digits import STACK_SEED, pad, stack
from vaebm.data.picture_sets import PICTURE_SETS
from vaebm.errors import UserError
from vaebm.training.batches import Batches


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch):
    """No data root, no network: a test that needs one says so."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setattr(vaebm.data.load, "read_download", _no_network)


def _no_network(name, split):
    raise DataUnavailable("download failed, no network")


def digits(n=30, split="test"):
    """Digit k is an image of the one grey level k + 1, so that a stack shows what it is made of."""
    images = np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2)
    return ImageSet("mnist", images, "made up", split, labels=np.arange(n) % 10)


def photo(height, width, seed=0, mode="RGB"):
    smooth = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save_photos(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")


# MNIST


def test_padding_frames_the_digit_in_black():
    padded = pad(digits())
    assert padded.images.shape == (30, 32, 32, 1)
    assert (padded.images[:, 2:-2, 2:-2] == digits().images).all()
    assert padded.images.astype(int).sum() == digits().images.astype(int).sum()
    assert (padded.labels == digits().labels).all()


def test_stack_uses_every_digit_twice_per_channel_in_independent_permutations():
    stacked = stack(digits())
    assert stacked.images.shape == (60, 32, 32, 3)
    order = stacked.images[:, 2, 2].astype(int) - 1  # (60, 3): which digit each channel shows
    for channel in order.T:
        assert sorted(channel[:30]) == sorted(channel[30:]) == list(range(30))
        assert (channel[:30] != channel[30:]).any()
    assert (order[:, 0] != order[:, 1]).any()
    assert (order[:, 1] != order[:, 2]).any()
    assert (stacked.labels == 100 * (order[:, 0] % 10) + 10 * (order[:, 1] % 10) + order[:, 2] % 10).all()
    assert stacked.index is None
    assert (stacked.images[:, 2:-2, 2:-2] == stacked.images[:, 2:3, 2:3]).all()
    assert stacked.images[:, :2].max() == stacked.images[:, :, -2:].max() == 0


def test_stack_is_decided_by_its_seed_alone():
    assert stack(digits()).sha256 == stack(digits()).sha256
    assert stack(digits(), 1).sha256 != stack(digits(), 2).sha256
    assert f"seed {STACK_SEED}" in " ".join(stack(digits()).notes)
    # The stream is frozen: the first six permutations of RandomState(0), two per channel.
    draw = np.random.RandomState(0)
    expected = np.stack([np.concatenate([draw.permutation(30), draw.permutation(30)]) for _ in range(3)], axis=-1)
    assert (stack(digits()).images[:, 5, 5] == expected + 1).all()


def test_stack_without_labels_and_of_something_else():
    unlabelled = ImageSet("mnist", digits().images, "made up", "")
    assert stack(unlabelled).labels is None
    with pytest.raises(UserError, match="needed 28x28 grey"):
        stack(ImageSet("mnist", np.zeros((2, 32, 32, 1), np.uint8), "made up", ""))


def test_stacked_mnist_by_name_is_of_the_bundled_cut_and_says_so():
    found = load_images("stacked_mnist", download=False)
    assert found.images.shape == (4000, 32, 32, 3)
    assert found.name == "stacked_mnist"
    assert any("2000 MNIST images at hand" in note for note in found.notes)
    assert len(np.unique(found.labels)) > 900
    few = load_images("stacked_mnist", n=7, download=False)
    assert (few.images == found.images[:7]).all()
    assert (few.labels == found.labels[:7]).all()
    more = load_images("stacked_mnist", n=5000)
    assert len(more) == 4000
    assert any("no network" in note for note in more.notes)


def test_stacked_mnist_of_a_whole_split_has_the_published_number_of_images(tmp_path):
    whole = np.zeros((60_000, 28, 28, 1), np.uint8)
    whole[:, 0, 0, 0] = np.arange(60_000) % 251
    np.savez(tmp_path / "mnist_train.npz", images=whole, labels=np.arange(60_000) % 10)
    found = load_images("stacked_mnist", split="train", data_root=tmp_path)
    assert found.images.shape == (120_000, 32, 32, 3)
    assert not any("at hand" in note for note in found.notes)
    counts = Counter(found.labels.tolist())
    assert set(counts) == set(range(1000))
    assert 60 < min(counts.values()) < 120 < max(counts.values()) < 180


def test_mnist32_by_name_keeps_the_digits_of_mnist():
    found, plain = load_images("mnist32", n=20, download=False), load_images("mnist", n=20, download=False)
    assert (found.images[:, 2:-2, 2:-2] == plain.images).all()
    assert (found.labels == plain.labels).all()


@pytest.mark.parametrize("name", ["mnist32", "stacked_mnist"])
def test_training_split_without_mnist_says_what_supplies_it(name):
    with pytest.raises(DataUnavailable, match=r"mnist \(train\).*--data-root or VAEBM_DATA .*MNIST/raw/"):
        load_images(name, split="train")


def test_binarise_draws_at_the_grey_value_and_keeps_black_and_white():
    images = np.tile(np.arange(256, dtype=np.uint8), (4000, 1))
    uniform = np.random.default_rng(0).random(images.shape, dtype=np.float32)
    drawn = binarise(images, uniform)
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 255}
    rate, p = (drawn == 255).mean(0), np.arange(256) / 255
    assert (np.abs(rate - p) <= 5 * np.sqrt(p * (1 - p) / 4000)).all()
    assert (binarise(drawn, uniform) == drawn).all()
    edges = np.array([0, 255], dtype=np.uint8)
    for extreme in (0.0, np.nextafter(np.float32(1), np.float32(0))):
        assert (binarise(edges, np.full(2, extreme, np.float32)) == edges).all()


# CelebA 64


def test_celeba64_is_the_cropped_face_at_64(tmp_path):
    face = photo(218, 178)
    save_photos(tmp_path / "celeba" / "img_align_celeba", {"000001": face, "182638": photo(218, 178, 1)})
    found = load_images("celeba64", split="train", data_root=tmp_path)
    expected = face.crop((15, 40, 163, 188)).resize((64, 64), Image.Resampling.BILINEAR)
    assert (found.images == np.asarray(expected)[None]).all()
    assert found.name == "celeba64"
    assert found.split == "train"
    assert "15, 40, 163, 188" in found.notes[0]
    assert load_images("celeba64", data_root=tmp_path).index.tolist() == [182_638]


def test_celeba64_is_never_made_of_smaller_images(tmp_path):
    np.save(tmp_path / "celeba_train.npy", np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(DataUnavailable, match=r"celeba64: found 32x32 .*img_align_celeba"):
        load_images("celeba64", split="train", data_root=tmp_path)
    with pytest.raises(DataUnavailable, match="img_align_celeba"):
        load_images("celeba64", split="train")


def test_real_celeba64_trains(data_root):
    found = load_images("celeba64", split="train", data_root=data_root, n=64)
    assert found.images.shape == (64, 64, 64, 3)
    assert found.split == "train"
    assert found.images.std() > 20
    assert Batches(found.images, 16, seed=0)[1].shape == (16, 3, 64, 64)


# Sets of picture files


@pytest.mark.parametrize("name", PICTURE_SETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_absent_sets_say_which_folder_supplies_them(name, split, tmp_path):
    stem = PICTURE_SETS[name].stem
    for root in (None, tmp_path):
        with pytest.raises(
            DataUnavailable, match=rf"--data-root or VAEBM_DATA to .*{stem}_{split}/ or {stem}_{split}\.zip"
        ) as caught:
            load_images(name, split=split, data_root=root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PICTURE_SETS)
def test_pictures_of_the_right_size_stay_as_they_are(name, tmp_path):
    side = PICTURE_SETS[name].side
    pictures = {f"{k:03}": photo(side, side, k) for k in range(3)}
    save_photos(tmp_path / f"{PICTURE_SETS[name].stem}_train", pictures)
    found = load_images(name, split="train", data_root=tmp_path)
    expected = np.stack([np.asarray(p) for p in pictures.values()])
    if PICTURE_SETS[name].mixed:
        assert sorted(map(np.ndarray.tobytes, found.images)) == sorted(map(np.ndarray.tobytes, expected))
    else:
        assert (found.images == expected).all()
    assert found.images.shape[1:] == (*DATASETS[name].size, DATASETS[name].channels)
    assert found.split == "train"
    assert len(load_images(name, split="train", data_root=tmp_path, n=2)) == 2


def test_test_pictures_of_lsun_are_reduced_and_cropped_at_the_centre(tmp_path):
    wide, tall = photo(256, 341), photo(300, 256, 1)
    save_photos(tmp_path / "lsun_church_test", {"a": wide, "b": tall})
    found = load_images("lsun_church64", data_root=tmp_path)
    bilinear = Image.Resampling.BILINEAR
    expected = [
        wide.resize((85, 64), bilinear).crop((10, 0, 74, 64)),
        tall.resize((64, 75), bilinear).crop((0, 6, 64, 70)),
    ]
    assert (found.images == np.stack([np.asarray(picture) for picture in expected])).all()
    assert "centre" in found.notes[0]


def test_training_pictures_of_lsun_are_cropped_anywhere_but_always_there(tmp_path):
    ramp = np.broadcast_to(
        np.arange(128, dtype=np.uint8)[None, :, None], (64, 128, 3)
    )  # its grey level says where it is
    save_photos(tmp_path / "lsun_church_train", {f"{k:03}": Image.fromarray(ramp) for k in range(300)})
    found = load_images("lsun_church64", split="train", data_root=tmp_path)
    left = found.images[:, 0, 0, 0].astype(int)
    assert (found.images == (left[:, None] + np.arange(64))[:, None, :, None]).all()
    assert left.min() <= 3
    assert left.max() >= 61
    assert abs(left.mean() - 32) < 5 * np.sqrt((65**2 - 1) / 12 / 300)
    assert "random" in found.notes[0]
    assert load_images("lsun_church64", split="train", data_root=tmp_path).sha256 == found.sha256
    (tmp_path / "lsun_church_train" / "000.png").unlink()  # the others stay where they are
    assert (load_images("lsun_church64", split="train", data_root=tmp_path).images == found.images[1:]).all()


def test_a_zip_serves_as_well_as_a_folder_and_so_do_subfolders(tmp_path):
    pictures = {f"{k}": photo(70, 90, k) for k in range(4)}
    save_photos(tmp_path / "a" / "lsun_church" / "train" / "deep", pictures)
    (tmp_path / "b").mkdir()
    with zipfile.ZipFile(tmp_path / "b" / "lsun_church_train.zip", "w") as archive:
        for path in sorted((tmp_path / "a").rglob("*.png")):
            archive.write(path, path.name)
    found = [load_images("lsun_church64", split="train", data_root=tmp_path / part) for part in "ab"]
    assert found[0].sha256 == found[1].sha256
    assert "zip lsun_church_train.zip (4 png)" in found[1].source
    assert str(tmp_path) not in found[0].source + found[1].source


def test_pictures_without_a_split_are_never_trained_on(tmp_path):
    save_photos(tmp_path / "ffhq", {"a": photo(300, 300)})
    assert load_images("ffhq256", data_root=tmp_path).split == ""
    with pytest.raises(DataUnavailable, match="ffhq_train"):
        load_images("ffhq256", split="train", data_root=tmp_path)


def test_grey_pictures_become_rgb_and_small_ones_are_refused(tmp_path):
    save_photos(tmp_path / "imagenet32_train", {"a": photo(32, 32), "b": photo(32, 32, 1, "L")})
    found = load_images("imagenet32", split="train", data_root=tmp_path)
    assert (found.images[1] == found.images[1, ..., :1]).all()
    save_photos(tmp_path / "celebahq_train", {"a": photo(128, 128)})
    with pytest.raises(UserError, match="128x128, needed at least 256x256"):
        load_images("celebahq256", split="train", data_root=tmp_path)


def test_prepared_arrays_are_taken_as_they_are_and_must_fit(tmp_path):
    images = np.stack([np.asarray(photo(64, 64, k)) for k in range(3)])
    np.save(tmp_path / "lsun_church64_train.npy", images)
    assert (load_images("lsun_church64", split="train", data_root=tmp_path).images == images).all()
    np.save(tmp_path / "lsun_church64_train.npy", images[:, :32])
    with pytest.raises(UserError, match="needed 64x64 RGB"):
        load_images("lsun_church64", split="train", data_root=tmp_path)


# Pictures that are only scored


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("textures", "dtd/images"),
        ("places365", "places365/val_256"),
        ("tiny_imagenet", "tiny-imagenet-200/test/images"),
        ("lsun_crop", "LSUN/test"),
        ("lsun_resize", "LSUN_resize/LSUN_resize"),
    ],
)
def test_archives_serve_as_they_unpack(name, folder, tmp_path):
    save_photos(tmp_path / folder / "a", {"a_1": photo(40, 40)})
    found = load_images(name, data_root=tmp_path)
    assert found.images.shape == (1, 32, 32, 3)
    assert found.split == ("test" if name in ("tiny_imagenet", "lsun_crop") else "")
    assert folder.partition("/")[0] in found.source


def test_crops_of_lsun_are_cropped_and_not_reduced(tmp_path):
    picture = photo(36, 36)
    save_photos(tmp_path / "LSUN" / "test", {"0": picture})
    save_photos(tmp_path / "LSUN_resize", {"0": picture})
    crop, reduced = (load_images(name, data_root=tmp_path) for name in ("lsun_crop", "lsun_resize"))
    assert (crop.images[0] == np.asarray(picture)[2:-2, 2:-2]).all()
    assert (reduced.images[0] == np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))).all()
    assert "shorter side" not in crop.notes[0]
    assert "shorter side to 32" in reduced.notes[0]


def test_the_first_textures_are_of_many_classes_whatever_folder_they_lie_in(tmp_path):
    shade = lambda c, k: Image.new("RGB", (32, 32), (20 * c, k, 0))
    for c in range(8):
        save_photos(
            tmp_path / "a" / "dtd" / "images" / f"class{c}", {f"class{c}_{k:02}": shade(c, k) for k in range(12)}
        )
    (tmp_path / "b").mkdir()
    with zipfile.ZipFile(tmp_path / "b" / "dtd.zip", "w") as archive:
        for path in sorted((tmp_path / "a").rglob("*.png")):
            archive.write(path, path.name)
    found = [load_images("textures", data_root=tmp_path / part) for part in "ab"]
    assert found[0].sha256 == found[1].sha256
    first = load_images("textures", n=24, data_root=tmp_path / "a")
    assert (first.images == found[0].images[:24]).all()
    assert len(set(first.images[:, 0, 0, 0])) >= 6  # by name there were 2
    assert "order mixed" in first.notes[0]
    (tmp_path / "a" / "dtd" / "images" / "class0" / "class0_00.png").unlink()  # the others keep their order
    left = [image for image in found[0].images if tuple(image[0, 0, :2]) != (0, 0)]
    assert (load_images("textures", data_root=tmp_path / "a").images == np.stack(left)).all()


# What stands beside MNIST


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_sets_beside_mnist_are_made_by_its_recipes(name):
    base = load_images(name, n=2000)
    padded, stacked = load_images(f"{name}32", n=50), load_images(f"stacked_{name}", n=300)
    assert (padded.images == pad(base).images[:50]).all()
    assert (stacked.images == stack(base).images[:300]).all()
    assert (padded.name, stacked.name) == (f"{name}32", f"stacked_{name}")
    assert stacked.images.shape == (300, *DATASETS[stacked.name].size, DATASETS[stacked.name].channels)
    assert stacked.source.startswith(f"stacked from {name}: ")
    assert any(f"2000 {DATASETS[name].title} images at hand" in note for note in stacked.notes)
    # The same permutations as of MNIST: image i is of the same three positions.
    first = np.random.RandomState(STACK_SEED).permutation(2000)[0]
    assert (stacked.images[0, 2:-2, 2:-2, 0] == base.images[first, ..., 0]).all()


# What training takes


@pytest.mark.parametrize("name", ["mnist32", "stacked_mnist", "lsun_church64"])
def test_a_training_split_is_one_array_that_batches_take(name, tmp_path):
    np.savez(tmp_path / "mnist_train.npz", images=digits().images, labels=digits().labels)
    save_photos(tmp_path / "lsun_church_train", {str(k): photo(70, 80, k) for k in range(5)})
    found = load_images(name, split="train", data_root=tmp_path)
    height, width = DATASETS[name].size
    assert found.images.dtype == np.uint8
    assert Batches(found.images, 4, seed=0)[1].shape == (4, DATASETS[name].channels, height, width)
