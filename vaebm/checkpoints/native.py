"""Native checkpoints: ``NAME.safetensors`` (weights) beside ``NAME.json`` (the card). Nothing in them can run code.

The card says what the weights are and how they are to be used::

    {"format": 1, "kind": "vaebm", "size": "mini", "dataset": "cifar10",
     "architecture": {...}, "sampling": {...}, "training": {...}, "sha256": "<of the safetensors file>"}
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from vaebm.atomic import replace_together
from vaebm.checkpoints.limits import Room, at_most, check_numbers
from vaebm.errors import UserError
from vaebm.json_file import read_object

FORMAT = 1
MAX_BYTES = 2**35  # of the weights; the largest published ones that are read here have 0.6 GB
Network = TypeVar("Network", bound=nn.Module)
_PARTS = ("architecture", "sampling", "training")


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
    # Both are complete on disk before either takes its place: an interrupted save leaves an older pair as it was.
    write = lambda content, file: file.write_bytes(content)
    replace_together({target: partial(write, content) for target, content in contents.items()})


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
        UserError: a file is missing, truncated, of another format, or does not match the card's hash; or a setting of the card is beyond
            all measure (``vaebm.checkpoints.limits``).
    """
    card_path = path.with_suffix(".json")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: not a native checkpoint (needed: a .safetensors file with its .json card beside it)")
    for needed in (path, card_path):
        if not needed.is_file():
            raise UserError(
                f"{needed}: no such file (a native checkpoint is NAME.safetensors with NAME.json beside it)"
            )
    card = read_card(card_path)
    kind, found = card["kind"], card.get("format")
    if found != FORMAT:
        raise UserError(f"{card_path}: card format {str(found)[:40]}, this version reads {FORMAT}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path}: has {size:,} bytes, the limit is {MAX_BYTES:,}")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != card.get("sha256"):
        raise UserError(
            f"{path}: does not match the sha256 in {card_path.name}: truncated or changed since it was saved"
        )
    try:
        weights = load_safetensors(payload)
    except Exception as error:  # a damaged header makes the reader raise this and that
        raise UserError(f"{path}: not a {kind} checkpoint ({str(error)[:200] or type(error).__name__})") from None
    return Checkpoint(card, {k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()}, path)


def read_card(path: Path) -> dict[str, Any]:
    """Return a card, whose numbers are of a measure (``vaebm.checkpoints.limits``).

    Raises:
        UserError: it is no card; the message says why.
    """
    try:
        card = read_object(path)
        if not isinstance(card["kind"], str) or not isinstance(card.get("sha256", ""), str):
            raise TypeError("its kind or sha256 is no text")
        for part in _PARTS:
            if not isinstance(card.get(part, {}), dict):
                raise TypeError(f"its {part} is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not a checkpoint card ({what})") from None
    check_numbers(card.get("architecture", {}), card.get("sampling", {}), str(path))
    return card


def load_network(build: Callable[[], Network], weights: Mapping[str, Tensor], origin: str) -> Network:
    """Build a network and load its weights, which must be exactly its own.

    Raises:
        UserError: as :func:`check_weights`; or what the card asks for is more than there is in its file by far, which is found before any
            memory is taken for it.
    """
    with at_most(len(weights), origin), Room(sum(value.numel() for value in weights.values()), origin):
        network = build()
    load_weights(network, dict(weights), origin)
    return network


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
        UserError: names, shapes or kinds of numbers differ, or a weight is NaN or infinite; the first one is named.
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
    for name, needed in own.items():
        found = weights[name]
        if (found.is_floating_point(), found.is_complex()) != (needed.is_floating_point(), needed.is_complex()):
            raise UserError(f"{origin}: weight {name!r} is {_kind(found)}, needed {_kind(needed)}")
        # In the type that it will have: a float64 may be beyond float32.
        if found.is_floating_point() and not found.is_meta and not found.to(needed.dtype).isfinite().all():
            raise UserError(
                f"{origin}: weight {name!r} holds NaN or infinity; a damaged file, or of a training that diverged"
            )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
