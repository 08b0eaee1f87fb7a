"""Files in the layouts of ermongroup/ncsn and ermongroup/ncsnv2, written here from their names and shapes."""

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.load import load_system
from baselines.ncsn import NCSN, NCSNArchitecture, NCSNSystem
from baselines.ncsnv2 import NCSNv2, NCSNv2Architecture, NCSNv2System
from baselines.official.ncsn import read
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.pickles import read_pickle
from vaebm.errors import UserError

torch.set_num_threads(1)


def layout(w: int, channels: int = 3, levels: int | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dicts: with ``levels`` of NCSN, without of NCSNv2 (but for its sigmas)."""
    v, found = 2 * w, {}

    def conv(name: str, i: int, o: int, k: int = 3, bias: bool = True) -> None:
        found[f"{name}.weight"] = (o, i, k, k)
        if bias:
            found[f"{name}.bias"] = (o,)

    def norm(name: str, c: int) -> None:
        if levels:
            found[f"{name}.embed.weight"] = (levels, 3 * c)
        else:
            found.update({f"{name}.{gain}": (c,) for gain in ("alpha", "gamma", "beta")})

    def units(name: str, c: int, blocks: int) -> None:
        for block in range(1, blocks + 1):
            for stage in (1, 2):
                if levels:
                    norm(f"{name}.{block}_{stage}_norm", c)
                conv(f"{name}.{block}_{stage}_conv", c, c, bias=False)

    conv("begin_conv", channels, w)
    norm("normalizer", w)
    conv("end_conv", w, channels)
    for stage, i, o in ((1, w, w), (2, w, v), (3, v, v), (4, v, v)):
        for block in (0, 1):
            name, first = f"res{stage}.{block}", block == 0 and stage > 1
            i = i if block == 0 else o
            pool = ".conv" if first and stage == 2 else ""
            norm(f"{name}.normalize1", i)
            norm(f"{name}.normalize2", i)
            conv(f"{name}.conv1", i, i)
            conv(f"{name}.conv2{pool}", i, o)
            if first:
                conv(f"{name}.shortcut{pool}", i, o, 1 if pool else 3)
    for number, inputs, o in ((1, [v], v), (2, [v, v], v), (3, [v, v], w), (4, [w, w], w)):
        name = f"refine{number}"
        for i, c in enumerate(inputs):
            units(f"{name}.adapt_convs.{i}", c, 2)
            if len(inputs) > 1:
                conv(f"{name}.msf.convs.{i}", c, o)
                if levels:
                    norm(f"{name}.msf.norms.{i}", c)
        units(f"{name}.output_convs", o, 3 if number == 4 else 1)
        for i in range(2):
            conv(f"{name}.crp.convs.{i}", o, o, bias=False)
            if levels:
                norm(f"{name}.crp.norms.{i}", o)
    return found


def weights(seed: int = 0, **about: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in layout(4, **about).items()}


def parallel(state: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """As DataParallel names them, with the optimiser's tensors beside."""
    return OrderedDict((f"module.{name}", value) for name, value in state.items())


OPTIMISER = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.001, "params": [0]}]}
SIGMAS = {"cifar10": (50.0, 232), "celeba64": (90.0, 500), "": (5.0, 3)}


def v1_file(path: Path, **changes: Any) -> Path:
    torch.save([parallel(weights(**{"levels": 10, **changes})), OPTIMISER], path)
    return path


def v2_state(dataset: str = "cifar10", seed: int = 0) -> dict[str, Tensor]:
    first, levels = SIGMAS[dataset]
    sigmas = np.exp(np.linspace(np.log(first), np.log(0.01), levels))
    return {"sigmas": torch.tensor(sigmas).float(), **weights(seed)}


def v2_file(path: Path, dataset: str = "cifar10", averages: dict[str, Tensor] | None = None) -> Path:
    averages = weights(seed=1) if averages is None else averages
    torch.save([parallel(v2_state(dataset)), OPTIMISER, 12, 300000, averages], path)
    return path


def opened(path: Path) -> Checkpoint:
    found = read(path, read_pickle(path))
    assert found is not None
    return found


def test_an_ncsn_is_read(tmp_path: Path) -> None:
    checkpoint = opened(v1_file(tmp_path / "checkpoint.pth"))
    card = checkpoint.card
    assert (card["kind"], card["size"], card["dataset"]) == ("ncsn", "own", "cifar10")
    assert card["architecture"] == {"image_shape": (32, 32, 3), "width": 4, "levels": 10}
    assert card["sampling"] == {
        "step_lr": 2e-5,
        "steps_per_level": 100,
        "denoise": False,
        "sigma_begin": 1.0,
        "sigma_end": 0.01,
    }
    assert card["sha256"] == hashlib.sha256((tmp_path / "checkpoint.pth").read_bytes()).hexdigest()
    system = NCSNSystem.from_checkpoint(checkpoint, steps_per_level=1)
    for name, value in weights(levels=10).items():
        torch.testing.assert_close(system.network.state_dict()[name], value)
    assert system.sample([1]).shape == (1, 32, 32, 3)
    assert np.isfinite(system.score_gradient_norm(np.zeros((1, 32, 32, 3), np.uint8))).all()


def test_files_come_in_by_name_or_label_with_options(tmp_path: Path) -> None:
    first, second = v1_file(tmp_path / "first.pth"), v2_file(tmp_path / "second.pth", "")
    named = load_system("ncsn", first, steps_per_level=1, sigma_end=0.5)
    assert (type(named), named.dataset, named.sigmas[-1]) == (NCSNSystem, "cifar10", pytest.approx(0.5))
    labelled = load_system("mine", second, step_lr=1e-6)
    assert (type(labelled), labelled.size, labelled.settings.step_lr) == (NCSNv2System, "own", 1e-6)
    with pytest.raises(UserError, match="the file holds a ncsn; name it ncsn"):
        load_system("ncsnv2", first)
    with pytest.raises(UserError, match=r"sigma_begin 0.001"):
        load_system("ncsn", first, sigma_begin=0.001)


def test_an_ncsn_of_grey_images_is_of_mnist(tmp_path: Path) -> None:
    card = opened(v1_file(tmp_path / "checkpoint.pth", channels=1, levels=4)).card
    assert (card["dataset"], card["size"]) == ("mnist", "own")
    assert card["architecture"] == {"image_shape": (28, 28, 1), "width": 4, "levels": 4}


@pytest.mark.parametrize(
    ("dataset", "side", "step_lr"), [("cifar10", 32, 6.2e-6), ("celeba64", 64, 3.3e-6), ("", 32, 6.2e-6)]
)
def test_an_ncsnv2_is_what_its_noise_levels_say(tmp_path: Path, dataset: str, side: int, step_lr: float) -> None:
    checkpoint = opened(v2_file(tmp_path / "checkpoint.pth", dataset))
    first, levels = SIGMAS[dataset]
    card = checkpoint.card
    assert (card["kind"], card["size"], card["dataset"]) == ("ncsnv2", "own", dataset)
    assert card["architecture"] == {
        "image_shape": (side, side, 3),
        "width": 4,
        "levels": levels,
        "sigma_begin": first,
        "sigma_end": 0.01,
    }
    assert card["sampling"] == {"step_lr": step_lr, "steps_per_level": 5, "denoise": True}
    system = NCSNv2System.from_checkpoint(checkpoint, steps_per_level=1)
    torch.testing.assert_close(system.network.sigmas, v2_state(dataset)["sigmas"], rtol=0, atol=0)
    if not dataset:
        assert system.sample([1]).shape == (1, side, side, 3)


def test_the_moving_averages_are_what_is_used(tmp_path: Path) -> None:
    averaged = opened(v2_file(tmp_path / "a.pth"))
    assert averaged.card["training"] == {"step": 300000, "weights": "moving average"}
    for name, value in weights(seed=1).items():
        torch.testing.assert_close(averaged.weights[name], value)
    torch.save([parallel(v2_state()), OPTIMISER, 12, 300000], tmp_path / "b.pth")
    last = opened(tmp_path / "b.pth")
    assert last.card["training"] == {"step": 300000, "weights": "last"}
    torch.testing.assert_close(last.weights["begin_conv.weight"], weights()["begin_conv.weight"])


def test_a_bare_state_dict_will_do(tmp_path: Path) -> None:
    torch.save(v2_state(), tmp_path / "bare.pth")
    torch.testing.assert_close(opened(tmp_path / "bare.pth").weights, v2_state())


def test_published_networks_have_the_names_and_shapes_of_the_layout() -> None:
    for levels, network, architecture in ((10, NCSN, NCSNArchitecture()), (None, NCSNv2, NCSNv2Architecture())):
        with torch.device("meta"):
            own = network(architecture)
        shapes = {name: tuple(value.shape) for name, value in own.state_dict().items() if name != "sigmas"}
        assert shapes == layout(128, levels=levels)


def test_paper_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import baselines.official.ncsn as official

    path = v1_file(tmp_path / "checkpoint.pth")
    assert opened(path).card["size"] == "own"
    monkeypatch.setattr(official, "NCSN_FILES", {3: ("cifar10", 32, 4)})
    assert opened(path).card["size"] == "paper"
    assert opened(v1_file(tmp_path / "fewer.pth", levels=9)).card["size"] == "own"


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": {"conv.weight": torch.zeros(1)}},
        {"begin_conv.weight": torch.zeros(4, 3, 3, 3)},
        [{"layer.weight": torch.zeros(1)}, {}],
        [],
        torch.zeros(3),
        None,
    ],
)
def test_other_layouts_are_left_to_others(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path, content) is None


def spoiled(state: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in {**state, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (spoiled(v2_state(), refine1__crp__convs__0__weight=None), "weight 'refine1.crp.convs.0.weight' is missing"),
        (spoiled(v2_state(), begin_conv__weight=None), "weight 'begin_conv.weight' is missing"),
        (spoiled(v2_state(), begin_conv__weight=torch.zeros(4)), "weight 'begin_conv.weight' is missing or no kernel"),
        (spoiled(v2_state(), sigmas=None), "or 'sigmas' (of an NCSNv2) is missing"),
        (spoiled(v2_state(), sigmas=torch.tensor([1.0, 2.0])), "not positive and descending"),
        (spoiled(v2_state(), end_conv__bias=torch.zeros(4)), "weight 'end_conv.bias' has shape (4,), needed (3,)"),
        (spoiled(v2_state(), extra=torch.zeros(4)), "weight 'extra' does not belong"),
        (spoiled(v2_state(), res5__0__conv1__weight=torch.zeros(1)), "a deeper network for larger images"),
        (spoiled(weights(levels=10), res1__0__normalize1__embed__weight=torch.zeros(9, 12)), "has shape (9, 12)"),
        (weights(levels=10, channels=2), "takes images of 2 channels, needed 3 or 1"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, state: dict[str, Tensor], said: str) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save([parallel(state), OPTIMISER], path)
    with pytest.raises(UserError) as error:
        opened(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_incomplete_moving_average_is_refused(tmp_path: Path) -> None:
    path = v2_file(tmp_path / "checkpoint.pth", averages=spoiled(weights(), end_conv__bias=None))
    with pytest.raises(UserError, match=r"the moving average of weight 'end_conv.bias' is missing"):
        opened(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = v1_file(tmp_path / "checkpoint.pth")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="truncated"):
        opened(path)
