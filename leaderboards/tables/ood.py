"""Table 6 of the paper (out-of-distribution AUROC) with measured rows beside the published ones, and its companions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.board import Block, Board, Cell, Column, Row, drop_empty
from leaderboards.merge import RUN
from leaderboards.metrics import score_or_sample_metric
from leaderboards.tables.footnotes import (
    Entry,
    describe_differences,
    describe_images,
    describe_intervals,
    describe_means,
    describe_origins,
    describe_parts,
    describe_published,
    describe_scores,
)
from leaderboards.tables.rows import Placed, apart, beside, ladder, measured_rows
from vaebm.errors import UserError

PAPER_SETS = ("svhn", "cifar10_interp", "cifar100", "celeba")
PAPER_MEANS = {"mean": PAPER_SETS, "mean_near": ("cifar10_interp", "cifar100"), "mean_far": ("svhn", "celeba")}
PARTS = names.MEANS[1:]  # a table of their own: Table 6 keeps the paper's columns
NOT_PUBLISHED = "The paper reports no number here."
NO_PUBLISHED_MEAN = "No mean: the paper does not report all four sets."
NO_PUBLISHED_PART = "No mean: the paper does not report both sets."
BEYOND = "Scores beyond the paper (measured)"
CONTROLS = "Controls: zero-parameter image statistics (measured)"
ONLY_TERMS = "Only where the score is a sum of terms."
AS_ABOVE = "Images and scores: see the AUROC table."


def ood_boards(rows: Sequence[Measurement], published: Sequence[Measurement]) -> list[Board]:
    """Build per in-distribution set: Table 6, means over near and far sets, AUPR and FPR95, rank correlations, AUROC against a coefficient
    on E.

    Published rows appear where the in-distribution set is the paper's. A table without rows is left out.

    Args:
        rows: measurements of suite ``"ood"``.
        published: published rows of the same suite.

    Raises:
        UserError: two different measurements claim one cell, or a variant cannot be read.
    """
    boards = []
    for source in dict.fromkeys(map(_in_distribution, rows)) or [names.IN_DISTRIBUTION]:
        own = [row for row in rows if _in_distribution(row) == source]
        beside_it = published if source == names.IN_DISTRIBUTION else []
        parts = [row for row in own if row.dataset in PARTS]
        boards.append(_auroc([row for row in own if row.dataset not in PARTS], beside_it, source))
        boards += [_near_far(parts, beside_it, source)] if parts else []
        boards += [table(own, source) for table in (_aupr_fpr95, _correlations, _coefficients)]
    return [board for board in boards if board.blocks]


def _in_distribution(row: Measurement) -> str:
    return str(row.protocol.get("in_distribution", names.IN_DISTRIBUTION))


def _board(
    name: str, title: str, source: str, columns: Sequence[Column], blocks: Iterable[Block], notes: Iterable[str]
) -> Board:
    """Finish a table; its name and title say the in-distribution set."""
    name = name if source == names.IN_DISTRIBUTION else f"{name}_{source}"
    title = title.format(source=names.dataset_title(source))
    return Board(name, title, tuple(columns), drop_empty(blocks), tuple(notes))


# --------------------------------------------------------------------------------------------------------------------
# Table 6


def _auroc(rows: Sequence[Measurement], published: Sequence[Measurement], source: str) -> Board:
    columns = _dataset_columns(rows, bool(published), higher_is_better=True)
    blocks = _auroc_blocks(rows, published, columns)
    entries = _entries([row for row in rows if row.metric == "auroc" and not _is_extra(row)])
    notes = ["AUROC: higher is better, 0.5 is chance."] if entries else []
    notes += describe_intervals(entries) + describe_images(entries) + describe_origins(entries)
    notes += describe_means([entry for entry in entries if entry.mean], PAPER_SETS, names.dataset_title)
    notes += describe_differences(entries) + describe_scores(entries) + _extra_notes(rows)
    notes += _control_notes(blocks, columns)
    notes += _published_notes(published)
    paper_table = " (Table 6 of the paper)" if published else ""
    title = f"Out-of-distribution detection{paper_table}: AUROC of in-distribution {{source}} against each set"
    return _board("ood", title, source, columns, blocks, notes)


def _near_far(rows: Sequence[Measurement], published: Sequence[Measurement], source: str) -> Board:
    columns = _dataset_columns(rows, higher_is_better=True)
    blocks = _auroc_blocks(rows, published, columns)
    entries = _entries([row for row in rows if row.metric == "auroc" and not _is_extra(row)])
    notes = [AS_ABOVE, *describe_parts(entries, names.dataset_title), *_control_notes(blocks, columns)]
    notes += ["A published mean is computed here from the row's cells in Table 6."] if published else []
    title = "Mean AUROC of in-distribution {source} against near and against far sets"
    return _board("ood_near_far", title, source, columns, blocks, notes)


def _auroc_blocks(
    rows: Sequence[Measurement], published: Sequence[Measurement], columns: Sequence[Column]
) -> list[Block]:
    """Published rows with the measured ones beneath, systems of no published row, further scores, terms, controls."""
    known = [
        (members[0].provenance["category"].capitalize(), _published_row(members, columns))
        for system in _systems(published)
        if (members := [row for row in published if row.system == system])
    ]
    paper, others = beside(known, _place(rows, "auroc", "headline"), columns)
    terms = _place([row for row in rows if not _is_extra(row)], "auroc", "diagnostic")
    unpublished = "Systems without a published row (measured)" if published else "Measured systems"
    return [
        *(replace(block, ranked=True) for block in paper),
        Block(unpublished, tuple(others), True),
        Block(BEYOND, tuple(measured_rows(_extra(rows, "auroc"), columns)), True),
        Block("Diagnostics: terms of the score (measured)", tuple(measured_rows(terms, columns))),
        Block(CONTROLS, tuple(measured_rows(_place(rows, "auroc", "control"), columns))),
    ]


def _published_row(rows: Sequence[Measurement], columns: Sequence[Column]) -> Row:
    first = rows[0]
    empty = Cell(None, note=NOT_PUBLISHED, origin="published", metric=first.metric)
    cells = {row.dataset: Cell.of(row) for row in rows}
    for key, sets in PAPER_MEANS.items():
        values = [row.value for row in rows if row.dataset in sets and row.value is not None]
        note = NO_PUBLISHED_MEAN if key == "mean" else NO_PUBLISHED_PART
        cells[key] = Cell(None, note=note, origin="published", dataset=key, metric=first.metric)
        if len(values) == len(sets):
            mean = sum(values) / len(values)
            cells[key] = Cell(mean, origin="published", dataset=key, metric=first.metric, comparable="published")
    return Row(
        label=first.provenance["label"],
        size=first.size,
        origin="published",
        cells=tuple(cells.get(column.key, empty.moved_to(column.key)) for column in columns),
        citation=first.provenance["citation"],
        system=first.system,
    )


def _published_notes(published: Sequence[Measurement]) -> Iterator[str]:
    if not published:
        return
    yield describe_published(
        published,
        "Their authors used other protocols (test splits, input noise, resizing, bounds) and full-size models: never rank a measured"
        " row against them. The mean of a published row is computed here from its four cells.",
    )
    if any(row.provenance["category"].startswith("Supervised") for row in published):
        yield "Supervised models saw class labels in training; unsupervised ones did not."


def _control_notes(blocks: Sequence[Block], columns: Sequence[Column]) -> Iterator[str]:
    """Name the sets where a statistic without parameters does at least as well as every measured system."""
    own_scores = [row for block in blocks if block.ranked and block.title != BEYOND for row in block.rows]
    systems = [row for row in own_scores if row.origin == "measured"]
    controls = [row for block in blocks if block.title == CONTROLS for row in block.rows]
    beaten: dict[str, list[str]] = {}
    for i, column in enumerate(columns):
        best = max((value for row in systems if (value := row.cells[i].value) is not None), default=None)
        rivals = [(value, row.label) for row in controls if (value := row.cells[i].value) is not None]
        if best is not None and rivals and max(rivals)[0] >= best:
            beaten.setdefault(max(rivals)[1], []).append(f"{column.title} ({max(rivals)[0]:.2f})")
    if beaten:
        listed = "; ".join(f"{label} on {', '.join(columns)}" for label, columns in beaten.items())
        yield f"A control without parameters does at least as well as every measured system shown: {listed}."


# --------------------------------------------------------------------------------------------------------------------
# Scores beyond the paper


def _is_extra(row: Measurement) -> bool:
    return row.role == "diagnostic" and row.variant.startswith(names.EXTRA)


def _extra(rows: Iterable[Measurement], metric: str) -> list[Placed]:
    """The rows of scores beyond the paper: ``"Glow: typicality (25)"``."""
    return [
        Placed(names.system_label(row.system, row.variant), row.variant, row.dataset, row)
        for row in rows
        if row.metric == metric and _is_extra(row)
    ]


def _extra_notes(rows: Iterable[Measurement]) -> list[str]:
    """Say once what each score is; what it is made from is in the protocol."""
    formulas: dict[str, dict[str, None]] = {}
    for row in rows:
        if _is_extra(row) and row.value is not None:
            formulas.setdefault(str(row.protocol.get("score", "")), {})[names.term_title(row.variant)] = None
    told = "; ".join(f"{', '.join(titles)}: {formula}" for formula, titles in formulas.items())
    return (
        [f"Scores beyond the paper, of a system's own score s (of a sum of terms the whole): {told}."] if told else []
    )


# --------------------------------------------------------------------------------------------------------------------
# Its companions


def _aupr_fpr95(rows: Sequence[Measurement], source: str) -> Board:
    extra = [row for row in rows if row.metric in ("aupr", "fpr95") and _is_extra(row)]
    rows = [row for row in rows if row.metric in ("aupr", "fpr95") and row.role == "headline"]
    columns = _dataset_columns([*rows, *extra])
    aupr, fpr95 = (tuple(measured_rows(_place(rows, metric, "headline"), columns)) for metric in ("aupr", "fpr95"))
    more_aupr, more_fpr95 = (tuple(measured_rows(_extra(extra, metric), columns)) for metric in ("aupr", "fpr95"))
    blocks = [
        Block("AUPR (higher is better, chance is the base rate)", aupr, True, higher_is_better=True),
        Block("AUPR of scores beyond the paper", more_aupr, True, higher_is_better=True),
        Block("FPR95 (lower is better, chance is 0.95)", fpr95, True, higher_is_better=False),
        Block("FPR95 of scores beyond the paper", more_fpr95, True, higher_is_better=False),
    ]
    title = "AUPR and FPR95 of in-distribution {source} against each set, measured"
    return _board("ood_aupr_fpr95", title, source, columns, blocks, _base_rates(rows) + _companion_notes(rows))


def _base_rates(rows: Sequence[Measurement]) -> list[str]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.value is not None and "base_rate" in row.protocol:
            columns = found.setdefault(f"{row.protocol['base_rate']:.2f}", [])
            columns += [names.dataset_title(row.dataset)] * (names.dataset_title(row.dataset) not in columns)
    told = [rate if len(found) == 1 else f"{rate} ({', '.join(columns)})" for rate, columns in found.items()]
    return [f"Base rate (AUPR of a scorer that tells nothing): {', '.join(told)}."] if told else []


def _correlations(rows: Sequence[Measurement], source: str) -> Board:
    statistics = list(dict.fromkeys([*names.STATISTICS, *(row.system for row in rows if row.role == "control")]))
    placed = []
    for row in rows:
        if row.metric == "rank_correlation":
            term, column = _term_and_statistic(row.variant, statistics)
        elif row.metric.startswith("sd_"):
            term, column = _term(row.metric.removeprefix("sd_")), "sd"
        else:
            continue
        placed.append(Placed(names.system_label(row.system, term), term, column, row))

    found = {entry.column for entry in placed}
    columns = [Column(name, names.statistic_title(name)) for name in statistics if name in found]
    columns += [Column(name, name) for name in sorted(found - {*statistics, "sd"})]
    columns += [Column("sd", "sd", magnitude=True)] if "sd" in found else []
    systems = _systems(entry.measurement for entry in placed)
    placed.sort(
        key=lambda entry: (systems.index(entry.measurement.system), entry.variant != "")
    )  # the score, its terms
    blocks = [
        Block(
            "Measured systems, their scores and the terms of these", tuple(measured_rows(placed, columns, ONLY_TERMS))
        )
    ]
    notes = _companion_notes([row for row in rows if row.metric == "rank_correlation"])
    if notes:
        spread = "; sd: spread of a term over the in-distribution images, in its units" if "sd" in found else ""
        notes.insert(0, f"Near 1 or -1 a score sees little more than that statistic{spread}.")
    title = "What the scores look at: rank correlation with image statistics on {source}"
    return _board("ood_correlations", title, source, columns, blocks, notes)


def _coefficients(rows: Sequence[Measurement], source: str) -> Board:
    scan = [row for row in rows if row.metric == "auroc_at_coefficient"]
    scan.sort(key=lambda row: coefficient(row.variant))
    columns = _dataset_columns(scan, higher_is_better=True)
    blocks = ladder(scan, columns, coefficient, "c", lambda row: row.dataset)
    lead = (
        "The score is log p(x) - c E(x); c = 1 is the paper's. A change of the scale of E moves the headline number"
        f"{_ranges(scan, columns)}."
    )
    title = "AUROC against a coefficient c on the energy, in-distribution {source}"
    return _board("ood_coefficient", title, source, columns, blocks, [lead, *_companion_notes(scan)])


def _ranges(scan: Sequence[Measurement], columns: Sequence[Column]) -> str:
    """``": over the c shown, SVHN 0.42 to 0.87"``: the smallest and the largest AUROC of each set."""
    found = []
    for column in columns:
        values = [row.value for row in scan if row.dataset == column.key and row.value is not None]
        if len(values) > 1:
            found.append(f"{column.title} {min(values):.2f} to {max(values):.2f}")
    return f": over the c shown, {', '.join(found)}" if found else ""


# --------------------------------------------------------------------------------------------------------------------
# Reading measurements


def coefficient(variant: str) -> float:
    """Return the number in ``"c=0.3"``.

    Raises:
        UserError: there is none.
    """
    try:
        return float(variant.removeprefix("c="))
    except ValueError:
        raise UserError(f"auroc_at_coefficient: found variant {variant!r}, needed the form 'c=0.3'") from None


def _term(name: str) -> str:
    """The score itself is the row without a variant."""
    return "" if name == "score" else name


def _term_and_statistic(variant: str, statistics: Sequence[str]) -> tuple[str, str]:
    """Split ``"neg_energy:pixel_std"`` (either order, ``:`` or ``/``); a lone statistic is about the whole score."""
    first, _, second = variant.replace("/", ":").partition(":")
    if not second:
        return "", first
    return (_term(second), first) if first in statistics else (_term(first), second)


def _systems(rows: Iterable[Measurement]) -> list[str]:
    return list(dict.fromkeys(row.system for row in rows))


def _place(rows: Iterable[Measurement], metric: str, role: str) -> list[Placed]:
    return [
        Placed(names.system_label(row.system, row.variant), row.variant, row.dataset, row)
        for row in rows
        if row.metric == metric and row.role == role
    ]


def _dataset_columns(
    rows: Iterable[Measurement], in_paper: bool = False, higher_is_better: bool | None = None
) -> tuple[Column, ...]:
    """The paper's four sets and the mean (all of them in the paper's table), the means of near and of far sets, then all other sets."""
    metrics = ("auroc", "aupr", "fpr95", "auroc_at_coefficient")
    rows = [row for row in rows if row.metric in metrics]
    found = list(dict.fromkeys(row.dataset for row in rows))
    # Beside another in-distribution set the paper's four are sets like any other.
    others = [key for key in found if key not in names.MEANS]
    first = others if {*map(_in_distribution, rows)} - {names.IN_DISTRIBUTION} else PAPER_SETS
    keys = [key for key in (*first, "mean") if in_paper or key in found]
    keys += [key for key in (*names.MEANS, *others) if key in found and key not in keys]
    return tuple(Column(key, names.dataset_title(key), higher_is_better=higher_is_better) for key in keys)


def _companion_notes(rows: Sequence[Measurement]) -> list[str]:
    """The notes of a table beside the AUROC table: what is its own, and how many images."""
    entries = _entries(rows)
    notes = [*describe_intervals(entries), *describe_images(entries), *describe_differences(entries)]
    return [*notes, AS_ABOVE] if entries else []


def _entries(rows: Iterable[Measurement]) -> list[Entry]:
    """The measured cells with a number, in order of the columns, as footnotes speak of them."""
    rows = [row for row in rows if row.value is not None]
    sizes = {row.size for row in rows if row.size}
    order = (*PAPER_SETS, *names.MEANS)
    rows.sort(key=lambda row: order.index(row.dataset) if row.dataset in order else len(order))
    told = apart(rows)
    return [
        Entry(
            row=names.system_label(row.system) + (f" {row.size}" if row.size and len(sizes) > 1 else "") + told(row),
            column="" if row.dataset == _in_distribution(row) else names.dataset_title(row.dataset),
            metric=score_or_sample_metric(row.metric).title,
            protocol=row.protocol if row.n is None else {"n_in": row.n} | row.protocol,
            seed=row.seed,
            mean=row.dataset in names.MEANS,
            control=row.role == "control" and row.metric == "auroc",
            run=row.provenance.get(RUN, ""),
            source=names.dataset_title(_in_distribution(row)),
        )
        for row in rows
    ]
