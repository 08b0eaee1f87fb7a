"""The bundled configurations: each parses strictly and describes models that can be built."""

import tomllib
from pathlib import Path

import pytest

import vaebm
from vaebm.commands.train import CONFIGS
from vaebm.energy import EnergyNetwork
from vaebm.nvae import NVAE
from vaebm.training.stages import settings_from_json


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_bundled_configuration_builds(path: Path) -> None:
    settings = settings_from_json(tomllib.loads(path.read_text()))
    assert settings.size == path.stem.split("-")[0]
    assert settings.dataset == path.stem.split("-")[1]
    nvae, energy = NVAE(settings.nvae), EnergyNetwork(settings.energy)
    assert nvae.latent_shapes[0][1] < nvae.latent_shapes[-1][1]
    assert sum(p.numel() for p in nvae.parameters()) > sum(p.numel() for p in energy.parameters())


def test_configurations_travel_with_the_package() -> None:
    assert CONFIGS.parent == Path(vaebm.__file__).parent
    assert {path.stem for path in CONFIGS.glob("*.toml")} >= {"mini-cifar10", "small-cifar10"}
