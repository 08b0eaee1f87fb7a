"""What the marks of the documentation name: tables and single numbers, looked up in docs/results/.

Tables:

    ood            all tables of docs/results/ood.json with their notes, or docs/results/ood.txt as it was printed
    ood/ood        one table of that file, without its notes
    paper/speed    the same of published numbers alone
    bundled        one row per bundled checkpoint, from its card
    ratios         what benchmarks/ratios.py wrote to docs/results/ratios.json; its numbers are named as those of printed tables

Numbers:

    ood/vaebm/svhn/auroc             FILE/SYSTEM/DATASET/METRIC of a result file, in the digits of the tables
    ood/vaebm/svhn/auroc/log_p#low   a variant; an end of its interval: #low, #high; the number of images: #n
    paper/vaebm/svhn/auroc           a published number
    targets/bundled/paper/official/8/FD 4x4    FILE.txt/CELL/.../COLUMN: of the row that begins with these cells
    card/cifar10net/test_accuracy    of the card of bundled weights
    ratio(NUMBER; NUMBER)            also difference, min, max
    NUMBER{.0%}                      in this format of Python's
    0.5                              itself: to compare with
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ratios

from evaluators.measurement import Measurement
from evaluators.result_file import Results, read_results
from leaderboards import build_boards
from leaderboards.board import Board, Cell
from leaderboards.metrics import metric_column
from leaderboards.published import read_published
from leaderboards.render import to_markdown
from leaderboards.render.numbers import Style, parts
from vaebm.errors import UserError, did_you_mean

PAPER = "paper"  # in the place of a file: leaderboards/published.csv
CARDS = ("baselines/checkpoints", "evaluators/features/weights")

FUNCTIONS: dict[str, Callable[..., float]] = {
    "ratio": lambda a, b: a / b,
    "difference": lambda a, b: a - b,
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
}


@dataclass(frozen=True)
class Number:
    """A number and how it is printed unless a mark says otherwise."""

    value: float
    text: str


class Sources:
    """The files that numbers may come from, below the root of a checkout; each is read once."""

    def __init__(self, root: Path) -> None:
        self.folder, self.cards = root / "docs" / "results", [root / folder for folder in CARDS]
        self.results = cache(lambda name: read_results(self.folder / f"{name}.json"))
        self.boards = cache(self._boards)
        self.published = cache(read_published)

    def table(self, what: str) -> str:
        """Return what stands between block marks.

        Raises:
            UserError: there is no such file or table, or the file was edited.
        """
        name, _, wanted = what.partition("/")
        if what == "bundled":
            return bundled_table(self.cards[0])
        text = self._text(what)
        if text is not None:
            return text.strip()
        boards = self.boards(self._known(name))
        made = "" if name == PAPER else made_by(self.results(name))
        if not wanted:
            return "\n".join([f"{made}\n", *map(to_markdown, boards.values())]).strip()
        if wanted not in boards:
            raise UserError(f"{what}: no such table in {name}.{did_you_mean(wanted, boards)}")
        rows = [line for line in to_markdown(boards[wanted]).splitlines() if line.startswith("|")]
        return "\n".join([*rows, "", made]).strip()

    def number(self, what: str) -> Number:
        """Return the number that an address, or a function of addresses, names.

        Raises:
            UserError: there is no such number, or more than one.
        """
        body, _, form = what.strip().removesuffix("}").partition("{")
        function = re.fullmatch(r"(\w+)\((.*)\)", body)
        if function and function[1] in FUNCTIONS:
            values = [self.number(part).value for part in function[2].split(";")]
            try:
                value = FUNCTIONS[function[1]](*values)
            except (TypeError, ZeroDivisionError):
                raise UserError(f"{what}: needed two numbers, the second not 0; found {values}") from None
            found = Number(value, f"{value:.2g}")
        elif re.fullmatch(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?", body):
            found = Number(float(body), body)
        else:
            found = self._address(body)
        try:
            return replace(found, text=format(found.value, form).replace("%", " %")) if form else found
        except ValueError:
            raise UserError(f"{what}: {form!r} is no format of a number; needed one like .2f, .3g or .0%") from None

    def _address(self, address: str) -> Number:
        name, *keys = (key.strip() for key in address.split("/"))
        if name == "card":
            return card_number(address, keys, self.cards)
        text = self._text(name)
        if text is not None:
            return table_number(address, keys, text)
        rows = self.published() if name == PAPER else self.results(self._known(name)).rows
        row, value, counts = find_measurement(address, keys, rows)
        if counts:
            return Number(value, f"{value:,}")
        cells = (place for board in self.boards(name).values() for place in board.cells())
        shown = (column for *_, column, cell in cells if cell.measurement == row)
        column = next(shown, metric_column(row.metric))
        return Number(value, parts(Cell.of(replace(row, value=value)), column, Style(intervals=False))[0])

    def _text(self, name: str) -> str | None:
        path = self.folder / f"{name}.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        path = self.folder / f"{name}.json"
        return ratios.report(ratios.read(path)) if path.is_file() and ratios.is_one(path) else None

    def _known(self, name: str) -> str:
        known = {path.stem for path in self.folder.glob("*") if path.suffix in (".json", ".txt")} | {PAPER}
        if name not in known:
            raise UserError(f"{name}: no {name}.json or {name}.txt in docs/results.{did_you_mean(name, known)}")
        return name

    def _boards(self, name: str) -> dict[str, Board]:
        rows = [] if name == PAPER else self.results(name).rows
        return {board.name: board for boards in build_boards(rows).values() for board in boards}


def find_measurement(address: str, keys: Sequence[str], rows: Sequence[Measurement]) -> tuple[Measurement, float, bool]:
    """Return the measurement at ``keys``, SYSTEM, DATASET, METRIC[#PART] or SYSTEM, DATASET, METRIC, VARIANT[#PART]; the
    number meant of it; and whether that is a count."""
    *wanted, last = keys or [""]
    last, _, part = last.partition("#")
    wanted.append(last)
    if len(wanted) not in (3, 4) or part not in ("", "low", "high", "n"):
        raise UserError(
            f"{address}: needed FILE/SYSTEM/DATASET/METRIC, /VARIANT if it has one, then perhaps #low, #high, #n"
        )
    for level, key in zip(("system", "dataset", "metric", "variant"), [*wanted, ""], strict=False):
        there = {getattr(row, level) for row in rows}
        if key not in there:
            raise UserError(f"{address}: no {level} {key!r} there.{did_you_mean(key, there)}")
        rows = [row for row in rows if getattr(row, level) == key]
    if len(rows) > 1:
        raise UserError(f"{address}: found {len(rows)} measurements there; needed one")
    value = getattr(rows[0], part or "value")
    if value is None:
        raise UserError(f"{address}: found nothing there{f' ({rows[0].note})' if rows[0].note else ''}")
    return rows[0], value, part == "n"


def table_number(address: str, keys: Sequence[str], text: str) -> Number:
    """Return the number in a printed table: of the row that begins with these cells, in the column named last.

    A cell's last words in parentheses may be left out: ``vaebm-seed1`` is ``vaebm-seed1 (mini)``.
    """
    *wanted, column = keys or [""]
    plain = lambda cell: re.sub(r"\s*\([^()]*\)$", "", cell)
    begins = lambda line: all(key in (cell, plain(cell)) for key, cell in zip(wanted, line, strict=False))
    found = [
        cell
        for header, lines in tables(text)
        for line in lines
        for title, cell in zip(header, line, strict=False)
        if title == column and wanted and begins(line)
    ]
    if len(found) != 1:
        raise UserError(f"{address}: found {len(found)} cells there; needed FILE/CELL/.../COLUMN of exactly one")
    printed = found[0].split(" ")[0]
    try:
        return Number(float(printed.replace(",", "")), printed)
    except ValueError:
        raise UserError(f"{address}: found {found[0]!r} there; needed a number") from None


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Walk over the Markdown tables of a text: header, then rows, without bold face and indentation."""
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        clean = re.sub(r"\*\*|<sup>.*?</sup>|</?ins>", "", table.replace("&nbsp;", " "))
        header, _, *lines = ([cell.strip() for cell in line.strip()[1:-1].split("|")] for line in clean.splitlines())
        yield header, list(lines)


def card_number(address: str, keys: Sequence[str], folders: Sequence[Path]) -> Number:
    """Return the number at ``keys``: the card of bundled weights, then keys inside it."""
    cards = {path.stem: path for folder in folders for path in folder.glob("*.json")}
    name, *inside = keys or [""]
    if name not in cards:
        raise UserError(f"{address}: no such card.{did_you_mean(name, cards)}")
    found: Any = json.loads(cards[name].read_text(encoding="utf-8"))
    for key in inside:
        if not isinstance(found, Mapping) or key not in found:
            there = found if isinstance(found, Mapping) else ()
            raise UserError(f"{address}: no {key!r} there.{did_you_mean(key, there)}")
        found = found[key]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise UserError(f"{address}: found no number there")
    return Number(found, f"{found:,}" if isinstance(found, int) else f"{found:.3g}")


def made_by(results: Results) -> str:
    """Say how a result file was made."""
    machine = f"{results.machine}, torch {results.packages.get('torch', 'unknown')}"
    return f"Made by `{results.command}` in {results.seconds:.0f} s, with what the cache held ({machine})."


def bundled_table(folder: Path) -> str:
    """One row per bundled checkpoint, from its card."""
    lines = [
        "| checkpoint | command | update | minutes | last logged | held-out training images |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.json")):
        training = json.loads(path.read_text(encoding="utf-8"))["training"]
        show = lambda values: ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if k != "step"
        )
        stage = training.get("ebm", training.get("vae", {}))  # the toy's cards hold the settings, not the last update
        update = training.get("update", training.get("updates", stage.get("steps")))
        cells = (path.stem, f"`{training['command']}`", update, training["minutes"], show(training.get("final", {})))
        lines.append("| " + " | ".join(map(str, cells)) + f" | {show(training.get('validation', {}))} |")
    return "\n".join(lines)
