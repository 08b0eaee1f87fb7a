"""A frozen network is the same function: outputs and gradients with respect to the noise, for every kind of cell."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, noise, unit_images
from torch import Tensor, nn

from vaebm.energy import EnergyNetwork
from vaebm.frozen import Affine, capture, freeze
from vaebm.langevin import langevin, value_and_gradient
from vaebm.model import VAEBM, ChainSettings
from vaebm.nvae.cells import CELLS
from vaebm.nvae.layers import BatchNorm, Conv2d

# Grouped cells need eight channels.
WIDE = replace(TINY_NVAE, channels_enc=8, channels_dec=8)
VANILLA = replace(TINY_NVAE, groups_per_scale=(1,))
CONFIGS = [
    *(pytest.param(replace(WIDE, cells=cells, flows=1), id=cells) for cells in CELLS),
    pytest.param(replace(TINY_NVAE, squeeze_excite=False, preprocess_cells=2, postprocess_cells=2), id="no gates"),
    pytest.param(VANILLA, id="vanilla"),
    pytest.param(replace(TINY_NVAE, likelihood="logistic_mixture"), id="logistic mixture"),
]


def apart(a: Tensor, b: Tensor) -> float:
    """Return ||a - b|| / ||a||."""
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / a.norm())


def lively_energy(contrast_floor: float = 0.0) -> EnergyNetwork:
    torch.manual_seed(1)
    return EnergyNetwork(replace(TINY_ENERGY, contrast_floor=contrast_floor)).eval()


@pytest.mark.parametrize("config", CONFIGS)
def test_decode_and_encode_stay_the_same(config) -> None:
    nvae = lively_nvae(config)
    frozen = freeze(nvae)
    eps, x = noise(nvae, 3), unit_images(3)
    before, after = nvae.decode(eps, 0.9), frozen.decode(eps, 0.9)
    assert apart(before.params, after.params) < 1e-5
    assert apart(before.log_pz, after.log_pz) < 1e-5
    before_enc, after_enc = nvae.encode(x, eps), frozen.encode(x, eps)
    for name in ("params", "log_q", "log_p", "kl_per_group"):
        assert apart(getattr(before_enc, name), getattr(after_enc, name)) < 1e-5, name
    assert frozen.config == nvae.config
    for old, new in zip(nvae.elbo(x, eps), frozen.elbo(x, eps), strict=True):
        assert apart(old, new) < 1e-5


@pytest.mark.parametrize("cells", CELLS)
def test_gradients_with_respect_to_the_noise_stay_the_same(cells: str) -> None:
    model = VAEBM(lively_nvae(replace(WIDE, cells=cells)), lively_energy())
    start = [unit_images(2), *noise(model.nvae, 2)]
    value, gradient = value_and_gradient(model.potential(), start)
    frozen_value, frozen_gradient = value_and_gradient(freeze(model).potential(), start)
    assert apart(value, frozen_value) < 1e-5
    for old, new in zip(gradient, frozen_gradient, strict=True):
        assert apart(old, new) < 1e-4


@pytest.mark.parametrize("contrast_floor", [0.0, 0.1])
def test_the_energy_stays_the_same(contrast_floor: float) -> None:
    energy = lively_energy(contrast_floor)
    x = unit_images(4)
    assert apart(energy(x), freeze(energy)(x)) < 1e-5


@pytest.mark.parametrize("cells", CELLS)
def test_nothing_is_left_to_normalise(cells: str) -> None:
    config = replace(WIDE, cells=cells, flows=1)
    frozen = freeze(VAEBM(lively_nvae(config), lively_energy()))
    assert not [module for module in frozen.modules() if isinstance(module, Conv2d | BatchNorm)]
    # What remains of BatchNorm stands at the beginning of a branch, before its activation: one per residual cell of such primitives.
    per_cell = [module.branch[0] for module in frozen.modules() if hasattr(module, "branch")]
    left = sum(isinstance(getattr(first, "bn", None), Affine) for first in per_cell)
    assert sum(isinstance(module, Affine) for module in frozen.modules()) == left


def test_the_copy_is_frozen_and_the_original_is_not_touched() -> None:
    model = VAEBM(lively_nvae(replace(TINY_NVAE, flows=1)), lively_energy()).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = freeze(model)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for kernel in (parameter for parameter in frozen.parameters() if parameter.dim() == 4):
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in frozen.parameters():
            parameter.zero_()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_features_are_channels_last_from_the_first_convolution_on() -> None:
    frozen = freeze(lively_nvae(WIDE))
    outputs: list[Tensor] = []
    for module in frozen.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    frozen.decode(noise(frozen, 2))
    assert len(outputs) > 10
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in outputs)


def test_a_frozen_model_samples_what_the_original_samples() -> None:
    model = VAEBM(lively_nvae(), lively_energy())
    chain = ChainSettings(steps=3, step_size=1e-3)
    assert apart(model.sample([3, 4], chain), freeze(model).sample([3, 4], chain)) < 1e-4


def test_other_modules_are_copied() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    x = torch.randn(2, 3, 2, 2)
    frozen = freeze(other)
    assert torch.equal(frozen(x), other(x))
    assert frozen[1].weight is not other[1].weight


def test_without_a_gpu_nothing_is_captured() -> None:
    potential = VAEBM(lively_nvae(), lively_energy()).potential()
    assert capture(potential, [unit_images(2), *noise(lively_nvae(), 2)]) is potential


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_chain_is_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = VAEBM(lively_nvae(), lively_energy()).cuda()
    start = [part.cuda() for part in (unit_images(2), *noise(model.nvae, 2))]
    eager = freeze(model).potential()
    captured = capture(eager, start)
    assert captured is not eager

    def draws(k: int) -> Sequence[Tensor]:
        return [part.cuda() for part in (unit_images(2, seed=k), *noise(model.nvae, 2, seed=k))]

    chains = [langevin(way, start, steps=3, step_size=1e-3, noise=draws) for way in (eager, captured)]
    assert all(apart(a, b) < 1e-5 for a, b in zip(*chains, strict=True))
    # What a call returns is not overwritten by the next one.
    first, first_gradient = value_and_gradient(captured, start)
    kept = [first.clone(), *(part.clone() for part in first_gradient)]
    value_and_gradient(captured, draws(9))
    assert all(torch.equal(a, b) for a, b in zip(kept, [first, *first_gradient], strict=True))
