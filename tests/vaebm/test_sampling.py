"""Sampling runs: bytes that depend on nothing but the recipe, resume, records, continued chains, and refusals."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_ENERGY, TINY_NVAE, lively_nvae, unit_images

from vaebm import sampling
from vaebm.energy import EnergyNetwork, data_dependent_init
from vaebm.errors import UserError
from vaebm.model import VAEBM, ChainSettings
from vaebm.sampling import SAMPLE_BLOCK, Sampling, SamplingRun, draw_images, read_chains, sample_in_blocks, to_images
from vaebm.training.replay import ReplayBuffer

RECIPE = Sampling(ChainSettings(2, 0.05))
N = 2 * SAMPLE_BLOCK + 5


@pytest.fixture(scope="module")
def model() -> VAEBM:
    torch.manual_seed(1)
    energy = EnergyNetwork(TINY_ENERGY)
    data_dependent_init(energy, unit_images(16))
    return VAEBM(lively_nvae(), energy).requires_grad_(False)


def make(target: Path | str, model: VAEBM, recipe: Sampling = RECIPE, n: int = N, **options: Any) -> SamplingRun:
    return SamplingRun(str(target), model, recipe, n, weights={"tiny.safetensors": "00"}, **options)


def images_of(target: Path | str, *arguments: Any, **options: Any) -> np.ndarray:
    return np.load(make(target, *arguments, **options).run(progress=False))["images"]


# Images


def test_minmax_stretches_each_image_by_itself_and_clamp_cuts() -> None:
    x = torch.tensor([[[0.2, 0.4], [0.3, 0.7]], [[-1.0, 0.0], [0.5, 3.0]]]).unsqueeze(1)
    stretched = to_images(x, "minmax_per_image")[..., 0]
    assert stretched.tolist() == [[[0, 102], [51, 255]], [[0, 64], [96, 255]]]
    assert to_images(x)[1, ..., 0].tolist() == [[0, 0], [128, 255]]


def test_minmax_stretches_the_channels_of_an_image_together_and_bears_flat_images() -> None:
    x = torch.zeros(2, 3, 1, 1)
    x[0, :, 0, 0] = torch.tensor([0.1, 0.3, 0.5])
    assert to_images(x, "minmax_per_image")[:, 0, 0].tolist() == [[0, 128, 255], [0, 0, 0]]


def test_blocks_have_one_size_whatever_is_asked_for() -> None:
    sizes = []

    def draw(seeds: Sequence[int]) -> np.ndarray:
        sizes.append(len(seeds))
        return np.array(seeds, dtype=np.uint8).reshape(-1, 1, 1, 1)

    for n in (0, 1, SAMPLE_BLOCK, SAMPLE_BLOCK + 3):
        assert sample_in_blocks(draw, range(n), (1, 1, 1)).flatten().tolist() == list(range(n))
    assert set(sizes) == {SAMPLE_BLOCK}


@pytest.mark.parametrize(("setting", "found"), [("output", "median"), ("postprocess", "strech")])
def test_unknown_output_and_postprocess_are_refused_by_name(setting: str, found: str) -> None:
    with pytest.raises(UserError, match=found):
        Sampling(ChainSettings(), **{setting: found})


def test_chain_that_leaves_the_finite_numbers_is_named() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sum(1) * float("inf")

    with pytest.raises(UserError, match=r"image 5 is not finite after 2 steps.*--step-size"):
        draw_images(VAEBM(lively_nvae(), Broken()), [5, 6], RECIPE)


# Runs


def test_bytes_do_not_depend_on_batch_size_or_on_how_many_images_are_asked_for(model: VAEBM, tmp_path: Path) -> None:
    whole = images_of(tmp_path / "a.npz", model)
    assert whole.shape == (N, 8, 8, 3)
    assert whole.dtype == np.uint8
    assert len(np.unique(whole.reshape(N, -1), axis=0)) == N
    for batch_size in (1, 17, 1000):
        other = images_of(tmp_path / f"{batch_size}.npz", model, batch_size=batch_size)
        assert other.tobytes() == whole.tobytes()
    assert images_of(tmp_path / "few.npz", model, n=3).tobytes() == whole[:3].tobytes()


def test_array_and_pngs_hold_the_same_images_and_nothing_is_left_behind(model: VAEBM, tmp_path: Path) -> None:
    expected = images_of(tmp_path / "a.npz", model)
    assert np.load(make(tmp_path / "b.npy", model).run(progress=False)).tobytes() == expected.tobytes()
    folder = make(f"{tmp_path}/v1.0/", model).run(progress=False)
    files = sorted(folder.iterdir())
    assert [file.name for file in files[:2]] == ["000000.png", "000001.png"]
    assert np.stack([np.array(Image.open(file)) for file in files]).tobytes() == expected.tobytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.npz", "a.npz.json", "b.npy", "b.npy.json", "v1.0", "v1.0.json",
    }  # fmt: skip


def test_grey_images_become_grey_pngs(tmp_path: Path) -> None:
    grey = VAEBM(lively_nvae(replace(TINY_NVAE, image_channels=1)), torch.nn.Identity())
    folder = make(f"{tmp_path}/grey/", grey, Sampling(ChainSettings(0)), n=2).run(progress=False)
    assert [Image.open(file).mode for file in sorted(folder.iterdir())] == ["L", "L"]


def test_record_says_how_the_images_were_made(model: VAEBM, tmp_path: Path) -> None:
    images = images_of(tmp_path / "a.npz", model)
    record = json.loads((tmp_path / "a.npz.json").read_text())
    assert record["recipe"]["weights"] == {"tiny.safetensors": "00"}
    assert record["recipe"]["chain"] == RECIPE.chain.to_json()
    assert (record["recipe"]["seed"], record["recipe"]["num_images"], record["shape"]) == (0, N, [N, 8, 8, 3])
    assert record["versions"]["torch"] == torch.__version__
    assert record["images_sha256"] == hashlib.sha256(images.tobytes()).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, seed=1),
        replace(RECIPE, output="sample"),
        replace(RECIPE, postprocess="minmax_per_image"),
        replace(RECIPE, chain=replace(RECIPE.chain, temperature=0.5)),
        replace(RECIPE, chain=replace(RECIPE.chain, target="official", step_size=0.2)),
        replace(RECIPE, chain=replace(RECIPE.chain, step_size=0.5, metropolis=True)),
    ],
    ids=["seed", "output", "postprocess", "temperature", "target", "metropolis"],
)
def test_every_setting_changes_images_and_the_key(model: VAEBM, tmp_path: Path, changed: Sampling) -> None:
    assert make(tmp_path / "a.npz", model).key != make(tmp_path / "a.npz", model, changed).key
    first, _ = draw_images(model, range(4), RECIPE)
    second, _ = draw_images(model, range(4), changed)
    assert (first != second).any((1, 2, 3)).all()


class KilledError(Exception):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, blocks: int) -> list[Sequence[int]]:
    """Let ``draw_images`` die after so many blocks; return the list of the seeds it was called with."""
    drawn: list[Sequence[int]] = []
    original = draw_images

    def draw(model: VAEBM, seeds: Sequence[int], *rest: Any) -> Any:
        if len(drawn) == blocks:
            raise KilledError
        drawn.append(seeds)
        return original(model, seeds, *rest)

    monkeypatch.setattr(sampling, "draw_images", draw)
    return drawn


@pytest.mark.parametrize("batch_size", [16, 32])
def test_killed_run_continues_to_the_same_bytes_without_repeating_what_was_saved(
    model: VAEBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    expected = images_of(tmp_path / "whole.npz", model)
    target, options = tmp_path / "a.npz", {"save_chains": tmp_path / "chains.npz"}
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KilledError):
            make(target, model, batch_size=16, **options).run(progress=False)
    assert not target.exists()
    drawn = kill_after(monkeypatch, 99)
    assert images_of(target, model, batch_size=batch_size, **options).tobytes() == expected.tobytes()
    assert [seeds[0] for seeds in drawn] == [32]
    assert len(read_chains(tmp_path / "chains.npz", model).eps_z[0]) == N
    assert not (tmp_path / "a.npz.unfinished").exists()


def test_damaged_shard_is_drawn_again(model: VAEBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, n = images_of(tmp_path / "whole.npz", model, n=4 * SAMPLE_BLOCK), 4 * SAMPLE_BLOCK
    options = {"n": n, "save_chains": tmp_path / "new" / "chains.npz"}
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            make(tmp_path / "a.npz", model, batch_size=16, **options).run(progress=False)
    shard = tmp_path / "a.npz.unfinished" / "000000016.npz"
    shard.write_bytes(shard.read_bytes()[:300])
    assert images_of(tmp_path / "a.npz", model, batch_size=64, **options).tobytes() == expected.tobytes()
    again = replace(RECIPE, chain=replace(RECIPE.chain, steps=0))
    chains = read_chains(tmp_path / "new" / "chains.npz", model)
    assert images_of(tmp_path / "b.npz", model, again, n=n, chains=chains).tobytes() == expected.tobytes()


def test_finished_run_is_not_repeated(model: VAEBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = images_of(tmp_path / "a.npz", model)
    drawn = kill_after(monkeypatch, 0)
    assert images_of(tmp_path / "a.npz", model).tobytes() == expected.tobytes()
    assert drawn == []


def test_another_recipe_is_refused_where_a_run_is_finished_or_unfinished(
    model: VAEBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.npz", model, n=2).run(progress=False)
    with pytest.raises(UserError, match=r"a\.npz: already holds another recipe \(seed 0, now 3\)"):
        make(tmp_path / "a.npz", model, replace(RECIPE, seed=3), n=2).run(progress=False)
    kill_after(monkeypatch, 0)
    with pytest.raises(KilledError):
        make(tmp_path / "b.npz", model, n=2).run(progress=False)
    colder = replace(RECIPE, chain=replace(RECIPE.chain, temperature=0.5))
    with pytest.raises(UserError, match=r"unfinished run of another recipe \(temperature 1\.0, now 0\.5\)"):
        make(tmp_path / "b.npz", model, colder, n=2).run(progress=False)


def test_an_exploded_chain_leaves_nothing_in_the_way_of_a_smaller_step_size(
    model: VAEBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise UserError("image 0 is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "draw_images", explode)
        with pytest.raises(UserError, match="not finite"):
            make(tmp_path / "a.npz", model, n=2).run(progress=False)
    assert list(tmp_path.iterdir()) == []
    smaller = replace(RECIPE, chain=replace(RECIPE.chain, step_size=1e-5))
    make(tmp_path / "a.npz", model, smaller, n=2).run(progress=False)


def test_a_strangers_file_or_folder_is_never_overwritten(model: VAEBM, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").write_text("precious")
    for target in ("a.npz", "full"):
        with pytest.raises(UserError, match="already holds something else"):
            make(tmp_path / target, model, n=1).run(progress=False)
    with pytest.raises(UserError, match=r"--save-chains .*already holds something else"):
        make(tmp_path / "b.npz", model, n=1, save_chains=tmp_path / "a.npz").run(progress=False)
    assert (tmp_path / "a.npz").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert len(list(make(tmp_path / "empty", model, n=1).run(progress=False).iterdir())) == 1


@pytest.mark.parametrize(
    ("target", "options", "named"),
    [
        ("a.zip", {}, "--to .*a.zip: needed"),
        ("a.npz", {"n": 0}, "--num-images 0"),
        ("a.npz", {"batch_size": 0}, "--batch-size 0"),
        ("a.npz", {"save_chains": Path("chains.pt")}, "--save-chains chains.pt"),
    ],
)
def test_what_cannot_be_is_refused(model: VAEBM, tmp_path: Path, target: str, options: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        make(tmp_path / target, model, **options)


def test_place_that_cannot_be_written_is_named(model: VAEBM, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--to .*a\.npz: cannot be written"):
        make(tmp_path / "file" / "a.npz", model, n=1).run(progress=False)


# Chains that continue


@pytest.mark.parametrize("metropolis", [False, True])
def test_saved_chains_continue_as_if_they_had_never_stopped(model: VAEBM, tmp_path: Path, metropolis: bool) -> None:
    steps = lambda n: replace(RECIPE, chain=ChainSettings(n, 0.05, metropolis=metropolis))
    expected = images_of(tmp_path / "whole.npz", model, steps(5))
    images_of(tmp_path / "first.npz", model, steps(2), save_chains=tmp_path / "two.npz")
    chains = read_chains(tmp_path / "two.npz", model)
    assert chains.done == 2
    rest = images_of(
        tmp_path / "rest.npz", model, steps(2), chains=chains, save_chains=tmp_path / "four.npz", batch_size=16
    )
    assert (rest != expected).any()
    chains = read_chains(tmp_path / "four.npz", model)
    assert chains.done == 4
    assert images_of(tmp_path / "last.npz", model, steps(1), chains=chains).tobytes() == expected.tobytes()


def training_state(path: Path, model: VAEBM, rows: int, pushed: int, lanes: int = 3) -> list[torch.Tensor]:
    """Write a training run's state after ``pushed`` updates of ``lanes`` chains; return the ends of all these chains."""
    buffer = ReplayBuffer(rows * lanes, lanes, model.nvae.latent_shapes)
    ends = [torch.randn(pushed * lanes, *shape) for shape in model.nvae.latent_shapes]
    for i in range(0, pushed * lanes, lanes):
        buffer.push([part[i : i + lanes] for part in ends])
    torch.save({"step": 7, "buffer": buffer.state_dict()}, path)
    return ends


def test_chains_start_from_a_training_runs_buffer_with_fresh_eps_x(model: VAEBM, tmp_path: Path) -> None:
    eps_z = training_state(tmp_path / "checkpoint.pt", model, rows=4, pushed=2)
    chains = read_chains(tmp_path / "checkpoint.pt", model)
    assert len(chains.eps_z[0]) == 6  # what the buffer holds, not what it could
    still = replace(RECIPE, chain=ChainSettings(0), output="sample")
    images, state = draw_images(model, [4, 1], still, chains)
    fresh = model.start([4, 1])[0]
    assert torch.equal(state[0], fresh)
    for part, stored in zip(state[1:], eps_z, strict=True):
        assert torch.equal(part, stored[[4, 1]])
    assert images.tobytes() == to_images(model.decode([fresh, *(part[[4, 1]] for part in eps_z)])[0]).tobytes()
    assert make(tmp_path / "a.npz", model, n=6).key != make(tmp_path / "a.npz", model, n=6, chains=chains).key
    with pytest.raises(UserError, match="holds 6 chains, --num-images asks for 7"):
        make(tmp_path / "a.npz", model, n=7, chains=chains)


def test_chains_that_do_not_fit_are_refused(model: VAEBM, tmp_path: Path) -> None:
    training_state(tmp_path / "empty.pt", model, rows=0, pushed=1)
    training_state(tmp_path / "good.pt", model, rows=1, pushed=1)
    torch.save({"step": 1}, tmp_path / "vae.pt")
    (tmp_path / "text.npz").write_text("no chains")
    np.savez(tmp_path / "samples.npz", images=np.zeros((1, 8, 8, 3), np.uint8))
    other = VAEBM(lively_nvae(replace(TINY_NVAE, latents_per_group=3)), torch.nn.Identity())
    for name, reader, named in (
        ("missing.npz", model, "no such file"),
        ("empty.pt", model, "buffer is empty"),
        ("vae.pt", model, "found no chains"),
        ("text.npz", model, "found no chains"),
        ("samples.npz", model, "found no chains"),
        ("good.pt", other, "another model's"),
    ):
        with pytest.raises(UserError, match=f"--start-from .*{name}.*{named}"):
            read_chains(tmp_path / name, reader)
