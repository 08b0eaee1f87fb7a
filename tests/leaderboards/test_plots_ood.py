"""OOD plots have the right panels, lines and labels, and make whole files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evaluators.measurement import Measurement
from leaderboards import write_plots
from leaderboards.plots import ood as plots
from vaebm.errors import UserError


@pytest.fixture
def scores() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)

    def sets(shift: float) -> dict[str, np.ndarray]:
        means = {"cifar10": 0.0, "svhn": shift, "cifar100": 0.1 * shift, "my_textures": -shift}
        return {name: rng.normal(mean, 1, 200) for name, mean in means.items()}

    return {"vaebm": sets(-1.0), "my_density": sets(2.0)}


def legend(axes: object) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[attr-defined]


def test_histograms_have_a_panel_per_system_and_a_name_per_set(scores: dict[str, dict[str, np.ndarray]]) -> None:
    figure = plots.score_histograms(scores)
    assert [axis.get_title() for axis in figure.axes] == ["VAEBM", "my_density"]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["CIFAR-10 (in)", "SVHN", "CIFAR-100", "my_textures"]
    coarse = plots.score_histograms(scores, bins=5)
    assert len(coarse.axes[0].patches) < len(figure.axes[0].patches)


def test_histograms_survive_constant_and_enormous_scores() -> None:
    for made in (np.zeros(50), np.r_[np.linspace(-1, 1, 400), 1e30]):
        figure = plots.score_histograms({"a": {"cifar10": made, "svhn": made}})
        low, high = figure.axes[0].get_xlim()
        assert high - low < 10


def test_roc_has_a_panel_per_set_and_the_auroc_of_mid_ranks(scores: dict[str, dict[str, np.ndarray]]) -> None:
    del scores["my_density"]["cifar100"]
    figure = plots.roc_curves(scores)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"CIFAR-10 against {name}" for name in ("SVHN", "CIFAR-100", "my_textures")]
    inside, outside = scores["vaebm"]["cifar10"], scores["vaebm"]["svhn"]
    auroc = np.mean(inside[:, None] > outside) + 0.5 * np.mean(inside[:, None] == outside)
    assert legend(figure.axes[0])[:2] == ["chance 0.50", f"VAEBM {auroc:.2f}"]
    assert [len(axis.lines) for axis in figure.axes] == [3, 2, 3]


def test_roc_with_ties_is_the_auroc_of_mid_ranks() -> None:
    rng = np.random.default_rng(1)
    inside, outside = rng.integers(0, 5, 300).astype(float), rng.integers(0, 4, 200).astype(float)
    false, true = plots.roc(inside, outside)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    auroc = np.mean(inside[:, None] > outside) + 0.5 * np.mean(inside[:, None] == outside)
    assert area == pytest.approx(auroc, abs=1e-12)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_another_in_distribution_set_can_be_asked_for(scores: dict[str, dict[str, np.ndarray]]) -> None:
    figure = plots.roc_curves(scores, in_distribution="svhn")
    assert figure.axes[0].get_title() == "SVHN against CIFAR-10"
    assert plots.score_histograms(scores, in_distribution="mnist").axes == []


def test_coefficient_curve_has_a_line_per_set_with_values(rows: list[Measurement]) -> None:
    figure = plots.coefficient_curves(rows)
    assert [axis.get_title() for axis in figure.axes] == ["VAEBM (mini)"]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["SVHN", "Interp.", "CIFAR-100", "Mean", "my_textures"]
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == [0, 0.1, 0.3, 1, 3, 10]
    assert y[3] == pytest.approx(0.7213 + 0.01)


def result_of(scores: dict[str, dict[str, np.ndarray]], rows: list[Measurement]) -> SimpleNamespace:
    terms = {
        system: {name: {"score": made, "log_p": made} for name, made in sets.items()} for system, sets in scores.items()
    }
    return SimpleNamespace(scores=terms, rows=rows, in_dist="cifar10")


def test_files_are_pngs_the_same_each_time_and_pdfs_on_request(
    scores: dict[str, dict[str, np.ndarray]], rows: list[Measurement], tmp_path: Path
) -> None:
    paths = write_plots("ood", result_of(scores, rows), tmp_path / "a")
    assert [path.name for path in paths] == ["ood_histograms.png", "ood_roc.png", "ood_coefficient.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000 for path in paths)
    again = write_plots("ood", result_of(scores, rows), tmp_path / "b", pdf=True)
    assert [p.read_bytes() for p in again if p.suffix == ".png"] == [p.read_bytes() for p in paths]
    assert sum(path.read_bytes().startswith(b"%PDF") for path in again) == 3
    third = write_plots("ood", result_of(scores, rows), tmp_path / "c", pdf=True)
    assert [path.read_bytes() for path in third] == [path.read_bytes() for path in again]
    assert not list(tmp_path.rglob("*.partial"))


def test_without_scores_and_coefficients_nothing_is_written(tmp_path: Path) -> None:
    assert write_plots("ood", result_of({}, []), tmp_path / "c") == []
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_written_is_named(scores: dict[str, dict[str, np.ndarray]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_plots("ood", result_of(scores, []), tmp_path / "file")


@pytest.mark.parametrize("name", ["system {}", "a system with a long name, number {}"])
def test_the_panels_of_many_systems_overlap_neither_each_other_nor_the_edge(name: str) -> None:
    rng = np.random.default_rng(0)
    sets = ("cifar10", "svhn", "cifar10_interp", "cifar100", "celeba")
    made = {name.format(i): {each: rng.normal(size=20) for each in sets} for i in range(9)}
    figure = plots.roc_curves(made)
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    for i, box in enumerate(boxes):
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:i])
    for axis in figure.axes:
        box = axis.get_window_extent()
        assert 0.85 < box.width / box.height < 1.15  # nearly square


def test_long_numbers_below_histograms_keep_apart() -> None:
    spans = {"a": (-11000, -3800), "b": (-130000, -21000), "c": (0.0011, 0.0018)}
    made = {name: {"cifar10": np.linspace(*ends, 300), "svhn": np.linspace(*ends, 200)} for name, ends in spans.items()}
    figure = plots.score_histograms(made)
    figure.draw_without_rendering()
    for axis in figure.axes:
        labels = [text.get_window_extent() for text in axis.get_xticklabels() if text.get_text()]
        inside = [box for box in labels if axis.bbox.x0 <= (box.x0 + box.x1) / 2 <= axis.bbox.x1]
        assert len(inside) > 2
        assert not any(a.overlaps(b) for i, a in enumerate(inside) for b in inside[:i])


def test_every_set_of_a_histogram_holds_all_its_scores(scores: dict[str, dict[str, np.ndarray]]) -> None:
    axis = plots.score_histograms(scores, bins=20).axes[0]
    filled = axis.patches[:20]
    width = filled[0].get_width()
    assert sum(patch.get_height() * width for patch in filled) == pytest.approx(1)
    assert len(axis.patches) == 20 + 3  # an outline per set


def test_coefficient_curves_have_the_95_percent_band(rows: list[Measurement]) -> None:
    axis = plots.coefficient_curves(rows).axes[0]
    assert len(axis.lines) == 5 + 2  # sets, chance, c = 1
    band = axis.collections[0].get_paths()[0].vertices
    (y,) = {line.get_ydata()[3] for line in axis.lines[:1]}
    at_one = band[np.isclose(band[:, 0], 1.0), 1]
    assert (at_one.min(), at_one.max()) == pytest.approx((y - 0.0152, y + 0.0152))
