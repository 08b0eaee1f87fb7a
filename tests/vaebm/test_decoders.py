"""p(x | z): densities and probabilities against torch's own distributions and brute sums; samples against their probabilities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaebm.nvae import BernoulliDecoder, GaussianDecoder, LogisticMixtureDecoder, NVAEConfig

MIXTURES = 3


def mixture_params(n: int = 2, size: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(n, 10 * MIXTURES, size, size, generator=generator)
    per_channel = params[:, MIXTURES:].view(n, 3, 3 * MIXTURES, size, size)
    # Scales of about a fifth of the range: where a value's mass is below 1e-5 the density at its centre stands in for it.
    per_channel[:, :, MIXTURES : 2 * MIXTURES] = per_channel[:, :, MIXTURES : 2 * MIXTURES] / 4 - 1.0
    return params


def pixel_log_prob(params: Tensor, x: Tensor, bits: int) -> float:
    """Sum over pixels of log sum_m pi_m prod_c P_c, one value at a time from the definition."""
    levels, total = 2**bits - 1, 0.0
    sigmoid = lambda v: 1 / (1 + math.exp(-v)) if v > -700 else 0.0
    for row in range(params.shape[1]):
        for column in range(params.shape[2]):
            at = params[:, row, column].double().tolist()
            y = (2 * x[:, row, column].double() - 1).tolist()
            weights = torch.tensor(at[:MIXTURES], dtype=torch.float64).softmax(0).tolist()
            pixel = 0.0
            for m in range(MIXTURES):
                mean, log_scale, coefficient = (
                    [at[MIXTURES + channel * 3 * MIXTURES + part * MIXTURES + m] for channel in range(3)]
                    for part in range(3)
                )
                a, b, c = map(math.tanh, coefficient)
                centre = [mean[0], mean[1] + a * y[0], mean[2] + b * y[0] + c * y[1]]
                probability = 1.0
                for channel in range(3):
                    scale = math.exp(max(log_scale[channel], -7.0))
                    upper = 1.0 if y[channel] > 0.999 else sigmoid((y[channel] + 1 / levels - centre[channel]) / scale)
                    lower = 0.0 if y[channel] < -0.999 else sigmoid((y[channel] - 1 / levels - centre[channel]) / scale)
                    probability *= upper - lower
                pixel += weights[m] * probability
            total += math.log(pixel)
    return total


@pytest.mark.parametrize("bits", [5, 8])
def test_logistic_mixture_agrees_with_its_definition(bits: int) -> None:
    params = mixture_params()
    generator = torch.Generator().manual_seed(1)
    levels = 2**bits - 1
    values = torch.randint(0, levels + 1, (2, 3, 2, 2), generator=generator)
    values[0, 0, 0] = torch.tensor([0, levels])  # both tails
    values[values == 254] = 253  # with 8 bits the released code counts 254 to the upper tail
    x = values.float() / levels
    found = LogisticMixtureDecoder.from_params(params, bits).log_prob(x)
    for i in range(2):
        assert found[i].item() == pytest.approx(pixel_log_prob(params[i], x[i], bits), rel=1e-4)


@pytest.mark.parametrize(("bits", "excess"), [(3, False), (5, False), (8, True)])
def test_logistic_mixture_sums_to_one_except_for_the_overlap_of_254_and_255(bits: int, excess: bool) -> None:
    """Over all values of red, green and blue being fixed: their factors do not depend on blue's, so blue's sum is one."""
    levels = 2**bits - 1
    params = mixture_params(1, 1).expand(levels + 1, -1, -1, -1)
    x = torch.full((levels + 1, 3, 1, 1), 1 / 7)
    x[:, 2, 0, 0] = torch.arange(levels + 1) / levels
    x[:, :2] = (x[:, :2] * levels).round() / levels
    log_p = LogisticMixtureDecoder.from_params(params, bits).log_prob(x).double()
    # The joint of red and green alone: blue's scale so wide that one of its values takes nearly all.
    blue = params.clone()
    blue[:, MIXTURES + 6 * MIXTURES : MIXTURES + 7 * MIXTURES] = -1e4  # blue's mean far below zero
    blue[:, MIXTURES + 8 * MIXTURES :] = 0.0  # and free of red and green
    lowest = x[:1].clone()
    lowest[:, 2] = 0.0
    marginal = LogisticMixtureDecoder.from_params(blue[:1], bits).log_prob(lowest).double()
    ratio = (log_p.logsumexp(0) - marginal).exp().item()
    if excess:
        assert 1.0001 < ratio < 1.1
    else:
        assert ratio == pytest.approx(1, abs=1e-4)


def test_logistic_mixture_samples_follow_their_probabilities() -> None:
    bits, n = 3, 20_000
    decoder = LogisticMixtureDecoder.from_params(mixture_params(1, 1).expand(n, -1, -1, -1), bits)
    eps = torch.randn(n, *decoder.noise_shape, generator=torch.Generator().manual_seed(2))
    red = (decoder.sample(eps)[:, 0, 0, 0] * 7).round()
    weights = decoder.logits[0, :, 0, 0].double().softmax(0)
    means, scales = decoder.means[0, 0, :, 0, 0].double(), decoder.log_scales[0, 0, :, 0, 0].double().exp()
    edges = (2 * (torch.arange(7, dtype=torch.float64) + 0.5) / 7 - 1)[:, None]
    cdf = torch.cat([torch.zeros(1), (torch.sigmoid((edges - means) / scales) * weights).sum(1), torch.ones(1)])
    expected = cdf.diff()
    found = torch.bincount(red.long(), minlength=8).double() / n
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / n)


def test_logistic_mixture_of_one_component_has_its_chained_means() -> None:
    params = torch.zeros(1, 10, 1, 1)
    params[0, [1, 4, 7]] = torch.tensor([0.2, -0.1, 0.3]).view(3, 1, 1)
    params[0, [3, 6, 9]] = torch.tensor([0.5, -0.4, 0.9]).view(3, 1, 1)
    red = 0.2
    green = -0.1 + math.tanh(0.5) * red
    blue = 0.3 + math.tanh(-0.4) * red + math.tanh(0.9) * green
    expected = torch.tensor([red, green, blue]) / 2 + 0.5
    torch.testing.assert_close(LogisticMixtureDecoder.from_params(params).mean.flatten(), expected)


def test_bernoulli_agrees_with_torch_and_samples_at_its_rate() -> None:
    logits = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    decoder = BernoulliDecoder(logits)
    eps = torch.randn(3, *decoder.noise_shape, generator=torch.Generator().manual_seed(1))
    x = decoder.sample(eps)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(decoder.log_prob(x), expected)
    many = BernoulliDecoder(logits[:1].expand(5000, -1, -1, -1))
    rate = many.sample(torch.randn(5000, 1, 4, 4, generator=torch.Generator().manual_seed(2))).mean(0)
    assert (rate - decoder.mean[0]).abs().max() < 5 * math.sqrt(0.25 / 5000)


@given(st.integers(0, 2**16), st.sampled_from(["gaussian", "logistic_mixture", "bernoulli"]))
def test_border_is_left_out_of_every_likelihood(seed: int, likelihood: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(
        1, {"gaussian": 6, "logistic_mixture": 30, "bernoulli": 3}[likelihood], 8, 8, generator=generator
    )
    x = torch.randint(0, 2, (1, 3, 8, 8), generator=generator).float()
    build = {
        "gaussian": lambda p, border: GaussianDecoder.from_params(p, border=border),
        "logistic_mixture": lambda p, border: LogisticMixtureDecoder.from_params(p, border=border),
        "bernoulli": lambda p, border: BernoulliDecoder(p, border),
    }[likelihood]
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(build(params, 2).log_prob(x), build(params[inner], 0).log_prob(x[inner]))
    assert not torch.allclose(build(params, 2).log_prob(x), build(params, 0).log_prob(x))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cells": "res_mbcov"}, "unknown cells 'res_mbcov'"),
        ({"likelihood": "laplace"}, "unknown likelihood 'laplace'"),
        ({"likelihood": "logistic_mixture", "image_channels": 1}, "3 image channels"),
        ({"bits": 9}, "bits 9"),
        ({"channels_enc": -4}, "channels_enc -4"),
        ({"latents_per_group": 0}, "latents_per_group 0"),
        ({"groups_per_scale": (2, 0)}, "at least one group"),
        ({"groups_per_scale": (1,), "channels_dec": 64}, "single-group"),
    ],
)
def test_contradictory_settings_are_named(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NVAEConfig(**changes)
