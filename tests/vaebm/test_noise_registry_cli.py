"""Counter-based noise, lazy registries, and what the command lines share."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from vaebm import cli, registry
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import content_keys, normal, seed_step, uniform
from vaebm.registry import Registry

KEYS = st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=6, unique_by=lambda key: key % 2**64)

# Noise


@pytest.mark.parametrize("draw", [normal, uniform])
@given(keys=KEYS, data=st.data())
def test_noise_of_a_key_does_not_depend_on_the_other_keys_or_their_order(
    draw, keys: list[int], data: st.DataObject
) -> None:
    together = draw(3, keys, "what", (2, 3))
    order = data.draw(st.permutations(range(len(keys))))
    assert torch.equal(draw(3, [keys[i] for i in order], "what", (2, 3)), together[list(order)])
    assert torch.equal(draw(3, keys[:1], "what", (2, 3)), together[:1])


@given(key=st.integers(0, 2**64 - 2), purpose=st.text(max_size=3))
def test_neighbouring_keys_have_different_noise_however_large_they_are(key: int, purpose: str) -> None:
    first, second = normal(0, [key, key + 1], purpose, (4,))
    assert (first != second).all()


@pytest.mark.parametrize("draw", [normal, uniform])
def test_seed_key_and_purpose_give_different_noise(draw) -> None:
    base = draw(0, [1], "a", (8,))
    for other in (draw(1, [1], "a", (8,)), draw(0, [2], "a", (8,)), draw(0, [1], "b", (8,))):
        assert (base != other).all()
    assert torch.equal(base, draw(0, [1], "a", (8,)))


def test_noise_is_the_same_in_every_process_and_release() -> None:
    """Frozen values: samples and scores of published rows depend on them."""
    assert normal(0, [1], "eps_z.0", (3,))[0].tolist() == pytest.approx([0.914362, -1.460253, 0.766749], abs=1e-5)
    assert uniform(0, [1], "eps_z.0", (3,))[0].tolist() == pytest.approx([0.527986, 0.898827, 0.681179], abs=1e-5)
    assert content_keys(np.zeros((1, 2, 2, 3), np.uint8)) == [2283521107298152996]


def test_normal_noise_has_mean_0_variance_1_and_no_correlation_between_keys() -> None:
    values = normal(0, range(400), "x", (500,)).double()
    n = values.numel()
    assert abs(values.mean()) < 4 / n**0.5
    assert abs(values.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs(values.pow(4).mean() - 3) < 4 * (96 / n) ** 0.5
    assert abs((values[:-1] * values[1:]).mean()) < 4 / n**0.5


def test_uniform_noise_fills_the_unit_interval_evenly() -> None:
    values = uniform(0, range(400), "x", (500,)).double()
    n = values.numel()
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 4 / (12 * n) ** 0.5
    assert abs(values.var() - 1 / 12) < 4 / (180 * n) ** 0.5


def test_equal_images_have_equal_keys_wherever_they_stand() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    keys = content_keys(images)
    assert len(set(keys)) == 5
    assert content_keys(images[::-1]) == keys[::-1]
    assert (
        content_keys(np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)) == keys
    )  # layout in memory
    changed = images.copy()
    changed[2, 1, 1, 0] ^= 1
    assert [a == b for a, b in zip(content_keys(changed), keys, strict=True)] == [True, True, False, True, True]


def test_training_steps_have_seeds_of_their_own() -> None:
    draws = {}
    for seed, step in ((0, 1), (0, 2), (1, 1)):
        seed_step(seed, step)
        draws[seed, step] = torch.rand(4)
    seed_step(0, 1)
    assert torch.equal(torch.rand(4), draws[0, 1])
    assert not torch.equal(draws[0, 1], draws[0, 2])
    assert not torch.equal(draws[0, 1], draws[1, 1])


# Registry


def test_listing_imports_nothing_and_loading_imports_its_target() -> None:
    names = Registry("system", {"there": "collections:OrderedDict", "broken": "no_such_module_anywhere:X"})
    assert list(names) == ["there", "broken"]
    assert len(names) == 2
    assert "broken" in names
    assert "no_such_module_anywhere" not in sys.modules
    assert names.load("there") is __import__("collections").OrderedDict


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    names = Registry("system", {"vaebm": "a:b", "glow": "c:d"})
    for ask in (names.load, names.__getitem__):
        with pytest.raises(
            UserError, match=r"unknown system 'vaebn'\. Did you mean 'vaebm'\? Available: glow, vaebm\."
        ):
            ask("vaebn")
    assert "vaebn" not in names


def test_suggestion_needs_some_likeness() -> None:
    assert did_you_mean("qqqq", ["glow"]) == " Available: glow."
    assert did_you_mean("x", []) == " Available: nothing."


def test_installed_packages_add_names_but_cannot_replace_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def entries(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("theirs", "fractions:Fraction", group), EntryPoint("ours", "fractions:Fraction", group)]

    monkeypatch.setattr(registry, "entry_points", entries)
    names = Registry("system", {"ours": "collections:OrderedDict"}, group="vaebm.systems")
    assert asked == ["vaebm.systems"]
    assert names.load("theirs") is __import__("fractions").Fraction
    assert names["ours"] == "collections:OrderedDict"
    assert list(Registry("system", {"ours": "a:b"})) == ["ours"]


@pytest.mark.parametrize(
    "modules",
    [
        "vaebm, vaebm.registry, vaebm.errors, vaebm.cli, vaebm.__main__",
        "vaebm.data, evaluators",
        "evaluators.measurement, evaluators.protocols",
    ],
)
def test_names_are_listed_without_importing_torch(modules: str) -> None:
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# Command lines


def a_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-images", type=int, default=5)
    return parser


def test_options_are_typed() -> None:
    options = cli.parse(a_parser(), ["--seed", "3"])
    assert (options.seed, options.num_images) == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sed", "3"], "unknown option --sed. Did you mean --seed?"),
        (["--num-image=3"], "Did you mean --num-images?"),
        (["--seed", "x"], "seed"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        cli.parse(a_parser(), arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_user_errors_become_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: object) -> int:
        raise UserError("two\nlines")

    assert cli.run(main) == 2
    assert capsys.readouterr() == ("", "error: two lines\n")


def test_a_full_device_is_one_line_with_the_flag_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    def full(_: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has ...")

    assert cli.run(full) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Tried to allocate 20 GiB. needed fewer images at a time (--batch-size" in said


def test_an_interrupt_is_130_a_result_is_passed_on_and_a_bug_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    assert cli.run(interrupted) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.run(lambda _: 7) == 7
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda _: 1 // 0)


def test_configurations_are_found_by_name_or_path(tmp_path: Path) -> None:
    file = tmp_path / "mini.toml"
    file.touch()
    assert cli.find_config("mini", tmp_path) == file
    assert cli.find_config(str(file), Path("elsewhere")) == file
    with pytest.raises(UserError, match="Did you mean 'mini'"):
        cli.find_config("minni", tmp_path)
    with pytest.raises(UserError, match="no such file"):
        cli.find_config(str(tmp_path / "other.toml"), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "vae"], "Did you mean 'train'"),
        (["train", "ebn"], "Did you mean 'ebm'"),
        (["train"], "needed a stage"),
        (["train", "vae", "--config", "mini-cifar", "--out", "x"], "Did you mean 'mini-cifar10'"),
        (["train", "vae", "--out", "x", "--nvae.flow", "1"], "unknown option"),
        (["train", "vae", "--out", "x", "--vae.steps", "many"], "steps"),
        (["train", "ebm", "--out", "x", "--vae-from", "x", "--ebm.target", "papr"], "papr"),
        (["export", "nowhere", "--to", "x.safetensors"], "not a run folder"),
    ],
)
def test_training_command_line_refuses_in_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from vaebm.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert cli.run(main, arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_file_system_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda _: (tmp_path / "none" / "file").write_text("") or 0, []) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none' / 'file'}: No such file or directory\n"


def test_threads_below_zero_are_refused() -> None:
    with pytest.raises(UserError, match="--threads -2: needed 0"):
        cli.use_device("cpu", -2)
