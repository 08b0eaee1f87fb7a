"""The bundled cuts are intact, legal to ship, and equal to the real sets where those are at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vaebm.data import DATASETS, cuts, load_images, remove_duplicates
from vaebm.data.packed import read_packed
from vaebm.errors import UserError

REAL = os.environ.get("VAEBM_DATA")
NAMES = ["cifar10", "cifar100", "mnist", "svhn"]
needs_real_data = pytest.mark.skipif(not REAL, reason="needs real data sets: set VAEBM_DATA")


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("VAEBM_DATA", raising=False)


def test_only_what_may_be_passed_on_is_bundled():
    assert cuts.bundled_names() == NAMES
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
