"""The selection rule: a Frechet distance, a ladder of steps, and nothing but held-out images."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from tiny import TINY_ENERGY, lively_nvae, tiny_images

from vaebm.energy import EnergyNetwork
from vaebm.model import VAEBM, ChainSettings
from vaebm.training.selection import Candidate, choose_steps, frechet_distance, reduce_images, write_selection


def test_distance_of_a_set_to_itself_is_zero_and_a_shift_costs_its_square() -> None:
    a = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.array([1, 0, 2, 0])) == pytest.approx(5)


def test_distance_agrees_with_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s_a @ s_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_images_are_reduced_to_block_means() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert reduce_images(x)[0, 0] == pytest.approx(x[0, 0, :2, :2].mean().item())
    assert reduce_images(x).shape == (1, 16)


@pytest.fixture(scope="module")
def model() -> VAEBM:
    torch.manual_seed(0)
    return VAEBM(lively_nvae(), EnergyNetwork(TINY_ENERGY)).eval().requires_grad_(False)


def test_the_rule_takes_the_rung_with_the_smallest_distance(model: VAEBM) -> None:
    steps, found = choose_steps(model, tiny_images(80), ChainSettings(9, 1e-2), n=64, ladder=(0, 1, 3), batch_size=40)
    assert [candidate.steps for candidate in found] == [0, 1, 3]
    assert steps == min(found, key=lambda candidate: candidate.distance).steps


def test_a_rung_is_the_chain_of_that_many_steps(model: VAEBM) -> None:
    held_out = tiny_images(80)
    _, together = choose_steps(model, held_out, ChainSettings(1, 1e-2), n=64, ladder=(0, 2, 4), batch_size=64)
    _, alone = choose_steps(model, held_out, ChainSettings(1, 1e-2), n=64, ladder=(2,), batch_size=64)
    assert together[1] == alone[0]


def test_samples_that_are_the_held_out_images_win(model: VAEBM) -> None:
    chain = ChainSettings(3, 5e-2)
    images = model.sample(range(64), chain).clamp(0, 1)
    held_out = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    steps, found = choose_steps(model, held_out, chain, n=64, ladder=(0, 3, 30), batch_size=64)
    assert steps == 3
    assert found[1].distance < 0.01 * found[0].distance
    assert found[1].relative_gap == pytest.approx(0, abs=0.05)


def test_the_choice_is_kept_with_everything_it_was_made_from(tmp_path: Path) -> None:
    write_selection(tmp_path / "s.json", 4, [Candidate(4, 0.5, 0.1)], update=10, seed=2)
    kept = json.loads((tmp_path / "s.json").read_text())
    assert kept == {
        "steps": 4,
        "update": 10,
        "seed": 2,
        "candidates": [{"steps": 4, "distance": 0.5, "relative_gap": 0.1}],
    }
