"""DDPM checkpoints: folders of diffusers, and the files of pesser/pytorch_diffusion.

A folder, as google/ddpm-cifar10-32 on the Hugging Face Hub, holds ``config.json`` and ``diffusion_pytorch_model.safetensors`` (or
``.bin``) of a UNet2DModel, in itself or in ``unet/``, and ``scheduler_config.json``, in itself or in ``scheduler/``. Nothing is
downloaded and nothing in it is run.

A file of pytorch_diffusion (``ema_diffusion_cifar10_model-790000.ckpt``) is a bare state dict; the network follows from its shapes, and
the image size from where the attention is, which is at 16x16 in all of them.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from baselines.ddpm import CIFAR10_UNET, DDPM, DDPMArchitecture, DDPMSampling
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.limits import at_most, check_numbers
from vaebm.checkpoints.native import FORMAT, check_weights, file_sha256
from vaebm.checkpoints.pickles import read_pickle
from vaebm.errors import UserError
from vaebm.json_file import read_object

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PUBLISHED_WEIGHTS = 500  # tensors of the largest published network, about
VARIANCES = {"fixed_large": "fixedlarge", "fixed_small": "fixedsmall"}

# Older names in the attention of diffusers -> now.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLDER = re.compile(r"(?<=\.attentions\.\d\.)(query|key|value|proj_attn)(?=\.)")


def read(path: Path, content: Any) -> Checkpoint | None:
    """Return the checkpoint, of kind "ddpm", or None where the file or folder is of another layout.

    Raises:
        UserError: a file is missing or damaged, the model is no DDPM (another network, noise schedule or target), or a weight is missing or
            of another shape (the first is named); or diffusers is not installed.
    """
    if content is None:
        return _read_folder(path)
    if isinstance(content, Mapping) and "temb.dense.0.weight" in content:
        return _read_file(path, content)
    return None


def _checkpoint(
    path: Path, architecture: DDPMArchitecture, variance: str, clip: bool, state: Mapping[str, Tensor], *files: Path
) -> Checkpoint:
    """``files``: what decides the numbers, for the hash."""
    weights = {f"unet.{name}": value.float() for name, value in state.items()}
    try:
        with at_most(max(len(state), PUBLISHED_WEIGHTS), "its network"), torch.device("meta"):
            network = DDPM(architecture)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    check_weights(network, weights, str(path))
    unet = {name: tuple(value) if isinstance(value, list) else value for name, value in architecture.unet.items()}
    schedule = (architecture.timesteps, architecture.beta_start, architecture.beta_end)
    published = all(unet.get(name) == value for name, value in CIFAR10_UNET.items()) and schedule == (1000, 1e-4, 0.02)
    hashes = [file_sha256(file) for file in files]
    card = {
        "format": FORMAT,
        "kind": "ddpm",
        "size": "paper" if published else "own",
        "dataset": "cifar10" if published else "",
        "architecture": asdict(architecture),
        "sampling": asdict(DDPMSampling(architecture.timesteps, variance, clip, min(50, architecture.timesteps))),
        "sha256": hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
    }
    return Checkpoint(card, weights, path)


# Folders of diffusers


def _read_folder(path: Path) -> Checkpoint | None:
    places = [place for place in (path / "unet", path) if (place / "config.json").is_file()]
    if not places:
        if (path / "model_index.json").is_file():
            raise UserError(f"{path}: no unet/config.json and no config.json beside model_index.json")
        return None
    config_file = places[0] / "config.json"
    config = _read_json(config_file)
    if "_class_name" not in config:
        return None
    if config["_class_name"] != "UNet2DModel":
        raise UserError(f"{config_file}: describes a {config['_class_name']}, needed a UNet2DModel")
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise UserError(f"{config_file}: its network is told the class of an image, needed an unconditional one")
    schedules = [path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"]
    schedule_file = next((file for file in schedules if file.is_file()), None)
    if schedule_file is None:
        raise UserError(
            f"{path}: no scheduler/scheduler_config.json and no scheduler_config.json, which has the noise schedule"
        )
    unet = {name: value for name, value in config.items() if not name.startswith("_")}
    timesteps, betas, variance, clip = _read_schedule(schedule_file)
    check_numbers({"unet": unet, "timesteps": timesteps}, {}, str(config_file))
    try:
        architecture = DDPMArchitecture(unet, timesteps, *betas)
    except UserError as error:
        raise UserError(f"{config_file}: {error}") from None
    weights_file = next((places[0] / name for name in WEIGHTS if (places[0] / name).is_file()), None)
    if weights_file is None:
        raise UserError(f"{places[0]}: no {' and no '.join(WEIGHTS)}")
    state = {OLDER.sub(lambda old: RENAMED[old[0]], name): value for name, value in _read_weights(weights_file).items()}
    return _checkpoint(path, architecture, variance, clip, state, config_file, schedule_file, weights_file)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def _read_schedule(path: Path) -> tuple[int, tuple[float, float], str, bool]:
    """Return T, (first beta, last beta), the variance and whether x_0 is clipped. What a file leaves out is diffusers' default."""
    config = _read_json(path)
    needed = {
        "beta_schedule": (config.get("beta_schedule", "linear"), ("linear",)),
        "trained_betas": (config.get("trained_betas"), (None,)),
        "prediction_type": (config.get("prediction_type", "epsilon"), ("epsilon",)),
        "variance_type": (config.get("variance_type", "fixed_small"), tuple(VARIANCES)),
        "clip_sample_range": (config.get("clip_sample_range", 1.0), (1.0,)),
        "thresholding": (config.get("thresholding", False), (False,)),
    }
    for name, (found, known) in needed.items():
        if found not in known:
            raise UserError(f"{path}: {name} {found!r}, needed {' or '.join(map(repr, known))}")
    try:
        timesteps = int(config.get("num_train_timesteps", 1000))
        betas = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return timesteps, betas, VARIANCES[needed["variance_type"][0]], bool(config.get("clip_sample", True))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # a damaged header makes the reader raise this and that
            raise UserError(f"{path}: not a file of safetensors, or truncated ({str(error)[:200]})") from None
    found = read_pickle(path)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path}: holds a {type(found).__name__} that is no state dict")
    return {str(name): value for name, value in found.items()}


# Files of pytorch_diffusion

PARTS = {
    "conv_in": "conv_in",
    "conv_out": "conv_out",
    "norm_out": "conv_norm_out",
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "mid.block_1": "mid_block.resnets.0",
    "mid.attn_1": "mid_block.attentions.0",
    "mid.block_2": "mid_block.resnets.1",
}
LEAVES = {
    "temb_proj": "time_emb_proj",
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
LEVEL = re.compile(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)|(downsample|upsample))")


def _read_file(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: its state dict holds more than tensors")
    names = [str(name) for name in content]
    first = r"down\.(\d+)\.block\.0\.conv1\.weight"
    levels = 1 + max((int(found[1]) for name in names if (found := re.fullmatch(first, name))), default=-1)
    if levels > len(names):
        raise UserError(f"{path}: counts {str(levels)[:40]} resolutions, with {len(names)} weights")
    attention = [any(name.startswith(f"down.{level}.attn.") for name in names) for level in range(levels)]
    kernels = [f"down.{level}.block.0.conv1.weight" for level in range(levels)]
    for needed in ("conv_in.weight", *(kernels or ["down.0.block.0.conv1.weight"])):
        if needed not in content or content[needed].dim() != 4:
            raise UserError(f"{path}: weight {needed!r} is missing or no kernel (C_out, C_in, 3, 3)")
    if sum(attention) != 1:
        raise UserError(
            f"{path}: attention at {sum(attention)} resolutions, needed one, 16x16, which tells the image size"
        )
    channels = content["conv_in.weight"].shape[1]
    unet = {
        **CIFAR10_UNET,
        "sample_size": 16 << attention.index(True),
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": tuple(content[name].shape[0] for name in kernels),
        "layers_per_block": len({name.split(".")[3] for name in names if name.startswith("down.0.block.")}),
        "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
    }
    state = {}
    for name in names:
        ours = _our_name(name, levels)
        # 1x1 convolutions are linear layers in diffusers.
        linear = ".attentions." in ours and content[name].dim() == 4
        state[ours] = content[name][:, :, 0, 0] if linear else content[name]
    # As published: the larger variance for CIFAR-10, the smaller one for LSUN.
    variance = "fixedlarge" if unet["sample_size"] == 32 else "fixedsmall"
    return _checkpoint(path, DDPMArchitecture(unet), variance, True, state, path)


def _our_name(name: str, levels: int) -> str:
    """``down.0.block.1.norm1.weight`` -> ``down_blocks.0.resnets.1.norm1.weight``, and so on; diffusers counts its up blocks upwards."""
    if found := LEVEL.match(name):
        way, level, part, index, resample = found.groups()
        place = f"{way}_blocks.{int(level) if way == 'down' else levels - 1 - int(level)}"
        module = f"{resample}rs.0" if resample else f"{'resnets' if part == 'block' else 'attentions'}.{index}"
        head, rest = f"{place}.{module}", name[found.end() + 1 :]
    else:
        theirs = next((part for part in PARTS if name.startswith(f"{part}.")), None)
        if theirs is None:
            return name  # an unknown weight, to be named as such
        head, rest = PARTS[theirs], name[len(theirs) + 1 :]
    leaf, _, parameter = rest.rpartition(".")
    return ".".join(filter(None, (head, LEAVES.get(leaf, leaf), parameter)))
