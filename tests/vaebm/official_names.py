"""Names and settings of the official NVAE and VAEBM files in this project's terms, for the parity tests."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vaebm.energy import EnergyConfig
from vaebm.nvae import NVAEConfig

# Widths of the residual blocks in multiples of C, and whether each halves the resolution.
OFFICIAL_ENERGIES = {
    "EBM_CIFAR32": EnergyConfig(channels=128),
    "EBM_CelebA64": EnergyConfig(channels=64, blocks=((1, 1), (1, 0), (2, 1), (2, 0), (2, 1), (4, 0), (4, 1), (4, 0))),
    "EBM_LSUN64": EnergyConfig(
        channels=64, blocks=((1, 1), (1, 0), (2, 1), (2, 0), (2, 0), (2, 1), (4, 0), (4, 0), (4, 1), (4, 0))
    ),
    "EBM_CelebA256": EnergyConfig(
        channels=64,
        blocks=((1, 1), (1, 0), (2, 1), (2, 0), (2, 1), (2, 0), (4, 1), (4, 0), (4, 1), (4, 0), (8, 1), (8, 0)),
    ),
    "EBM_MNIST": EnergyConfig(channels=64, blocks=((1, 1), (1, 0), (2, 1), (2, 0))),
}

SIMPLE = (
    (r"_ops\.(\d)\.bn_act\.", r"branch.\1.bn."),
    (r"_ops\.(\d)\.conv_0\.", r"branch.\1.conv."),
    (r"\.skip\.1\.", ".skip.conv."),
    (r"\.se\.se\.0\.", ".se.squeeze."),
    (r"\.se\.se\.2\.", ".se.excite."),
    (r"\.cell([12])\.conv\.convz\.0\.", r".cell\1.expand."),
    (r"\.cell([12])\.conv\.convz\.2\.", r".cell\1.depthwise."),
    (r"\.cell([12])\.mu\.conv_0\.", r".cell\1.mu."),
)
MOBILE = re.compile(r"(.*\.)_ops\.0\.conv\.(\d)\.(.*)")
MOBILE_PARTS = ("bn_in", "expand", "depthwise", "project", "bn_out")


def nvae_config(args: Mapping[str, Any], image_size: int, log_sigma_min: float | None = -2.0) -> NVAEConfig:
    """Return the architecture that official training arguments describe (mixture size 1, no adaptive groups)."""
    return NVAEConfig(
        image_size=image_size,
        channels_enc=args["num_channels_enc"],
        channels_dec=args["num_channels_dec"],
        latents_per_group=args["num_latent_per_group"],
        groups_per_scale=(args["num_groups_per_scale"],) * args["num_latent_scales"],
        preprocess_blocks=args["num_preprocess_blocks"],
        preprocess_cells=args["num_preprocess_cells"],
        postprocess_blocks=args["num_postprocess_blocks"],
        postprocess_cells=args["num_postprocess_cells"],
        cells_per_group_enc=args["num_cell_per_cond_enc"],
        cells_per_group_dec=args["num_cell_per_cond_dec"],
        squeeze_excite=args["use_se"],
        residual_posterior=args["res_dist"],
        flows=args["num_nf"],
        log_sigma_min=log_sigma_min,
    )


def nvae_names(names: Iterable[str], flows: int) -> dict[str, str]:
    """Return {official name: our name}; ``weight_normalized`` entries are caches of that code and are left out."""
    names = set(names)
    return {name: _nvae_name(name, names, flows) for name in names if not name.endswith("weight_normalized")}


def _nvae_name(name: str, names: set[str], flows: int) -> str:
    if mobile := MOBILE.fullmatch(name):
        cell, index, rest = mobile[1], int(mobile[2]), mobile[3]
        # An upsampling cell has a layer without weights in front, which shifts the numbering by one.
        index -= f"{cell}_ops.0.conv.1.bn.weight" in names
        # Layers 0 and 4 are norms ("bn.weight"), 1 and 2 hold a convolution ("conv.0") and its norm ("conv.1"),
        # 3 is a bare convolution.
        rest = rest.removeprefix("bn.").replace("conv.0.", "conv.").replace("conv.1.", "bn.")
        return f"{cell}branch.0.{MOBILE_PARTS[index]}.{rest}"
    for pattern, replacement in SIMPLE:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"\.skip\.conv_(\d)\.", lambda found: f".skip.convs.{int(found[1]) - 1}.", name)
    return re.sub(
        r"^nf_cells\.(\d+)\.", lambda found: "nf_cells.{}.{}.".format(*divmod(int(found[1]), max(1, flows))), name
    )


def nvae_weights(state: Mapping[str, Tensor], flows: int) -> dict[str, Tensor]:
    """Return an official NVAE ``state_dict`` under our names."""
    return {ours: state[theirs] for theirs, ours in nvae_names(state, flows).items()}


def energy_name(name: str) -> str:
    """Return our name of an official energy weight."""
    return name.replace(".skip.0.", ".skip.")


def energy_weights(path: Any) -> dict[str, Tensor]:
    """Return the weights of an official ``EBM.pth`` under our names."""
    model = torch.load(path, weights_only=True)["model"]
    return {energy_name(name): value for name, value in model.items()}
