"""The networks held against what the official code computed; the fixtures' README has the recipe of every array."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vaebm.checkpoints import load_official
from vaebm.checkpoints.official_names import official_aliases, official_names
from vaebm.checkpoints.official_settings import PUBLISHED_NVAES, energy_config, energy_name, nvae_config
from vaebm.energy import ENERGIES, EnergyNetwork, data_dependent_init
from vaebm.model import VAEBM
from vaebm.nvae import NVAE
from vaebm.training.regularisers import SpectralRegulariser

BUNDLED = Path(__file__).parent / "fixtures"
ENERGY_OF = {"cifar10": "cifar10", "celeba_64": "celeba64", "lsun_church_64": "lsun64", "celeba_256": "celebahq256"}


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Compare relative to the largest entry, as the fixtures' README states its agreement."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(scope="module", params=["cifar10_tiny", "celeba64_tiny"])
def fixture(request: pytest.FixtureRequest) -> SimpleNamespace:
    name = request.param
    folder = BUNDLED if name == "cifar10_tiny" else request.getfixturevalue("official")
    with np.load(folder / f"{name}_expected.npz") as file:
        expected = {key: torch.from_numpy(file[key]) for key in file.files}
    nvae = load_official(folder / f"{name}_nvae_checkpoint.pt").requires_grad_(False)

    def energy(file: str) -> EnergyNetwork:
        return load_official(folder / f"{name}_{file}.pth").requires_grad_(False)

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


def exported(model: NVAE | EnergyNetwork) -> dict[str, list[int]]:
    """Official names and shapes of everything that an export of ``model`` holds."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    repeated = {theirs: shapes[ours] for theirs, ours in official_aliases(model).items()}
    return {theirs: shapes[ours] for ours, theirs in official_names(model).items()} | repeated


@pytest.mark.parametrize("name", list(ENERGY_OF))
def test_published_nvae_is_described_by_its_arguments_and_exports_every_official_weight(
    manifest: dict, name: str
) -> None:
    facts = manifest[name]
    config = nvae_config(facts["args"], facts["nvae_state_dict"])
    assert config in PUBLISHED_NVAES
    assert [list(shape) for shape in config.latent_shapes] == facts["latent_shapes"]
    with torch.device("meta"):
        nvae = NVAE(config)
    assert sum(parameter.numel() for parameter in nvae.parameters()) == facts["nvae_parameters"]
    assert exported(nvae) == facts["nvae_state_dict"]


@pytest.mark.parametrize("name", list(ENERGY_OF))
def test_published_energy_is_recognised_by_its_weights_and_exports_every_official_one(
    manifest: dict, name: str
) -> None:
    facts = manifest[name]
    config = energy_config(facts["ebm_state_dict"])
    assert config == ENERGIES[ENERGY_OF[name]]
    assert energy_name(config) == ENERGY_OF[name]
    with torch.device("meta"):
        energy = EnergyNetwork(config)
    assert sum(parameter.numel() for parameter in energy.parameters()) == facts["ebm_parameters"]
    assert exported(energy) == facts["ebm_state_dict"]
