"""The checkpoints of ermongroup/ncsn and ermongroup/ncsnv2: ``checkpoint.pth``, a list whose first entry is the state dict.

    ncsn:    [state dict, optimiser]
    ncsnv2:  [state dict, optimiser, epoch, step, moving averages]; published numbers are those of the averages, which are used.

The state dicts are of ``DataParallel`` (names begin with ``module.``). The files say nothing else: the networks follow from the shapes,
and the data set and the recipe of NCSNv2 from its noise levels. Of NCSN neither image size nor noise levels are in the file; its
published networks have the same ten levels, and images of 32x32 in colour or 28x28 in grey.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSampling
from baselines.ncsnv2 import NCSNv2, NCSNv2Architecture, NCSNv2Sampling
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.native import FORMAT, check_weights, file_sha256
from vaebm.errors import UserError

# NCSN by number of channels -> data set, side, published width.
NCSN_FILES = {3: ("cifar10", 32, 128), 1: ("mnist", 28, 64)}
# NCSNv2 by number of noise levels and the highest -> data set, side, step_lr.
NCSNV2_FILES = {(232, 50.0): ("cifar10", 32, 6.2e-6), (500, 90.0): ("celeba64", 64, 3.3e-6)}


def read(path: Path, content: Any) -> Checkpoint | None:
    """Return the checkpoint, of kind "ncsn" or "ncsnv2", or None where the file is of another layout.

    Raises:
        UserError: a weight is missing or of another shape (the first is named), or it is the deeper network for larger images.
    """
    parts = content if isinstance(content, list | tuple) and content else [content]
    state = _state(parts[0])
    if state is None or not any(name.startswith("refine") for name in state):
        return None
    if any(name.startswith("res5.") for name in state):
        raise UserError(f"{path}: a deeper network for larger images (it has res5), needed one of four stages")
    for name in ("begin_conv.weight", "end_conv.weight"):
        if name not in state or state[name].dim() != 4:
            raise UserError(f"{path}: weight {name!r} is missing or no kernel (C_out, C_in, 3, 3)")
    conditional = "normalizer.embed.weight" in state
    if not conditional and "sigmas" not in state:
        raise UserError(f"{path}: weight 'normalizer.embed.weight' (of an NCSN) or 'sigmas' (of an NCSNv2) is missing")
    step = parts[3] if len(parts) > 3 and isinstance(parts[3], int) else None
    averages = _state(parts[4]) if len(parts) > 4 else None
    if averages is not None:
        missing = next((name for name in state if name not in averages and name != "sigmas"), None)
        if missing is not None:
            raise UserError(f"{path}: the moving average of weight {missing!r} is missing")
        state |= averages  # of the parameters; the noise levels stay
    card, network = (_ncsn if conditional else _ncsnv2)(path, state)
    check_weights(network, state, str(path))
    training = {"step": step, "weights": "last" if averages is None else "moving average"}
    weights = {name: value.float() for name, value in state.items()}
    return Checkpoint({"format": FORMAT, **card, "training": training, "sha256": file_sha256(path)}, weights, path)


def _state(found: Any) -> dict[str, Tensor] | None:
    """Weights without DataParallel's prefix; None for anything else."""
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        return None
    return {str(name).removeprefix("module."): value.detach() for name, value in found.items()}


def _ncsn(path: Path, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], NCSN]:
    width, channels = state["begin_conv.weight"].shape[:2]
    if channels not in NCSN_FILES:
        raise UserError(f"{path}: takes images of {channels} channels, needed 3 or 1")
    dataset, side, published = NCSN_FILES[channels]
    architecture = NCSNArchitecture((side, side, channels), width, state["normalizer.embed.weight"].shape[0])
    with torch.device("meta"):
        network = NCSN(architecture)
    return {
        "kind": "ncsn",
        "size": "paper" if (width, architecture.levels) == (published, 10) else "own",
        "dataset": dataset,
        "architecture": asdict(architecture),
        "sampling": asdict(NCSNSampling()),
    }, network


def _ncsnv2(path: Path, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], NCSNv2]:
    width, channels = state["begin_conv.weight"].shape[:2]
    sigmas = state["sigmas"].flatten().tolist()
    if not sigmas or not all(0 < sigma < math.inf for sigma in sigmas) or sigmas != sorted(sigmas, reverse=True):
        raise UserError(f"{path}: its noise levels 'sigmas' are not positive and descending")
    first, last = (float(f"{sigma:.4g}") for sigma in (sigmas[0], sigmas[-1]))  # in float32, 50 is 50.000004
    published = NCSNV2_FILES.get((len(sigmas), first))
    dataset, side, step_lr = published or ("", 32, NCSNv2Sampling().step_lr)
    architecture = NCSNv2Architecture((side, side, channels), width, len(sigmas), first, last)
    with torch.device("meta"):
        network = NCSNv2(architecture)
    return {
        "kind": "ncsnv2",
        "size": "paper" if published and width == 128 else "own",
        "dataset": dataset,
        "architecture": asdict(architecture),
        "sampling": asdict(NCSNv2Sampling(step_lr=step_lr)),
    }, network
