"""Quality against cost: a table per feature space with a block per system, a row per setting, and what no other setting beats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Block, Board, Row, drop_empty
from leaderboards.merge import RUN
from leaderboards.metrics import INCEPTION, in_order, metric_column, metric_of, split_metric
from leaderboards.pareto import non_dominated
from leaderboards.tables.footnotes import Entry, describe_scores
from leaderboards.tables.metric_board import describe_measured
from leaderboards.tables.rows import Placed, measured_rows
from leaderboards.tables.steps import NOT_OF_CONTROLS, SECONDS
from vaebm.errors import UserError

DISTANCES = ("fid", "fd", "kid", "kd")  # the first that has a value decides what is worth its seconds
OWN_RECIPE = "own recipe"  # a variant that changes nothing and counts no steps
OWN, FRONT, OVERALL = "own", "front", "front of all"
VARIED = ("steps", "own_recipe")  # of a protocol: they stand in the table
MARKS = (
    f"{OWN}: the recipe that the system came with. {FRONT}: of seconds and {{distance}}, no other setting of its system is at most as large"
    f" in both and less in one; {OVERALL}: nor is any other system's. By value, though intervals may overlap; seconds were measured along"
    " and differ from run to run."
)
NOT_TABLE_6 = (
    "The two columns P(...) are AUROCs of the system's own score, and neither is the out-of-distribution AUROC of the paper's Table 6:"
    " in one, samples take the place of the other set, and 0.5 means that the score cannot tell them from data; in the other, they"
    " take the place of the data."
)


@dataclass(frozen=True)
class Setting:
    """What a variant of the trade-off suite says; None: as in the system's own recipe."""

    steps: int | None = None
    step_size: float | None = None  # as a multiple
    temperature: float | None = None

    @property
    def label(self) -> str:
        """``"steps = 8, step size x0.5"``."""
        parts = [] if self.steps is None else [f"steps = {self.steps}"]
        parts += [] if self.step_size is None else [f"step size x{self.step_size:g}"]
        parts += [] if self.temperature is None else [f"temperature {self.temperature:g}"]
        return ", ".join(parts) or OWN_RECIPE


def setting_of(variant: str) -> Setting:
    """Read ``"steps=8, step_size=x0.5, temperature=0.7"``; ``"own recipe"`` says nothing of them.

    Raises:
        UserError: it is no setting.
    """
    if variant == OWN_RECIPE:
        return Setting()
    found: dict[str, float] = {}
    for part in variant.split(", "):
        name, _, value = part.partition("=")
        try:
            found[name] = float(value.removeprefix("x") if name == "step_size" else value)
        except ValueError:
            name = ""
        if name not in ("steps", "step_size", "temperature"):
            raise UserError(f"found variant {variant!r}, needed the form 'steps=8, step_size=x0.5'")
    steps = found.pop("steps", None)
    return Setting(steps=None if steps is None else int(steps), **found)


def tradeoff_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build a table per data set and feature space; what is in no features stands in each of them.

    Args:
        rows: measurements of suite ``"tradeoff"``.
        published: none are known.

    Raises:
        UserError: two different measurements claim one cell, or a variant is no setting.
    """
    boards = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        spaces = dict.fromkeys(filter(None, (split_metric(row.metric)[1] for row in own)))
        for space in sorted(spaces, key=lambda space: (space != INCEPTION, space)) or [""]:
            inside = [row for row in own if split_metric(row.metric)[1] in ("", space)]
            boards.append(_board(inside, dataset, space, alone=len(spaces) < 2))
    return [board for board in boards if board.blocks]


def _board(rows: Sequence[Measurement], dataset: str, space: str, alone: bool) -> Board:
    settings = [row for row in rows if row.role != "control"]
    timed: dict[tuple[str, ...], Measurement] = {}
    for row in settings:
        seconds = row.protocol.get(SECONDS)
        value = None if seconds is None else float(seconds)
        key = (row.system, row.size, row.variant, str(row.seed), row.provenance.get(RUN, ""))
        shown = replace(row, metric=SECONDS, value=value, low=None, high=None, n=None, note="" if seconds else row.note)
        if value is not None or row.note:
            timed.setdefault(key, shown)
    if all(row.value is None for row in timed.values()):
        timed = {}
    found = {row.metric for row in settings}
    columns = tuple(metric_column(metric) for metric in [*[SECONDS] * bool(timed), *in_order(found)])
    blocks = []
    for system, size in dict.fromkeys((row.system, row.size) for row in settings):
        placed = [
            Placed(setting_of(row.variant).label, row.variant, row.metric, row)
            for row in [*settings, *timed.values()]
            if (row.system, row.size) == (system, size)
        ]
        title = names.system_label(system) + (f" ({size})" if size else "")
        lines = (
            replace(line, tag=line.tag.removeprefix(size).removeprefix(", ")) for line in measured_rows(placed, columns)
        )
        blocks.append(Block(title, tuple(lines), ranked=True))
    floors = [
        Placed(names.system_label(row.system, row.variant), row.variant, row.metric, row)
        for row in rows
        if row.role == "control" and row.metric in found
    ]
    distance = _distance(settings) if timed else ""
    blocks = _marked(blocks, [column.key for column in columns].index(distance) if distance else -1)
    blocks.append(Block("Controls (measured)", tuple(measured_rows(floors, columns, NOT_OF_CONTROLS))))
    where = f" in {space} features" if space else ""
    title = f"Quality against cost of samples on {names.dataset_title(dataset)}{where}, measured"
    name = "_".join(["tradeoff", *([] if dataset == "cifar10" else [dataset]), *([] if alone else [space.lower()])])
    notes = [MARKS.format(distance=metric_of(distance).title)] if distance else []
    notes += [NOT_TABLE_6] * any(metric.startswith("auroc_") for metric in found)
    return Board(name, title, columns, drop_empty(blocks), (*notes, *_described(settings)))


def _distance(rows: Sequence[Measurement]) -> str:
    """Return the metric by which settings are judged; empty where no distance could be had."""
    found = {row.metric for row in rows if row.value is not None}
    ordered = [metric for base in DISTANCES for metric in in_order(found) if split_metric(metric)[0] == base]
    return next(iter(ordered), "")


def _described(settings: Sequence[Measurement]) -> list[str]:
    """Footnotes, of the systems' own step sizes and temperatures: the others differ from these in what the table says."""
    told = []
    for row in settings:
        setting = setting_of(row.variant)
        if setting.step_size is None and setting.temperature is None:
            protocol = {key: value for key, value in row.protocol.items() if key not in VARIED}
            if isinstance(recipe := protocol.get("sampling"), dict):
                protocol["sampling"] = {key: value for key, value in recipe.items() if key != "steps"}
            told.append(replace(row, variant="", protocol=protocol))
    entries = [
        Entry(names.system_label(row.system) + (f" {row.size}" if row.size else ""), "", row.metric, row.protocol)
        for row in told
        if row.value is not None and "score" in row.protocol
    ]
    return [*describe_measured(told), *describe_scores(entries)]


def _marked(blocks: Sequence[Block], distance: int) -> list[Block]:
    """Tag the rows of the systems' own recipes and of settings that no other one beats."""
    inside, overall = _fronts(blocks, distance) if distance >= 0 else (set(), set())
    made = []
    for block in blocks:
        lines = []
        for line in block.rows:
            marks = [line.tag] if line.tag else []
            marks += [OWN] * (_is_own(line) and line.label != OWN_RECIPE)
            marks += [OVERALL] if id(line) in overall else [FRONT] if id(line) in inside else []
            lines.append(replace(line, tag=", ".join(marks)))
        made.append(replace(block, rows=tuple(lines)))
    return made


def _fronts(blocks: Sequence[Block], distance: int) -> tuple[set[int], set[int]]:
    """Return the ids of rows that no other setting of their system beats, and of those that no row beats at all.

    Rows compete where their distances are comparable and their times are of one run and device.
    """
    groups: dict[tuple[object, ...], list[tuple[Row, int, float, float]]] = {}
    for place, block in enumerate(blocks):
        for line in block.rows:
            cell = line.cells[distance]
            if cell.value is None or cell.measurement is None or cell.measurement.protocol.get(SECONDS) is None:
                continue
            row = cell.measurement
            device = (row.provenance.get("fingerprint") or {}).get("device")
            key = (cell.comparable, row.seed, row.provenance.get(RUN, ""), device)
            groups.setdefault(key, []).append((line, place, float(row.protocol[SECONDS]), cell.value))
    inside: set[int] = set()
    overall: set[int] = set()
    for members in groups.values():
        overall |= _front(members)
        for place in {member[1] for member in members}:
            own = [member for member in members if member[1] == place]
            inside |= _front(own) if len(own) > 1 else set()  # one alone is worth no mark
    return inside, overall


def _front(members: Sequence[tuple[Row, int, float, float]]) -> set[int]:
    kept = non_dominated([seconds for _, _, seconds, _ in members], [value for *_, value in members])
    return {id(line) for (line, *_), keep in zip(members, kept, strict=True) if keep}


def _is_own(line: Row) -> bool:
    return any(cell.measurement.protocol.get("own_recipe") for cell in line.cells if cell.measurement)
