"""The plot of a history has every headline number with its bar, where and when it was measured."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from leaderboards.history import compared
from leaderboards.history_store import Entry
from leaderboards.plots.history import history_curves, places, write
from vaebm.errors import UserError

BASE = Entry(
    *(1, "2026-01-01T08:00:00Z", "abc", "ood", "vaebm", "svhn", "cifar10", "auroc", "", "headline", "mini", 0, 4000),
    *(0.7, 0.68, 0.72, "", {"interval": "DeLong"}),
)


def runs(count: int = 4, *, apart: str = "hours", **more: object) -> list[Entry]:
    when = lambda i: f"2026-01-{1 + i:02d}T08:00:00Z" if apart == "days" else f"2026-01-01T{8 + i:02d}:00:00Z"
    made = [replace(BASE, run=i + 1, created=when(i), value=0.7 + 0.01 * i, low=0.68 + 0.01 * i) for i in range(count)]
    return [replace(entry, high=entry.value + 0.03, **more) for entry in made]


def bars(axis: object) -> list[tuple[float, float, float]]:
    """(x, low, high) of every bar."""
    return [(*s[0], s[1][1]) for lines in axis.collections for s in lines.get_segments() if len(s)]  # type: ignore[attr-defined]


def test_every_value_is_a_point_with_its_interval_as_a_bar() -> None:
    figure = history_curves(compared(runs()))
    (axis,) = figure.axes
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_ydata(), [0.7, 0.71, 0.72, 0.73])
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    np.testing.assert_allclose(bars(axis), [(i + 1, 0.68 + 0.01 * i, 0.73 + 0.01 * i) for i in range(4)])
    assert axis.get_title() == "SVHN (in: CIFAR-10)"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("run", "AUROC (higher is better)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VAEBM (mini)"]
    assert figure.legends[0].get_title().get_text() == "bars: 95 %"
    assert list(axis.get_xticks()) == [1, 2, 3, 4]


def test_a_change_of_protocol_breaks_the_line_at_a_vertical_one() -> None:
    entries = runs(5)
    entries[3:] = [replace(entry, protocol={"interval": "bootstrap"}) for entry in entries[3:]]
    figure = history_curves(compared(entries))
    old, new, between = sorted(
        figure.axes[0].lines, key=lambda line: (line.get_linestyle() == ":", min(line.get_xdata()))
    )
    assert (list(old.get_xdata()), list(new.get_xdata())) == ([1, 2, 3], [4, 5])
    assert list(between.get_xdata()) == [3.5, 3.5]
    assert between.get_linewidth() < 1
    assert old.get_color() == new.get_color()
    assert len(figure.legends[0].get_texts()) == 1
    assert figure.legends[0].get_title().get_text() == "bars: 95 %; dotted: the protocol changes"


def test_a_set_has_a_panel_and_a_size_a_line() -> None:
    entries = [*runs(2), *runs(2, dataset="celeba"), *runs(2, size="small"), *runs(2, in_distribution="mnist")]
    figure = history_curves(compared(entries))
    assert [axis.get_title() for axis in figure.axes] == [
        *("SVHN (in: CIFAR-10)", "CelebA (in: CIFAR-10)", "SVHN (in: MNIST)")
    ]
    assert [len(axis.lines) for axis in figure.axes] == [2, 1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VAEBM (mini)", "VAEBM (small)"]
    one, two = figure.axes[0].lines
    assert one.get_color() != two.get_color()
    assert one.get_linestyle() != two.get_linestyle()
    plain = history_curves(compared(runs(1, dataset="cifar10", in_distribution="", metric="fd_cifar10net")))
    assert plain.axes[0].get_title() == "CIFAR-10, cifar10net features"
    assert plain.axes[0].get_ylabel() == "FD (lower is better)"


def test_diagnostics_are_drawn_only_where_there_is_no_headline() -> None:
    parts = runs(2, role="diagnostic", variant="log_p")
    assert len(history_curves(compared([*runs(2), *parts])).axes[0].lines) == 1
    figure = history_curves(compared(parts))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VAEBM: log p(x) (mini)"]


def test_dates_are_drawn_where_runs_span_more_than_a_day() -> None:
    figure = history_curves(compared(runs(4, apart="days")))
    assert list(figure.axes[0].lines[0].get_xdata(orig=True)) == [
        datetime(2026, 1, 1 + i, 8, tzinfo=UTC) for i in range(4)
    ]
    assert figure.axes[0].get_xlabel() == "date of the run, UTC"
    changed = [runs(4, apart="days")[i] for i in (0, 3)]
    changed[1] = replace(changed[1], protocol={})
    between = history_curves(compared(changed)).axes[0].lines[-1]
    assert between.get_xdata(orig=True)[0] == datetime(2026, 1, 2, 20, tzinfo=UTC)  # halfway


def test_places_number_runs_by_time_and_need_more_than_a_day_for_dates() -> None:
    day = runs(2, apart="days")  # a day, not more
    assert places(day) == {1: 1, 2: 2}
    assert places([replace(day[0], run=9), replace(day[1], run=3)]) == {9: 1, 3: 2}
    assert set(places(runs(3, apart="days"))) == {1, 2, 3}
    assert places(runs(3, apart="days"))[3] == datetime(2026, 1, 3, 8, tzinfo=UTC)
    assert places([replace(entry, created="") for entry in runs(2)]) == {1: 1, 2: 2}
    assert places([*runs(3, apart="days"), replace(BASE, run=4, created="")]) == {4: 1, 1: 2, 2: 3, 3: 4}


def test_a_run_that_lacks_a_set_has_no_point_there_and_keeps_its_place() -> None:
    entries = [*runs(4), *(entry for entry in runs(4, dataset="celeba") if entry.run != 2)]
    svhn, celeba = history_curves(compared(entries)).axes
    assert list(svhn.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(celeba.lines[0].get_xdata()) == [1, 3, 4]
    assert svhn.get_xlim() == celeba.get_xlim() == (0.5, 4.5)


def test_a_value_without_an_interval_is_a_point_without_a_bar() -> None:
    figure = history_curves(compared(runs(3, low=None)))
    assert len(figure.axes[0].lines[0].get_xdata()) == 3
    assert bars(figure.axes[0]) == []


def test_files_are_named_after_system_and_metric_and_the_same_each_time(tmp_path: Path) -> None:
    lines = compared([*runs(3), *runs(3, metric="a/b")])
    made = write(lines, tmp_path / "a", pdf=True)
    names = ["history_vaebm_auroc", "history_vaebm_a_b"]
    assert [path.name for path in made] == [f"{name}.{ending}" for name in names for ending in ("png", "pdf")]
    again = write(lines, tmp_path / "b", pdf=True)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in made]
    assert write([], tmp_path / "c") == []
    with pytest.raises(UserError, match="--out"):
        write(lines, made[0])
