"""HDGE: the contrast against explicit sums, its queue and the network that fills it, and training on labels."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_checks import assert_differ, assert_resumes_exactly

from baselines.backbones.wide_resnet import WideResNet, WideResNetArchitecture
from baselines.hdge import HDGERecipe, HDGESystem, contrast
from baselines.training.config import Config, read_config
from baselines.training.hdge import HDGETask, HDGETraining, LogitQueue, follow
from baselines.training.run import train
from vaebm.checkpoints import load_checkpoint
from vaebm.errors import UserError

torch.set_num_threads(1)

CONFIG = """
kind = "hdge"
size = "mini"
dataset = "cifar10"
[architecture]
image_shape = [8, 8, 3]
depth = 10
widen = 1
stem_stride = 2
classes = 4
[sampling]
[training]
batch_size = 8
learning_rate = 1e-3
warmup = 2
ema_decay = 0.5
queue_size = 20
momentum = 0.9
[schedule]
steps = 6
log_every = 1
checkpoint_every = 3
preview_every = 3
"""


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


# The contrast


@pytest.mark.parametrize("unit_length", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_contrast_is_its_formula(unit_length: bool, temperature: float) -> None:
    logits, queue, labels = random(3, 4), random(5, 4), [2, 0, 2]
    found = contrast(logits, torch.tensor(labels), queue, temperature=temperature, unit_length=unit_length)
    for row, label, log_q in zip(logits.double(), labels, found, strict=True):
        f = lambda v, label=label: v[label].item() / (math.sqrt(sum(v.double() ** 2)) if unit_length else 1)
        numerator = math.exp(f(row) / temperature)
        denominator = numerator + sum(math.exp(f(other) / temperature) for other in queue)
        assert log_q.item() == pytest.approx(math.log(numerator / denominator), rel=1e-4)


def test_the_contrast_of_an_image_like_the_queue_is_that_of_chance() -> None:
    same = random(1, 4)
    log_q = contrast(same, torch.tensor([1]), same.expand(7, 4), temperature=0.1, unit_length=True)
    assert log_q.item() == pytest.approx(-math.log(8))


@pytest.mark.parametrize("unit_length", [True, False])
def test_the_contrast_is_largest_where_the_class_stands_out_from_the_queue(unit_length: bool) -> None:
    best, worst = torch.eye(4)[:1] * 9, -torch.eye(4)[:1] * 9
    how = {"temperature": 0.1, "unit_length": unit_length}
    label = torch.tensor([0])
    bound = contrast(best, label, worst.expand(5, 4), **how).item()
    assert -1e-6 < bound <= 0
    worst_case = contrast(worst, label, best.expand(5, 4), **how).item()
    scale = 2 if unit_length else 18
    assert worst_case == pytest.approx(-scale / 0.1 - math.log(5), rel=1e-3)
    for seed in range(5):
        torch.manual_seed(seed)
        between = contrast(torch.randn(1, 4), label, torch.randn(5, 4), **how).item()
        assert worst_case < between < 0


def test_the_gradient_raises_the_images_own_class_alone() -> None:
    logits = random(3, 4).requires_grad_(True)
    labels = torch.tensor([1, 3, 0])
    (gradient,) = torch.autograd.grad(
        contrast(logits, labels, random(5, 4), temperature=0.5, unit_length=False).sum(), logits
    )
    own = torch.nn.functional.one_hot(labels, 4).bool()
    assert (gradient[own] > 0).all()
    assert (gradient[~own] == 0).all()
    # d log q / d f(x)[y] = (1 - q) / t
    q = contrast(logits, labels, random(5, 4), temperature=0.5, unit_length=False).exp()
    torch.testing.assert_close(gradient[own], (1 - q) / 0.5)


def test_unit_length_leaves_the_scale_of_the_logits_free() -> None:
    logits, queue, labels = random(3, 4), random(5, 4), torch.tensor([1, 3, 0])
    unit = [contrast(s * logits, labels, s * queue, temperature=0.1, unit_length=True) for s in (1, 7)]
    torch.testing.assert_close(*unit)
    raw = [contrast(s * logits, labels, s * queue, temperature=0.1, unit_length=False) for s in (1, 7)]
    assert not torch.allclose(*raw)


# The queue and its network


def test_the_queue_keeps_what_came_last_in_order() -> None:
    queue = LogitQueue(5, 2)
    rows = torch.arange(24.0).reshape(12, 2)
    for start, end in ((0, 3), (3, 6), (6, 10), (10, 12)):
        queue.put(rows[start:end])
        kept = {tuple(row.tolist()) for row in queue.logits}
        assert {tuple(row.tolist()) for row in rows[max(0, end - 5) : end]} <= kept
    assert torch.equal(queue.logits.roll(-int(queue.next), 0), rows[-5:]), "from the oldest to the newest"


def test_the_queue_is_full_from_the_first_update_and_remembers() -> None:
    torch.manual_seed(0)
    queue = LogitQueue(1000, 4)
    assert abs(queue.logits.mean()) < 0.1
    assert queue.logits.std() == pytest.approx(1, abs=0.05)
    queue.put(random(7, 4))
    copy = LogitQueue(1000, 4)
    copy.load_state_dict(queue.state_dict())
    assert int(copy.next) == 7
    assert torch.equal(copy.logits, queue.logits)


@torch.no_grad()
def test_the_follower_is_an_average_with_geometric_weights() -> None:
    follower, leader = nn.Linear(2, 2), nn.Linear(2, 2)
    first, target = follower.weight.clone(), leader.weight.clone()
    for _ in range(3):
        follow(follower, leader, 0.9)
    torch.testing.assert_close(follower.weight, 0.9**3 * first + (1 - 0.9**3) * target)
    assert torch.equal(leader.weight, target)


# Scores


def test_it_scores_and_does_not_sample() -> None:
    torch.manual_seed(0)
    network = WideResNet(WideResNetArchitecture((8, 8, 3), 10, 1, 2, classes=4))
    system = HDGESystem(network, HDGERecipe())
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    np.testing.assert_allclose(system.score(images), logits.logsumexp(1), rtol=1e-5)
    np.testing.assert_allclose(system.classify(images), logits.softmax(1), rtol=1e-5)
    other = HDGESystem(network, HDGERecipe(score="py"))
    assert other.protocol != system.protocol
    assert not hasattr(system, "sample")


# Training


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, 100)


def config(tmp_path: Path, **training: Any) -> Config:
    path = tmp_path / "hdge-tiny.toml"
    path.write_text(CONFIG)
    read = read_config("hdge", str(path))
    return replace(read, training=replace(read.training, **training))


def run(tmp_path: Path, images: np.ndarray, labels: np.ndarray | None, name: str = "run", **options: Any) -> Any:
    return train(config(tmp_path), images, tmp_path / name, labels=labels, command="train", progress=False, **options)


def task(tmp_path: Path, images: np.ndarray, labels: np.ndarray, **training: Any) -> HDGETask:
    return HDGETask(config(tmp_path, **training), images, labels, 0, torch.device("cpu"))


def test_the_loss_is_the_sum_of_its_terms(tmp_path, images, labels) -> None:
    def loss(ce_weight: float, pxy_weight: float) -> float:
        made = task(tmp_path, images, labels, ce_weight=ce_weight, pxy_weight=pxy_weight)
        torch.manual_seed(1)
        return made.loss(1)[0].item()

    assert loss(2, 3) == pytest.approx(2 * loss(1, 0) + 3 * loss(0, 1), rel=1e-5)
    assert loss(1, 0) > 0
    assert loss(0, 1) > 0


def test_an_image_is_contrasted_before_it_enters_the_queue(tmp_path, images, labels) -> None:
    made = task(tmp_path, images, labels, momentum=0.0, sigma=0.0, ce_weight=0.0)
    before = made.queue.logits.clone()
    torch.manual_seed(1)
    loss, _ = made.loss(1)
    torch.manual_seed(1)
    logits = made.network(made.images(1).float() / 127.5 - 1)
    expected = -contrast(logits, made.batches.labels_of(1), before, temperature=0.1, unit_length=True).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(made.queue.logits[:8], logits.detach())
    assert torch.equal(made.queue.logits[8:], before[8:])
    loss.backward()  # the queue was overwritten in between


def test_the_queue_is_filled_by_the_follower(tmp_path, images, labels) -> None:
    made = task(tmp_path, images, labels, momentum=1.0, sigma=0.0)
    first = {name: value.clone() for name, value in made.network.state_dict().items()}
    for step in (1, 2, 3):
        torch.manual_seed(step)
        made.step(step)
    assert made.follower is not None
    assert all(torch.equal(value, first[name]) for name, value in made.follower.state_dict().items()), (
        "momentum 1 stays"
    )
    assert any(not torch.equal(value, first[name]) for name, value in made.network.state_dict().items())
    torch.manual_seed(3)
    with torch.no_grad():
        keys = made.follower(made.images(3).float() / 127.5 - 1)
    newest = made.queue.logits.roll(-int(made.queue.next), 0)[-8:]
    torch.testing.assert_close(newest, keys)


def test_training_moves_the_weights_and_says_how_it_went(tmp_path, images, labels) -> None:
    checkpoint = load_checkpoint(run(tmp_path, images, labels))
    read = HDGESystem.from_checkpoint(checkpoint)
    validation = checkpoint.card["training"]["validation"]
    right = read.classify(images[-20:]).argmax(axis=1) == labels[-20:]
    assert validation["accuracy"] == pytest.approx(right.mean(), abs=0.051)
    assert validation["score_mean"] == pytest.approx(read.score(images[-20:]).mean(), abs=0.05)
    assert {path.name for path in (tmp_path / "run").glob("samples-*.png")} == {
        "samples-000003.png",
        "samples-000006.png",
    }


def test_previews_are_the_noisy_images(tmp_path, images, labels) -> None:
    made = task(tmp_path, images, labels, sigma=0.0)
    shown = made.preview()
    assert shown.shape == (64, 8, 8, 3)
    assert {image.tobytes() for image in shown} <= {image.tobytes() for image in images}
    loud = task(tmp_path, images, labels, sigma=0.5).preview()
    assert np.abs(loud.astype(int) - shown).mean() > 5


def test_labels_are_trained_on_and_those_held_out_are_not(tmp_path, images, labels) -> None:
    weights = [run(tmp_path, images, labels).read_bytes()]
    for name, changed in (("held", slice(80, None)), ("trained", slice(80))):
        other = labels.copy()
        other[changed] = (other[changed] + 1) % 4
        weights.append(run(tmp_path, images, other, name=name).read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    with pytest.raises(UserError, match="has no labels, which hdge trains on"):
        run(tmp_path, images, None, name="none")


def test_a_classifier_learns_its_classes(tmp_path, labels) -> None:
    """Four grey levels, one per class; the contrast of a class with the others' images rises above chance."""
    flat = np.repeat((labels * 60 + 30).astype(np.uint8), 8 * 8 * 3).reshape(100, 8, 8, 3)
    made = task(tmp_path, flat, labels, learning_rate=3e-3, warmup=1, batch_size=32, queue_size=64)
    made.config = replace(made.config, schedule=replace(made.config.schedule, steps=1000))
    for step in range(1, 81):
        torch.manual_seed(step)
        log = made.step(step)
    assert made.validate(flat, labels)["accuracy"] > 0.9
    assert log["log_q"] > -math.log(65) + 0.5


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, images, labels, monkeypatch) -> None:
    whole = run(tmp_path, images, labels, name="whole")

    def spoil(task: HDGETask) -> None:  # an update that was cut off half-way
        task.queue.logits.zero_()
        task.queue.next = torch.tensor(0)
        task.follower.last.weight.zero_()  # type: ignore[union-attr]

    assert_resumes_exactly(partial(run, tmp_path, images, labels), whole, HDGETask, monkeypatch, spoil)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 1e-2),
        ("warmup", 4),
        ("clip_norm", 1e-3),
        ("ema_decay", 0.0),
        ("bf16", True),
        ("ce_weight", 0.5),
        ("pxy_weight", 0.5),
        ("sigma", 0.3),
        ("queue_size", 9),
        ("temperature", 1.0),
        ("unit_length", False),
        ("momentum", 0.0),
        ("momentum", 0.5),
    ],
)
def test_every_option_takes_effect(tmp_path, images, labels, option, value) -> None:
    assert_differ(task(tmp_path, images, labels), task(tmp_path, images, labels, **{option: value}), 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": -1.0}, r"training\.sigma = -1, needed at least 0"),
        ({"queue_size": 7, "batch_size": 8}, r"training\.queue_size = 7, needed at least 8"),
        ({"temperature": 0.0}, r"training\.temperature = 0, needed at least 0\.001"),
        ({"momentum": 1.5}, r"training\.momentum = 1\.5, needed at least 0 and at most 1"),
    ],
)
def test_a_wrong_training_option_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HDGETraining(**wrong)
