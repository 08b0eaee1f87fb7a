"""From the training arguments of the released code to our settings, and back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from vaebm.checkpoints.limits import MAX_SIZE
from vaebm.energy import ENERGIES, EnergyConfig
from vaebm.errors import UserError, did_you_mean
from vaebm.nvae import NVAEConfig, adaptive_groups
from vaebm.nvae.cells import CELLS, Cells

# Our name of a setting: theirs. These mean the same.
ARGUMENTS: Mapping[str, str] = {
    "channels_enc": "num_channels_enc",
    "channels_dec": "num_channels_dec",
    "latents_per_group": "num_latent_per_group",
    "preprocess_blocks": "num_preprocess_blocks",
    "preprocess_cells": "num_preprocess_cells",
    "postprocess_blocks": "num_postprocess_blocks",
    "postprocess_cells": "num_postprocess_cells",
    "cells_per_group_enc": "num_cell_per_cond_enc",
    "cells_per_group_dec": "num_cell_per_cond_dec",
    "squeeze_excite": "use_se",
    "residual_posterior": "res_dist",
    "flows": "num_nf",
    "bits": "num_x_bits",
    "cells": "arch_instance",
}
# What files from before an argument existed mean.
DEFAULTS: Mapping[str, Any] = {
    "ada_groups": False,
    "min_groups_per_scale": 1,
    "num_mixture_dec": 10,
    "num_x_bits": 8,
    "res_dist": False,
}
MAX_SCALES = 16  # the finest has 2^15 times the side of the coarsest
BERNOULLI = ("mnist", "omniglot")
PADDED = (*BERNOULLI, "stacked_mnist")  # 28 x 28 in a frame of 2
BORDER = 2
LOG_SIGMA_MIN = -2.0  # the clamp of the Gaussian that the VAEBM code scores with

# How the released code is told to sample: README of NVlabs/VAEBM. There is no published command for MNIST's network: its row is CIFAR-10's.
CHAINS: Mapping[str, dict[str, Any]] = {
    name: {"steps": steps, "step_size": step_size, "target": "official", "output": "mean"}
    for name, steps, step_size in (
        ("mnist", 16, 8e-5),
        ("cifar10", 16, 8e-5),
        ("celeba64", 20, 5e-6),
        ("lsun64", 20, 4e-6),
        ("celebahq256", 24, 3e-6),
    )
}

_SMALL: Mapping[str, Any] = {"channels_enc": 48, "channels_dec": 48, "flows": 1, "log_sigma_min": LOG_SIGMA_MIN}
# The NVAEs of the paper: CIFAR-10; CelebA 64 and LSUN Church 64; CelebA HQ 256.
PUBLISHED_NVAES = (
    NVAEConfig(flows=1, log_sigma_min=LOG_SIGMA_MIN),
    NVAEConfig(image_size=64, groups_per_scale=(5, 5, 5), **_SMALL),
    NVAEConfig(
        image_size=256,
        groups_per_scale=(4,) * 5,
        bits=5,
        **{**_SMALL, "channels_enc": 32, "channels_dec": 32, "flows": 2},
    ),
)

Shapes = Mapping[str, Sequence[int]]


def nvae_config(args: Mapping[str, Any], shapes: Shapes) -> NVAEConfig:
    """Return the architecture that training arguments describe.

    The released code derives the size of the images from the name of the data set and keeps it nowhere. Here it follows from the shape of
    the top features, so that data sets which only a user's copy of that code knows are read, too.

    Args:
        args: ``vars(checkpoint["args"])``.
        shapes: of the weights, by official names.

    Raises:
        UserError: an argument is missing, or its value is of no known setting.
    """
    found = {**DEFAULTS, **args}

    def value(name: str, kind: type = int) -> Any:
        if name not in found:
            raise UserError(f"the training arguments lack {name!r}")
        try:
            read = kind(found[name])
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"the training argument {name} is {found[name]!r}, needed {kind.__name__}") from None
        if (
            isinstance(read, int) and abs(read) > MAX_SIZE and not name.startswith("num_channels")
        ):  # which have a weight's shape
            raise UserError(f"the training argument {name} is {str(read)[:40]}, needed at most {MAX_SIZE:,}")
        return read

    kinds = {field.name: field.type for field in fields(NVAEConfig)}
    settings = {ours: value(theirs, kinds[ours]) for ours, theirs in ARGUMENTS.items()}  # type: ignore[arg-type]
    if settings["cells"] not in CELLS:
        raise UserError(f"unknown arch_instance {settings['cells']!r}.{did_you_mean(settings['cells'], CELLS)}")
    scales, groups = value("num_latent_scales"), value("num_groups_per_scale")
    if scales > MAX_SCALES:
        raise UserError(f"the training argument num_latent_scales is {scales}, needed at most {MAX_SCALES}")
    adaptive = value("ada_groups", bool)
    dataset, mixtures = value("dataset", str), value("num_mixture_dec")
    likelihood = "bernoulli" if dataset in BERNOULLI else "gaussian" if mixtures == 1 else "logistic_mixture"
    for needed in ("prior_ftr0", "stem.weight"):
        if len(shapes.get(needed, ())) < 2:
            raise UserError(f"weight {needed!r} is missing")
    if likelihood == "gaussian":
        settings["log_sigma_min"] = found.get("log_sigma_min", LOG_SIGMA_MIN)
    if likelihood == "logistic_mixture":
        settings["mixtures"] = mixtures
    try:
        return NVAEConfig(
            image_size=shapes["prior_ftr0"][-1] * 2 ** (settings["preprocess_blocks"] + scales - 1),
            image_channels=shapes["stem.weight"][1],
            groups_per_scale=adaptive_groups(scales, groups, value("min_groups_per_scale"))
            if adaptive
            else (groups,) * scales,
            likelihood=likelihood,
            border=BORDER if dataset in PADDED else 0,
            **settings,
        )
    except ValueError as error:
        raise UserError(f"the training arguments describe no NVAE: {error}") from None


def official_args(config: NVAEConfig, dataset: str | None = None) -> dict[str, Any]:
    """Return the training arguments that describe an architecture.

    ``log_sigma_min`` is no argument of the released code, whose own clamp is fixed (-2 in VAEBM's, none in NVAE's). Any value but -2 is
    kept beside its arguments, for :func:`nvae_config`.

    Args:
        dataset: one of the released code's names; chosen by the architecture without it.
    """
    if dataset is None and config.border:
        dataset = "mnist" if config.likelihood == "bernoulli" else "stacked_mnist"
    elif dataset is None:
        sizes = {32: "cifar10", 64: "celeba_64", 128: "lsun_bedroom_128", 256: "celeba_256"}
        dataset = sizes.get(config.image_size, f"celeba_{config.image_size}")
    coarsest, *_, finest = (*config.groups_per_scale, config.groups_per_scale[-1])
    args = {theirs: getattr(config, ours) for ours, theirs in ARGUMENTS.items()}
    args |= {
        "dataset": dataset,
        "num_latent_scales": len(config.groups_per_scale),
        "num_groups_per_scale": finest,
        "ada_groups": coarsest != finest,
        "min_groups_per_scale": coarsest if coarsest != finest else 1,
        "num_mixture_dec": config.mixtures if config.likelihood == "logistic_mixture" else 1,
    }
    if config.likelihood == "gaussian" and config.log_sigma_min != LOG_SIGMA_MIN:
        args["log_sigma_min"] = config.log_sigma_min
    return args


def named_image(dataset: str) -> dict[str, int] | None:
    """Return image_channels and image_size as the released code takes them from a data set's name; None for one that it does not know."""
    channels = 1 if dataset in BERNOULLI else 3
    if dataset in (*PADDED, "cifar10"):
        return {"image_channels": channels, "image_size": 32}
    if dataset == "ffhq":
        return {"image_channels": channels, "image_size": 256}
    if sized := re.fullmatch(r"(?:celeba|imagenet|lsun).*_(\d+)", dataset):
        return {"image_channels": channels, "image_size": int(sized[1])}
    return None


def arch_instance(cells: Cells) -> dict[str, list[str]]:
    """Return the cells as ``checkpoint["arch_instance"]`` lists them."""
    roles = {"pre": cells.pre, "enc": cells.enc, "dec": cells.dec, "post": cells.post}
    listed = {f"{kind}_{role}": list(roles[role]) for role in roles for kind in (_resampling(role), "normal")}
    return {**listed, "ar_nn": [""]}


def _resampling(role: str) -> str:
    return "down" if role in ("pre", "enc") else "up"


def check_arch_instance(name: str, found: Mapping[str, Sequence[str]]) -> None:
    """Refuse a checkpoint whose list of cells is not what its name stands for.

    Raises:
        UserError: with the first role that differs.
    """
    for role, expected in arch_instance(CELLS[name]).items():
        if role != "ar_nn" and role in found and list(found[role]) != expected:
            raise UserError(f"arch_instance {name!r}: its {role} is {list(found[role])}, needed {expected}")


def energy_config(shapes: Shapes) -> EnergyConfig | None:
    """Return the published energy network, at whatever width, that has these official weights; None when none has.

    A block's shapes tell its width and whether it has a skip convolution, but not whether a block that changes the width also halves the
    image: the published lists decide that.
    """
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    try:
        channels, image_channels = shapes["conv1.weight"][:2]
        widths = [shapes[f"blocks.{i}.conv1.weight"][0] for i in range(blocks)]
    except (KeyError, ValueError):
        return None
    skips = [f"blocks.{i}.skip.0.weight" in shapes for i in range(blocks)]
    for known in ENERGIES.values():
        multiples = [multiple for multiple, _ in known.blocks]
        before = [1, *multiples]
        has_skip = [halve or multiple != last for (multiple, halve), last in zip(known.blocks, before, strict=False)]
        if widths == [multiple * channels for multiple in multiples] and skips == has_skip:
            return EnergyConfig(image_channels=image_channels, channels=channels, blocks=known.blocks)
    return None


def energy_name(config: EnergyConfig) -> str | None:
    """Return which published network this is, at whatever width; None for another one."""
    return next((name for name, known in ENERGIES.items() if known.blocks == config.blocks), None)
