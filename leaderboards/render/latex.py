"""A board as a LaTeX table with booktabs, laid out as in the paper: a rule and an italic title before each block."""

import math
import re
from collections.abc import Sequence

from leaderboards.board import Board
from leaderboards.render.latex_grid import Grid, Panel
from leaderboards.render.latex_text import escape
from leaderboards.render.layout import GAP, LINE, PAPER, STRETCH, Page, panels, width
from leaderboards.render.numbers import Style, rank_legend


def to_latex(board: Board, style: Style | None = None) -> str:
    """Return a ``table`` environment, to be read with ``\\input``; what is longer than a page is a ``longtable``."""
    return typeset(board, style, PAPER)


def typeset(board: Board, style: Style | None, page: Page) -> str:
    """Return the table for pages of this size."""
    grid, notes = Grid(board, style or Style()), _notes(board)
    # As few panels as can be; with as many, the larger type.
    size, ends = min(((size, _panels(grid, size, page)) for size in GAP), key=lambda found: len(found[1]))
    parts = [grid.panel(start, stop, size) for start, stop in ends]

    below = sum(math.ceil(width(note, page.notes) / page.width) for _, note in notes) * LINE[page.notes]
    height = 50 + len(parts) * (15 + grid.lines() * (STRETCH[size] * LINE[size] + 0.7)) + below
    label = re.sub("[^A-Za-z0-9]", "-", board.name)  # a key, not text: only what is safe in one
    caption = rf"\caption{{{escape(board.title)}.}}\label{{tab:{label}}}"
    settings = (
        rf"\{size}\setlength{{\tabcolsep}}{{{GAP[size] / 2:g}pt}}\renewcommand{{\arraystretch}}{{{STRETCH[size]}}}"
    )
    foot = "\n\n".join((rf"\textsuperscript{{{number}}}~" if number else "") + escape(note) for number, note in notes)
    foot = rf"\{page.notes}\raggedright\noindent" + "\n" + foot if foot else ""
    if height > page.height:
        return "\n".join(_longtable(caption, settings, parts, foot)) + "\n"
    return "\n".join(_float(page.place, caption, settings, parts, foot)) + "\n"


def _panels(grid: Grid, size: str, page: Page) -> list[tuple[int, int]]:
    room = 0.98 * page.width - grid.label_width(size)  # the widths are estimates
    return panels(grid.column_widths(size), room)


def _notes(board: Board) -> list[tuple[str, str]]:
    """The text below a table: (number, reason) of cells, then what has no number."""
    notes = [(str(number), reason) for reason, number in board.reasons().items()]
    legend = rank_legend(board, "Bold: ", "Underlined: ")
    return [*notes, *(("", note) for note in (legend, *board.footnotes) if note)]


def _float(place: str, caption: str, settings: str, parts: Sequence[Panel], foot: str) -> list[str]:
    lines = [rf"\begin{{table}}[{place}]", r"\centering", rf"{caption}\par\smallskip", settings]
    for part in parts:
        lines += [] if part is parts[0] else [r"\par\medskip"]
        lines += [rf"\begin{{tabular}}{{{part.columns}}}", r"\toprule", part.heading, *part.body]
        lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}", foot, r"\end{minipage}"] if foot else []
    return [*lines, r"\end{table}"]


def _longtable(caption: str, settings: str, parts: Sequence[Panel], foot: str) -> list[str]:
    lines = [r"\begingroup", settings, r"\setlength{\LTcapwidth}{\linewidth}"]
    for part in parts:
        first = part is parts[0]
        lines += [] if first else [r"\addtocounter{table}{-1}"]  # each longtable counts, but all parts are one table
        lines += [rf"\begin{{longtable}}{{{part.columns}}}", *([rf"{caption} \\"] if first else [])]
        # The title of the first block belongs to the heading, or the heading alone might end a page.
        lines += [r"\toprule", part.heading, *part.body[:2], r"\endfirsthead"]
        lines += [r"\toprule", part.heading, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"]
        lines += [*part.body[2:], r"\end{longtable}"]
    lines += [foot, r"\par"] if foot else []
    return [*lines, r"\endgroup"]
