"""The checkpoints of y0ast/Glow-PyTorch: a bare state dict, as its training script saves it, or a dictionary with it as ``model``.

The file says nothing else: the architecture follows from names and shapes. Its flow is ours under other names (squeeze, order of a step,
which half is coupled, sigmoid(scale + 2), the dequantisation x = (bytes + u) / 256 - 1/2), so a score here is its objective in nats. Two
things are brought over: shift and scale of couplings and of priors take turns among the channels there and follow each other here, and
the last prior is a convolution of a buffer of zeros there, which leaves its bias.

Its README gives 3.39 bits per dimension for the affine weights, and says that an affine Glow does not work well for samples; the
additive one is for those. A file without matrices is of fixed permutations: of the reversed order, as that of its shuffles is not in it.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.glow import Glow, GlowArchitecture, GlowSampling
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.native import FORMAT, file_sha256
from vaebm.errors import UserError

PUBLISHED = GlowArchitecture((32, 32, 3), levels=3, steps=32, width=512, lu=True)
NOTE = "3.39 bits per dimension by its README, which does not recommend samples of affine couplings"

# Their names -> ours: within a step (``Step.parts``) and of a prior between levels (``Glow.priors``).
STEP = {
    "actnorm.bias": "0.bias",
    "actnorm.logs": "0.log_scale",
    "block.0.conv.weight": "2.net.0.weight",
    "block.0.actnorm.bias": "2.net.0.bias",
    "block.0.actnorm.logs": "2.net.0.log_scale",
    "block.2.conv.weight": "2.net.2.weight",
    "block.2.actnorm.bias": "2.net.2.bias",
    "block.2.actnorm.logs": "2.net.2.log_scale",
    "block.4.conv.weight": "2.net.4.weight",
    "block.4.conv.bias": "2.net.4.bias",
    "block.4.logs": "2.net.4.log_scale",
}
CONV = {"invconv.weight": "1.weight"}
LU = {
    "invconv.p": "1.permutation",
    "invconv.sign_s": "1.sign",
    "invconv.lower": "1.lower",
    "invconv.upper": "1.upper",
    "invconv.log_s": "1.log_scale",
}
PRIOR = {"conv.conv.weight": "weight", "conv.conv.bias": "bias", "conv.logs": "log_scale"}
TOP = ("learn_top_fn.conv.weight", "learn_top_fn.conv.bias", "learn_top_fn.logs")


def read(path: Path, content: Any) -> Checkpoint | None:
    """Return the checkpoint, of kind "glow", or None where the file is of another layout.

    Raises:
        UserError: a weight is missing, unknown or of another shape (the first is named), or the model is conditioned on labels.
    """
    found = content.get("model", content) if isinstance(content, Mapping) else None
    state = {str(name): value for name, value in found.items()} if isinstance(found, Mapping) else {}
    if not any(name.startswith("flow.layers.") for name in state):
        return None
    try:
        architecture = _architecture(state)
        weights = _weights(state, architecture)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    card = {
        "format": FORMAT,
        "kind": "glow",
        "size": "paper" if architecture == PUBLISHED else "own",
        "dataset": "cifar10" if architecture.image_shape == (32, 32, 3) else "",
        "architecture": asdict(architecture),
        "sampling": asdict(GlowSampling()),
        "training": {"note": NOTE},
        "sha256": file_sha256(path),
    }
    return Checkpoint(card, weights, path)


def _architecture(state: Mapping[str, Any]) -> GlowArchitecture:
    """Read it from names and shapes. Layers are numbered through: per level a squeeze, the steps and, but for the last, a split."""
    if any(name.startswith("project_") for name in state):
        raise UserError("is conditioned on labels (it has project_ycond); needed a model without --y_condition")
    first = "flow.layers.1."
    for name in ("prior_h", *(first + part for part in ("actnorm.bias", "block.0.conv.weight", "block.4.conv.weight"))):
        if not isinstance(state.get(name), Tensor) or state[name].dim() != 4:
            raise UserError(f"weight {name!r} is missing or has not four dimensions")
    if state["prior_h"].any():
        raise UserError("its buffer prior_h is not zero, which no version of the code makes it")
    matches = [found for name in state if (found := re.match(r"flow\.layers\.(\d+)\.(conv\.)?", name))]
    numbers, splits = {int(found[1]) for found in matches}, {int(found[1]) for found in matches if found[2]}
    levels, layers = len(splits) + 1, 1 + max(numbers)
    if (layers + 1) % levels or len(numbers) != layers - levels:  # a squeeze has no weights
        raise UserError(f"its {layers} layers with {levels - 1} splits are not whole levels of the same length")
    channels = state[first + "actnorm.bias"].shape[1]
    height, width = (side * 2**levels for side in state["prior_h"].shape[2:])
    return GlowArchitecture(
        image_shape=(height, width, channels // 4),
        levels=levels,
        steps=(layers + 1) // levels - 2,
        width=state[first + "block.0.conv.weight"].shape[0],
        coupling="affine" if state[first + "block.4.conv.weight"].shape[0] == channels else "additive",
        permutation="conv" if any(".invconv." in name for name in state) else "reverse",
        lu=any(".invconv.lower" in name for name in state),
        learn_top=any(name in state for name in TOP),
    )


def _names(architecture: GlowArchitecture) -> dict[str, str]:
    """Their names -> ours, of everything but the last prior."""
    matrix = {} if architecture.permutation == "reverse" else LU if architecture.lu else CONV
    names: dict[str, str] = {}
    for level in range(architecture.levels):
        first = level * (architecture.steps + 2) + 1  # of its steps
        for k in range(architecture.steps):
            ours = f"levels.{level}.{k}.parts"
            names |= {f"flow.layers.{first + k}.{a}": f"{ours}.{b}" for a, b in {**STEP, **matrix}.items()}
        if level < architecture.levels - 1:
            split = f"flow.layers.{first + architecture.steps}"
            names |= {f"{split}.{a}": f"priors.{level}.{b}" for a, b in PRIOR.items()}
    return names


def _weights(state: Mapping[str, Any], architecture: GlowArchitecture) -> dict[str, Tensor]:
    """Rename and reorder the weights, which must be exactly the architecture's."""
    with torch.device("meta"):
        needed = Glow(architecture).state_dict()
    names = _names(architecture)
    shapes = {theirs: _their_shape(theirs, tuple(needed[ours].shape)) for theirs, ours in names.items()}
    if architecture.learn_top:
        (both, _, _) = needed["top"].shape
        shapes |= dict(zip(TOP, ((both, both, 3, 3), (both,), (both, 1, 1)), strict=True))
    for name, shape in shapes.items():
        if not isinstance(state.get(name), Tensor):
            raise UserError(f"weight {name!r} is missing")
        if state[name].shape != shape:
            raise UserError(f"weight {name!r} has shape {tuple(state[name].shape)}, needed {shape}")
    unknown = sorted(set(state) - set(shapes) - {"prior_h"})
    if unknown:
        raise UserError(f"weight {unknown[0]!r} does not belong to this architecture ({len(unknown)} unknown in all)")
    weights = {}
    for theirs, ours in names.items():
        value = state[theirs].detach().float().reshape(needed[ours].shape)
        if ours.startswith("priors.") or (".net.4." in ours and architecture.coupling == "affine"):
            value = torch.cat([value[0::2], value[1::2]])
        weights[ours] = value
    if architecture.learn_top:
        bias, logs = (state[name].detach().float().reshape(needed["top"].shape) for name in TOP[1:])
        weights["top"] = bias * (3 * logs).exp()
    return weights


def _their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape there of a weight that has ``shape`` here."""
    if "actnorm." in name:
        return (1, shape[0], 1, 1)
    return (shape[0], 1, 1) if name.endswith(".logs") else shape
