"""The networks held against what the official code computed; the fixtures' README has the recipe of every array."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_names import OFFICIAL_ENERGIES, energy_name, energy_weights, nvae_config, nvae_names, nvae_weights
from torch import Tensor

from vaebm.energy import EnergyConfig, EnergyNetwork, SpectralRegulariser, data_dependent_init
from vaebm.model import VAEBM
from vaebm.nvae import NVAE

ENERGY_CLASS = {"cifar10_tiny": "EBM_CIFAR32", "celeba64_tiny": "EBM_CelebA64"}
IMAGE_SIZE = {"cifar10": 32, "celeba_64": 64, "lsun_church_64": 64, "celeba_256": 256}


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest entry, as the fixtures' README states its agreement."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(scope="module", params=sorted(ENERGY_CLASS))
def fixture(request: pytest.FixtureRequest, official: Path) -> SimpleNamespace:
    name = request.param
    with torch.serialization.safe_globals([argparse.Namespace]):
        saved = torch.load(official / f"{name}_nvae_checkpoint.pt", weights_only=True)
    with np.load(official / f"{name}_expected.npz") as file:
        expected = {key: torch.from_numpy(file[key]) for key in file.files}
    nvae = NVAE(nvae_config(vars(saved["args"]), expected["x"].shape[-1])).eval().requires_grad_(False)
    nvae.load_state_dict(nvae_weights(saved["state_dict"], nvae.config.flows))
    config = EnergyConfig(channels=8, blocks=OFFICIAL_ENERGIES[ENERGY_CLASS[name]].blocks)

    def energy(file: str) -> EnergyNetwork:
        net = EnergyNetwork(config)
        net.load_state_dict(energy_weights(official / f"{name}_{file}.pth"))
        return net.requires_grad_(False)

    groups = range(len(nvae.latent_shapes))
    per_group = lambda prefix: [expected[f"{prefix}_{i}"] for i in groups]
    return SimpleNamespace(nvae=nvae, energy=energy, expected=expected, per_group=per_group)


@pytest.mark.parametrize(("temperature", "suffix"), [(1.0, ""), (0.7, "_t07")])
def test_sampling_agrees(fixture: SimpleNamespace, temperature: float, suffix: str) -> None:
    drawn = fixture.nvae.decode(fixture.per_group("sample_eps_z"), temperature)
    assert_close(drawn.params, fixture.expected[f"sample_logits{suffix}"])
    assert_close(drawn.log_pz, fixture.expected[f"sample_log_pz{suffix}"])
    if not suffix:
        for found, expected in zip(drawn.z, fixture.per_group("sample_z"), strict=True):
            assert_close(found, expected)


def test_posterior_with_flows_kl_and_reconstruction_agree(fixture: SimpleNamespace) -> None:
    x = fixture.expected["x"]
    out = fixture.nvae.encode(x, fixture.per_group("posterior_eps"))
    assert_close(out.params, fixture.expected["recon_logits"])
    assert_close(out.log_q, fixture.expected["log_q"])
    assert_close(out.log_p, fixture.expected["log_p"])
    assert_close(out.kl_per_group, fixture.expected["kl_per_group"])
    assert_close(out.distribution.log_prob(x), fixture.expected["recon_log_prob"])


def test_energies_agree(fixture: SimpleNamespace) -> None:
    assert_close(fixture.energy("ebm")(fixture.expected["x"]), fixture.expected["energy_x"].flatten())


def test_data_dependent_init_agrees(fixture: SimpleNamespace) -> None:
    before = fixture.energy("ebm_before_data_init")
    energies = data_dependent_init(before, fixture.expected["ebm_init_batch_seeded"])
    assert_close(energies, fixture.expected["ebm_init_energy"].flatten())
    assert_close(before(fixture.expected["ebm_init_batch_seeded"]), energies)


def test_sum_of_spectral_norms_agrees(fixture: SimpleNamespace) -> None:
    torch.manual_seed(0)
    regulariser = SpectralRegulariser(fixture.energy("ebm"), first_iterations=400)
    assert_close(regulariser(), fixture.expected["ebm_sum_of_spectral_norms"].float())


def test_last_langevin_state_decodes_to_the_recorded_images(fixture: SimpleNamespace) -> None:
    """The recorded chain runs away (energies reach 1e11): a few pixels carry huge latents' rounding."""
    eps = [fixture.expected["langevin_final_eps_x"], *fixture.per_group("langevin_final_eps_z")]
    x, decoded = VAEBM(fixture.nvae, fixture.energy("ebm")).decode(eps)
    for found, name in ((decoded.distribution.dist.mu, "langevin_final_mean"), (x, "langevin_final_sample")):
        error = (found - fixture.expected[name]).abs() / fixture.expected[name].abs().max()
        assert error.flatten().quantile(0.999) < 1e-4
        assert error.max() < 5e-3


def test_langevin_starts_from_the_recorded_prior_density(fixture: SimpleNamespace) -> None:
    """Only this term can be replayed: ``langevin_eps_x_0`` holds the final eps_x, the chain cannot be run back."""
    log_pz = fixture.nvae.decode(fixture.per_group("sample_eps_z")).log_pz
    assert_close(log_pz, fixture.expected["langevin_terms"][0, 1])


@pytest.fixture(scope="module")
def manifest(official: Path) -> dict:
    return json.loads((official / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["cifar10", "celeba_64", "celeba_256"])  # lsun_church_64 has celeba_64's NVAE
def test_published_nvae_has_every_official_weight_and_no_other(manifest: dict, name: str) -> None:
    facts = manifest[name]
    with torch.device("meta"):
        nvae = NVAE(nvae_config(facts["args"], IMAGE_SIZE[name]))
    assert [list(shape) for shape in nvae.latent_shapes] == facts["latent_shapes"]
    assert sum(parameter.numel() for parameter in nvae.parameters()) == facts["nvae_parameters"]
    state = facts["nvae_state_dict"]
    ours = {ours: state[theirs] for theirs, ours in nvae_names(state, facts["args"]["num_nf"]).items()}
    assert ours == {key: list(value.shape) for key, value in nvae.state_dict().items()}


@pytest.mark.parametrize("name", list(IMAGE_SIZE))
def test_published_energy_has_every_official_weight_and_no_other(manifest: dict, name: str) -> None:
    facts = manifest[name]
    with torch.device("meta"):
        energy = EnergyNetwork(OFFICIAL_ENERGIES[facts["ebm_class"]])
    assert sum(parameter.numel() for parameter in energy.parameters()) == facts["ebm_parameters"]
    theirs = {energy_name(key): shape for key, shape in facts["ebm_state_dict"].items()}
    assert theirs == {key: list(value.shape) for key, value in energy.state_dict().items()}
