"""Plots of the trade-off suite: fronts and rings stand where the rows say, strips show the very pixels."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic import pictures
from tradeoff_rows import tradeoff_rows

from leaderboards import write_plots
from leaderboards.plots import tradeoff as plots
from leaderboards.plots.style import tile
from vaebm.errors import UserError

STRIPS = {"vaebm": (np.stack([pictures(8, 32, seed) for seed in range(3)], axis=1), (0, 4, 8))}


def lines(axis: Any, label: str) -> list[Any]:
    return [line for line in axis.get_lines() if line.get_label() == label and len(line.get_xdata())]


def points(line: Any) -> list[tuple[float, float]]:
    return list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))


def panel(figure: Any, label: str) -> Any:
    (axis,) = [axis for axis in figure.axes if axis.get_ylabel().startswith(label)]
    return axis


def test_the_front_is_joined_and_the_own_recipe_ringed() -> None:
    axis = panel(plots.pareto(tradeoff_rows()), "FD")
    (front,) = lines(axis, "VAEBM (mini)")
    assert points(front) == [(1.0, 20.0), (5.0, 10.0), (9.0, 9.0)]
    (best,) = lines(axis, "no system is better")
    assert points(best) == [(0.9, 19.0), (5.0, 10.0), (9.0, 9.0)]
    rings = [points(line) for line in axis.get_lines() if line.get_markersize() == 10 and len(line.get_xdata())]
    assert rings == [[(5.0, 10.0)], [(0.9, 19.0)]]
    assert sorted(text.get_text() for text in axis.texts) == ["0", "4", "8, x0.5"]
    assert axis.get_xscale() == "log"


def test_times_of_several_devices_make_no_common_front() -> None:
    rows = [
        replace(row, provenance={"fingerprint": {"device": "cuda"}}) if row.system == "nvae" else row
        for row in tradeoff_rows()
    ]
    assert not lines(panel(plots.pareto(rows), "FD"), "no system is better")


def test_steps_have_a_line_per_step_size_that_begins_at_their_common_start() -> None:
    axis = panel(plots.curves(tradeoff_rows(), "steps"), "FD")
    found = sorted(points(line) for line in lines(axis, "VAEBM (mini)"))
    assert found == [[(0.0, 20.0), (4.0, 10.0), (8.0, 15.0)], [(0.0, 20.0), (4.0, 12.0), (8.0, 9.0)], [(4.0, 18.0)]]
    assert not lines(axis, "NVAE (mini)")
    assert [points(line) for line in lines(axis, "test images")] == [[(0.0, 1.0), (1.0, 1.0)]]
    assert lines(panel(plots.curves(tradeoff_rows(), "seconds"), "FD"), "NVAE (mini)")


def test_step_sizes_and_temperatures_are_compared_at_the_systems_own_number_of_steps() -> None:
    axis = panel(plots.curves(tradeoff_rows(), "step_sizes"), "FD")
    assert [points(line) for line in lines(axis, "VAEBM (mini)")] == [[(0.5, 12.0), (1.0, 10.0)]]
    axis = panel(plots.curves(tradeoff_rows(), "temperatures"), "FD")
    assert [points(line) for line in lines(axis, "VAEBM (mini)")] == [[(0.7, 18.0), (1.0, 10.0)]]
    assert not lines(axis, "NVAE (mini)")  # which has one temperature here
    unknown = [row for row in tradeoff_rows() if row.variant != "steps=4"]  # then at the most steps
    axis = panel(plots.curves(unknown, "step_sizes"), "FD")
    assert [points(line) for line in lines(axis, "VAEBM (mini)")] == [[(0.5, 9.0), (1.0, 15.0)]]


def test_every_metric_has_a_panel_and_data_a_level() -> None:
    figure = plots.curves(tradeoff_rows(), "steps")
    names = ["FD", "KD", "Score gap", "E gap", "P(test > sample)", "P(sample > outer)"]
    assert [axis.get_ylabel().partition(" (lower")[0] for axis in figure.axes] == names
    level = lambda name: {
        float(line.get_ydata()[0]) for line in panel(figure, name).get_lines() if line.get_color() == "0.6"
    }
    assert level("P(test > sample)") == {0.5}
    assert level("E gap") == {0.0}
    dotted = [line for line in panel(figure, "P(sample > outer)").get_lines() if line.get_linestyle() == ":"]
    assert 0.73 in {float(line.get_ydata()[0]) for line in dotted if len(line.get_xdata()) == 2}


def test_systems_of_one_colour_have_markers_of_their_own() -> None:
    rows = [replace(row, system=f"s{i}") for i in range(14) for row in tradeoff_rows() if row.system == "nvae"]
    axis = plots.pareto([row for row in rows if row.metric == "fd_cifar10net"]).axes[0]
    looks = {(line.get_color(), line.get_marker()) for line in axis.get_lines() if line.get_label().startswith("s")}
    assert len(looks) == 14


def test_a_strip_has_a_row_per_chain_and_its_steps_above() -> None:
    images, steps = STRIPS["vaebm"]
    figure = plots.strip(images, steps, "VAEBM")
    (axis,) = figure.axes
    shown = np.asarray(axis.get_images()[0].get_array())
    np.testing.assert_array_equal(shown[plots.HEADER :], tile(images.reshape(24, 32, 32, 3), 3))
    assert (shown[: plots.HEADER] == 255).all()
    assert [text.get_text() for text in axis.texts] == ["0", "4", "8"]
    third = shown.shape[1] / 3
    assert [int(text.get_position()[0] // third) for text in axis.texts] == [0, 1, 2]
    assert figure.texts[0].get_text() == "VAEBM"
    assert not plots.strip(images[:0], steps, "VAEBM").axes


def test_a_long_strip_keeps_its_first_and_last_rung() -> None:
    wide = np.zeros((2, 30, 64, 64, 3), np.uint8)
    texts = [text.get_text() for text in plots.strip(wide, tuple(range(30)), "x").axes[0].texts]
    assert (texts[0], texts[-1]) == ("0", "29")
    assert 2 <= len(texts) < 30


def test_files_are_written_and_those_of_earlier_runs_removed(tmp_path: Path) -> None:
    (tmp_path / "tradeoff_strip_gone.png").write_bytes(b"old")
    strips = {"vaebm": STRIPS["vaebm"], "a/../b": STRIPS["vaebm"], "a-..-b": STRIPS["vaebm"]}
    rows = [row for row in tradeoff_rows() if row.metric == "fd_cifar10net"]
    result = SimpleNamespace(rows=rows, strips=strips)
    written = write_plots("tradeoff", result, tmp_path)
    names = {
        "pareto",
        "steps",
        "step_sizes",
        "temperatures",
        "seconds",
        "strip_vaebm",
        "strip_a-..-b",
        "strip_a-..-b-2",
    }
    assert {path.name for path in written} == {f"tradeoff_{name}.png" for name in names}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    still = SimpleNamespace(rows=[row for row in rows if row.system == "nvae"], strips={})
    left = write_plots("tradeoff", still, tmp_path, pdf=True)
    assert {path.name for path in left} == {
        f"tradeoff_{name}.{end}" for name in ("pareto", "seconds") for end in ("png", "pdf")
    }
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in left}


def test_nothing_measured_draws_nothing_and_a_bad_folder_is_one_line(tmp_path: Path) -> None:
    assert write_plots("tradeoff", SimpleNamespace(rows=[], strips={}), tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_plots("tradeoff", SimpleNamespace(rows=[], strips=STRIPS), tmp_path / "file")
