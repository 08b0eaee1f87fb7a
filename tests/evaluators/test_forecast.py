"""The cost of a run before it is begun."""

import math
import time

import pytest

from evaluators.forecast import Part, duration, forecast, seconds_per_item

DRAW = Part("draw vaebm", done=1000, todo=49_000, seconds_per_item=0.25, bytes_per_item=3072)
EXTRACT = Part("features of vaebm", done=0, todo=50_000, seconds_per_item=0.002, bytes_per_item=8192)
READY = Part("features of cifar10", done=50_000, todo=0, seconds_per_item=None, bytes_per_item=8192)
UNTIMED = Part("draw nvae", done=0, todo=10, seconds_per_item=None)


def test_totals_are_sums_of_products() -> None:
    found = forecast([DRAW, EXTRACT, READY])
    assert found.seconds == pytest.approx(49_000 * 0.25 + 50_000 * 0.002)
    assert found.complete
    assert found.gib == pytest.approx((50_000 * 3072 + 100_000 * 8192) / 2**30)
    assert found.new_gib == pytest.approx((49_000 * 3072 + 50_000 * 8192) / 2**30)
    assert found.parts == (DRAW, EXTRACT, READY)


def test_the_table_reads_like_one() -> None:
    assert forecast([DRAW, EXTRACT, READY]).text == (
        "                     in cache  to make  s/item        time   GiB\n"
        "draw vaebm              1,000   49,000    0.25  3 h 24 min  0.14\n"
        "features of vaebm           0   50,000   0.002  1 min 40 s  0.38\n"
        "features of cifar10    50,000        0       ?         0 s  0.38\n"
        "total                                           3 h 26 min  0.91\n"
    )


def test_what_is_not_timed_is_said() -> None:
    found = forecast([DRAW, UNTIMED])
    assert not found.complete
    assert found.seconds == pytest.approx(12_250)
    lines = found.text.splitlines()
    assert lines[2].split()[-2:] == ["?", "0.00"]
    assert "over 3 h 24 min" in lines[-1]


def test_nothing_to_do() -> None:
    found = forecast([])
    assert (found.seconds, found.gib, found.new_gib, found.complete) == (0, 0, 0, True)
    assert found.text.splitlines()[-1].split() == ["total", "0", "s", "0.00"]


def test_small_is_not_nothing() -> None:
    assert "< 0.01" in forecast([Part("x", 0, 1, 0.01, 1000)]).text


@pytest.mark.parametrize(
    "bad", [(-1, 1, 1.0, 1.0), (0, -1, 1.0, 1.0), (0, 1, -1.0, 1.0), (0, 1, math.nan, 1.0), (0, 1, 1.0, math.inf)]
)
def test_impossible_numbers(bad: tuple) -> None:
    with pytest.raises(ValueError, match="not negative"):
        forecast([Part("x", *bad)])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.001, "0.1 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s")),
        *((59.6, "1 min"), (185, "3 min 5 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h"), (3600, "1 h")),
        *((7800, "2 h 10 min"), (7829, "2 h 10 min"), (86_399, "1 d"), (86_400 * 4 + 3 * 3600, "4 d 3 h")),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_seconds_per_item_times_one_block_after_a_warm_up() -> None:
    calls: list[tuple[int, int]] = []

    def slow(start: int, stop: int) -> None:
        time.sleep(0.3 if not calls else 0.05)
        calls.append((start, stop))

    assert 0.005 <= seconds_per_item(slow, 10) < 0.029
    assert calls == [(0, 10)] * 2
    calls.clear()
    assert seconds_per_item(slow, 10, warm_up=False) >= 0.03
    assert calls == [(0, 10)]
    with pytest.raises(ValueError, match="at least 1"):
        seconds_per_item(slow, 0)
