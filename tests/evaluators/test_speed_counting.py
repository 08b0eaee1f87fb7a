"""Evaluations are counted where they happen: toy networks by hand, systems against the number that their samplers promise."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from baselines.ddpm import CIFAR10_UNET, DDPM, DDPMArchitecture, DDPMSampling, DDPMSystem
from baselines.glow import Glow, GlowArchitecture, GlowSystem
from baselines.igebm import IGEBM, IGEBMArchitecture, IGEBMRecipe, IGEBMSystem
from baselines.load import load_system
from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSampling, NCSNSystem
from baselines.pixelcnn import PixelCNN, PixelCNNArchitecture, PixelCNNSystem
from evaluators.speed.counting import Evaluations, counting
from evaluators.speed.rounds import plan
from evaluators.subjects import SystemUnderTest

torch.set_num_threads(1)


def count(network: nn.Module, work: Any) -> Evaluations:
    with counting({"network": network}) as counter:
        work()
    return counter.evaluations()["network"]


def of_system(system: Any, most: int = 0) -> dict[str, tuple[float, float]]:
    """Forward and backward of every network for one block, counted on the first ``most`` steps if there are more."""
    timed = plan(SystemUnderTest("it", system, system.image_shape, sampling=dict(system.recipe)), most)
    some, none = {}, {}
    for steps, into in ((timed.steps, some), (0, none)):
        with counting(system.networks) as counter:
            timed.draw(0, steps)
        into |= counter.evaluations()
    return {
        name: tuple(
            timed.whole(getattr(none[name], what), getattr(some[name], what)) for what in ("forward", "backward")
        )
        for name in some
    }


# Toys


def test_a_network_is_evaluated_as_often_as_it_is_called() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 2)))
    x = torch.randn(3, 4)
    assert count(network, lambda: [network(x) for _ in range(5)]) == Evaluations(5, 0, 1, (5, 5))


def test_nothing_is_counted_before_and_after() -> None:
    network = nn.Linear(4, 2)
    network(torch.randn(1, 4))
    with counting({"network": network}) as counter:
        network(torch.randn(1, 4))
    network(torch.randn(1, 4))
    assert counter.evaluations()["network"].forward == 1
    assert not network._forward_hooks


def test_gradients_are_counted_where_they_arrive() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)).requires_grad_(False)

    def climb() -> None:
        x = torch.randn(3, 4)
        for _ in range(4):
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad(network(x).sum(), x)
            x = (x - slope).detach()
        network(x)

    assert count(network, climb) == Evaluations(5, 4, 1, (5, 5))


def test_layers_before_any_noise_enters_have_no_gradient_and_do_not_blur_the_count() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.constant, self.out = nn.Linear(4, 4), nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 2)
            self.requires_grad_(False)

        def decode(self, eps: Tensor) -> Tensor:
            return self.out(self.start(self.constant) + eps)

    network, eps = Decoder(), torch.randn(3, 4).requires_grad_()
    found = count(network, lambda: [torch.autograd.grad(network.decode(eps).sum(), eps) for _ in range(3)])
    # Entered by another door than forward; the module that holds only the constant is never called.
    assert found == Evaluations(3, 3, 30 / 34, (3, 3))


def test_parts_that_are_not_used_do_not_count_and_the_share_says_so() -> None:
    network = nn.ModuleDict({"encoder": nn.Linear(9, 9, bias=False), "decoder": nn.Linear(3, 9, bias=False)})
    assert count(network, lambda: network["decoder"](torch.randn(1, 3))) == Evaluations(1, 0, 27 / 108, (1, 1))


def test_parts_called_differently_often_are_weighted_by_their_parameters() -> None:
    network = nn.ModuleDict({"prior": nn.Linear(2, 5, bias=False), "generator": nn.Linear(5, 6, bias=False)})

    def work() -> None:
        for _ in range(60):
            network["prior"](torch.randn(1, 2))
        network["generator"](torch.randn(1, 5))

    assert count(network, work) == Evaluations((10 * 60 + 30 * 1) / 40, 0, 1, (1, 60))


def test_a_shared_layer_stands_once_among_the_parts() -> None:
    shared = nn.Linear(4, 4, bias=False)
    network = nn.Sequential(shared, shared, nn.Linear(4, 8, bias=False))
    assert count(network, lambda: network(torch.randn(1, 4))).forward == (16 * 2 + 32 * 1) / 48


def test_a_parametrised_kernel_belongs_to_its_layer_even_where_it_is_made_once() -> None:
    network = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 1))

    def chain() -> None:
        with parametrize.cached():
            for _ in range(7):
                network(torch.randn(1, 4))

    assert count(network, chain) == Evaluations(7, 0, 1, (7, 7))


def test_weights_used_without_their_module_are_not_counted() -> None:
    network = nn.Linear(4, 4)
    assert count(network, lambda: F.linear(torch.randn(1, 4), network.weight)) == Evaluations(0, 0, 0, (0, 0))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_counted_as_written(in_place: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    if in_place:
        network.compile(backend="eager")
    compiled = network if in_place else torch.compile(network, backend="eager")
    compiled(torch.randn(3, 4))
    assert count(network, lambda: [compiled(torch.randn(3, 4)) for _ in range(3)]) == Evaluations(3, 0, 1, (3, 3))


# Systems


def test_vaebm_evaluates_both_networks_once_per_step_and_decodes_once_more() -> None:
    system = load_system("vaebm", steps=16)
    system.sample_batch = 1
    assert of_system(system) == {"nvae": (17, 16), "energy": (16, 16)}
    assert of_system(system, most=3) == {"nvae": (17, 16), "energy": (16, 16)}


def test_nvae_decodes_once_and_never_encodes() -> None:
    system = load_system("nvae")
    system.sample_batch = 1
    with counting(system.networks) as counter:
        system.sample([0])
    (found,) = counter.evaluations().values()
    assert (found.forward, found.backward, found.calls) == (1, 0, (1, 1))
    assert 0.2 < found.share < 0.9


@pytest.mark.parametrize("denoise", [False, True])
def test_ncsn_makes_ten_times_a_hundred_evaluations(denoise: bool) -> None:
    network = NCSN(NCSNArchitecture((8, 8, 3), 4, 10))
    system = NCSNSystem(network, NCSNSampling(steps_per_level=100, denoise=denoise))
    system.sample_batch = 1
    assert of_system(system, most=4) == {"network": (1000 + denoise, 0)}
    short = NCSNSystem(network, NCSNSampling(steps_per_level=2, denoise=denoise))
    short.sample_batch = 1
    assert of_system(short) == {"network": (20 + denoise, 0)}


def test_ddpm_makes_a_thousand_evaluations() -> None:
    pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
    small = {
        **CIFAR10_UNET,
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    system = DDPMSystem(DDPM(DDPMArchitecture(small)), DDPMSampling(steps=1000))
    system.sample_batch = 1
    assert of_system(system, most=5) == {"network": (1000, 0)}
    system = DDPMSystem(DDPM(DDPMArchitecture(small)), DDPMSampling(steps=20))
    system.sample_batch = 1
    assert of_system(system) == {"network": (20, 0)}


@pytest.mark.parametrize("ensemble", [1, 2])
def test_igebm_evaluates_all_its_states_once_per_step(ensemble: int) -> None:
    network = IGEBM(IGEBMArchitecture((8, 8, 3), 4, (0, 0, 0), ensemble=ensemble))
    system = IGEBMSystem(network, IGEBMRecipe(steps=12))
    system.sample_batch = 2
    assert of_system(system) == of_system(system, most=5) == {"network": (12, 12)}


def test_glow_is_inverted_once() -> None:
    system = GlowSystem(Glow(GlowArchitecture((8, 8, 3), levels=2, steps=2, width=4)))
    system.sample_batch = 2
    assert of_system(system) == {"network": (1, 0)}


def test_pixelcnn_is_called_once_per_row_and_says_what_that_means() -> None:
    system = PixelCNNSystem(PixelCNN(PixelCNNArchitecture((6, 7, 3), filters=8, layers=2, mixtures=3)))
    system.sample_batch = 2
    assert of_system(system) == of_system(system, most=2) == {"network": (6, 0)}
    assert "one row" in system.evaluation_note
