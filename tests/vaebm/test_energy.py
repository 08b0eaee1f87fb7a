"""Energy networks: published sizes, the formula, the spectral regulariser and the data-dependent initialisation."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY_ENERGY, unit_images
from torch import Tensor

from vaebm.energy import ENERGIES, EnergyConfig, EnergyNetwork, data_dependent_init, swish

PUBLISHED = {
    "cifar10": (5_137_921, 16),
    "celeba64": (4_337_537, 22),
    "lsun64": (5_813_633, 26),
    "celebahq256": (14_207_105, 31),
    "mnist": (679_553, 11),
}


def tiny_energy(config: EnergyConfig = TINY_ENERGY, seed: int = 0) -> EnergyNetwork:
    torch.manual_seed(seed)
    return EnergyNetwork(config)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_networks_have_their_published_size(name: str) -> None:
    with torch.device("meta"):
        energy = EnergyNetwork(ENERGIES[name])
    assert (sum(p.numel() for p in energy.parameters()), len(energy.convolutions())) == PUBLISHED[name]


def test_default_config_is_the_published_cifar10_network() -> None:
    assert EnergyConfig() == ENERGIES["cifar10"]


def by_hand(energy: EnergyNetwork, x: Tensor) -> Tensor:
    """The network again, in plain tensor operations from its state dict."""
    weights = energy.state_dict()

    def conv(name: str, h: Tensor) -> Tensor:
        v, g = weights[f"{name}.weight"], weights[f"{name}.log_weight_norm"]
        kernel = g.exp() * v / (v.pow(2).sum((1, 2, 3), keepdim=True).sqrt() + 1e-5)
        return F.conv2d(h, kernel, weights.get(f"{name}.bias"), padding=v.shape[-1] // 2)

    act = lambda h: h * torch.sigmoid(h) / 1.1
    h = act(conv("conv1", x))
    for i, (_, halve) in enumerate(energy.config.blocks):
        skip = conv(f"blocks.{i}.skip", h) if f"blocks.{i}.skip.weight" in weights else h
        h = skip + conv(f"blocks.{i}.conv2", act(conv(f"blocks.{i}.conv1", h)))
        if halve:
            h = h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
        h = act(h)
    return h.sum((2, 3)) @ weights["linear.weight"][0] + weights["linear.bias"]


@torch.no_grad()
def test_energy_is_what_its_formula_says() -> None:
    energy, x = tiny_energy(), unit_images(3)
    data_dependent_init(energy, unit_images(16, seed=1))
    found = energy(x)
    assert found.shape == (3,)
    torch.testing.assert_close(found, by_hand(energy, x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(energy(x[1:2]), found[1:2], rtol=1e-4, atol=1e-4)


@given(a=st.floats(-50, 50), b=st.floats(-50, 50))
def test_activation_is_one_lipschitz(a: float, b: float) -> None:
    pair = torch.tensor([a, b], dtype=torch.float64)
    first, second = swish(pair).tolist()
    assert abs(first - second) <= abs(a - b) + 1e-12


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=6), st.integers(1, 256), st.sampled_from([1, 3]))
def test_config_survives_json(blocks: list[tuple[int, bool]], channels: int, image_channels: int) -> None:
    config = EnergyConfig(image_channels, channels, tuple(blocks))
    assert EnergyConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_config_names_an_unknown_key() -> None:
    with pytest.raises(ValueError, match="chanels"):
        EnergyConfig.from_json({"chanels": 3})


def test_gradients_reach_every_parameter() -> None:
    energy = tiny_energy()
    energy(unit_images(4)).square().sum().backward()
    assert [name for name, p in energy.named_parameters() if not p.grad.abs().max() > 0] == []


# The contrast floor


def test_a_contrast_floor_shows_the_network_the_standardised_image() -> None:
    torch.manual_seed(0)
    seeing, plain = EnergyNetwork(replace(TINY_ENERGY, contrast_floor=0.1)), EnergyNetwork(TINY_ENERGY)
    plain.load_state_dict(seeing.state_dict())
    x = unit_images(5)
    deviation, mean = x.flatten(1).std(1).view(-1, 1, 1, 1), x.flatten(1).mean(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(seeing(x), plain((x - mean) / (deviation + 0.1)))


def test_brightness_never_matters_behind_a_contrast_floor_and_contrast_hardly() -> None:
    torch.manual_seed(0)
    energy = EnergyNetwork(replace(TINY_ENERGY, contrast_floor=1e-6))
    x = unit_images(5)
    torch.testing.assert_close(energy(0.5 * x + 0.2), energy(x), rtol=1e-3, atol=1e-3)


# Data-dependent initialisation


def outputs(energy: EnergyNetwork, x: Tensor) -> dict[str, Tensor]:
    """Run the network and collect what every convolution gives."""
    found: dict[str, Tensor] = {}
    names = {module: name for name, module in energy.named_modules()}
    hooks = [
        c.register_forward_hook(lambda m, _, out: found.__setitem__(names[m], out.detach()))
        for c in energy.convolutions()
    ]
    energy(x)
    for hook in hooks:
        hook.remove()
    return found


def test_init_gives_every_convolution_mean_0_and_standard_deviation_one_fifth() -> None:
    energy, x = tiny_energy(), unit_images(64)
    assert any(abs(out.std((0, 2, 3)).mean() - 0.2) > 0.02 for out in outputs(energy, x).values())
    energies = data_dependent_init(energy, x)
    torch.testing.assert_close(energies, energy(x).detach())
    for name, out in outputs(energy, x).items():
        assert out.std((0, 2, 3)).tolist() == pytest.approx([0.2] * out.shape[1], rel=1e-3), name
        if not name.endswith("skip"):  # no bias
            assert out.mean((0, 2, 3)).abs().max() < 1e-5, name


def test_init_leaves_no_hook_behind_even_when_the_pass_fails() -> None:
    energy = tiny_energy()
    with pytest.raises(RuntimeError):
        data_dependent_init(energy, torch.rand(2, 5, 8, 8))
    before = {name: value.clone() for name, value in energy.state_dict().items()}
    energy(unit_images(4))
    assert all(torch.equal(value, before[name]) for name, value in energy.state_dict().items())
