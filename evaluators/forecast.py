"""What a long run will cost, before it is begun: items, seconds, GiB in the cache.

per_image = seconds_per_item(lambda start, stop: draw(range(start, stop)), 16)
print(forecast([Part("draw vaebm", done=1000, todo=49_000, seconds_per_item=per_image, bytes_per_item=3080)]).text)
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True)
class Part:
    """One kind of work in a run.

    Attributes:
        label: what is done, e.g. ``"draw vaebm"``.
        done: items that the cache holds already.
        todo: items still to be made.
        seconds_per_item: as timed; None where it is not known.
        bytes_per_item: in the cache.
    """

    label: str
    done: int
    todo: int
    seconds_per_item: float | None
    bytes_per_item: float = 0.0

    @property
    def seconds(self) -> float | None:
        """Seconds that are still to be spent; None where not known."""
        if self.todo == 0:
            return 0.0
        return None if self.seconds_per_item is None else self.todo * self.seconds_per_item

    @property
    def gib(self) -> float:
        """GiB of all its items in the cache, those that are there already included."""
        return (self.done + self.todo) * self.bytes_per_item / _GIB


@dataclass(frozen=True)
class Forecast:
    """The cost of all parts together.

    Attributes:
        parts: as given.
        seconds: sum over the parts whose time is known.
        complete: whether it is known of every part.
        gib: in the cache when all is done.
        new_gib: of these, what is still to be written.
        text: a table for people, lines without trailing spaces, ends with a newline.
    """

    parts: tuple[Part, ...]
    seconds: float
    complete: bool
    gib: float
    new_gib: float
    text: str


def forecast(parts: Sequence[Part]) -> Forecast:
    """Add up what a run will cost, with a table: per part items in the cache, items to make, seconds per item, time, GiB.

    Raises:
        ValueError: a negative or non-finite count, time or size.
    """
    for part in parts:
        numbers = (part.done, part.todo, part.seconds_per_item or 0.0, part.bytes_per_item)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"{part.label}: counts, times and sizes must be finite and not negative, found {numbers}")
    known = [part.seconds for part in parts if part.seconds is not None]
    seconds, complete = sum(known), len(known) == len(parts)
    gib = sum(part.gib for part in parts)
    new_gib = sum(part.todo * part.bytes_per_item for part in parts) / _GIB
    rows = [("", "in cache", "to make", "s/item", "time", "GiB")]
    for part in parts:
        each = "?" if part.seconds_per_item is None else f"{part.seconds_per_item:.3g}"
        rows.append((part.label, f"{part.done:,}", f"{part.todo:,}", each, _or_unknown(part.seconds), _size(part.gib)))
    whole = duration(seconds) if complete else f"over {duration(seconds)}"
    rows.append(("total", "", "", "", whole, _size(gib)))
    return Forecast(tuple(parts), seconds, complete, gib, new_gib, _table(rows))


def duration(seconds: float) -> str:
    """Two units at most: ``"0.4 s"``, ``"52 s"``, ``"3 min 5 s"``, ``"2 h 10 min"``, ``"4 d 3 h"``."""
    if seconds < 9.95:
        return "0 s" if seconds == 0 else f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def seconds_per_item(function: Callable[[int, int], object], block: int, *, warm_up: bool = True) -> float:
    """Time ``function(0, block)`` and divide by ``block``.

    Args:
        function: (start, stop) -> anything, as ``ArrayStore.compute`` takes it.
        block: items of one batch of the run: a smaller one would be dearer per item.
        warm_up: call it once before: the first call also pays for what is set up once.

    Raises:
        ValueError: block below 1.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, found {block}")
    if warm_up:
        function(0, block)
    began = time.perf_counter()
    function(0, block)
    return (time.perf_counter() - began) / block


def _or_unknown(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)


def _size(gib: float) -> str:
    return "< 0.01" if 0 < gib < 0.005 else f"{gib:.2f}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns two spaces apart, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
