"""Noise and single colours: drawn from the seed, image by image, in any shape; and the change between grey and colour."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare, norm

from vaebm.data import DATASETS, SYNTHETIC, ImageSet, load_images, remove_duplicates, to_channels
from vaebm.data.synthetic import NUM_IMAGES, synthesise

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
NAMES = st.sampled_from(sorted(SYNTHETIC))


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("VAEBM_DATA", raising=False)


@given(NAMES, SHAPES, st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6))
@settings(deadline=None)
def test_an_image_depends_on_seed_and_place_alone(name, shape, seed, few, more):
    first, whole = synthesise(name, few, shape, seed), synthesise(name, few + more, shape, seed)
    assert whole.images.shape == (few + more, *shape)
    assert whole.images.dtype == np.uint8
    assert (first.images == whole.images[:few]).all()
    assert first.sha256 == synthesise(name, few, shape, seed).sha256
    assert (whole.split, whole.labels, whole.index) == ("", None, None)


@given(NAMES, st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_another_seed_or_place_is_another_image(name, seed):
    one, other = (synthesise(name, 8, (4, 4, 3), s) for s in (seed, seed + 1))
    assert one.sha256 != other.sha256
    assert len({image.tobytes() for image in one.images}) == 8
    assert f"seed {seed}" in one.notes[0]


def test_sets_do_not_share_their_noise():
    noise, colour = (synthesise(name, 50, (1, 1, 3)).images.ravel() for name in ("uniform_noise", "constant"))
    assert abs(np.corrcoef(noise, colour)[0, 1]) < 0.4


def test_uniform_noise_has_every_level_equally_often():
    values = synthesise("uniform_noise", 200, (32, 32, 3)).images.ravel()
    assert chisquare(np.bincount(values, minlength=256)).pvalue > 1e-4


def test_gaussian_noise_has_the_distribution_of_its_recipe():
    """Level v holds z with 255 (1/2 + z) in [v - 1/2, v + 1/2]; the ends hold the clipped tails."""
    values = synthesise("gaussian_noise", 200, (32, 32, 3)).images.ravel()
    edges = (np.arange(255) + 0.5) / 255 - 0.5
    chances = np.diff(norm.cdf(edges), prepend=0, append=1)
    assert chisquare(np.bincount(values, minlength=256), chances * len(values)).pvalue > 1e-4
    assert chances[0] == pytest.approx(norm.cdf(-0.5), abs=1e-3)  # a third of all values is black, a third white


def test_constant_images_have_one_colour_each_of_all_colours():
    images = synthesise("constant", 4000, (3, 5, 3)).images
    assert (images == images[:, :1, :1]).all()
    colours = images[:, 0, 0].astype(float)
    assert chisquare(np.histogram(colours, 16, (0, 256))[0]).pvalue > 1e-4
    assert np.abs(np.corrcoef(colours.T) - np.eye(3)).max() < 0.08  # channels are independent
    assert images.flags.writeable


@pytest.mark.parametrize("name", sorted(SYNTHETIC))
def test_by_name_they_take_the_shape_asked_for(name):
    plain = load_images(name, n=3)
    assert plain.images.shape == (3, *DATASETS[name].size, DATASETS[name].channels)
    grey = load_images(name, n=3, size=(28, 28), channels=1, seed=5)
    assert grey.images.shape == (3, 28, 28, 1)
    assert grey.sha256 == synthesise(name, 3, (28, 28, 1), 5).sha256  # drawn so, neither resized nor made grey
    assert grey.notes == (f"{DATASETS[name].recipe}; seed 5",)
    assert load_images(name, n=3, seed=1).sha256 != plain.sha256
    assert grey.source == "drawn from seed 5"
    assert not load_images(name, n=2, download=False).notes[1:]


def test_as_many_as_published_unless_told_otherwise():
    assert len(load_images("constant", size=(1, 1))) == NUM_IMAGES == 10_000


def test_nothing_drawn_is_in_a_bundled_set():
    for name in SYNTHETIC:
        assert remove_duplicates(load_images(name, n=20), load_images("cifar10", n=200))[1] == 0


# Colour


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16))
@settings(deadline=None)
def test_grey_of_colour_is_luma_and_colour_of_grey_is_repeated(n, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    colour = ImageSet("toy", pixels, "", "test", labels=np.arange(n))
    grey = to_channels(colour, 1)
    assert grey.images.shape == (n, height, width, 1)
    assert np.abs(grey.images[..., 0] - pixels @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    assert all(
        (g[..., 0] == np.asarray(Image.fromarray(c).convert("L"))).all()
        for g, c in zip(grey.images, pixels, strict=True)
    )
    back = to_channels(grey, 3)
    assert (back.images == grey.images).all()
    assert back.images.shape == pixels.shape
    assert (to_channels(back, 1).images == grey.images).all()  # luma of grey is that grey
    assert to_channels(colour, 3) is colour
    assert (grey.labels == colour.labels).all()
    assert "luma" in grey.notes[-1]
    assert "repeated" in back.notes[-1]


def test_load_images_changes_channels_of_named_sets():
    assert (load_images("mnist", n=2, channels=3).images == load_images("mnist", n=2).images).all()
    grey = load_images("svhn", n=2, size=(28, 28), channels=1)
    assert grey.images.shape == (2, 28, 28, 1)
    assert (grey.images == to_channels(load_images("svhn", n=2, size=(28, 28)), 1).images).all()
