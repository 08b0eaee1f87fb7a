"""Langevin dynamics and VAEBM: stationary moments, both targets, seeds, Metropolis, and what every setting of a chain changes."""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, ConstantEnergy, lively_nvae, noise, unit_images
from torch import Tensor, nn

from vaebm import langevin as dynamics
from vaebm.energy import EnergyNetwork, data_dependent_init
from vaebm.errors import UserError
from vaebm.langevin import TARGETS, langevin, langevin_chain, metropolis_chain, standard_normal_potential
from vaebm.model import VAEBM, ChainSettings
from vaebm.noise import normal
from vaebm.nvae import NVAE
from vaebm.nvae.cells import DecoderCombiner


def gaussian_noise(seed: int, *shapes: tuple[int, ...]):
    generator = torch.Generator().manual_seed(seed)
    return lambda _: [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def random_state(model: VAEBM, n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator) for shape in model.state_shapes]


def model_noise(model: VAEBM, n: int, seed: int = 7):
    generator = torch.Generator().manual_seed(seed)
    return lambda _: [torch.randn(n, *shape, generator=generator) for shape in model.state_shapes]


def real_vaebm() -> VAEBM:
    torch.manual_seed(1)
    energy = EnergyNetwork(TINY_ENERGY)
    data_dependent_init(energy, unit_images(16))
    return VAEBM(lively_nvae(), energy).requires_grad_(False)


# The dynamics


@pytest.mark.parametrize("eta", [0.05, 1.0])
def test_long_chain_on_a_quadratic_has_the_mean_and_the_discretisation_bias_of_theory(eta: float) -> None:
    """For U = (eps - m)^2 / (2 s^2) the chain's stationary law is N(m, s^2 / (1 - eta / (4 s^2)))."""
    mean, s = torch.tensor([1.5, -2.0], dtype=torch.float64), torch.tensor([1.0, 0.7], dtype=torch.float64)
    n = 20_000
    state = langevin(
        lambda parts: ((parts[0] - mean) / s).square().sum(1) / 2,
        [torch.zeros(n, 2, dtype=torch.float64)],
        steps=math.ceil(8 / eta),
        step_size=eta,
        noise=gaussian_noise(0, (n, 2)),
    )[0]
    variance = s.square() / (1 - eta / (4 * s.square()))
    # e^-4 of the start is left
    assert (
        (state.mean(0) - mean * (1 - (1 - eta / (2 * s.square())).pow(math.ceil(8 / eta)))).abs()
        < 4 * (variance / n).sqrt()
    ).all()
    assert ((state.var(0) / variance - 1).abs() < 4 * (2 / n) ** 0.5 + 1e-3).all()


def test_one_step_is_the_update_of_the_paper() -> None:
    a, b = torch.randn(3, 2), torch.randn(3, 1, 2)
    wa, wb = torch.randn(3, 2), torch.randn(3, 1, 2)
    after = langevin(
        lambda s: s[0].pow(3).sum(1) + (s[0][:, :1] * s[1][:, 0]).sum(1),
        [a, b],
        steps=1,
        step_size=0.3,
        noise=lambda _: [wa, wb],
    )
    gradient_a = 3 * a**2
    gradient_a[:, 0] += b.sum((1, 2))
    torch.testing.assert_close(after[0], a - 0.15 * gradient_a + 0.3**0.5 * wa)
    torch.testing.assert_close(after[1], b - 0.15 * a[:, :1, None].expand_as(b) + 0.3**0.5 * wb)


def test_chain_yields_every_state_asks_for_noise_by_step_and_leaves_its_start_alone() -> None:
    start, asked = [torch.randn(4, 3)], []
    copy = start[0].clone()

    def draws(k: int) -> Sequence[Tensor]:
        asked.append(k)
        return [torch.zeros(4, 3)]

    states = list(langevin_chain(standard_normal_potential, start, steps=3, step_size=0.5, noise=draws))
    assert asked == [0, 1, 2]
    assert torch.equal(start[0], copy)
    assert not start[0].requires_grad
    for k, (state,) in enumerate(states):
        torch.testing.assert_close(state, copy * 0.75 ** (k + 1))
        assert not state.requires_grad


def test_no_steps_return_the_start() -> None:
    start = [torch.randn(4, 3), torch.randn(4, 2)]
    end = langevin(standard_normal_potential, start, steps=0, step_size=1.0, noise=lambda _: [])
    assert all(torch.equal(a, b) for a, b in zip(start, end, strict=True))


def test_chain_works_under_no_grad_and_leaves_parameters_without_gradients() -> None:
    model = real_vaebm().requires_grad_(True)
    with torch.no_grad():
        state = model.run_chain(random_state(model, 2), ChainSettings(2, 0.01), model_noise(model, 2))
    assert not any(part.requires_grad for part in state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_standard_normal_potential_is_minus_the_log_density() -> None:
    eps = [torch.randn(5, 2, 3), torch.randn(5, 4)]
    log_density = sum(torch.distributions.Normal(0, 1).log_prob(part).flatten(1).sum(1) for part in eps)
    torch.testing.assert_close(standard_normal_potential(eps), -log_density - 5 * math.log(2 * math.pi))


# The dynamics, adjusted

QUARTIC = lambda parts: parts[0].pow(4).sum(1) / 4 + (parts[0][:, 0] * parts[0][:, 1]) / 2


def quartic_gradient(x: Tensor) -> Tensor:
    return x**3 + x.flip(1) / 2


def log_proposal(to: Tensor, start: Tensor, eta: float) -> Tensor:
    """log q(to | start) up to a constant: N(start - eta / 2 grad U(start), eta I)."""
    return -(to - start + eta / 2 * quartic_gradient(start)).square().sum(1) / (2 * eta)


def test_a_step_is_accepted_with_the_probability_of_metropolis_and_hastings() -> None:
    """Textbook formula, for arbitrary pairs of points: taken just below it, refused just above it."""
    torch.manual_seed(0)
    x, y, eta = torch.randn(200, 2, dtype=torch.float64), torch.randn(200, 2, dtype=torch.float64), 0.6
    log_ratio = QUARTIC([x]) + log_proposal(x, y, eta) - QUARTIC([y]) - log_proposal(y, x, eta)
    probability = log_ratio.exp().clamp(max=1)
    w = (y - x + eta / 2 * quartic_gradient(x)) / eta**0.5  # the noise that proposes y
    assert 20 < (probability < 1).sum() < 180

    def step(u: Tensor) -> tuple[Tensor, Tensor]:
        chain = metropolis_chain(QUARTIC, [x], steps=1, step_size=eta, noise=lambda _: [w], uniform=lambda _: u)
        ((state,), accepted) = next(chain)
        return state, accepted

    state, accepted = step(probability * (1 - 1e-6))
    assert accepted.all()
    torch.testing.assert_close(state, y)
    state, accepted = step(probability * (1 + 1e-6))
    assert torch.equal(accepted, probability == 1)
    torch.testing.assert_close(state, torch.where(accepted[:, None], y, x))


def test_a_step_from_the_target_is_reversible() -> None:
    """Detailed balance: for eps ~ e^-U, (eps, eps') and (eps', eps) have one law, so E[f(eps) g(eps')] = E[g(eps) f(eps')]."""
    n, eta = 200_000, 1.2
    grid = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    potential = lambda parts: parts[0].pow(4).sum(1) / 4 + parts[0].sum(1)
    density = torch.exp(-potential([grid[:, None]]))
    torch.manual_seed(1)
    start = grid[torch.multinomial(density, n, replacement=True)][:, None]
    w, u = torch.randn(n, 1, dtype=torch.float64), torch.rand(n, dtype=torch.float64)
    ((end,), accepted) = next(
        metropolis_chain(potential, [start], steps=1, step_size=eta, noise=lambda _: [w], uniform=lambda _: u)
    )
    assert 0.3 < accepted.double().mean() < 0.95
    f, g = (lambda v: v), (lambda v: v.square())
    adjusted = f(start) * g(end) - g(start) * f(end)
    assert abs(adjusted.mean()) < 4 * adjusted.std() / n**0.5
    proposal = start - eta / 2 * (start**3 + 1) + eta**0.5 * w  # what is proposed is not reversible: the test can tell
    unadjusted = f(start) * g(proposal) - g(start) * f(proposal)
    assert abs(unadjusted.mean()) > 10 * unadjusted.std() / n**0.5


def test_adjusted_chains_have_the_targets_variance_where_unadjusted_ones_have_a_known_bias() -> None:
    n, eta, s = 20_000, 1.2, torch.tensor([1.0, 0.8], dtype=torch.float64)
    draw = gaussian_noise(3, (n, 2))
    generator = torch.Generator().manual_seed(4)
    chain = metropolis_chain(
        lambda parts: (parts[0] / s).square().sum(1) / 2,
        [torch.zeros(n, 2, dtype=torch.float64)],
        steps=40,
        step_size=eta,
        noise=draw,
        uniform=lambda _: torch.rand(n, generator=generator, dtype=torch.float64),
    )
    *_, ((state,), accepted) = chain
    bias = 1 / (1 - eta / (4 * s.square()))
    assert (bias > 1.4).all()
    assert ((state.var(0) / s.square() - 1).abs() < 4 * (2 / n) ** 0.5).all()
    assert 0.4 < accepted.double().mean() < 0.95


def test_adjusted_chain_computes_one_gradient_per_step_and_refuses_what_is_not_finite() -> None:
    calls = []

    def walled(parts: Sequence[Tensor]) -> Tensor:
        calls.append(1)
        return torch.where(parts[0][:, 0] > 0, parts[0].square().sum(1), torch.tensor(math.nan))

    start = torch.full((500, 2), 0.1)
    states = [
        (state[0], accepted)
        for state, accepted in metropolis_chain(
            walled,
            [start],
            steps=5,
            step_size=0.5,
            noise=lambda k: [torch.randn(500, 2, generator=torch.Generator().manual_seed(k))],
            uniform=lambda _: torch.zeros(500),  # takes whatever is finite
        )
    ]
    assert len(calls) == 6
    assert not states[0][1].all()
    before = start
    for state, accepted in states:
        assert (state[:, 0] > 0).all()
        assert torch.equal((state != before).any(1), accepted)
        before = state


# run: the dynamics of an NVAE and an energy


def hand_potential(nvae: NVAE, energy: nn.Module, eps: Sequence[Tensor], target: str) -> Tensor:
    """Both targets, written out from the formulas for a model in float64."""
    clamp5 = lambda v: 5 * torch.tanh(v / 5)
    log_n = lambda v, mu, sigma: (-(((v - mu) / sigma) ** 2) / 2 - sigma.log() - math.log(2 * math.pi) / 2).sum(
        (1, 2, 3)
    )
    eps_x, *eps_z = eps
    s, group, log_pz = nvae.prior_ftr0.expand(len(eps_x), -1, -1, -1), 0, torch.zeros(len(eps_x), dtype=torch.float64)
    for cell in nvae.dec_tower:
        if isinstance(cell, DecoderCombiner):
            mu = log_sigma = torch.zeros_like(eps_z[0])
            if group:
                mu, log_sigma = nvae.dec_sampler[group - 1](s).chunk(2, 1)
            mu, sigma = clamp5(mu), torch.exp(clamp5(log_sigma)) + 0.01
            z = mu + sigma * eps_z[group]
            log_pz = log_pz + log_n(z, mu, sigma)
            s, group = cell(s, z), group + 1
        else:
            s = cell(s)
    for cell in nvae.post_process:
        s = cell(s)
    mu, log_sigma = map(clamp5, nvae.image_conditional(s).chunk(2, 1))
    y = (mu + (torch.exp(log_sigma) + 0.01) * eps_x).clamp(-1, 1)
    e = energy((y + 1) / 2)
    if target == "paper":
        return e + sum((part**2).flatten(1).sum(1) / 2 for part in eps)
    return e - log_pz - log_n(y, mu, torch.exp(log_sigma.clamp(min=-2)) + 0.01)


@pytest.mark.parametrize("target", TARGETS)
def test_run_agrees_with_the_formulas_in_float64_on_recorded_noise(target: str) -> None:
    model, steps, eta, n = real_vaebm(), 5, 0.05, 3
    model.nvae.image_conditional[1].bias.data[3:] -= 2.0  # so that the clamp at -2 bites in places
    model.energy.linear.weight.data *= 100
    eps = random_state(model, n)
    draw = model_noise(model, n)
    recorded = [(w[1:], w[0]) for w in map(draw, range(steps))]
    eps_z, eps_x = dynamics.run(model.nvae, model.energy, eps[1:], eps[0], steps, eta, target, recorded)

    nvae, energy = copy.deepcopy(model.nvae).double(), copy.deepcopy(model.energy).double()
    state = [part.double() for part in eps]
    first_drift = 0.0
    for noise_z, noise_x in recorded:
        state = [part.requires_grad_() for part in state]
        gradient = torch.autograd.grad(hand_potential(nvae, energy, state, target).sum(), state)
        beyond_prior = [float((g - part).detach().abs().max()) for g, part in zip(gradient, state, strict=True)]
        first_drift = first_drift or eta / 2 * max(beyond_prior)
        state = [
            (part - eta / 2 * g + eta**0.5 * w.double()).detach()
            for part, g, w in zip(state, gradient, [noise_x, *noise_z], strict=True)
        ]
    assert first_drift > 1e-2  # the prior is not all that pulls
    for found, expected in zip([eps_x, *eps_z], state, strict=True):
        assert (found.double() - expected).abs().max() < 1e-4 * expected.abs().max()


def test_run_leaves_what_it_is_given_as_it_was() -> None:
    model = real_vaebm().requires_grad_(True)
    model.nvae.stem.requires_grad_(False)
    wants = [parameter.requires_grad for parameter in model.parameters()]
    eps = random_state(model, 2)
    before = [part.clone() for part in eps]
    with torch.no_grad():
        eps_z, eps_x = dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 2, 0.1)
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(eps, before, strict=True))
    for moved, start in zip([eps_x, *eps_z], eps, strict=True):
        assert moved.shape == start.shape
        assert not moved.requires_grad
        assert not torch.equal(moved, start)


def test_run_draws_from_torchs_generator_without_recorded_noise() -> None:
    model = real_vaebm()
    eps = random_state(model, 2)
    run = lambda: dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 2, 0.1)[1]
    torch.manual_seed(5)
    first, second = run(), run()
    torch.manual_seed(5)
    assert torch.equal(run(), first)
    assert not torch.equal(first, second)


def test_saturated_pixels_pull_at_nothing() -> None:
    model = real_vaebm()
    eps = random_state(model, 2)
    eps[0] = eps[0].sign() * 1e4
    silent = [([torch.zeros_like(part) for part in eps[1:]], torch.zeros_like(eps[0]))]
    _, official = dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 1, 0.1, "official", silent)
    _, paper = dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 1, 0.1, "paper", silent)
    torch.testing.assert_close(official, eps[0])
    torch.testing.assert_close(paper, eps[0] * 0.95)


@pytest.mark.parametrize("likelihood", ["logistic_mixture", "bernoulli"])
def test_only_a_gaussian_decoder_has_chains_but_every_decoder_has_samples(likelihood: str) -> None:
    model = VAEBM(lively_nvae(replace(TINY_NVAE, likelihood=likelihood, mixtures=2)), ConstantEnergy())
    with pytest.raises(UserError, match=f"needs a Gaussian decoder, found '{likelihood}'"):
        dynamics.run(model.nvae, model.energy, random_state(model, 2)[1:], random_state(model, 2)[0], 1, 0.1)
    with pytest.raises(UserError, match=likelihood):
        model.sample([1], ChainSettings(1, 0.1))
    for output in ("mean", "sample"):
        images = model.sample([1, 2], ChainSettings(0), output=output)
        assert images.shape == (2, 3, 8, 8)
        assert not torch.equal(images[0], images[1])


def test_run_names_an_unknown_target_and_missing_noise() -> None:
    model = real_vaebm()
    eps = random_state(model, 1)
    with pytest.raises(ValueError, match="'papr'"):
        dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 1, 0.1, "papr")
    with pytest.raises(ValueError, match="0 steps, needed 1"):
        dynamics.run(model.nvae, model.energy, eps[1:], eps[0], 1, 0.1, noise=[])


# VAEBM


def test_state_is_eps_x_and_then_every_latent_group() -> None:
    model = real_vaebm()
    assert model.state_shapes == [(3, 8, 8), (2, 2, 2), (2, 4, 4), (2, 4, 4)]


def ar_1(model: VAEBM, seeds: Sequence[int], chain: ChainSettings) -> list[Tensor]:
    """The chain of a constant energy in closed form: eps <- (1 - eta / 2) eps + sqrt(eta) w, with each seed's noise."""
    draw = lambda what: [normal(0, seeds, f"{what}.{i}", shape) for i, shape in enumerate(model.state_shapes)]
    eps = draw("start")
    for k in range(chain.steps):
        eps = [
            (1 - chain.step_size / 2) * e + chain.step_size**0.5 * w
            for e, w in zip(eps, draw(f"langevin.{k}"), strict=True)
        ]
    return eps


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_with_a_constant_energy_samples_are_nvae_samples_of_standard_normal_noise(steps: int) -> None:
    model, seeds = VAEBM(lively_nvae(), ConstantEnergy()), [5, 6, 7]
    chain = ChainSettings(steps, 0.2)
    eps = ar_1(model, seeds, chain)
    with torch.no_grad():
        decoder = model.nvae.decode(eps[1:]).distribution
    expected = {"mean": decoder.mean, "sample": decoder.sample(eps[0])}
    for output, images in expected.items():
        found = model.sample(seeds, chain, output=output)
        if steps == 0:
            assert torch.equal(found, images)
        else:
            torch.testing.assert_close(found, images, rtol=1e-4, atol=1e-5)


def test_with_a_constant_energy_long_chains_keep_the_standard_normal() -> None:
    model, n, eta = VAEBM(lively_nvae(), ConstantEnergy()).requires_grad_(False), 32, 0.5
    state = model.run_chain(random_state(model, n), ChainSettings(25, eta), model_noise(model, n))
    variance = 1 / (1 - eta / 4)
    for part in state:
        assert abs(part.mean()) < 4 * (variance / part.numel()) ** 0.5
        assert abs(part.var() / variance - 1) < 4 * (2 / part.numel()) ** 0.5


def log_sigma_sum(nvae: NVAE, eps: Sequence[Tensor]) -> Tensor:
    """Return sum log sigma over every latent and pixel, (N,), from densities alone: log N(eps) - log p(z(eps))."""
    decoded = nvae.decode(eps[1:])
    log_n = sum(torch.distributions.Normal(0, 1).log_prob(part).flatten(1).sum(1) for part in eps[1:])
    return log_n - decoded.log_pz + decoded.distribution.dist.sigma.log().flatten(1).sum(1)


def wide_scales(nvae: NVAE) -> NVAE:
    """Let sigma of the later groups depend strongly on the earlier latents, and keep images away from their clamps."""
    for sampler in nvae.dec_sampler:
        sampler[1].log_weight_norm.data[nvae.config.latents_per_group :] += 1.0
    channels = nvae.config.image_channels
    nvae.image_conditional[1].log_weight_norm.data -= 2.0
    nvae.image_conditional[1].bias.data[:channels] = 0.0
    nvae.image_conditional[1].bias.data[channels:] = -1.5
    return nvae


def test_official_potential_is_the_papers_plus_the_sum_of_log_scales() -> None:
    """Where no clamp bites: -log p(z) - log p(x | z) = ||eps||^2 / 2 + sum log sigma + D / 2 log 2 pi."""
    base = real_vaebm()
    model = VAEBM(wide_scales(base.nvae), base.energy).requires_grad_(False)
    eps = random_state(model, 6)
    eps[0] = eps[0] / 3
    x, decoded = model.decode(eps)
    assert x.min() > 0
    assert x.max() < 1
    assert decoded.distribution.dist.sigma.min() > math.exp(-2) + 0.01
    dimensions = sum(part[0].numel() for part in eps)
    difference = model.potential("official")(eps) - model.potential("paper")(eps)
    expected = log_sigma_sum(model.nvae, eps) + dimensions / 2 * math.log(2 * math.pi)
    assert expected.std() > 0.3
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-3)


def test_official_potential_scores_x_with_the_log_scale_clamped_at_minus_2() -> None:
    model = VAEBM(lively_nvae(), ConstantEnergy(0.0)).requires_grad_(False)
    model.nvae.image_conditional[1].bias.data[3:] = -6.0
    eps = random_state(model, 4)
    decoded = model.nvae.decode(eps[1:])
    mu, log_sigma = (5 * torch.tanh(part / 5) for part in decoded.params.chunk(2, 1))
    assert log_sigma.max() < -2
    y = (mu + (log_sigma.exp() + 0.01) * eps[0]).clamp(-1, 1)
    log_pxz = torch.distributions.Normal(mu, math.exp(-2) + 0.01).log_prob(y).sum((1, 2, 3))
    torch.testing.assert_close(model.potential("official")(eps), -decoded.log_pz - log_pxz, rtol=1e-4, atol=1e-3)


def test_official_target_drifts_to_small_scales_without_any_energy_and_the_papers_does_not() -> None:
    model, n = VAEBM(wide_scales(lively_nvae()), ConstantEnergy(0.0)).requires_grad_(False), 96
    start = random_state(model, n)
    change = {}
    for target in ("paper", "official"):
        end = model.run_chain(start, ChainSettings(30, 0.1, target), model_noise(model, n))
        change[target] = log_sigma_sum(model.nvae, end) - log_sigma_sum(model.nvae, start)
    error = lambda values: values.std() / n**0.5
    assert abs(change["paper"].mean()) < 4 * error(change["paper"])
    assert change["official"].mean() < -8 * error(change["official"])


def test_chains_lower_the_energy_and_the_potential_is_energy_plus_prior() -> None:
    model = real_vaebm()
    eps = random_state(model, 16)
    torch.testing.assert_close(
        model.potential("paper")(eps), model.energy(model.decode(eps)[0]) + standard_normal_potential(eps)
    )
    silent = lambda _: [torch.zeros(16, *shape) for shape in model.state_shapes]
    state = model.run_chain(eps, ChainSettings(5, 1e-3), silent)
    assert (model.potential("paper")(state) < model.potential("paper")(eps)).all()
    assert model.energy(model.decode(state)[0]).mean() < model.energy(model.decode(eps)[0]).mean()


def test_image_of_a_seed_does_not_depend_on_the_other_seeds_or_their_order() -> None:
    model, chain = real_vaebm(), ChainSettings(3, 0.01)
    together = model.sample([11, 12, 13, 14], chain)
    torch.testing.assert_close(model.sample([14, 12], chain), together[[3, 1]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.sample([13], chain), together[2:3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_trajectory_passes_the_samples_of_every_shorter_chain() -> None:
    model, seeds = real_vaebm(), [3, 4]
    states = list(model.trajectory(seeds, ChainSettings(3, 0.01), seed=2))
    assert len(states) == 4
    for steps, state in enumerate(states):
        expected = model.sample(seeds, ChainSettings(steps, 0.01), output="sample", seed=2)
        torch.testing.assert_close(model.decode(state)[0], expected)


@pytest.mark.parametrize("metropolis", [False, True])
def test_chain_that_is_kept_and_continued_is_the_chain_that_was_never_stopped(metropolis: bool) -> None:
    model, seeds, chain = real_vaebm(), [3, 4], ChainSettings(4, 0.05, metropolis=metropolis)
    whole = list(model.trajectory(seeds, chain, seed=2))
    rest = list(model.trajectory(seeds, replace(chain, steps=2), seed=2, start=whole[2], done=2))
    for state, expected in zip(rest, whole[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(state, expected, strict=True))
    again = list(model.trajectory(seeds, replace(chain, steps=2), seed=2, start=whole[2]))
    assert not torch.equal(again[1][0], whole[3][0])


@pytest.mark.parametrize("target", TARGETS)
def test_metropolis_refuses_some_steps_of_some_chains_and_none_of_tiny_ones(target: str) -> None:
    model, seeds = real_vaebm(), range(24)
    moved = lambda states: torch.stack([(b[0] != a[0]).flatten(1).any(1) for a, b in itertools.pairwise(states)])
    large = moved(list(model.trajectory(seeds, ChainSettings(6, 0.3, target, metropolis=True))))
    assert 0.05 < large.float().mean() < 0.95
    tiny = ChainSettings(6, 1e-6, target, metropolis=True)
    states = list(model.trajectory(seeds, tiny))
    assert moved(states).all()
    unadjusted = list(model.trajectory(seeds, replace(tiny, metropolis=False)))
    assert all(torch.equal(a, b) for a, b in zip(states[-1], unadjusted[-1], strict=True))


def test_metropolis_chain_of_a_seed_does_not_depend_on_the_other_seeds() -> None:
    model, chain = real_vaebm(), ChainSettings(6, 0.2, metropolis=True)
    together = model.sample([11, 12, 13, 14], chain)
    torch.testing.assert_close(model.sample([14, 12], chain), together[[3, 1]], rtol=1e-4, atol=1e-5)


def test_temperature_scales_the_prior_everywhere_the_chain_passes() -> None:
    model = real_vaebm()
    eps, chain = random_state(model, 3), ChainSettings(1, 0.1, temperature=0.6)
    cold = model.nvae.decode(eps[1:], 0.6)
    x = cold.distribution.sample(eps[0])
    torch.testing.assert_close(model.potential("paper", 0.6)(eps), model.energy(x) + standard_normal_potential(eps))
    expected = model.energy(x) - cold.log_pz - cold.distribution.log_prob(x)  # no clamp bites here
    assert cold.distribution.dist.sigma.min() > math.exp(-2) + 0.01
    torch.testing.assert_close(model.potential("official", 0.6)(eps), expected, rtol=1e-4, atol=1e-3)
    *_, state = model.trajectory([1, 2], chain)
    torch.testing.assert_close(model.sample([1, 2], chain), model.nvae.decode(state[1:], 0.6).distribution.mean)
    assert not torch.allclose(state[1], list(model.trajectory([1, 2], replace(chain, temperature=1.0)))[-1][1])


def test_cards_recipes_of_older_versions_still_load() -> None:
    recipe = {"steps": 3, "step_size": 0.5, "target": "official", "output": "mean"}
    assert ChainSettings.from_json(recipe) == ChainSettings(3, 0.5, "official", 1.0, False)
    chain = ChainSettings(3, 0.5, "official", 0.7, True)
    assert ChainSettings.from_json(chain.to_json()) == chain


def test_seed_of_the_run_changes_every_image() -> None:
    model, chain = real_vaebm(), ChainSettings(1, 0.01)
    first, other = model.sample([1, 2], chain), model.sample([1, 2], chain, seed=1)
    assert torch.equal(first, model.sample([1, 2], chain, seed=0))
    assert ((first - other).abs().amax((1, 2, 3)) > 1e-3).all()


def test_sampling_leaves_the_global_generator_alone() -> None:
    model = real_vaebm()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.sample([1], ChainSettings(1, 0.1))
    assert torch.equal(torch.rand(3), expected)


def test_steps_step_size_target_and_output_take_effect() -> None:
    model = real_vaebm()
    draw = lambda steps=2, eta=0.01, target="paper", output="sample": model.sample(
        [1, 2], ChainSettings(steps, eta, target), output=output
    )
    base = draw()
    assert torch.equal(base, draw())
    for other in (draw(steps=3), draw(eta=0.02), draw(target="official"), draw(output="mean")):
        assert (base - other).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": -1}, "-1"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": math.nan}, "nan"),
        ({"target": "papr"}, "papr"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_chain_settings_name_what_is_wrong(settings: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ChainSettings(**settings)


def test_unknown_output_is_refused_by_name_before_any_work() -> None:
    with pytest.raises(ValueError, match="median"):
        real_vaebm().sample([1], ChainSettings(10_000_000, 0.01), output="median")


@torch.no_grad()
def test_log_density_is_the_bound_minus_the_energy() -> None:
    model, x = real_vaebm(), unit_images(4)
    eps = [noise(model.nvae, 4, seed) for seed in range(3)]
    found = model.log_density(x, eps)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, model.nvae.log_prob_bound(x, eps) - model.energy(x).double())
    constant = VAEBM(model.nvae, ConstantEnergy(2.5)).log_density(x, eps)
    torch.testing.assert_close(constant, model.nvae.log_prob_bound(x, eps) - 2.5)
