"""The parts of training: batches, averaged weights, replay buffer, clipping, KL balancing, run records."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vaebm.errors import UserError
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ebm import clip_by_second_moment
from vaebm.training.ema import EMA
from vaebm.training.precision import Precision
from vaebm.training.record import read_run, record_run
from vaebm.training.replay import ReplayBuffer
from vaebm.training.vae import VAETraining, balance_factors, balance_kl


def numbered(n: int) -> np.ndarray:
    """Return images (N, 1, 2, 1) whose left pixel is their number and whose right pixel is 255."""
    return np.stack([np.array([[[i], [255]]]) for i in range(n)]).astype(np.uint8)


# Batches


@given(n=st.integers(4, 30), size=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_epoch_shows_every_image_at_most_once_and_fills_its_batches(n: int, size: int, seed: int) -> None:
    batches = Batches(numbered(n), size, seed, flip=False)
    assert batches.per_epoch == n // size
    for epoch in range(2):
        shown = [
            int(v)
            for step in range(batches.per_epoch)
            for v in batches[epoch * batches.per_epoch + step + 1][:, 0, 0, 0]
        ]
        assert len(shown) == len(set(shown)) == n // size * size


def test_order_is_a_function_of_seed_and_step_alone() -> None:
    ahead, again, other = (Batches(numbered(50), 5, seed, flip=False) for seed in (1, 1, 2))
    in_order = [ahead[step] for step in range(1, 31)]
    for step in (30, 1, 15, 11, 10):  # also backwards and across epochs
        assert torch.equal(again[step], in_order[step - 1])
    assert not torch.equal(torch.cat(in_order[:10]), torch.cat(in_order[10:20]))  # epochs differ
    assert any(not torch.equal(other[step], in_order[step - 1]) for step in (1, 2, 3))


def test_flips_mirror_left_right_half_of_the_images_by_torchs_generator() -> None:
    batches = Batches(numbered(200), 200, 0)
    torch.manual_seed(0)
    first = batches[1]
    flipped = first[:, 0, 0, 0] == 255
    assert 60 < int(flipped.sum()) < 140
    torch.manual_seed(0)
    assert torch.equal(batches[1], first)
    plain = Batches(numbered(200), 200, 0, flip=False)[1]
    assert torch.equal(torch.where(flipped.view(-1, 1, 1, 1), first.flip(-1), first), plain)


def test_a_set_smaller_than_one_batch_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"3 images .* 4"):
        Batches(numbered(3), 4, 0)


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    unit = to_unit(torch.from_numpy(every).permute(0, 3, 1, 2))
    assert (unit.min(), unit.max()) == (0, 1)
    assert np.array_equal(to_uint8(unit), every)
    assert to_uint8(torch.tensor([[[[-3.0, 0.4999 / 255, 0.5001 / 255, 7.0]]]])).ravel().tolist() == [0, 0, 1, 255]
    lost = torch.tensor([[[[math.nan, math.inf, -math.inf]]]])  # bytes of these would be undefined
    assert to_uint8(lost).ravel().tolist() == [128, 255, 0]


# Averaged weights


def test_average_follows_its_formula_and_copies_buffers() -> None:
    module = nn.BatchNorm1d(1)
    ema, expected = EMA(module, 0.5), 1.0
    for t in range(1, 15):
        module.weight.data.fill_(t)
        module.running_mean.fill_(10 * t)
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
        assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-6)
        assert ema.shadow["running_mean"].item() == 10 * t
    assert module.weight.item() == 14


def test_average_resumes_where_it_was() -> None:
    module = nn.Linear(2, 2)
    first = EMA(module, 0.9)
    for _ in range(3):
        module.weight.data.add_(1)
        first.update()
    second = EMA(nn.Linear(2, 2), 0.9)
    second.load_state_dict({**first.state_dict(), "shadow": {k: v.clone() for k, v in first.shadow.items()}})
    second.module = module
    for ema in (first, second):
        ema.update()
    assert torch.equal(first.shadow["weight"], second.shadow["weight"])


# Replay buffer


@given(size=st.integers(1, 20), lanes=st.integers(1, 4), pushes=st.integers(1, 9))
def test_buffer_keeps_the_newest_entries_of_every_lane(size: int, lanes: int, pushes: int) -> None:
    buffer, rows = ReplayBuffer(size, lanes, [(1,), (2, 1)]), -(-size // lanes)
    for push in range(pushes):
        values = torch.arange(lanes).float() + 100 * push
        buffer.push([values.view(lanes, 1), -values.view(lanes, 1, 1).expand(lanes, 2, 1)])
    assert buffer.filled == min(rows, pushes)
    for lane in range(lanes):
        kept = sorted(buffer.stored[0][: buffer.filled, lane, 0].tolist())
        assert kept == [lane + 100 * push for push in range(pushes)][-rows:]
    assert torch.equal(buffer.stored[1][:, :, 0, 0], -buffer.stored[0][:, :, 0])  # groups stay together


def test_buffer_replaces_the_asked_share_of_starts_by_any_row_of_the_own_lane_and_keeps_groups_together() -> None:
    n = 4000
    buffer, lane = ReplayBuffer(3 * n, n, [(1,), (1, 1)]), torch.arange(n)
    fresh = [torch.zeros(n, 1), torch.zeros(n, 1, 1)]
    torch.manual_seed(0)
    assert torch.equal(buffer.mix(fresh, 1.0)[0], fresh[0])  # nothing is stored yet
    for row in range(1, 4):
        values = (lane + row * n).float().view(n, 1)
        buffer.push([values, -values.view(n, 1, 1)])
    a, b = buffer.mix(fresh, 0.3)
    assert torch.equal(a.flatten(), -b.flatten())
    replaced = a.flatten() != 0
    assert abs(replaced.float().mean() - 0.3) < 4 * (0.21 / n) ** 0.5
    assert torch.equal(a.flatten()[replaced].long() % n, lane[replaced])
    rows = torch.bincount((a.flatten()[replaced] / n).long())[1:] / replaced.sum()
    assert (rows - 1 / 3).abs().max() < 4 * (2 / 9 / (0.3 * n)) ** 0.5
    assert (buffer.mix(fresh, 1.0)[0] != 0).all()
    assert torch.equal(buffer.mix(fresh, 0.0)[0], fresh[0])
    assert torch.equal(fresh[0], torch.zeros(n, 1))


def test_buffer_resumes_with_its_content_and_position() -> None:
    first, second = ReplayBuffer(4, 2, [(1,)]), ReplayBuffer(4, 2, [(1,)])
    first.push([torch.tensor([[1.0], [2.0]])])
    second.load_state_dict(first.state_dict())
    for buffer in (first, second):
        for value in (3.0, 5.0):
            buffer.push([torch.tensor([[value], [value + 1]])])
    assert torch.equal(first.stored[0], second.stored[0])
    assert first.stored[0].flatten().tolist() == [5, 6, 3, 4]
    assert (first.next, first.filled) == (second.next, second.filled) == (1, 2)


def test_buffer_of_size_zero_does_nothing() -> None:
    buffer, fresh = ReplayBuffer(0, 3, [(1,)]), [torch.ones(3, 1)]
    buffer.push(fresh)
    assert torch.equal(buffer.mix(fresh, 1.0)[0], fresh[0])


# Gradient clipping


def test_clipping_bounds_every_element_by_three_standard_deviations_plus_a_tenth() -> None:
    parameter, history = nn.Parameter(torch.zeros(3)), []
    optimizer = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.95))
    parameter.grad = torch.tensor([100.0, 1.0, 0.0])
    clip_by_second_moment(optimizer)
    assert parameter.grad.tolist() == [100.0, 1.0, 0.0]  # no moment yet, no bound
    for gradient in ([1.0, 2.0, 0.0], [-3.0, 0.5, 0.0]):
        parameter.grad = torch.tensor(gradient)
        history.append(parameter.grad.clone())
        optimizer.step()
    v = 0.05 * (0.95 * history[0] ** 2 + history[1] ** 2) / (1 - 0.95**2)
    bound = 3 * v.sqrt() + 0.1
    parameter.grad = torch.tensor([1e6, -1e6, 1e6])
    clip_by_second_moment(optimizer)
    torch.testing.assert_close(parameter.grad, bound * torch.tensor([1.0, -1.0, 1.0]))
    inside = 0.9 * bound
    parameter.grad = inside.clone()
    clip_by_second_moment(optimizer)
    assert torch.equal(parameter.grad, inside)


# KL balancing


def test_balanced_kl_weights_groups_by_size_and_kl_with_mean_one() -> None:
    kl, sizes = torch.tensor([[1.0, 3.0], [3.0, 5.0]], requires_grad=True), torch.tensor([16.0, 64.0])
    raw = torch.tensor([16 * 2 + 0.01, 64 * 4 + 0.01])
    gamma = raw / raw.mean()
    balanced = balance_kl(kl, sizes)
    torch.testing.assert_close(balanced, (kl * gamma).sum(1))
    balanced.sum().backward()
    torch.testing.assert_close(kl.grad, gamma.expand(2, 2))  # the weights themselves carry no gradient
    equal = torch.full((3, 2), 2.0)
    torch.testing.assert_close(balance_kl(equal, torch.ones(2)), equal.sum(1))


def test_released_balance_follows_its_formula() -> None:
    shapes = [(2, 4, 4)] * 3 + [(2, 8, 8)] * 6 + [(2, 16, 16)] * 2
    factors, offset = balance_factors("official", shapes)
    alpha = torch.tensor([1 / 3] * 3 + [4 / 6] * 6 + [16 / 2] * 2)
    torch.testing.assert_close(factors, (1 / 3) / alpha)
    kl = torch.rand(5, 11)
    raw = (kl.mean(0) + 0.01) / alpha
    torch.testing.assert_close(balance_kl(kl, factors, offset), (kl * raw / raw.mean()).sum(1))


def test_balance_by_size_counts_latents() -> None:
    factors, offset = balance_factors("size", [(2, 4, 4), (3, 8, 8)])
    assert factors.tolist() == [32.0, 192.0]
    assert offset.tolist() == pytest.approx([0.01, 0.01])


# Schedules of stage 1


def test_kl_weight_of_ours_and_of_the_released_code() -> None:
    ours = VAETraining(steps=1000, kl_anneal=0.3, kl_start=0.05)
    assert ours.beta(150) == pytest.approx(0.05 + 0.95 * 0.5)
    released = VAETraining(steps=100_000, kl_anneal=0.3, kl_start=0.0, kl_const=1e-4, kl_floor=1e-4)
    assert released.beta(5) == released.beta(10) == released.beta(13) == 1e-4
    assert released.beta(15_010) == pytest.approx(0.5)
    for training in (ours, released):
        assert training.beta(int(0.31 * training.steps)) == training.beta(training.steps) == 1


def test_rate_warms_up_and_falls_along_a_cosine_to_its_minimum() -> None:
    training = VAETraining(steps=110, warmup_steps=10, learning_rate=1.0, learning_rate_min=0.2)
    assert [training.rate(step) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])
    assert training.rate(60) == pytest.approx(0.6)
    assert training.rate(110) == pytest.approx(0.2)


def test_epochs_become_updates_by_the_size_of_the_data() -> None:
    training = VAETraining(steps=0, epochs=3, warmup_steps=0, warmup_epochs=0.5, batch_size=8).in_updates(70)
    assert (training.steps, training.warmup_steps) == (24, 4)
    assert training.in_updates(1000) == training


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 3}, "steps = 20000 and epochs = 3"),
        ({"steps": 0}, "exactly one"),
        ({"warmup_epochs": 1}, "warmup_epochs = 1"),
        ({"kl_balance": "sizes"}, "'sizes'"),
        ({"precision": "fp8"}, "'fp8'"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_stage_one_names_a_wrong_option(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        VAETraining(**change)


def test_float16_on_a_cpu_is_refused_by_its_flag() -> None:
    with pytest.raises(UserError, match=r"vae\.precision = .fp16.*--device cpu.*bf16"):
        Precision("fp16", torch.device("cpu"), "vae.precision")


# The record of a run


def test_a_resumed_run_must_be_the_run_that_was_started(tmp_path: Path) -> None:
    folder, settings = tmp_path / "run", {"seed": 1, "settings": {"vae": {"steps": 5}, "blocks": ((1, True),)}}
    record_run(folder, settings, resume=False)
    assert read_run(folder)["settings"]["blocks"] == [[1, True]]
    record_run(folder, settings, resume=True)
    changed = {**settings, "settings": {"vae": {"steps": 6}, "blocks": ((1, True),)}}
    with pytest.raises(UserError, match=r"settings\.vae\.steps is now 6, .* started with 5"):
        record_run(folder, changed, resume=True)
    (folder / "checkpoint.pt").touch()
    record_run(folder, changed, resume=False)  # the loop refuses this; the record must not change before
    assert read_run(folder)["settings"]["vae"]["steps"] == 5


def test_records_of_folders_that_cannot_be_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        record_run(tmp_path / "file" / "run", {}, resume=False)
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path)
