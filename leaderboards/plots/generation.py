"""Plots of the generation suite: samples, their nearest training images, metrics against Langevin steps and seconds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.measurement import Measurement
from leaderboards.metrics import in_order, metric_of
from leaderboards.names import system_label
from leaderboards.plots.style import (
    MARKERS,
    STYLE,
    Images,
    fitting,
    image_sheets,
    look,
    metric_label,
    panels,
    set_title,
    shared_legend,
    spread,
    tile,
    write_figures,
)
from leaderboards.tables.steps import SECONDS, on_curve, steps_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = 8  # pixels between a sample and its neighbours


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``generation_samples.png``, ``_neighbours``, ``_steps`` and ``_costs``, each where there is something.

    Args:
        result: with ``rows``; ``samples``, system -> uint8 (N, H, W, C); ``neighbours``, system -> (samples (k, H, W, C),
            their nearest training images, nearest first, (k, m, H, W, C)), both uint8.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    figures = {
        "samples": sample_grids(result.samples),
        "neighbours": neighbour_grids(result.neighbours),
        "steps": step_curves(result.rows),
        "costs": cost_curves(result.rows),
    }
    return write_figures(figures, folder, "generation", pdf)


def sample_grids(samples: Mapping[str, Images]) -> "Figure":
    """Draw the first samples of each system in a square, every pixel a whole number of pixels wide.

    Args:
        samples: system -> uint8 (N, H, W, C); systems without samples are left out.
    """
    sheets = []
    for system, images in samples.items():
        if len(images):
            across = fitting(images.shape[2])
            sheets.append((system_label(system), tile(images[: across**2], across)))
    return image_sheets(sheets, "The first samples of each system: none is selected.")


def neighbour_grids(neighbours: Mapping[str, tuple[Images, Images]]) -> "Figure":
    """Draw a row per sample: the sample, a gap, its nearest training images.

    Args:
        neighbours: system -> (samples (k, H, W, C), nearest (k, m, H, W, C)).
    """
    sheets = []
    for system, (images, nearest) in neighbours.items():
        if len(images):
            fit = fitting(images.shape[2], least=4)
            across = min(1 + nearest.shape[1], fit)
            rows = np.concatenate([images[:fit, None], nearest[:fit]], axis=1)[:, :across]
            sheet = tile(rows.reshape(-1, *images.shape[1:]), across, apart=APART)
            sheets.append((system_label(system), sheet))
    return image_sheets(sheets, "Left of the gap: a sample. Right of it: its nearest training images, nearest first.")


def step_curves(rows: Sequence[Measurement]) -> "Figure":
    """Draw each metric with its 95 % band against the number of Langevin steps; controls are dashed lines.

    Args:
        rows: measurements; those with a variant ``"steps=8"`` make the curves, controls of the same data set and metric the
            floors. Metrics of which less is better have a logarithmic axis.
    """
    import matplotlib
    from matplotlib.ticker import NullLocator

    scan = [row for row in rows if on_curve(row) and row.value is not None]
    systems = _systems(scan)
    with matplotlib.rc_context(STYLE):
        places = _places(scan)
        figure, axes = panels(len(places))
        for axis, (dataset, metric) in zip(axes, places, strict=True):
            shown = [row for row in scan if (row.dataset, row.metric) == (dataset, metric)]
            for i, (system, size) in enumerate(systems):
                for own in _by_seed([row for row in shown if (row.system, row.size) == (system, size)]):
                    _curve(axis, [steps_of(row.variant) for row in own], own, _label(own[0]), look(i))
            value_axis(axis, dataset, metric, shown, _floors(axis, rows, dataset, metric))
            ticks = sorted({steps_of(row.variant) for row in shown})
            axis.set_xscale("symlog", base=2, linthresh=1)
            axis.set_xticks(spread(ticks, lambda steps: 1 + math.log2(steps) if steps else 0.0))
            axis.set_xlim(ticks[0] / 1.15 if ticks[0] else -0.3, ticks[-1] * 1.15 or 0.3)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("Langevin steps")
        if axes:
            shared_legend(figure, axes)
    return figure


def cost_curves(rows: Sequence[Measurement]) -> "Figure":
    """Draw each metric with its 95 % interval against seconds per image: a curve over steps, one point for other systems.

    A chain of no steps took no time of its own, and a logarithmic axis has no place for it. Metrics that do not say which way
    is better are no quality and are left out.

    Args:
        rows: measurements; those with ``seconds_per_image`` in their protocol are drawn, controls as floors.
    """
    import matplotlib
    from matplotlib.ticker import LogLocator, NullLocator

    timed = [
        row
        for row in rows
        if row.value is not None and _seconds(row) > 0 and metric_of(row.metric).higher_is_better is not None
    ]
    curves = {(row.system, row.size) for row in timed if on_curve(row)}
    timed = [r for r in timed if on_curve(r) or (r.role == "headline" and (r.system, r.size) not in curves)]
    systems = _systems(timed)
    with matplotlib.rc_context(STYLE):
        places = _places(timed)
        figure, axes = panels(len(places))
        for axis, (dataset, metric) in zip(axes, places, strict=True):
            shown = [row for row in timed if (row.dataset, row.metric) == (dataset, metric)]
            for i, (system, size) in enumerate(systems):
                for own in _by_seed([row for row in shown if (row.system, row.size) == (system, size)]):
                    _bars(axis, own, look(i), MARKERS[i % len(MARKERS)])
            value_axis(axis, dataset, metric, shown, _floors(axis, rows, dataset, metric))
            seconds = [_seconds(row) for row in shown]
            axis.set_xscale("log")
            axis.set_xlim(min(seconds) / 1.4, max(seconds) * 1.4)
            few = max(seconds) / min(seconds) < 100
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("seconds per image")
        if axes:
            shared_legend(figure, axes, "numbers at points: Langevin steps" if curves else None)
    return figure


def _places(rows: Sequence[Measurement]) -> list[tuple[str, str]]:
    """A panel per data set and metric."""
    return [(data, m) for data in dict.fromkeys(r.dataset for r in rows) for m in in_order(_metrics(rows, data))]


def _systems(rows: Sequence[Measurement]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.system, row.size) for row in rows))


def _label(row: Measurement) -> str:
    return system_label(row.system) + (f" ({row.size})" if row.size else "")


def _seconds(row: Measurement) -> float:
    return float(row.protocol.get(SECONDS) or 0)


def _floors(axis: Any, rows: Sequence[Measurement], dataset: str, metric: str) -> list[Measurement]:
    """Draw the controls of a metric as dashed lines and return them."""
    place = (dataset, metric, "control")
    floors = [row for row in rows if (row.dataset, row.metric, row.role) == place and row.value is not None]
    for i, row in enumerate(floors):
        axis.axhline(row.value, color=("0.25", "0.6")[i % 2], linestyle="--", linewidth=1, label=row.system)
    return floors


def value_axis(
    axis: Any, dataset: str, metric: str, shown: Sequence[Measurement], floors: Sequence[Measurement]
) -> None:
    """Title, label and scale: metrics of which less is better have a logarithmic axis where all values are positive."""
    from matplotlib.ticker import LogLocator, NullLocator

    values = [row.value or 0 for row in [*shown, *floors]]
    if metric_of(metric).higher_is_better is False and min(values) > 0:
        axis.set_yscale("log")
        # An interval may reach below 0, where a logarithmic axis has no end.
        axis.set_ylim(min(values) / 1.6, max([*values, *(row.high or 0 for row in shown)]) * 1.2)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    axis.set(title=set_title(dataset, metric), ylabel=metric_label(metric))


def _metrics(rows: Sequence[Measurement], dataset: str) -> set[str]:
    return {row.metric for row in rows if row.dataset == dataset}


def _by_seed(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    """A line per seed, its points in order of steps."""
    ordered = sorted(rows, key=lambda row: steps_of(row.variant) if on_curve(row) else 0)
    return [[row for row in ordered if row.seed == seed] for seed in dict.fromkeys(row.seed for row in ordered)]


def interval_ends(rows: Sequence[Measurement]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends of the intervals, NaN where there is none."""
    low = [math.nan if row.low is None else row.low for row in rows]
    high = [math.nan if row.high is None else row.high for row in rows]
    return np.array(low, float), np.array(high, float)


def _curve(axis: Any, x: Sequence[int], rows: Sequence[Measurement], label: str, own_look: dict[str, Any]) -> None:
    low, high = interval_ends(rows)
    axis.plot(x, [row.value for row in rows], marker="o", markersize=3, linewidth=1.4, label=label, **own_look)
    axis.fill_between(x, low, high, color=own_look["color"], alpha=0.2, linewidth=0)


def _bars(axis: Any, rows: Sequence[Measurement], own_look: dict[str, Any], marker: str) -> None:
    """Points in order of seconds with their intervals as bars, and the number of steps at those of a curve that keep apart."""
    from matplotlib.patheffects import withStroke

    rows = sorted(rows, key=_seconds)
    x = [_seconds(row) for row in rows]
    low, high = interval_ends(rows)
    device = (rows[0].provenance.get("fingerprint") or {}).get("device")
    label = _label(rows[0]) + (f" on {device}" if device else "")
    if len(rows) == 1:  # no line whose style could tell it
        own_look = {**own_look, "linestyle": "none"}
    axis.plot(x, [row.value for row in rows], marker=marker, markersize=4, linewidth=1.4, label=label, **own_look)
    axis.vlines(x, low, high, color=own_look["color"], linewidth=1)
    halo = [withStroke(linewidth=2, foreground="white")]
    near = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "color": "0.3", "path_effects": halo}
    told = spread(x, math.log)
    for row, seconds, top in zip(rows, x, high, strict=True):
        if on_curve(row) and seconds in told:
            place = (seconds, np.nanmax([top, row.value]))
            axis.annotate(str(steps_of(row.variant)), place, (0, 3), **near)
