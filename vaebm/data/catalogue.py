"""The data sets known by name: what they are, under which terms, and how they are cited."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class DatasetInfo:
    """One named data set.

    Attributes:
        name: what ``load_images`` takes.
        title: what tables print.
        channels: 1 (grey) or 3 (RGB).
        size: (H, W) in pixels as usually evaluated; CelebA's aligned pictures are 218 x 178 and are cropped.
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
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
