"""Numbers in print: the same digits in every format."""

from collections.abc import Callable
from dataclasses import dataclass

from leaderboards.board import Board, Cell, Column

EMPTY = "–"


@dataclass(frozen=True)
class Style:
    """How numbers are printed.

    Attributes:
        decimals: of published numbers (the paper prints two).
        measured_decimals: of measured numbers and their intervals; ``None``: as ``decimals``.
        intervals: whether to print intervals.
    """

    decimals: int = 2
    measured_decimals: int | None = None
    intervals: bool = True


def parts(cell: Cell, column: Column, style: Style) -> tuple[str, str]:
    """Return (number, interval) as text, ``("0.84", "[.82,.86]")``; no interval where none exists or is wanted."""
    if cell.value is None:
        return EMPTY, ""
    digits = (
        style.decimals if cell.origin == "published" or style.measured_decimals is None else style.measured_decimals
    )
    digits = digits if column.decimals is None else column.decimals
    padded = cell.origin != "published"  # a paper's 0.087 has two digits
    show: Callable[[float], str] = lambda value: (
        _magnitude(value, padded) if column.magnitude else _fixed(value, digits)
    )
    if cell.low is None or cell.high is None or not style.intervals:
        return show(cell.value), ""
    return show(cell.value), f"[{_short(show(cell.low))},{_short(show(cell.high))}]"


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")  # no "-0.00"


def _magnitude(value: float, padded: bool) -> str:
    """Three digits, or as many as stand before the point; a published number as it was published."""
    if not padded:
        return f"{value:g}"
    if 999.5 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:#.3g}".removesuffix(".")


def _short(text: str) -> str:
    """Drop the zero before the point: ``.82``, ``-.31``."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (digits[1:] if digits.startswith("0.") else digits)


def arrow(column: Column, up: str = "↑", down: str = "↓") -> str:
    """Return which way is better, after a space; nothing where the column does not say."""
    return "" if column.higher_is_better is None else f" {up if column.higher_is_better else down}"


def rank_legend(board: Board, best: str = "", second: str = "") -> str:
    """Say what the marks of ranks mean, after what they look like (``"Bold: "``); nothing where no cell has a rank."""
    if not board.has_rank(1):
        return ""
    seconds = f" {second}second of these." if board.has_rank(2) else ""
    like = "the published rows of its block, or of the measured rows of its block with equal protocol"
    return f"{best}best of {like}; by value, though intervals may overlap.{seconds}"
