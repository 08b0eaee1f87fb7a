"""Chain diagnostics held against closed forms: diffusion, a quadratic energy, and what every column means."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY_ENERGY, ConstantEnergy, lively_nvae, tiny_images, unit_images
from torch import Tensor, nn

from vaebm.diagnostics import QUANTILES, diagnose, plot, strip
from vaebm.energy import EnergyNetwork, data_dependent_init
from vaebm.model import VAEBM, ChainSettings
from vaebm.sampling import to_images
from vaebm.training.batches import from_uint8

SEEDS = range(24)  # a full block and a part of one


class Quadratic(nn.Module):
    """E(x) = c ||x - 1/2||^2."""

    def __init__(self, strength: float = 50.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return self.strength * (x - 0.5).square().flatten(1).sum(1)


def network() -> VAEBM:
    torch.manual_seed(1)
    energy = EnergyNetwork(TINY_ENERGY)
    data_dependent_init(energy, unit_images(16))
    return VAEBM(lively_nvae(), energy).requires_grad_(False)


def test_without_an_energy_the_distances_are_those_of_an_ornstein_uhlenbeck_process() -> None:
    """eps_k - eps_0 = (a^k - 1) eps_0 + noise of variance eta (1 - a^2k) / (1 - a^2), a = 1 - eta / 2, eps_0 ~ N(0, I)."""
    eta, seeds = 0.1, range(64)
    rows = diagnose(VAEBM(lively_nvae(), ConstantEnergy(3.0)), seeds, ChainSettings(6, eta))
    a = 1 - eta / 2
    for k, row in enumerate(rows):
        expected = math.sqrt((1 - a**k) ** 2 + eta * (1 - a ** (2 * k)) / (1 - a**2))
        for name, coordinates in (("moved_eps_x", 3 * 64), ("moved_eps_z", 2 * (4 + 16 + 16))):
            assert row[name] == pytest.approx(expected, rel=4 / math.sqrt(2 * coordinates * len(seeds)))
        assert row["moved_by_diffusion"] == pytest.approx(math.sqrt(eta * k))
        assert (row["energy_mean"], row["energy_sd"], row["energy_q95"]) == (3.0, 0.0, 3.0)
        assert row["acceptance"] is None
    assert rows[1]["moved_eps_z"] == pytest.approx(rows[1]["moved_by_diffusion"], rel=0.05)


def test_a_quadratic_energy_falls_and_pulls_further_than_diffusion() -> None:
    rows = diagnose(VAEBM(lively_nvae(), Quadratic()), SEEDS, ChainSettings(8, 0.02))
    energies = [row["energy_mean"] for row in rows]
    assert energies == sorted(energies, reverse=True)
    assert energies[-1] < 0.9 * energies[0]
    assert rows[-1]["moved_eps_x"] > 1.2 * rows[-1]["moved_by_diffusion"]
    assert rows[-1]["saturated"] < rows[0]["saturated"]  # away from 0 and 1


def test_rows_are_what_their_names_say_of_the_states_of_the_chains() -> None:
    model, chain, data = network(), ChainSettings(3, 0.05, temperature=0.8), tiny_images(20, seed=3)
    rows = diagnose(model, SEEDS, chain, seed=5, reference=data)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    states = list(model.trajectory(SEEDS, chain, seed=5))
    of_data = model.energy(from_uint8(data)).double().numpy()
    grey = [model.decode(state, 0.8)[1].distribution.mean.clamp(0, 1).double() * 255 for state in states]
    rms = lambda difference: float(difference.double().square().mean().sqrt())
    close = lambda value: pytest.approx(value, rel=1e-4, abs=1e-4)
    for k, row in enumerate(rows):
        x, _ = model.decode(states[k], 0.8)
        energy = model.energy(x).double().numpy()
        assert row["energy_mean"] == close(energy.mean())
        assert row["energy_sd"] == close(energy.std(ddof=1))
        for q in QUANTILES:
            assert row[f"energy_q{q:02d}"] == close(np.percentile(energy, q))
            assert row[f"energy_data_q{q:02d}"] == close(np.percentile(of_data, q))
        assert row["energy_data_mean"] == close(of_data.mean())
        assert row["energy_of_mean"] == close(float(model.energy(grey[k].float() / 255).mean()))
        assert row["prior"] == close(sum(float(part.double().square().sum()) for part in states[k]) / 2 / len(SEEDS))
        assert row["moved_eps_x"] == close(rms(states[k][0] - states[0][0]))
        assert row["moved_eps_z"] == close(
            rms(torch.cat([(a - b).flatten() for a, b in zip(states[k][1:], states[0][1:], strict=True)]))
        )
        assert row["image_change"] == close(rms(grey[k] - grey[0]))
        assert row["image_step"] == close(rms(grey[k] - grey[max(0, k - 1)]))
        assert row["saturated"] == close(float(((x <= 0) | (x >= 1)).double().mean()))
    assert 0 < rows[3]["image_step"] < rows[3]["image_change"]
    assert 0 < rows[0]["saturated"] < 1


def test_acceptance_is_the_share_of_chains_that_a_step_moved() -> None:
    model, chain = network(), ChainSettings(5, 0.3, metropolis=True)
    rows = diagnose(model, SEEDS, chain)
    states = list(model.trajectory(SEEDS, chain))
    moved = [float((b[1] != a[1]).flatten(1).any(1).double().mean()) for a, b in itertools.pairwise(states)]
    assert [row["acceptance"] for row in rows] == [None, *moved]
    assert 0.05 < np.mean(moved) < 0.95
    assert all(row["energy_data_mean"] is None for row in rows)


def test_rows_do_not_depend_on_weights_asking_for_gradients_and_repeat() -> None:
    model, chain = network(), ChainSettings(2, 0.05)
    first = diagnose(model, range(3), chain)
    assert diagnose(model.requires_grad_(True), range(3), chain) == first
    assert diagnose(model, range(3), chain, seed=1) != first


def test_no_steps_give_the_one_row_of_the_vaes_own_samples() -> None:
    (row,) = diagnose(network(), range(3), ChainSettings(0))
    assert (row["step"], row["moved_eps_z"], row["image_change"]) == (0, 0.0, 0.0)
    assert row["energy_sd"] > 0


def test_strip_shows_each_chain_from_its_start_to_its_end() -> None:
    model, chain = network(), ChainSettings(7, 0.05)
    images, shown = strip(model, [4, 9], chain, seed=2, columns=3)
    assert shown == [0, 4, 7]
    assert images.shape == (6, 8, 8, 3)
    states = list(model.trajectory([4, 9], chain, seed=2))
    for column, k in enumerate(shown):
        expected = to_images(model.render(states[k]))
        assert np.array_equal(images[[column, 3 + column]], expected)
    assert strip(model, [4], replace(chain, steps=2), columns=9)[1] == [0, 1, 2]


@pytest.mark.parametrize("metropolis", [False, True])
def test_plot_draws_every_quantity(metropolis: bool) -> None:
    rows = diagnose(network(), range(3), ChainSettings(2, 0.1, metropolis=metropolis), reference=tiny_images(4))
    figure = plot(rows, "a title")
    lines = {line.get_label(): line.get_ydata() for axis in figure.axes for line in axis.get_lines()}
    assert np.allclose(lines["eps_z"], [row["moved_eps_z"] for row in rows])
    assert np.allclose(lines["from the start"], [row["image_change"] for row in rows])
    assert np.allclose(lines["data: median, 5 to 95%"], rows[0]["energy_data_q50"])
    assert len(figure.axes[5].get_lines()) == metropolis
    assert figure.get_suptitle() == "a title"
