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
    """

    name: str
    title: str
    channels: int
    size: tuple[int, int]
    licence: str
    citation: str
    redistributable: bool = True


_CIFAR = "no formal licence; citation asked"
_ALL = (
    DatasetInfo("cifar10", "CIFAR-10", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo("cifar10_interp", "CIFAR-10 interp.", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo("svhn", "SVHN", 3, (32, 32), "non-commercial use only", "netzer2011reading"),
    DatasetInfo("cifar100", "CIFAR-100", 3, (32, 32), _CIFAR, "krizhevsky2009learning"),
    DatasetInfo(
        "celeba", "CelebA", 3, (64, 64), "non-commercial research only; no redistribution", "liu2015deep", False
    ),
    DatasetInfo("mnist", "MNIST", 1, (28, 28), "CC BY-SA 3.0", "lecun1998gradient"),
    DatasetInfo("fashion_mnist", "Fashion-MNIST", 1, (28, 28), "MIT", "xiao2017fashion"),
    DatasetInfo("kmnist", "KMNIST", 1, (28, 28), "CC BY-SA 4.0", "clanuwat2018deep"),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})
