"""BatchNorm re-adjustment: the statistics are those of the sample stream, only the decoder's change, nothing breaks on a mistake."""

import copy
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from tiny import TINY_NVAE, lively_nvae, noise, unit_images
from torch import Tensor, nn

from vaebm.errors import UserError
from vaebm.nvae import NVAE
from vaebm.nvae.readjust import decoder_batch_norms, readjust_batch_norm


def inputs_of(nvae: NVAE, layers: list[nn.BatchNorm2d]) -> dict[int, list[Tensor]]:
    """Record what each of the layers is fed, call by call."""
    seen: dict[int, list[Tensor]] = defaultdict(list)
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda _, args, __, number=number: seen[number].append(args[0].clone()))
    return seen


def statistics(nvae: NVAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in nvae.named_buffers()}


def test_statistics_are_the_average_of_the_sample_streams() -> None:
    """With equal weights instead of the momentum: means of the batches' means and unbiased variances, layer by layer."""
    nvae = lively_nvae()
    layers = decoder_batch_norms(nvae)
    for layer in layers:
        layer.momentum = None  # torch's cumulative average, which starts from zero batches
    seen = inputs_of(nvae, layers)
    readjust_batch_norm(nvae, 0.7, iterations=6, batch_size=5)
    for number, layer in enumerate(layers):
        batches = seen[number][:6]  # the seventh is the check in eval mode
        assert len(seen[number]) == 7
        assert batches[0].shape[0] == 5
        mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-4, atol=1e-5)


def test_statistics_follow_with_the_momentum_of_the_model() -> None:
    nvae = lively_nvae()
    layers = decoder_batch_norms(nvae)
    expected = [layer.running_mean.clone() for layer in layers]
    seen = inputs_of(nvae, layers)
    readjust_batch_norm(nvae, 0.7, iterations=9, batch_size=4)
    for number, layer in enumerate(layers):
        for batch in seen[number][:9]:
            expected[number] = 0.95 * expected[number] + 0.05 * batch.mean((0, 2, 3))
        torch.testing.assert_close(layer.running_mean, expected[number], rtol=1e-4, atol=1e-5)


def test_only_statistics_of_the_decoder_change() -> None:
    nvae = lively_nvae()
    before, weights = statistics(nvae), {name: value.clone() for name, value in nvae.named_parameters()}
    encoded = nvae._encode_features(unit_images(3))[0]
    readjust_batch_norm(nvae, 0.5, iterations=3)
    changed = {name for name, value in statistics(nvae).items() if not torch.equal(value, before[name])}
    names = {name for name, module in nvae.named_modules() if isinstance(module, nn.BatchNorm2d)}
    decoder = {name for name in names if name.startswith(("dec_tower", "post_process"))}
    assert decoder < names
    assert {name.rsplit(".", 1)[0] for name in changed} == decoder
    assert {name.rsplit(".", 1)[1] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(torch.equal(value, weights[name]) for name, value in nvae.named_parameters())
    assert torch.equal(nvae._encode_features(unit_images(3))[0], encoded)
    assert not any(module.training for module in nvae.modules())


@torch.no_grad()
def test_activations_of_cold_samples_are_standardised_afterwards() -> None:
    """In eval mode at t = 0.3 the decoder's BatchNorms give mean 0 and variance 1 (before gain and bias), as they did not before."""
    nvae = lively_nvae()

    def deviation(model: NVAE) -> tuple[float, float]:
        model = copy.deepcopy(model)
        layers = decoder_batch_norms(model)
        seen = inputs_of(model, layers)
        model.decode(noise(model, 2000, seed=9), 0.3)
        mean, log_variance = [], []
        for number, layer in enumerate(layers):
            scale = (layer.running_var + layer.eps).sqrt()[:, None]
            normal = (seen[number][0].transpose(0, 1).flatten(1) - layer.running_mean[:, None]) / scale
            mean.append(normal.mean(1).abs().max())
            log_variance.append(normal.var(1).log().abs().max())
        return float(max(mean)), float(max(log_variance))

    mean, log_variance = deviation(nvae)
    assert mean > 1
    assert log_variance > 1
    readjust_batch_norm(nvae, 0.3, iterations=200, batch_size=64)
    mean, log_variance = deviation(nvae)
    assert mean < 0.15
    assert log_variance < 0.25


@torch.no_grad()
def test_statistics_that_match_already_change_little() -> None:
    nvae, eps = lively_nvae(), noise(lively_nvae(), 50)
    original = nvae.decode(eps).params
    readjust_batch_norm(nvae, 1.0, iterations=150, batch_size=64, seed=1)
    once = nvae.decode(eps).params
    readjust_batch_norm(nvae, 1.0, iterations=150, batch_size=64, seed=2)
    twice = nvae.decode(eps).params
    assert (twice - once).std() < 0.1 * (once - original).std()
    assert (twice - once).std() > 0


def test_temperature_seed_and_iterations_take_effect_and_repeat() -> None:
    def adjusted(temperature: float = 0.6, iterations: int = 4, **options: int) -> Tensor:
        nvae = lively_nvae()
        readjust_batch_norm(nvae, temperature, iterations, **options)
        return torch.cat([layer.running_var for layer in decoder_batch_norms(nvae)])

    reference = adjusted()
    assert torch.equal(adjusted(), reference)
    torch.manual_seed(99)  # the noise is a function of the seed alone
    for changes in ({"temperature": 0.9}, {"iterations": 5}, {"seed": 1}, {"batch_size": 8}):
        assert not torch.equal(adjusted(**changes), reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": 1.01}, "at most 1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": 0.5, "iterations": 0}, "iterations 0"),
        ({"temperature": 0.5, "batch_size": 1}, "batch_size 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, message: str) -> None:
    nvae = lively_nvae()
    before = statistics(nvae)
    with pytest.raises(UserError, match=message):
        readjust_batch_norm(nvae, **options)
    assert all(torch.equal(value, before[name]) for name, value in statistics(nvae).items())


def test_a_decoder_without_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="has none"):
        readjust_batch_norm(lively_nvae(replace(TINY_NVAE, cells="res_elu")), 0.5)


def test_statistics_that_overflow_are_an_error_and_leave_the_model_as_it_was() -> None:
    nvae = lively_nvae()
    for layer in decoder_batch_norms(nvae):
        nn.init.constant_(layer.weight, 1e30)
    before = statistics(nvae)
    with pytest.raises(UserError, match="not finite"):
        readjust_batch_norm(nvae, 0.5, iterations=2)
    assert all(torch.equal(value, before[name]) for name, value in statistics(nvae).items())
    assert not any(module.training for module in nvae.modules())
