"""What differs between a stored run and the same run again, row by row."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluators.measurement import Measurement
from evaluators.result_file import Results

# Of a row's value and interval, relative to the largest number in them. Metrics are taken in float64: other threads and another order of
# summation moved them by less than 10^-12 where this was tried, and a Frechet distance can lose some digits more to cancellation. Another
# float32 pass through a network moves features by 10^-7 and more, and is not meant to pass.
ROUNDING = 1e-9

# What became of a row, from best to worst.
VERDICTS = (
    *("identical", "a time", "equal to rounding", "inside both intervals", "outside", "another reason"),
    *("empty on one side", "another protocol", "only stored", "only again"),
)
IDENTICAL, TIME, EQUAL, INSIDE, OUTSIDE, REASON, EMPTY, PROTOCOL, STORED, AGAIN = VERDICTS
# How metrics begin that tell of the machine as much as of the system.
OF_THE_MACHINE = ("seconds", "speedup_over_", "peak_memory")
_SHOWN = 40  # rows of the table
_ABSENT = "(not recorded)"


@dataclass(frozen=True)
class Pair:
    """A row of both runs; one of them is None where only the other has it."""

    stored: Measurement | None
    again: Measurement | None
    verdict: str

    @property
    def row(self) -> Measurement:
        """Either."""
        row = self.stored or self.again
        assert row is not None
        return row

    @property
    def moved(self) -> float:
        """Change of the value in half-widths of the wider interval; infinite where there is none to hold it against."""
        if not (self.stored and self.again) or self.stored.value is None or self.again.value is None:
            return math.inf
        widths = [
            row.high - row.low for row in (self.stored, self.again) if row.high is not None and row.low is not None
        ]
        change = abs(self.again.value - self.stored.value)
        return change / (max(widths) / 2) if widths and max(widths) > 0 else math.inf if change else 0.0


@dataclass(frozen=True)
class Change:
    """Something beside the numbers that differs, and in how many rows; 0 for what belongs to the file as a whole."""

    what: str
    stored: Any
    again: Any
    rows: int = 0

    def __str__(self) -> str:
        where = f"  ({self.rows} row{'s' * (self.rows > 1)})" if self.rows else ""
        sides = [_brief(self.stored), _brief(self.again)]
        if sides[0] == sides[1]:  # they differ further on
            sides = [str(self.stored), str(self.again)]
        return f"{self.what}: {' -> '.join(sides)}{where}"


@dataclass(frozen=True)
class Reproduction:
    """What differs between a stored run and the same run again.

    Attributes:
        pairs: every row of either, the worst first.
        protocol: what decides comparability and differs.
        provenance: what may be the cause: hashes, versions, machine.
    """

    pairs: list[Pair]
    protocol: list[Change] = field(default_factory=list)
    provenance: list[Change] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 where there are rows and each is identical or equal to rounding, 1 otherwise. Times are nobody's fault."""
        return int(not self.pairs or any(pair.verdict not in (IDENTICAL, TIME, EQUAL) for pair in self.pairs))

    @property
    def answer(self) -> str:
        """In a sentence."""
        if not self.exit_code:
            return "Reproduced."
        if not self.pairs:
            return "Nothing was compared: neither run has a row."
        inside = all(pair.verdict in (IDENTICAL, TIME, EQUAL, INSIDE) for pair in self.pairs)
        return "Reproduced within the intervals, but not to the digit." if inside else "Not reproduced."

    def text(self) -> str:
        """Return a report: the answer, a summary, the rows that differ, and what else does."""
        counts = Counter(pair.verdict for pair in self.pairs)
        lines = [self.answer]
        if self.pairs:
            found = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
            lines.append(f"{len(self.pairs)} rows: {found}")
        changed = [pair for pair in self.pairs if pair.verdict not in (IDENTICAL, TIME)]
        if changed:
            head = ("system", "dataset", "metric", "variant", "role", "stored", "again", "change", "verdict")
            lines += ["", *_aligned([head, *map(_cells, changed[:_SHOWN])])]
        if len(changed) > _SHOWN:
            lines.append(f"... and {len(changed) - _SHOWN} more; both result files have them")
        for title, changes in (("protocol", self.protocol), ("provenance", self.provenance)):
            if changes:
                lines += ["", f"What differs in {title}:", *(f"  {change}" for change in changes)]
        if self.exit_code and self.pairs and not (self.protocol or self.provenance):
            lines += ["", "Nothing that is recorded of the two runs differs."]
        return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def differences(stored: Results, again: Results) -> Reproduction:
    """Compare two runs row by row.

    Rows belong together by suite, system, dataset, metric, role and variant. Of such a pair: *identical* are equal values and intervals;
    *equal to rounding* are those that differ by 1e-9 of the largest number in them; *inside both intervals* is a value that lies in the
    other's 95 % interval, either way; a row whose protocol, n, seed or size is another is *another protocol* whatever its value. Two rows
    without a value are *identical* where their notes are, else *another reason*.
    """
    left, right = _by_identity(stored.rows), _by_identity(again.rows)
    pairs, protocols, provenances = [], Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for identity in {**left, **right}:
        one, other = left.get(identity), right.get(identity)
        if one is None or other is None:
            pairs.append(Pair(one, other, AGAIN if one is None else STORED))
            continue
        protocol = _changes(_meaning(one), _meaning(other))
        pairs.append(Pair(one, other, _verdict(one, other, bool(protocol))))
        if (one.value is None) == (other.value is None):
            protocols.update(protocol)
        provenances.update(_changes(_flat(one.provenance), _flat(other.provenance)))
    return Reproduction(
        sorted(pairs, key=lambda pair: (-VERDICTS.index(pair.verdict), -pair.moved)),
        [Change(*change, rows=n) for change, n in protocols.most_common()],
        [
            *(Change(*change, rows=n) for change, n in provenances.most_common()),
            *(Change(*change) for change in _whole(stored, again)),
        ],
    )


def _by_identity(rows: Iterable[Measurement]) -> dict[tuple[Any, ...], Measurement]:
    """A row that is there twice is told from the first by its number."""
    seen: Counter[tuple[str, ...]] = Counter()
    found: dict[tuple[Any, ...], Measurement] = {}
    for row in rows:
        identity = (row.suite, row.system, row.dataset, row.metric, row.role, row.variant)
        found[(*identity, seen[identity])] = row
        seen[identity] += 1
    return found


def _verdict(stored: Measurement, again: Measurement, other_protocol: bool) -> str:
    if (stored.value is None) != (again.value is None):
        return EMPTY
    if other_protocol:
        return PROTOCOL
    if stored.value is None or again.value is None:
        return IDENTICAL if stored.note == again.note else REASON
    if stored.metric.startswith(OF_THE_MACHINE):
        return TIME
    one, other = (stored.value, stored.low, stored.high), (again.value, again.low, again.high)
    if one == other:
        return IDENTICAL
    if None in (*one, *other):
        return EQUAL if one[1:] == other[1:] and math.isclose(one[0], other[0], rel_tol=ROUNDING) else OUTSIDE
    scale = max(abs(number) for number in (*one, *other) if number is not None)
    if all(abs(a - b) <= ROUNDING * scale for a, b in zip(one, other, strict=True)):  # type: ignore[operator]
        return EQUAL
    return INSIDE if one[1] <= other[0] <= one[2] and other[1] <= one[0] <= other[2] else OUTSIDE  # type: ignore[operator]


def _meaning(row: Measurement) -> dict[str, Any]:
    """All that decides comparability."""
    return {"n": row.n, "seed": row.seed, "size": row.size, "origin": row.origin, **_flat(row.settings)}


def _whole(stored: Results, again: Results) -> list[tuple[str, str, str]]:
    """What differs between the runs as a whole, as far as both files know of it: older ones have less."""
    changes = []
    for name in ("commit", "python", "machine", "packages", "numerics", "options"):
        one, other = getattr(stored, name), getattr(again, name)
        if name == "packages":
            both = one.keys() & other.keys()
            one, other = ({key: side[key] for key in side if key in both} for side in (one, other))
        if one and other:
            changes += _changes(_flat({name: one}), _flat({name: other}))
    return changes


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Leaves by their dotted path."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return leaves


def _changes(stored: Mapping[str, Any], again: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What differs, as (path, then, now) in text."""
    pairs = [(path, stored.get(path, _ABSENT), again.get(path, _ABSENT)) for path in {**stored, **again}]
    return [(path, str(a), str(b)) for path, a, b in pairs if not _same(a, b)]


def _same(a: Any, b: Any) -> bool:
    """Equal, lists and tuples alike, numbers to rounding."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=ROUNDING)
    return a == b


# --- the report's table ----------------------------------------------------------------------------------------


def _cells(pair: Pair) -> tuple[str, ...]:
    row, values = pair.row, [side and side.value for side in (pair.stored, pair.again)]
    change = "" if None in values else f"{values[1] - values[0]:+.3g}"  # type: ignore[operator]
    shown = [_number(side) for side in (pair.stored, pair.again)]
    return row.system, row.dataset, row.metric, row.variant, row.role, *shown, change, pair.verdict


def _number(row: Measurement | None) -> str:
    if row is None:
        return "-"
    if row.value is None:
        return _brief(row.note)
    return f"{row.value:.7g}" + (
        f" [{row.low:.4g}, {row.high:.4g}]" if row.low is not None and row.high is not None else ""
    )


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    from tabulate import tabulate

    return tabulate(table, tablefmt="plain", disable_numparse=True).splitlines()


def _brief(value: Any) -> str:
    """Hashes and reasons by their beginning."""
    text = str(value) or '""'
    return text if len(text) <= 50 else f"{text[:12]}..." if text.isalnum() else f"{text[:47]}..."
