"""The toy's VAE and VAEBM: exact densities, samples that follow them, training, checkpoints, the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from baselines.gaussians25 import load_gaussians25
from vaebm.__main__ import main
from vaebm.cli import run
from vaebm.data import gaussians25
from vaebm.errors import UserError
from vaebm.toy.checkpoints import load, save
from vaebm.toy.train import EBMTraining, VAETraining, data, train_ebm, train_vae
from vaebm.toy.vae import ToyVAE, VAEConfig, log_normal
from vaebm.toy.vaebm import ChainConfig, EnergyConfig, ToyEnergy, ToyVAEBM

TINY_VAE, TINY_ENERGY = VAEConfig(width=8, depth=1, sigma_min=0.2), EnergyConfig(width=8, depth=1, frequencies=4)
CHAIN = ChainConfig(sweeps=10)
AXIS = np.linspace(-20, 20, 401)  # half the least standard deviation of the tiny VAE apart
AREA = 0.1**2


@pytest.fixture
def vae() -> ToyVAE:
    torch.manual_seed(0)
    vae = ToyVAE(TINY_VAE).requires_grad_(False)
    vae.decoder[-1].weight.mul_(0.5)  # all but nothing of its density lies outside the square of log Z
    return vae


@pytest.fixture
def vaebm(vae: ToyVAE) -> ToyVAEBM:
    energy = ToyEnergy(TINY_ENERGY)
    with torch.no_grad():
        energy.network[-1].weight.mul_(10)  # energies that differ by a few nats
    return with_log_z(vae, energy, CHAIN).requires_grad_(False)


def with_log_z(vae: ToyVAE, energy: nn.Module, chain: ChainConfig) -> ToyVAEBM:
    """A model with log Z at a spacing that is fine enough for the smooth densities of these tests."""
    return ToyVAEBM(vae, energy, chain, log_z=ToyVAEBM(vae, energy, chain).log_z(spacing=0.1))


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, 0]


def linear_vae(a: float, b: float, s: float) -> ToyVAE:
    """x = (a z_1, b z_2) + s eps_x: p_theta(x) is a Gaussian with variances a^2 + s^2, b^2 + s^2."""

    class Linear(ToyVAE):
        def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z * z.new_tensor([a, b]), torch.full_like(z, s)

    return Linear(TINY_VAE)


# --- the mixture -----------------------------------------------------------------------------------------------------


def test_mixture_has_its_closed_forms() -> None:
    x = gaussians25.sample_points(range(20_000))
    log_p = gaussians25.log_density(x)
    assert abs(log_p.mean() - gaussians25.EXPECTED_LOG_LIKELIHOOD) < 4 * log_p.std() / math.sqrt(len(x))
    assert abs(gaussians25.EXPECTED_LOG_LIKELIHOOD + 1.4516) < 1e-4
    peak = -math.log(25 * 2 * math.pi * gaussians25.SD**2)
    np.testing.assert_allclose(gaussians25.log_density(gaussians25.CENTRES), peak, rtol=1e-12)
    axis = np.linspace(-5, 5, 501)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert np.exp(gaussians25.log_density(grid)).sum() * 0.02**2 == pytest.approx(1, abs=1e-9)


def test_far_from_every_mode_the_mixture_does_not_underflow() -> None:
    found = gaussians25.log_density(np.array([[1e3, 0.0]]))
    assert found[0] == pytest.approx(-(996**2) / 0.02 - math.log(25 * 2 * math.pi * 0.01), rel=1e-12)


def test_mixture_samples_are_the_seeds_own_and_even() -> None:
    x = gaussians25.sample_points(range(5000))
    np.testing.assert_array_equal(x[[7, 3]], gaussians25.sample_points([7, 3]))
    assert not np.allclose(x[:10], gaussians25.sample_points(range(10), "test"))
    nearest = np.square(x[:, None] - gaussians25.CENTRES).sum(2).argmin(1)
    counts = np.bincount(nearest, minlength=25)
    assert (np.square(counts - 200) / 200).sum() < 52.6  # chi-square with 24 degrees of freedom, p = 0.0007
    for axis in (0, 1):
        assert kstest((x - gaussians25.CENTRES[nearest])[:, axis] / gaussians25.SD, "norm").pvalue > 1e-3
    assert data(3).shape == (3, 2)


# --- the VAE ---------------------------------------------------------------------------------------------------------


def test_density_of_a_linear_vae_is_its_gaussian() -> None:
    a, b, s = 1.7, 0.3, 0.4
    variance = np.array([a**2 + s**2, b**2 + s**2])
    points = np.random.default_rng(0).normal(0, 1, (50, 2)) * np.sqrt(variance)
    exact = (-np.square(points) / (2 * variance) - 0.5 * np.log(2 * math.pi * variance)).sum(1)
    model = linear_vae(a, b, s)
    np.testing.assert_allclose(model.log_density(points), exact, atol=1e-6)
    grid = model.grid_log_density(points[:5, 0], points[:7, 1])
    pairs = np.stack(np.meshgrid(points[:5, 0], points[:7, 1], indexing="ij"), -1).reshape(-1, 2)
    np.testing.assert_allclose(grid.ravel(), model.log_density(pairs), atol=1e-9)


def test_vae_density_integrates_to_one_and_converges(vae: ToyVAE) -> None:
    assert np.exp(vae.grid_log_density(AXIS, AXIS)).sum() * AREA == pytest.approx(1, abs=1e-6)
    points = np.random.default_rng(0).normal(0, 1, (40, 2))
    np.testing.assert_allclose(vae.log_density(points), vae.log_density(points, nodes=300), atol=1e-8)


def test_vae_density_is_that_of_its_samples(vae: ToyVAE) -> None:
    """Importance sampling: log p(x) = log E_z p(x | z)."""
    points = np.random.default_rng(0).normal(0, 0.5, (5, 2))
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    mean, sigma = vae.decode(z)
    likelihood = log_normal(torch.from_numpy(points).float()[:, None], mean, sigma)
    np.testing.assert_allclose(torch.logsumexp(likelihood, 1) - math.log(len(z)), vae.log_density(points), atol=0.02)


def test_elbo_is_below_the_log_density_and_tight_for_the_true_posterior() -> None:
    a, b, s = 0.9, 0.5, 0.3
    model = linear_vae(a, b, s)
    gain = torch.tensor([a, b])
    precision = 1 + gain.square() / s**2  # of the posterior of z
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    exact = model.log_density(x.double().numpy())
    model.encode = lambda x: (gain / s**2 / precision * x, precision.rsqrt().expand_as(x))
    eps = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    bound = lambda: np.array([model.elbo(row.expand(4000, 2), eps).mean().item() for row in x])
    np.testing.assert_allclose(bound(), exact, atol=0.1)
    model.encode = lambda x: (torch.zeros_like(x), torch.ones_like(x))
    assert (bound() < exact).all()


def test_vae_samples_are_the_seeds_own(vae: ToyVAE) -> None:
    found = vae.sample_points([5, 9, 11])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[1:], vae.sample_points([9, 11]), atol=1e-6)


# --- the VAEBM -------------------------------------------------------------------------------------------------------


def test_vaebm_density_integrates_to_one_and_converges(vaebm: ToyVAEBM) -> None:
    assert np.exp(vaebm.grid_log_density(AXIS, AXIS)).sum() * AREA == pytest.approx(1, abs=1e-3)
    assert vaebm.log_z() == pytest.approx(vaebm.log_z(spacing=0.07), abs=1e-6)
    points = np.stack([AXIS[170:230:6], AXIS[180:220:4]], 1)
    expected = vaebm.vae.log_density(points) - vaebm.energies(points) - vaebm.log_z()
    np.testing.assert_allclose(vaebm.log_density(points), expected, atol=1e-12)
    grid = vaebm.grid_log_density(points[:, 0], points[:, 1])
    np.testing.assert_allclose(np.diag(grid), vaebm.log_density(points), atol=1e-8)


def test_log_z_is_the_mean_of_the_boltzmann_factor(vaebm: ToyVAEBM) -> None:
    """Z = E_{p_theta}[exp(-E)], with samples of the VAE."""
    factor = np.exp(-vaebm.energies(vaebm.vae.sample_points(range(20_000))))
    error = factor.std() / factor.mean() / math.sqrt(len(factor))
    assert factor.std() / factor.mean() > 0.2  # the energy matters
    assert math.log(factor.mean()) == pytest.approx(vaebm.log_z(), abs=4 * error)


def test_without_energy_the_vaebm_is_its_vae(vae: ToyVAE) -> None:
    model = with_log_z(vae, Zero(), ChainConfig(sweeps=0))
    points = np.random.default_rng(0).normal(0, 1, (20, 2))
    assert model.log_z() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(model.log_density(points), vae.log_density(points), atol=1e-3)
    np.testing.assert_array_equal(model.sample_points(range(9)), vae.sample_points(range(9)))
    moved = ToyVAEBM(vae, Zero(), CHAIN).sample_points(range(2000))  # the chain leaves N(0, I) as it is
    drawn = vae.sample_points(range(10_000, 12_000))
    for axis in (0, 1):
        assert kstest(moved[:, axis], drawn[:, axis]).pvalue > 1e-3


def test_samples_follow_the_density(vaebm: ToyVAEBM) -> None:
    """Moments of long chains against those of the density on a grid, and far from those of the VAE."""
    axis = np.linspace(-7, 7, 281)
    h = np.exp(vaebm.grid_log_density(axis, axis)) * 0.05**2
    marginals = (h.sum(1), h.sum(0))
    x = vaebm.sample_points(range(4000))
    differs = 0.0
    for column, marginal in enumerate(marginals):
        exact = (marginal * axis).sum()
        spread = math.sqrt((marginal * (axis - exact) ** 2).sum())
        assert abs(x[:, column].mean() - exact) < 5 * spread / math.sqrt(len(x))
        assert x[:, column].std() == pytest.approx(spread, rel=0.08)
        differs = max(differs, abs(vaebm.vae.sample_points(range(4000))[:, column].mean() - exact) / spread)
    assert differs > 0.05  # over three standard errors of either mean


def test_chain_takes_every_setting_and_only_its_own_seed(vaebm: ToyVAEBM) -> None:
    found = vaebm.sample_points([5, 9, 11])
    np.testing.assert_allclose(found[1:], vaebm.sample_points([9, 11]), atol=1e-5)
    for other in ({"sweeps": 3}, {"steps": 5}, {"wide": 0.2}, {"fine": 0.02}):
        changed = ToyVAEBM(vaebm.vae, vaebm.energy, ChainConfig(**{"sweeps": 10, **other}))
        assert not np.allclose(changed.sample_points([5, 9, 11]), found), other


def test_potential_has_the_gradient_of_finite_differences(vaebm: ToyVAEBM) -> None:
    vaebm.double()
    state = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *parts: vaebm.potential(parts), state)


# --- training --------------------------------------------------------------------------------------------------------

SHORT_VAE = VAETraining(steps=30, batch_size=64)
SHORT_EBM = EBMTraining(steps=5, batch_size=16, chain=ChainConfig(sweeps=1, steps=2))


def test_training_repeats_from_its_seed_and_leaves_the_vae_alone() -> None:
    one, two, other = (train_vae(TINY_VAE, SHORT_VAE, seed) for seed in (0, 0, 1))
    same = lambda a, b: all(torch.equal(a.state_dict()[k], b.state_dict()[k]) for k in a.state_dict())
    assert same(one, two)
    assert not same(one, other)
    first, second, third = (train_ebm(one, TINY_ENERGY, SHORT_EBM, CHAIN, seed) for seed in (0, 0, 1))
    assert same(first.energy, second.energy)
    assert not same(first.energy, third.energy)
    assert same(one, two)


def test_training_improves_both_stages() -> None:
    log: list[float] = []
    train_vae(TINY_VAE, VAETraining(steps=60, warmup=0), report=lambda _, values: log.append(values["loss"]))
    assert np.mean(log[-10:]) < np.mean(log[:10]) - 0.5
    vae = linear_vae(3.0, 3.0, 0.1)
    model = train_ebm(vae, TINY_ENERGY, EBMTraining(steps=60, batch_size=64, learning_rate=3e-3), CHAIN)
    gain = -model.energies(gaussians25.sample_points(range(500), "test")) - model.log_z(spacing=0.1)
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 6},
        {"batch_size": 8},
        {"learning_rate": 1e-3},
        {"warmup_steps": 2},
        {"beta1": 0.1},
        {"beta2": 0.5},
        {"rows": 0},
        {"rows": 1, "fresh_share": 0.9},
        {"ema": 0.1},
        {"energy_l2": 1.0},
        {"chain": ChainConfig(sweeps=1, steps=3)},
    ],
)
def test_every_setting_of_stage_2_takes_effect(changed: dict) -> None:
    vae = train_vae(TINY_VAE, SHORT_VAE)
    settings = {"steps": 5, "batch_size": 16, "chain": ChainConfig(sweeps=1, steps=2), "ema": 0.9}
    weights = [
        train_ebm(vae, TINY_ENERGY, EBMTraining(**{**settings, **each}), CHAIN).energy.network[0].weight
        for each in ({}, changed)
    ]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    "changed",
    [{"steps": 31}, {"batch_size": 8}, {"learning_rate": 1e-3}, {"warmup": 0.5}, {"first_kl_weight": 0.5}],
)
def test_every_setting_of_stage_1_takes_effect(changed: dict) -> None:
    settings = {"steps": 30, "batch_size": 64}
    weights = [train_vae(TINY_VAE, VAETraining(**{**settings, **each})).decoder[0].weight for each in ({}, changed)]
    assert not torch.equal(*weights)


# --- checkpoints and command -----------------------------------------------------------------------------------------


def test_checkpoints_come_back(vaebm: ToyVAEBM, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (5, 2))
    for name, model in (("vae", vaebm.vae), ("vaebm", vaebm)):
        save(model, tmp_path / f"{name}.safetensors", {"seed": 0})
        back = load(tmp_path / f"{name}.safetensors")
        np.testing.assert_allclose(back.log_density(x), model.log_density(x), atol=1e-12)
        np.testing.assert_array_equal(back.sample_points(range(3)), model.sample_points(range(3)))
        assert back.protocol == model.protocol


def test_another_checkpoint_is_refused(vae: ToyVAE, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save(vae, path, {})
    card = json.loads(path.with_suffix(".json").read_text())
    for change, message in (
        ({"kind": "vaebm"}, r"holds 'vaebm', needed a toy model"),
        ({"architecture": {}}, r"its card is not that of a toy_vae"),
        ({"architecture": {"vae": {"width": 9}}}, r"shape"),
        ({"architecture": {"vae": {"width": 0}}}, r"width and depth"),
    ):
        path.with_suffix(".json").write_text(json.dumps({**card, **change}))
        with pytest.raises(UserError, match=message):
            load(path)


QUICK = ["--no-progress", "--vae_model.width=8", "--vae.steps=3", "--vae.batch_size=8", "--energy.width=8"]
QUICK += ["--ebm.steps=2", "--ebm.batch_size=8", "--ebm.chain.steps=1"]


def test_command_trains_both_and_a_vaebm_on_a_given_vae(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toy", "--out", str(tmp_path / "a"), *QUICK, "--sampling.sweeps=2", "--seed=3"]) == 0
    vae, vaebm = map(Path, capsys.readouterr().out.split())
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "vae-mini-gaussians25.json", "vae-mini-gaussians25.safetensors",
        "vaebm-mini-gaussians25.json", "vaebm-mini-gaussians25.safetensors",
    ]  # fmt: skip
    loaded = load(vaebm)
    assert isinstance(loaded, ToyVAEBM)
    assert loaded.chain.sweeps == 2
    assert loaded.vae.config.width == loaded.energy.config.width == 8
    card = json.loads(vaebm.with_suffix(".json").read_text())["training"]
    assert (card["seed"], card["vae"]["steps"], card["ebm"]["steps"]) == (3, 3, 2)
    assert (
        main(["toy", "--out", str(tmp_path / "b"), *QUICK, "--sampling.sweeps=2", "--seed=3", f"--vae-from={vae}"]) == 0
    )
    again = load(Path(capsys.readouterr().out.strip()))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--vae.steps=0"], "--vae.steps 0: needed above 0"),
        (["--ebm.fresh_share=2"], "--ebm.fresh_share 2.0: needed 0 to 1"),
        (["--ebm.rows=-1"], "--ebm.rows -1: needed 0 or more"),
        (["--energy.width=0"], "needed 1 or more"),
        (["--sampling.wide=0"], "step sizes above 0"),
        (["--vae_model.sigma_min=0"], "sigma_min above 0"),
        (["--vae-from=nothing.safetensors"], "no such file"),
        (["--vae.step=3"], "unknown option"),
        (["--threads=-1"], "--threads -1"),
    ],
)
def test_a_mistake_is_one_line(
    wrong: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, ["toy", "--out", str(tmp_path / "x"), *QUICK, *wrong]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "x").exists()


# --- the bundled weights ---------------------------------------------------------------------------------------------


def test_bundled_vaebm_is_near_the_truth() -> None:
    models = load_gaussians25()
    x = gaussians25.sample_points(range(1000), "test")
    log_p = {name: model.log_density(x) for name, model in models.items()}
    short = gaussians25.log_density(x) - log_p["vaebm"]
    assert short.mean() < 0.1
    gain = log_p["vaebm"] - log_p["vae"]
    assert gain.mean() > 10 * gain.std() / math.sqrt(len(gain))
    assert models["vaebm"].vae.state_dict().keys() == models["vae"].state_dict().keys()
