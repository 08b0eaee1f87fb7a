"""Official files in and out: every setting of the layout through a file, its variants, and one line for whatever is wrong with one."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, noise
from torch import Tensor, nn

from vaebm import cli
from vaebm.__main__ import main
from vaebm.checkpoints import load_checkpoint, load_official, read_official, save_checkpoint, save_official
from vaebm.energy import ENERGIES, EnergyConfig, EnergyNetwork
from vaebm.errors import UserError
from vaebm.nvae import NVAE, NVAEConfig, adaptive_groups
from vaebm.nvae.cells import CELLS

FIXTURES = Path(__file__).parent / "fixtures"
NVAE_FIXTURE, ENERGY_FIXTURE = FIXTURES / "cifar10_tiny_nvae_checkpoint.pt", FIXTURES / "cifar10_tiny_ebm.pth"
BASE = replace(TINY_NVAE, log_sigma_min=-2.0)
MIXTURE = {"likelihood": "logistic_mixture", "mixtures": 3}
SETTINGS: dict[str, NVAEConfig] = {
    **{cells: replace(BASE, cells=cells, channels_enc=8, channels_dec=8) for cells in CELLS},
    "vanilla": replace(BASE, groups_per_scale=(1,)),
    "vanilla with flows": replace(BASE, groups_per_scale=(1,), flows=2),
    "one scale": replace(BASE, groups_per_scale=(3,)),
    "one flow": replace(BASE, flows=1),
    "two flows": replace(BASE, flows=2),
    "adaptive": replace(BASE, groups_per_scale=adaptive_groups(3, 4)),
    "adaptive with a minimum": replace(BASE, groups_per_scale=adaptive_groups(3, 5, 2)),
    "other widths": replace(BASE, channels_enc=4, channels_dec=8, latents_per_group=3),
    "more cells": replace(
        BASE,
        preprocess_cells=2,
        postprocess_cells=3,
        cells_per_group_enc=2,
        cells_per_group_dec=3,
        groups_per_scale=(2,),
    ),
    "two blocks": replace(BASE, preprocess_blocks=2, postprocess_blocks=2),
    "bernoulli": replace(BASE, likelihood="bernoulli", image_channels=1, image_size=32, border=2, log_sigma_min=None),
    "stacked mnist": replace(BASE, image_size=32, border=2),
    "mixture": replace(BASE, **MIXTURE, log_sigma_min=None),
    "stacked mnist, mixture": replace(BASE, **MIXTURE, image_size=32, border=2, log_sigma_min=None),
    "no gates": replace(BASE, squeeze_excite=False),
    "no residual posterior": replace(BASE, residual_posterior=False),
    "5 bits": replace(BASE, bits=5),
    "no clamp": replace(BASE, log_sigma_min=None),
    "another clamp": replace(BASE, log_sigma_min=-3.0),
}


def read(path: Path) -> dict[str, Any]:
    """The file as plain torch reads it, without this project's reader."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@torch.no_grad()
def assert_same_model(found: NVAE, expected: NVAE) -> None:
    assert found.config == expected.config
    assert not any(module.training for module in found.modules())
    assert_same_weights(found.state_dict(), expected.state_dict())
    config = expected.config
    x = torch.rand(2, config.image_channels, config.image_size, config.image_size)
    eps = noise(expected, 2)
    for first, second in ((found.encode(x, eps), expected.encode(x, eps)), (found.decode(eps), expected.decode(eps))):
        assert torch.equal(first.params, second.params)
        assert torch.equal(first.distribution.log_prob(x), second.distribution.log_prob(x))
    assert torch.equal(found.elbo(x, eps)[1], expected.elbo(x, eps)[1])


def refused(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture
def saved(tmp_path: Path) -> tuple[NVAE, Path]:
    nvae, path = lively_nvae(BASE), tmp_path / "checkpoint.pt"
    save_official(nvae, path)
    return nvae, path


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = read(path)
    change(content)
    torch.save(content, path)
    return path


# Round trips


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_setting_comes_back_from_a_file_bit_for_bit(name: str, tmp_path: Path) -> None:
    nvae = lively_nvae(SETTINGS[name])
    save_official(nvae, tmp_path / "checkpoint.pt")
    assert_same_model(load_official(tmp_path / "checkpoint.pt"), nvae)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("name", list(ENERGIES))
@pytest.mark.parametrize("image_channels", [1, 3])
def test_every_energy_network_comes_back_and_is_told_from_the_others_by_its_weights(
    name: str, image_channels: int, tmp_path: Path
) -> None:
    energy = EnergyNetwork(replace(ENERGIES[name], channels=2, image_channels=image_channels))
    save_official(energy, tmp_path / "EBM.pth")
    content = read(tmp_path / "EBM.pth")
    assert content.keys() == {"model", "optimizer"}
    found = load_official(tmp_path / "EBM.pth")
    assert found.config == energy.config
    assert not found.training
    assert_same_weights(found.state_dict(), energy.state_dict())


def test_an_energy_network_of_ones_own_keeps_its_settings_beside_the_official_entries(tmp_path: Path) -> None:
    energy, path = EnergyNetwork(TINY_ENERGY), tmp_path / "EBM.pth"
    save_official(energy, path)
    assert load_official(path).config == TINY_ENERGY
    bare = edit(path, lambda content: content.pop("energy"))
    refused(lambda: load_official(bare), "EBM.pth", "energy=EnergyConfig")
    assert_same_weights(load_official(bare, energy=TINY_ENERGY).state_dict(), energy.state_dict())
    refused(lambda: load_official(bare, energy=EnergyConfig(channels=4)), "has shape")


@pytest.mark.parametrize(("path", "part"), [(NVAE_FIXTURE, "state_dict"), (ENERGY_FIXTURE, "model")])
def test_an_official_file_goes_out_as_it_came_in(path: Path, part: str, tmp_path: Path) -> None:
    save_official(load_official(path), tmp_path / "again")
    before, after = read(path), read(tmp_path / "again")
    assert before.keys() == after.keys()
    assert_same_weights(after[part], before[part])
    if part == "state_dict":
        assert after["arch_instance"] == before["arch_instance"]
        assert vars(after["args"]).items() <= vars(before["args"]).items()


@pytest.mark.parametrize(
    ("config", "dataset"),
    [
        (replace(BASE, image_size=32), "cifar10"),
        (replace(BASE, image_size=64), "celeba_64"),
        (replace(BASE, image_size=256), "celeba_256"),
        (SETTINGS["bernoulli"], "mnist"),
        (SETTINGS["stacked mnist"], "stacked_mnist"),
    ],
)
def test_the_data_set_is_named_after_the_architecture(config: NVAEConfig, dataset: str, tmp_path: Path) -> None:
    save_official(NVAE(config), tmp_path / "checkpoint.pt")
    assert read(tmp_path / "checkpoint.pt")["args"].dataset == dataset


def test_a_data_set_may_be_named_but_not_against_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for name, size in (("lsun_church_64", 64), ("ffhq", 256), ("imagenet_8", 8), ("faces", 8)):
        save_official(NVAE(replace(BASE, image_size=size)), path, dataset=name)
        assert read(path)["args"].dataset == name
    refused(lambda: save_official(NVAE(BASE), path, dataset="mnist"), "likelihood = gaussian", "mnist")
    for name in ("lsun_church_64", "cifar10", "ffhq"):  # the released code would build a network for other images
        refused(lambda name=name: save_official(NVAE(BASE), path, dataset=name), "image_size = 8", name)


def test_a_data_set_of_the_released_code_has_its_channels_and_size(tmp_path: Path) -> None:
    path, bernoulli = tmp_path / "checkpoint.pt", SETTINGS["bernoulli"]
    refused(lambda: save_official(NVAE(replace(bernoulli, image_channels=3)), path), "image_channels = 3", "mnist")
    refused(lambda: save_official(NVAE(replace(bernoulli, image_size=64)), path), "image_size = 64", "mnist")
    grey = NVAE(replace(BASE, image_channels=1, image_size=32)).eval()
    refused(lambda: save_official(grey, path), "image_channels = 1", "cifar10")
    assert not path.exists()
    save_official(grey, path, dataset="greys")  # what a copy with data sets of its own may know
    assert_same_model(load_official(path), grey)


# Names, written out from the layout


def names(tmp_path: Path, **changes: Any) -> set[str]:
    save_official(NVAE(replace(BASE, **changes)), tmp_path / "checkpoint.pt")
    return set(read(tmp_path / "checkpoint.pt")["state_dict"])


def test_names_of_activated_convolutions(tmp_path: Path) -> None:
    assert "pre_process.0._ops.1.bn_act.running_var" in names(tmp_path, cells="res_bnswish")
    elu = names(tmp_path, cells="res_bnelu")
    assert {"pre_process.0._ops.0.bn.bn.weight", "pre_process.0._ops.0.conv_0.log_weight_norm"} <= elu
    plain = names(tmp_path, cells="res_elu")
    assert "post_process.0._ops.1.conv_0.bias" in plain
    assert not any("bn" in name for name in plain)


def test_names_of_mobile_cells_count_the_upsampling_layer(tmp_path: Path) -> None:
    found = names(tmp_path, cells="mbconv_sep")
    assert {  # a cell that keeps the resolution
        "enc_tower.0._ops.0.conv.0.bn.running_mean",
        "enc_tower.0._ops.0.conv.1.conv.0.weight",
        "enc_tower.0._ops.0.conv.1.conv.0.weight_normalized",
        "enc_tower.0._ops.0.conv.2.conv.1.bias",
        "enc_tower.0._ops.0.conv.3.weight",
        "enc_tower.0._ops.0.conv.4.bn.num_batches_tracked",
    } <= found
    assert {  # one that doubles it
        "post_process.0._ops.0.conv.1.bn.weight",
        "post_process.0._ops.0.conv.2.conv.0.weight",
        "post_process.0._ops.0.conv.4.weight_normalized",
        "post_process.0._ops.0.conv.5.bn.weight",
        "post_process.0.skip.1.log_weight_norm",
        "post_process.0.se.se.2.bias",
    } <= found
    assert {"post_process.0._ops.0.conv.0.bn.weight", "post_process.0.skip.1.weight_normalized"}.isdisjoint(found)
    # one that halves it
    assert {"pre_process.0.skip.conv_1.weight", "pre_process.0.skip.conv_4.bias"} <= found


def test_names_of_flows_run_through_all_groups(tmp_path: Path) -> None:
    found = names(tmp_path, flows=2)  # three groups
    flows = {int(name.split(".")[1]) for name in found if name.startswith("nf_cells")}
    assert flows == set(range(6))
    assert {"nf_cells.5.cell2.conv.convz.2.log_weight_norm", "nf_cells.5.cell2.mu.conv_0.bias"} <= found


def test_the_second_flow_of_a_group_comes_before_the_next_groups_first(tmp_path: Path) -> None:
    nvae = lively_nvae(replace(BASE, flows=2))
    save_official(nvae, tmp_path / "checkpoint.pt")
    state = read(tmp_path / "checkpoint.pt")["state_dict"]
    assert torch.equal(state["nf_cells.3.cell1.mu.conv_0.weight"], nvae.nf_cells[1][1].cell1.mu.weight)


def test_names_of_a_single_group(tmp_path: Path) -> None:
    found = names(tmp_path, groups_per_scale=(1,))
    assert {"stem_decoder.weight", "prior_ftr0", "enc_sampler.0.weight", "enc0.1.weight"} <= found
    assert not any(name.startswith(("enc_tower", "dec_tower", "dec_sampler")) for name in found)


# Variants of the files


def rename(change: Callable[[str], str | None], part: str = "state_dict") -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content[part] = {change(name): value for name, value in content[part].items() if change(name)}

    return apply


def without_wrapper(name: str) -> str:
    return name.replace(".bn.bn.", ".bn.").replace("conv.0.bn.", "conv.0.").replace("conv.4.bn.", "conv.4.")


@pytest.mark.parametrize("cells", ["res_bnelu", "mbconv_sep"])
@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"module.{name}",
        without_wrapper,
        lambda name: None if name.endswith("weight_normalized") else name,
    ],
)
def test_variants_of_names_are_read(cells: str, change: Callable[[str], str | None], tmp_path: Path) -> None:
    nvae, path = lively_nvae(replace(BASE, cells=cells)), tmp_path / "checkpoint.pt"
    save_official(nvae, path)
    assert_same_model(load_official(edit(path, rename(change))), nvae)


def test_a_bare_state_dict_of_an_energy_network_is_read_with_and_without_prefix(tmp_path: Path) -> None:
    state = read(ENERGY_FIXTURE)["model"]
    expected = load_official(ENERGY_FIXTURE).state_dict()
    for prefix in ("", "module."):
        torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "EBM.pth")
        assert_same_weights(load_official(str(tmp_path / "EBM.pth")).state_dict(), expected)


@pytest.mark.parametrize("dataset", ["celeba_8", "faces", "lsun_church", "imagenet_8"])
def test_the_size_of_images_follows_from_the_weights(saved: tuple[NVAE, Path], dataset: str) -> None:
    nvae, path = saved
    found = load_official(edit(path, lambda content: setattr(content["args"], "dataset", dataset)))
    assert_same_model(found, nvae)


def test_files_from_before_an_argument_existed_mean_its_default(tmp_path: Path) -> None:
    config = replace(BASE, groups_per_scale=(2, 2), residual_posterior=False, likelihood="logistic_mixture")
    nvae, path = lively_nvae(replace(config, log_sigma_min=None)), tmp_path / "checkpoint.pt"
    save_official(nvae, path)

    def older(content: dict[str, Any]) -> None:
        for name in ("ada_groups", "min_groups_per_scale", "num_mixture_dec", "num_x_bits", "res_dist"):
            delattr(content["args"], name)
        del content["arch_instance"]

    assert_same_model(load_official(edit(path, older)), nvae)


def test_arguments_may_be_numbers_of_numpy_or_a_dictionary(saved: tuple[NVAE, Path]) -> None:
    nvae, path = saved
    content = read(path)
    torch.save(content | {"args": vars(content["args"])}, path)
    assert_same_model(load_official(path), nvae)
    content["args"].num_latent_scales = np.int64(2)
    content["args"].learning_rate = np.float64(0.01)
    content["args"].use_se = np.bool_(True)
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert_same_model(load_official(path), nvae)
    assert read_official(path).card["training"]["args"]["learning_rate"] == 0.01


# Refusals


def set_argument(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: setattr(content["args"], name, value)


def weight(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: change(content["state_dict"])


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda content: delattr(content["args"], "num_nf"), ("'num_nf'",)),
        (lambda content: delattr(content["args"], "dataset"), ("'dataset'",)),
        (set_argument("arch_instance", "res_mbcon"), ("'res_mbcon'", "Did you mean 'res_mbconv'?")),
        (set_argument("num_latent_scales", "two"), ("num_latent_scales", "'two'")),
        (set_argument("num_postprocess_blocks", 2), ("preprocess_blocks",)),
        (set_argument("num_channels_enc", 6), ("has shape",)),
        (set_argument("num_groups_per_scale", 3), ("has shape",)),
        (set_argument("num_nf", 1), ("nf_cells", "is missing")),
        (set_argument("use_se", False), ("does not belong",)),
        (set_argument("num_mixture_dec", 4), ("image_conditional", "has shape")),
        (lambda content: content["arch_instance"].update(up_dec=["mconv_e3k5g0"]), ("up_dec", "mconv_e3k5g0")),
        (weight(lambda state: state.pop("stem.weight")), ("'stem.weight'",)),
        (weight(lambda state: state.pop("prior_ftr0")), ("'prior_ftr0'",)),
        (weight(lambda state: state.pop("enc0.1.bias")), ("'enc0.1.bias'", "is missing")),
        (weight(lambda state: state.update(more=torch.ones(1))), ("'more'", "does not belong")),
        (weight(lambda state: state.update(stem=3)), ("state dict",)),
        (weight(lambda state: state.update(prior_ftr0=torch.tensor(1.0))), ("'prior_ftr0'",)),
        (set_argument("num_channels_dec", 10**6), ("has shape",)),
        (set_argument("num_channels_enc", -4), ("describe no NVAE", "channels_enc -4")),
        (set_argument("num_latent_scales", 0), ("prior_ftr0",)),
        (lambda content: content.update(arch_instance={"up_dec": 3}), ("official layout",)),
        (lambda content: content.update(args=[1]), ("args", "list")),
        (lambda content: content.pop("args"), ("needed state_dict and args",)),
    ],
)
def test_a_spoiled_file_is_named_in_one_line(saved: tuple[NVAE, Path], change: Any, parts: tuple[str, ...]) -> None:
    path = edit(saved[1], change)
    refused(lambda: load_official(path), "checkpoint.pt", *parts)


class Touches:
    """Unpickling it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_wants_more_is_refused_by_name_and_never_runs(
    saved: tuple[NVAE, Path], zipped: bool, protocol: int
) -> None:
    content, marker = read(saved[1]), saved[1].with_name("marker")
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save({**content, "optimizer": Fraction(1, 3)}, saved[1], **options)
    refused(lambda: load_official(saved[1]), "refused", "fractions.Fraction")
    torch.save({"evil": Touches(marker), **content}, saved[1], **options)
    refused(lambda: load_official(saved[1]), "refused")
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(saved: tuple[NVAE, Path], zipped: bool, kept: float) -> None:
    torch.save(read(saved[1]), saved[1], _use_new_zipfile_serialization=zipped)
    content = saved[1].read_bytes()
    saved[1].write_bytes(content[: int(kept * len(content))])
    refused(lambda: load_official(saved[1]), "checkpoint.pt", "truncated")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(range(256))])
def test_a_foreign_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    refused(lambda: load_official(tmp_path / "x.pt"), "x.pt")
    refused(lambda: load_official(tmp_path), "a folder")
    refused(lambda: load_official(tmp_path / "none.pt"), "no such file")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (replace(BASE, groups_per_scale=(3, 1, 2)), "groups_per_scale = (3, 1, 2)"),
        (replace(BASE, border=1), "border = 1"),
        (replace(BASE, likelihood="bernoulli"), "likelihood = bernoulli"),
        (replace(BASE, likelihood="logistic_mixture", mixtures=1), "likelihood = logistic_mixture"),
    ],
)
def test_what_the_layout_cannot_hold_is_named_and_nothing_written(
    config: NVAEConfig, named: str, tmp_path: Path
) -> None:
    refused(lambda: save_official(NVAE(config), tmp_path / "checkpoint.pt"), named)
    seen = EnergyNetwork(replace(TINY_ENERGY, contrast_floor=0.25))
    refused(lambda: save_official(seen, tmp_path / "EBM.pth"), "contrast_floor = 0.25")
    assert list(tmp_path.iterdir()) == []
    refused(lambda: save_official(NVAE(BASE), tmp_path / "no" / "folder.pt"), "folder.pt", "cannot be written")


# Command line


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def called(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(main, [str(word) for word in words])
        return code, *capsys.readouterr()

    return called


def test_convert_brings_official_files_in_and_out_again(call: Callable, tmp_path: Path) -> None:
    native, folder = tmp_path / "vaebm.safetensors", tmp_path / "official"
    assert call("convert", f"{NVAE_FIXTURE},{ENERGY_FIXTURE}", native)[0] == 0
    card = load_checkpoint(native).card
    assert card["sampling"] == {"steps": 16, "step_size": 8e-5, "target": "official", "output": "mean"}
    nvae = load_checkpoint(native.with_name(card["nvae"]["file"]))
    assert nvae.card["sha256"] == card["nvae"]["sha256"]
    assert (nvae.card["training"]["epoch"], nvae.card["training"]["args"]["batch_size"]) == (3, 32)
    code, out, _ = call("convert", native, folder)
    assert code == 0
    assert set(out.split()) == {str(folder / "checkpoint.pt"), str(folder / "EBM.pth")}
    assert_same_weights(read(folder / "checkpoint.pt")["state_dict"], read(NVAE_FIXTURE)["state_dict"])
    assert_same_weights(read(folder / "EBM.pth")["model"], read(ENERGY_FIXTURE)["model"])


def test_convert_keeps_the_name_of_the_data_set(call: Callable, tmp_path: Path) -> None:
    nvae = lively_nvae(replace(BASE, image_size=64))
    save_official(nvae, tmp_path / "checkpoint.pt", dataset="lsun_church_64")
    assert call("convert", tmp_path / "checkpoint.pt", tmp_path / "nvae.safetensors")[0] == 0
    assert call("convert", tmp_path / "nvae.safetensors", tmp_path / "out")[0] == 0
    assert read(tmp_path / "out" / "checkpoint.pt")["args"].dataset == "lsun_church_64"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint.pt"]


def test_convert_refuses_in_one_line_and_writes_nothing(call: Callable, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "toy.safetensors", {"a": torch.ones(1)}, {"kind": "toy"})
    broken = edit(Path(_copy(NVAE_FIXTURE, tmp_path)), weight(lambda state: state.pop("stem.bias")))
    out = tmp_path / "out"
    for words, part in (
        ((ENERGY_FIXTURE, out / "x.safetensors"), "checkpoint.pt,cifar10_tiny_ebm.pth"),
        ((f"{NVAE_FIXTURE},{NVAE_FIXTURE}", out / "x.safetensors"), "second nvae"),
        ((broken, out / "x.safetensors"), "'stem.bias'"),
        ((NVAE_FIXTURE, out), ".safetensors"),
        ((tmp_path / "toy.safetensors", out), "a toy"),
        ((tmp_path / "toy.safetensors", out / "y.safetensors"), "folder"),
        ((tmp_path / "none.safetensors", out), "no such file"),
    ):
        code, stdout, stderr = call("convert", *words)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1)
        assert part in stderr
        assert not out.exists()


def _copy(path: Path, folder: Path) -> str:
    (folder / path.name).write_bytes(path.read_bytes())
    return str(folder / path.name)


def facts(call: Callable, path: Path) -> dict[str, Any]:
    code, out, _ = call("info", path, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["file"] == str(path)
    code, text, _ = call("info", path)
    assert code == 0
    assert found["what"] in text
    return found


def test_info_tells_official_files(call: Callable) -> None:
    nvae = facts(call, NVAE_FIXTURE)
    assert nvae["what"] == "official NVAE checkpoint"
    parameters = sum(p.numel() for p in load_official(NVAE_FIXTURE).parameters())
    expected = {
        "dataset": "cifar10",
        "groups_per_scale": [3],
        "image_shape": [32, 32, 3],
        "channels_encoder_decoder": [8, 8],
        "cells": "res_mbconv",
        "likelihood": "gaussian",
        "bits": 8,
        "flows": 1,
        "latent_dimensions": 3 * 4 * 16 * 16,
        "epoch": 3,
        "step": 77,
        "parameters": parameters,
    }
    assert nvae.items() >= expected.items()
    energy = facts(call, ENERGY_FIXTURE)
    parameters = sum(p.numel() for p in load_official(ENERGY_FIXTURE).parameters())
    expected = {"what": "official energy network", "energy_network": "cifar10", "width": 8, "parameters": parameters}
    assert energy.items() >= expected.items()


def test_info_tells_native_checkpoints_and_changed_weights(call: Callable, tmp_path: Path) -> None:
    path = tmp_path / "nvae.safetensors"
    assert call("convert", NVAE_FIXTURE, path)[0] == 0
    found = facts(call, path)
    assert found["what"] == "native checkpoint, kind nvae"
    assert found["sha256_is"] == "as in the card"
    assert found["parameters"] == facts(call, NVAE_FIXTURE)["parameters"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert facts(call, path)["sha256_is"].startswith("NOT")
    path.with_suffix(".json").unlink()
    assert "without a card" in facts(call, path)["what"]


def test_info_tells_other_files(call: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.uint8), what=np.ones(4))
    assert facts(call, tmp_path / "a.npz")["arrays"] == {"x": "uint8 (2, 3)", "what": "float64 (4)"}
    np.save(tmp_path / "b.npy", np.zeros((2, 3), np.float32))
    assert facts(call, tmp_path / "b.npy")["arrays"] == {"b": "float32 (2, 3)"}
    marker = tmp_path / "marker"
    np.save(tmp_path / "o.npy", np.array([Touches(marker)], dtype=object), allow_pickle=True)
    assert facts(call, tmp_path / "o.npy")["arrays"] == {"o": "object (1)"}
    torch.save({"evil": Touches(marker)}, tmp_path / "evil.pt")
    assert (
        "touch" in facts(call, tmp_path / "evil.pt")["wants"] or "getattr" in facts(call, tmp_path / "evil.pt")["wants"]
    )
    assert not marker.exists()
    run = {"step": 300, "model": nn.Linear(2, 3).state_dict(), "stopwatch": {"seconds": 3.5}}
    torch.save(run, tmp_path / "checkpoint.pt")
    found = facts(call, tmp_path / "checkpoint.pt")
    assert found["what"].startswith("state of a training run")
    assert (found["step"], found["parts"]["model"]) == (300, "2 tensors, 9 values")
    torch.save({"a": 1}, tmp_path / "c.pt")
    assert "no official checkpoint" in facts(call, tmp_path / "c.pt")["what"]


@pytest.mark.parametrize("name", ["none.pt", "folder", "text.pt", "text.npz", "text.npy", "text.safetensors"])
def test_info_of_what_cannot_be_read_is_one_line_and_exit_code_2(call: Callable, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name.startswith("text"):
        path.write_text("hello, world")
    code, out, error = call("info", path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert name in error
