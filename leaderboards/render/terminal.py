"""A board as aligned text for a terminal."""

import textwrap
import unicodedata
from itertools import pairwise

from leaderboards.board import Board
from leaderboards.render.numbers import Style, arrow, parts, rank_legend

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
MARKS = {1: "*", 2: "+"}  # behind the numbers of these ranks
GAP = 2
LONGEST_LABEL = 44


def to_text(board: Board, style: Style | None = None, width: int = 120) -> str:
    """Return the table as text. Columns beyond ``width`` characters go to a second panel with the same rows."""
    style = style or Style()
    labels, grid = _grid(board, style)
    label_width = max([len(label) for label, cells in zip(labels, grid, strict=True) if label and cells], default=0)
    widths = [max(len(line[i]) for line in grid if line) for i in range(len(board.columns))]

    lines = [*textwrap.wrap(plain(board.title), width)]
    for start, stop in pairwise(_panels(widths, width - label_width)):
        rule = "─" * (label_width + sum(GAP + w for w in widths[start:stop]))
        lines += ["", rule] if start else [rule]
        for label, cells in zip(labels, grid, strict=True):
            if not cells:  # the title of a block, in place of the rule between blocks
                lines += ["", label or ""] if lines[-1] != rule else [label or ""]
                continue
            shown = "".join(" " * GAP + cells[i].ljust(widths[i]) for i in range(start, stop))
            lines.append(f"{(label or '').ljust(label_width)}{shown}".rstrip())
            if label is None:
                lines.append(rule)
        lines.append(rule)
    return "\n".join([*lines, *_notes(board, width)]) + "\n"


def _grid(board: Board, style: Style) -> tuple[list[str | None], list[list[str]]]:
    """Return labels and cells as text: the header (label ``None``), then block titles (no cells) and rows."""
    reasons = board.reasons()
    labels: list[str | None] = [None]
    grid = [[plain(column.title) + arrow(column) for column in board.columns]]
    for block in board.blocks:
        labels.append(plain(block.title))
        grid.append([])
        for row in block.rows:
            labels.append(_shorten(("    " if row.nested else "  ") + plain(row.full_label)))
            line = []
            for column, cell in zip(board.columns, row.cells, strict=True):
                number, interval = parts(cell, column, style)
                mark = MARKS.get(cell.rank, "")
                note = str(reasons[cell.note]).translate(SUPERSCRIPTS) if cell.note else ""
                line.append(f"{number}{mark}{note} {interval}".rstrip())
            grid.append(line)
    _align(grid)
    return labels, grid


def _align(grid: list[list[str]]) -> None:
    """Put a space before numbers without a sign where their column has a minus, and pad numbers before an interval."""
    body = [line for line in grid[1:] if line]
    for i in range(len(grid[0])):
        if any(line[i].startswith("-") for line in body):
            for line in body:
                line[i] = line[i] if line[i].startswith("-") else f" {line[i]}"
        heads = max((len(line[i].partition(" [")[0]) for line in body if " [" in line[i]), default=0)
        for line in body:
            head, bracket, tail = line[i].partition(" [")
            line[i] = f"{head.ljust(heads)}{bracket}{tail}" if bracket else line[i]


def _panels(widths: list[int], room: int) -> list[int]:
    """Return where the panels begin and end: ``[0, 5, 7]`` are columns 0-4 and 5-6."""
    edges, used = [0], 0
    for i, width in enumerate(widths):
        if i > edges[-1] and used + GAP + width > room:
            edges.append(i)
            used = 0
        used += GAP + width
    return [*edges, len(widths)]


def _notes(board: Board, width: int) -> list[str]:
    notes = [(str(number).translate(SUPERSCRIPTS), reason) for reason, number in board.reasons().items()]
    notes += [(MARKS[1], legend)] if (legend := rank_legend(board, second=f"{MARKS[2]} ")) else []
    notes += [("·", note) for note in board.footnotes]
    return [
        textwrap.fill(
            plain(text), width, initial_indent=f"{mark} ".rjust(3), subsequent_indent="   ", break_on_hyphens=False
        )
        for mark, text in notes
    ]


def plain(text: str) -> str:
    """Replace control characters: a name must not move the cursor or colour the screen."""
    return "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in text)


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
