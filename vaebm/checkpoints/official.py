"""The files of NVlabs/NVAE and NVlabs/VAEBM: ``checkpoint.pt`` (an NVAE) and ``EBM.pth`` (an energy network), in and out.

``checkpoint.pt`` holds epoch, state_dict, optimizer, global_step, args (an argparse.Namespace), arch_instance, scheduler and grad_scalar;
``EBM.pth`` holds model (a state dict) and optimizer. Neither file says what its energy network is nor how large the images are: both follow
from the weights. Gaussian NVAEs come with ``log_sigma_min=-2``, the clamp that the VAEBM code scores with (NVAE's own code has none).

The released code does not always compute what its files hold: it sets the biases and gains of ``res_elu`` cells anew from the first batch
that it sees, after loading, too. And it cannot build two of the cells that we can write: ``res_mbconv9``, ``res_bnswish5``.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaebm.atomic import write_atomically
from vaebm.checkpoints.limits import at_most, check_numbers
from vaebm.checkpoints.models import build_energy, build_nvae
from vaebm.checkpoints.native import FORMAT, Checkpoint, check_weights, file_sha256
from vaebm.checkpoints.official_names import canonical_state, official_aliases, official_names, our_names
from vaebm.checkpoints.official_settings import (
    CHAINS,
    PUBLISHED_NVAES,
    arch_instance,
    check_arch_instance,
    energy_config,
    energy_name,
    named_image,
    nvae_config,
    official_args,
)
from vaebm.checkpoints.pickles import read_pickle
from vaebm.energy import ENERGIES, EnergyConfig, EnergyNetwork
from vaebm.errors import UserError
from vaebm.nvae import NVAE, NVAEConfig
from vaebm.nvae.cells import CELLS

# The one further entry of our EBM.pth: the settings of a network that the released code does not have.
ENERGY_KEY = "energy"


def load_official(path: str | Path, energy: EnergyConfig | None = None) -> NVAE | EnergyNetwork:
    """Return the model, in eval mode, of a ``checkpoint.pt`` or ``EBM.pth`` of the released code (or of the bare state dict of an energy).

    Args:
        energy: architecture of an energy network that is not one of :data:`vaebm.energy.ENERGIES`.

    Raises:
        UserError: the file is missing, damaged, of another kind, or wants classes that could run code; or its weights are not those of the
            architecture that it describes.
    """
    checkpoint = read_official(path, energy)
    build = build_nvae if checkpoint.kind == "nvae" else build_energy
    return build(checkpoint, str(path)).eval()


def read_official(path: str | Path, energy: EnergyConfig | None = None, *, sha256: bool = False) -> Checkpoint:
    """Return an official file as a native checkpoint would be read: a card of kind "nvae" or "energy", and weights by our names.

    Args:
        energy: as in :func:`load_official`.
        sha256: fill in the card's hash, which is that of the whole file (its optimiser included).

    Raises:
        UserError: as :func:`load_official`.
    """
    path = Path(path)
    saved = read_pickle(path)
    if not isinstance(saved, Mapping):
        raise UserError(f"{path}: holds a {type(saved).__name__}, needed the dictionary of a checkpoint.pt or EBM.pth")
    try:
        if {"state_dict", "args"} <= saved.keys():
            found = _read_nvae(saved)
        elif "model" in saved or any(str(name).endswith("blocks.0.conv1.weight") for name in saved):
            found = _read_energy(saved, energy)
        else:
            keys = ", ".join(map(str, list(saved)[:6])) or "nothing"
            raise UserError(f"holds {keys}; needed state_dict and args (checkpoint.pt) or model (EBM.pth)")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # the file may hold anything anywhere
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: not a checkpoint of the official layout ({reason})") from None
    card, weights = found
    if sha256:
        card["sha256"] = file_sha256(path)
    return Checkpoint({"format": FORMAT, **card}, weights, path)


def _state(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"its state dict is a {type(found).__name__} that holds more than tensors")
    return canonical_state({str(name): value for name, value in found.items()})


def _read_nvae(saved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state, given = _state(saved["state_dict"]), saved["args"]
    args = dict(given) if isinstance(given, Mapping) else vars(given) if isinstance(given, argparse.Namespace) else None
    if args is None:
        raise UserError(f"its args are a {type(given).__name__}, needed an argparse.Namespace")
    config = nvae_config(args, {name: tuple(value.shape) for name, value in state.items()})
    if isinstance(saved.get("arch_instance"), Mapping):
        check_arch_instance(config.cells, saved["arch_instance"])
    card = {
        "kind": "nvae",
        "size": "paper" if config in PUBLISHED_NVAES else "own",
        "dataset": str(args["dataset"]),
        "architecture": {"nvae": config.to_json()},
        # A Gaussian's mean is what the paper shows; the mean of a mixture of logistics is a blur.
        "sampling": {"temperature": 1.0, "output": "sample" if config.likelihood == "logistic_mixture" else "mean"},
        "training": {
            "epoch": _number(saved.get("epoch")),
            "step": _number(saved.get("global_step")),
            "args": {name: _plain(value) for name, value in args.items()},
        },
    }
    with at_most(len(state), "its state dict"), torch.device("meta"):
        return card, _our_weights(NVAE(config), state, "nvae")


def _read_energy(saved: Mapping[str, Any], energy: EnergyConfig | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state = _state(saved.get("model", saved))
    config = energy or energy_config({name: tuple(value.shape) for name, value in state.items()})
    if config is None and isinstance(saved.get(ENERGY_KEY), Mapping):
        check_numbers(saved[ENERGY_KEY], {}, "its settings")
        config = EnergyConfig.from_json(saved[ENERGY_KEY])
    if config is None:
        raise UserError(
            f"its blocks are none of the known energy networks ({', '.join(ENERGIES)}); "
            "pass load_official(path, energy=EnergyConfig(...)) to say what they are"
        )
    name = energy_name(config)
    card = {
        "kind": "energy",
        "size": "paper" if config in ENERGIES.values() else "own",
        "network": name or "own",
        "architecture": {"energy": config.to_json()},
        "sampling": CHAINS[name or "cifar10"],
    }
    with at_most(len(state), "its state dict"), torch.device("meta"):
        return card, _our_weights(EnergyNetwork(config), state, "energy")


def _our_weights(model: NVAE | EnergyNetwork, state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Rename the weights, which must be exactly the model's. It is on the meta device: no wrong setting makes it too large."""
    names = our_names(model, state)
    weights = {names[name]: value for name, value in state.items()}
    check_weights(model, weights, "its state dict")
    return {f"{part}.{name}": value for name, value in weights.items()}


def _plain(value: Any) -> Any:
    """What JSON can hold of an argument."""
    value = value.item() if hasattr(value, "item") else value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0


def join_official(nvae: Checkpoint, energy: Checkpoint) -> Checkpoint:
    """Return the VAEBM, of kind "vaebm", that two official files make; its card names the NVAE, which stays a checkpoint of its own.

    Args:
        nvae, energy: as :func:`read_official` returns them with ``sha256=True``.

    Raises:
        UserError: they do not go together.
    """
    config = NVAEConfig.from_json(nvae.card["architecture"]["nvae"])
    if config.likelihood != "gaussian":
        needed = "the chains of a VAEBM need a Gaussian one (num_mixture_dec 1)"
        raise UserError(f"{nvae.path}: its decoder is a {config.likelihood}; {needed}")
    seen = energy.card["architecture"]["energy"]["image_channels"]
    if seen != config.image_channels:
        raise UserError(f"{energy.path}: takes images of {seen} channels, {nvae.path} makes {config.image_channels}")
    both = {nvae.card["size"], energy.card["size"]}
    card = {
        **energy.card,
        "kind": "vaebm",
        "size": "paper" if both == {"paper"} else "own",
        "dataset": nvae.card["dataset"],
        "nvae": {"file": nvae.path.name, "sha256": nvae.card["sha256"]},
    }
    return Checkpoint(card, energy.weights, energy.path)


def read_official_files(paths: Sequence[Path]) -> tuple[Checkpoint, Checkpoint | None]:
    """Read ``checkpoint.pt`` or ``checkpoint.pt`` and ``EBM.pth``, in any order, with their hashes.

    Returns:
        The checkpoint to use, of kind "nvae" or "vaebm", and the NVAE of a vaebm.

    Raises:
        UserError: a file cannot be read, there are two of a kind, or an energy network comes without its NVAE.
    """
    if len(paths) > 2:
        raise UserError(f"{','.join(map(str, paths))}: found {len(paths)} files, needed FILE or checkpoint.pt,EBM.pth")
    found: dict[str, Checkpoint] = {}
    for path in paths:
        checkpoint = read_official(path, sha256=True)
        if checkpoint.kind in found:
            raise UserError(f"{path}: a second {checkpoint.kind} beside {found[checkpoint.kind].path}; needed one")
        found[checkpoint.kind] = checkpoint
    if "nvae" not in found:
        raise UserError(f"{paths[0]}: an energy network alone; give its NVAE, too: checkpoint.pt,{paths[0].name}")
    if "energy" in found:
        return join_official(found["nvae"], found["energy"]), found["nvae"]
    return found["nvae"], None


def save_official(model: NVAE | EnergyNetwork, path: str | Path, *, dataset: str | None = None) -> None:
    """Write a model as the released code would: ``checkpoint.pt`` of an NVAE, ``EBM.pth`` of an energy network. Atomic.

    The files have no optimiser state. What the released code cannot know is kept beside its own entries, where it does not look, so that
    :func:`load_official` returns the same model: a Gaussian's ``log_sigma_min`` other than -2, and the blocks of an energy network that
    the released code does not have.

    Args:
        dataset: what an NVAE's args are to name. Chosen by the architecture without it, among the released code's data sets, whose
            names say how large the images are and whether they have colours. A name that it does not know is for a copy that does.

    Raises:
        UserError: the model has settings that the layout cannot hold, or images of another shape than ``dataset`` says; they are named. Or
            the file cannot be written.
    """
    write_official(official_content(model, dataset), Path(path))


def official_content(model: NVAE | EnergyNetwork, dataset: str | None = None) -> dict[str, Any]:
    """Return what :func:`save_official` writes; its errors are raised here, before anything is."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    state = {theirs: weights[ours] for ours, theirs in official_names(model).items()}
    state |= {theirs: weights[ours] for theirs, ours in official_aliases(model).items()}
    if isinstance(model, NVAE):
        return _nvae_file(model.config, state, dataset)
    return _energy_file(model.config, state)


def write_official(content: dict[str, Any], path: Path) -> None:
    """Write one file, atomically."""
    try:
        write_atomically(path, lambda partial: torch.save(content, partial))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written ({' '.join(str(error).split())})") from None


def _nvae_file(config: NVAEConfig, state: dict[str, Tensor], dataset: str | None) -> dict[str, Any]:
    args = official_args(config, dataset)
    back = nvae_config(args, {name: tuple(value.shape) for name, value in state.items()}).to_json()
    # We take the images' shape from the weights; the released code builds what the name says, and these weights would not fit.
    back |= named_image(args["dataset"]) or {}
    idle = {"gaussian": {"mixtures"}, "logistic_mixture": {"log_sigma_min"}}
    names = {field.name for field in fields(config)} - idle.get(config.likelihood, {"mixtures", "log_sigma_min"})
    lost = [f"{name} = {getattr(config, name)}" for name in sorted(names) if getattr(config, name) != back[name]]
    if lost:
        raise UserError(f"the official layout cannot hold {', '.join(lost)} (data set {args['dataset']})")
    return {
        "epoch": 0,
        "state_dict": state,
        "optimizer": {},
        "global_step": 0,
        "args": argparse.Namespace(**args),
        "arch_instance": arch_instance(CELLS[config.cells]),
        "scheduler": {},
        "grad_scalar": {},
    }


def _energy_file(config: EnergyConfig, state: dict[str, Tensor]) -> dict[str, Any]:
    if config.contrast_floor:
        raise UserError(
            f"the official layout cannot hold contrast_floor = {config.contrast_floor}: the released code would show E other images"
        )
    content: dict[str, Any] = {"model": state, "optimizer": {}}
    if energy_config({name: tuple(value.shape) for name, value in state.items()}) != config:
        content[ENERGY_KEY] = config.to_json()
    return content
