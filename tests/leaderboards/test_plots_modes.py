"""Histograms of counts against an even sampler; densities in one colour scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom
from synthetic import ModesResult, modes_result

from evaluators.measurement import Measurement
from leaderboards import write_plots
from leaderboards.plots import modes as plots


def test_the_histogram_counts_every_mode_and_the_expectation_is_binomial() -> None:
    found = modes_result().counts
    figure = plots.count_histograms(found)
    titles = [
        f"{name}: {np.count_nonzero(found[key])} of 1,000 modes" for key, name in (("nvae", "NVAE"), ("mine", "mine"))
    ]
    assert [axis.get_title() for axis in figure.axes] == ["VAEBM: 1,000 of 1,000 modes", *titles]
    for axis in figure.axes:
        assert sum(patch.get_height() for patch in axis.patches[:-2]) == 1000
        band, expected = axis.patches[-2], axis.patches[-1]
        values, edges, _ = expected.get_data()
        assert values.sum() == pytest.approx(1000)
        mass = binom(26000, 0.001).cdf(edges[1]) - binom(26000, 0.001).cdf(edges[0])
        assert values[0] == pytest.approx(1000 * mass)
        top, _, low = band.get_data()
        assert (low <= values).all()
        assert (values <= top + 1).all()


def test_an_even_sampler_stays_in_the_band_and_an_uneven_one_does_not() -> None:
    rng = np.random.default_rng(1)
    even = np.bincount(rng.integers(0, 1000, 26000), minlength=1000)
    uneven = rng.multinomial(26000, rng.dirichlet(np.full(1000, 4.0)))
    shares = []
    for axis in plots.count_histograms({"even": even, "uneven": uneven}).axes:
        top, _, low = axis.patches[-2].get_data()
        heights = np.array([patch.get_height() for patch in axis.patches[:-2]])
        shares.append(np.mean((low <= heights) & (heights <= top)))
    assert shares[0] > 0.85
    assert shares[1] < 0.6


def test_few_samples_and_no_samples() -> None:
    figure = plots.count_histograms({"few": np.eye(1, 1000, dtype=int)[0] * 3, "none": np.zeros(1000, int)})
    assert [axis.get_title() for axis in figure.axes] == ["few: 1 of 1,000 modes"]


def test_densities_share_one_scale_that_ends_at_the_true_density() -> None:
    densities = modes_result().densities
    figure = plots.density_maps(densities)
    maps = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in maps] == ["true density", "NVAE", "VAEBM"]
    assert {axis.images[0].norm.vmax for axis in maps} == {densities["true density"].density.max()}
    half = 10 / 300 / 2  # 301 pixels, the centres of the outermost at -5 and 5
    for axis in maps:
        assert axis.images[0].get_extent() == pytest.approx([-5 - half, 5 + half, -5 - half, 5 + half])
    assert {axis.images[0].origin for axis in maps} == {"lower"}
    np.testing.assert_array_equal(maps[1].images[0].get_array(), densities["nvae"].density)
    points = [axis for axis in figure.axes if axis.lines]
    np.testing.assert_array_equal(points[0].lines[0].get_xdata(), densities["true density"].points[:, 0])
    figure.draw_without_rendering()
    for upper, lower in zip(maps, points, strict=True):
        assert upper.get_position().x0 == pytest.approx(lower.get_position().x0, abs=0.01)


def test_without_a_true_density_the_largest_value_ends_the_scale() -> None:
    densities = {name: item for name, item in modes_result().densities.items() if name != "true density"}
    densities["empty"] = replace(densities["nvae"], points=np.zeros((0, 2)))
    figure = plots.density_maps(densities)
    assert figure.axes[0].images[0].norm.vmax == densities["vaebm"].density.max()
    assert any(axis.get_xlabel() == "0 samples" for axis in figure.axes)


def test_files_have_something_on_them_and_are_the_same_each_time(tmp_path: Path) -> None:
    paths = write_plots("modes", modes_result(), tmp_path / "a", pdf=True)
    assert sorted(path.name for path in paths if path.suffix == ".png") == [
        *("modes_counts.png", "modes_densities.png", "modes_samples.png")
    ]
    for path in paths:
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("L"))
            assert len(np.unique(pixels)) > 30
    again = write_plots("modes", modes_result(), tmp_path / "b", pdf=True)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    assert write_plots("modes", ModesResult(), tmp_path / "none") == []


def test_curves_over_steps_and_seconds_are_drawn_where_they_were_measured(tmp_path: Path) -> None:
    told = [{"steps": k, "seconds_per_image": 0.1 * k} for k in (2, 4)]
    about = {"role": "diagnostic", "size": "mini", "seed": 0}
    rows = [
        Measurement(
            "modes", "vaebm", "stacked_mnist", "kl", 1.0, 0.9, 1.1, variant=f"steps={p['steps']}", protocol=p, **about
        )
        for p in told
    ]
    made = write_plots("modes", ModesResult(rows), tmp_path)
    assert [path.name for path in made] == ["modes_steps.png", "modes_costs.png"]
