"""A board as a GitHub Markdown table."""

import re

from leaderboards.board import Board
from leaderboards.render.numbers import Style, arrow, parts, rank_legend
from leaderboards.render.terminal import plain

MARKS = {1: "**{}**", 2: "<ins>{}</ins>"}


def escape(text: str) -> str:
    r"""Return text that GitHub shows as it is: a backslash before every character with a meaning, no line breaks."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&^!])", r"\\\1", " ".join(plain(text).split()))


def to_markdown(board: Board, style: Style | None = None) -> str:
    """Return the table under a heading, its numbered reasons and its footnotes as a list."""
    style = style or Style()
    reasons = board.reasons()
    lines = [f"### {escape(board.title)}", ""]
    lines.append("| | " + " | ".join(escape(column.title) + arrow(column) for column in board.columns) + " |")
    lines.append("|:--" * (1 + len(board.columns)) + "|")
    for block in board.blocks:
        lines.append(f"| ***{escape(block.title)}*** |" + " |" * len(board.columns))
        for row in block.rows:
            cells = []
            for column, cell in zip(board.columns, row.cells, strict=True):
                number, interval = parts(cell, column, style)
                number = MARKS.get(cell.rank, "{}").format(number)
                note = f"<sup>{reasons[cell.note]}</sup>" if cell.note else ""
                cells.append(f"{number}{note} {interval}".rstrip().replace(" ", "&nbsp;"))
            indent = "&nbsp;&nbsp;&nbsp;" if row.nested else ""
            lines.append(f"| {indent}{escape(row.full_label)} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- <sup>{number}</sup> {escape(reason)}" for reason, number in reasons.items()]
    lines += [f"- {legend}"] if (legend := rank_legend(board, "Bold: ", "Underlined: ")) else []
    lines += [f"- {escape(note)}" for note in board.footnotes]
    return "\n".join(lines) + "\n"
