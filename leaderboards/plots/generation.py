"""Plots of the generation suite: samples, their nearest training images, metrics against Langevin steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.measurement import Measurement
from leaderboards.metrics import in_order, metric_of, split_metric
from leaderboards.names import dataset_title, system_label
from leaderboards.plots.style import (
    STYLE,
    Images,
    fitting,
    image_sheets,
    look,
    panels,
    shared_legend,
    tile,
    write_figures,
)
from leaderboards.steps import on_curve, steps_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = 8  # pixels between a sample and its neighbours


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``generation_samples.png``, ``generation_neighbours.png``, ``generation_steps.png``, where there is something.

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
    from matplotlib.ticker import LogLocator, NullLocator

    scan = [row for row in rows if on_curve(row) and row.value is not None]
    places = [(data, m) for data in dict.fromkeys(r.dataset for r in scan) for m in in_order(_metrics(scan, data))]
    systems = list(dict.fromkeys((row.system, row.size) for row in scan))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(places))
        for axis, (dataset, metric) in zip(axes, places, strict=True):
            shown = [row for row in scan if (row.dataset, row.metric) == (dataset, metric)]
            floors = [
                row
                for row in rows
                if (row.dataset, row.metric, row.role) == (dataset, metric, "control") and row.value is not None
            ]
            for i, (system, size) in enumerate(systems):
                for own in _by_seed([row for row in shown if (row.system, row.size) == (system, size)]):
                    label = system_label(system) + (f" ({size})" if size else "")
                    _curve(axis, own, label, look(i))
            for i, row in enumerate(floors):
                axis.axhline(row.value, color=("0.25", "0.6")[i % 2], linestyle="--", linewidth=1, label=row.system)
            if metric_of(metric).higher_is_better is False and all((row.value or 0) > 0 for row in [*shown, *floors]):
                axis.set_yscale("log")
                # An interval may reach below 0, where a logarithmic axis has no end.
                values = [row.value for row in [*shown, *floors] if row.value]
                axis.set_ylim(min(values) / 1.6, max([*values, *(row.high or 0 for row in shown)]) * 1.2)
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_locator(NullLocator())
            ticks = sorted({steps_of(row.variant) for row in shown})
            axis.set_xscale("symlog", base=2, linthresh=1)
            axis.set_xticks(ticks[:: -(-len(ticks) // 8)])
            axis.set_xlim(ticks[0] / 1.15 if ticks[0] else -0.3, ticks[-1] * 1.15 or 0.3)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
            _, space = split_metric(metric)
            arrow = {True: " (higher is better)", False: " (lower is better)", None: ""}[
                metric_of(metric).higher_is_better
            ]
            axis.set_title(f"{dataset_title(dataset)}{f', {space} features' if space else ''}")
            axis.set(xlabel="Langevin steps", ylabel=f"{metric_of(metric).title}{arrow}")
        if axes:
            shared_legend(figure, axes)
    return figure


def _metrics(rows: Sequence[Measurement], dataset: str) -> set[str]:
    return {row.metric for row in rows if row.dataset == dataset}


def _by_seed(rows: Sequence[Measurement]) -> list[list[Measurement]]:
    """A line per seed, its points in order of steps."""
    ordered = sorted(rows, key=lambda row: steps_of(row.variant))
    return [[row for row in ordered if row.seed == seed] for seed in dict.fromkeys(row.seed for row in ordered)]


def _curve(axis: Any, rows: Sequence[Measurement], label: str, own_look: dict[str, Any]) -> None:
    x = [steps_of(row.variant) for row in rows]
    low = np.array([np.nan if row.low is None else row.low for row in rows], float)
    high = np.array([np.nan if row.high is None else row.high for row in rows], float)
    axis.plot(x, [row.value for row in rows], marker="o", markersize=3, linewidth=1.4, label=label, **own_look)
    axis.fill_between(x, low, high, color=own_look["color"], alpha=0.2, linewidth=0)
