"""Plots of the modes suite: StackedMNIST samples, images per mode against an even sampler, densities of the 25 Gaussians, curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboards.names import system_label
from leaderboards.plots.generation import cost_curves, sample_grids, step_curves
from leaderboards.plots.style import DENSITY, PALETTE, STYLE, panels, shared_legend, write_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
POINTS = 5000  # samples drawn beneath each density
TRUE = "true"  # how the name of the true density begins: its largest value is the end of the colour scale


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``modes_samples.png``, ``_counts``, ``_densities``, ``_steps`` and ``_costs``, each where there is something.

    Args:
        result: with ``rows``; ``samples``, system -> uint8 (N, H, W, C); ``counts``, system -> images per mode, int (K,); ``densities``,
            name -> an object with ``density`` (H, W), row 0 at the lowest y, ``extent``, centres of the first and the last pixel,
            and ``points`` (n, 2), samples as (x, y).
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    figures = {
        "samples": sample_grids(result.samples),
        "counts": count_histograms(result.counts),
        "densities": density_maps(result.densities),
        "steps": step_curves(result.rows),
        "costs": cost_curves(result.rows),
    }
    return write_figures(figures, folder, "modes", pdf)


def count_histograms(counts: Mapping[str, NDArray[np.int64]]) -> "Figure":
    """Draw one panel per system: how many modes got how many images, and what an even sampler would show.

    Each of K modes gets Binomial(N, 1/K) images from an even sampler, so the modes in a bin of probability p are close to
    Binomial(K, p) (the counts are bound only by their sum): the band holds 95 % of that.

    Args:
        counts: system -> images per mode, int (K,).
    """
    import matplotlib
    from scipy.stats import binom

    kept = {system: np.asarray(found) for system, found in counts.items() if np.sum(found)}
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(kept))
        for axis, (system, found) in zip(axes, kept.items(), strict=True):
            modes, total = len(found), int(found.sum())
            expected = binom(total, 1 / modes)
            high = int(max(np.percentile(found, 99.5), expected.ppf(0.9999))) + 1
            edges = np.arange(0, high + 1 + (width := max(1, high // BINS)), width) - 0.5
            inside = np.clip(found, 0, edges[-1] - 0.5)
            mass = np.diff(expected.cdf(edges))
            mass[-1] += 1 - expected.cdf(edges[-1])
            low, top = binom.ppf(0.025, modes, mass), binom.ppf(0.975, modes, mass)
            axis.hist(inside, edges, color=PALETTE[0], alpha=0.6, label="modes found")
            axis.stairs(top, edges, baseline=low, fill=True, color="0.35", alpha=0.35, label="even sampler, 95 %")
            axis.stairs(modes * mass, edges, color="black", linewidth=1, label="even sampler, expected")
            axis.set(title=f"{system_label(system)}: {np.count_nonzero(found):,} of {modes:,} modes")
            axis.set(xlabel=f"images per mode (N = {total:,})", xlim=(edges[0], edges[-1]))
        if axes:
            axes[0].set_ylabel("modes")
            shared_legend(figure, axes, "the last bin holds all larger counts")
    return figure


def density_maps(densities: Mapping[str, Any]) -> "Figure":
    """Draw densities side by side in one colour scale, samples beneath.

    Args:
        densities: as in :func:`write`. The scale ends at the largest value of the true density (a name that begins with
            ``"true"``; without one, of all), and is of square roots, so that bridges between modes can be seen.
    """
    import matplotlib
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    if not densities:
        return Figure()
    largest = {name: float(np.max(item.density)) for name, item in densities.items()}
    truth = [value for name, value in largest.items() if name.lower().startswith(TRUE)]
    end = max(truth or largest.values())
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        across = len(densities)
        figure = Figure(figsize=(2.6 * across + 0.8, 5.3), layout="constrained")
        axes = figure.subplots(2, across, sharex=True, sharey=True, squeeze=False)
        for (upper, lower), (name, item) in zip(axes.T, densities.items(), strict=True):
            low, high = item.extent
            half = (high - low) / (len(item.density) - 1) / 2  # imshow's extent is that of the pixels' edges
            square = (low - half, high + half, low - half, high + half)
            norm = PowerNorm(0.5, vmin=0, vmax=end)
            shown = upper.imshow(item.density, extent=square, origin="lower", cmap=DENSITY, norm=norm)
            points = np.asarray(item.points, float).reshape(-1, 2)[:POINTS]
            lower.plot(points[:, 0], points[:, 1], ",", color=PALETTE[0], alpha=0.6, rasterized=True)
            lower.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"{len(points):,} samples")
            upper.set_title(system_label(name))
        extend = "max" if max(largest.values()) > end else "neither"
        bar = figure.colorbar(shown, ax=axes, shrink=0.5, extend=extend)
        bar.set_label("density")
    return figure
