"""Plots of the OOD suite: score histograms, ROC curves, AUROC against a coefficient on the energy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.measurement import Measurement
from leaderboards import names
from leaderboards.names import system_label
from leaderboards.plots.style import PANEL, STYLE, look, panels, shared_legend, write_figures
from leaderboards.tables.ood import coefficient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]  # system -> data set -> (N,), higher = more in-distribution

FIXED = {"svhn": 0, "cifar10_interp": 1, "cifar100": 2, "celeba": 3}  # the same colour in every plot
LONG = 18  # letters of a name of which two do not fit side by side below a panel
CLIP = 0.5  # percent of scores on each side that the histograms put into their outermost bins


def score_histograms(scores: Scores, in_distribution: str = names.IN_DISTRIBUTION, bins: int = 50) -> "Figure":
    """Draw one panel per system: the in-distribution scores filled, each OOD set as an outline.

    Args:
        scores: scores (N,) by system and data set; systems without in-distribution scores are left out.
        bins: number of bins, the same for all sets of a panel.
    """
    import matplotlib

    kept = {system: sets for system, sets in scores.items() if in_distribution in sets}
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(kept))
        order = _out_sets(kept, in_distribution)
        for axis, (system, sets) in zip(axes, kept.items(), strict=True):
            low, high = np.percentile(np.concatenate([np.asarray(s) for s in sets.values()]), [CLIP, 100 - CLIP])
            edges = np.linspace(low, high if high > low else low + 1, bins + 1)
            inside = np.clip(sets[in_distribution], edges[0], edges[-1])
            title = f"{names.dataset_title(in_distribution)} (in)"
            axis.hist(inside, edges, density=True, color="0.75", label=title)
            for name in order:
                if name in sets:
                    clipped = np.clip(sets[name], edges[0], edges[-1])
                    axis.hist(
                        clipped,
                        edges,
                        density=True,
                        histtype="step",
                        linewidth=1.2,
                        label=names.dataset_title(name),
                        **_set_look(name, order),
                    )
            axis.set(title=system_label(system), xlabel="score (higher: more in-distribution)", yticks=[])
            axis.locator_params(axis="x", nbins=5)  # log-likelihoods have long numbers
        if axes:
            axes[0].set_ylabel("density")
            shared_legend(figure, axes, "the outermost bins hold the tails")
    return figure


def roc_curves(scores: Scores, in_distribution: str = names.IN_DISTRIBUTION) -> "Figure":
    """Draw one panel per OOD set with a curve per system, its AUROC in the legend, and chance as a diagonal.

    Args:
        scores: scores (N,) by system and data set; systems without in-distribution scores are left out.
    """
    import matplotlib

    kept = {system: sets for system, sets in scores.items() if in_distribution in sets}
    order = _out_sets(kept, in_distribution)
    with matplotlib.rc_context(STYLE):
        across = 1 if any(len(system_label(system)) > LONG for system in kept) else 2
        legend_lines = -(-(len(kept) + 1) // across)
        figure, axes = panels(len(order), (PANEL[0], PANEL[0] + 0.35 + 0.165 * legend_lines))
        for axis, name in zip(axes, order, strict=True):
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, label="chance 0.50")
            for i, (system, sets) in enumerate(kept.items()):
                if name in sets:
                    false, true = roc(sets[in_distribution], sets[name])
                    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
                    axis.plot(false, true, linewidth=1.4, label=f"{system_label(system)} {area:.2f}", **look(i))
            title = f"{names.dataset_title(in_distribution)} against {names.dataset_title(name)}"
            axis.set(title=title, xlabel="false positive rate (OOD kept)", ylabel="true positive rate (in kept)")
            axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            # Below the panel, whose size leaves room for it beneath a square: inverted detectors leave no corner of it free.
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": across}
            axis.legend(title="AUROC", title_fontsize=8, columnspacing=1.0, **place)
    return figure


def roc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (false positive rate, true positive rate), each from 0 to 1, at every distinct score.

    Ties make one slanted step, so the area below the curve is the AUROC by mid-ranks.

    Args:
        inside: in-distribution scores (N,), the positives.
        outside: out-of-distribution scores (M,).
    """
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    true = np.searchsorted(np.sort(-np.asarray(inside)), -thresholds, side="right") / len(inside)
    false = np.searchsorted(np.sort(-np.asarray(outside)), -thresholds, side="right") / len(outside)
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def coefficient_curves(rows: Sequence[Measurement]) -> "Figure":
    """Draw AUROC with its 95 % band against the coefficient c on E, a panel per system; c = 1 is the paper's.

    Args:
        rows: measurements; those of metric ``"auroc_at_coefficient"`` are drawn.
    """
    import matplotlib

    scan = [row for row in rows if row.metric == "auroc_at_coefficient" and row.value is not None]
    systems = list(dict.fromkeys((row.system, row.size) for row in scan))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(systems))
        order = list(dict.fromkeys(row.dataset for row in scan))
        for axis, (system, size) in zip(axes, systems, strict=True):
            own = sorted(
                (r for r in scan if (r.system, r.size) == (system, size)), key=lambda r: coefficient(r.variant)
            )
            for name in order:
                points = [row for row in own if row.dataset == name]
                x = [coefficient(row.variant) for row in points]
                y = np.array([row.value for row in points], float)
                low = np.array([row.low if row.low is not None else np.nan for row in points], float)
                high = np.array([row.high if row.high is not None else np.nan for row in points], float)
                own_look = _set_look(name, order)
                axis.plot(x, y, marker="o", markersize=3, linewidth=1.4, label=names.dataset_title(name), **own_look)
                axis.fill_between(x, low, high, color=own_look["color"], alpha=0.15, linewidth=0)
            # c = 0 (log p(x) alone) belongs on the axis, and the interesting range spans decades.
            positive = [c for row in own if (c := coefficient(row.variant)) > 0]
            if positive:
                axis.set_xscale("symlog", linthresh=min(positive))
                axis.xaxis.set_major_formatter("{x:g}")
            axis.axhline(0.5, color="0.6", linewidth=0.8)
            axis.axvline(1.0, color="0.6", linewidth=0.8, linestyle=":")
            axis.set(title=f"{system_label(system)}{f' ({size})' if size else ''}")
            axis.set(xlabel="c in log p(x) - c E(x)   (1: the paper's score)", ylabel="AUROC")
        if axes:
            shared_legend(figure, axes)
    return figure


def write(result: Any, folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``ood_histograms.png``, ``ood_roc.png``, ``ood_coefficient.png``, each where it has a panel.

    Args:
        result: with ``scores`` (system -> data set -> term -> (N,), the whole score as the term ``"score"``), ``rows`` and
            ``in_dist``, the name of the in-distribution set.
        pdf: write a PDF beside each PNG.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    scores = {system: {name: terms["score"] for name, terms in sets.items()} for system, sets in result.scores.items()}
    figures = {
        "histograms": score_histograms(scores, result.in_dist),
        "roc": roc_curves(scores, result.in_dist),
        "coefficient": coefficient_curves(result.rows),
    }
    return write_figures(figures, folder, "ood", pdf)


def _out_sets(scores: Scores, in_distribution: str) -> list[str]:
    """Return the OOD sets in order of first appearance, so that a set has one colour in all panels."""
    return list(dict.fromkeys(name for sets in scores.values() for name in sets if name != in_distribution))


def _set_look(name: str, order: Sequence[str]) -> dict[str, Any]:
    """A set of the paper has its own colour; other sets have the looks after these, in their order."""
    own = [other for other in order if other not in FIXED]
    return look(FIXED[name] if name in FIXED else len(FIXED) + own.index(name))
