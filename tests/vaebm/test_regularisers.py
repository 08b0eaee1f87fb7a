"""Regularisers: against exact singular values of every kernel, causal ones included, against gains, and their annealing."""

import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae
from torch import Tensor, nn

from vaebm.energy import EnergyNetwork
from vaebm.nvae import NVAEConfig
from vaebm.nvae.layers import Conv2d
from vaebm.training.regularisers import SpectralRegulariser, annealed, batch_norm_gains

WITH_FLOWS = NVAEConfig(**{**TINY_NVAE.to_json(), "flows": 1})


def tiny_energy(seed: int = 0) -> EnergyNetwork:
    torch.manual_seed(seed)
    return EnergyNetwork(TINY_ENERGY)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def exact_sum(module: nn.Module) -> Tensor:
    kernels = []
    for conv in convolutions(module):
        assert isinstance(conv, Conv2d)
        kernels.append(conv.effective_weight().flatten(1))
    return torch.stack([torch.linalg.svdvals(kernel)[0] for kernel in kernels]).sum()


@pytest.mark.parametrize("make", [tiny_energy, lambda: lively_nvae(WITH_FLOWS)], ids=["energy", "nvae with flows"])
def test_regulariser_converges_to_the_exact_sum_and_to_its_gradient(make) -> None:
    module = make()
    regulariser = SpectralRegulariser(module, iterations=1, first_iterations=3000)
    found, exact = regulariser(), exact_sum(module)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)
    parameters = [p for conv in convolutions(module) for p in (conv.weight, conv.log_weight_norm) if p is not None]
    for ours, reference in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(exact, parameters), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=2e-2, atol=1e-2)
        assert ours.isfinite().all()


def test_nothing_that_a_causal_mask_hides_is_regularised() -> None:
    nvae = lively_nvae(WITH_FLOWS)
    conv = nvae.nf_cells[0][0].cell1.expand
    gradient = torch.autograd.grad(SpectralRegulariser(nvae)(), conv.weight)[0]
    assert (gradient[conv.mask == 0] == 0).all()
    assert gradient.abs().max() > 0


def test_regulariser_never_exceeds_the_exact_sum_and_improves_with_every_call() -> None:
    energy = tiny_energy()
    regulariser = SpectralRegulariser(energy, iterations=1, first_iterations=0)
    values = [regulariser().item() for _ in range(8)]
    assert values == pytest.approx(sorted(values), rel=1e-6)
    assert values[0] < values[-1] <= exact_sum(energy).item() * (1 + 1e-6)


def test_iterations_per_call_and_at_first_take_effect() -> None:
    energy = tiny_energy()
    values = {}
    for iterations, first in ((1, 0), (6, 0), (1, 5)):
        torch.manual_seed(1)
        values[iterations, first] = SpectralRegulariser(energy, iterations, first)().item()
    assert values[1, 0] < values[6, 0]
    assert values[1, 5] == pytest.approx(values[6, 0], rel=1e-6)


def test_regulariser_resumes_from_its_saved_vectors_and_owns_no_parameters() -> None:
    energy = tiny_energy()
    first = SpectralRegulariser(energy, iterations=1, first_iterations=1)
    first()
    second = SpectralRegulariser(energy, iterations=1, first_iterations=0)
    second.load_state_dict(first.state_dict())
    assert second().item() == first().item()
    assert list(first.parameters()) == []
    assert sum(len(v) for v in first.state_dict().values()) == len(energy.convolutions())


def test_batch_norm_gains_are_the_largest_of_each_layer() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(3)), nn.Conv2d(1, 1, 1))
    module[0].weight.data = torch.tensor([0.5, -2.0])
    module[1][0].weight.data = torch.tensor([0.1, 0.3, 0.2])
    total = batch_norm_gains(module)
    assert total.item() == pytest.approx(2.3)
    total.backward()
    assert module[0].weight.grad.tolist() == [0.0, -1.0]
    assert batch_norm_gains(nn.Conv2d(1, 1, 1)).item() == 0


def test_annealing_is_a_line_in_the_logarithm() -> None:
    assert [annealed(10.0, 0.1, beta) for beta in (0, 0.5, 1)] == pytest.approx([10, 1, 0.1])
    assert annealed(0.0, 0.1, 0.2) == 0.1
    assert annealed(10.0, 0.0, 0.2) == 0.0
