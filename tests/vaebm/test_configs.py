"""The bundled configurations: each parses strictly, describes models that can be built, and says what was published."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

import vaebm
from vaebm.commands.train import CONFIGS
from vaebm.data.catalogue import DATASETS
from vaebm.energy import ENERGIES, EnergyNetwork
from vaebm.nvae import NVAE
from vaebm.training.stages import Settings, settings_from_json

MANIFEST = Path(__file__).parents[3] / "shared" / "official" / "manifest.json"
OURS = ("mini-cifar10", "mini-stacked_mnist", "small-cifar10")
# Of the commands and defaults of the released code: configuration, its name in the manifest, energy network, then the values that differ.
PUBLISHED: dict[str, tuple[str, str, dict[str, object], dict[str, object]]] = {
    "cifar10": (
        "cifar10",
        "cifar10",
        {"epochs": 400, "batch_size": 256},
        {"learning_rate": 4e-5, "chain_steps": 10, "step_size": 8e-5, "negatives": "sample", "buffer_size": 0},
    ),
    "cifar10-persistent": (
        "cifar10",
        "cifar10",
        {"epochs": 400, "batch_size": 256},
        {"learning_rate": 4e-5, "chain_steps": 6, "step_size": 6e-5, "negatives": "sample", "buffer_size": 10_000},
    ),
    "celeba64": (
        "celeba_64",
        "celeba64",
        {"epochs": 50, "batch_size": 256, "warmup_epochs": 1},
        {"learning_rate": 5e-5, "chain_steps": 10, "step_size": 5e-6, "buffer_size": 0},
    ),
    "lsun_church64": (
        "lsun_church_64",
        "lsun64",
        {"epochs": 60, "batch_size": 256, "warmup_epochs": 1},
        {"learning_rate": 4e-5, "chain_steps": 10, "step_size": 4e-6, "buffer_size": 10_000},
    ),
    "celebahq256": (
        "celeba_256",
        "celebahq256",
        {
            "epochs": 200,
            "batch_size": 64,
            "learning_rate": 6e-3,
            "spectral_weight": 1e-2,
            "batch_norm_weight": 1e-2,
            "regulariser_start": 10.0,
        },
        {
            "learning_rate": 4e-5,
            "chain_steps": 6,
            "step_size": 3e-6,
            "buffer_size": 2000,
            "buffer_anneal": 3000,
            "spectral_weight": 0.3,
            "steps": 9000,
            "batch_size": 16,
            "data_init": False,
        },
    ),
}
VAE_COMMON: dict[str, object] = {
    "learning_rate": 1e-2,
    "learning_rate_min": 1e-4,
    "warmup_epochs": 5,
    "eps": 1e-3,
    "weight_decay": 3e-4,
    "clip_norm": 0,
    "kl_anneal": 0.3,
    "kl_start": 0,
    "kl_const": 1e-4,
    "kl_floor": 1e-4,
    "kl_balance": "official",
    "spectral_weight": 0.1,
    "batch_norm_weight": 0.1,
    "regulariser_start": 0,
    "ema": 0,
    "flip": True,
}
EBM_COMMON: dict[str, object] = {
    "steps": 30_000,
    "batch_size": 32,
    "warmup_steps": 0,
    "final_rate": 1,
    "beta1": 0.99,
    "beta2": 0.999,
    "weight_decay": 3e-5,
    "spectral_weight": 0.2,
    "data_init": True,
    "target": "official",
    "negatives": "mean",
    "clamp_mean": False,
    "noise": 0,
    "jitter": 0,
    "clip": True,
    "ema": 0,
    "buffer_probability": 0.6,
    "buffer_anneal": 5000,
    "flip": True,
}


def read(name: str) -> Settings:
    return settings_from_json(tomllib.loads((CONFIGS / f"{name}.toml").read_text()))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_bundled_configuration_builds_for_its_data(path: Path) -> None:
    settings = read(path.stem)
    assert settings.size == (path.stem.split("-")[0] if path.stem in OURS else "paper")
    data = DATASETS[settings.dataset]
    assert (settings.nvae.image_channels, *data.size) == (data.channels, *[settings.nvae.image_size] * 2)
    assert settings.energy.image_channels == data.channels
    with torch.device("meta"):
        nvae, energy = NVAE(settings.nvae), EnergyNetwork(settings.energy)
    assert nvae.latent_shapes[0][1] <= nvae.latent_shapes[-1][1]
    assert count(nvae) > count(energy)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_has_every_published_value(name: str) -> None:
    _, energy, vae_values, ebm_values = PUBLISHED[name]
    settings = read(name)
    assert settings.energy == ENERGIES[energy]
    expected_vae, expected_ebm = {**VAE_COMMON, **vae_values}, {**EBM_COMMON, **ebm_values}
    assert {key: getattr(settings.vae, key) for key in expected_vae} == expected_vae
    assert {key: getattr(settings.ebm, key) for key in expected_ebm} == expected_ebm


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_has_the_size_of_the_released_models(name: str) -> None:
    if not MANIFEST.is_file():
        pytest.skip(f"needs the official layouts in {MANIFEST}")
    official = json.loads(MANIFEST.read_text())[PUBLISHED[name][0]]
    settings = read(name)
    with torch.device("meta"):
        nvae, energy = NVAE(settings.nvae), EnergyNetwork(settings.energy)
    assert (count(nvae), count(energy)) == (official["nvae_parameters"], official["ebm_parameters"])
    assert [list(shape) for shape in nvae.latent_shapes] == official["latent_shapes"]
    assert settings.nvae.bits == official["args"]["num_x_bits"]


def test_digits_use_the_released_energy_network_and_are_not_mirrored() -> None:
    for name, channels in (("mnist", 1), ("stacked_mnist", 3)):
        settings = read(name)
        assert settings.energy == ENERGIES["mnist"].__class__(
            **{**ENERGIES["mnist"].to_json(), "image_channels": channels}
        )
        assert (settings.nvae.border, settings.vae.flip, settings.ebm.flip) == (2, False, False)


def test_configurations_travel_with_the_package() -> None:
    assert CONFIGS.parent == Path(vaebm.__file__).parent
    assert {path.stem for path in CONFIGS.glob("*.toml")} >= {*OURS, *PUBLISHED, "stacked_mnist", "mnist"}
