"""DDPM files: folders as diffusers writes them, and state dicts as pytorch_diffusion names them, written out here."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from baselines.ddpm import DDPMSystem
from baselines.load import load_system
from baselines.official.ddpm import read
from vaebm.checkpoints import Checkpoint
from vaebm.checkpoints.pickles import ForeignPickleError, read_pickle
from vaebm.errors import UserError

diffusers = pytest.importorskip("diffusers", reason="writes the folders and is the network of DDPM")
torch.set_num_threads(1)

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
SCHEDULE = {"num_train_timesteps": 12, "beta_start": 0.01, "beta_end": 0.3, "variance_type": "fixed_large"}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("original")
    unet, scheduler = diffusers.UNet2DModel(**UNET), diffusers.DDPMScheduler(**SCHEDULE)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "ddpm"))


def opened(path: Path) -> Checkpoint:
    found = read(path, None if path.is_dir() else read_pickle(path))
    assert found is not None
    return found


def pictures(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def flat(folder: Path) -> Path:
    """As google/ddpm-cifar10-32: everything in one folder."""
    for file in ("unet/config.json", f"unet/{WEIGHTS}", "scheduler/scheduler_config.json"):
        (folder / file).rename(folder / Path(file).name)
    for part in ("unet", "scheduler"):
        (folder / part).rmdir()
    return folder


def edit(file: Path, **changes: Any) -> None:
    found = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in found.items() if value != "gone"}))


# Folders


def test_a_folder_is_read(folder: Path) -> None:
    checkpoint = opened(folder)
    card = checkpoint.card
    assert (card["kind"], card["size"], card["dataset"]) == ("ddpm", "own", "")
    assert card["sampling"] == {"steps": 12, "variance": "fixedlarge", "clip": True, "vlb_steps": 12}
    architecture = card["architecture"]
    assert (architecture["timesteps"], architecture["beta_start"], architecture["beta_end"]) == (12, 0.01, 0.3)
    assert len(card["sha256"]) == 64
    system = DDPMSystem.from_checkpoint(checkpoint)
    assert system.image_shape == (8, 8, 3)
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder, local_files_only=True)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(system.network(x, 7), pipeline.unet(x, 7).sample, rtol=0, atol=0)
    np.testing.assert_allclose(system.alpha_bar, pipeline.scheduler.alphas_cumprod, rtol=1e-5)
    assert system.sample([1]).shape == (1, 8, 8, 3)
    assert np.isfinite(system.score(pictures(8))).all()


def test_a_folder_or_a_file_comes_in_by_name_or_label_with_options(folder: Path, tmp_path: Path) -> None:
    named = load_system("ddpm", folder, steps=3, vlb_steps=4, clip=False)
    assert (type(named), named.recipe["steps"], named.recipe["clip"]) == (DDPMSystem, 3, False)
    assert "4 of 12 terms" in named.protocol["estimator"]
    assert named.sample([1]).shape == (1, 8, 8, 3)
    labelled = load_system("mine", saved(tmp_path / "model.ckpt"))
    assert (type(labelled), labelled.image_shape) == (DDPMSystem, (32, 32, 3))
    with pytest.raises(UserError, match="steps 13: needed at most 12"):
        load_system("ddpm", folder, steps=13)


def test_places_and_formats_of_the_files_change_nothing(folder: Path) -> None:
    before = opened(folder)
    torch.testing.assert_close(opened(flat(folder)).weights, before.weights)
    assert opened(folder).card == before.card
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    pickled = opened(folder)
    torch.testing.assert_close(pickled.weights, before.weights)
    assert pickled.card["sha256"] != before.card["sha256"]


def test_attention_of_older_files_is_renamed(folder: Path) -> None:
    before, file = opened(folder), folder / "unet" / WEIGHTS
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in older.items():
        state = {name.replace(f".{new}.", f".{old}."): value for name, value in state.items()}
    assert state.keys() != load_file(file).keys()
    save_file(state, file)
    torch.testing.assert_close(opened(folder).weights, before.weights)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.2}),
        ("unet/config.json", {"norm_eps": 0.1}),
    ],
)
def test_what_decides_scores_besides_weights_is_in_the_hash(folder: Path, file: str, changes: dict[str, Any]) -> None:
    before = DDPMSystem.from_checkpoint(opened(folder))
    edit(folder / file, **changes)
    after = DDPMSystem.from_checkpoint(opened(folder))
    assert (before.score(pictures(8)) != after.score(pictures(8))).all()
    assert before.fingerprint != after.fingerprint


def test_the_schedule_and_what_it_leaves_out(folder: Path) -> None:
    file = folder / "scheduler/scheduler_config.json"
    edit(file, variance_type="fixed_small", clip_sample=False)
    assert opened(folder).card["sampling"] == {"steps": 12, "variance": "fixedsmall", "clip": False, "vlb_steps": 12}
    file.write_text("{}")
    card = opened(folder).card
    default = diffusers.DDPMScheduler()
    assert card["sampling"] == {"steps": 1000, "variance": "fixedsmall", "clip": True, "vlb_steps": 50}
    system = DDPMSystem.from_checkpoint(opened(folder))
    np.testing.assert_allclose(system.alpha_bar, default.alphas_cumprod, rtol=1e-4)


def test_the_published_folder_is_called_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import baselines.official.ddpm as official

    config = {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": [128, 256, 256, 256],
        "center_input_sample": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": 3,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-06,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }
    schedule = {
        "_class_name": "DDPMScheduler",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "trained_betas": None,
        "variance_type": "fixed_large",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(schedule))
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    monkeypatch.setattr(official, "check_weights", lambda *_: None)  # 140 MB of them
    card = opened(tmp_path).card
    assert (card["size"], card["dataset"]) == ("paper", "cifar10")
    assert card["sampling"] == {"steps": 1000, "variance": "fixedlarge", "clip": True, "vlb_steps": 50}
    edit(tmp_path / "scheduler_config.json", beta_end=0.03)
    assert opened(tmp_path).card["size"] == "own"


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "describes a UNet2DConditionModel"),
        ("unet/config.json", {"num_class_embeds": 10}, "is told the class of an image"),
        ("unet/config.json", {"out_channels": 6}, "other out_channels"),
        ("unet/config.json", {"sample_size": "gone"}, "sample_size and in_channels"),
        ("unet/config.json", {"no_such": 1}, "no_such"),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "scaled_linear"},
            "beta_schedule 'scaled_linear', needed 'linear'",
        ),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "trained_betas"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type 'v_prediction'"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "needed 'fixed_large' or 'fixed_small'"),
        ("scheduler/scheduler_config.json", {"clip_sample_range": 2.0}, "clip_sample_range 2.0"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}, "many"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta_end 2.0"),
    ],
)
def test_another_model_is_refused_in_one_line(folder: Path, file: str, changes: dict[str, Any], said: str) -> None:
    edit(folder / file, **changes)
    refused(folder, said)


def refused(path: Path, said: str) -> None:
    with pytest.raises(UserError) as error:
        opened(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_named(folder: Path) -> None:
    file = folder / "unet" / WEIGHTS
    state = load_file(file)
    name = "mid_block.resnets.0.conv1.weight"
    save_file({key: value for key, value in state.items() if key != name}, file)
    refused(folder, f"weight 'unet.{name}' is missing")
    save_file({**state, name: torch.zeros(3)}, file)
    refused(folder, f"weight 'unet.{name}' has shape (3,)")
    file.write_bytes(file.read_bytes()[:-100])
    refused(folder, "truncated")
    file.unlink()
    refused(folder, "no diffusion_pytorch_model.safetensors and no diffusion_pytorch_model.bin")
    torch.save([1, 2], folder / "unet" / "diffusion_pytorch_model.bin")
    refused(folder, "holds a list that is no state dict")
    (folder / "scheduler/scheduler_config.json").unlink()
    refused(folder, "scheduler_config.json")
    (folder / "unet/config.json").write_text("{")
    refused(folder, "not readable as JSON")
    (folder / "unet/config.json").unlink()
    refused(folder, "no unet/config.json")


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_pickle_that_wants_to_run_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    torch.save({"a": Hostile()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ForeignPickleError, match="print"):
        opened(folder)
    assert capsys.readouterr().out == ""


def test_other_folders_and_files_are_left_to_others(tmp_path: Path) -> None:
    assert read(tmp_path, None) is None
    (tmp_path / "config.json").write_text('{"hidden": 1}')
    assert read(tmp_path, None) is None
    for content in ({"model_state_dict": {}}, [{}], torch.zeros(1)):
        assert read(tmp_path / "file.pt", content) is None


def test_a_folder_that_holds_no_model_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder that holds no diffusers model; needed one"):
        load_system("ddpm", tmp_path)


def test_without_diffusers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"vaebm-bench\[diffusers\]"):
        opened(folder)


# Files of pytorch_diffusion


def layout(ch: int, multiples: tuple[int, ...], blocks: int, attention: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict of pytorch_diffusion with attention at one level."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    def resnet(name: str, i: int, o: int) -> None:
        layer(f"{name}.norm1", i)
        layer(f"{name}.conv1", o, i, 3, 3)
        layer(f"{name}.temb_proj", o, 4 * ch)
        layer(f"{name}.norm2", o)
        layer(f"{name}.conv2", o, o, 3, 3)
        if i != o:
            layer(f"{name}.nin_shortcut", o, i, 1, 1)

    def attend(name: str, c: int) -> None:
        layer(f"{name}.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.{part}", c, c, 1, 1)

    layer("temb.dense.0", 4 * ch, ch)
    layer("temb.dense.1", 4 * ch, 4 * ch)
    layer("conv_in", ch, 3, 3, 3)
    widths = [ch * m for m in multiples]
    skips, c = [ch], ch
    for level, width in enumerate(widths):
        for block in range(blocks):
            resnet(f"down.{level}.block.{block}", c, width)
            c = width
            skips.append(c)
            if level == attention:
                attend(f"down.{level}.attn.{block}", c)
        if level < len(widths) - 1:
            layer(f"down.{level}.downsample.conv", c, c, 3, 3)
            skips.append(c)
    resnet("mid.block_1", c, c)
    attend("mid.attn_1", c)
    resnet("mid.block_2", c, c)
    for level in reversed(range(len(widths))):
        for block in range(blocks + 1):
            resnet(f"up.{level}.block.{block}", c + skips.pop(), widths[level])
            c = widths[level]
            if level == attention:
                attend(f"up.{level}.attn.{block}", c)
        if level:
            layer(f"up.{level}.upsample.conv", c, c, 3, 3)
    layer("norm_out", ch)
    layer("conv_out", 3, ch, 3, 3)
    return found


def reference(state: dict[str, Tensor], x: Tensor, t: int, levels: int) -> Tensor:
    """The paper's U-Net, layer after layer over the state dict."""

    def conv(h: Tensor, name: str, **how: Any) -> Tensor:
        kernel = state[f"{name}.weight"]
        return F.conv2d(h, kernel, state[f"{name}.bias"], **{"padding": kernel.shape[-1] // 2, **how})

    def norm(h: Tensor, name: str) -> Tensor:
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def linear(h: Tensor, name: str) -> Tensor:
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def resnet(h: Tensor, name: str) -> Tensor:
        out = conv(F.silu(norm(h, f"{name}.norm1")), f"{name}.conv1")
        out = out + linear(F.silu(time), f"{name}.temb_proj")[:, :, None, None]
        out = conv(F.silu(norm(out, f"{name}.norm2")), f"{name}.conv2")
        return out + (conv(h, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in state else h)

    def attend(h: Tensor, name: str) -> Tensor:
        if f"{name}.q.weight" not in state:
            return h
        q, k, v = (conv(norm(h, f"{name}.norm"), f"{name}.{part}").flatten(2) for part in "qkv")  # (N, C, HW)
        weights = torch.softmax(torch.einsum("nci,ncj->nij", q, k) / math.sqrt(q.shape[1]), dim=2)
        return h + conv(torch.einsum("nij,ncj->nci", weights, v).reshape(h.shape), f"{name}.proj_out")

    half = state["conv_in.weight"].shape[0] // 2
    angles = t * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    time = torch.cat([angles.sin(), angles.cos()])[None]
    time = linear(F.silu(linear(time, "temb.dense.0")), "temb.dense.1")
    blocks = lambda way, level: sum(f"{way}.{level}.block.{i}.conv1.weight" in state for i in range(9))
    h = conv(x, "conv_in")
    skips = [h]
    for level in range(levels):
        for i in range(blocks("down", level)):
            h = attend(resnet(h, f"down.{level}.block.{i}"), f"down.{level}.attn.{i}")
            skips.append(h)
        if level < levels - 1:
            h = conv(F.pad(h, (0, 1, 0, 1)), f"down.{level}.downsample.conv", stride=2, padding=0)
            skips.append(h)
    h = resnet(attend(resnet(h, "mid.block_1"), "mid.attn_1"), "mid.block_2")
    for level in reversed(range(levels)):
        for i in range(blocks("up", level)):
            h = attend(resnet(torch.cat([h, skips.pop()], dim=1), f"up.{level}.block.{i}"), f"up.{level}.attn.{i}")
        if level:
            h = conv(h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), f"up.{level}.upsample.conv")
    return conv(F.silu(norm(h, "norm_out")), "conv_out")


MULTIPLES, BLOCKS, LEVELS = (1, 2, 1), 2, 3


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = layout(32, MULTIPLES, BLOCKS, attention=1)
    return {
        name: torch.randn(shape, generator=generator) / max(1, math.prod(shape[1:])) ** 0.5
        for name, shape in shapes.items()
    }


def saved(path: Path, **changes: Any) -> Path:
    state = {**weights(), **{name.replace("__", "."): value for name, value in changes.items()}}
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path


@torch.no_grad()
def test_a_file_is_the_network_that_it_was(tmp_path: Path) -> None:
    checkpoint = opened(saved(tmp_path / "model.ckpt"))
    card = checkpoint.card
    assert (card["kind"], card["size"]) == ("ddpm", "own")
    assert card["sampling"] == {"steps": 1000, "variance": "fixedlarge", "clip": True, "vlb_steps": 50}
    system = DDPMSystem.from_checkpoint(checkpoint)
    assert system.image_shape == (32, 32, 3)  # the second level is at 16x16
    x = torch.randn(2, 3, 32, 32)
    for t in (0, 500):
        expected = reference(weights(), x, t, LEVELS)
        torch.testing.assert_close(system.network(x, t), expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_names_of_the_published_file_are_those_of_the_published_network(tmp_path: Path) -> None:
    from baselines.ddpm import DDPM, DDPMArchitecture
    from baselines.official.ddpm import _our_name

    with torch.device("meta"):
        own = DDPM(DDPMArchitecture()).unet.state_dict()
    shapes = layout(128, (1, 2, 2, 2), 2, attention=1)
    assert {_our_name(name, 4) for name in shapes} == own.keys()
    assert sum(math.prod(shape) for shape in shapes.values()) == sum(value.numel() for value in own.values())


def test_a_file_for_larger_images_has_the_smaller_variance(tmp_path: Path) -> None:
    state = {name: torch.zeros(shape) for name, shape in layout(32, (1, 1, 1), 1, attention=2).items()}
    torch.save(state, tmp_path / "model.ckpt")
    card = opened(tmp_path / "model.ckpt").card
    assert card["architecture"]["unet"]["sample_size"] == 64
    assert card["sampling"]["variance"] == "fixedsmall"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_out__weight": None}, "weight 'unet.conv_norm_out.weight' is missing"),
        ({"conv_in__weight": None}, "weight 'conv_in.weight' is missing"),
        ({"down__1__block__0__conv1__weight": None}, "weight 'down.1.block.0.conv1.weight' is missing"),
        (
            {"mid__attn_1__q__weight": torch.zeros(3, 3, 1, 1)},
            "weight 'unet.mid_block.attentions.0.to_q.weight' has shape (3, 3)",
        ),
        ({"extra": torch.zeros(1)}, "weight 'unet.extra' does not belong"),
        ({"up__1__extra": torch.zeros(1)}, "weight 'unet.up.1.extra' does not belong"),
        ({"down__0__attn__0__q__weight": torch.zeros(1)}, "attention at 2 resolutions"),
        ({"epoch": 5}, "holds more than tensors"),
    ],
)
def test_damage_of_a_file_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    refused(saved(tmp_path / "model.ckpt", **changes), said)
