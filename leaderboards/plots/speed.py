"""Plots of the speed suite: seconds per image of every system, and how many times faster than another one it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.measurement import Measurement
from leaderboards.metrics import FASTER, in_order, metric_of
from leaderboards.names import system_label
from leaderboards.plots.style import PALETTE, STYLE, shared_legend, write_figures
from leaderboards.published import read_published

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS = "seconds_per_image"
WIDTH, LINE, FRAME = 3.6, 0.27, 1.1  # inches: of a panel, of a system's line in it, and around the lines


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``speed_seconds.png``, where there is something.

    Args:
        result: with ``rows``.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    return write_figures({"seconds": time_dots(result.rows)}, folder, "speed", pdf)


def time_dots(rows: Sequence[Measurement]) -> "Figure":
    """Draw a line per system, slowest first: its seconds per image with their interval, and a panel for each system that others are
    compared with. Both axes are logarithmic. Rings are extrapolated from a part of the chain, crosses are the paper's ratios; its seconds
    are of another machine and not drawn.

    Args:
        rows: measurements; those of variants are left out.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    shown = [row for row in rows if row.value is not None and row.value > 0 and not row.variant]
    times = sorted((row for row in shown if row.metric == SECONDS), key=lambda row: -(row.value or 0))
    lines = list(dict.fromkeys((row.system, row.size) for row in times))
    metrics = [SECONDS, *in_order({row.metric for row in shown if row.metric.startswith(FASTER)})]
    with matplotlib.rc_context(STYLE):
        if not times:
            return Figure()
        size = (1.2 + WIDTH * len(metrics), FRAME + LINE * len(lines))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            _dots(axis, [row for row in shown if row.metric == metric], lines)
            axis.set(xscale="log", xlabel="seconds per image" if metric == SECONDS else metric_of(metric).title)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_yticks(range(len(lines)), [system_label(name) + f" ({size})" * bool(size) for name, size in lines])
        axes[0].set_ylim(len(lines) - 0.5, -0.5)
        for axis, metric in zip(axes[1:], metrics[1:], strict=True):
            axis.axvline(1, color="0.35", linestyle="--", linewidth=1)
            _published(axis, metric, [name for name, _ in lines])
        shared_legend(figure, axes)
    return figure


def _dots(axis: Any, rows: Sequence[Measurement], lines: Sequence[tuple[str, str]]) -> None:
    for part, fill, label in ((False, PALETTE[0], "timed whole"), (True, "white", "extrapolated from a part")):
        own = [row for row in rows if (row.system, row.size) in lines and ("extrapolated" in row.note) is part]
        if not own:
            continue
        places = [lines.index((row.system, row.size)) for row in own]
        values = [row.value or 0.0 for row in own]
        low = [value if row.low is None else row.low for row, value in zip(own, values, strict=True)]
        high = [value if row.high is None else row.high for row, value in zip(own, values, strict=True)]
        axis.hlines(places, low, high, color=PALETTE[0], linewidth=1.4)
        look = {"linestyle": "none", "marker": "o", "markersize": 5, "color": PALETTE[0], "markerfacecolor": fill}
        axis.plot(values, places, label=label, **look)


def _published(axis: Any, metric: str, systems: Sequence[str]) -> None:
    for row in read_published():
        if row.suite == "speed" and row.metric == metric and row.system in systems:
            look = {"linestyle": "none", "marker": "x", "markersize": 7, "color": PALETTE[1]}
            axis.plot([row.value], [systems.index(row.system)], label="published", **look)
