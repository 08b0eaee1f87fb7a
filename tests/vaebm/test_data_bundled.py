"""The bundled cuts are intact, legal to ship, and equal to the real sets where those are at hand."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

import vaebm.data.load
from vaebm.cli import run
from vaebm.data import DATASETS, DataUnavailable, cuts, load_images, remove_duplicates
from vaebm.data.packed import read_packed
from vaebm.errors import UserError

REAL = os.environ.get("VAEBM_DATA")
NAMES = ["cifar10", "cifar100", "fashion_mnist", "kmnist", "mnist", "svhn"]
TRAIN = 1000  # images in cifar10_train
needs_real_data = pytest.mark.skipif(not REAL, reason="needs real data sets: set VAEBM_DATA")


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("VAEBM_DATA", raising=False)


def test_only_what_may_be_passed_on_is_bundled():
    assert cuts.bundled_names() == sorted([*NAMES, "cifar10_train"])
    files = [path.relative_to(cuts.FOLDER).as_posix().lower() for path in cuts.FOLDER.rglob("*")]
    assert not any("celeba" in file for file in files)
    assert all(DATASETS[name].redistributable for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bundled_cut_is_intact_and_says_its_terms(name):
    found = load_images(name, download=False)  # verifies the sha256
    meta = json.loads((cuts.FOLDER / name / "meta.json").read_text(encoding="utf-8"))
    assert len(found) == meta["count"] == 2000
    assert meta["licence"] == DATASETS[name].licence
    assert meta["origin"]
    terms = (cuts.FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in terms
    assert found.labels is not None


def test_the_training_cut_is_intact_and_of_the_images_that_models_are_trained_on():
    found = load_images("cifar10", split="train", n=TRAIN, download=False)
    assert (len(found), found.name, found.split) == (TRAIN, "cifar10", "train")
    assert found.source == "bundled cut (first 1000 training images)"
    assert (
        found.index == np.arange(TRAIN)
    ).all()  # none missing, and all before the last 2,000, which trainings hold out
    assert np.bincount(found.labels, minlength=10).min() > 80
    meta = json.loads((cuts.FOLDER / "cifar10_train" / "meta.json").read_text(encoding="utf-8"))
    assert meta["licence"] == DATASETS["cifar10"].licence
    assert "last 2,000" in meta["origin"]
    assert "| `cifar10_train` |" in (cuts.FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    part = load_images("cifar10", split="train", n=7, download=False)
    assert (part.images == found.images[:7]).all()
    assert remove_duplicates(found, load_images("cifar10"))[1] == 0


@pytest.mark.parametrize("n", [None, TRAIN + 1])
def test_the_training_cut_is_never_taken_for_the_training_split(n):
    with pytest.raises(DataUnavailable, match=r"cifar10 \(train\).*cifar-10-python.tar.gz"):
        load_images("cifar10", split="train", n=n, download=False)
    assert len(load_images("cifar10", n=n if n is None else 2001, download=False)) == 2000  # a test cut is, with a note


@pytest.mark.parametrize("wing", ["baselines", "vaebm"])
def test_training_without_the_training_split_is_refused(wing, tmp_path, monkeypatch, capsys):
    command = importlib.import_module(f"{wing}.__main__")
    monkeypatch.setattr(vaebm.data.load, "read_download", _no_network)
    kind = ["glow", "--config", "mini-cifar10"] if wing == "baselines" else ["vae", "--config", "mini-cifar10"]
    assert run(command.main, ["train", *kind, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "cifar10 (train): no data root is given, no network; set --data-root or VAEBM_DATA" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.safetensors"))


def _no_network(name, split):
    raise DataUnavailable("no network")


def test_the_cuts_stay_small_enough_to_ship():
    sizes = {
        path.name: sum(f.stat().st_size for f in path.iterdir()) for path in cuts.FOLDER.iterdir() if path.is_dir()
    }
    assert max(sizes.values()) < 4 * 2**20
    assert sum(sizes.values()) < 12 * 2**20


def test_every_citation_has_its_entry():
    terms = (cuts.FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    assert all(f"{{{info.citation}," in terms for info in DATASETS.values())


def test_cifar100_says_which_images_are_official_test():
    found = load_images("cifar100", download=False)
    assert found.split == ""
    assert (found.index[:916] == np.arange(916)).all()
    assert (found.index[916:] == -1).all()
    assert any("916 of these 2000" in note for note in found.notes)
    assert load_images("cifar100", n=900, download=False).notes == ()


def test_bundled_cifar100_shares_no_image_with_cifar10():
    assert remove_duplicates(load_images("cifar100"), load_images("cifar10"))[1] == 0


def test_a_damaged_installation_is_named(tmp_path, monkeypatch):
    target = tmp_path / "mnist"
    target.mkdir()
    for path in (cuts.FOLDER / "mnist").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    meta = json.loads((target / "meta.json").read_text())
    (target / "meta.json").write_text(json.dumps({**meta, "sha256": "0"}))
    monkeypatch.setattr(cuts, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"mnist.*sha256"):
        load_images("mnist")


@needs_real_data
@pytest.mark.parametrize("name", NAMES)
def test_bundled_cut_equals_the_real_set(name):
    folder = next((Path(REAL) / stem for stem in (f"{name}_test", name) if (Path(REAL) / stem).is_dir()), None)
    if folder is None:
        pytest.skip(f"$VAEBM_DATA has no packed {name}")
    cut, real = load_images(name, download=False), read_packed(folder, name, "").head(2000)
    assert cut.sha256 == real.sha256
    assert (cut.labels == real.labels).all()


@needs_real_data
def test_the_training_cut_equals_the_real_set_and_gives_way_to_it():
    cut = load_images("cifar10", split="train", n=TRAIN, download=False)
    real = load_images("cifar10", split="train", n=TRAIN, data_root=REAL)
    assert (cut.sha256, cut.labels.tolist()) == (real.sha256, real.labels.tolist())
    assert "bundled" in cut.source
    assert "data root" in real.source


@needs_real_data
@pytest.mark.parametrize("size", [None, (32, 32), (64, 64)])
def test_real_celeba(size):
    found = load_images("celeba", n=16, data_root=REAL, size=size)
    assert found.images.shape == (16, *(size or found.images.shape[1:3]), 3)
    assert 60 < found.images.mean() < 180
    assert found.images.std() > 30


@needs_real_data
def test_real_root_serves_more_than_the_cut():
    found = load_images("svhn", n=2500, data_root=REAL)
    assert len(found) == 2500
    assert found.head(2000).sha256 == load_images("svhn").sha256
