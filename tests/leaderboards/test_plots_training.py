"""Training curves show what a run logged, whatever became of the run."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from leaderboards.plots.training import LEAST, WINDOW, read_curves, running_median, training_curves, write_curves
from vaebm.errors import UserError


def log(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(text, newline="")
    return folder


def noisy(folder: Path, updates: int = 40, seed: int = 0, name: str = "loss") -> Path:
    rng = np.random.default_rng(seed)
    lines = [f"{10 * (i + 1)},{np.exp(-i / 8) + 0.01 * rng.normal()},{rng.normal()}" for i in range(updates)]
    return log(folder, "\r\n".join([f"step,{name},gap", *lines, ""]))


class Countdown:
    """A task of the training loop that only counts."""

    batch_size = 1
    rate_scale = 1.0

    def state(self) -> dict[str, object]:
        return {}

    def step(self, step: int) -> dict[str, float]:
        return {"loss": 1.0 / step, "norm": float(step)}

    def preview(self) -> np.ndarray:
        return np.zeros((1, 4, 4, 3), np.uint8)


def test_the_log_of_the_training_loop_is_read(tmp_path: Path) -> None:
    from vaebm.training.loop import Schedule, fit

    fit(Countdown(), tmp_path / "run", Schedule(30, preview_every=0), seed=0, progress=False)
    curves = read_curves(tmp_path / "run")
    assert list(curves) == ["step", "loss", "norm"]
    np.testing.assert_array_equal(curves["step"], [10, 20, 30])
    np.testing.assert_array_equal(curves["loss"], 1 / curves["step"])


@pytest.mark.parametrize("tail", ["30,0.", "30,0.5", "30", "3"])
def test_a_last_line_that_was_cut_off_is_left_out(tail: str, tmp_path: Path) -> None:
    curves = read_curves(log(tmp_path / "run", "step,loss\r\n10,1\r\n20,0.5\r\n" + tail))
    np.testing.assert_array_equal(curves["step"], [10, 20])
    np.testing.assert_array_equal(curves["loss"], [1, 0.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no logged update"),
        ("step,lo", "holds no logged update"),
        ("step,loss\r\n", "holds no logged update"),
        ("step,loss\r\n10,0.5", "holds no logged update"),
        ("epoch,loss\n1,2\n", "has columns epoch, loss; needed step"),
        ("step\n1\n", "has columns step; needed step and quantities"),
        ("step,loss\n10,1\n20,x\n30,1\n", r"line 3: found '20,x', needed 2 numbers"),
        ("step,loss\n10,1,1\n", r"line 2: found '10,1,1', needed 2 numbers"),
        ("step,loss\n10,1\n20\n30,1\n", r"line 3: found '20', needed 2 numbers"),
    ],
)
def test_a_log_that_cannot_be_drawn_is_told_why(content: str, message: str, tmp_path: Path) -> None:
    folder = log(tmp_path / "run", content)
    with pytest.raises(UserError, match=message) as caught:
        write_curves([folder], tmp_path / "out")
    assert str(caught.value).startswith(f"--curves {folder}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_log_is_told_what_was_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.csv cannot be read .* needed the folder of a training run"):
        write_curves([noisy(tmp_path / "good"), tmp_path], tmp_path / "out")
    (log(tmp_path / "bytes", "") / "log.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="it is no text"):
        write_curves([tmp_path / "bytes"], tmp_path / "out")
    with pytest.raises(UserError, match="--out"):
        write_curves([tmp_path / "good"], tmp_path / "good" / "log.csv")


def test_a_panel_per_quantity_and_a_line_per_run_with_its_median(tmp_path: Path) -> None:
    runs = {"a": read_curves(noisy(tmp_path / "a")), "b": read_curves(noisy(tmp_path / "b", 20, 1, "elbo"))}
    figure = training_curves(runs)
    assert [axis.get_title() for axis in figure.axes] == ["loss", "gap", "elbo"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 4, 2]
    assert {axis.get_xlabel() for axis in figure.axes} == {"update"}
    raw, median = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_xdata(), runs["a"]["step"])
    np.testing.assert_array_equal(raw.get_ydata(), runs["a"]["loss"])
    np.testing.assert_array_equal(median.get_ydata(), running_median(runs["a"]["loss"]))
    assert raw.get_alpha() < 0.5
    assert raw.get_color() == median.get_color()
    assert figure.axes[1].lines[2].get_color() != median.get_color()
    assert figure.axes[2].lines[1].get_color() == figure.axes[1].lines[3].get_color()  # a run has one colour
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert figure.legends[0].get_title().get_text() == "running median; faint: as logged"


def test_a_positive_quantity_over_decades_has_a_logarithmic_axis() -> None:
    step = np.arange(1.0, 5)
    values = {
        "wide": [1, 10, 1e3, 1e5],
        "narrow": [1, 2, 3, 50],
        "signed": [-1, 1e3, 1e4, 1e6],
        "zero": [0, 1, 10, 1e4],
    }
    figure = training_curves({"a": {"step": step, **{name: np.array(v, float) for name, v in values.items()}}})
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear", "linear", "linear"]


def test_one_update_is_a_point_and_what_is_not_finite_a_gap() -> None:
    point = {"step": np.array([10.0]), "loss": np.array([2.0])}
    broken = {"step": np.arange(4.0), "loss": np.array([1.0, np.nan, np.inf, np.nan])}
    axis = training_curves(
        {"point": point, "broken": broken, "empty": {"step": np.zeros(1), "loss": np.full(1, np.nan)}}
    ).axes[0]
    assert axis.lines[1].get_marker() == "o"
    assert axis.lines[3].get_marker() == ""
    assert axis.get_yscale() == "linear"


@given(arrays.arrays(float, st.integers(1, 150), elements=st.floats(-1e6, 1e6)))
def test_the_median_is_numpys_over_each_window(values: np.ndarray) -> None:
    half = (max(LEAST, len(values) // WINDOW) | 1) // 2
    expected = [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(running_median(values), expected, rtol=1e-9, atol=1e-9)


def test_files_are_the_same_each_time_and_runs_keep_their_names_apart(tmp_path: Path) -> None:
    folders = [noisy(tmp_path / "x" / "run"), noisy(tmp_path / "y" / "run", seed=1)]
    made = write_curves(folders, tmp_path / "a", pdf=True)
    assert [path.name for path in made] == ["training_curves.png", "training_curves.pdf"]
    assert made[0].read_bytes().startswith(b"\x89PNG")
    assert made[1].read_bytes().startswith(b"%PDF")
    again = write_curves(folders, tmp_path / "b", pdf=True)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in made]
    assert [path.name for path in write_curves(folders[:1] * 2, tmp_path / "c")] == ["training_curves.png"]
    other = write_curves(folders[:1], tmp_path / "d")[0].read_bytes()
    assert (tmp_path / "c" / "training_curves.png").read_bytes() == other  # the same run twice is one line
    assert made[0].read_bytes() != other
