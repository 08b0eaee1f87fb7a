"""Files of the released code as systems under test: ``--checkpoint vaebm=checkpoint.pt,EBM.pth``."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmark
import leaderboards
from baselines.load import load_system
from baselines.nvae import NVAESystem
from baselines.vaebm import VAEBMSystem
from vaebm import cli
from vaebm.checkpoints import load_official, official, save_official
from vaebm.data import load_images
from vaebm.energy import ENERGIES, EnergyNetwork
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal
from vaebm.nvae import NVAE, NVAEConfig

FIXTURES = Path(__file__).parents[1] / "vaebm" / "fixtures"
NVAE_FILE, ENERGY_FILE = FIXTURES / "cifar10_tiny_nvae_checkpoint.pt", FIXTURES / "cifar10_tiny_ebm.pth"
PAIR = f"{NVAE_FILE},{ENERGY_FILE}"
SMALL = NVAEConfig(
    image_size=8, channels_enc=4, channels_dec=4, latents_per_group=2, groups_per_scale=(2,), log_sigma_min=-2.0
)


@pytest.fixture(scope="module")
def system() -> VAEBMSystem:
    return load_system("vaebm", Path(PAIR))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_images("cifar10", n=4).images


def files(folder: Path, energy: str = "cifar10", channels: int = 3, **changes: object) -> Path:
    """A small NVAE and a narrow network of a published kind, as official files; returns "checkpoint.pt,EBM.pth"."""
    torch.manual_seed(0)
    save_official(NVAE(replace(SMALL, **changes)), folder / "checkpoint.pt")
    save_official(EnergyNetwork(replace(ENERGIES[energy], channels=2, image_channels=channels)), folder / "EBM.pth")
    return Path(f"{folder / 'checkpoint.pt'},{folder / 'EBM.pth'}")


def test_the_score_is_the_bound_minus_the_energy_of_the_two_files(system: VAEBMSystem, images: np.ndarray) -> None:
    nvae, energy = load_official(NVAE_FILE), load_official(ENERGY_FILE)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    keys = content_keys(images)
    eps = [normal(0, keys, f"posterior.0.{i}", shape) for i, shape in enumerate(nvae.latent_shapes)]
    with torch.no_grad():
        out = nvae.encode(x, eps)
        energies = energy(x).double().numpy()
    bound = (out.distribution.log_prob(x) + out.log_p - out.log_q).double().numpy()
    terms = system.score_terms(images)
    np.testing.assert_allclose(terms["log_p"], bound, rtol=1e-4)
    np.testing.assert_allclose(terms["neg_energy"], -energies, rtol=1e-4)
    np.testing.assert_allclose(system.score(images), bound - energies, rtol=1e-4)


def test_identity_of_the_system_is_that_of_its_files(system: VAEBMSystem) -> None:
    for file in (NVAE_FILE, ENERGY_FILE):
        assert sha256(file.read_bytes()).hexdigest() in system.fingerprint["weights"]
    assert system.protocol == {
        "score": "log p_theta(x) - E(x), nats, not normalised",
        "estimator": "ELBO, 1 sample",
    }
    assert (system.size, system.image_shape) == ("own", (32, 32, 3))
    turned = load_system("mine", Path(f"{ENERGY_FILE},{NVAE_FILE}"))  # under a label, in the other order
    assert isinstance(turned, VAEBMSystem)
    assert (turned.fingerprint, turned.protocol, turned.recipe) == (system.fingerprint, system.protocol, system.recipe)


@pytest.mark.parametrize(
    ("energy", "steps", "step_size"),
    [("cifar10", 16, 8e-5), ("celeba64", 20, 5e-6), ("lsun64", 20, 4e-6), ("celebahq256", 24, 3e-6)],
)
def test_the_recipe_is_the_published_one_of_the_energy_network(
    energy: str, steps: int, step_size: float, tmp_path: Path
) -> None:
    recipe = load_system("vaebm", files(tmp_path, energy)).recipe
    assert recipe == {
        **VAEBMSystem.defaults,
        "steps": steps,
        "step_size": step_size,
        "target": "official",
        "output": "mean",
    }


def test_the_recipe_is_what_is_run_and_can_be_overridden(system: VAEBMSystem) -> None:
    assert (system.chain.steps, system.chain.step_size, system.chain.target) == (16, 8e-5, "official")
    short = load_system("vaebm", Path(PAIR), steps=1, step_size=1e-9)
    assert short.chain.steps == 1
    drawn = short.sample((3, 1))
    assert (drawn.dtype, drawn.shape) == (np.uint8, (2, 32, 32, 3))
    np.testing.assert_array_equal(short.sample((1,)), drawn[1:])


def test_an_nvae_alone_is_one(images: np.ndarray) -> None:
    alone = load_system("nvae", NVAE_FILE)
    assert isinstance(alone, NVAESystem)
    assert alone.recipe == {"importance_samples": 1, "readjust_bn": 0, "temperature": 1.0, "output": "mean"}
    terms = load_system("vaebm", Path(PAIR)).score_terms(images)
    np.testing.assert_allclose(alone.score(images), terms["log_p"], rtol=1e-5)
    assert alone.sample((5,)).shape == (1, 32, 32, 3)


def test_fewer_bits_stand_in_the_estimator(tmp_path: Path) -> None:
    pair = files(tmp_path, bits=5)
    assert load_system("vaebm", pair).protocol["estimator"] == "ELBO, 1 sample, 5-bit pixels"
    bound = load_system("nvae", tmp_path / "checkpoint.pt", importance_samples=3).protocol["estimator"]
    assert bound == "importance-weighted bound, K = 3, 5-bit pixels"


def test_published_architectures_are_called_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = files(tmp_path)
    assert load_system("vaebm", pair).size == "own"
    monkeypatch.setattr(official, "PUBLISHED_NVAES", (SMALL,))
    assert load_system("nvae", tmp_path / "checkpoint.pt").size == "paper"
    assert load_system("vaebm", pair).size == "own"  # its energy network is narrower than any published one
    monkeypatch.setattr(official, "ENERGIES", {"tiny": load_official(tmp_path / "EBM.pth").config})
    assert load_system("vaebm", pair).size == "paper"


def refused(name: str, path: Path, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        load_system(name, path)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_files_that_do_not_make_the_system_are_refused(tmp_path: Path) -> None:
    refused("nvae", Path(PAIR), "the file holds a vaebm")
    refused("vaebm", NVAE_FILE, "the file holds a nvae")
    refused("vaebm", ENERGY_FILE, "an energy network alone", f"checkpoint.pt,{ENERGY_FILE.name}")
    refused("vaebm", Path(f"{NVAE_FILE},{NVAE_FILE}"), "a second nvae")
    refused("vaebm", Path(f"{NVAE_FILE},none.pth"), "none.pth: no such file")
    refused("vaebm", files(tmp_path, channels=1), "1 channels", "makes 3")
    refused("vaebm", files(tmp_path, likelihood="logistic_mixture", log_sigma_min=None), "Gaussian")
    (tmp_path / "EBM.pth").write_bytes(b"")
    refused("vaebm", Path(f"{NVAE_FILE},{tmp_path / 'EBM.pth'}"), "EBM.pth", "truncated")


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setattr(leaderboards, "write_plots", lambda *_, **__: [])
    monkeypatch.setattr(sys, "argv", ["benchmark.py"])

    def called(*words: str) -> tuple[int, str, str]:
        shared = ("--out", str(tmp_path / "out"), "--cache", "none", "--no-progress", "--offline")
        code = cli.run(benchmark.main, ["--suite", "ood", "--systems", "none", *words, *shared])
        return code, *capsys.readouterr()

    return called


def test_the_table_has_a_row_for_the_two_files(call: Callable, tmp_path: Path) -> None:
    code, table, _ = call("--checkpoint", f"vaebm={PAIR}", "--num-images", "8", "--ood", "svhn,cifar10_interp")
    assert code == 0
    assert "VAEBM (measured, own)" in table
    rows = json.loads((tmp_path / "out" / "ood.json").read_text())["measurements"]
    (row,) = [
        row
        for row in rows
        if (row["system"], row["dataset"], row["metric"], row["variant"], row["role"])
        == ("vaebm", "svhn", "auroc", "", "headline")
    ]
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert (row["origin"], row["size"], row["n"]) == ("measured", "own", 16)
    assert row["protocol"]["score"] == "log p_theta(x) - E(x), nats, not normalised"
    assert row["protocol"]["estimator"] == "ELBO, 1 sample"
    assert row["protocol"]["image_shape"] == "32x32x3"
    for file in (NVAE_FILE, ENERGY_FILE):
        assert sha256(file.read_bytes()).hexdigest() in row["provenance"]["fingerprint"]["weights"]
    with np.load(tmp_path / "out" / "ood_scores.npz") as scores:
        inner = load_images("cifar10", n=8).images
        np.testing.assert_allclose(
            scores["vaebm/cifar10/score"], load_system("vaebm", Path(PAIR)).score(inner), rtol=1e-5
        )


def test_a_mistake_at_the_front_door_is_one_line(call: Callable, tmp_path: Path) -> None:
    code, out, error = call("--checkpoint", f"vaebm={NVAE_FILE},{tmp_path / 'none.pth'}")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "none.pth: no such file" in error
