"""Plots of the trade-off suite: what distance costs in seconds, every metric against every setting, and chains over time."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluators.measurement import Measurement
from leaderboards.metrics import in_order, split_metric
from leaderboards.names import system_label
from leaderboards.pareto import non_dominated
from leaderboards.plots.generation import interval_ends, value_axis
from leaderboards.plots.style import (
    LINES,
    MARKERS,
    PALETTE,
    STYLE,
    Images,
    fitting,
    image_sheets,
    panels,
    shared_legend,
    spread,
    tile,
    write_figures,
)
from leaderboards.tables.steps import SECONDS
from leaderboards.tables.tradeoff import DISTANCES, Setting, setting_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEM = "tradeoff"
STRIP = "strip_"
HEADER = 18  # pixels above the columns of a strip, for their numbers
# Where a metric says "as the data": drawn as a line.
LEVELS = {"auroc_test_over_samples": 0.5, "score_gap": 0.0, "energy_gap": 0.0}


class _Dot(NamedTuple):
    """A row with a value, and its setting."""

    row: Measurement
    setting: Setting
    x: float = 0.0

    @property
    def system(self) -> tuple[str, str]:
        return self.row.system, self.row.size

    @property
    def seconds(self) -> float:
        return float(self.row.protocol.get(SECONDS) or 0)


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``tradeoff_pareto.png``, ``_steps``, ``_step_sizes``, ``_temperatures``, ``_seconds``, and ``_strip_<system>`` for each system
    with a chain; each where there is something.

    Args:
        result: with ``rows``, and ``strips``, system -> (uint8 (chains, rungs, H, W, C), the rungs' numbers of steps).
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    from matplotlib.figure import Figure

    figures = {"pareto": pareto(result.rows)} | {axis: curves(result.rows, axis) for axis in AXES}
    strips = {}
    for system, name in _file_names(result.strips).items():
        images, steps = result.strips[system]
        strips[f"{STRIP}{name}"] = strip(images, steps, system_label(system))
    # Of a system that this run has not: drawn as nothing, which removes them.
    earlier = {path.stem.removeprefix(f"{STEM}_") for path in Path(folder).glob(f"{STEM}_{STRIP}*.p[nd][gf]")}
    return write_figures(dict.fromkeys(earlier, Figure()) | figures | strips, folder, STEM, pdf)


def pareto(rows: Sequence[Measurement]) -> "Figure":
    """Draw distance against seconds per image, a panel per data set and feature space: the settings of a system that no other one of it
    beats are joined, the others faint, and its own recipe is ringed. The grey line joins what no system beats.

    Args:
        rows: measurements of distances with their seconds in the protocol.
    """
    import matplotlib

    dots = [dot for dot in _dots(rows) if dot.seconds > 0 and split_metric(dot.row.metric)[0] in DISTANCES]
    systems = list(dict.fromkeys(dot.system for dot in _dots(rows)))
    with matplotlib.rc_context(STYLE):
        places = _places(dots)
        figure, axes = panels(len(places), (5.2, 4.0))
        for axis, (dataset, metric) in zip(axes, places, strict=True):
            shown = [dot for dot in dots if (dot.row.dataset, dot.row.metric) == (dataset, metric)]
            for i, system in enumerate(systems):
                for own in _by_seed([dot for dot in shown if dot.system == system]):
                    _front(axis, own, PALETTE[i % len(PALETTE)], _marker(i))
            if len({dot.system for dot in shown}) > 1 and len({_device(dot) for dot in shown}) == 1:
                best = sorted(_kept(shown), key=lambda dot: dot.seconds)
                x, y = [dot.seconds for dot in best], [dot.row.value for dot in best]
                axis.plot(x, y, color="0.75", linewidth=3, zorder=0, label="no system is better")
            value_axis(axis, dataset, metric, [dot.row for dot in shown], ())
            _seconds_axis(axis, [dot.seconds for dot in shown])
        if axes:
            shared_legend(
                figure,
                axes,
                "joined: no setting of the system is better in both; ring: its own recipe; numbers: steps, step size",
            )
    return figure


def curves(rows: Sequence[Measurement], axis_name: str) -> "Figure":
    """Draw each metric with its 95 % interval against one of :data:`AXES`, a panel per data set and metric.

    Steps and seconds: a line per system and step size or temperature. Step sizes and temperatures: a line per system at its own number of
    steps, else at the largest. A system with one value has no line there, but a point on the axis of seconds.

    Args:
        rows: measurements of the suite; distances of held-out images are dashed lines, an AUROC with these in place of samples is a dotted
            line in the colour of its system, and a thin line stands where samples would be as the data.
    """
    import matplotlib

    select, line_of, scale = AXES[axis_name]
    dots = select(_dots(rows))
    systems = list(dict.fromkeys(dot.system for dot in _dots(rows)))
    styles = list(dict.fromkeys(line_of(dot)[:2] for dot in dots))
    with matplotlib.rc_context(STYLE):
        places = _places(dots)
        figure, axes = panels(len(places))
        for axis, (dataset, metric) in zip(axes, places, strict=True):
            shown = [dot for dot in dots if (dot.row.dataset, dot.row.metric) == (dataset, metric)]
            floors = _floor(axis, rows, dataset, metric)
            if metric in LEVELS:
                axis.axhline(LEVELS[metric], color="0.6", linewidth=0.8, zorder=0)
            for i, system in enumerate(systems):
                colour, own = PALETTE[i % len(PALETTE)], [dot for dot in shown if dot.system == system]
                if own:
                    _instead(axis, rows, own[0].row, colour)
                members = [[dot for dot in own if line_of(dot) == line] for line in dict.fromkeys(map(line_of, own))]
                for line in members:
                    _line(axis, line, colour, styles.index(line_of(line[0])[:2]), i)
                if own:  # in the legend a system is a colour and a marker; line styles stand beside it
                    joined = "-" if max(map(len, members)) > 1 else "none"
                    proxy = {"linestyle": joined, "marker": _marker(i), "markersize": 3.5}
                    axis.plot([], [], color=colour, label=_label(own[0]), **proxy)
            for j, style in enumerate(styles if len(styles) > 1 else ()):
                axis.plot([], [], color="0.4", linestyle=LINES[j % len(LINES)], label=_named(*style))
            value_axis(axis, dataset, metric, [dot.row for dot in shown], floors)
            scale(axis, sorted({dot.x for dot in shown}))
        if axes:
            shared_legend(figure, axes, "dotted across: held-out images in place of samples; grey across: as the data")
    return figure


def strip(images: Images, steps: Sequence[int], label: str) -> "Figure":
    """Draw chains over time: a row per chain, a column per number of steps, which stands above it.

    Args:
        images: uint8 (chains, rungs, H, W, C).
        steps: of the rungs.
        label: printed name of the system.
    """
    chains, rungs = images.shape[:2]
    if not chains or not rungs:
        return image_sheets([], "")
    across = min(rungs, fitting(images.shape[3], most=rungs))
    shown = np.unique(np.linspace(0, rungs - 1, across).round().astype(int))  # the first and the last rung among them
    sheet = tile(images[:, shown].reshape(-1, *images.shape[2:]), len(shown))
    head = np.full((HEADER, *sheet.shape[1:]), 255, np.uint8)
    note = "A row is a chain, a column what it shows after so many steps. The first chains: none is selected."
    figure = image_sheets([(label, np.concatenate([head, sheet]))], note)
    width = sheet.shape[1] / len(shown)
    for i, rung in enumerate(shown):
        figure.axes[0].text((i + 0.5) * width, HEADER / 2, str(steps[rung]), ha="center", va="center", fontsize=7)
    return figure


# --- what an axis shows: which dots, in which lines, on which scale ------------------------------------------------------


def _of_steps(dots: Sequence[_Dot]) -> list[_Dot]:
    return [dot._replace(x=float(dot.setting.steps or 0)) for dot in _begun(dots) if dot.setting.steps is not None]


def _of_seconds(dots: Sequence[_Dot]) -> list[_Dot]:
    return [dot._replace(x=dot.seconds) for dot in _begun(dots) if dot.seconds > 0]


def _begun(dots: Sequence[_Dot]) -> list[_Dot]:
    """With the start of a chain, which has no step size, at the beginning of the lines of all step sizes."""
    sizes = dict.fromkeys((dot.system, dot.setting.step_size) for dot in dots if dot.setting.step_size is not None)
    starts = [dot for dot in dots if dot.setting == Setting(steps=0)]
    return [
        *dots,
        *(dot._replace(setting=Setting(0, size)) for dot in starts for system, size in sizes if dot.system == system),
    ]


def _of_step_size(dots: Sequence[_Dot]) -> list[_Dot]:
    found = [dot._replace(x=dot.setting.step_size or 1.0) for dot in dots if dot.setting.temperature is None]
    return _varied(_at_own_steps(found))


def _of_temperature(dots: Sequence[_Dot]) -> list[_Dot]:
    found = []
    for dot in dots:
        recipe = dot.row.protocol.get("sampling")
        own = recipe.get("temperature") if isinstance(recipe, dict) else None
        if dot.setting.step_size is None and own is not None:
            found.append(dot._replace(x=float(own)))
    return _varied(_at_own_steps(found))


def _at_own_steps(dots: Sequence[_Dot]) -> list[_Dot]:
    """Of each system, those of one number of steps: of its own recipe if there are any, else the most."""
    chosen: dict[tuple[str, str], int | None] = {}
    for dot in dots:
        if dot.row.protocol.get("own_recipe"):
            chosen[dot.system] = dot.setting.steps
    for system in {dot.system for dot in dots} - chosen.keys():
        chosen[system] = max((dot.setting.steps or 0 for dot in dots if dot.system == system), default=None)
    return [dot for dot in dots if dot.setting.steps == chosen[dot.system]]


def _varied(dots: Sequence[_Dot]) -> list[_Dot]:
    """Without systems of which there is one value."""
    values: dict[tuple[str, str], set[float]] = {}
    for dot in dots:
        values.setdefault(dot.system, set()).add(dot.x)
    return [dot for dot in dots if len(values[dot.system]) > 1]


def _steps_axis(axis: Any, ticks: Sequence[float]) -> None:
    axis.set_xscale("symlog", base=2, linthresh=1)
    axis.set_xticks(spread(ticks, lambda steps: 1 + math.log2(steps) if steps else 0.0))
    axis.set_xlim(ticks[0] / 1.15 if ticks[0] else -0.3, ticks[-1] * 1.15 or 0.3)
    _plain(axis, "chain steps")


def _step_size_axis(axis: Any, ticks: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(spread(ticks, math.log))
    _plain(axis, "step size, times the system's own")


def _temperature_axis(axis: Any, ticks: Sequence[float]) -> None:
    axis.set_xticks(spread(ticks, float))
    _plain(axis, "temperature")


def _seconds_axis(axis: Any, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator

    axis.set_xscale("log")
    axis.set_xlim(min(ticks) / 1.6, max(ticks) * 1.6)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(ticks) / min(ticks) < 100 else (1,)))
    _plain(axis, "seconds per image")


def _plain(axis: Any, label: str) -> None:
    from matplotlib.ticker import NullLocator

    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(label)


_Select = Callable[[Sequence[_Dot]], list[_Dot]]
_Line = Callable[[_Dot], tuple[Any, ...]]
_Scale = Callable[[Any, Sequence[float]], None]
_setting_but_steps: _Line = lambda dot: (dot.setting.step_size, dot.setting.temperature, dot.row.seed)
_seed: _Line = lambda dot: (None, None, dot.row.seed)
AXES: Mapping[str, tuple[_Select, _Line, _Scale]] = {
    "steps": (_of_steps, _setting_but_steps, _steps_axis),
    "step_sizes": (_of_step_size, _seed, _step_size_axis),
    "temperatures": (_of_temperature, _seed, _temperature_axis),
    "seconds": (_of_seconds, _setting_but_steps, _seconds_axis),
}


# --- parts of a panel ------------------------------------------------------------------------------------------------


def _dots(rows: Sequence[Measurement]) -> list[_Dot]:
    return [_Dot(row, setting_of(row.variant)) for row in rows if row.role != "control" and row.value is not None]


def _places(dots: Sequence[_Dot]) -> list[tuple[str, str]]:
    """A panel per data set and metric."""
    found: dict[str, set[str]] = {}
    for dot in dots:
        found.setdefault(dot.row.dataset, set()).add(dot.row.metric)
    return [(dataset, metric) for dataset, metrics in found.items() for metric in in_order(metrics)]


def _by_seed(dots: Sequence[_Dot]) -> list[list[_Dot]]:
    return [[dot for dot in dots if dot.row.seed == seed] for seed in dict.fromkeys(dot.row.seed for dot in dots)]


def _label(dot: _Dot) -> str:
    return system_label(dot.row.system) + (f" ({dot.row.size})" if dot.row.size else "")


def _marker(system: int) -> str:
    """Return a marker that systems of one colour do not share."""
    return MARKERS[(system + system // len(PALETTE)) % len(MARKERS)]


def _device(dot: _Dot) -> str:
    return str((dot.row.provenance.get("fingerprint") or {}).get("device"))


def _kept(dots: Sequence[_Dot]) -> list[_Dot]:
    kept = non_dominated([dot.seconds for dot in dots], [dot.row.value or 0.0 for dot in dots])
    return [dot for dot, keep in zip(dots, kept, strict=True) if keep]


def _front(axis: Any, dots: Sequence[_Dot], colour: str, marker: str) -> None:
    from matplotlib.patheffects import withStroke

    front = sorted(_kept(dots), key=lambda dot: dot.seconds)
    for members, alpha in ((dots, 0.35), (front, 1.0)):
        x, y = [dot.seconds for dot in members], [dot.row.value for dot in members]
        joined = {"linestyle": "-", "label": _label(dots[0])} if members is front else {"linestyle": "none"}
        axis.plot(x, y, marker=marker, markersize=4, linewidth=1.4, color=colour, alpha=alpha, **joined)
        axis.vlines(x, *interval_ends([dot.row for dot in members]), color=colour, linewidth=1, alpha=alpha)
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "color": colour, "linestyle": "none"}
    own = [dot for dot in dots if dot.row.protocol.get("own_recipe")]
    axis.plot([dot.seconds for dot in own], [dot.row.value for dot in own], **ring)
    halo = [withStroke(linewidth=2, foreground="white")]
    for dot in front:
        if dot.setting.steps is not None:
            near = {"textcoords": "offset points", "fontsize": 7, "color": "0.3", "path_effects": halo}
            axis.annotate(_short(dot.setting), (dot.seconds, dot.row.value), (5, 4), **near)


def _short(setting: Setting) -> str:
    """``"8"``, ``"8, x0.5"``, ``"8, T 0.7"``."""
    parts = [str(setting.steps)] if setting.steps is not None else []
    parts += [] if setting.step_size is None else [f"x{setting.step_size:g}"]
    parts += [] if setting.temperature is None else [f"T {setting.temperature:g}"]
    return ", ".join(parts)


def _named(step_size: float | None, temperature: float | None) -> str:
    """``"step size x0.5"``; of what is the system's own: ``"own recipe"``."""
    return Setting(None, step_size, temperature).label


def _line(axis: Any, dots: Sequence[_Dot], colour: str, line: int, system: int) -> None:
    dots = sorted(dots, key=lambda dot: dot.x)
    x, low_high = [dot.x for dot in dots], interval_ends([dot.row for dot in dots])
    look: dict[str, Any] = {"color": colour, "linestyle": LINES[line % len(LINES)] if len(dots) > 1 else "none"}
    marker = _marker(system)
    axis.plot(
        x, [dot.row.value for dot in dots], marker=marker, markersize=3.5, linewidth=1.4, label=_label(dots[0]), **look
    )
    axis.vlines(x, *low_high, color=colour, linewidth=1, alpha=0.6)


def _floor(axis: Any, rows: Sequence[Measurement], dataset: str, metric: str) -> list[Measurement]:
    """Draw what held-out images get, where that is the same for all systems, and return it."""
    place = (dataset, metric, "control")
    found = [r for r in rows if (r.dataset, r.metric, r.role) == place and r.value is not None and not r.variant]
    for row in found:
        axis.axhline(row.value, color="0.25", linestyle="--", linewidth=1, label=row.system)
    return found


def _instead(axis: Any, rows: Sequence[Measurement], row: Measurement, colour: str) -> None:
    """Draw what held-out images in place of samples get by the score of a row's system."""
    place = (row.system, row.dataset, row.metric, "control")
    for control in rows:
        if (control.system, control.dataset, control.metric, control.role) == place and control.value is not None:
            axis.axhline(control.value, color=colour, linestyle=":", linewidth=1)


def _file_names(systems: Mapping[str, object]) -> dict[str, str]:
    """A name for each system's file; what cannot stand in one becomes a dash, and what then is alike gets a number."""
    found: dict[str, str] = {}
    for system in systems:
        plain = re.sub(r"[^\w.-]+", "-", system, flags=re.ASCII).strip(".-") or "system"
        name, number = plain, 2
        while name.lower() in {taken.lower() for taken in found.values()}:
            name, number = f"{plain}-{number}", number + 1
        found[system] = name
    return found
