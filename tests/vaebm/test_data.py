"""ImageSet, interpolation, duplicates, resizing, and the order of places in which load_images looks."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import vaebm.data.load
from vaebm.data import (
    DATASETS,
    PAIRINGS,
    DataUnavailable,
    ImageSet,
    interpolate,
    load_images,
    remove_duplicates,
    require,
    resize,
)
from vaebm.data.interpolation import BATCH, mean_of_two
from vaebm.errors import UserError

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(2), st.just(2), st.sampled_from([1, 3])))


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch, tmp_path):
    """No data root, no network: a test that needs one says so."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vaebm.data.load, "read_download", _no_network)


def _no_network(name, split):
    raise DataUnavailable("download failed, no network")


def image_set(images, name="toy", **kwargs):
    return ImageSet(name, np.asarray(images, dtype=np.uint8), "test", "", **kwargs)


def random_set(n, h=4, w=4, c=3, seed=0, **kwargs):
    return image_set(np.random.default_rng(seed).integers(0, 256, (n, h, w, c)), **kwargs)


# ImageSet


def test_importing_needs_no_torch():
    code = "import sys, vaebm.data; print(sorted({'torch', 'torchvision', 'scipy', 'pooch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@given(IMAGES)
def test_hash_is_of_shape_and_pixels_only(pixels):
    one = image_set(pixels, "one")
    assert one.sha256 == image_set(np.asfortranarray(pixels), "other").sha256
    changed = pixels.copy()
    changed.flat[0] ^= 1
    assert one.sha256 != image_set(changed).sha256
    n, h, w, c = pixels.shape
    assert one.sha256 != image_set(pixels.reshape(n, 1, h * w, c)).sha256


def test_head_and_take_keep_rows_together():
    whole = random_set(5, labels=[0, 1, 2, 3, 4], index=[9, 8, 7, 6, 5])
    assert whole.head(9) is whole
    assert len(whole.head(2)) == 2
    assert whole.head(2).index.tolist() == [9, 8]
    taken = whole.take(np.array([3, 1]))
    assert taken.labels.tolist() == [3, 1]
    assert (taken.images == whole.images[[3, 1]]).all()


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 2), (4, 4)])
def test_image_set_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="uint8"):
        image_set(np.zeros(shape))


def test_image_set_refuses_floats_and_wrong_lengths():
    with pytest.raises(ValueError, match="float64"):
        ImageSet("x", np.zeros((1, 2, 2, 3)), "", "")
    with pytest.raises(ValueError, match="labels"):
        random_set(3, labels=[1])


# Interpolation


@given(st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=300)
def test_mean_is_exact_with_halves_to_even(a, b):
    mean = int(mean_of_two(np.uint8([a]), np.uint8([b]))[0])
    assert mean == round((a + b) / 2)  # Python rounds halves to even
    assert min(a, b) <= mean <= max(a, b)


@given(IMAGES.filter(lambda x: len(x) > 1), st.sampled_from(sorted(PAIRINGS)), st.integers(0, 9))
def test_interpolated_pixels_lie_between_their_sources(pixels, pairing, seed):
    made = interpolate(image_set(pixels), pairing, seed)
    first, second = PAIRINGS[pairing](len(pixels), seed)
    assert (made.images >= np.minimum(pixels[first], pixels[second])).all()
    assert (made.images <= np.maximum(pixels[first], pixels[second])).all()
    assert made.labels is None
    assert made.name == "toy_interp"
    assert pairing in made.notes[-1]


@given(st.integers(2, 400), st.sampled_from(sorted(PAIRINGS)), st.integers(0, 3))
def test_no_image_meets_itself_and_each_is_used_twice(n, pairing, seed):
    first, second = PAIRINGS[pairing](n, seed)
    assert (first != second).all()
    expected = n - 1 if pairing == "batches" and n % BATCH == 1 else n
    assert len(set(first)) == len(set(second)) == len(first) == expected


def test_pairings_are_those_documented():
    pixels = np.arange(260, dtype=np.uint8).repeat(12).reshape(260, 2, 2, 3)
    value = lambda pairing, seed=0: interpolate(image_set(pixels), pairing, seed).images[:, 0, 0, 0]
    assert value("neighbours")[0] == 0  # (0 + 1) / 2, to even
    assert value("neighbours")[-1] == 2  # 259 wraps to 3: (3 + 0) / 2
    assert value("batches")[BATCH - 1] == 64  # (127 + 0) / 2 = 63.5, to even
    assert value("neighbours")[BATCH - 1] == 128  # (127 + 128) / 2 = 127.5, to even
    assert (value("shuffled", 0) != value("shuffled", 1)).any()
    assert (value("shuffled", 1) == value("shuffled", 1)).all()


def test_interpolation_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="Did you mean 'neighbours'"):
        interpolate(random_set(3), "neighbors")
    with pytest.raises(UserError, match="at least 2"):
        interpolate(random_set(1))
    with pytest.raises(UserError, match="seed -1"):
        interpolate(random_set(3), "shuffled", -1)


# Duplicates


@given(IMAGES, st.lists(st.integers(0, 5)), st.integers(0, 2**16))
def test_exactly_the_duplicates_go(pixels, picks, seed):
    reference = image_set(pixels, "reference")
    copies = pixels[[k % len(pixels) for k in picks]]
    others = np.random.default_rng(seed).integers(0, 256, (4, *pixels.shape[1:]), dtype=np.uint8)
    kept, removed = remove_duplicates(image_set(np.concatenate([others, copies])), reference)
    expected = [x for x in np.concatenate([others, copies]) if not any((x == y).all() for y in pixels)]
    assert removed == 4 + len(copies) - len(expected)
    assert len(kept) == len(expected)
    assert all((x == y).all() for x, y in zip(kept.images, expected, strict=True))
    assert bool(kept.notes) == (removed > 0)
    assert remove_duplicates(kept, reference) == (kept, 0)


def test_sets_of_other_shape_have_no_duplicates():
    images = random_set(2)
    assert remove_duplicates(images, random_set(2, h=2)) == (images, 0)


# Size and colour


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillow_bilinear(channels):
    images = random_set(2, 9, 7, channels)
    small = resize(images, (4, 5))
    assert small.images.shape == (2, 4, 5, channels)
    picture = Image.fromarray(images.images[1].squeeze()).resize((5, 4), Image.Resampling.BILINEAR)
    assert (small.images[1].squeeze() == np.asarray(picture)).all()
    assert "9x7 to 4x5" in small.notes[-1]


def test_resize_is_antialiased_and_identity_when_equal():
    checks = np.indices((8, 8)).sum(0) % 2 * 255
    images = image_set(checks[None, ..., None])
    assert resize(images, (8, 8)) is images
    assert np.abs(resize(images, (2, 2)).images.astype(int) - 127).max() < 20  # point sampling would give 0 or 255
    with pytest.raises(UserError, match="at least 1"):
        resize(images, (0, 8))


def test_require_names_set_found_and_needed():
    grey = random_set(1, 28, 28, 1, name="mnist")
    assert require(grey, (28, 28), 1) is grey
    with pytest.raises(UserError, match=r"mnist.*28x28 grey.*needed 32x32 RGB"):
        require(grey, (32, 32), 3)


# load_images: names and options


@pytest.mark.parametrize("name", ["cifar10", "cifar10_interp", "svhn", "cifar100", "mnist", "fashion_mnist", "kmnist"])
def test_bundled_sets_need_no_network(name):
    images = load_images(name)
    info = DATASETS[name]
    assert images.images.shape == (2000, *info.size, info.channels)
    assert "bundled cut" in images.source
    assert len(load_images(name, n=7)) == 7


def test_interp_is_made_of_the_images_the_reference_uses():
    base = load_images("cifar10", n=5).images
    made = load_images("cifar10_interp", n=5)
    assert (made.images == mean_of_two(base, np.roll(base, -1, axis=0))).all()
    hashes = {
        load_images("cifar10_interp", n=300, interp=p, seed=s).sha256
        for p, s in [("neighbours", 0), ("batches", 0), ("shuffled", 0), ("shuffled", 1)]
    }
    assert len(hashes) == 4


def test_size_option():
    assert load_images("svhn", n=2, size=(16, 8)).images.shape == (2, 16, 8, 3)
    assert load_images("cifar10_interp", n=2, size=(16, 16)).images.shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match="at least 1"):
        load_images("svhn", size=(0, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": "shvn"}, "Did you mean 'svhn'"),
        ({"spec": ""}, "unknown data set"),
        ({"spec": "svhn", "split": "tests"}, "Did you mean 'test'"),
        ({"spec": "svhn", "interp": "shufled"}, "Did you mean 'shuffled'"),
        ({"spec": "svhn", "n": 0}, "at least 1"),
        ({"spec": "svhn", "data_root": "/no/such/folder"}, "--data-root: /no/such/folder is not a folder"),
    ],
)
def test_mistakes_are_one_line_that_names_them(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        load_images(**arguments)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DataUnavailable)


def test_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("VAEBM_DATA", "/no/such/folder")
    with pytest.raises(UserError, match="VAEBM_DATA: /no/such/folder"):
        load_images("svhn")


def test_celeba_absent_says_how_to_get_it(tmp_path):
    with pytest.raises(DataUnavailable, match=r"--data-root or VAEBM_DATA .*img_align_celeba") as caught:
        load_images("celeba", data_root=tmp_path)
    assert "redistributed" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"spec": "kmnist", "split": "train"}, {"spec": "svhn", "split": "train"}])
def test_nothing_anywhere_is_unavailable(arguments):
    with pytest.raises(DataUnavailable, match="no network"):
        load_images(**arguments)
    with pytest.raises(DataUnavailable, match="switched off"):
        load_images(**arguments, download=False)


# load_images: order of places


def write_root(tmp_path, n=3, stem="svhn_test"):
    images = random_set(n, 32, 32).images
    np.save(tmp_path / f"{stem}.npy", images)
    return images


def test_data_root_comes_first_and_the_argument_before_the_variable(tmp_path, monkeypatch):
    for folder, seed in (("argument", 1), ("variable", 2)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "svhn_test.npy", random_set(2, 32, 32, seed=seed).images)
    monkeypatch.setenv("VAEBM_DATA", str(tmp_path / "variable"))
    assert load_images("svhn").sha256 == random_set(2, 32, 32, seed=2).sha256
    assert load_images("svhn", data_root=tmp_path / "argument").sha256 == random_set(2, 32, 32, seed=1).sha256


def test_a_root_that_holds_fewer_gives_what_it_has(tmp_path):
    images = write_root(tmp_path)
    found = load_images("svhn", n=10, data_root=tmp_path)
    assert (found.images == images).all()
    assert found.notes == ("asked for 10 images, this place holds 3",)
    assert "svhn_test.npy" in found.source
    assert str(tmp_path) not in found.source


def test_a_root_without_the_set_falls_through_with_a_note(tmp_path):
    found = load_images("svhn", n=4, data_root=tmp_path)
    assert "bundled" in found.source
    assert "the data root has no svhn (test)" in found.notes


def test_larger_than_the_cut_is_downloaded_or_falls_back(monkeypatch):
    short = load_images("svhn", n=2500)
    assert len(short) == 2000
    assert any("no network" in note for note in short.notes)
    assert sum("asked for 2500" in note for note in short.notes) == 1
    assert any("switched off" in note for note in load_images("svhn", n=2500, download=False).notes)
    larger = random_set(2500, 32, 32)
    monkeypatch.setattr(vaebm.data.load, "read_download", lambda name, split: larger)
    assert load_images("svhn", n=2400).sha256 == larger.head(2400).sha256
    assert "bundled" in load_images("svhn", n=2000).source


def test_train_is_never_served_from_a_test_cut(monkeypatch):
    train = random_set(4, 32, 32)
    monkeypatch.setattr(vaebm.data.load, "read_download", lambda name, split: train if split == "train" else None)
    assert load_images("cifar10", split="train").sha256 == train.sha256
