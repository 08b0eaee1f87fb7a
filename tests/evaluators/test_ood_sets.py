"""Outer sets by name, by group and by default; near and far; and how the suite has them loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suite_bench import SHAPE, make_bench, pictures, subject

from evaluators.metrics.auroc import auroc, mean_auroc_interval
from evaluators.ood import OODSuite
from evaluators.ood.sets import FAR, GROUPS, MEAN, MEANS, NEAR, OTHERWISE, OUTER, chosen, means
from leaderboards import names
from vaebm.data import DATASETS, SYNTHETIC, DataUnavailable, ImageSet, load_images
from vaebm.errors import UserError

KNOWN = sorted(
    {name for outer in OUTER.values() for name in (*outer.usual, *outer.near, *outer.far)} | {"mine", "yours"}
)


# Near and far


@pytest.mark.parametrize("in_dist", OUTER)
def test_every_listed_set_has_a_name_and_no_set_is_both(in_dist: str) -> None:
    outer = OUTER[in_dist]
    assert in_dist in DATASETS
    assert {*outer.usual, *outer.near, *outer.far} <= DATASETS.keys()
    assert not {*outer.near} & {*outer.far}
    assert in_dist not in (*outer.usual, *outer.near, *outer.far)
    assert not {*outer.near, *outer.far} & SYNTHETIC.keys()
    # Drawn images apart, whatever is usual is near or far.
    assert {*outer.usual} - SYNTHETIC.keys() <= {*outer.near, *outer.far}


def test_what_stands_against_cifar10_by_default_are_the_columns_of_the_paper() -> None:
    usual = ("svhn", "cifar10_interp", "cifar100", "celeba")
    assert OUTER["cifar10"].usual == usual
    assert means("cifar10", usual) == {MEAN: usual, NEAR: ("cifar10_interp", "cifar100"), FAR: ("svhn", "celeba")}


def test_openood_splits_cifar10_and_cifar100_so() -> None:
    for one, other in (("cifar10", "cifar100"), ("cifar100", "cifar10")):
        assert {other, "tiny_imagenet"} <= {*OUTER[one].near}
        assert {"mnist", "svhn", "textures", "places365"} <= {*OUTER[one].far}


@given(st.sampled_from([*OUTER, "celeba64", "mine"]), st.lists(st.sampled_from(KNOWN), unique=True))
def test_means_are_over_two_sets_or_more_and_never_over_the_same_twice(in_dist: str, outer: list[str]) -> None:
    found = means(in_dist, outer)
    known = OUTER.get(in_dist, OTHERWISE)
    assert found.get(MEAN, ()) == (tuple(outer) if len(outer) > 1 else ())
    assert all(len(sets) > 1 for sets in found.values())
    assert len(set(found.values())) == len(found)
    for name, members in ((NEAR, known.near), (FAR, known.far)):
        assert set(found.get(name, ())) <= {*members}
        own = [name for name in outer if name in members]
        assert (name in found) == (1 < len(own) < len(outer))
        assert list(found.get(name, own)) == own  # in the order asked for
    assert found.keys() <= MEANS.keys()


def test_means_and_sets_are_printed_by_names_of_their_own() -> None:
    assert set(names.MEANS) == set(MEANS)
    for outer in OUTER.values():
        titles = [names.dataset_title(name) for name in dict.fromkeys((*outer.usual, *outer.near, *outer.far, *MEANS))]
        assert len({*titles}) == len(titles)
    assert all(names.dataset_title(name) != name for name in (*DATASETS, *MEANS))


def test_the_documentation_lists_every_set_where_it_stands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "ood.md").read_text(encoding="utf-8")
    listed = lambda sets: ", ".join(f"`{name}`" for name in sets) or "none known"
    for in_dist, outer in OUTER.items():
        assert f"| `{in_dist}` | {listed(outer.usual)} | {listed(outer.near)} | {listed(outer.far)} |" in text
    assert all(f"`{name}`" in text for name in (*SYNTHETIC, *GROUPS, NEAR, FAR))


# Names and groups


def test_groups_stand_for_their_sets_without_those_named_before() -> None:
    assert chosen("usual", "cifar10") == list(OUTER["cifar10"].usual)
    assert chosen("near", "cifar10") == list(OUTER["cifar10"].near)
    assert chosen("cifar100,near", "cifar10") == ["cifar100", "cifar10_interp", "tiny_imagenet"]
    assert chosen("usual,synthetic,mine=a/", "cifar10") == [*OUTER["cifar10"].usual, *SYNTHETIC, "mine=a/"]
    assert chosen("far,near,usual", "cifar10") == [*OUTER["cifar10"].far, *OUTER["cifar10"].near]
    assert chosen("svhn,svhn", "cifar10") == ["svhn", "svhn"]  # for the suite to refuse
    assert chosen("usual,svhn", "cifar10") == ["cifar10_interp", "cifar100", "celeba", "svhn"]
    assert chosen("", "cifar10") == []
    assert not {*GROUPS} & DATASETS.keys()


def test_a_set_that_is_not_listed_has_usual_ones_and_says_that_none_is_near() -> None:
    assert chosen("usual", "celeba64") == ["svhn", "cifar10", "cifar100"]
    with pytest.raises(UserError, match=r"--ood near: no set is known to be near celeba64"):
        chosen("svhn,near", "celeba64")
    with pytest.raises(UserError, match="near svhn"):
        chosen("near", "svhn")


# Loading


class Bright:
    def score(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float64).mean(axis=1)


def measured(tmp_path: Path, load: Any = None, shape: tuple[int, int, int] = SHAPE, **options: Any) -> tuple[Any, list]:
    """A run on made-up images, and how each set was asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def load_made_up(spec: str, *, n: int, **how: Any) -> ImageSet:
        asked.append((spec, how))
        if spec in ("celeba", "textures"):
            raise DataUnavailable(f"{spec}: not here")
        images = pictures(n, seed=len(asked), contrast=20 + 2 * len(asked))
        return ImageSet(spec.partition("=")[0], images if shape[2] == 3 else images[..., :1], "made here", "test")

    bench = make_bench(tmp_path, {"bright": subject("bright", Bright(), image_shape=shape)}, num_images=20, **options)
    object.__setattr__(bench, "load_images", load or load_made_up)
    return OODSuite(replicates=20).measure(bench), asked


def test_the_usual_sets_follow_the_in_distribution_set(tmp_path: Path) -> None:
    for dataset in ("", "cifar10", "mnist", "stacked_mnist", "svhn"):
        _, asked = measured(tmp_path / dataset, dataset=dataset)
        assert [spec for spec, _ in asked[1:]] == list(OUTER[dataset or "cifar10"].usual)


def test_sets_by_name_are_brought_to_the_shape_of_the_images_and_own_sets_keep_their_colour(tmp_path: Path) -> None:
    _, asked = measured(tmp_path, shape=(8, 8, 1), dataset="mnist", ood="svhn,constant,mine=folder")
    how = dict(asked)
    assert (how["svhn"]["size"], how["svhn"]["channels"]) == ((8, 8), 1)
    assert (how["constant"]["size"], how["constant"]["channels"]) == ((8, 8), 1)
    assert (how["mine=folder"]["size"], how["mine=folder"]["channels"]) == ((8, 8), None)
    assert "channels" not in how["mnist"]


def test_near_and_far_have_means_of_their_own(tmp_path: Path) -> None:
    result, _ = measured(tmp_path, ood="usual,tiny_imagenet,mnist")
    scores = {name: terms["score"] for name, terms in result.scores["bright"].items()}
    rows = {row.dataset: row for row in result.rows if (row.system, row.metric) == ("bright", "auroc")}
    near = ("cifar10_interp", "cifar100", "tiny_imagenet")
    row = rows[NEAR]
    estimate = mean_auroc_interval(scores["cifar10"], [scores[name] for name in near])
    assert (row.value, row.low, row.high) == (estimate.value, estimate.low, estimate.high)
    assert row.value == pytest.approx(np.mean([auroc(scores["cifar10"], scores[name]) for name in near]))
    assert row.n == 4 * 20
    assert row.protocol["mean_of"] == list(near)
    assert row.protocol["n_out"] == [20, 20, 20]
    assert row.provenance["data"].keys() == {"cifar10", *near}
    # CelebA is not there: the far mean says so, and so does the mean of all.
    assert (rows[FAR].value, rows[MEAN].value) == (None, None)
    assert rows[FAR].note == "mean of 3 sets needs all of them; not there: celeba"
    assert rows[FAR].protocol["mean_of"] == ["svhn", "celeba", "mnist"]
    controls = [row for row in result.rows if (row.system, row.dataset) == ("pixel_std", NEAR)]
    assert [row.metric for row in controls] == ["auroc"]


def test_one_set_of_a_kind_has_no_mean_of_its_own(tmp_path: Path) -> None:
    result, _ = measured(tmp_path, ood="svhn,cifar100,cifar10_interp")
    found = {row.dataset for row in result.rows}
    assert NEAR in found
    assert FAR not in found


@pytest.mark.parametrize("name", list(MEANS))
def test_names_of_means_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"'{name}': the name stands for the mean of {MEANS[name]}"):
        measured(tmp_path, ood=f"svhn,{name}=x.npy")


def test_an_own_set_of_another_colour_is_refused(tmp_path: Path) -> None:
    def load(spec: str, *, n: int, **_: Any) -> ImageSet:
        images = pictures(n, seed=len(spec))
        return ImageSet(spec.partition("=")[0], images[..., :1] if "=" in spec else images, "made here", "test")

    with pytest.raises(UserError, match=r"bright: mine \(made here\): found 8x8 grey images, needed 8x8 RGB"):
        measured(tmp_path, load, ood="svhn,mine=folder")


def test_grey_models_are_scored_on_everything_that_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    load = lambda spec, **how: load_images(spec, download=False, **how)
    result, _ = measured(tmp_path, load, (28, 28, 1), dataset="mnist", ood="usual,svhn,textures")
    rows = {row.dataset: row for row in result.rows if (row.system, row.metric) == ("bright", "auroc")}
    assert {name for name, row in rows.items() if row.value is None} == {"textures", FAR, MEAN}
    assert rows["svhn"].protocol["image_shape"] == "28x28x1"
    assert "luma" in rows["svhn"].protocol["out_notes"]
    assert "resized" in rows["svhn"].protocol["out_notes"]
    assert "seed 0" in rows["constant"].protocol["out_notes"]
    assert rows[NEAR].value is not None
