"""Which outer sets stand against an in-distribution set unless told otherwise, and which of them are near and which far.

Near sets share style or content with the in-distribution images, far ones share neither. For CIFAR-10 and CIFAR-100 the split is
OpenOOD's (Yang et al., NeurIPS Datasets and Benchmarks 2022; Zhang et al., v1.5, 2023): near are the other CIFAR and Tiny ImageNet, far are
MNIST, SVHN, Textures and Places365. Added here: interpolated images are near, since they are made of in-distribution images; CelebA's faces
and ODIN's LSUN scenes are far. For MNIST, near are the sets made to replace it (OpenOOD has Fashion-MNIST there, too), far are photographs.
Noise and single colours are neither: they test a score's sanity. Nor is a set that is not listed, such as a user's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vaebm.data import SYNTHETIC
from vaebm.errors import UserError

MEAN, NEAR, FAR = "mean", "mean_near", "mean_far"  # data sets of rows that are means over sets
MEANS = {MEAN: "all sets", NEAR: "the near sets", FAR: "the far sets"}
GROUPS = ("usual", "near", "far", "synthetic")  # what --ood takes beside the names of sets


@dataclass(frozen=True)
class Outer:
    """The outer sets of an in-distribution set.

    Attributes:
        usual: those that are taken unless told otherwise.
        near, far: those that are known to be.
    """

    usual: tuple[str, ...]
    near: tuple[str, ...] = ()
    far: tuple[str, ...] = ()


_SCENES = ("textures", "places365", "lsun_crop", "lsun_resize")
_FAR = ("svhn", "celeba", "mnist", *_SCENES)
OUTER = {
    # The columns of the paper's Table 6.
    "cifar10": Outer(
        ("svhn", "cifar10_interp", "cifar100", "celeba"), ("cifar10_interp", "cifar100", "tiny_imagenet"), _FAR
    ),
    "cifar100": Outer(("svhn", "cifar10", "celeba"), ("cifar10", "tiny_imagenet"), _FAR),
    "svhn": Outer(("cifar10", "cifar100", "celeba"), far=("cifar10", "cifar100", "tiny_imagenet", "celeba", *_SCENES)),
    "mnist": Outer(
        ("fashion_mnist", "kmnist", "uniform_noise", "constant"),
        ("fashion_mnist", "kmnist"),
        ("svhn", "cifar10", "textures"),
    ),
    "mnist32": Outer(
        ("fashion_mnist32", "kmnist32", "uniform_noise", "constant"),
        ("fashion_mnist32", "kmnist32"),
        ("svhn", "cifar10", "textures"),
    ),
    "stacked_mnist": Outer(
        ("stacked_fashion_mnist", "stacked_kmnist", "svhn", "cifar10"),
        ("stacked_fashion_mnist", "stacked_kmnist"),
        ("svhn", "cifar10", "textures"),
    ),
}
OTHERWISE = Outer(("svhn", "cifar10", "cifar100"))


def chosen(given: str, in_dist: str) -> list[str]:
    """Return the sets that ``--ood`` names, in order; each of ``GROUPS`` stands for its sets but those that are named themselves, or
    are in a group before it.

    Args:
        given: sets and groups with commas.
        in_dist: name of the in-distribution set.

    Raises:
        UserError: a group of which no set is known.
    """
    words, specs = [word for word in given.split(",") if word], list[str]()
    for word in words:
        specs += [name for name in _group(word, in_dist) if name not in words + specs] if word in GROUPS else [word]
    return specs


def _group(name: str, in_dist: str) -> Sequence[str]:
    if name == "synthetic":
        return tuple(SYNTHETIC)
    members: tuple[str, ...] = getattr(OUTER.get(in_dist, OTHERWISE), name)
    if not members:
        raise UserError(f"--ood {name}: no set is known to be {name} {in_dist}; needed names of sets, or NAME=PATH")
    return members


def means(in_dist: str, outer: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what is averaged: ``"mean"`` over all outer sets, ``"mean_near"`` and ``"mean_far"`` over those of their kind.

    A mean has two sets or more. One set is its own mean; and where all sets are near, or all far, that is the mean of all.
    """
    known = OUTER.get(in_dist, OTHERWISE)
    groups = {MEAN: tuple(outer)}
    for kind, members in ((NEAR, known.near), (FAR, known.far)):
        own = tuple(name for name in outer if name in members)
        groups |= {kind: own} if len(own) < len(outer) else {}
    return {name: sets for name, sets in groups.items() if len(sets) > 1}
