"""TF32 is off unless somebody asks for it, and nobody turns it while others count on it."""

import threading
from collections.abc import Iterator

import pytest
import torch

from vaebm.arithmetic import exact, exact_arithmetic, tf32_arithmetic
from vaebm.cli import use_device


def switches() -> tuple[str, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


EXACT = ("highest", False, True, False)
TF32 = ("high", True, True, False)
TORCHS = ("highest", True, False, False)


def turn(precision: str, *cudnns: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = cudnns


@pytest.fixture(autouse=True)
def as_torch_starts() -> Iterator[None]:
    before = switches()
    turn(*TORCHS)
    yield
    turn(*before)


def test_every_command_line_turns_tf32_off() -> None:
    assert switches() == TORCHS  # convolutions in TF32
    use_device("cpu")
    assert switches() == EXACT


def test_a_block_turns_them_and_turns_them_back() -> None:
    with exact_arithmetic():
        assert switches() == EXACT
        with tf32_arithmetic():
            assert switches() == TF32
        assert switches() == EXACT
    assert switches() == TORCHS
    with pytest.raises(KeyError), tf32_arithmetic():
        raise KeyError
    assert switches() == TORCHS


def test_tf32_waits_for_exact_work_of_another_thread_and_the_other_way_round() -> None:
    exact()
    seen: list[tuple[str, bool, bool, bool]] = []
    entered, leave = threading.Event(), threading.Event()

    def features() -> None:
        with exact_arithmetic():
            entered.set()
            leave.wait(10)
            seen.append(switches())

    def samples() -> None:
        with tf32_arithmetic():
            seen.append(switches())

    first = threading.Thread(target=features)
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=samples)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert not seen
    leave.set()
    first.join(10)
    second.join(10)
    assert seen == [EXACT, TF32]
    assert switches() == EXACT
