"""The layout of JEM's published file: read as the released network computes, and refused by name where it is damaged."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.jem import JEMSystem
from baselines.load import load_system
from baselines.official import read_official
from baselines.official.jem import read
from vaebm.errors import UserError
from vaebm.noise import content_keys, normal

torch.set_num_threads(1)


def layout(blocks: int = 1, widen: int = 1, classes: int = 10, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released network's weights."""
    shapes: dict[str, tuple[int, ...]] = {"f.conv1": (16, channels, 3, 3)}
    before = 16
    for stage in (1, 2, 3):
        after = 16 * widen * 2 ** (stage - 1)
        for i in range(blocks):
            block = f"f.layer{stage}.{i}"
            shapes |= {f"{block}.conv1": (after, before, 3, 3), f"{block}.conv2": (after, after, 3, 3)}
            if i == 0 and (stage > 1 or before != after):
                shapes[f"{block}.shortcut.0"] = (after, before, 1, 1)
            before = after
    shapes |= {"f.linear": (10, before), "energy_output": (1, before), "class_output": (classes, before)}
    weights = {f"{name}.weight": shape for name, shape in shapes.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in shapes.items()}


def state_dict(**sizes: int) -> dict[str, Tensor]:
    """Random weights of that layout."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) / max(10, int(np.prod(shape[1:]))) ** 0.5
        for name, shape in layout(**sizes).items()
    }


def released_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The released network, written from its names: every convolution has a bias, the second of a block the stride."""
    conv = lambda name, x, stride=1: F.conv2d(
        x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=state[f"{name}.weight"].shape[2] // 2
    )
    h = conv("f.conv1", x)
    for stage in (1, 2, 3):
        i = 0
        while (block := f"f.layer{stage}.{i}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and i == 0 else 1
            branch = conv(f"{block}.conv1", F.leaky_relu(h, 0.2))
            branch = conv(f"{block}.conv2", F.leaky_relu(branch, 0.2), stride)
            has_shortcut = f"{block}.shortcut.0.weight" in state
            h = branch + (conv(f"{block}.shortcut.0", h, stride) if has_shortcut else h)
            i += 1
    h = F.avg_pool2d(F.leaky_relu(h, 0.2), 8).flatten(1)
    return F.linear(h, state["class_output.weight"], state["class_output.bias"])


def save(folder: Path, state: Any, size: int = 32, **more: Any) -> Path:
    path = folder / "CIFAR10_MODEL.pt"
    torch.save({"model_state_dict": state, "replay_buffer": torch.rand(4, 3, size, size) * 2 - 1, **more}, path)
    return path


def pictures(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def loaded(path: Path, **options: Any) -> JEMSystem:
    system: JEMSystem = load_system("jem", path, **options)
    assert isinstance(system, JEMSystem)
    return system


@pytest.mark.parametrize(("blocks", "widen"), [(1, 1), (2, 1), (1, 2)])
def test_it_computes_what_the_released_network_computes(tmp_path: Path, blocks: int, widen: int) -> None:
    state, images = state_dict(blocks=blocks, widen=widen), pictures()
    system = loaded(save(tmp_path, state), noise=0.0)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = released_logits(state, x).logsumexp(1).numpy()
    assert expected.std() > 1e-4
    np.testing.assert_allclose(system.score(images), expected, rtol=1e-4, atol=1e-5)


def test_it_scores_with_the_noise_of_the_released_evaluation(tmp_path: Path) -> None:
    state, images = state_dict(), pictures()
    system = loaded(save(tmp_path, state))
    assert "noise of sd 0.03, 1 draw" in system.protocol["estimator"]
    assert "bytes / 127.5 - 1" in system.protocol["estimator"]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = x + 0.03 * normal(0, content_keys(images), "scored", (3, 32, 32))
    np.testing.assert_allclose(system.score(images), released_logits(state, x).logsumexp(1), rtol=1e-4, atol=1e-5)


def test_the_card_says_what_the_file_holds(tmp_path: Path) -> None:
    path = save(tmp_path, state_dict(blocks=2, widen=2, classes=7), size=16)
    checkpoint = read_official(path)
    assert checkpoint is not None
    card = checkpoint.card
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card["kind"], card["size"], card["dataset"]) == ("jem", "own", "")
    expected = {"image_shape": (16, 16, 3), "depth": 16, "widen": 2, "stem_stride": 1, "classes": 7}
    assert card["architecture"] == expected
    assert card["sampling"] == {"score": "px", "noise": 0.03, "steps": 1000, "step_size": 1.0, "noise_scale": 0.01}


def test_the_published_network_is_of_size_paper(tmp_path: Path) -> None:
    state = {name: torch.zeros(1).expand(shape) for name, shape in layout(blocks=4, widen=10).items()}
    path = tmp_path / "CIFAR10_MODEL.pt"
    path.write_bytes(b"")  # 36 million numbers are not written for this
    checkpoint = read(path, {"model_state_dict": state, "replay_buffer": torch.zeros(1, 3, 32, 32)})
    assert checkpoint is not None
    assert (checkpoint.card["size"], checkpoint.card["dataset"]) == ("paper", "cifar10")
    assert (checkpoint.card["architecture"]["depth"], checkpoint.card["architecture"]["widen"]) == (28, 10)


def drop(name: str) -> Any:
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("f.conv1.weight"), r"weight 'f\.conv1\.weight' is missing"),
        (drop("f.layer1.0.conv1.weight"), r"weight 'f\.layer1\.0\.conv1\.weight' is missing"),
        (drop("f.layer3.0.conv2.bias"), r"weight 'f\.layer3\.0\.conv2\.bias' is missing"),
        (drop("f.layer2.0.shortcut.0.weight"), r"weight 'f\.layer2\.0\.shortcut\.0\.weight' is missing"),
        (drop("class_output.weight"), r"weight 'class_output\.weight' is missing"),
        (
            lambda state: state.update({"f.layer2.0.conv1.weight": torch.zeros(5, 16, 3, 3)}),
            r"'f\.layer2\.0\.conv1\.weight' has shape \(5, 16, 3, 3\), needed \(32, 16, 3, 3\)",
        ),
        (
            lambda state: state.update({"f.layer1.0.conv1.weight": torch.zeros(17, 16, 3, 3)}),
            r"has 17 output channels, needed a multiple of 16",
        ),
        (lambda state: state.update({"class_output.weight": torch.zeros(10)}), r"has shape \(10,\), needed .*2 dimen"),
        (lambda state: state.update({"f.conv1.weight": 3}), r"weight 'f\.conv1\.weight' is a int"),
        (
            lambda state: state.update({"f.layer1.0.bn1.weight": torch.zeros(16)}),
            r"'f\.layer1\.0\.bn1\.weight' does not belong to a WRN-10; normalised networks are not supported",
        ),
        (lambda state: state.update({"queue": torch.zeros(1)}), r"weight 'queue' does not belong to a WRN-10$"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    state = state_dict()
    damage(state)
    path = save(tmp_path, state)
    with pytest.raises(UserError, match=message) as error:
        read_official(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [30, 33])
def test_images_that_the_network_cannot_halve_are_refused(tmp_path: Path, side: int) -> None:
    with pytest.raises(UserError, match="divisible by 4"):
        read_official(save(tmp_path, state_dict(), size=side))


@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        [],
        {},
        {"state_dict": {}},
        {"model_state_dict": 3},
        {"model_state_dict": {"conv.weight": torch.zeros(1)}},
    ],
)
def test_other_layouts_are_left_to_others(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path / "file.pt", content) is None
