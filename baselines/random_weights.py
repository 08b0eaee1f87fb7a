"""Paper-size architectures without a checkpoint: how long an image takes does not depend on what the weights are.

    system = random_weights("vaebm", sample_batch=50, device="cuda")

Each has the published setting for CIFAR-10 and its published recipe. Its images are noise: only time and memory mean anything. Weights
that are merely drawn could make activations fade to denormal numbers or grow beyond all bounds, both of which slow a CPU down; where a
network's own initialisation does not prevent it, its normalisations are set from a batch of its own samples.
"""

import hashlib
import math
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from baselines import SYSTEMS
from vaebm.errors import UserError, did_you_mean

SIZE = "paper"
IMAGES = 2  # of the batch that normalisations are set from

Built = tuple[Any, Any, str]  # network, recipe, architecture in words


def random_weights(
    name: str, *, device: str = "cpu", batch_size: int | str = 100, seed: int = 0, sample_batch: int = 16
) -> Any:
    """Build a system at its published size, with weights drawn from ``seed``.

    Args:
        name: one of :data:`RANDOM`.
        device, batch_size, sample_batch: as for any system.
        seed: of the weights and of the samples' noise.

    Raises:
        UserError: a name that no published setting is known of, or a package that its network needs is missing.
    """
    if name not in BUILDERS:
        raise UserError(
            f"--random-weights: no paper-size architecture of {name!r} is known here.{did_you_mean(name, RANDOM)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, recipe, architecture = BUILDERS[name](device)
    about: dict[str, Any] = {"size": SIZE, "weights_hash": f"random, seed {seed}: {architecture}", "device": device}
    system = SYSTEMS.load(name)(network, recipe, **about, batch_size=batch_size, seed=seed)
    system.sample_batch = sample_batch
    system.fingerprint |= {"state": _state_hash(system.whole)}  # the words do not say how the weights were drawn
    system.dataset = "cifar10"
    return system


def _state_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _vaebm(device: str) -> Built:
    from vaebm.checkpoints.official_settings import CHAINS
    from vaebm.energy import EnergyConfig, EnergyNetwork, data_dependent_init
    from vaebm.model import VAEBM

    nvae, _, words = _nvae(device)
    config = EnergyConfig.from_json(_setting()["energy"])
    energy = EnergyNetwork(config).to(device)
    model = VAEBM(nvae, energy)
    with torch.no_grad():
        data_dependent_init(energy, model.decode(_noise(model.state_shapes, device))[0])
    recipe = {**SYSTEMS.load("vaebm").defaults, **CHAINS["cifar10"]}
    return model, recipe, f"{words}; energy of width {config.channels}, {len(config.blocks)} blocks"


def _nvae(device: str) -> Built:
    from vaebm.nvae import NVAE, NVAEConfig
    from vaebm.nvae.cells import DecoderCombiner

    config = NVAEConfig.from_json(_setting()["nvae"])
    nvae = NVAE(config)
    for module in nvae.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch below
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, DecoderCombiner) and module.conv.log_weight_norm is not None:
            with torch.no_grad():  # its rows start at a third of the variance that would keep the signal's
                module.conv.log_weight_norm.add_(math.log(3) / 2)
    with torch.no_grad():
        nvae.to(device).train().decode(_noise(nvae.latent_shapes, device))
    recipe = {"importance_samples": 1, "temperature": 1.0, "output": "mean", "readjust_bn": 0}
    words = f"NVAE of width {config.channels_dec}, {'+'.join(map(str, config.groups_per_scale))} groups"
    return nvae.eval(), recipe, words


def _setting() -> dict[str, Any]:
    return tomllib.loads((files("vaebm") / "configs" / "cifar10.toml").read_text())


def _noise(shapes: Sequence[tuple[int, ...]], device: str) -> list[Tensor]:
    return [torch.randn(IMAGES, *shape).to(device) for shape in shapes]


def _ncsn(device: str) -> Built:
    from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSampling

    architecture = NCSNArchitecture()
    words = f"RefineNet of width {architecture.width}, {architecture.levels} noise levels"
    return NCSN(architecture), NCSNSampling(), words


def _ncsnv2(device: str) -> Built:
    from baselines.ncsnv2 import NCSNv2, NCSNv2Architecture, NCSNv2Sampling

    architecture = NCSNv2Architecture()
    words = f"RefineNet of width {architecture.width}, {architecture.levels} noise levels"
    return NCSNv2(architecture), NCSNv2Sampling(), words


def _ddpm(device: str) -> Built:
    from baselines.ddpm import DDPM, DDPMArchitecture, DDPMSampling

    architecture = DDPMArchitecture()
    widths = "-".join(map(str, architecture.unet["block_out_channels"]))
    return DDPM(architecture), DDPMSampling(), f"U-Net of widths {widths}, {architecture.timesteps} times"


def _igebm(device: str) -> Built:
    from baselines.igebm import IGEBM

    architecture, recipe = _published("igebm")
    words = f"ResNet of width {architecture.width}, mean energy of {architecture.ensemble} states"
    return IGEBM(architecture), recipe, words


def _glow(device: str) -> Built:
    from baselines.glow import Glow

    architecture, recipe = _published("glow")
    return Glow(architecture), recipe, f"{architecture.levels} x {architecture.steps} steps, width {architecture.width}"


def _published(kind: str) -> tuple[Any, Any]:
    from baselines.training.config import read_config

    config = read_config(kind, f"{SIZE}-cifar10")
    return config.architecture, config.sampling


def _pixelcnn(device: str) -> Built:
    """PixelCNN++ has 6 stages of 5 residual blocks, 160 filters and 10 logistics, on a detour over two lower resolutions; here its blocks
    stand at one."""
    from baselines.pixelcnn import PixelCNN, PixelCNNArchitecture, PixelCNNSampling

    architecture = PixelCNNArchitecture(filters=160, layers=6 * 5, mixtures=10)
    words = "PixelCNN++'s 30 blocks, 160 filters and 10 logistics, all blocks at full resolution"
    return PixelCNN(architecture), PixelCNNSampling(), words


BUILDERS: dict[str, Callable[[str], Built]] = {
    "vaebm": _vaebm,
    "nvae": _nvae,
    "ncsn": _ncsn,
    "ncsnv2": _ncsnv2,
    "ddpm": _ddpm,
    "igebm": _igebm,
    "glow": _glow,
    "pixelcnn": _pixelcnn,
}
RANDOM = tuple(BUILDERS)
