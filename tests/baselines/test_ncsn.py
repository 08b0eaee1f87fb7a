"""NCSN and NCSNv2: chains reach known moments, the network is the one of the papers, an image depends on its seed alone."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.backbones.refinenet import InstanceNormPlus, RefineNet
from baselines.ncsn import (
    NCSN,
    AnnealedLangevin,
    NCSNArchitecture,
    NCSNSampling,
    NCSNSystem,
    annealed_langevin,
    geometric,
)
from baselines.ncsnv2 import NCSNv2, NCSNv2Architecture, NCSNv2Sampling, NCSNv2System
from evaluators.protocols import Sampler, Scorer
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError

torch.set_num_threads(1)

SMALL = (8, 8, 3)
SEEDS = (3, 1, 2)
CASES = {
    "ncsn": (NCSNSystem, NCSNArchitecture(SMALL, 4, 3), NCSNSampling(step_lr=1e-4, steps_per_level=2)),
    "ncsnv2": (NCSNv2System, NCSNv2Architecture(SMALL, 4, 3, 5.0), NCSNv2Sampling(step_lr=1e-5, steps_per_level=2)),
}


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def build(case, recipe=None, **about):
    kind, architecture, small = case
    torch.manual_seed(0)
    return kind(kind.Network(architecture), recipe or small, **about)


def pictures(n=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *SMALL), dtype=np.uint8)


# The sampler


@pytest.mark.parametrize("denoise", [False, True])
def test_chains_have_the_moments_of_a_gaussian(denoise):
    """Data N(1, s^2): with noise sigma the score is -(x - 1) / (s^2 + sigma^2)."""
    n, s2, sigmas, step_lr = 20_000, 0.04, [1.0, 0.3, 0.1], 2e-3
    generator = torch.Generator().manual_seed(0)
    x = annealed_langevin(
        lambda x, i: -(x - 1) / (s2 + sigmas[i] ** 2),
        torch.rand(n, 1, generator=generator),
        lambda i, k: torch.randn(n, 1, generator=generator),
        sigmas,
        step_lr=step_lr,
        steps_per_level=150,
        denoise=denoise,
    )
    # The last level is an AR(1) process, whose variance is exact in the step size; denoising is a linear map.
    v = s2 + sigmas[-1] ** 2
    variance = v / (1 - step_lr / (2 * v)) * ((1 - sigmas[-1] ** 2 / v) ** 2 if denoise else 1)
    assert abs(x.mean().item() - 1) < 5 * math.sqrt(variance / n)
    assert abs(x.var().item() / variance - 1) < 5 * math.sqrt(2 / n)


def test_steps_shrink_with_the_noise_and_the_last_one_has_none():
    asked = []

    def score(x, i):
        asked.append(i)
        return torch.full_like(x, 3.0)

    def noise(i, k):
        asked.append((i, k))
        return torch.full((1, 1), 0.5)

    settings = {"step_lr": 0.01, "steps_per_level": 2}
    x = annealed_langevin(score, torch.zeros(1, 1), noise, [4.0, 2.0], **settings, denoise=False)
    steps = [0.04, 0.04, 0.01, 0.01]
    assert x.item() == pytest.approx(sum(3 * a + 0.5 * math.sqrt(2 * a) for a in steps))
    assert asked == [0, (0, 0), 0, (0, 1), 1, (1, 0), 1, (1, 1)]
    denoised = annealed_langevin(score, torch.zeros(1, 1), noise, [4.0, 2.0], **settings, denoise=True)
    assert denoised.item() - x.item() == pytest.approx(2.0**2 * 3)


def test_noise_levels_are_geometric():
    sigmas = geometric(50.0, 0.01, 232)
    assert (sigmas[0].item(), sigmas[-1].item()) == pytest.approx((50, 0.01))
    ratios = sigmas[1:] / sigmas[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    assert NCSNv2(NCSNv2Architecture(SMALL, 2)).sigmas.tolist() == pytest.approx(sigmas.tolist(), rel=1e-6)
    assert build(CASES["ncsn"]).sigmas == pytest.approx([1.0, 0.1, 0.01])


# The network


@pytest.mark.parametrize("levels", [None, 3])
def test_instance_norm_plus_is_its_formula(levels):
    torch.manual_seed(0)
    norm, x, level = InstanceNormPlus(5, levels), torch.randn(2, 5, 4, 6) + 2, torch.tensor([2, 0])
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
        y = norm(x, level).numpy()
    for n, image in enumerate(x.numpy()):
        if levels is None:
            gamma, alpha, beta = (getattr(norm, name).detach().numpy() for name in ("gamma", "alpha", "beta"))
        else:
            gamma, alpha, beta = norm.embed.weight.detach().numpy()[level[n]].reshape(3, 5)
        means = image.mean(axis=(1, 2))
        m = (means - means.mean()) / np.sqrt(means.var(ddof=1) + 1e-5)
        for c in range(5):
            h = (image[c] - means[c]) / np.sqrt(image[c].var() + 1e-5)
            np.testing.assert_allclose(y[n, c], gamma[c] * (h + alpha[c] * m[c]) + beta[c], rtol=1e-4, atol=1e-5)


def reference(state: dict[str, Tensor], x: Tensor, level: int) -> Tensor:
    """The network written out over its state dict, layer after layer; the weights say by their names where normalisations are."""

    def conv(h, name, dilation=1):
        kernel = state[f"{name}.weight"]
        return F.conv2d(
            h, kernel, state.get(f"{name}.bias"), padding=dilation * (kernel.shape[2] // 2), dilation=dilation
        )

    def norm(h, name):
        if f"{name}.embed.weight" in state:
            gamma, alpha, beta = state[f"{name}.embed.weight"][level].chunk(3)
        elif f"{name}.gamma" in state:
            gamma, alpha, beta = (state[f"{name}.{gain}"] for gain in ("gamma", "alpha", "beta"))
        else:
            return h
        means = h.mean((2, 3))
        means = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + 1e-5).sqrt()
        h = F.instance_norm(h) + (alpha * means)[..., None, None]
        return gamma[:, None, None] * h + beta[:, None, None]

    def pooled(h):
        return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4

    def residual(h, name, dilation):
        out = conv(F.elu(norm(h, f"{name}.normalize1")), f"{name}.conv1", dilation)
        out = F.elu(norm(out, f"{name}.normalize2"))
        if f"{name}.conv2.conv.weight" in state:
            return pooled(conv(h, f"{name}.shortcut.conv")) + pooled(conv(out, f"{name}.conv2.conv"))
        short = conv(h, f"{name}.shortcut", dilation) if f"{name}.shortcut.weight" in state else h
        return short + conv(out, f"{name}.conv2", dilation)

    def units(h, name, count):
        for unit in range(1, count + 1):
            inner = conv(F.elu(norm(h, f"{name}.{unit}_1_norm")), f"{name}.{unit}_1_conv")
            h = h + conv(F.elu(norm(inner, f"{name}.{unit}_2_norm")), f"{name}.{unit}_2_conv")
        return h

    def refine(name, hs, count=1):
        hs = [units(h, f"{name}.adapt_convs.{i}", 2) for i, h in enumerate(hs)]
        if len(hs) > 1:
            hs = [conv(norm(h, f"{name}.msf.norms.{i}"), f"{name}.msf.convs.{i}") for i, h in enumerate(hs)]
        sizes = hs[0].shape[2:]
        h = F.elu(sum(F.interpolate(h, sizes, mode="bilinear", align_corners=True) for h in hs))
        path = h
        for i in range(2):
            path = norm(path, f"{name}.crp.norms.{i}")
            pool = torch.nn.AvgPool2d if "normalizer.embed.weight" in state else torch.nn.MaxPool2d
            path = conv(pool(5, 1, 2)(path), f"{name}.crp.convs.{i}")
            h = h + path
        return units(h, f"{name}.output_convs", count)

    h = conv(2 * x - 1, "begin_conv")
    maps = []
    for stage, dilation in ((1, 1), (2, 1), (3, 2), (4, 4)):
        for block in range(2):
            h = residual(h, f"res{stage}.{block}", dilation)
        maps.append(h)
    h = refine("refine1", maps[3:])
    h = refine("refine2", [maps[2], h])
    h = refine("refine3", [maps[1], h])
    h = refine("refine4", [maps[0], h], 3)
    return conv(F.elu(norm(h, "normalizer")), "end_conv")


@torch.no_grad()
@pytest.mark.parametrize("levels", [None, 3])
def test_the_network_is_the_one_written_out(levels):
    torch.manual_seed(0)
    network, x = RefineNet(3, 4, levels).eval(), torch.rand(2, 3, 12, 8)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # gains and biases, too
    for level in (0, 2):
        expected = reference(network.state_dict(), x, level)
        assert expected.shape == x.shape
        torch.testing.assert_close(network(x, torch.full((2,), level)), expected, rtol=1e-3, atol=1e-4)
    if levels:  # an image is treated by its own level
        mixed = network(x, torch.tensor([0, 2]))
        torch.testing.assert_close(mixed[:1], network(x[:1], torch.tensor([0])), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(mixed[1], network(x[1:], torch.tensor([0]))[0])


@torch.no_grad()
def test_ncsnv2_divides_by_sigma():
    system = build(CASES["ncsnv2"])
    network, x = system.network, torch.rand(2, *SMALL[::-1])
    for level, sigma in enumerate(system.sigmas):
        plain = RefineNet.forward(network, x, torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(network(x, torch.full((2,), level)), plain / sigma)


def parameter_count(w: int, levels: int | None) -> int:
    """Counted by hand: convolutions, then one gain triple per channel wherever a normalisation is."""
    k, v = 9, 2 * w
    convs = (3 * w * k + w) + (w * 3 * k + 3)  # in and out
    convs += 4 * (w * w * k + w)  # res1
    convs += (w * w * k + w) + (w * v * k + v) + (w * v + v) + 2 * (v * v * k + v)  # res2, its shortcut 1x1
    convs += 2 * 5 * (v * v * k + v)  # res3 and res4, their shortcuts 3x3
    convs += (4 + 2 + 2) * v * v * k  # refine1: adapt, pool, output
    convs += (8 + 2 + 2) * v * v * k + 2 * (v * v * k + v)  # refine2, its fusion with biases
    convs += 8 * v * v * k + (2 + 2) * w * w * k + 2 * (v * w * k + w)  # refine3
    convs += (8 + 2 + 6) * w * w * k + 2 * (w * w * k + w)  # refine4
    normed = (4 * w) + (2 * w + 2 * v) + 2 * 4 * v + w  # residual blocks and the last
    if levels is not None:
        normed += 8 * v + (8 + 2 + 2 + 2) * v + (8 + 2) * v + (2 + 2) * w + (8 + 2 + 6 + 2) * w
    return convs + 3 * normed * (levels or 1)


def test_published_sizes():
    assert parameter_count(128, None) == 29_694_083
    with torch.device("meta"):
        ncsn, ncsnv2 = NCSN(NCSNArchitecture()), NCSNv2(NCSNv2Architecture())
    assert sum(p.numel() for p in ncsnv2.parameters()) == parameter_count(128, None)
    assert sum(p.numel() for p in ncsn.parameters()) == parameter_count(128, 10)
    assert ncsnv2.sigmas.shape == (232,)


def test_recipes_are_the_published_ones():
    assert asdict(NCSNSampling()) == {
        "step_lr": 2e-5,
        "steps_per_level": 100,
        "denoise": False,
        "sigma_begin": 1.0,
        "sigma_end": 0.01,
    }
    assert asdict(NCSNv2Sampling()) == {"step_lr": 6.2e-6, "steps_per_level": 5, "denoise": True}


def test_a_network_of_paper_size_is_a_system_without_a_checkpoint():
    for kind in (NCSNSystem, NCSNv2System):
        system = kind(network=kind.Network(kind.Architecture()))
        assert system.image_shape == (32, 32, 3)
        assert np.isfinite(system.score_gradient_norm(np.zeros((1, 32, 32, 3), np.uint8))).all()


# The systems


def test_it_samples_and_has_no_score(case):
    system = build(case)
    assert isinstance(system, Sampler)
    assert not isinstance(system, Scorer)
    assert "no density" in system.protocol["score"]
    for facts in (system.protocol, system.fingerprint, system.recipe):
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert system.fingerprint["kind"] == system.kind


def test_an_image_is_a_function_of_its_seed_alone(case):
    system = build(case)
    samples = system.sample(SEEDS)
    assert samples.dtype == np.uint8
    assert samples.shape == (3, *SMALL)
    np.testing.assert_array_equal(system.sample(SEEDS[::-1])[::-1], samples)
    np.testing.assert_array_equal(system.sample(SEEDS[1:2]), samples[1:2])
    np.testing.assert_array_equal(build(case, batch_size=2).sample([*range(100, 120), *SEEDS])[20:], samples)
    assert len(np.unique(samples.reshape(3, -1), axis=0)) == 3
    assert (build(case, seed=1).sample(SEEDS) != samples).any(axis=(1, 2, 3)).all()
    assert system.sample([]).shape == (0, *SMALL)


def test_sampling_leaves_no_trace(case):
    system = build(case)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = system.sample([1])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(system.sample([1]), first)


def test_samples_are_the_chain_of_the_recipe(case):
    """What is asked of the network, in order: levels, steps, and one more where the last step denoises."""
    system = build(case)
    asked, inner = [], system.network.forward
    system.network.forward = lambda x, level: asked.append(set(level.tolist())) or inner(x, level)
    system.sample([0])
    assert asked == [{0}, {0}, {1}, {1}, {2}, {2}, *([{2}] if system.settings.denoise else [])]


def test_a_chain_that_explodes_is_still_an_image(case):
    system = build(case)
    system.network.forward = lambda x, level: torch.full_like(x, math.nan)
    assert (system.sample([0]) == 128).all()


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        *[("ncsn", option, value) for option, value in (("step_lr", 1e-3), ("steps_per_level", 3), ("denoise", True))],
        ("ncsn", "sigma_begin", 2.0),
        ("ncsn", "sigma_end", 0.02),
        *[
            ("ncsnv2", option, value)
            for option, value in (("step_lr", 1e-3), ("steps_per_level", 3), ("denoise", False))
        ],
    ],
)
def test_every_option_takes_effect_on_samples_alone(tmp_path, name, option, value):
    kind, architecture, recipe = CASES[name]
    torch.manual_seed(0)
    network = kind.Network(architecture)
    with torch.no_grad():
        network.end_conv.weight.mul_(30)  # scores large enough for one denoising step to show in bytes
    card = {
        "kind": name,
        "size": "own",
        "dataset": "cifar10",
        "architecture": asdict(architecture),
        "sampling": asdict(recipe),
    }
    save_checkpoint(tmp_path / "a.safetensors", network.state_dict(), card)
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    plain, other = kind.from_checkpoint(checkpoint), kind.from_checkpoint(checkpoint, **{option: value})
    assert set(kind.options) == set(asdict(recipe))
    np.testing.assert_array_equal(plain.sample([1]), kind(network, recipe).sample([1]))
    assert not np.array_equal(plain.sample([1]), other.sample([1]))
    assert other.recipe == {**plain.recipe, option: value}
    assert (other.fingerprint, other.protocol) == (plain.fingerprint, plain.protocol)
    np.testing.assert_array_equal(other.score_gradient_norm(pictures()), plain.score_gradient_norm(pictures()))


@torch.no_grad()
def test_score_gradient_norm_is_that_of_the_network_at_the_lowest_noise(case):
    system, images = build(case), pictures()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    expected = system.network(x, torch.full((6,), 2)).double().square().sum((1, 2, 3)).sqrt().numpy()
    found = system.score_gradient_norm(images)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.std() > 1e-3 * found.mean()
    np.testing.assert_allclose(build(case, batch_size=4).score_gradient_norm(images[::-1])[::-1], found, rtol=1e-5)
    assert system.score_gradient_norm(images[:0]).shape == (0,)


def test_mistakes_are_named(case):
    system = build(case)
    with pytest.raises(UserError, match=r"needed uint8 \(N, 8, 8, 3\)"):
        system.score_gradient_norm(np.zeros((2, *SMALL), dtype=np.float32))
    with pytest.raises(UserError, match="step_lr 0"):
        type(system.settings)(step_lr=0)
    with pytest.raises(UserError, match="steps_per_level 0"):
        type(system.settings)(steps_per_level=0)
    for wrong in ({"image_shape": (7, 8, 3)}, {"width": 1}, {"levels": 0}):
        with pytest.raises(UserError, match="even H and W"):
            case[0].Architecture(**wrong)


def test_levels_of_noise_must_fall():
    with pytest.raises(UserError, match=r"sigma_begin 0.001, sigma_end 0.01"):
        NCSNSampling(sigma_begin=0.001)
    with pytest.raises(UserError, match="needs 0 < sigma_end <= sigma_begin"):
        NCSNv2Architecture(sigma_end=-1.0)
    assert issubclass(NCSNSampling, AnnealedLangevin)
