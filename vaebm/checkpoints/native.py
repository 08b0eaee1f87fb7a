"""Native checkpoints: ``NAME.safetensors`` (weights) beside ``NAME.json`` (the card). Nothing in them can run code.

The card says what the weights are and how they are to be used::

    {"format": 1, "kind": "vaebm", "size": "mini", "dataset": "cifar10",
     "architecture": {...}, "sampling": {...}, "training": {...}, "sha256": "<of the safetensors file>"}
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from vaebm.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, the card that describes them, and the file they came from."""

    card: dict[str, Any]
    weights: dict[str, Tensor]
    path: Path

    @property
    def kind(self) -> str:
        """What the weights are of: ``"nvae"``, ``"vaebm"``, ``"igebm"``, ``"glow"``, ..."""
        return str(self.card["kind"])

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights under ``prefix.``, without the prefix."""
        return {name[len(prefix) + 1 :]: value for name, value in self.weights.items() if name.startswith(prefix + ".")}


def save_checkpoint(path: Path, weights: dict[str, Tensor], card: dict[str, Any], *, half: bool = False) -> None:
    """Write ``path`` (.safetensors) and its card (.json), both atomically; the card's sha256 is filled in here.

    Args:
        half: store floating-point weights of two or more dimensions as float16 (they are read back as float32). Vectors (biases, gains,
            BatchNorm statistics) stay in float32: they are small, and a running variance may leave float16's range.
    """
    stored = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        stored[name] = (value.half() if half and value.is_floating_point() and value.dim() >= 2 else value).contiguous()
    payload = save_safetensors(stored)
    card = {"format": FORMAT, **card, "sha256": hashlib.sha256(payload).hexdigest()}
    contents = {path: payload, path.with_suffix(".json"): (json.dumps(card, indent=1) + "\n").encode()}
    partials = {target: target.with_name(target.name + ".partial") for target in contents}
    try:
        # Both are complete on disk before either takes its place: an interrupted save leaves an older pair as it was.
        for target, content in contents.items():
            partials[target].write_bytes(content)
        for target, partial in partials.items():
            os.replace(partial, target)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fits_half(weights: dict[str, Tensor]) -> bool:
    """Whether ``save_checkpoint(..., half=True)`` would keep every weight as it is."""
    return all(torch.equal(value.half().to(value.dtype), value) for value in weights.values() if value.dim() >= 2)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a native checkpoint and verify it against its card.

    Raises:
        UserError: a file is missing, truncated, of another format, or does not match the card's hash.
    """
    card_path = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: not a native checkpoint (needed: a .safetensors file with its .json card beside it)")
    for needed in (path, card_path):
        if not needed.is_file():
            raise UserError(
                f"{needed}: no such file (a native checkpoint is NAME.safetensors with NAME.json beside it)"
            )
    try:
        card = json.loads(card_path.read_text())
        kind, found = card["kind"], card["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{card_path}: not a checkpoint card ({error})") from None
    if found != FORMAT:
        raise UserError(f"{card_path}: card format {found}, this version reads {FORMAT}")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != card.get("sha256"):
        raise UserError(
            f"{path}: does not match the sha256 in {card_path.name}: truncated or changed since it was saved"
        )
    try:
        weights = load_safetensors(payload)
    except SafetensorError as error:
        raise UserError(f"{path}: not a {kind} checkpoint ({error})") from None
    return Checkpoint(card, {k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()}, path)


def load_weights(module: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load ``weights`` into ``module``, strictly.

    Raises:
        UserError: as :func:`check_weights`.
    """
    check_weights(module, weights, origin)
    module.load_state_dict(weights)


def check_weights(module: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Refuse weights that are not those of ``module``, which may be on the meta device.

    Raises:
        UserError: names or shapes differ; the first difference is named.
    """
    own = module.state_dict()
    for name in own:
        if name not in weights:
            raise UserError(f"{origin}: weight {name!r} is missing")
        if weights[name].shape != own[name].shape:
            raise UserError(
                f"{origin}: weight {name!r} has shape {tuple(weights[name].shape)}, needed {tuple(own[name].shape)}"
            )
    unknown = sorted(set(weights) - set(own))
    if unknown:
        raise UserError(
            f"{origin}: weight {unknown[0]!r} does not belong to this architecture ({len(unknown)} unknown in all)"
        )
