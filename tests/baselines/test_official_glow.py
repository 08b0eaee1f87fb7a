"""Files in the layout of y0ast/Glow-PyTorch, written here from their names and shapes, against plain arithmetic on their weights."""

import hashlib
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.glow import GlowSystem
from baselines.load import load_system
from baselines.official import glow as layout
from vaebm.checkpoints.pickles import read_pickle
from vaebm.errors import UserError
from vaebm.noise import content_keys, uniform

torch.set_num_threads(1)

LEVELS, STEPS, WIDTH = 2, 2, 6
KINDS = {
    "as published": {},
    "dense": {"matrix": "dense"},
    "reverse": {"matrix": "none"},
    "additive": {"affine": False},
    "no top": {"top": False},
}


def state_dict(
    *, matrix: str = "lu", affine: bool = True, top: bool = True, side: int = 8, seed: int = 0
) -> OrderedDict[str, Tensor]:
    """A random model of images side x side x 3, by the names and shapes of the layout."""
    generator = torch.Generator().manual_seed(seed)
    found: OrderedDict[str, Tensor] = OrderedDict()

    def put(name: str, *shape: int, scale: float = 0.2) -> None:
        found[name] = scale * torch.randn(shape, generator=generator)

    def zeros(name: str, channels: int, out: int) -> None:
        put(f"{name}.conv.weight", out, channels, 3, 3)
        put(f"{name}.conv.bias", out)
        put(f"{name}.logs", out, 1, 1)

    c, number = 3, 0
    for level in range(LEVELS):
        c, side, number = 4 * c, side // 2, number + 1
        for _ in range(STEPS):
            name = f"flow.layers.{number}"
            put(f"{name}.actnorm.bias", 1, c, 1, 1)
            put(f"{name}.actnorm.logs", 1, c, 1, 1)
            if matrix == "dense":
                put(f"{name}.invconv.weight", c, c)
                found[f"{name}.invconv.weight"] += torch.eye(c)
            if matrix == "lu":
                found[f"{name}.invconv.p"] = torch.eye(c)[torch.randperm(c, generator=generator)]
                found[f"{name}.invconv.sign_s"] = torch.randn(c, generator=generator).sign()
                for part in ("lower", "upper"):
                    put(f"{name}.invconv.{part}", c, c)  # full: what lies across the diagonal must not count
                put(f"{name}.invconv.log_s", c)
            for block, (i, k) in {"0": (c // 2, 3), "2": (WIDTH, 1)}.items():
                put(f"{name}.block.{block}.conv.weight", WIDTH, i, k, k)
                put(f"{name}.block.{block}.actnorm.bias", 1, WIDTH, 1, 1)
                put(f"{name}.block.{block}.actnorm.logs", 1, WIDTH, 1, 1)
            zeros(f"{name}.block.4", WIDTH, c if affine else c // 2)
            number += 1
        if level < LEVELS - 1:
            zeros(f"flow.layers.{number}.conv", c // 2, c)
            c, number = c // 2, number + 1
    if top:
        zeros("learn_top_fn", 2 * c, 2 * c)
    found["prior_h"] = torch.zeros(1, 2 * c, side, side)
    return found


def plain_conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Correlate x (C, H, W) with weight (O, C, k, k), zeros around: one shifted product per tap."""
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    _, height, width = x.shape
    return sum(
        np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
        for dy in range(k)
        for dx in range(k)
    )


def plain_log_p(state: dict[str, Tensor], x: np.ndarray) -> float:
    """log p of one image, x (3, H, W) = (bytes + u) / 256 - 1/2: the published equations in numpy, layer by layer."""
    w = {name: value.double().numpy() for name, value in state.items()}
    log_normal = lambda z, mean, logs: float(
        (-0.5 * math.log(2 * math.pi) - logs - 0.5 * ((z - mean) / np.exp(logs)) ** 2).sum()
    )

    def conv_zeros(name: str, h: np.ndarray) -> np.ndarray:
        h = plain_conv(h, w[f"{name}.conv.weight"]) + w[f"{name}.conv.bias"][:, None, None]
        return h * np.exp(3 * w[f"{name}.logs"])

    def conv_actnorm(name: str, h: np.ndarray) -> np.ndarray:
        h = plain_conv(h, w[f"{name}.conv.weight"]) + w[f"{name}.actnorm.bias"][0]
        return np.maximum(h * np.exp(w[f"{name}.actnorm.logs"][0]), 0)

    total, number = -x.size * math.log(256), 0
    for level in range(LEVELS):
        c, height, width = x.shape
        squeezed = np.empty((4 * c, height // 2, width // 2))
        for channel in range(c):
            for dy in range(2):
                for dx in range(2):
                    squeezed[4 * channel + 2 * dy + dx] = x[channel, dy::2, dx::2]
        x, number = squeezed, number + 1
        c, height, width = x.shape
        for _ in range(STEPS):
            name = f"flow.layers.{number}"
            logs = w[f"{name}.actnorm.logs"][0]
            x = (x + w[f"{name}.actnorm.bias"][0]) * np.exp(logs)
            total += height * width * logs.sum()
            if f"{name}.invconv.weight" in w:
                matrix = w[f"{name}.invconv.weight"]
            elif f"{name}.invconv.p" in w:
                lower = np.tril(w[f"{name}.invconv.lower"], -1) + np.eye(c)
                diagonal = w[f"{name}.invconv.sign_s"] * np.exp(w[f"{name}.invconv.log_s"])
                matrix = w[f"{name}.invconv.p"] @ lower @ (np.triu(w[f"{name}.invconv.upper"], 1) + np.diag(diagonal))
            else:
                matrix = np.eye(c)[::-1]
            x = np.einsum("oc,chw->ohw", matrix, x)
            total += height * width * np.linalg.slogdet(matrix)[1]
            kept, moved = x[: c // 2], x[c // 2 :]
            h = conv_zeros(f"{name}.block.4", conv_actnorm(f"{name}.block.2", conv_actnorm(f"{name}.block.0", kept)))
            if len(h) == c:
                scale = 1 / (1 + np.exp(-(h[1::2] + 2)))
                moved = (moved + h[0::2]) * scale
                total += np.log(scale).sum()
            else:
                moved = moved + h
            x = np.concatenate([kept, moved])
            number += 1
        if level < LEVELS - 1:
            x, z = x[: c // 2], x[c // 2 :]
            h = conv_zeros(f"flow.layers.{number}.conv", x)
            total += log_normal(z, h[0::2], h[1::2])
            number += 1
    h = w["prior_h"][0]
    if "learn_top_fn.logs" in w:
        h = conv_zeros("learn_top_fn", h)
    return total + log_normal(x, h[: len(x)], h[len(x) :])


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "glow.pt")
    return folder / "glow.pt"


def pictures(n: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_log_p_of_the_published_equations(kind: str, tmp_path: Path) -> None:
    state, images = state_dict(**KINDS[kind]), pictures()
    system = load_system("mine", saved(tmp_path, state))
    assert isinstance(system, GlowSystem)
    u = uniform(0, content_keys(images), "dequantisation", (3, 8, 8)).double().numpy()
    x = (images.transpose(0, 3, 1, 2) + u) / 256 - 0.5
    np.testing.assert_allclose(system.score(images), [plain_log_p(state, one) for one in x], rtol=2e-5)


def test_the_architecture_is_read_from_the_shapes(tmp_path: Path) -> None:
    for kind, changes in KINDS.items():
        checkpoint = layout.read(saved(tmp_path, state_dict(**changes)), state_dict(**changes))
        assert checkpoint is not None
        assert checkpoint.card["architecture"] == {
            "image_shape": (8, 8, 3),
            "levels": 2,
            "steps": 2,
            "width": 6,
            "coupling": "additive" if kind == "additive" else "affine",
            "permutation": "reverse" if kind == "reverse" else "conv",
            "lu": kind in ("as published", "additive", "no top"),
            "learn_top": kind != "no top",
        }
        assert (checkpoint.kind, checkpoint.card["size"], checkpoint.card["dataset"]) == ("glow", "own", "")
    assert layout.PUBLISHED.steps == 32


def test_the_card_holds_the_hash_the_recipe_and_what_the_authors_say(tmp_path: Path) -> None:
    path = saved(tmp_path, state_dict(side=32))
    checkpoint = layout.read(path, read_pickle(path))
    assert checkpoint is not None
    assert checkpoint.card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.card["dataset"] == "cifar10"
    assert checkpoint.card["sampling"] == {"temperature": 1.0}
    assert "does not recommend samples" in checkpoint.card["training"]["note"]
    assert load_system("glow", path).protocol == load_system("glow").protocol


def test_it_samples_and_undoes_what_it_scores(tmp_path: Path) -> None:
    system = load_system("glow", saved(tmp_path, state_dict()))
    assert system.sample([0, 1]).shape == (2, 8, 8, 3)
    x = torch.rand(2, 3, 8, 8) - 0.5
    with torch.no_grad():
        torch.testing.assert_close(system.network.inverse(system.network(x)[0]), x, atol=1e-3, rtol=0)


def test_a_file_with_its_optimiser_is_the_same_model(tmp_path: Path) -> None:
    state, images = state_dict(), pictures()
    bare = load_system("mine", saved(tmp_path, state)).score(images)
    np.testing.assert_array_equal(
        load_system("mine", saved(tmp_path, {"model": state, "optimizer": {}})).score(images), bare
    )


@pytest.mark.parametrize(
    "content", [None, [], {}, {"state_dict": {}}, {"model": {"blocks.0.conv1.weight": torch.zeros(1)}}, {"model": 3}]
)
def test_other_layouts_are_left_to_others(content: object, tmp_path: Path) -> None:
    assert layout.read(tmp_path / "x.pt", content) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flow.layers.5.block.2.conv.weight", None, "weight 'flow.layers.5.block.2.conv.weight' is missing"),
        ("flow.layers.1.block.0.conv.weight", None, "weight 'flow.layers.1.block.0.conv.weight' is missing"),
        ("flow.layers.6.invconv.p", None, "weight 'flow.layers.6.invconv.p' is missing"),
        ("learn_top_fn.logs", None, "weight 'learn_top_fn.logs' is missing"),
        ("prior_h", None, "weight 'prior_h' is missing"),
        ("flow.layers.2.actnorm.logs", torch.zeros(1, 3, 1, 1), r"has shape \(1, 3, 1, 1\), needed \(1, 12, 1, 1\)"),
        ("flow.layers.3.conv.logs", torch.zeros(12), r"has shape \(12,\), needed \(12, 1, 1\)"),
        ("flow.layers.2.extra", torch.zeros(1), "weight 'flow.layers.2.extra' does not belong"),
        ("flow.layers.9.actnorm.bias", torch.zeros(1, 24, 1, 1), "10 layers with 1 splits"),
        ("flow.layers.900000007.actnorm.bias", torch.zeros(1, 24, 1, 1), "900000008 layers with 1 splits"),
        ("prior_h", torch.ones(1, 48, 2, 2), "prior_h is not zero"),
        ("project_ycond.logs", torch.zeros(48), "conditioned on labels"),
        ("flow.layers.2.actnorm.bias", "text", "weight 'flow.layers.2.actnorm.bias' is missing"),
    ],
)
def test_damage_is_named(name: str, value: object, message: str, tmp_path: Path) -> None:
    state: dict[str, object] = {**state_dict()}
    state.pop(name, None)
    if value is not None:
        state[name] = value
    path = saved(tmp_path, state)
    with pytest.raises(UserError, match=message) as error:
        load_system("glow", path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
