"""PixelCNN: its probabilities sum to 1, a conditional sees what came before it and nothing else, the fast sampler is the plain one."""

import itertools
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import logistic
from torch import Tensor
from training_checks import assert_differ, assert_resumes_exactly

from baselines.pixelcnn import (
    LOG_SCALE_MIN,
    PixelCNN,
    PixelCNNArchitecture,
    PixelCNNSampling,
    PixelCNNSystem,
    PixelMixture,
    quantise,
    scaled,
)
from baselines.training.config import CONFIGS, read_config
from baselines.training.pixelcnn import PixelCNNTask
from baselines.training.run import train
from vaebm.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from vaebm.errors import UserError
from vaebm.nvae.decoders import LogisticMixtureDecoder

torch.set_num_threads(1)

SMALL = PixelCNNArchitecture((6, 7, 3), filters=8, layers=2, mixtures=3)


def network(architecture: PixelCNNArchitecture = SMALL, disturb: float = 0.2, seed: int = 0) -> PixelCNN:
    """A small network away from its start."""
    torch.manual_seed(seed)
    net = PixelCNN(architecture).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter += disturb * torch.randn_like(parameter)
    return net


def pictures(n: int = 5, shape: tuple[int, int, int] = SMALL.image_shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def all_images(shape: tuple[int, int, int], bits: int) -> Tensor:
    """Every image there is, (2^(bits H W C), C, H, W)."""
    height, width, channels = shape
    values = list(itertools.product(range(2**bits), repeat=height * width * channels))
    return torch.tensor(values).view(-1, channels, height, width)


def mixture(channels: int = 3, bits: int = 8, seed: int = 0, n: int = 1) -> PixelMixture:
    """Four logistics at random, n times the same."""
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(1, 4 * (1 + 2 * channels + channels * (channels - 1) // 2), generator=generator)
    return PixelMixture.from_params(params.expand(n, -1), channels, bits)


@pytest.mark.parametrize(
    ("shape", "bits"),
    [((2, 2, 1), 2), ((1, 1, 3), 3), ((1, 2, 2), 2), ((2, 1, 3), 1), ((1, 1, 1), 8), ((3, 3, 1), 1), ((1, 1, 4), 2)],
)
def test_probabilities_of_all_images_sum_to_one(shape: tuple[int, int, int], bits: int) -> None:
    net = network(PixelCNNArchitecture(shape, filters=8, layers=2, mixtures=3, bits=bits), disturb=0.5)
    probabilities = net.log_prob(all_images(shape, bits)).double().exp()
    assert abs(probabilities.sum().item() - 1) < 1e-5
    assert probabilities.std() > 0.01 * probabilities.mean(), "not merely uniform"


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 5.0])
def test_every_bin_of_eight_bits_counts_once_at_any_scale(log_scale: float) -> None:
    """The tails, too: those of the first and the last value must not overlap their neighbours'."""
    found = PixelMixture(
        torch.zeros(1, 1), torch.tensor([[[0.97]]]), torch.tensor([[[log_scale]]]), torch.zeros(1, 0, 1), 8
    )
    x = scaled(torch.arange(256), 8)[:, None]
    assert found.log_prob(x).double().exp().sum().item() == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (3, 5), (2, 1)])
def test_a_pixel_has_the_probability_of_scipys_logistics(channels: int, bits: int) -> None:
    found = mixture(channels, bits)
    rng, top = np.random.default_rng(0), 2**bits - 1
    values = np.concatenate([rng.integers(0, top + 1, (50, channels)), [[0] * channels, [top] * channels]])
    expected = []
    for value in values:
        x = 2 * value / top - 1
        total = 0.0
        for m in range(4):
            probability, pair = found.log_weights[0, m].double().exp().item(), 0
            for c in range(channels):
                mean = found.means[0, c, m].item()
                for d in range(c):
                    mean += found.coefficients[0, pair, m].item() * x[d]
                    pair += 1
                cut = logistic(mean, math.exp(found.log_scales[0, c, m].item())).cdf
                upper = 1.0 if value[c] == top else cut(x[c] + 1 / top)
                lower = 0.0 if value[c] == 0 else cut(x[c] - 1 / top)
                probability *= upper - lower
            total += probability
        expected.append(math.log(total))
    x = scaled(torch.from_numpy(values), bits)
    np.testing.assert_allclose(found.log_prob(x), expected, rtol=2e-5, atol=2e-5)


def test_inside_the_range_it_is_the_decoder_of_the_nvae() -> None:
    """Which gives its last values too much (see ``LogisticMixtureDecoder``), and is otherwise the same likelihood."""
    found, x = mixture(3), scaled(torch.randint(1, 254, (200, 3), generator=torch.Generator().manual_seed(0)), 8)
    at = lambda part: part[..., None, None].expand(200, *part.shape[1:], 1, 1)
    parts = [at(part) for part in (found.log_weights, found.means, found.log_scales, found.coefficients)]
    other = LogisticMixtureDecoder(*parts).log_prob(x[..., None, None] / 2 + 0.5)
    torch.testing.assert_close(found.log_prob(x), other, atol=1e-3, rtol=1e-4)


def test_the_first_channel_knows_nothing_of_the_second() -> None:
    """P(x_0), that is P(x_0, x_1) summed over x_1, is a mixture by itself; P(x_1 | x_0) is not the same for every x_0."""
    both, values = mixture(2, bits=3), scaled(all_images((1, 1, 2), 3)[:, :, 0, 0], 3)
    joint = both.log_prob(values).exp().view(8, 8)
    one = PixelMixture(both.log_weights, both.means[:, :1], both.log_scales[:, :1], both.coefficients[:, :0], 3)
    first = one.log_prob(scaled(torch.arange(8), 3)[:, None]).exp()
    torch.testing.assert_close(joint.sum(1), first, atol=1e-6, rtol=1e-5)
    conditional = joint / joint.sum(1, keepdim=True)
    assert (conditional[0] - conditional[7]).abs().max() > 0.05


def test_a_pixel_sees_all_pixels_before_it_and_no_other() -> None:
    """In the order of reading; parameters see strictly earlier pixels, and there is no blind spot among them."""
    net = network(PixelCNNArchitecture((5, 6, 3), filters=8, layers=6, mixtures=2))
    torch.manual_seed(0)
    x = (2 * torch.rand(1, 3, 5, 6) - 1).requires_grad_(True)
    params = net(x).flatten(2)
    for place in range(30):
        direction = torch.randn(params.shape[1])
        (gradient,) = torch.autograd.grad(direction @ params[0, :, place], x, retain_graph=True)
        seen = (gradient[0].flatten(1) != 0).any(0)
        assert not seen[place:].any(), f"the pixel at {divmod(place, 6)} sees one that is not before it"
        assert seen[:place].all(), f"the pixel at {divmod(place, 6)} is blind to some"


def test_far_from_its_logistics_a_value_keeps_a_finite_score_and_gradient() -> None:
    sharp = torch.full((1, 1, 1), LOG_SCALE_MIN)
    mean = torch.ones(1, 1, 1, requires_grad=True)
    found = PixelMixture(torch.zeros(1, 1), mean, sharp, torch.zeros(1, 0, 1), 8).log_prob(
        scaled(torch.tensor([[0], [1], [128]]), 8)
    )
    assert found.isfinite().all()
    assert (found < -500).all()
    assert (found[:-1] < found[1:]).all()
    (gradient,) = torch.autograd.grad(found.sum(), mean)
    assert gradient.isfinite().all()
    assert gradient.item() < 0, "a mean nearer to the values is better"


def test_sharper_logistics_than_the_floor_are_not_made() -> None:
    params = torch.full((1, 3), -20.0)
    assert PixelMixture.from_params(params, 1, 8).log_scales.item() == LOG_SCALE_MIN


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("architecture", [SMALL, PixelCNNArchitecture((5, 4, 1), 8, 3, 2, bits=4)])
def test_the_incremental_sampler_draws_what_the_plain_one_does(
    architecture: PixelCNNArchitecture, temperature: float
) -> None:
    """The plain one runs the whole network for every pixel, on an image that is filled in as it goes."""
    net = network(architecture)
    height, width, channels = architecture.image_shape
    u = torch.rand(3, 1 + channels, height, width, generator=torch.Generator().manual_seed(1))
    plain = torch.zeros(3, channels, height, width)
    for row, column in itertools.product(range(height), range(width)):
        drawn = net.mixture(plain).sample(u, temperature)
        plain[:, :, row, column] = drawn[:, :, row, column]
    found = net.sample(u, temperature)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=0)
    assert found.std() > 0.1


@pytest.mark.parametrize(("channels", "bits"), [(1, 2), (2, 2), (3, 1)])
def test_values_are_drawn_as_often_as_they_are_probable(channels: int, bits: int) -> None:
    n = 40_000
    found = mixture(channels, bits, n=n, seed=channels)
    u = torch.rand(n, 1 + channels, generator=torch.Generator().manual_seed(0))
    values = all_images((1, 1, channels), bits)[:, :, 0, 0]
    drawn = ((found.sample(u) + 1) * (2**bits - 1) / 2).round().long()
    probabilities = mixture(channels, bits, seed=channels).log_prob(scaled(values, bits)).exp()
    often = torch.stack([(drawn == value).all(1).float().mean() for value in values])
    error = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((often - probabilities).abs() < 4.5 * error + 1e-6).all()
    assert len(drawn.unique()) == 2**bits


def test_a_low_temperature_draws_the_mean_of_the_heaviest_logistic() -> None:
    found = mixture(1, n=50)
    u = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    heaviest = found.means[0, 0, found.log_weights[0].argmax()].clamp(-1, 1)
    torch.testing.assert_close(found.sample(u, 0.01), heaviest.expand(50, 1), atol=0.1, rtol=0)
    assert found.sample(u, 1.0).std() > 0.1


def test_the_ends_of_the_noise_are_values() -> None:
    u = torch.tensor([[0.0, 0, 0, 0], [1 - 2**-24, 1 - 2**-24, 1 - 2**-24, 1 - 2**-24]])
    found = mixture(3, n=2).sample(u)
    assert found.isfinite().all()
    assert found[0].tolist() == [-1, -1, -1]
    assert (found.abs() <= 1).all()


def test_bytes_lose_their_last_bits_and_come_back_in_the_same_bin() -> None:
    bytes_ = torch.arange(256).float()
    for bits in range(1, 9):
        values = quantise(bytes_, bits)
        assert torch.equal(values, (torch.arange(256) // 2 ** (8 - bits)).float())
        shown = ((scaled(torch.arange(2**bits), bits) + 1) * 127.5).round()
        assert shown[0] == 0
        assert shown[-1] == 255
        assert torch.equal(quantise(shown, bits), torch.arange(2**bits).float())
    pixels = bytes_.clone().requires_grad_(True)
    quantise(pixels, 6).sum().backward()
    assert torch.equal(pixels.grad, torch.full((256,), 0.25))


def test_a_score_is_the_log_probability_of_the_image_alone() -> None:
    net, images = network(), pictures()
    system = PixelCNNSystem(net)
    scores = system.score(images)
    x = scaled(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), 8)
    expected = net.mixture(x).log_prob(x).sum(dim=(1, 2))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_allclose(PixelCNNSystem(net, batch_size=2).score(images[::-1])[::-1], scores, rtol=1e-5)
    np.testing.assert_array_equal(PixelCNNSystem(net, seed=1).score(images), scores)
    assert (scores < 0).all()


def test_the_protocol_says_how_many_bits_are_scored() -> None:
    few = PixelCNNSystem(network(replace(SMALL, bits=5)))
    assert "5-bit" in few.protocol["estimator"]
    assert "8-bit" in PixelCNNSystem(network()).protocol["estimator"]
    images = pictures()
    np.testing.assert_array_equal(few.score(images), few.score(images & 0b11111000))
    assert not np.array_equal(few.score(images), few.score(images ^ 0b00001000))


def test_the_norm_of_the_gradient_is_that_of_differences() -> None:
    system = PixelCNNSystem(network(), batch_size=3)
    images = np.clip(pictures(2), 20, 235)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double()
    differences = []
    for i in range(2):
        for at in np.ndindex(*pixels.shape[1:]):
            step = torch.zeros_like(pixels[i])
            step[at] = 0.25
            both = torch.stack([pixels[i] + step, pixels[i] - step]).float()
            up, down = system.network.log_prob(both).double()
            differences.append(((up - down) / 0.5).item())
    expected = 255 * np.linalg.norm(np.reshape(differences, (2, -1)), axis=1)
    np.testing.assert_allclose(system.score_gradient_norm(images), expected, rtol=5e-3)


def test_a_sample_depends_on_its_seed_alone() -> None:
    system = PixelCNNSystem(network())
    images = system.sample([3, 4, 5])
    assert (images.dtype, images.shape) == (np.uint8, (3, 6, 7, 3))
    np.testing.assert_array_equal(PixelCNNSystem(network(), batch_size=1).sample([5, 4, 3])[::-1], images)
    np.testing.assert_array_equal(system.sample(range(20))[3:6], images)
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(PixelCNNSystem(network(), seed=1).sample([3]), images[:1])
    assert system.sample([]).shape == (0, 6, 7, 3)


def saved(net: PixelCNN, path: Path, **options: bool) -> Checkpoint:
    architecture = {**asdict(net.architecture), "image_shape": list(net.architecture.image_shape)}
    card = {"kind": "pixelcnn", "size": "mini", "dataset": "cifar10", "architecture": architecture, "sampling": {}}
    save_checkpoint(path, net.state_dict(), card, **options)
    return load_checkpoint(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": 4},
        {"layers": 1},
        {"mixtures": 1},
        {"bits": 7},
        {"image_shape": (4, 7, 3)},
        {"image_shape": (6, 7, 1)},
    ],
)
def test_what_an_architecture_says_takes_effect_and_survives_a_checkpoint(changes: dict, tmp_path: Path) -> None:
    architecture = replace(SMALL, **changes)
    net, images = network(architecture), pictures(shape=architecture.image_shape)
    system = PixelCNNSystem.from_checkpoint(saved(net, tmp_path / "a.safetensors"))
    assert system.image_shape == architecture.image_shape
    expected = PixelCNNSystem(net).score(images)
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-6)
    np.testing.assert_array_equal(system.sample([1]), PixelCNNSystem(net).sample([1]))
    half = PixelCNNSystem.from_checkpoint(saved(net, tmp_path / "b.safetensors", half=True))
    np.testing.assert_allclose(half.score(images), expected, rtol=1e-2)
    assert half.fingerprint != system.fingerprint
    if "image_shape" not in changes:
        assert not np.allclose(expected, PixelCNNSystem(network()).score(images), rtol=1e-4)


def test_temperature_changes_samples_and_no_score(tmp_path: Path) -> None:
    checkpoint = saved(network(), tmp_path / "a.safetensors")
    plain, cooler = (PixelCNNSystem.from_checkpoint(checkpoint, **options) for options in ({}, {"temperature": 0.5}))
    assert not np.array_equal(plain.sample([1]), cooler.sample([1]))
    np.testing.assert_array_equal(plain.score(pictures()), cooler.score(pictures()))
    assert (plain.fingerprint, plain.protocol) == (cooler.fingerprint, cooler.protocol)
    assert plain.recipe != cooler.recipe


def test_mistakes_are_named(tmp_path: Path) -> None:
    checkpoint = saved(network(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"unknown option 'temprature'.*temperature"):
        PixelCNNSystem.from_checkpoint(checkpoint, temprature=0.5)
    for value in (0.0, -1.0, 3.0):
        with pytest.raises(UserError, match=rf"temperature {value}: needed a number in \(0, 2\]"):
            PixelCNNSampling(value)
    for bits in (0, 9):
        with pytest.raises(UserError, match=f"bits {bits}, needed 1 to 8"):
            PixelCNNArchitecture(bits=bits)
    for name in ("filters", "layers", "mixtures"):
        with pytest.raises(UserError, match=f"{name}.*must be at least 1"):
            PixelCNNArchitecture(**{name: 0})
    with pytest.raises(UserError, match=r"found uint8 \(2, 4, 4, 3\), needed uint8 \(N, 6, 7, 3\)"):
        PixelCNNSystem(network()).score(np.zeros((2, 4, 4, 3), dtype=np.uint8))
    del checkpoint.weights["last.bias"]
    with pytest.raises(UserError, match=r"here: weight 'last.bias' is missing"):
        PixelCNNSystem.from_checkpoint(checkpoint, origin="here")


CONFIG = {"image_shape": "[6, 7, 3]", "filters": "8", "layers": "1", "mixtures": "2", "batch_size": "10", "warmup": "2"}
CONFIG |= {"steps": "6", "log_every": "1", "checkpoint_every": "3", "preview_every": "0"}


def config(folder: Path, **changes: str):
    text = (CONFIGS / "pixelcnn-mini-cifar10.toml").read_text()
    for key, value in {**CONFIG, **changes}.items():
        text, found = re.subn(rf"^{key} = .*", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1
    path = folder / "own.toml"
    path.write_text(text)
    return read_config("pixelcnn", str(path))


def test_training_learns_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = (pictures(60).astype(int) // 8 + 64).astype(np.uint8)  # narrow: there is something to learn
    run = lambda name, **options: train(
        config(tmp_path), images, tmp_path / name, command="x", progress=False, **options
    )
    whole = run("whole")
    assert_resumes_exactly(run, whole, PixelCNNTask, monkeypatch)
    logged = np.genfromtxt(tmp_path / "whole" / "log.csv", delimiter=",", names=True)["bits_per_dim"]
    assert logged[-1] < logged[0]
    checkpoint = load_checkpoint(whole)
    held_out = PixelCNNSystem.from_checkpoint(checkpoint).score(images[-12:])
    bits = checkpoint.card["training"]["validation"]["bits_per_dim"]
    assert bits == pytest.approx(-held_out.mean() / (126 * math.log(2)), rel=0.01)  # stored in half precision


def test_the_loss_is_bits_per_dimension_of_the_bits_that_are_modelled(tmp_path: Path) -> None:
    images = pictures(60)
    for bits in ("8", "3"):
        task = PixelCNNTask(config(tmp_path, bits=bits), images, None, 0, torch.device("cpu"))
        torch.manual_seed(0)
        loss, log = task.loss(1)
        assert log["bits_per_dim"] == pytest.approx(loss.item() / math.log(2))
        torch.manual_seed(0)
        values = quantise(task.images(1).float(), int(bits))
        assert loss.item() == pytest.approx(-task.network.log_prob(values).mean().item() / 126, rel=1e-5)


def test_the_bundled_configuration_is_small() -> None:
    """At most 150 million multiplications per image."""
    architecture = read_config("pixelcnn", "mini-cifar10").architecture
    weights = sum(p.numel() for p in PixelCNN(architecture).parameters() if p.dim() == 4)
    assert weights * 32 * 32 < 150e6


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 1e-2),
        ("warmup", 4),
        ("clip_norm", 1e-3),
        ("ema_decay", 0.0),
        ("bf16", True),
        ("mutation", 0.3),
    ],
)
def test_every_training_option_takes_effect(tmp_path: Path, option: str, value: float) -> None:
    before = config(tmp_path)
    after = replace(before, training=replace(before.training, **{option: value}))
    tasks = [PixelCNNTask(each, pictures(30, (6, 7, 3)), None, 0, torch.device("cpu")) for each in (before, after)]
    assert_differ(*tasks, 3)
