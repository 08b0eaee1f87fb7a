"""Glow: the flow inverts, its density is normalised, and its scores and samples depend on their own image alone."""

import json
import math
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch

from baselines.glow import (
    ActNorm,
    Glow,
    GlowArchitecture,
    GlowSampling,
    GlowSystem,
    InvertibleConv,
    LUConv,
    Shuffle,
    ZeroConv,
    bits_per_dim,
    dequantise,
    image_log_prob,
)
from baselines.load import load_system
from baselines.training.config import CONFIGS, read_config
from baselines.training.run import train
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.data import load_images
from vaebm.errors import UserError

torch.set_num_threads(1)


# Every option that changes the flow, and all of them against the defaults.
OPTIONS = {
    "additive": {"coupling": "additive"},
    "shuffle": {"permutation": "shuffle"},
    "reverse": {"permutation": "reverse"},
    "lu": {"lu": True},
    "no top": {"learn_top": False},
    "additive, reverse, no top": {"coupling": "additive", "permutation": "reverse", "learn_top": False},
}
options = pytest.mark.parametrize("option", OPTIONS)


def tiny(image_shape=(8, 8, 3), levels=2, steps=2, width=8, disturb=0.1, **options) -> Glow:
    """A small flow away from its start, where couplings and priors do nothing."""
    torch.manual_seed(0)
    glow = Glow(GlowArchitecture(image_shape, levels, steps, width, **options))
    with torch.no_grad():
        for parameter in glow.parameters():
            parameter += disturb * torch.randn_like(parameter)
    return glow.eval()


def pictures(n=6, image_shape=(8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *image_shape), dtype=np.uint8)


def save(glow: Glow, path, **options):
    architecture = {**asdict(glow.architecture), "image_shape": list(glow.architecture.image_shape)}
    card = {
        "kind": "glow",
        "size": "mini",
        "dataset": "cifar10",
        "architecture": architecture,
        "sampling": {"temperature": 1.0},
    }
    save_checkpoint(path, glow.state_dict(), card, **options)
    return load_checkpoint(path)


@torch.no_grad()
def test_inverse_undoes_forward():
    glow, x = tiny(), torch.rand(5, 3, 8, 8) - 0.5
    zs, _, _ = glow(x)
    assert [tuple(z.shape[1:]) for z in zs] == glow.z_shapes
    torch.testing.assert_close(glow.inverse(zs), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [1, 2])
def test_log_det_is_that_of_the_jacobian(levels):
    glow, x = tiny((4, 4, 2), levels).double(), torch.rand(1, 2, 4, 4, dtype=torch.float64) - 0.5

    def flat(v):
        return torch.cat([z.flatten() for z in glow(v.view_as(x))[0]])

    jacobian = torch.autograd.functional.jacobian(flat, x.flatten())
    assert jacobian.shape == (32, 32)
    # The coupling network answers in float32, hence not 1e-10.
    torch.testing.assert_close(glow(x)[1], torch.linalg.slogdet(jacobian).logabsdet[None], atol=1e-4, rtol=1e-4)


@options
def test_log_det_of_every_option_is_that_of_the_jacobian(option):
    glow, x = tiny((4, 4, 2), **OPTIONS[option]).double(), torch.rand(1, 2, 4, 4, dtype=torch.float64) - 0.5

    def flat(v):
        return torch.cat([z.flatten() for z in glow(v.view_as(x))[0]])

    _, log_det, _ = glow(x)
    expected = torch.linalg.slogdet(torch.autograd.functional.jacobian(flat, x.flatten())).logabsdet[None]
    torch.testing.assert_close(log_det, expected, atol=1e-4, rtol=1e-4)
    assert abs(log_det.item()) > 0.1


@torch.no_grad()
@options
def test_every_option_has_its_inverse(option):
    glow, x = tiny(**OPTIONS[option]), torch.rand(5, 3, 8, 8) - 0.5
    torch.testing.assert_close(glow.inverse(glow(x)[0]), x, atol=1e-4, rtol=0)


@options
def test_every_option_takes_effect_and_survives_a_checkpoint(option, tmp_path):
    glow, images = tiny(**OPTIONS[option]), pictures()
    system = GlowSystem(glow)
    scores = system.score(images)
    assert not np.allclose(scores, GlowSystem(tiny()).score(images), rtol=1e-4)
    torch.manual_seed(5)  # of a shuffle that is drawn before the saved one replaces it
    loaded = GlowSystem.from_checkpoint(save(glow, tmp_path / "a.safetensors"))
    np.testing.assert_allclose(loaded.score(images), scores, rtol=1e-6)
    np.testing.assert_array_equal(loaded.sample([1, 2]), system.sample([1, 2]))


@torch.no_grad()
def test_an_additive_coupling_keeps_volume():
    glow = tiny(coupling="additive", permutation="reverse", disturb=0.0)
    for parameter in (p for name, p in glow.named_parameters() if ".parts.2." in name):
        parameter += 0.1 * torch.randn_like(parameter)
    x = torch.rand(3, 3, 8, 8) - 0.5
    zs, log_det, _ = glow(x)
    assert torch.equal(log_det, torch.zeros(3))
    assert not torch.allclose(zs[0], tiny(coupling="additive", permutation="reverse", disturb=0.0)(x)[0][0])


@torch.no_grad()
def test_lu_starts_at_a_rotation_and_reads_its_triangles_alone():
    torch.manual_seed(0)
    conv = LUConv(12)
    matrix = conv.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(12), atol=1e-5, rtol=0)
    assert conv.log_abs_det().abs() < 1e-5
    conv.lower += torch.ones(12, 12).triu()
    conv.upper += torch.ones(12, 12).tril()
    assert torch.equal(conv.matrix(), matrix)
    conv.log_scale += 0.3
    conv.lower += 0.2 * torch.randn(12, 12)
    conv.upper += 0.2 * torch.randn(12, 12)
    expected = torch.linalg.slogdet(conv.matrix().double()).logabsdet.float()
    torch.testing.assert_close(conv.log_abs_det(), expected, atol=1e-4, rtol=0)


def test_shuffles_are_drawn_and_reversals_are_not_kept():
    torch.manual_seed(0)
    orders = [Shuffle(24, reverse=False).order.tolist() for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(24)) for order in orders)
    x = torch.arange(4.0).view(1, 4, 1, 1)
    reverse = Shuffle(4, reverse=True)
    assert reverse(x)[0].flatten().tolist() == [3, 2, 1, 0]
    assert not reverse.state_dict()


def test_without_a_learned_top_the_last_z_is_standard_normal():
    glow = tiny(levels=1, learn_top=False)
    assert "top" not in glow.state_dict()
    with torch.no_grad():
        (z,), _, log_prior = glow(torch.rand(3, 3, 8, 8) - 0.5)
    torch.testing.assert_close(log_prior, torch.distributions.Normal(0, 1).log_prob(z).sum(dim=(1, 2, 3)))


@torch.no_grad()
@pytest.mark.parametrize("conv", [InvertibleConv, LUConv])
def test_no_channel_map_runs_in_half_precision(conv):
    layer, x = conv(12), torch.rand(2, 12, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y, log_det = layer(x)
    assert torch.equal(y, layer(x)[0])
    assert torch.equal(log_det, layer(x)[1])


def test_the_bundled_weights_score_and_draw_what_they_always_did():
    """Numbers recorded before the flow had options."""
    system = load_system("glow")
    images = np.concatenate([load_images(name, n=3).images for name in ("cifar10", "svhn")])
    expected = [-8544.353515625, -6953.296875, -7289.1640625, -5290.1787109375, -5132.66015625, -5663.857421875]
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-5)
    drawn = system.sample([0, 1, 2])
    np.testing.assert_allclose(drawn.astype(int).sum(axis=(1, 2, 3)), [430504, 242377, 363596], rtol=1e-4)
    corner = [[154, 172, 159, 79, 95, 101, 199, 217, 65], [115, 52, 109, 176, 88, 32, 69, 62, 107]]
    assert np.abs(drawn[:2, ::15, ::15, 0].reshape(2, -1).astype(int) - corner).max() <= 1


def test_unknown_and_contradictory_options_are_refused():
    with pytest.raises(UserError, match=r"architecture: unknown coupling 'afine'.*Did you mean 'affine'"):
        GlowArchitecture(coupling="afine")
    with pytest.raises(UserError, match=r"architecture: unknown permutation '1x1'.*conv, reverse, shuffle"):
        GlowArchitecture(permutation="1x1")
    with pytest.raises(UserError, match="lu decomposes 1x1 convolutions; permutation 'reverse' has none"):
        GlowArchitecture(permutation="reverse", lu=True)


def test_the_paper_configuration_is_the_published_architecture():
    architecture = read_config("glow", "paper-cifar10").architecture
    assert architecture == GlowArchitecture((32, 32, 3), levels=3, steps=32, width=512, coupling="affine")


@pytest.mark.parametrize("option", ["additive", "shuffle", "reverse", "lu", "no top"])
def test_every_option_trains(option, tmp_path):
    text = (CONFIGS / "glow-mini-cifar10.toml").read_text()
    changes = {"image_shape": "[8, 8, 3]", "levels": "2", "steps": "2", "width": "8", "batch_size": "8", "warmup": "2"}
    for key, value in changes.items():
        text = re.sub(rf"^{key} = .*", f"{key} = {value}", text, flags=re.MULTILINE)
    (key, value), *_ = OPTIONS[option].items()
    text = text.replace("[sampling]", f"{key} = {json.dumps(value)}\n[sampling]")
    path = tmp_path / "own.toml"
    path.write_text(text)
    found = train(read_config("glow", str(path)), pictures(50), tmp_path / "run", command="train", progress=False)
    system = GlowSystem.from_checkpoint(load_checkpoint(found))
    assert getattr(system.network.architecture, key) == value
    assert np.isfinite(system.score(pictures())).all()


@torch.no_grad()
def test_density_integrates_to_one():
    glow = tiny((2, 2, 1), levels=1, steps=2, disturb=0.15)
    proposal = torch.distributions.Normal(0.0, 2.0)
    x = proposal.sample((200_000, 1, 2, 2))
    weights = (glow.log_prob(x) - proposal.log_prob(x).sum(dim=(1, 2, 3))).exp().double()
    standard_error = weights.std() / math.sqrt(len(weights))
    assert standard_error < 0.02
    assert abs(weights.mean() - 1) < 5 * standard_error


@torch.no_grad()
def test_decoding_is_the_inverse_of_standardising():
    """At temperature 1, log p(x) of a decoded x is log N(eps; 0, I) plus the log-determinant of x -> eps."""
    glow = tiny()
    eps = [torch.randn(4, *shape) for shape in glow.z_shapes]
    x = glow.decode(eps)
    zs, log_det, log_prior = glow(x)
    log_normal = sum(-0.5 * (e**2 + math.log(2 * math.pi)).sum(dim=(1, 2, 3)) for e in eps)
    top_scale = glow.top.chunk(2)[1].sum() * zs[-1].shape[2] * zs[-1].shape[3]
    kept = glow.inverse(zs)
    torch.testing.assert_close(kept, x, atol=1e-4, rtol=0)
    # sigma of the first prior depends on x: read it where the flow reads it.
    h = torch.nn.functional.pixel_unshuffle(x, 2)
    for step in glow.levels[0]:
        h, _ = step(h)
    split_scale = glow.priors[0](h[:, : h.shape[1] // 2]).chunk(2, dim=1)[1].sum(dim=(1, 2, 3))
    torch.testing.assert_close(log_prior, log_normal - top_scale - split_scale, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(glow.log_prob(x), log_det + log_prior)


@torch.no_grad()
def test_first_batch_makes_actnorm_outputs_standard():
    torch.manual_seed(0)
    glow = Glow(GlowArchitecture((8, 8, 3), 2, 2, 8))
    x = 0.2 * torch.rand(64, 3, 8, 8) + 0.3
    glow.initialise(x)
    seen = []
    for module in glow.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    glow.log_prob(x)
    assert len(seen) == 4
    for y in seen:
        torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(y.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(y.var(dim=(0, 2, 3), correction=0), torch.ones(y.shape[1]), atol=1e-2, rtol=0)
    before = {name: value.clone() for name, value in glow.state_dict().items()}
    glow.log_prob(torch.randn_like(x))  # a later batch changes nothing
    assert all(torch.equal(value, before[name]) for name, value in glow.state_dict().items())


@torch.no_grad()
def test_bits_per_dim_of_the_identity_flow():
    glow = tiny(disturb=0.0)
    for module in glow.modules():
        if isinstance(module, InvertibleConv):
            module.weight.copy_(torch.eye(len(module.weight)))
        if isinstance(module, ZeroConv) and module not in list(glow.priors):
            module.bias[len(module.bias) // 2 :] = 30.0  # sigmoid(32) = 1
    images, u = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8), torch.rand(3, 3, 8, 8)
    x = (images.double() + u) / 256 - 0.5
    expected = (0.5 * x**2 + 0.5 * math.log(2 * math.pi)).mean(dim=(1, 2, 3)) / math.log(2) + 8
    torch.testing.assert_close(bits_per_dim(image_log_prob(glow, images, u), 192).double(), expected, atol=1e-5, rtol=0)


def test_uniform_bytes_cost_eight_bits():
    assert bits_per_dim(-192 * math.log(256), 192) == pytest.approx(8)


def test_dequantised_bytes_stay_in_their_bins():
    images = torch.tensor([0, 255], dtype=torch.uint8)
    assert dequantise(images, torch.zeros(2)).tolist() == [-0.5, 255 / 256 - 0.5]


def test_score_depends_on_the_image_alone():
    images = pictures()
    scores = GlowSystem(tiny(), GlowSampling()).score(images)
    assert scores.dtype == np.float64
    assert scores.shape == (6,)
    np.testing.assert_allclose(GlowSystem(tiny(), GlowSampling(), batch_size=1).score(images), scores, rtol=1e-5)
    np.testing.assert_allclose(
        GlowSystem(tiny(), GlowSampling(), batch_size=4).score(images[::-1]), scores[::-1], rtol=1e-5
    )
    assert not np.allclose(GlowSystem(tiny(), GlowSampling(), seed=1).score(images), scores, rtol=1e-7)


def test_score_is_the_dequantised_log_probability():
    """Averaging over seeds approaches the mean over plain uniform noise."""
    images, glow = pictures(2), tiny()
    keyed = np.mean([GlowSystem(glow, GlowSampling(), seed=seed).score(images) for seed in range(64)], axis=0)
    with torch.no_grad():
        bytes_ = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).repeat(64, 1, 1, 1)
        plain = image_log_prob(glow, bytes_, torch.rand(128, 3, 8, 8)).view(64, 2)
    error = plain.std(dim=0).numpy() / 8
    np.testing.assert_array_less(np.abs(keyed - plain.mean(dim=0).numpy()), 6 * error + 1e-3)


def test_sample_depends_on_its_seed_alone():
    system = GlowSystem(tiny(), GlowSampling(1.0))
    images = system.sample([3, 4, 5])
    assert images.dtype == np.uint8
    assert images.shape == (3, 8, 8, 3)
    alone = GlowSystem(tiny(), GlowSampling(1.0), batch_size=1).sample([5, 4, 3])[::-1]
    assert np.abs(images.astype(int) - alone).max() <= 1  # a pixel on the edge of a bin may fall either way
    assert not np.array_equal(images[0], images[1])
    assert system.sample([]).shape == (0, 8, 8, 3)


def test_temperature_zero_is_one_image():
    images = GlowSystem(tiny(), GlowSampling(0.0)).sample([1, 2])
    assert np.array_equal(images[0], images[1])


def test_checkpoint_round_trip(tmp_path):
    glow, images = tiny(), pictures()
    expected = GlowSystem(glow, GlowSampling()).score(images)
    system = GlowSystem.from_checkpoint(save(glow, tmp_path / "a.safetensors"), batch_size=3)
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-6)
    assert system.image_shape == (8, 8, 3)
    assert system.size == "mini"
    half = GlowSystem.from_checkpoint(save(glow, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(images), expected, rtol=1e-2)
    assert half.fingerprint != system.fingerprint
    cooler = GlowSystem.from_checkpoint(load_checkpoint(tmp_path / "a.safetensors"), temperature=0.5)
    assert cooler.recipe != system.recipe
    assert cooler.fingerprint == system.fingerprint, "its scores are the same"
    assert not np.array_equal(cooler.sample([1]), system.sample([1]))


def test_mistakes_are_named(tmp_path):
    checkpoint = save(tiny(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'temprature'.*temperature"):
        GlowSystem.from_checkpoint(checkpoint, temprature=0.5)
    with pytest.raises(UserError, match=r"temperature -1"):
        GlowSystem.from_checkpoint(checkpoint, temperature=-1)
    del checkpoint.weights["top"]
    with pytest.raises(UserError, match="here: weight 'top' is missing"):
        GlowSystem.from_checkpoint(checkpoint, origin="here")
    with pytest.raises(UserError, match=r"found uint8 \(2, 4, 4, 3\), needed uint8 \(N, 8, 8, 3\)"):
        GlowSystem(tiny(), GlowSampling()).score(np.zeros((2, 4, 4, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="cannot be halved 4 times"):
        GlowArchitecture((8, 8, 3), levels=4)
