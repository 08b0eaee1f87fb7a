"""Batches that fit: what is halved, what is chosen, and that nothing is lost or repeated on the way."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaebm import batching
from vaebm.batching import MOST, PROBED, fitting_size, free_bytes, is_out_of_memory, map_batches
from vaebm.errors import UserError

GIGABYTE = 2**30


def fits(most: int, seen: list[int] | None = None) -> Callable[[list[int]], list[int]]:
    """Squares, on a device that has memory for ``most`` items at a time."""

    def square(items: list[int]) -> list[int]:
        if seen is not None:
            seen.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        return [i * i for i in items]

    return square


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_every_item_is_seen_once_in_order_whatever_fits(count: int, size: int, most: int) -> None:
    found, fitting = map_batches(fits(most), list(range(count)), size)
    assert [value for part in found for value in part] == [i * i for i in range(count)]
    assert all(len(part) <= most for part in found)
    assert fitting <= size
    if count >= size > most:
        assert fitting <= most


def test_the_size_that_fitted_is_kept_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    assert map_batches(fits(25, seen), list(range(220)), 100)[1] == 25
    assert seen == [100, 50, *[25] * 8, 20]
    said = capsys.readouterr().err
    assert said.count("note:") == 1
    assert re.search(r"--batch-size 100 .*25", said)
    map_batches(fits(100), list(range(220)), 100)
    assert not capsys.readouterr().err


def test_not_even_one_image_is_a_line_that_names_the_flag() -> None:
    with pytest.raises(
        UserError, match=r"^--batch-size 8: no memory even for a single image \(CUDA out of memory"
    ) as error:
        map_batches(fits(0), [1, 2], 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [RuntimeError("expected 3 channels"), ValueError("x"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    calls = []

    def wrong(items: Any) -> None:
        calls.append(len(items))
        raise error

    with pytest.raises(type(error)):
        map_batches(wrong, [1, 2, 3, 4], 4)
    assert calls == [4]


def test_what_a_failed_batch_held_is_free_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of the failed pass hangs on the traceback; it must be gone when the smaller pass begins."""
    import weakref

    held: list[weakref.ref[Any]] = []

    class Big:
        pass

    def passes(items: list[int]) -> int:
        assert all(ref() is None for ref in held)
        big = Big()
        held.append(weakref.ref(big))
        if len(items) > 1:
            raise torch.OutOfMemoryError("full")
        return len(items)

    assert map_batches(passes, [1, 2, 3, 4], 4) == ([1, 1, 1, 1], 1)
    assert len(held) == 6


def test_the_hosts_memory_runs_out_in_two_ways() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(found.value)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(numpys.value)
    assert not is_out_of_memory(RuntimeError("no"))


def linear(monkeypatch: pytest.MonkeyPatch, *, per_image: int, free: int, fixed: int = GIGABYTE) -> list[int]:
    """Pretend a device on which n images take ``fixed`` + n ``per_image`` bytes; return the list of the passes made."""
    passes: list[int] = []

    def peak(run: Callable[[int], object], n: int, device: torch.device) -> int:
        run(n)
        return fixed + n * per_image

    monkeypatch.setattr(batching, "_peak_bytes", peak)
    monkeypatch.setattr(batching, "free_bytes", lambda device: free)
    return passes


@pytest.mark.parametrize(
    ("per_image", "free", "most", "expected"),
    [
        (GIGABYTE, 8 * GIGABYTE, 64, 4),  # half of what is free
        (GIGABYTE, 9 * GIGABYTE, 64, 4),
        (1, 8 * GIGABYTE, 64, 64),
        (1, 8 * GIGABYTE, 16, 16),
        (100 * GIGABYTE, GIGABYTE, 64, 1),
        (0, GIGABYTE, 32, 32),
    ],
)
def test_auto_is_the_largest_power_of_two_that_half_of_the_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch, per_image: int, free: int, most: int, expected: int
) -> None:
    passes = linear(monkeypatch, per_image=per_image, free=free)
    assert fitting_size(passes.append, "cpu", most=most) == expected
    assert passes == [PROBED[0], *PROBED]


def test_auto_has_a_floor_and_a_ceiling_for_each_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    linear(monkeypatch, per_image=100 * GIGABYTE, free=GIGABYTE)
    assert fitting_size(lambda n: None, "cpu", least=16, most=256) == 16
    linear(monkeypatch, per_image=1, free=GIGABYTE)
    assert fitting_size(lambda n: None, "cpu") == MOST["cpu"] < MOST["cuda"] == fitting_size(lambda n: None, "cuda")


def test_where_nothing_can_be_measured_auto_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_peak_bytes", lambda *_: None)
    assert fitting_size(lambda n: None, "cpu", most=32) == 32


def test_no_memory_for_the_probe_is_a_users_error() -> None:
    def full(n: int) -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match="--device cpu: no memory for 16 images"):
        fitting_size(full, "cpu")


@pytest.mark.skipif(free_bytes(torch.device("cpu")) is None, reason="memory in use is read from Linux's /proc")
def test_measured_memory_grows_with_the_batch_by_what_a_batch_takes() -> None:
    each = 8 * 2**20

    def run(n: int) -> None:
        np.ones(n * each, np.uint8)

    small, large = (batching._peak_bytes(run, n, torch.device("cpu")) for n in PROBED)
    assert small is not None
    assert large is not None
    assert (large - small) / (PROBED[1] - PROBED[0]) == pytest.approx(each, rel=0.3)
    assert 0 < (free_bytes(torch.device("cpu")) or 0) < 2**50


def test_a_container_may_hold_less_than_the_machine(tmp_path: Any) -> None:
    left = lambda: list(batching._left_in_container(tmp_path))
    assert left() == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert left() == []
    (tmp_path / "memory.max").write_text("300\n")
    assert left() == [200]
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("150")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("200")
    assert left() == [200, 0]
