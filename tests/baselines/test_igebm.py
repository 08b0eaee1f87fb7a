"""IGEBM: chains reach known moments, kernels have spectral norm 1, scores and samples depend on their image alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from baselines.igebm import IGEBM, IGEBMArchitecture, IGEBMSystem, LangevinRecipe, langevin, run_chains
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError

torch.set_num_threads(1)

SHORT = LangevinRecipe(steps=3)


def tiny() -> IGEBM:
    torch.manual_seed(0)
    energy = IGEBM(IGEBMArchitecture((8, 8, 3), width=4))
    with torch.no_grad():
        energy.last.weight.mul_(50)  # energies far enough apart for a test to tell
    return energy.eval()


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def save(energy: IGEBM, path, **options):
    architecture = {"image_shape": [8, 8, 3], "width": 4}
    sampling = {"steps": 3, "step_size": 10.0, "noise_scale": 0.005, "gradient_clip": 0.01}
    card = {"kind": "igebm", "size": "mini", "dataset": "cifar10", "architecture": architecture, "sampling": sampling}
    save_checkpoint(path, energy.state_dict(), card, **options)
    return load_checkpoint(path)


def quadratic(x):
    """Precision 4, mean 1: the density is N(1, 1/4)."""
    return 2 * (x - 1).square().sum(dim=1)


def test_langevin_has_the_moments_of_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    step_size, precision, n = 0.05, 4.0, 20_000
    x = langevin(
        quadratic,
        torch.zeros(n, 2),
        lambda _: torch.randn(n, 2, generator=generator),
        steps=100,
        step_size=step_size,
        noise_scale=math.sqrt(2 * step_size),
    )
    # The discrete chain is an AR(1) process: its variance is exact in the step size, and tends to 1 / precision as
    # that tends to 0.
    variance = 1 / (precision * (1 - step_size * precision / 2))
    standard_error = math.sqrt(variance / (2 * n))
    assert abs(x.mean() - 1) < 5 * standard_error
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / (2 * n))


def test_langevin_takes_its_steps():
    x = langevin(quadratic, torch.zeros(1, 1), lambda _: torch.zeros(1, 1), steps=7, step_size=0.1, noise_scale=1.0)
    assert x.item() == pytest.approx(1 - 0.6**7)
    start = torch.zeros(1, 1)
    assert langevin(quadratic, start, lambda _: torch.ones(1, 1), steps=0, step_size=0.1, noise_scale=1.0).item() == 0


def test_gradient_clip_and_bounds_take_effect():
    def run(**limits):
        return langevin(
            quadratic, torch.zeros(1, 1), lambda _: torch.zeros(1, 1), steps=5, step_size=0.1, noise_scale=1.0, **limits
        ).item()

    assert run(gradient_clip=0.5) == pytest.approx(5 * 0.1 * 0.5)
    assert run(bounds=(0.0, 0.3)) == pytest.approx(0.3)
    assert run() == pytest.approx(1 - 0.6**5)


def test_noise_is_asked_for_step_by_step():
    asked = []

    def noise(k):
        asked.append(k)
        return torch.ones(1, 1)

    x = langevin(lambda x: 0 * x.sum(dim=1), torch.zeros(1, 1), noise, steps=4, step_size=1.0, noise_scale=0.25)
    assert asked == [0, 1, 2, 3]
    assert x.item() == pytest.approx(1.0)


def test_chains_lower_the_energy_and_stay_images():
    energy, x = tiny(), torch.rand(8, 3, 8, 8)
    after = run_chains(energy, x, lambda _: torch.randn(x.shape), LangevinRecipe(steps=30))
    assert 0 <= after.min() <= after.max() <= 1
    assert not after.requires_grad
    with torch.no_grad():
        assert (energy(after) < energy(x)).all()
    assert all(parameter.grad is None for parameter in energy.parameters())


def test_spectral_norm_of_every_kernel_is_one():
    energy = tiny().train()
    with torch.no_grad():
        for parameter in energy.blocks.parameters():
            parameter.mul_(3)
        for _ in range(100):
            energy(torch.rand(1, 3, 8, 8))
    energy.eval()
    kernels = [module.weight for module in energy.modules() if isinstance(module, nn.Conv2d)]
    assert len(kernels) == 11
    for kernel in kernels:
        assert torch.linalg.matrix_norm(kernel.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_evaluation_changes_nothing():
    energy = tiny()
    before = {name: value.clone() for name, value in energy.state_dict().items()}
    system = IGEBMSystem(energy, SHORT)
    first = system.score(pictures())
    system.sample([1, 2])
    assert np.array_equal(system.score(pictures()), first)
    assert any(name.endswith("_u") for name in before)
    assert all(torch.equal(value, before[name]) for name, value in energy.state_dict().items())


def test_score_depends_on_the_image_alone():
    images, system = pictures(), IGEBMSystem(tiny(), SHORT)
    scores = system.score(images)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    assert scores.std() > 1e-3
    np.testing.assert_allclose(IGEBMSystem(tiny(), SHORT, batch_size=1).score(images), scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        IGEBMSystem(tiny(), SHORT, batch_size=4).score(images[::-1]), scores[::-1], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_score_is_minus_the_energy_of_bytes_over_255():
    images = pictures(2)
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(IGEBMSystem(tiny(), SHORT).score(images), -tiny()(x).numpy(), rtol=1e-6)


def test_sample_depends_on_its_seed_alone():
    system = IGEBMSystem(tiny(), SHORT)
    images = system.sample([3, 4, 5])
    assert images.dtype == np.uint8
    assert images.shape == (3, 8, 8, 3)
    alone = IGEBMSystem(tiny(), SHORT, batch_size=1).sample([5, 4, 3])[::-1]
    assert np.abs(images.astype(int) - alone).max() <= 1
    assert not np.array_equal(images[0], images[1])
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_checkpoint_round_trip(tmp_path):
    energy, images = tiny(), pictures()
    expected = IGEBMSystem(energy, SHORT).score(images)
    system = IGEBMSystem.from_checkpoint(save(energy, tmp_path / "a.safetensors"))
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-6)
    half = IGEBMSystem.from_checkpoint(save(energy, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(images), expected, rtol=1e-2, atol=1e-2)
    assert half.fingerprint != system.fingerprint


@pytest.mark.parametrize(
    ("option", "value"), [("steps", 9), ("step_size", 30.0), ("noise_scale", 0.05), ("gradient_clip", 0.1)]
)
def test_every_option_takes_effect(tmp_path, option, value):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    published, other = (
        IGEBMSystem.from_checkpoint(checkpoint),
        IGEBMSystem.from_checkpoint(checkpoint, **{option: value}),
    )
    assert not np.array_equal(published.sample([1]), other.sample([1]))
    assert published.recipe != other.recipe
    assert published.fingerprint == other.fingerprint, "a chain decides no score"


def test_mistakes_are_named(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'step'.*steps"):
        IGEBMSystem.from_checkpoint(checkpoint, step=3)
    with pytest.raises(UserError, match="must be positive"):
        IGEBMSystem.from_checkpoint(checkpoint, step_size=0.0)
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        IGEBMSystem(tiny(), SHORT).score(np.zeros((2, 8, 8, 3), dtype=np.float32))
    with pytest.raises(UserError, match="divisible by 8"):
        IGEBMArchitecture((12, 12, 3))
