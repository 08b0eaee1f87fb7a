"""What a file is: checkpoints of every layout, states of runs, arrays. Only reads; code in a pickle is never run."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from torch import Tensor

from vaebm.checkpoints.native import file_sha256, read_card
from vaebm.checkpoints.official import read_official
from vaebm.checkpoints.official_settings import energy_name
from vaebm.checkpoints.pickles import ForeignPickleError, read_pickle
from vaebm.data.zips import open_zip
from vaebm.energy import EnergyConfig
from vaebm.errors import UserError
from vaebm.nvae import NVAEConfig

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of BatchNorm: entries, but no parameters


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file is, as plain values: ``file``, ``what``, and what else is known of such a file.

    Raises:
        UserError: the file is missing, damaged, or of no kind that is known here.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, needed a file' if path.is_dir() else 'no such file'}")
    if path.suffix == ".safetensors":
        return {"file": str(path), **_safetensors(path)}
    if path.suffix in (".npz", ".npy"):
        return {"file": str(path), **_arrays(path)}
    return {"file": str(path), **_pickle(path)}


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged header makes the reader raise this and that
        raise UserError(f"{path}: not a safetensors file, or truncated ({str(error)[:200]})") from None
    counted = {"tensors": len(shapes), "parameters": _parameters(shapes)}
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {"what": f"safetensors without a card (no {beside.name} beside it)", **counted}
    card = read_card(beside)
    kind, recorded = card["kind"], card.get("sha256", "")
    found = file_sha256(path)
    agrees = "as in the card" if found == recorded else f"NOT the card's {recorded}: changed since it was saved"
    what = f"native checkpoint, kind {kind}"
    return {"what": what, **_card(card), **counted, "sha256": found, "sha256_is": agrees}


def _pickle(path: Path) -> dict[str, Any]:
    try:
        saved = read_pickle(path)
    except ForeignPickleError as refused:
        return {"what": "pickle of other software; not loaded, because it could run code", "wants": refused.wanted}
    if isinstance(saved, Mapping) and "step" in saved and "state_dict" not in saved:
        parts = {str(name): _contents(part) for name, part in saved.items() if name != "step"}
        what = "state of a training run; 'python -m vaebm export' makes a checkpoint of its run"
        step = saved["step"]
        return {"what": what, "step": step if isinstance(step, int) else str(step)[:60], "parts": parts}
    try:
        checkpoint = read_official(path)
    except UserError as reason:
        return {
            "what": "file of torch.save, but no official checkpoint",
            "because": str(reason).removeprefix(f"{path}: "),
        }
    what = {"nvae": "official NVAE checkpoint", "energy": "official energy network"}[checkpoint.kind]
    shapes = {name: tuple(value.shape) for name, value in checkpoint.weights.items()}
    return {"what": what, **_card(checkpoint.card), "parameters": _parameters(shapes), "sha256": file_sha256(path)}


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a card that say what its weights are."""
    facts = {key: card[key] for key in ("dataset", "size") if key in card}
    architecture = card.get("architecture", {})
    try:
        if "nvae" in architecture:
            facts |= _nvae(NVAEConfig.from_json(architecture["nvae"]))
        if "energy" in architecture:
            facts |= _energy(EnergyConfig.from_json(architecture["energy"]))
    except (ValueError, TypeError, AttributeError) as error:
        facts["architecture"] = f"not readable ({error})"
    if others := {part: values for part, values in architecture.items() if part not in ("nvae", "energy")}:
        facts["architecture"] = others
    facts |= {key: card[key] for key in ("sampling", "nvae") if key in card}
    training = card.get("training", {})
    return facts | {key: training[key] for key in ("command", "epoch", "step", "update") if key in training}


def _nvae(config: NVAEConfig) -> dict[str, Any]:
    facts = {
        "image_shape": [config.image_size, config.image_size, config.image_channels],
        "scales": len(config.groups_per_scale),
        "groups_per_scale": list(config.groups_per_scale),
        "latent_shapes": ["x".join(map(str, shape)) for shape in dict.fromkeys(config.latent_shapes)],
        "latent_dimensions": sum(prod(shape) for shape in config.latent_shapes),
        "channels_encoder_decoder": [config.channels_enc, config.channels_dec],
        "cells": config.cells,
        "likelihood": config.likelihood,
        "bits": config.bits,
        "flows": config.flows,
        "squeeze_excite": config.squeeze_excite,
        "residual_posterior": config.residual_posterior,
    }
    if config.likelihood == "gaussian":
        facts["log_sigma_min"] = config.log_sigma_min
    if config.likelihood == "logistic_mixture":
        facts["mixtures"] = config.mixtures
    return facts


def _energy(config: EnergyConfig) -> dict[str, Any]:
    return {
        "energy_network": energy_name(config) or "own",
        "width": config.channels,
        "image_channels": config.image_channels,
        "blocks": [f"{multiple}C{' halved' if halve else ''}" for multiple, halve in config.blocks],
        "contrast_floor": config.contrast_floor,
    }


def _arrays(path: Path) -> dict[str, Any]:
    """Names, types and shapes, from the headers alone."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"what": "arrays of numpy", "arrays": {path.stem: _header(file)}}
        with path.open("rb") as stream, open_zip(stream) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as file:
                    found[name.removesuffix(".npy")] = _header(file)
            return {"what": "arrays of numpy", "arrays": found}
    except Exception as error:  # a damaged file makes its reader raise this and that
        raise UserError(f"{path}: not a file of numpy arrays, or truncated ({str(error)[:200]})") from None


def _header(file: Any) -> str:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"format {version}")
    shape, _, dtype = read[version](file)
    return f"{dtype} ({', '.join(map(str, shape))})"


def _contents(part: Any) -> str:
    sizes = [value.numel() for value in _tensors(part)]
    return f"{len(sizes)} tensors, {sum(sizes):,} values" if sizes else str(part)[:60]


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _tensors(value)


def _parameters(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(STATISTICS))
