"""The one style of all plots: colours, panels, legends, sheets of images, files."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboards import names
from leaderboards.files import write_all
from leaderboards.metrics import score_or_sample_metric, split_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Images = NDArray[np.uint8]  # (N, H, W, C), C = 1 or 3

# Okabe and Ito, "Color universal design" (2008), without yellow, which is faint on white; line styles tell the rest.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of lone points, which have no line
DENSITY = "cividis"  # made for colour-blind readers, and even in lightness
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 150,
    "figure.constrained_layout.w_pad": 0.07,  # inches around a panel: its labels keep off its neighbours
    "figure.constrained_layout.h_pad": 0.07,
    "svg.hashsalt": "vaebm",
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
PANEL = (3.5, 2.8)  # inches
COLUMNS = 3
SHEET = 528  # pixels that the images of one system may take up in width
GAP = 2  # pixels between images
HEAD, MARGIN = 30, 14  # pixels: above the images of a system, and around them
LETTER = 8  # pixels that a letter of the note below takes at most, on average


def panels(count: int, size: tuple[float, float] = PANEL) -> tuple["Figure", list[Any]]:
    """Return a figure with ``count`` axes in rows of ``COLUMNS`` (none for none)."""
    from matplotlib.figure import Figure

    across = min(count, COLUMNS) if count != 4 else 2
    down = -(-count // across) if count else 1
    width, height = size
    figure = Figure(figsize=(width * max(across, 1), height * down), layout="constrained")
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]


def look(i: int) -> dict[str, Any]:
    """Return colour and line style of the ``i``-th line."""
    return {"color": PALETTE[i % len(PALETTE)], "linestyle": LINES[i % len(LINES)]}


def set_title(dataset: str, metric: str) -> str:
    """Return the title of a panel with a metric on a data set: ``"CIFAR-10, cifar10net features"``."""
    _, space = split_metric(metric)
    return names.dataset_title(dataset) + (f", {space} features" if space else "")


def metric_label(metric: str) -> str:
    """Return the label of a metric's axis, without its features: ``"FD (lower is better)"``."""
    known = score_or_sample_metric(metric)
    arrow = {True: " (higher is better)", False: " (lower is better)", None: ""}[known.higher_is_better]
    return known.title + arrow


def spread(ticks: Sequence[float], position: Callable[[float], float], most: int = 9) -> list[float]:
    """Return those of sorted ticks that keep apart on an axis, the last one among them.

    Args:
        position: of a tick on the axis, in any unit.
        most: ticks that fit on the axis.
    """
    kept = list(ticks[-1:])
    apart = (position(ticks[-1]) - position(ticks[0])) / most if ticks else 0.0
    for tick in reversed(ticks[:-1]):
        if position(kept[-1]) - position(tick) >= apart:
            kept.append(tick)
    return kept[::-1]


def shared_legend(figure: "Figure", axes: Sequence[Any], title: str | None = None) -> None:
    """Put one legend below all panels, each name once, in as many columns as the figure has room for."""
    shown = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    widest = max(map(len, shown), default=0)  # letters; a column is half an inch of marker and room, and its letters
    columns = max(1, min(len(shown), int(figure.get_figwidth() / (0.5 + 0.065 * widest))))
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=columns, title=title, title_fontsize=8
    )


def write_figures(figures: Mapping[str, "Figure"], folder: Path, stem: str, pdf: bool) -> list[Path]:
    """Write ``<stem>_<name>.png`` (and ``.pdf``) for each figure with something on it: all of them or none. Those of an earlier
    run that this one has not are removed: the page would show them as its own.

    Raises:
        UserError: ``folder`` cannot be written.
    """
    contents = {
        Path(folder) / f"{stem}_{name}.{ending}": _bytes(figure, ending)
        for name, figure in figures.items()
        if figure.axes
        for ending in (("png", "pdf") if pdf else ("png",))
    }
    written = write_all(contents) if contents else []
    for name in figures:
        for ending in ("png", "pdf"):
            if (path := Path(folder) / f"{stem}_{name}.{ending}") not in contents:
                path.unlink(missing_ok=True)
    return written


def _bytes(figure: "Figure", ending: str) -> bytes:
    """The same plot makes the same bytes: no time, no version in the file."""
    import matplotlib

    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}[ending]
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():  # ticks are made while drawing
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # a name in letters that the font lacks: drawn as boxes
        figure.savefig(out, format=ending, metadata=metadata)
    return out.getvalue()


def tile(images: Images, across: int, *, apart: int = 0) -> NDArray[np.uint8]:
    """Lay images out in rows on white, whole pixels magnified: uint8 (H', W', 3).

    Args:
        images: (N, H, W, C), in reading order.
        across: images per row.
        apart: pixels to add behind the first image of each row.
    """
    count, height, width, channels = images.shape
    factor = max(1, (SHEET // across - GAP) // width)
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    large = large if channels == 3 else large[..., :1].repeat(3, axis=3)
    height, width, down = height * factor, width * factor, -(-count // across)
    sheet = np.full((down * (height + GAP) - GAP, across * (width + GAP) - GAP + apart, 3), 255, np.uint8)
    for i, image in enumerate(large):
        top, left = (i // across) * (height + GAP), (i % across) * (width + GAP) + (apart if i % across else 0)
        sheet[top : top + height, left : left + width] = image
    return sheet


def fitting(width: int, most: int = 8, least: int = 2) -> int:
    """Return how many images of this width fit side by side at their own size."""
    return max(least, min(most, SHEET // (width + GAP)))


def image_sheets(sheets: Sequence[tuple[str, NDArray[np.uint8]]], note: str) -> "Figure":
    """Draw labelled sheets side by side, pixel for pixel, in rows of ``COLUMNS``; ``note`` stands below.

    Args:
        sheets: (label, uint8 (H, W, 3)).
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        dpi = STYLE["figure.dpi"]
        if not sheets:
            return Figure()
        across = min(len(sheets), COLUMNS) if len(sheets) != 4 else 2
        rows = [sheets[i : i + across] for i in range(0, len(sheets), across)]
        wide = max(sheet.shape[1] for _, sheet in sheets) + MARGIN
        tall = [max(sheet.shape[0] for _, sheet in row) + HEAD for row in rows]
        # One narrow sheet must not cut off the note below it.
        width, height = MARGIN + max(across * wide, LETTER * len(note)), sum(tall) + HEAD
        figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
        top = height
        for row, room in zip(rows, tall, strict=True):
            for i, (label, sheet) in enumerate(row):
                left = MARGIN + i * wide
                figure.text(left / width, (top - HEAD + 8) / height, label, fontsize=9, va="bottom")
                down, right = sheet.shape[:2]
                place = (left / width, (top - HEAD - down) / height, right / width, down / height)
                axis = figure.add_axes(place)
                axis.imshow(sheet, interpolation="none", aspect="auto")
                axis.set_axis_off()
            top -= room
        figure.text(MARGIN / width, 8 / height, note, fontsize=7, color="0.35", va="bottom")
    return figure
