"""Chains that are stopped early, for timing, and chains of another length: NCSN, NCSNv2, DDPM, PixelCNN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from baselines.ddpm import CIFAR10_UNET, DDPM, DDPMArchitecture, DDPMSampling, DDPMSystem
from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSampling, NCSNSystem
from baselines.ncsnv2 import NCSNv2, NCSNv2Architecture, NCSNv2Sampling, NCSNv2System
from baselines.pixelcnn import PixelCNN, PixelCNNArchitecture, PixelCNNSystem
from evaluators.protocols import LongSampler, StepSampler
from vaebm.errors import UserError
from vaebm.noise import normal, uniform
from vaebm.training.batches import to_uint8

torch.set_num_threads(1)

SHAPE = (8, 8, 3)
SEEDS = (3, 1, 2)
UNET = {
    **CIFAR10_UNET,
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
T = 12


def build(name: str, **recipe: Any) -> Any:
    torch.manual_seed(0)
    if name == "ncsn":
        small = NCSNSampling(step_lr=1e-4, steps_per_level=2)
        system: Any = NCSNSystem(NCSN(NCSNArchitecture(SHAPE, 4, 3)), replace(small, **recipe))
    elif name == "ncsnv2":
        short = NCSNv2Sampling(step_lr=1e-5, steps_per_level=2)
        system = NCSNv2System(NCSNv2(NCSNv2Architecture(SHAPE, 4, 3, 5.0)), replace(short, **recipe))
    elif name == "ddpm":
        pytest.importorskip("diffusers", reason="the network of DDPM is that of the optional package diffusers")
        network = DDPM(DDPMArchitecture(UNET, T, 0.01, 0.3))
        system = DDPMSystem(network, replace(DDPMSampling(steps=T, vlb_steps=5), **recipe))
    else:
        system = PixelCNNSystem(PixelCNN(PixelCNNArchitecture((6, 7, 3), filters=8, layers=2, mixtures=3)))
    system.sample_batch = 4
    return system


TOTAL = {"ncsn": 6, "ncsnv2": 7, "ddpm": T, "pixelcnn": 6}  # NCSNv2 denoises at its end


@pytest.fixture(params=list(TOTAL))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_all_steps_make_the_image(name: str) -> None:
    system = build(name)
    assert isinstance(system, LongSampler)
    assert system.total_steps == TOTAL[name]
    whole = system.sample(SEEDS)
    assert np.array_equal(system.sample_part(SEEDS, system.total_steps), whole)
    assert not np.array_equal(system.sample_part(SEEDS, system.total_steps - 1), whole)


def test_every_step_is_one_evaluation_and_no_step_is_none(name: str) -> None:
    system, calls = build(name), []
    first = system.network.vertical if name == "pixelcnn" else system.network
    first.register_forward_hook(lambda *_: calls.append(1))
    for steps in range(system.total_steps + 1):
        calls.clear()
        system.sample_part(SEEDS, steps)
        assert len(calls) == steps


def test_no_steps_show_the_start(name: str) -> None:
    system = build(name)
    height, width, channels = system.image_shape
    shape = (channels, height, width)
    if name == "pixelcnn":
        expected = np.full((3, *system.image_shape), 128)
    elif name == "ddpm":
        expected = to_uint8((normal(0, SEEDS, "x_T", shape) + 1) / 2)
    else:
        expected = to_uint8(uniform(0, SEEDS, "x_0", shape))
    assert np.array_equal(system.sample_part(SEEDS, 0), expected)


def test_rows_are_drawn_from_the_top() -> None:
    system = build("pixelcnn")
    part, whole = system.sample_part(SEEDS, 4), system.sample(SEEDS)
    assert np.array_equal(part[:, :4], whole[:, :4])
    assert (part[:, 4:] == 128).all()


def test_a_part_does_not_depend_on_the_other_seeds(name: str) -> None:
    system = build(name)
    assert np.array_equal(system.sample_part(SEEDS, 3)[1:2], system.sample_part([SEEDS[1]], 3))


@pytest.mark.parametrize("kind", ["ncsn", "ncsnv2"])
def test_a_ladder_of_score_chains_spreads_its_steps_over_all_levels(kind: str) -> None:
    system = build(kind)
    last = int(system.settings.denoise)
    assert last == (kind == "ncsnv2")
    assert isinstance(system, StepSampler)
    found = system.sample_steps(SEEDS, [9 + last, last, 3 + last, 6 + last])
    assert list(found) == [last, 3 + last, 6 + last, 9 + last]
    for each in (1, 2, 3):
        own = build(kind, steps_per_level=each)
        assert np.array_equal(found[own.total_steps], own.sample(SEEDS))
    for steps in (4 + last, -3 + last):
        with pytest.raises(
            UserError, match=f"{kind}: a chain of {steps} steps, needed a multiple of its 3 noise levels"
        ):
            system.sample_steps(SEEDS, [3 + last, steps])


@pytest.mark.parametrize("kind", ["ncsn", "ncsnv2"])
def test_the_nearest_number_of_steps_can_be_had(kind: str) -> None:
    system = build(kind)
    assert system.nearest_steps(system.total_steps) == system.total_steps
    found = [system.nearest_steps(steps) for steps in range(20)]
    assert found == sorted(found)
    system.sample_steps(SEEDS, sorted(set(found)))
    assert all(abs(near - steps) <= 2 for steps, near in enumerate(found) if steps > 3)


def test_a_ladder_of_reverse_chains_takes_evenly_spaced_times() -> None:
    system = build("ddpm")
    assert isinstance(system, StepSampler)
    found = system.sample_steps(SEEDS, [T, 1, 5])
    assert list(found) == [1, 5, T]
    for steps in found:
        assert np.array_equal(found[steps], build("ddpm", steps=steps).sample(SEEDS))
    for steps in (0, T + 1):
        with pytest.raises(UserError, match=f"ddpm: a chain of {steps} steps, needed 1 to {T}"):
            system.sample_steps(SEEDS, [1, steps])
