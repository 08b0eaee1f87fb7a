"""What the page tells about a number when it is pointed at: every fact and every group of facts is stored once."""

from collections.abc import Mapping
from typing import Any

from leaderboards import names
from leaderboards.board import Cell, Row

Facts = list[tuple[str, str]]  # (what, text)

RANKS = {1: "best of the cells it compares with", 2: "second of the cells it compares with"}
PLACES = {"paper": "the paper's text"}
NOT_TOLD = ("higher_is_better", "label", "category", "citation")  # of published numbers: the table says them
COMPUTED = "computed for this table from the other cells of its row"


class Details:
    """Collects the facts of cells."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], int] = {}
        self._groups: dict[tuple[int, ...], int] = {}
        self._cells: dict[tuple[int, ...], int] = {}

    def add(self, row: Row, cell: Cell) -> int:
        """Return the number under which the page finds the facts of a cell."""
        measurement = cell.measurement
        groups = [about(row, cell)]
        if measurement is not None:
            skip = NOT_TOLD if cell.origin == "published" else ()
            groups += [flat(measurement.protocol, skip), flat(measurement.provenance, skip)]
        return self._cells.setdefault(tuple(map(self._group, groups)), len(self._cells))

    def _group(self, facts: Facts) -> int:
        pairs = tuple(self._pairs.setdefault(fact, len(self._pairs)) for fact in facts)
        return self._groups.setdefault(pairs, len(self._groups))

    def to_json(self) -> dict[str, Any]:
        """Return ``cells`` (indices of groups: the number itself, protocol, provenance), ``groups`` (of pairs) and ``pairs``."""
        return {"cells": list(self._cells), "groups": list(self._groups), "pairs": list(self._pairs)}


def about(row: Row, cell: Cell) -> Facts:
    """Return the facts of the number itself, in full precision."""
    facts = [("value", repr(cell.value))] if cell.value is not None else [("empty because", cell.note)]
    if cell.low is not None and cell.high is not None:
        facts.append(("95 % interval", f"{cell.low!r} to {cell.high!r}"))
    facts += [("n", f"{cell.n:,}")] if cell.n is not None else []
    facts += [("seed", str(cell.seed))] if cell.seed is not None else []
    facts += [("note", cell.note)] if cell.note and cell.value is not None else []
    facts += [("rank", RANKS[cell.rank])] if cell.rank else []
    if cell.value is not None:
        made = cell.origin if cell.measurement is not None else COMPUTED
        facts.append(("origin", made))
    facts += [("metric", cell.metric)] if cell.metric else []
    facts += [("data set", names.dataset_title(cell.dataset))] if cell.dataset and cell.value is not None else []
    told = {"system": row.system, "variant": row.variant, "size": row.size, "citation": row.citation}
    return facts + [(what, text) for what, text in told.items() if text]


def flat(facts: Mapping[str, Any], skip: tuple[str, ...] = ()) -> Facts:
    """Return nested facts as lines: ``{"data": {"svhn": "2790"}}`` makes ``("data svhn", "2790")``."""
    lines: Facts = []
    for key, value in facts.items():
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            lines += [(f"{name} {inner}", text) for inner, text in flat(value)]
        elif key not in skip and value not in (None, ""):
            lines.append((name, text_of(value)))
    return lines


def text_of(value: Any) -> str:
    """Return a value of a protocol in full precision."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return str(PLACES.get(value, value)) if isinstance(value, str) else repr(value)
