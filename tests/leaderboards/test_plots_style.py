"""One style: colours that all readers can tell apart, ticks that keep apart, files that are the same each time."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from leaderboards.plots.style import (
    LINES,
    PALETTE,
    look,
    metric_label,
    panels,
    set_title,
    shared_legend,
    spread,
    write_figures,
)

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009), severity 1.
SIGHT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "full": np.eye(3).tolist(),
}


def lab(colour: str, sight: str) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour as this sight sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_sight_and_from_white(sight: str) -> None:
    seen = [lab(colour, sight) for colour in PALETTE]
    near = min(float(np.linalg.norm(a - b)) for i, a in enumerate(seen) for b in seen[:i])
    assert near > 10  # 2.3 can just be told apart
    assert max(colour[0] for colour in seen) < 80  # lightness of white is 100


def test_neighbouring_lines_differ_in_style_too_and_twenty_eight_are_all_different() -> None:
    looks = [tuple(look(i).values()) for i in range(len(PALETTE) * len(LINES))]
    assert len(set(looks)) == len(looks) == 28
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(looks))


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=40, unique=True).map(sorted), st.integers(1, 12))
def test_ticks_keep_apart_and_the_last_one_is_kept(ticks: list[float], most: int) -> None:
    kept = spread(ticks, math.log, most)
    assert kept == sorted(set(kept) & set(ticks))
    assert kept[-1] == ticks[-1]
    assert len(kept) <= most + 1
    apart = (math.log(ticks[-1]) - math.log(ticks[0])) / most
    assert all(math.log(b) - math.log(a) >= apart for a, b in itertools.pairwise(kept))


def test_ticks_that_fit_all_stay() -> None:
    steps = [0, 1, 2, 4, 8, 16, 24, 32]
    place = lambda n: 1 + math.log2(n) if n else 0.0
    assert spread(steps, place) == [0, 1, 2, 4, 8, 16, 32]  # 24 would touch 32
    assert spread([5], float) == [5]
    assert spread([], float) == []


def test_metrics_and_sets_are_called_as_in_the_tables() -> None:
    assert metric_label("fd_infinity_cifar10net") == "FD inf (lower is better)"
    assert metric_label("auroc") == "AUROC (higher is better)"
    assert metric_label("fpr95") == "FPR95 (lower is better)"
    assert metric_label("authenticity_cifar10net") == "Authenticity"
    assert metric_label("my_metric") == "my_metric"
    assert set_title("cifar10", "fid") == "CIFAR-10, Inception features"
    assert set_title("stacked_mnist", "kl") == "StackedMNIST"


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    import matplotlib

    from leaderboards.plots.style import STYLE

    with matplotlib.rc_context(STYLE):
        figure, (axis,) = panels(1)
        axis.plot([0, 1], label=r"$\nonsense$")
        axis.set_title("$x^2$")
        shared_legend(figure, [axis])
    (path,) = write_figures({"dollars": figure}, tmp_path, "test", pdf=False)
    assert path.stat().st_size > 1000


def test_a_pdf_is_vectors_with_truetype_fonts_and_both_are_the_same_each_time(tmp_path: Path) -> None:
    import matplotlib

    from leaderboards.plots.style import STYLE

    with matplotlib.rc_context(STYLE):
        figure, (axis,) = panels(1)
        axis.plot(np.linspace(0, 1, 50), label="line")
    first = write_figures({"x": figure}, tmp_path / "a", "test", pdf=True)
    again = write_figures({"x": figure}, tmp_path / "b", "test", pdf=True)
    assert [path.name for path in first] == ["test_x.png", "test_x.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    pdf = first[1].read_bytes()
    assert b"/Subtype /Type3" not in pdf
    assert b"/CIDFontType2" in pdf
    assert b"/Subtype /Image" not in pdf
    assert b"CreationDate" not in pdf


def test_plots_of_an_earlier_run_do_not_outlive_it(tmp_path: Path) -> None:
    full, _ = panels(1)
    write_figures({"curve": full, "other": full}, tmp_path, "ood", pdf=True)
    (tmp_path / "ood_mine.png").write_bytes(b"a file of the user's")
    write_figures({"curve": full, "other": Figure()}, tmp_path, "ood", pdf=False)
    assert {path.name for path in tmp_path.iterdir()} == {"ood_curve.png", "ood_mine.png"}
