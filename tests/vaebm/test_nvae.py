"""NVAE: distributions and clamps, bounds, flows, options, gradients and configuration."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY_NVAE, lively_nvae, noise, unit_images
from torch import Tensor

from vaebm.nvae import NVAE, GaussianDecoder, Normal, NVAEConfig
from vaebm.nvae.cells import ResidualCell
from vaebm.nvae.distributions import soft_clamp5
from vaebm.nvae.flows import Flow, PairedFlow

FINITE = st.floats(-30, 30)


# Distributions


@given(mu=FINITE, log_sigma=FINITE, other_mu=FINITE, other_log_sigma=FINITE)
def test_kl_is_that_of_torch_distributions(
    mu: float, log_sigma: float, other_mu: float, other_log_sigma: float
) -> None:
    as_tensor = lambda value: torch.tensor(value, dtype=torch.float64)
    q = Normal.from_params(as_tensor(mu), as_tensor(log_sigma))
    p = Normal.from_params(as_tensor(other_mu), as_tensor(other_log_sigma))
    reference = [torch.distributions.Normal(d.mu, d.sigma) for d in (q, p)]
    torch.testing.assert_close(q.kl(p), torch.distributions.kl_divergence(*reference), rtol=1e-9, atol=1e-9)
    value = as_tensor(other_mu / 10)
    torch.testing.assert_close(q.log_prob(value), reference[0].log_prob(value), rtol=1e-9, atol=1e-9)


def test_kl_is_the_mean_log_ratio_of_its_own_samples() -> None:
    q = Normal(torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
    p = Normal(torch.tensor(-0.5, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64))
    value = q.transform(torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    ratios = q.log_prob(value) - p.log_prob(value)
    assert abs(ratios.mean() - q.kl(p)) < 4 * ratios.std() / len(ratios) ** 0.5


@given(x=FINITE)
def test_soft_clamp_is_odd_bounded_and_the_identity_near_zero(x: float) -> None:
    value = soft_clamp5(torch.tensor(x, dtype=torch.float64)).item()
    assert abs(value) <= min(5.0, abs(x) + 1e-12)
    assert abs(value) >= abs(x) - abs(x) ** 3 / 75 - 1e-12  # tanh t >= t - t^3 / 3
    assert value == -soft_clamp5(torch.tensor(-x, dtype=torch.float64)).item()


def test_scale_has_a_floor_and_a_temperature() -> None:
    wide, narrow = Normal.from_params(torch.zeros(2), torch.tensor([1e6, -1e6]), 0.7).sigma
    assert wide.item() == pytest.approx(0.7 * (math.exp(5) + 0.01))
    assert narrow.item() == pytest.approx(0.7 * (math.exp(-5) + 0.01))


def test_first_prior_is_a_normal_of_standard_deviation_1_01() -> None:
    nvae = lively_nvae(replace(TINY_NVAE, groups_per_scale=(1,)))
    eps = noise(nvae, 5)
    drawn = nvae.decode(eps)
    (z,), log_p = drawn.z, drawn.log_pz
    torch.testing.assert_close(z, 1.01 * eps[0])
    torch.testing.assert_close(log_p, torch.distributions.Normal(0, 1.01).log_prob(z).flatten(1).sum(1))


def test_decoder_scores_2x_minus_1_with_the_clamped_scale_and_samples_with_the_unclamped_one() -> None:
    mu, log_sigma = torch.full((2, 3, 4, 4), 0.25), torch.full((2, 3, 4, 4), -4.0)
    x, eps = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    sigma = math.exp(5 * math.tanh(-4 / 5)) + 0.01
    centre = 5 * math.tanh(0.25 / 5)
    for bound, scored in ((None, sigma), (-2.0, math.exp(-2) + 0.01), (-20.0, sigma)):
        decoder = GaussianDecoder.from_params(torch.cat([mu, log_sigma], 1), bound)
        expected = torch.distributions.Normal(centre, scored).log_prob(2 * x - 1).sum((1, 2, 3))
        torch.testing.assert_close(decoder.log_prob(x), expected, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(decoder.sample(eps), (centre + sigma * eps).clamp(-1, 1) / 2 + 0.5)
        torch.testing.assert_close(decoder.mean, torch.full_like(x, centre / 2 + 0.5))


def test_decoder_mean_may_leave_the_unit_interval_and_its_samples_may_not() -> None:
    decoder = GaussianDecoder.from_params(torch.full((1, 2, 4, 4), 4.0))
    assert decoder.mean.min() > 1
    assert decoder.sample(torch.zeros(1, 1, 4, 4)).max() == 1


# The model's terms


def test_latents_go_from_coarse_to_fine_with_the_configured_groups() -> None:
    config = NVAEConfig(image_size=64, latents_per_group=20, groups_per_scale=(4, 3, 2))
    assert config.latent_shapes == [(20, 8, 8)] * 4 + [(20, 16, 16)] * 3 + [(20, 32, 32)] * 2
    nvae = lively_nvae()
    z = nvae.decode(noise(nvae, 3)).z
    assert [tuple(part.shape) for part in z] == [(3, *shape) for shape in TINY_NVAE.latent_shapes]
    assert [tuple(part.shape) for part in nvae.encode(unit_images(3), noise(nvae, 3)).z] == [
        tuple(part.shape) for part in z
    ]


def test_prior_density_is_that_of_z_under_its_own_conditionals() -> None:
    """Change of variables: log p(z) = log N(eps) - sum log sigma, and sigma is the autograd derivative of z by eps."""
    nvae = lively_nvae(replace(TINY_NVAE, groups_per_scale=(1, 1)))
    eps = noise(nvae, 1)
    sizes = [part.numel() for part in eps]

    def flat_z(flat: Tensor) -> Tensor:
        parts = [part.view(shape.shape) for part, shape in zip(flat.split(sizes), eps, strict=True)]
        return torch.cat([part.flatten() for part in nvae.decode(parts).z])

    flat = torch.cat([part.flatten() for part in eps])
    jacobian = torch.autograd.functional.jacobian(flat_z, flat).double()
    expected = torch.distributions.Normal(0, 1).log_prob(flat).sum() - torch.linalg.slogdet(jacobian).logabsdet
    assert nvae.decode(eps).log_pz.item() == pytest.approx(expected.item(), rel=1e-5)
    fine, coarse = jacobian[sizes[0] :], jacobian[: sizes[0]]
    assert coarse[:, sizes[0] :].abs().max() == 0  # a coarse latent knows nothing of finer noise
    assert fine[:, : sizes[0]].abs().max() > 1e-4


def test_encoding_noise_of_a_later_group_does_not_change_earlier_latents() -> None:
    nvae, x = lively_nvae(), unit_images(2)
    eps = noise(nvae, 2)
    before = nvae.encode(x, eps)
    after = nvae.encode(x, [eps[0], eps[1] + 1, eps[2]])
    assert torch.equal(before.z[0], after.z[0])
    assert not torch.allclose(before.z[1], after.z[1])
    assert not torch.allclose(before.kl_per_group[:, 2], after.kl_per_group[:, 2])


@torch.no_grad()
def test_closed_form_kl_is_the_mean_of_log_q_minus_log_p() -> None:
    nvae = lively_nvae()
    out = nvae.encode(unit_images(1).expand(4000, -1, -1, -1), noise(nvae, 4000))
    difference = (out.log_q - out.log_p) - out.kl_per_group.sum(1)
    assert out.kl_per_group.min() > 0
    assert difference.std() > 0.1
    assert abs(difference.mean()) < 4 * difference.std() / 4000**0.5


@torch.no_grad()
def test_with_flows_kl_is_log_q_minus_log_p_at_the_sample_and_the_bound_of_one_sample_is_the_elbo() -> None:
    nvae, x = lively_nvae(replace(TINY_NVAE, flows=1)), unit_images(6)
    eps = noise(nvae, 6)
    out = nvae.encode(x, eps)
    torch.testing.assert_close(out.kl_per_group.sum(1), out.log_q - out.log_p, rtol=1e-5, atol=1e-4)
    log_px, kl = nvae.elbo(x, eps)
    torch.testing.assert_close((log_px - kl.sum(1)).double(), nvae.log_prob_bound(x, [eps]), rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_mean_one_sample_bound_is_the_mean_elbo() -> None:
    nvae, x = lively_nvae(), unit_images(1).expand(4000, -1, -1, -1)
    eps = noise(nvae, 4000, seed=1)
    log_px, kl = nvae.elbo(x, eps)
    difference = nvae.log_prob_bound(x, [eps]) - (log_px - kl.sum(1))
    assert difference.std() > 0.1
    assert abs(difference.mean()) < 4 * difference.std() / 4000**0.5


@torch.no_grad()
def test_one_sample_bound_is_log_likelihood_plus_prior_minus_posterior() -> None:
    nvae, x = lively_nvae(replace(TINY_NVAE, log_sigma_min=-2.0)), unit_images(4)
    eps = noise(nvae, 4)
    out = nvae.encode(x, eps)
    expected = out.distribution.log_prob(x).double() + out.log_p.double() - out.log_q.double()
    found = nvae.log_prob_bound(x, [eps])
    assert found.dtype == torch.float64
    assert torch.equal(found, expected)


@torch.no_grad()
def test_bound_rises_with_the_number_of_importance_samples() -> None:
    """Over nested groups of the same 64 samples the mean bound rises by Jensen's inequality, whatever the noise."""
    nvae, x = lively_nvae(), unit_images(8)
    samples = [noise(nvae, 8, seed) for seed in range(64)]
    means = [
        torch.stack([nvae.log_prob_bound(x, samples[i : i + k]) for i in range(0, 64, k)]).mean(0)
        for k in (1, 4, 16, 64)
    ]
    for fewer, more in pairwise(means):
        assert (more > fewer + 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize(("groups", "latents", "flows"), [(2, 1, 0), (1, 2, 1)])
def test_exponential_of_the_bound_is_an_unbiased_estimate_of_the_exact_density(
    samples: int, groups: int, latents: int, flows: int
) -> None:
    """With two latent dimensions p(x) = int N(eps; 0, I) p(x | z(eps)) d eps is integrated on a grid of eps."""
    config = replace(TINY_NVAE, image_size=2, groups_per_scale=(groups,), latents_per_group=latents, flows=flows)
    nvae, x = lively_nvae(config), unit_images(8)[:1, :, ::4, ::4]
    axis = torch.linspace(-7, 7, 141)
    grid = torch.cartesian_prod(axis, axis)
    drawn = nvae.decode([part[..., None, None] for part in grid.split(latents, dim=1)])
    log_joint = drawn.distribution.log_prob(x) + torch.distributions.Normal(0, 1).log_prob(grid).sum(1)
    exact = torch.logsumexp(log_joint.double(), 0) + 2 * math.log(14 / 140)

    copies = 6000
    bound = nvae.log_prob_bound(x.expand(copies, -1, -1, -1), [noise(nvae, copies, seed) for seed in range(samples)])
    ratios = (bound - exact).exp()
    assert ratios.std() > 1e-3
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / copies**0.5 + 1e-5
    assert bound.mean() < exact  # a lower bound


@torch.no_grad()
def test_results_of_an_image_do_not_depend_on_its_batch() -> None:
    nvae, x = lively_nvae(replace(TINY_NVAE, flows=1)), unit_images(5)
    eps = noise(nvae, 5)
    together = nvae.encode(x, eps)
    alone = nvae.encode(x[3:4], [part[3:4] for part in eps])
    for name in ("params", "kl_per_group", "log_q", "log_p"):
        torch.testing.assert_close(getattr(together, name)[3:4], getattr(alone, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        nvae.decode(eps).params[3:4], nvae.decode([part[3:4] for part in eps]).params, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_low_temperature_shrinks_latents_around_the_prior_mean() -> None:
    nvae = lively_nvae()
    eps = noise(nvae, 4)
    cold = nvae.decode(eps, 0.25).z
    warm = nvae.decode(eps, 1.0).z
    torch.testing.assert_close(cold[0], 0.25 * warm[0])
    mean = nvae.decode(eps, 0.0).params
    assert torch.equal(mean[0], mean[-1])  # no noise left: every image is the same


# Options


@torch.no_grad()
def test_log_sigma_min_changes_the_score_and_not_the_samples() -> None:
    free, clamped = lively_nvae(), lively_nvae(replace(TINY_NVAE, log_sigma_min=2.0))
    eps, x = noise(free, 2), unit_images(2)
    assert torch.equal(free.decode(eps).params, clamped.decode(eps).params)
    assert not torch.allclose(free.elbo(x, eps)[0], clamped.elbo(x, eps)[0])


@torch.no_grad()
def test_residual_posterior_with_no_offsets_is_the_prior() -> None:
    x, kl = unit_images(3), {}
    for residual in (True, False):
        nvae = lively_nvae(replace(TINY_NVAE, residual_posterior=residual))
        for sampler in nvae.enc_sampler:
            sampler.log_weight_norm.fill_(-torch.inf)
            sampler.bias.zero_()
        kl[residual] = nvae.encode(x, noise(nvae, 3)).kl_per_group
    assert torch.equal(kl[True], torch.zeros(3, 3)) or kl[True][:, 1:].abs().max() < 1e-5
    assert kl[False][:, 1:].min() > 1e-3
    assert kl[False][:, 0].abs().max() < 1e-6  # the first prior has no parameters to be an offset to


@torch.no_grad()
def test_flows_change_the_latent_and_the_prior_density_but_not_log_q_of_the_first_group() -> None:
    config = replace(TINY_NVAE, groups_per_scale=(1,))
    flowing = lively_nvae(replace(config, flows=2))
    plain = NVAE(config).eval()
    plain.load_state_dict({k: v for k, v in flowing.state_dict().items() if not k.startswith("nf_cells")})
    x, eps = unit_images(3), noise(flowing, 3)
    before, after = plain.encode(x, eps), flowing.encode(x, eps)
    torch.testing.assert_close(before.log_q, after.log_q)
    assert not torch.allclose(before.z[0], after.z[0])
    assert not torch.allclose(before.log_p, after.log_p)
    assert len(flowing.nf_cells[0]) == 2


@torch.no_grad()
def test_squeeze_excite_gates_every_residual_cell() -> None:
    gated, free = lively_nvae(), lively_nvae(replace(TINY_NVAE, squeeze_excite=False))
    cells = [module for module in gated.modules() if isinstance(module, ResidualCell)]
    with_gates = {name.rsplit(".se.", 1)[0] for name in gated.state_dict() if ".se." in name}
    assert len(with_gates) == len(cells) > 0
    assert not any(".se." in name for name in free.state_dict())
    free.load_state_dict({k: v for k, v in gated.state_dict().items() if ".se." not in k})
    for module in gated.modules():
        if hasattr(module, "excite"):  # sigmoid(large) = 1: an open gate
            module.excite.weight.zero_()
            module.excite.bias.fill_(50.0)
    eps = noise(free, 2)
    torch.testing.assert_close(free.decode(eps).params, gated.decode(eps).params)
    for module in gated.modules():
        if hasattr(module, "excite"):
            module.excite.bias.fill_(-50.0)
    assert not torch.allclose(free.decode(eps).params, gated.decode(eps).params)


@pytest.mark.parametrize("changes", [{}, {"flows": 1}, {"residual_posterior": False}, {"squeeze_excite": False}])
def test_gradients_reach_every_parameter(changes: dict) -> None:
    nvae, x = lively_nvae(replace(TINY_NVAE, **changes)), unit_images(4)
    log_px, kl = nvae.elbo(x, noise(nvae, 4))
    (kl.sum(1) - log_px).mean().backward()
    dead = [name for name, p in nvae.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


def test_image_channels_and_size_are_free() -> None:
    nvae = lively_nvae(replace(TINY_NVAE, image_channels=1, image_size=16, preprocess_blocks=2, postprocess_blocks=2))
    logits = nvae.decode(noise(nvae, 2)).params
    assert logits.shape == (2, 2, 16, 16)
    assert nvae.encode(torch.rand(2, 1, 16, 16), noise(nvae, 2)).params.shape == (2, 2, 16, 16)


# Flows


def flow_jacobian(flow: torch.nn.Module, channels: int, size: int) -> Tensor:
    """Return the Jacobian at a random latent, in raster order with the channels of a position together."""
    z = torch.randn(channels, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    to_order = lambda t: t.permute(1, 2, 0).flatten()
    from_order = lambda v: v.view(size, size, channels).permute(2, 0, 1)
    return torch.autograd.functional.jacobian(lambda v: to_order(flow(from_order(v)[None])[0]), to_order(z))


def strong(flow: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in flow.named_parameters():
        if name.endswith("log_weight_norm"):
            torch.nn.init.constant_(parameter, 0.7)
    return flow.double()


@pytest.mark.parametrize("mirror", [False, True])
def test_flow_is_causal_with_a_unit_diagonal(mirror: bool) -> None:
    channels, size = 3, 4
    torch.manual_seed(0)
    jacobian = flow_jacobian(strong(Flow(channels, mirror)), channels, size)
    torch.testing.assert_close(jacobian.diagonal(), torch.ones(48, dtype=torch.float64), rtol=0, atol=0)
    for row_position in range(size * size):
        for column_position in range(size * size):
            rows, columns = (slice(p * channels, (p + 1) * channels) for p in (row_position, column_position))
            block = jacobian[rows, columns]
            later = column_position < row_position if mirror else column_position > row_position
            if later:
                assert block.abs().max() == 0
            elif row_position == column_position:  # earlier channels of the same position only, in both directions
                assert block.triu(1).abs().max() == 0
                assert block.tril(-1).abs().max() > 0
    assert (jacobian - jacobian.diagonal().diag()).abs().max() > 0.05


def test_pair_of_flows_preserves_volume_and_sees_both_directions() -> None:
    torch.manual_seed(1)
    jacobian = flow_jacobian(strong(PairedFlow(3)), 3, 4)
    assert torch.linalg.slogdet(jacobian).logabsdet.abs() < 1e-9
    assert jacobian.triu(3).abs().max() > 0.05
    assert jacobian.tril(-3).abs().max() > 0.05


def test_fresh_flow_is_near_the_identity() -> None:
    torch.manual_seed(0)
    z = torch.randn(8, 4, 4, 4)
    change = (PairedFlow(4)(z) - z).std()
    assert 0 < change < 0.3


# Configuration


@given(
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    flows=st.integers(0, 2),
    bound=st.none() | st.floats(-5, 5),
    gates=st.booleans(),
)
def test_config_survives_json(groups: list[int], flows: int, bound: float | None, gates: bool) -> None:
    config = NVAEConfig(groups_per_scale=tuple(groups), flows=flows, log_sigma_min=bound, squeeze_excite=gates)
    assert NVAEConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"flow": 1}, "flow"),
        ({"image_size": 30, "preprocess_blocks": 2, "postprocess_blocks": 2}, "30"),
        ({"preprocess_blocks": 2}, "postprocess"),
        ({"preprocess_cells": 0}, "preprocess_cells 0"),
        ({"postprocess_cells": -1}, "postprocess_cells -1"),
    ],
)
def test_config_names_what_is_wrong(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NVAEConfig.from_json({**NVAEConfig().to_json(), **changes})
