"""Training curves: the logged quantities of runs side by side."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leaderboards.plots.style import STYLE, look, panels, shared_legend, write_figures
from vaebm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, NDArray[np.float64]]  # quantity -> (T,); "step" is the update

STEP = "step"
WINDOW = 20  # the running median is over a part in so many of a run ...
LEAST = 5  # ... and over so many logged updates at least
DECADES = 2.0  # a positive quantity that spans more has a logarithmic axis


def write_curves(folders: Sequence[Path], out: Path, *, pdf: bool = False) -> list[Path]:
    """Write ``training_curves.png`` of training runs.

    Args:
        folders: of runs, each with a ``log.csv``.
        pdf: write a PDF beside the PNG.

    Raises:
        UserError: a folder has no usable log, or ``out`` cannot be written.
    """
    places = list(dict.fromkeys(map(Path, folders)))
    names = [place.resolve().name for place in places]
    labels = names if len(set(names)) == len(names) else [str(place) for place in places]
    figure = training_curves({label: read_curves(place) for label, place in zip(labels, places, strict=True)})
    return write_figures({"curves": figure}, Path(out), "training", pdf)


def read_curves(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Read ``log.csv`` of a training run: quantity -> (T,), in the order of its columns, with ``"step"``, the update.

    A last line without its end is left out: a run that was killed while it wrote leaves one.

    Raises:
        UserError: there is no such file, nothing is logged in it, or a line is broken.
    """
    path = folder / "log.csv"
    needed = "needed the folder of a training run (python -m vaebm train ... --out FOLDER)"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--curves {folder}: {path} cannot be read ({_why(error)}); {needed}") from None
    whole, _, _ = text.rpartition("\n")
    header, *lines = csv.reader(whole.splitlines()) if whole else [[]]
    if not lines:
        raise UserError(f"--curves {folder}: {path} holds no logged update: the run ended before its first; {needed}")
    if STEP not in header or len(header) < 2:
        raise UserError(
            f"--curves {folder}: {path} has columns {', '.join(header)}; needed {STEP} and quantities; {needed}"
        )
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            rows.append([float(cell) for _, cell in zip(header, line, strict=True)])
        except ValueError:
            found = ",".join(line)[:60]
            raise UserError(
                f"--curves {folder}: {path}, line {number}: found {found!r}, needed {len(header)} numbers"
            ) from None
    return dict(zip(header, np.array(rows).T, strict=True))


def training_curves(runs: Mapping[str, Curves]) -> "Figure":
    """Draw a panel per quantity and a line per run: logged values faint, their running median on top.

    Args:
        runs: name of a run -> its quantities; runs need not have logged the same ones.
    """
    import matplotlib

    quantities = list(dict.fromkeys(name for run in runs.values() for name in run if name != STEP))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(quantities))
        for axis, quantity in zip(axes, quantities, strict=True):
            for i, (name, run) in enumerate(runs.items()):
                if quantity in run:
                    axis.plot(run[STEP], run[quantity], linewidth=0.8, alpha=0.3, color=look(i)["color"])
                    alone = "o" if len(run[STEP]) == 1 else ""  # a line of one point cannot be seen
                    smooth = running_median(run[quantity])
                    axis.plot(run[STEP], smooth, linewidth=1.4, marker=alone, markersize=3, label=name, **look(i))
            found = np.concatenate([run[quantity] for run in runs.values() if quantity in run])
            found = found[np.isfinite(found)]
            if found.size and found.min() > 0 and np.log10(found.max() / found.min()) > DECADES:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
            axis.set(title=quantity, xlabel="update")
        if axes:
            shared_legend(figure, axes, "running median; faint: as logged")
    return figure


def running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median (T,) of a window around every value (T,), cut at the ends; what is not finite does not count."""
    import pandas as pd

    window = max(LEAST, len(values) // WINDOW) | 1  # odd: as many before as after
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.rolling(window, center=True, min_periods=1).median().to_numpy()


def _why(error: Exception) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "it is no text"
