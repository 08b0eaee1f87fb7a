"""Architectures with random weights: published sizes and recipes, reproducible, sane activations, clear refusals."""

import tomllib
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import baselines.ddpm
import baselines.glow
import baselines.igebm
import baselines.ncsn
import baselines.ncsnv2
import baselines.pixelcnn
from baselines import SYSTEMS, random_weights
from baselines.glow import GlowArchitecture, GlowSampling
from baselines.igebm import IGEBMArchitecture, IGEBMRecipe
from baselines.random_weights import BUILDERS, RANDOM
from evaluators.protocols import LongSampler, Sampler
from vaebm.energy import ENERGIES, EnergyConfig
from vaebm.errors import UserError
from vaebm.nvae import NVAEConfig

torch.set_num_threads(1)

TINY = {
    "nvae": {"channels_enc": 4, "channels_dec": 4, "latents_per_group": 2, "groups_per_scale": [3], "image_size": 8},
    "energy": {"channels": 4, "blocks": [[1, True], [2, False]]},
}
UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same building at sizes that take no time."""
    shape = (8, 8, 3)
    published = {
        "igebm": (IGEBMArchitecture(shape, 4, (0, 0, 0), ensemble=2), IGEBMRecipe(steps=3)),
        "glow": (GlowArchitecture(shape, levels=2, steps=2, width=4), GlowSampling()),
    }
    monkeypatch.setattr(random_weights, "_setting", lambda: TINY)
    monkeypatch.setattr(random_weights, "_published", published.__getitem__)
    small = {
        "ncsn": partial(baselines.ncsn.NCSNArchitecture, shape, 4, 2),
        "ncsnv2": partial(baselines.ncsnv2.NCSNv2Architecture, shape, 4, 2),
        "ddpm": partial(baselines.ddpm.DDPMArchitecture, UNET),
        "pixelcnn": lambda made=baselines.pixelcnn.PixelCNNArchitecture, **_: made(shape, 8, 2, 2),
    }
    for name, build in small.items():
        module = getattr(baselines, name)
        monkeypatch.setattr(module, type(build()).__name__, build)
    return random_weights.random_weights


@pytest.fixture(params=RANDOM)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "ddpm":
        pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
    return request.param


def draw(system: Any) -> np.ndarray:
    return system.sample_part([0, 1], 3) if isinstance(system, LongSampler) else system.sample([0, 1])


def test_a_system_with_random_weights_is_one_like_any_other_and_says_what_it_is(tiny: Any, name: str) -> None:
    system = tiny(name, sample_batch=2, batch_size=7, seed=3)
    assert isinstance(system, SYSTEMS.load(name))
    assert isinstance(system, Sampler)
    assert (system.size, system.sample_batch, system.batch_size, system.seed) == ("paper", 2, 7, 3)
    assert system.fingerprint["weights"].startswith("random, seed 3: ")
    images = draw(system)
    assert (images.dtype, images.shape) == (np.uint8, (2, 8, 8, 3))


def test_the_seed_decides_the_weights_and_nothing_else_does(tiny: Any, name: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = draw(tiny(name, sample_batch=2))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(draw(tiny(name, sample_batch=2)), one)

    weights = lambda seed: [p.flatten() for n in tiny(name, seed=seed).networks.values() for p in n.parameters()]
    assert not torch.equal(torch.cat(weights(0)), torch.cat(weights(1)))


@pytest.mark.parametrize(("wrong", "near"), [("vaemb", "vaebm"), ("gloow", "glow"), ("biggan", "")])
def test_a_name_without_a_published_size_is_refused(wrong: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        random_weights.random_weights(wrong)
    said = str(caught.value)
    assert said.startswith(f"--random-weights: no paper-size architecture of '{wrong}' is known here.")
    assert said.endswith(f"Available: {', '.join(sorted(RANDOM))}.")
    assert f"Did you mean '{near}'" in said if near else all(name in said for name in RANDOM)


# Published sizes, on a device that holds no numbers


def built(name: str) -> tuple[Any, Any, str]:
    with torch.device("meta"):
        return BUILDERS[name]("meta")


def test_ddpm_has_the_published_number_of_parameters_and_steps() -> None:
    pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
    network, recipe, words = built("ddpm")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(35.7, abs=0.05)
    assert recipe.steps == 1000
    assert words == "U-Net of widths 128-256-256-256, 1000 times"


def test_score_networks_are_the_published_ones() -> None:
    network, recipe, words = built("ncsn")
    assert (network.architecture.width, network.architecture.levels) == (128, 10)
    assert (recipe.steps_per_level, recipe.step_lr, recipe.denoise) == (100, 2e-5, False)
    assert words == "RefineNet of width 128, 10 noise levels"
    network, recipe, _ = built("ncsnv2")
    assert (network.architecture.width, network.architecture.levels, recipe.steps_per_level) == (128, 232, 5)


def test_vaebm_is_the_published_one_and_makes_sixteen_steps(tiny: Any) -> None:
    recipe = tiny("vaebm").recipe
    assert (recipe["steps"], recipe["step_size"], recipe["target"]) == (16, 8e-5, "official")
    assert tiny("nvae").recipe["temperature"] == 1.0
    assert tiny("vaebm").fingerprint["weights"].endswith("NVAE of width 4, 3 groups; energy of width 4, 2 blocks")


def test_igebm_is_the_published_one() -> None:
    architecture, recipe = random_weights._published("igebm")
    assert (architecture.width, architecture.blocks, architecture.ensemble, recipe.steps) == (128, (2, 2, 2), 10, 2000)


def test_the_other_networks_are_the_published_ones() -> None:
    network, _, _ = built("glow")
    assert (network.architecture.levels, network.architecture.steps, network.architecture.width) == (3, 32, 512)
    network, _, words = built("pixelcnn")
    assert (network.architecture.layers, network.architecture.filters, network.architecture.mixtures) == (30, 160, 10)
    assert "full resolution" in words


def test_the_setting_is_that_of_the_training() -> None:
    setting = tomllib.loads((files("vaebm") / "configs" / "cifar10.toml").read_text())
    assert random_weights._setting() == setting
    config = NVAEConfig.from_json(setting["nvae"])
    assert (config.channels_dec, config.groups_per_scale, config.latents_per_group) == (128, (30,), 20)
    assert EnergyConfig.from_json(setting["energy"]) == ENERGIES["cifar10"]


# Activations neither fade nor grow: on a CPU that would cost time


@pytest.mark.slow
def test_no_activation_is_denormal_or_infinite(name: str) -> None:
    system = random_weights.random_weights(name, sample_batch=1)
    odd = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        for x in (output,) if torch.is_tensor(output) else ():
            small = (x.abs() < torch.finfo(x.dtype).tiny) & (x != 0)
            odd.append(float((small | ~x.isfinite()).float().mean()))

    for network in system.networks.values():
        for module in network.modules():
            module.register_forward_hook(look)
    if isinstance(system, LongSampler):
        system.sample_part([0], 2)
    elif hasattr(system, "sample_steps"):
        system.sample_steps([0], [1])
    else:
        system.sample([0])
    assert odd
    assert max(odd) < 1e-3
