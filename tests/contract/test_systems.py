"""What a suite may rely on, held against every registered system with its bundled checkpoint."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import SYSTEMS
from baselines.load import facts, load_system, read_card
from evaluators.metrics.auroc import auroc
from evaluators.protocols import Sampler, Scorer, TermScorer
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.data import load_images
from vaebm.errors import UserError

SHIPPED = (
    "vaebm",
    "nvae",
    "igebm",
    "glow",
    "divergence_triangle",
    "jem",
    "hdge",
    "short_run",
    "lebm",
    "pixelcnn",
)
NO_SAMPLER = ("hdge",)  # nothing published says how to sample it
LARGEST = 4 * 2**20  # bytes of a bundled checkpoint

# Option -> values to try; the first that is not the card's is taken. A new option of a system needs a line here.
OTHER: dict[str, tuple[Any, Any]] = {
    "importance_samples": (3, 2),
    "temperature": (0.5, 0.8),
    "output": ("sample", "mean"),
    "steps": (2, 3),
    "step_size": (0.1, 0.2),
    "target": ("official", "paper"),
    "metropolis": (True, False),
    "postprocess": ("minmax_per_image", "clamp"),
    "readjust_bn": (2, 3),
    "noise_scale": (0.1, 0.2),
    "gradient_clip": (1e-4, 1e-3),
    "score": ("py", "px"),
    "noise": (0.05, 0.1),
    "score_noise": (0.05, 0.1),
    "prior_steps": (2, 3),
    "prior_step_size": (0.2, 0.3),
    "posterior_steps": (2, 3),
    "posterior_step_size": (0.05, 0.2),
}
SEEDS = (3, 1, 2)


def bundled_sets(name: str) -> list[str]:
    card = read_card(name)
    return card.bundled if card else []


def is_bundled(name: str) -> bool:
    return "cifar10" in bundled_sets(name)


@pytest.fixture(scope="module", params=list(SYSTEMS))
def name(request: pytest.FixtureRequest) -> str:
    if not is_bundled(request.param):
        pytest.skip(f"{request.param} has no bundled checkpoint")
    return request.param


@pytest.fixture(scope="module")
def system(name: str) -> Any:
    return load_system(name)


@pytest.fixture(scope="module")
def images(system: Any) -> np.ndarray:
    """20 in-distribution images, then 20 others."""
    height, width, _ = system.image_shape
    return np.concatenate([load_images(data, n=20, size=(height, width)).images for data in ("cifar10", "svhn")])


@pytest.fixture(scope="module")
def scores(system: Any, images: np.ndarray) -> np.ndarray:
    return system.score(images)


@pytest.fixture(scope="module")
def samples(system: Any) -> np.ndarray:
    if not isinstance(system, Sampler):
        pytest.skip("it has no sampler")
    return system.sample(SEEDS)


def bundled(name: str) -> Path:
    card = read_card(name)
    assert card is not None
    return card.path()


def changed(name: str, option: str) -> Any:
    """The system with one option set to another value than its recipe's."""
    recipe = load_checkpoint(bundled(name)).card["sampling"]
    value = next(value for value in OTHER[option] if value != recipe.get(option))
    return load_system(name, **{option: value})


def options() -> list[Any]:
    pairs = [(name, option) for name in SYSTEMS for option in getattr(SYSTEMS.load(name), "options", ())]
    return [pytest.param(name, option, id=f"{name}-{option}") for name, option in pairs]


def assert_equal_scores(found: np.ndarray, expected: np.ndarray, relative: float = 1e-5) -> None:
    """Equal up to float32 rounding: a small energy is what is left of large activations of both signs."""
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_checkpoint_is_bundled_small_and_the_one_its_card_describes(name: str) -> None:
    path = bundled(name)
    assert path.is_file(), f"{path.name} is not in baselines/checkpoints"
    assert path.stat().st_size <= LARGEST
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["kind"] == name
    assert card["size"] in ("mini", "small", "paper")
    assert card["training"]["command"].startswith("python -m ")


def test_it_says_what_it_takes_and_what_decides_its_scores(name: str, system: Any) -> None:
    assert isinstance(system, Scorer)
    assert isinstance(system, Sampler) == (name not in NO_SAMPLER)
    assert [type(side) for side in system.image_shape] == [int, int, int]
    assert system.size in ("mini", "small", "paper")
    for table in (system.fingerprint, system.protocol):
        assert table
        assert json.loads(json.dumps(table, allow_nan=False)) == table
    card = load_checkpoint(bundled(name)).card
    assert system.fingerprint["kind"] == name
    assert card["sha256"] in system.fingerprint["weights"]
    assert {"score", "estimator"} <= set(system.protocol)


def test_fingerprint_names_neither_batch_size_nor_place(name: str, system: Any, tmp_path: Path) -> None:
    for file in bundled(name).parent.iterdir():
        shutil.copy(file, tmp_path)
    elsewhere = load_system("mine", tmp_path / bundled(name).name, batch_size=7)
    assert (elsewhere.fingerprint, elsewhere.protocol) == (system.fingerprint, system.protocol)


def test_a_score_is_a_finite_float64_per_image_and_the_same_each_time(
    system: Any, images: np.ndarray, scores: np.ndarray
) -> None:
    assert scores.dtype == np.float64
    assert scores.shape == (len(images),)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > len(images) / 2
    before = images.copy()
    np.testing.assert_array_equal(system.score(images), scores)
    np.testing.assert_array_equal(images, before)


def test_scores_do_not_depend_on_batch_size(name: str, images: np.ndarray) -> None:
    small, large = (load_system(name, batch_size=size).score(images) for size in (16, 200))
    assert_equal_scores(small, large)
    assert round(auroc(small[:20], small[20:]), 4) == round(auroc(large[:20], large[20:]), 4)


def test_the_norm_of_a_gradient_is_a_positive_number_per_image(system: Any, images: np.ndarray) -> None:
    if not hasattr(system, "score_gradient_norm"):
        pytest.skip("its score is not differentiated")
    few = images[:6]
    norms = system.score_gradient_norm(few)
    assert norms.shape == (6,)
    assert norms.dtype == np.float64
    assert np.isfinite(norms).all()
    assert (norms > 0).all()
    assert_equal_scores(system.score_gradient_norm(few[2:3]), norms[2:3], relative=1e-3)


def test_a_score_depends_neither_on_order_nor_on_the_other_images(
    system: Any, images: np.ndarray, scores: np.ndarray
) -> None:
    order = np.random.default_rng(0).permutation(len(images))
    assert_equal_scores(system.score(images[order]), scores[order])
    assert_equal_scores(system.score(images[3:4]), scores[3:4])
    assert_equal_scores(system.score(images[[5, 5, 30]]), scores[[5, 5, 30]])
    assert_equal_scores(system.score(np.asfortranarray(images)), scores)


def test_no_images_have_no_scores_and_no_seeds_no_samples(system: Any) -> None:
    empty = np.empty((0, *system.image_shape), dtype=np.uint8)
    assert system.score(empty).shape == (0,)
    if isinstance(system, Sampler):
        assert system.sample([]).shape == empty.shape


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda x: x.astype(np.float32), id="float"),
        pytest.param(lambda x: x.astype(np.int64), id="int64"),
        pytest.param(lambda x: x[..., :1], id="grey"),
        pytest.param(lambda x: x[:, :-4], id="not square"),
        pytest.param(lambda x: x.repeat(2, 1).repeat(2, 2), id="too large"),
        pytest.param(lambda x: x.transpose(0, 3, 1, 2), id="channels first"),
        pytest.param(lambda x: x[0], id="one image without its axis"),
    ],
)
def test_other_images_are_refused_in_one_line(system: Any, images: np.ndarray, spoil: Any) -> None:
    spoiled = spoil(images[:2])
    for score in (system.score, getattr(system, "score_terms", system.score)):
        with pytest.raises(UserError, match="needed uint8") as error:
            score(spoiled)
        assert str(spoiled.dtype) in str(error.value)
        assert "\n" not in str(error.value)


def test_terms_sum_to_the_score(system: Any, images: np.ndarray, scores: np.ndarray) -> None:
    if not isinstance(system, TermScorer):
        pytest.skip("its score has no terms")
    terms = system.score_terms(images)
    assert len(terms) > 1
    assert "score" not in terms
    assert {(term.dtype, term.shape) for term in terms.values()} == {(np.dtype(np.float64), scores.shape)}
    assert_equal_scores(sum(terms.values(), start=np.zeros(len(images))), scores, relative=1e-12)
    for name, alone in system.score_terms(images[3:4]).items():  # a small term would not show in the sum
        assert_equal_scores(alone, terms[name][3:4], relative=1e-5)


def test_a_vaebm_beside_its_nvae_has_the_same_log_p(images: np.ndarray) -> None:
    if not bundled("vaebm").is_file():
        pytest.skip("vaebm has no bundled checkpoint")
    few = images[:8]
    assert_equal_scores(load_system("vaebm").score_terms(few)["log_p"], load_system("nvae").score(few))


def test_an_image_is_a_function_of_its_seed_alone(name: str, system: Any, samples: np.ndarray) -> None:
    """Byte for byte, over the whole chain: alone, in another order, among others, whatever the batch size."""
    assert samples.dtype == np.uint8
    assert samples.shape == (len(SEEDS), *system.image_shape)
    np.testing.assert_array_equal(system.sample(SEEDS[::-1])[::-1], samples)
    np.testing.assert_array_equal(system.sample(SEEDS[1:2]), samples[1:2])
    np.testing.assert_array_equal(load_system(name, batch_size=2).sample([*range(100, 120), *SEEDS])[20:], samples)


def test_other_seeds_give_other_images(name: str, samples: np.ndarray) -> None:
    assert len(np.unique(samples.reshape(len(samples), -1), axis=0)) == len(samples)
    other = load_system(name, seed=1).sample(SEEDS)
    assert (other != samples).any(axis=(1, 2, 3)).all()


def test_scoring_and_sampling_leave_no_trace(system: Any, images: np.ndarray, scores: np.ndarray) -> None:
    """Neither changes torch's random state, nor is changed by it, nor leaves something behind for the next call."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    if isinstance(system, Sampler):
        system.sample(SEEDS[:1])
    np.testing.assert_array_equal(system.score(images), scores)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_copy_gives_identical_scores(name: str, images: np.ndarray, scores: np.ndarray, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(bundled(name))
    for part in [value["file"] for value in checkpoint.card.values() if isinstance(value, dict) and "file" in value]:
        for file in (checkpoint.path.with_name(part), checkpoint.path.with_name(part).with_suffix(".json")):
            shutil.copy(file, tmp_path)
    save_checkpoint(tmp_path / "copy.safetensors", checkpoint.weights, checkpoint.card)
    copy = load_system("mine", tmp_path / "copy.safetensors")
    np.testing.assert_array_equal(copy.score(images), scores)


def test_an_unknown_option_is_refused_with_the_nearest(name: str, system: Any) -> None:
    if not type(system).options:
        pytest.skip("it has no options")
    option = type(system).options[0]
    with pytest.raises(UserError, match=f"unknown option '{option}x'.*Did you mean"):
        type(system).from_checkpoint(load_checkpoint(bundled(name)), **{f"{option}x": 1})


@pytest.mark.parametrize(("shipped", "option"), options())
def test_an_option_takes_effect_and_fingerprint_and_protocol_say_what_it_changes(shipped: str, option: str) -> None:
    """A cache finds scores by the fingerprint, and a table compares rows by the protocol."""
    if not is_bundled(shipped):
        pytest.skip(f"{shipped} has no bundled checkpoint")
    plain, other = load_system(shipped), changed(shipped, option)
    few = load_images("cifar10", n=4, size=plain.image_shape[:2]).images
    scores_differ = not np.array_equal(plain.score(few), other.score(few))
    assert (option in facts(plain)["sampling"]) == (not scores_differ), "what is printed about samples decides them"
    if not scores_differ:
        assert not np.array_equal(plain.sample([0]), other.sample([0])), "it changes nothing"
    if scores_differ:
        assert other.fingerprint != plain.fingerprint
    assert (other.protocol != plain.protocol) == scores_differ


def test_importance_samples_tighten_the_bound(system: Any, images: np.ndarray, name: str, scores: np.ndarray) -> None:
    if "importance_samples" not in type(system).options:
        pytest.skip("its score is no bound")
    more = load_system(name, importance_samples=5)
    assert (more.score(images) - scores).mean() > 0
    assert "K = 5" in more.protocol["estimator"]
    with pytest.raises(UserError, match="importance_samples 0, needed at least 1"):
        load_system(name, importance_samples=0)


def test_the_seed_of_a_score_is_in_its_fingerprint(name: str, system: Any, images: np.ndarray) -> None:
    other = load_system(name, seed=1)
    if not np.array_equal(other.score(images[:8]), system.score(images[:8])):
        assert other.fingerprint != system.fingerprint


def test_threads_change_no_score(system: Any, images: np.ndarray, scores: np.ndarray) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert_equal_scores(system.score(images[:4]), scores[:4])
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
def test_the_device_changes_no_ranking(name: str, images: np.ndarray, scores: np.ndarray) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    there = load_system(name, device="cuda").score(images)
    assert_equal_scores(there, scores, relative=1e-4)
    assert auroc(there[:20], there[20:]) == pytest.approx(auroc(scores[:20], scores[20:]), abs=2e-3)


def test_what_the_energy_is_shown_is_named_beside_the_score() -> None:
    system = load_system("vaebm")
    floor = system.model.energy.config.contrast_floor
    assert floor > 0
    assert f"(std + {floor:g})" in system.protocol["estimator"]


def test_images_on_the_way_are_those_of_shorter_chains() -> None:
    """One chain passes every rung of the ladder."""
    found = load_system("vaebm").sample_steps(SEEDS, (2, 0))
    assert sorted(found) == [0, 2]
    for steps, images in found.items():
        np.testing.assert_array_equal(images, load_system("vaebm", steps=steps).sample(SEEDS))


ELSEWHERE = [(name, dataset) for name in SHIPPED for dataset in bundled_sets(name) if dataset != "cifar10"]


@pytest.mark.parametrize(("name", "dataset"), ELSEWHERE)
def test_bundled_weights_for_another_set_draw_its_images(name: str, dataset: str) -> None:
    card = read_card(name)
    system = load_system(name, dataset=dataset)
    assert system.dataset == dataset
    images = system.sample(SEEDS)
    assert images.shape == (len(SEEDS), *system.image_shape)
    np.testing.assert_array_equal(images[1:], system.sample(SEEDS[1:]))
    assert card.path(dataset).stat().st_size <= LARGEST
    with pytest.raises(UserError, match="no weights for nowhere"):
        load_system(name, dataset="nowhere")
