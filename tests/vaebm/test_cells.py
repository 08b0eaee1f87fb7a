"""Every cell of the layout: shapes, reach, and models built from them."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY_NVAE, lively_nvae, noise, unit_images
from torch import nn

from vaebm.nvae import NVAE, adaptive_groups
from vaebm.nvae.cells import CELLS, ResidualCell, make_primitive

PRIMITIVES = sorted({name for cells in CELLS.values() for part in vars(cells).values() for name in part})


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize(("stride", "channels", "size"), [(1, 8, 8), (2, 16, 4), (-1, 4, 16)])
def test_cell_changes_width_and_resolution_by_its_stride(primitive: str, stride: int, channels: int, size: int) -> None:
    cell = ResidualCell((primitive,), 8, stride, squeeze_excite=True).eval()
    assert cell(torch.rand(2, 8, 8, 8)).shape == (2, channels, size, size)


def reach(module: nn.Module, channels: int) -> int:
    """Return how many pixels to each side of the centre an output depends on."""
    x = torch.rand(1, channels, 33, 33, requires_grad=True)
    module.double()(x.double())[0, :, 16, 16].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero()
    return int((touched - 16).abs().max())


@pytest.mark.parametrize(
    ("primitive", "expected"),
    [
        ("res_elu", 1),
        ("res_bnelu", 1),
        ("res_bnswish", 1),
        ("res_bnswish5", 2),
        ("mconv_e3k5g0", 2),
        ("mconv_e6k11g0", 5),
    ],
)
def test_primitive_sees_as_far_as_its_kernel(primitive: str, expected: int) -> None:
    torch.manual_seed(0)
    assert reach(make_primitive(primitive, 4, 4, 1).eval(), 4) == expected


def test_groups_of_a_mobile_convolution() -> None:
    depthwise = lambda name: make_primitive(name, 8, 8, 1).depthwise.conv
    assert depthwise("mconv_e3k5g0").groups == 24
    assert depthwise("mconv_e3k5g8").groups == 8
    assert depthwise("mconv_e3k5g8").weight.shape == (24, 3, 5, 5)


def test_activations_are_what_their_names_say() -> None:
    x = torch.linspace(-3, 3, 8).view(1, 8, 1, 1)
    for name, act in (
        ("res_elu", nn.functional.elu),
        ("res_bnelu", nn.functional.elu),
        ("res_bnswish", nn.functional.silu),
    ):
        primitive = make_primitive(name, 8, 8, 1).eval()  # fresh BatchNorm: identity up to eps
        torch.testing.assert_close(primitive(x), primitive.conv(act(x)), rtol=1e-4, atol=1e-4)


def test_unknown_primitive_is_named() -> None:
    with pytest.raises(ValueError, match="unknown primitive 'res_relu'"):
        make_primitive("res_relu", 4, 4, 1)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_models_of_every_cell_encode_decode_and_train(name: str) -> None:
    # Groups of 8 in mbconv_den need widths that they divide.
    nvae = lively_nvae(replace(TINY_NVAE, cells=name, channels_enc=8, channels_dec=8))
    eps, x = noise(nvae, 2), unit_images(2)
    assert nvae.decode(eps).params.shape == (2, 6, 8, 8)
    nvae.train()
    log_px, kl = nvae.elbo(x, eps)
    (kl.sum(1) - log_px).mean().backward()
    dead = [key for key, p in nvae.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


def test_vanilla_model_decodes_z_alone() -> None:
    config = replace(TINY_NVAE, groups_per_scale=(1,))
    nvae = lively_nvae(config)
    assert config.vanilla
    assert len(nvae.enc_tower) == len(nvae.dec_tower) == len(nvae.dec_sampler) == 0
    eps = noise(nvae, 3)
    before = nvae.decode(eps)
    with torch.no_grad():
        nvae.prior_ftr0.add_(1.0)  # a parameter of the layout that nothing reads
    assert torch.equal(nvae.decode(eps).params, before.params)
    torch.testing.assert_close(before.z[0], 1.01 * eps[0])
    out = nvae.encode(unit_images(3), eps)
    assert out.kl_per_group.shape == (3, 1)
    torch.testing.assert_close(nvae.decode([out.z[0] / 1.01]).params, out.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((3, 20), (5, 10, 20)), ((5, 16, 4), (4, 4, 4, 8, 16)), ((3, 1), (1, 1, 1)), ((1, 30), (30,)), ((2, 5), (2, 5))],
)
def test_adaptive_groups_halve_towards_coarse_scales(arguments: tuple, expected: tuple) -> None:
    assert adaptive_groups(*arguments) == expected


def test_encoding_without_given_noise_draws_it() -> None:
    nvae, x = lively_nvae(), unit_images(2)
    torch.manual_seed(0)
    first, second = nvae.encode(x), nvae.encode(x)
    assert not torch.equal(first.z[0], second.z[0])
    torch.manual_seed(0)
    assert torch.equal(nvae.encode(x).z[0], first.z[0])


def test_quantised_images_have_the_models_bits_and_stay_so() -> None:
    nvae = NVAE(replace(TINY_NVAE, bits=5))
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    quantised = nvae.quantise(x)
    expected = torch.arange(256).view(1, 1, 16, 16) // 8 / 31
    torch.testing.assert_close(quantised, expected.float())
    assert torch.equal(nvae.quantise(quantised), quantised)
    assert torch.equal(NVAE(TINY_NVAE).quantise(x), x)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic_mixture"])
def test_five_bit_models_score_an_image_as_its_quantised_self(likelihood: str) -> None:
    nvae = lively_nvae(replace(TINY_NVAE, bits=5, likelihood=likelihood, mixtures=2))
    x, eps = unit_images(3), noise(nvae, 3)
    torch.testing.assert_close(nvae.log_prob_bound(x, [eps]), nvae.log_prob_bound(nvae.quantise(x), [eps]))
    assert not torch.equal(nvae.quantise(x), x)
