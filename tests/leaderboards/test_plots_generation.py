"""Sample sheets show the very pixels; curves have their points, band and floors."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import STEPS, GenerationResult, generation_result, generation_rows, pictures, row

from evaluators.measurement import Measurement
from leaderboards import write_plots
from leaderboards.plots import generation as plots
from leaderboards.plots.style import GAP, HEAD, MARGIN, SHEET, fitting, image_sheets, tile
from vaebm.errors import UserError


def drawn(figure: object) -> np.ndarray:
    out = io.BytesIO()
    figure.savefig(out, format="png")  # type: ignore[attr-defined]
    return np.asarray(Image.open(out).convert("RGB"))


def test_a_sheet_magnifies_whole_pixels_in_reading_order() -> None:
    images = pictures(6, 32)
    sheet = tile(images, 3)
    factor = (SHEET // 3 - GAP) // 32
    side = 32 * factor
    assert factor > 1
    assert sheet.shape == (2 * side + GAP, 3 * side + 2 * GAP, 3)
    for i, image in enumerate(images):
        top, left = (i // 3) * (side + GAP), (i % 3) * (side + GAP)
        inside = sheet[top : top + side, left : left + side]
        np.testing.assert_array_equal(inside[::factor, ::factor], image)
        np.testing.assert_array_equal(inside[factor - 1 :: factor, factor - 1 :: factor], image)
    assert (sheet[side] == 255).all()


def test_one_channel_is_grey_and_large_images_keep_their_size() -> None:
    grey = pictures(2, 28)[..., :1]
    sheet = tile(grey, 2)
    assert (sheet[..., 0] == sheet[..., 2]).all()
    assert tile(pictures(4, 300), 2).shape == (600 + GAP, 600 + GAP, 3)
    assert [fitting(width) for width in (1, 28, 64, 256, 1024)] == [8, 8, 8, 2, 2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_sheets_reach_the_file_pixel_for_pixel(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sheets = [(f"s{i}", rng.integers(0, 256, (*size, 3), np.uint8)) for i, size in enumerate(sizes)]
    image = drawn(image_sheets(sheets, ""))
    wide, left, top = max(width for _, width in sizes) + MARGIN, MARGIN, HEAD
    across = 2 if len(sizes) == 4 else min(3, len(sizes))
    for i, (_, sheet) in enumerate(sheets):
        if i and i % across == 0:
            top += max(height for height, _ in sizes[i - across : i]) + HEAD
        left = MARGIN + (i % across) * wide
        np.testing.assert_array_equal(image[top : top + sheet.shape[0], left : left + sheet.shape[1]], sheet)


def test_samples_are_the_first_ones_with_a_label_each() -> None:
    result = generation_result()
    figure = plots.sample_grids(result.samples)
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["VAEBM", "NVAE", "mine", "The first samples of each system: none is selected."]
    image = drawn(figure)
    sheet = tile(result.samples["vaebm"][:64], 8)
    np.testing.assert_array_equal(image[HEAD : HEAD + sheet.shape[0], MARGIN : MARGIN + sheet.shape[1]], sheet)
    assert (image[:HEAD, MARGIN:80] < 128).any()  # the label


def test_systems_of_one_printed_name_are_both_shown() -> None:
    figure = plots.sample_grids({"vaebm": pictures(4, 32), "VAEBM": pictures(4, 32)})
    assert len(figure.axes) == 2


def test_a_sample_stands_left_of_its_neighbours_across_a_gap() -> None:
    samples = pictures(3, 32)
    near = np.stack([samples // 2, samples // 4], axis=1)
    sheet = plots.neighbour_grids({"mine": (samples, near)}).axes[0].images[0].get_array()
    factor = (SHEET // 3 - GAP) // 32
    side = 32 * factor
    np.testing.assert_array_equal(sheet[:side:factor, :side:factor], samples[0])
    assert (sheet[:, side : side + GAP + plots.APART] == 255).all()
    first = side + GAP + plots.APART
    np.testing.assert_array_equal(sheet[:side:factor, first : first + side : factor], samples[0] // 2)
    np.testing.assert_array_equal(sheet[:side:factor, first + side + GAP :: factor], samples[0] // 4)
    many = plots.neighbour_grids({"mine": (pictures(20, 256), np.zeros((20, 9, 256, 256, 3), np.uint8))})
    assert many.axes[0].images[0].get_array().shape[0] == 4 * (256 + GAP) - GAP


def test_curves_have_a_panel_per_metric_with_band_and_floors() -> None:
    figure = plots.step_curves(generation_rows())
    assert [axis.get_ylabel() for axis in figure.axes] == ["IS (higher is better)", "FD (lower is better)"]
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]
    axis = figure.axes[1]
    curve, *floors = axis.lines
    assert list(curve.get_xdata()) == list(STEPS)
    expected = [r.value for r in generation_rows() if r.metric == "fd_cifar10net" and r.variant]
    assert list(curve.get_ydata()) == expected
    assert [(line.get_ydata()[0], line.get_linestyle(), line.get_label()) for line in floors] == [
        (0.2841, "--", "test images"),
        (0.1502, "--", "reference split"),
    ]
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(min(expected) * 0.97)
    assert band[:, 1].max() == pytest.approx(max(expected) * 1.03)
    low, high = axis.get_ylim()
    assert low < 0.1502 < max(expected) * 1.03 < high
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("VAEBM (mini)", "test images", "reference split")
    ]


def test_an_interval_that_reaches_zero_does_not_stretch_the_axis() -> None:
    rows = [
        row("vaebm", "fd_x", value, role="diagnostic", variant=f"steps={i}", low=-0.1, high=2 * value)
        for i, value in enumerate((0.9, 0.5))
    ]
    low, high = plots.step_curves(rows).axes[0].get_ylim()
    assert 0.2 < low < 0.5
    assert high > 1.8
    negative = [replace(r, value=-0.01) if r.variant == "steps=1" else r for r in rows]
    assert plots.step_curves(negative).axes[0].get_yscale() == "linear"


def timed(system: str, metric: str, value: float, seconds: float, **more: object) -> Measurement:
    about = {"provenance": {"fingerprint": {"device": "cuda"}}} | more
    return row(system, metric, value, protocol={"seconds_per_image": seconds}, **about)


def bars(axis: object) -> list[tuple[float, float, float]]:
    """(x, low, high) of every bar."""
    return [(*s[0], s[1][1]) for lines in axis.collections for s in lines.get_segments() if len(s)]  # type: ignore[attr-defined]


def test_costs_have_a_curve_with_bars_and_steps_and_a_point_for_other_systems() -> None:
    rows = [timed("vaebm", "fid", 40 - k, 0.1 * k, role="diagnostic", variant=f"steps={k}") for k in (8, 2, 0, 4)]
    rows += [timed("vaebm", "fid", 33.0, 0.5), timed("glow", "fid", 60.0, 0.02), row("mine", "fid", 9.0)]
    rows += [timed("glow", "authenticity", 0.7, 0.02), row("test images", "fid", 3.0, role="control")]
    rows += [timed("glow", "fid", 61.0, 0.03, role="diagnostic", variant="another")]
    (axis,) = plots.cost_curves(rows).axes  # authenticity is no quality
    curve, point, floor = axis.lines
    np.testing.assert_allclose(curve.get_xdata(), [0.2, 0.4, 0.8])  # no steps, no time: no place on the axis
    np.testing.assert_allclose(curve.get_ydata(), [38, 36, 32])  # the headline number is one of these
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([0.02], [60.0])
    assert (point.get_linestyle(), point.get_marker() != curve.get_marker()) == (
        "None",
        True,
    )  # told apart without colour
    assert (floor.get_ydata()[0], floor.get_linestyle(), floor.get_label()) == (3.0, "--", "test images")
    expected = [(x, y * 0.97, y * 1.03) for x, y in ((0.2, 38), (0.4, 36), (0.8, 32), (0.02, 60))]
    np.testing.assert_allclose(bars(axis), expected)
    assert [(text.get_text(), text.xy[0]) for text in axis.texts] == [("2", 0.2), ("4", 0.4), ("8", 0.8)]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("seconds per image", "FID (lower is better)")
    assert axis.get_xlim()[0] < 0.02 < 0.8 < axis.get_xlim()[1]
    legend = axis.figure.legends[0]
    shown = ["VAEBM (mini) on cuda", "Glow on cuda", "test images"]
    assert [text.get_text() for text in legend.get_texts()] == shown
    assert legend.get_title().get_text() == "numbers at points: Langevin steps"


def test_without_seconds_there_is_no_plot_of_costs() -> None:
    assert plots.cost_curves([r for r in generation_rows() if not r.variant]).axes == []
    assert plots.cost_curves([timed("glow", "fid", 60.0, 0.0)]).axes == []
    alone = plots.cost_curves([timed("glow", "fid", 60.0, 0.02, provenance={})])
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["Glow"]
    assert alone.legends[0].get_title().get_text() == ""


def test_costs_of_each_seed_and_metric_are_apart_and_close_points_share_labels() -> None:
    rows = [
        timed("vaebm", metric, 5.0 + k, 0.1 + 0.01 * k, role="diagnostic", variant=f"steps={k}", seed=seed)
        for metric in ("kid", "is")
        for seed in (0, 1)
        for k in range(40)
    ]
    figure = plots.cost_curves(rows)
    assert [axis.get_ylabel() for axis in figure.axes] == ["IS (higher is better)", "KID (lower is better)"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    assert all(4 <= len(axis.texts) / 2 <= 10 for axis in figure.axes)
    negative = [replace(r, value=-0.001, low=-0.002) for r in rows if r.metric == "kid"]
    assert plots.cost_curves(negative).axes[0].get_yscale() == "linear"


def test_steps_at_the_axis_keep_apart() -> None:
    steps = (0, 1, 2, 4, 8, 12, 16, 24, 32)
    rows = [row("vaebm", "fid", 5.0, role="diagnostic", variant=f"steps={k}") for k in steps]
    assert list(plots.step_curves(rows).axes[0].get_xticks()) == [0, 1, 2, 4, 8, 16, 32]


def test_every_system_data_set_and_seed_has_its_line() -> None:
    point = lambda name, seed, steps: row(
        name, "fid", 5.0 + steps, role="diagnostic", variant=f"steps={steps}", seed=seed, dataset="celeba64"
    )
    rows = [point(name, seed, k) for name in ("vaebm", "igebm") for seed in (0, 1) for k in (8, 2)]
    rows += [replace(r, dataset="cifar10") for r in rows if r.system == "igebm"]
    figure = plots.step_curves(rows)
    assert [axis.get_title() for axis in figure.axes] == [
        "CelebA 64, Inception features",
        "CIFAR-10, Inception features",
    ]
    assert [len(axis.lines) for axis in figure.axes] == [4, 2]
    assert all(list(line.get_xdata()) == [2, 8] for axis in figure.axes for line in axis.lines)
    one = plots.step_curves([point("vaebm", 0, 0)])
    assert one.axes[0].get_xlim()[0] < 0 < one.axes[0].get_xlim()[1]


def test_files_have_something_on_them_and_are_the_same_each_time(tmp_path: Path) -> None:
    made = write_plots("generation", generation_result(), tmp_path / "a", pdf=True)
    names = [f"generation_{what}" for what in ("samples", "neighbours", "steps", "costs")]
    assert [path.name for path in made] == [f"{name}.{ending}" for name in names for ending in ("png", "pdf")]
    for path in made:
        if path.suffix == ".png":
            assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 30
        else:
            assert path.read_bytes().startswith(b"%PDF")
    again = write_plots("generation", generation_result(), tmp_path / "b", pdf=True)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in made]
    assert [path.suffix for path in write_plots("generation", generation_result(), tmp_path / "c")] == [".png"] * 4


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    rows = [r for r in generation_rows() if not r.variant]
    none = {"mine": (np.zeros((0, 4, 4, 3), np.uint8), np.zeros((0, 5, 4, 4, 3), np.uint8))}
    assert write_plots("generation", GenerationResult(rows, {"mine": none["mine"][0]}, none), tmp_path / "c") == []
    assert write_plots("another", object(), tmp_path / "c") == []
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_plots("generation", generation_result(), tmp_path / "file")
