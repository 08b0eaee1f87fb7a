"""Plot of the history of a system: a metric over its runs, a panel per set."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboards.history import Line
from leaderboards.history_store import Entry
from leaderboards.names import dataset_title, system_label, term_title
from leaderboards.plots.style import STYLE, look, metric_label, panels, set_title, shared_legend, spread, write_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATES_FROM = timedelta(days=1)  # runs that span more are drawn against their dates


def write(lines: Sequence[Line], folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``history_<system>_<metric>.png`` for every metric of a system.

    Args:
        lines: of one system, as :func:`leaderboards.history.compared` sorts them.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    figures = {
        _safe(metric): history_curves([line for line in lines if line.entry.metric == metric])
        for metric in dict.fromkeys(line.entry.metric for line in lines)
    }
    return write_figures(figures, folder, f"history_{_safe(lines[0].entry.system)}", pdf) if lines else []


def history_curves(lines: Sequence[Line]) -> "Figure":
    """Draw a panel per set with values and 95 % bars over runs; a line ends where the protocol changes, at a thin vertical line.

    Headline numbers are drawn, and diagnostics where there are none of them. Runs are numbered in order, or stand at their
    dates where they span more than a day.

    Args:
        lines: of one system and metric, each cell together, oldest first.
    """
    import matplotlib
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    lines = [line for line in lines if line.entry.role == "headline"] or list(lines)
    sets = list(dict.fromkeys(line.entry.set for line in lines))
    at = places([line.entry for line in lines])
    dated = any(isinstance(x, datetime) for x in at.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(sets))
        for axis, shown in zip(axes, sets, strict=True):
            inside = [line for line in lines if line.entry.set == shown]
            for i, cell in enumerate(dict.fromkeys(line.entry.cell for line in inside)):
                _curve(axis, [line for line in inside if line.entry.cell == cell], at, look(i))
            _, inner, name = shown
            metric = inside[0].entry.metric
            axis.set_title(set_title(name, metric) + (f" (in: {dataset_title(inner)})" if inner else ""))
            axis.set(xlabel="date of the run, UTC" if dated else "run", ylabel=metric_label(metric))
            if dated:
                axis.xaxis.set_major_locator(locator := AutoDateLocator(minticks=3, maxticks=6))
                axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            else:
                axis.set_xticks(spread(range(1, len(at) + 1), float))
                axis.set_xlim(0.5, len(at) + 0.5)
        if axes:
            changed = any(line.changed for line in lines)
            shared_legend(figure, axes, "bars: 95 %" + ("; dotted: the protocol changes" if changed else ""))
    return figure


def places(entries: Sequence[Entry]) -> dict[int, Any]:
    """Return where each run stands on the x axis, run -> number from 1, or its date where runs span more than a day."""
    created = dict(sorted({entry.run: entry.created for entry in entries}.items(), key=lambda item: (item[1], item[0])))
    if all(created.values()):
        dates = {run: datetime.fromisoformat(text) for run, text in created.items()}
        if dates and max(dates.values()) - min(dates.values()) > DATES_FROM:
            return dates
    return {run: i + 1 for i, run in enumerate(created)}


def _curve(axis: Any, lines: Sequence[Line], at: dict[int, Any], own_look: dict[str, Any]) -> None:
    starts = [i for i, line in enumerate(lines) if i == 0 or line.changed]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        entries = [line.entry for line in lines[start:stop]]
        x = [at[entry.run] for entry in entries]
        low = np.array([np.nan if entry.low is None else entry.low for entry in entries], float)
        high = np.array([np.nan if entry.high is None else entry.high for entry in entries], float)
        label = _label(entries[0]) if start == 0 else None
        axis.plot(x, [e.value for e in entries], marker="o", markersize=3, linewidth=1.4, label=label, **own_look)
        axis.vlines(x, low, high, color=own_look["color"], linewidth=1)
        if start:
            before = at[lines[start - 1].entry.run]
            axis.axvline(before + (x[0] - before) / 2, color="0.4", linestyle=":", linewidth=0.8)


def _label(entry: Entry) -> str:
    variant = f": {term_title(entry.variant)}" if entry.variant else ""
    return f"{system_label(entry.system)}{variant}{f' ({entry.size})' if entry.size else ''}"


def _safe(name: str) -> str:
    """A name becomes part of a file's name, never a folder."""
    return re.sub(r"[^\w.-]+", "_", name)
