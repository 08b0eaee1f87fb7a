"""Toy models as native checkpoints: kinds ``"toy_vae"`` and ``"toy_vaebm"``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vaebm.checkpoints.native import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from vaebm.errors import UserError
from vaebm.toy.vae import ToyVAE, VAEConfig
from vaebm.toy.vaebm import ChainConfig, EnergyConfig, ToyEnergy, ToyVAEBM

KINDS = ("toy_vae", "toy_vaebm")


def save(model: ToyVAE | ToyVAEBM, path: Path, training: dict[str, Any]) -> None:
    """Write a model and its card; ``training`` says how it was made. A VAEBM's log Z goes with its weights."""
    card: dict[str, Any] = {"size": "mini", "dataset": "gaussians25"}
    if isinstance(model, ToyVAE):
        card |= {"kind": "toy_vae", "architecture": {"vae": asdict(model.config)}, "sampling": {}}
        weights = model.state_dict()
    else:
        energy = model.energy
        assert isinstance(energy, ToyEnergy)
        card |= {
            "kind": "toy_vaebm",
            "architecture": {"vae": asdict(model.vae.config), "energy": asdict(energy.config)},
        }
        card |= {"sampling": asdict(model.chain)}
        weights = {**model.state_dict(), "log_z": torch.tensor([model.log_z()], dtype=torch.float64)}
    save_checkpoint(path, weights, {**card, "training": training})


def load(source: Path | Checkpoint) -> ToyVAE | ToyVAEBM:
    """Read what :func:`save` wrote.

    Raises:
        UserError: not a native checkpoint, or not that of a toy model.
    """
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(source)
    if checkpoint.kind not in KINDS:
        raise UserError(f"{checkpoint.path}: holds {checkpoint.kind!r}, needed a toy model ({' or '.join(KINDS)})")
    try:
        architecture = checkpoint.card["architecture"]
        vae = ToyVAE(VAEConfig(**architecture["vae"]))
        model: ToyVAE | ToyVAEBM = vae
        weights = dict(checkpoint.weights)
        if checkpoint.kind == "toy_vaebm":
            energy = ToyEnergy(EnergyConfig(**architecture["energy"]))
            chain = ChainConfig(**checkpoint.card["sampling"])
            model = ToyVAEBM(vae, energy, chain, log_z=float(weights.pop("log_z")))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: its card is not that of a {checkpoint.kind} ({error})") from None
    load_weights(model, weights, str(checkpoint.path))
    return model.eval().requires_grad_(False)
