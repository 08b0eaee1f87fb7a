"""The parts of training: batches, averaged weights, replay buffer, guard, clipping, KL balancing, run records."""

from collections import deque
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
from vaebm.training.guard import EnergyGuard
from vaebm.training.loop import Diverged
from vaebm.training.record import read_run, record_run
from vaebm.training.replay import ReplayBuffer
from vaebm.training.vae import balance_kl


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


@given(size=st.integers(1, 7), pushes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_buffer_keeps_the_newest_entries(size: int, pushes: list[int]) -> None:
    buffer, reference, count = ReplayBuffer(size, [(1,), (2, 1)]), deque(maxlen=size), 0
    for n in pushes:
        values = torch.arange(count, count + n).float()
        count += n
        reference.extend(values.tolist())
        buffer.push([values.view(n, 1), -values.view(n, 1, 1).expand(n, 2, 1)])
    assert buffer.filled == len(reference)
    assert sorted(buffer.stored[0][: buffer.filled].flatten().tolist()) == sorted(reference)
    assert torch.equal(buffer.stored[1][:, 0, 0], -buffer.stored[0][:, 0])  # groups stay together


def test_buffer_replaces_the_asked_share_of_starts_and_keeps_groups_together() -> None:
    buffer = ReplayBuffer(10, [(1,), (1, 1)])
    fresh = [torch.zeros(4000, 1), torch.zeros(4000, 1, 1)]
    torch.manual_seed(0)
    assert torch.equal(buffer.mix(fresh, 1.0)[0], fresh[0])  # nothing is stored yet
    values = torch.arange(1.0, 11)
    buffer.push([values.view(10, 1), -values.view(10, 1, 1)])
    a, b = buffer.mix(fresh, 0.3)
    assert torch.equal(a.flatten(), -b.flatten())
    assert abs((a != 0).float().mean() - 0.3) < 4 * (0.21 / 4000) ** 0.5
    assert set(a.flatten().tolist()) == set(range(11))
    assert (buffer.mix(fresh, 1.0)[0] != 0).all()
    assert torch.equal(buffer.mix(fresh, 0.0)[0], fresh[0])
    assert torch.equal(fresh[0], torch.zeros(4000, 1))


def test_buffer_resumes_with_its_content_and_position() -> None:
    first, second = ReplayBuffer(4, [(1,)]), ReplayBuffer(4, [(1,)])
    first.push([torch.arange(1.0, 7).view(6, 1)[:3]])
    second.load_state_dict(first.state_dict())
    for buffer in (first, second):
        buffer.push([torch.tensor([[7.0], [8.0]])])
    assert torch.equal(first.stored[0], second.stored[0])
    assert (first.next, first.filled) == (second.next, second.filled) == (1, 4)


def test_buffer_of_size_zero_does_nothing() -> None:
    buffer, fresh = ReplayBuffer(0, [(1,)]), [torch.ones(3, 1)]
    buffer.push(fresh)
    assert torch.equal(buffer.mix(fresh, 1.0)[0], fresh[0])


# Guard


def feed(guard: EnergyGuard, gaps: list[float]) -> None:
    for gap in gaps:
        guard.check({"gap": gap})


def test_guard_ignores_the_large_gaps_of_a_young_network() -> None:
    guard = EnergyGuard(4, 0.1)
    feed(guard, [5.0] * 50)
    assert not guard.armed


def test_guard_arms_after_one_healthy_window_and_then_fires_at_the_limit() -> None:
    guard = EnergyGuard(4, 0.1)
    feed(guard, [5.0] * 4 + [0.1] * 3)
    assert not guard.armed
    feed(guard, [0.0])
    assert guard.armed
    feed(guard, [0.1] * 8)
    with pytest.raises(Diverged, match=r"0\.200 over 4 updates, limit 0\.1"):
        guard.check({"gap": 0.5})


def test_guard_waits_for_a_full_window_before_it_arms() -> None:
    guard = EnergyGuard(4, 0.1)
    feed(guard, [0.0] * 3)
    assert not guard.armed


def test_guard_returns_the_window_mean_and_resumes_armed() -> None:
    first, second = EnergyGuard(2, 0.1), EnergyGuard(2, 0.1)
    assert [first.check({"gap": gap}) for gap in (0.1, 0.0, -0.1)] == pytest.approx([0.1, 0.05, -0.05])
    second.load_state_dict(first.state_dict())
    assert second.armed
    for guard in (first, second):
        with pytest.raises(Diverged):
            guard.check({"gap": 9.0})


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
