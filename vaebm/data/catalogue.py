"""The data sets known by name: what they are, under which terms, and how they are cited."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vaebm.data.synthetic import SYNTHETIC


@dataclass(frozen=True)
class DatasetInfo:
    """One named data set.

    Attributes:
        name: what ``load_images`` takes.
        title: what tables print.
        channels: 1 (grey) or 3 (RGB).
        size: (H, W) in pixels as usually evaluated; CelebA's aligned pictures are 218 x 178 and are cropped. Sets that
            are drawn take any size and either number of channels.
        licence: the terms, in one line.
        citation: BibTeX key (entries: ``bundled/LICENSES.md``).
        redistributable: whether its pixels may be packed into a file that is passed on.
        recipe: how the images are made of the published files, where that is a choice.
    """

    name: str
    title: str
    channels: int
    size: tuple[int, int]
    licence: str
    citation: str
    redistributable: bool = True
    recipe: str = ""


_CIFAR = "no formal licence; citation asked"
_FACES = "non-commercial research only; no redistribution"
_DRAWN = "none: drawn from a seed"
_TO_32 = "shorter side to 32, then the centre 32x32; in an order mixed by a hash of the file names"
_CROP = "the aligned 218x178 pictures cropped to the box (15, 40, 163, 188), then one antialiased reduction"
_ALL = (
    DatasetInfo("cifar10", "CIFAR-10", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo("cifar10_interp", "CIFAR-10 interp.", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo("svhn", "SVHN", 3, (32, 32), "non-commercial use only", "netzer2011reading"),
    DatasetInfo("cifar100", "CIFAR-100", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo("celeba", "CelebA", 3, (64, 64), _FACES, "liu2015deep", False, f"{_CROP} to the size asked for"),
    DatasetInfo("mnist", "MNIST", 1, (28, 28), "CC BY-SA 3.0", "lecun1998gradient"),
    DatasetInfo("fashion_mnist", "Fashion-MNIST", 1, (28, 28), "MIT", "xiao2017fashion"),
    DatasetInfo("kmnist", "KMNIST", 1, (28, 28), "CC BY-SA 4.0", "clanuwat2018deep"),
    # The forms that the published models train on.
    DatasetInfo(
        "mnist32", "MNIST 32", 1, (32, 32), "CC BY-SA 3.0", "lecun1998gradient", True, "mnist padded by 2 black pixels"
    ),
    DatasetInfo(
        "stacked_mnist",
        "StackedMNIST",
        3,
        (32, 32),
        "CC BY-SA 3.0",
        "lecun1998gradient",
        True,
        "three permutations of mnist as channels, each digit twice in each, seed 0, padded by 2 black pixels; "
        "label 100 d0 + 10 d1 + d2",
    ),
    # What stands beside these, made by the same recipes.
    DatasetInfo(
        "fashion_mnist32",
        "Fashion-MNIST 32",
        1,
        (32, 32),
        "MIT",
        "xiao2017fashion",
        True,
        "as mnist32, of fashion_mnist",
    ),
    DatasetInfo(
        "kmnist32", "KMNIST 32", 1, (32, 32), "CC BY-SA 4.0", "clanuwat2018deep", True, "as mnist32, of kmnist"
    ),
    DatasetInfo(
        "stacked_fashion_mnist",
        "StackedFashionMNIST",
        3,
        (32, 32),
        "MIT",
        "xiao2017fashion",
        True,
        "as stacked_mnist, of fashion_mnist",
    ),
    DatasetInfo(
        "stacked_kmnist",
        "StackedKMNIST",
        3,
        (32, 32),
        "CC BY-SA 4.0",
        "clanuwat2018deep",
        True,
        "as stacked_mnist, of kmnist",
    ),
    DatasetInfo("celeba64", "CelebA 64", 3, (64, 64), _FACES, "liu2015deep", False, f"{_CROP} to 64x64"),
    DatasetInfo(
        "lsun_church64",
        "LSUN Church 64",
        3,
        (64, 64),
        "research use; no redistribution",
        "yu2015lsun",
        False,
        "shorter side to 64, then 64x64: the centre of test pictures; a random position of training pictures, drawn "
        "once per picture and not in every epoch as in the released code",
    ),
    DatasetInfo(
        "celebahq256",
        "CelebA HQ 256",
        3,
        (256, 256),
        "CC BY-NC 4.0, made of CelebA",
        "karras2018progressive",
        False,
        "reduced to 256x256",
    ),
    DatasetInfo(
        "ffhq256", "FFHQ 256", 3, (256, 256), "CC BY-NC-SA 4.0", "karras2019style", False, "reduced to 256x256"
    ),
    DatasetInfo("imagenet32", "ImageNet 32", 3, (32, 32), "non-commercial research only", "oord2016pixel", False),
    # Scored only: what the literature on out-of-distribution detection sets against CIFAR-10.
    DatasetInfo(
        "textures", "Textures", 3, (32, 32), "research use; no redistribution", "cimpoi2014describing", False, _TO_32
    ),
    DatasetInfo("places365", "Places365", 3, (32, 32), "non-commercial research only", "zhou2018places", False, _TO_32),
    DatasetInfo(
        "tiny_imagenet",
        "Tiny ImageNet",
        3,
        (32, 32),
        "non-commercial research only",
        "le2015tiny",
        False,
        f"{_TO_32}; classes that CIFAR-10 has as well are left in",
    ),
    DatasetInfo(
        "lsun_crop",
        "LSUN (crop)",
        3,
        (32, 32),
        "research use; no redistribution",
        "liang2018enhancing",
        False,
        "ODIN's crops of LSUN's test pictures, the centre 32x32 of each",
    ),
    DatasetInfo(
        "lsun_resize",
        "LSUN (resize)",
        3,
        (32, 32),
        "research use; no redistribution",
        "liang2018enhancing",
        False,
        "ODIN's LSUN test pictures, 32x32 as published; their reduction left artefacts that alone can give them away",
    ),
    DatasetInfo(
        "gaussian_noise",
        "Gaussian noise",
        3,
        (32, 32),
        _DRAWN,
        "liang2018enhancing",
        True,
        SYNTHETIC["gaussian_noise"].words,
    ),
    DatasetInfo(
        "uniform_noise",
        "Uniform noise",
        3,
        (32, 32),
        _DRAWN,
        "liang2018enhancing",
        True,
        SYNTHETIC["uniform_noise"].words,
    ),
    DatasetInfo("constant", "Constant", 3, (32, 32), _DRAWN, "serra2020input", True, SYNTHETIC["constant"].words),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
