"""Noise that is drawn ahead is the noise that would have been drawn, and its thread ends with the chain."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny import TINY_ENERGY, lively_nvae
from torch import Tensor

from vaebm.energy import EnergyNetwork
from vaebm.model import VAEBM, ChainSettings
from vaebm.noise import ahead, normal


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def draw(k: int) -> Tensor:
    return normal(0, [1, 2], f"step.{k}", (3,))


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_bytes_are_those_of_the_chains_own_draws(steps: int) -> None:
    with ahead(draw, steps) as noise:
        found = [noise(k) for k in range(steps)]
    assert all(torch.equal(a, draw(k)) for k, a in enumerate(found))


def test_any_step_can_be_asked_for_in_any_order() -> None:
    with ahead(draw, 4) as noise:
        assert all(torch.equal(noise(k), draw(k)) for k in (2, 2, 0, 3, 1))


def test_the_next_step_is_drawn_in_another_thread_before_it_is_asked_for_and_none_after_the_last() -> None:
    drawn: list[tuple[int, str]] = []
    ready = [threading.Event() for _ in range(3)]

    def watched(k: int) -> int:
        drawn.append((k, threading.current_thread().name))
        ready[k].set()
        return k

    with ahead(watched, 3) as noise:
        assert ready[0].wait(10)  # before anyone asked
        for k in range(3):
            assert noise(k) == k
            if k < 2:
                assert ready[k + 1].wait(10)
    assert [k for k, _ in drawn] == [0, 1, 2]
    assert all(name.startswith("noise") for _, name in drawn)


def test_an_error_of_the_chain_or_of_a_draw_comes_through() -> None:
    def chain(draw: Callable[[int], int], breaks: int) -> Iterator[int]:
        with ahead(draw, 5) as noise:
            for k in range(5):
                yield noise(k) // (breaks - k)

    with pytest.raises(ZeroDivisionError):
        list(chain(lambda k: k, breaks=2))
    with pytest.raises(IndexError):
        list(chain(lambda k: [1, 2][k], breaks=9))


def test_a_chain_that_is_left_halfway_leaves_no_thread() -> None:
    states = VAEBM(lively_nvae(), EnergyNetwork(TINY_ENERGY).eval()).trajectory(
        [0], ChainSettings(steps=50, step_size=1e-3)
    )
    next(states)
    next(states)
    assert any(thread.name.startswith("noise") for thread in threading.enumerate())
    states.close()  # the fixture looks
