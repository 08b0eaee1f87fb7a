"""The files of wgrathwohl/JEM, such as ``CIFAR10_MODEL.pt``: a wide residual network and its buffer of chains.

A file holds ``model_state_dict`` and ``replay_buffer`` (N, C, H, W) and does not say what the network is: depth, width and number of
classes follow from the weights. ``f.linear`` and ``energy_output`` are in it and take no part in anything; normalised networks, which
the released code can build as well, are refused.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.backbones.wide_resnet import WideResNet, WideResNetArchitecture
from baselines.jem import JEMRecipe
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.native import FORMAT, file_sha256
from vaebm.errors import UserError

IDLE = ("f.linear.", "energy_output.")  # weights that no score and no sample passes through
DATASETS = {10: "cifar10", 100: "cifar100"}

# As the released evaluation scores: noise is added to test images, too. Its chains for samples are 40 steps a round.
RECIPE = JEMRecipe(score="px", noise=0.03, steps=1000, step_size=1.0, noise_scale=0.01)


def read(path: Path, content: Any) -> Checkpoint | None:
    """Return the checkpoint, of kind "jem", or None where the file is of another layout.

    Raises:
        UserError: a weight is missing, of another shape, or of a normalised network; the first is named.
    """
    if not isinstance(content, Mapping) or "model_state_dict" not in content:
        return None
    state = content["model_state_dict"]
    if not isinstance(state, Mapping) or not any(str(name).startswith(("f.", "class_output.")) for name in state):
        return None
    try:
        architecture = _architecture(state, content.get("replay_buffer"))
        weights = _weights(architecture, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    card = {
        "format": FORMAT,
        "kind": "jem",
        "size": "paper" if architecture == WideResNetArchitecture(classes=architecture.classes) else "own",
        "dataset": DATASETS.get(architecture.classes, ""),
        "architecture": asdict(architecture),
        "sampling": asdict(RECIPE),
        "sha256": file_sha256(path),
    }
    return Checkpoint(card, weights, path)


def _architecture(state: Mapping[str, Any], buffer: Any) -> WideResNetArchitecture:
    """What the shapes say; images are 32x32 where there is no buffer to tell."""
    channels = _shape(state, "f.conv1.weight", 4)[1]
    width = _shape(state, "f.layer1.0.conv1.weight", 4)[0]
    classes = _shape(state, "class_output.weight", 2)[0]
    blocks = max(int(name.split(".")[2]) for name in state if name.startswith("f.layer1.")) + 1
    if width % 16:
        raise UserError(f"weight 'f.layer1.0.conv1.weight' has {width} output channels, needed a multiple of 16")
    height, side = buffer.shape[2:] if isinstance(buffer, Tensor) and buffer.ndim == 4 else (32, 32)
    return WideResNetArchitecture((height, side, channels), 6 * blocks + 4, width // 16, classes=classes)


def _shape(state: Mapping[str, Any], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"weight {name!r} is missing")
    found = state[name]
    if not isinstance(found, Tensor) or found.ndim != dimensions:
        what = f"has shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"is a {type(found).__name__}"
        raise UserError(f"weight {name!r} {what}, needed a tensor of {dimensions} dimensions")
    return tuple(found.shape)


def _weights(architecture: WideResNetArchitecture, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by our names; they must be exactly those of the network."""
    with torch.device("meta"):  # no wrong shape makes it too large
        own = WideResNet(architecture).state_dict()
    names = {_their_name(name, architecture.blocks): name for name in own}
    for theirs, ours in names.items():
        if (found := _shape(state, theirs, own[ours].ndim)) != own[ours].shape:
            raise UserError(f"weight {theirs!r} has shape {found}, needed {tuple(own[ours].shape)}")
    unknown = [name for name in state if name not in names and not name.startswith(IDLE)]
    if unknown:
        reason = "; normalised networks are not supported" if ".bn" in unknown[0] else ""
        raise UserError(f"weight {unknown[0]!r} does not belong to a WRN-{architecture.depth}{reason}")
    return {ours: state[theirs].float() for theirs, ours in names.items()}


def _their_name(name: str, blocks: int) -> str:
    """``blocks.5.conv1.weight`` of four blocks a stage is ``f.layer2.1.conv1.weight``."""
    part, _, rest = name.partition(".")
    if part == "stem":
        return f"f.conv1.{rest}"
    if part == "last":
        return f"class_output.{rest}"
    number, rest = rest.split(".", 1)
    stage, i = divmod(int(number), blocks)
    return f"f.layer{stage + 1}.{i}.{rest.replace('shortcut.', 'shortcut.0.')}"
