"""The gate: what it lets through, what it stops, and what it says; by rows of known truth and by scores of real images."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import generation_rows, modes_rows

from evaluators.measurement import Measurement
from evaluators.metrics.image_statistics import IMAGE_STATISTICS
from evaluators.ood import OODSuite
from evaluators.pairing import score_correlations
from evaluators.result_file import Results, write_results
from evaluators.subjects import SystemUnderTest
from leaderboards.gate import check, compare, write_baseline
from leaderboards.gate.comparison import Comparison, Outcome, judgeable
from leaderboards.gate.files import scores_beside
from leaderboards.gate.report import Report, to_json, to_markdown, to_text
from vaebm.data import ImageSet, load_images
from vaebm.errors import UserError

Run = tuple[Path, Results]
SE = 0.01
HALF = 1.959964 * SE


def row(
    value: float | None = 0.75, system: str = "vaebm", dataset: str = "svhn", metric: str = "auroc", **more: Any
) -> Measurement:
    """A row with a standard error of 0.01."""
    ends = (None, None) if value is None else (value - HALF, value + HALF)
    told: dict[str, Any] = {"protocol": {"in_distribution": "cifar10"}, "n": 4000, "seed": 0, "size": "mini"}
    told |= {"note": "no data"} if value is None else {}
    return Measurement("ood", system, dataset, metric, value, *ends, **{**told, **more})


def outcomes(run: list[Measurement], baseline: list[Measurement], **more: Any) -> dict[tuple[str, str, str], str]:
    return {(c.row.system, c.row.dataset, c.row.metric): str(c.outcome) for c in compare(run, baseline, **more)}


def one(run: Measurement, baseline: Measurement, **more: Any) -> Comparison:
    (cell,) = compare([run], [baseline], **more)
    return cell


# --- which cells, and what becomes of them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "bad"), [("auroc", -1), ("aupr", -1), ("fpr95", 1), ("fd_cifar10net", 1), ("recall", -1)]
)
def test_direction_of_every_kind_of_metric(metric: str, bad: int) -> None:
    base = row(0.5, metric=metric)
    assert one(row(0.5 + 0.06 * bad, metric=metric), base).outcome is Outcome.REGRESSED
    assert one(row(0.5 - 0.06 * bad, metric=metric), base).outcome is Outcome.IMPROVED
    assert one(row(0.5 + 0.01 * bad, metric=metric), base).outcome is Outcome.NOISE
    assert one(row(0.5, metric=metric), base).outcome is Outcome.EQUAL


def test_one_cell_fails_beyond_its_tolerance_and_not_before() -> None:
    limit = one(row(), row()).tolerance
    assert limit == pytest.approx(1.6448536 * np.sqrt(2) * SE, rel=1e-6)  # one cell: no correction
    assert one(row(0.75 - limit - 1e-6), row()).outcome is Outcome.REGRESSED
    assert one(row(0.75 - limit + 1e-6), row()).outcome is Outcome.NOISE


@pytest.mark.parametrize(("metric", "sign"), [("auroc", 1), ("fpr95", -1)])
def test_the_sides_of_the_intervals_that_face_each_other_decide(metric: str, sign: int) -> None:
    skewed = lambda value, toward, away: replace(
        row(value, metric=metric),
        **dict(zip(("low", "high"), sorted((value - sign * toward, value + sign * away)), strict=True)),
    )
    base, worse = 0.5, 0.5 - sign * 0.1
    narrow = skewed(base, 0.01, 0.4), skewed(worse, 0.4, 0.01)  # they face each other with their narrow sides
    assert one(narrow[1], narrow[0]).outcome is Outcome.REGRESSED
    wide = skewed(base, 0.4, 0.01), skewed(worse, 0.01, 0.4)
    assert one(wide[1], wide[0]).outcome is Outcome.NOISE


def test_many_cells_make_the_tolerance_wider() -> None:
    names = [f"s{i}" for i in range(52)]
    base = [row(system=name) for name in names]
    alone = one(row(0.71), row())
    assert alone.outcome is Outcome.REGRESSED
    among = compare([row(0.71), *base[1:]], [row(), *base[1:]])[0]
    assert among.outcome is Outcome.NOISE
    assert among.p == alone.p
    assert among.tolerance > alone.tolerance


def test_holm_lowers_the_bar_for_the_second_cell() -> None:
    base = [row(system="a"), row(system="b")]
    p = 0.04  # above 0.05 / 2, below 0.05
    moved = row(0.75 - 1.7507 * np.sqrt(2) * SE, system="b")
    assert one(moved, base[1]).p == pytest.approx(p, abs=1e-4)
    assert compare([base[0], moved], base)[1].outcome is Outcome.NOISE
    assert compare([row(0.5, system="a"), moved], base)[1].outcome is Outcome.REGRESSED


def test_the_lower_is_the_drop_the_less_it_fails() -> None:
    order = [Outcome.EQUAL, Outcome.NOISE, Outcome.REGRESSED]
    found = [order.index(one(row(0.75 - drop), row()).outcome) for drop in np.linspace(0, 0.1, 101)]
    assert found == sorted(found)
    assert {*found} == {0, 1, 2}


def test_equal_numbers_are_equal_whatever_their_intervals() -> None:
    point = replace(row(), low=0.75, high=0.75)
    assert one(point, point).outcome is Outcome.EQUAL
    assert one(row(), point).outcome is Outcome.EQUAL
    assert one(replace(point, value=0.7499, low=0.7499, high=0.7499), point).outcome is Outcome.REGRESSED


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n": 2000}, "n: 4000 -> 2000"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"protocol": {"in_distribution": "cifar10", "interp": "shuffled"}}, "interp: nothing -> shuffled"),
    ],
)
def test_another_protocol_is_incomparable_and_says_in_what(changed: dict[str, Any], told: str) -> None:
    cell = one(row(0.2, **changed), row())
    assert (cell.outcome, cell.reason) == (Outcome.INCOMPARABLE, told)


def test_time_and_provenance_do_not_decide_comparability() -> None:
    timed = lambda seconds: {"protocol": {"in_distribution": "cifar10", "seconds_per_image": seconds, "k": (1, 2)}}
    old = row(**timed(1.0), provenance={"numpy": "1"})
    new = row(**timed(2.0), provenance={"numpy": "2"})
    new.protocol["k"] = [1, 2]  # as a file has it
    assert one(new, old).outcome is Outcome.EQUAL


def test_what_is_gone_is_missing_and_what_is_added_is_new() -> None:
    base = [row(), row(dataset="celeba"), row(None, dataset="empty")]
    run = [row(), row(None, dataset="celeba", note="needs --data-root"), row(0.4, dataset="empty"), row(dataset="more")]
    cells = {cell.row.dataset: cell for cell in compare(run, base)}
    assert {name: str(cell.outcome) for name, cell in cells.items()} == {
        "svhn": "equal",
        "celeba": "missing",
        "empty": "new",
        "more": "new",
    }
    assert cells["celeba"].reason == "needs --data-root"
    assert compare([], [row()])[0].reason == "no such row in the run"


NO_INTERVAL = [{"low": None}, {"high": None}, {"low": None, "high": None}]


@pytest.mark.parametrize("lost", NO_INTERVAL)
@pytest.mark.parametrize("value", [0.1, 0.75])
def test_a_run_that_lost_an_interval_does_not_escape_its_test(lost: dict[str, None], value: float) -> None:
    cells = compare([replace(row(value), **lost), row(dataset="celeba")], [row(), row(dataset="celeba")])
    assert (cells[0].outcome, cells[0].reason) == (Outcome.INCOMPARABLE, "the run has no interval")
    assert Report(cells, "x").exit_code == 2


@pytest.mark.parametrize("lacks", NO_INTERVAL)
def test_without_an_interval_in_the_baseline_there_is_no_test_and_it_says_on_which_side(lacks: dict[str, None]) -> None:
    cell = one(row(0.1), replace(row(), **lacks))
    assert (cell.outcome, cell.reason) == (Outcome.NOT_JUDGED, "the baseline has no interval")
    cell = one(replace(row(0.1), **lacks), replace(row(), low=None))
    assert (cell.outcome, cell.reason) == (Outcome.NOT_JUDGED, "no interval")
    undirected = one(replace(row(0.1, metric="my_metric"), **lacks), row(metric="my_metric"))
    assert (undirected.outcome, undirected.reason) == (Outcome.NOT_JUDGED, "no direction")


def test_another_caveat_is_told_and_decides_nothing() -> None:
    noted = lambda value, note="": row(value, note=note)
    told = "note: nothing -> 16-bit weights"
    for value, outcome in ((0.2, Outcome.REGRESSED), (0.745, Outcome.NOISE), (0.75, Outcome.EQUAL)):
        cell = one(noted(value, "16-bit weights"), noted(0.75))
        assert (cell.outcome, cell.reason) == (outcome, told)
        assert one(noted(value, "same"), noted(0.75, "same")).reason == ""
        report = Report([cell], "x")
        for text in (to_text(report), to_markdown(report).replace("\\", "")):
            assert told in text
        (record,) = json.loads(to_json(report))["cells"]
        assert (record["baseline"]["note"], record["run"]["note"]) == ("", "16-bit weights")
    assert Report([one(noted(0.75), noted(0.75, "old"))], "x").exit_code == 0
    assert one(row(n=9, note="b"), row(note="a")).reason == "n: 4000 -> 9; note: a -> b"
    assert one(row(role="control", note="b"), row(role="control")).reason == "control; note: nothing -> b"


def test_beside_an_interval_of_the_whole_scale_a_great_drop_is_noise() -> None:
    blind = replace(row(), low=0.0, high=1.0)
    assert one(replace(row(0.3), low=0.0, high=1.0), blind).outcome is Outcome.NOISE
    assert one(row(0.3), blind).outcome is Outcome.NOISE
    assert one(row(0.3), row()).outcome is Outcome.REGRESSED


@pytest.mark.parametrize(("variant", "outcome"), [("score:typicality", "not judged"), ("log_p", "missing")])
def test_a_further_score_that_the_run_was_not_asked_for_stops_nothing(variant: str, outcome: str) -> None:
    own, extra = row(0.8), row(0.9, role="diagnostic", variant=variant)
    found = compare([own], [own, extra])
    assert [str(cell.outcome) for cell in found] == ["equal", outcome]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"role": "control"}, "control"),
        ({"role": "diagnostic", "variant": "log_p"}, "diagnostic"),
        ({"low": None, "high": None}, "no interval"),
        ({"suite": "speed", "metric": "seconds_per_image"}, "time on a machine"),
        ({"metric": "my_metric"}, "no direction"),
        ({"metric": "authenticity_cifar10net"}, "no direction"),
    ],
)
def test_what_is_not_judged_says_why_and_never_fails(changed: dict[str, Any], reason: str) -> None:
    cell = one(replace(row(0.1), **changed), replace(row(), **changed))
    assert (cell.outcome, cell.reason) == (Outcome.NOT_JUDGED, reason)
    # It takes no share of the level either.
    judged = row(0.71, dataset="celeba"), row(0.75, dataset="celeba")
    both = compare([replace(row(0.1), **changed), judged[0]], [replace(row(), **changed), judged[1]])
    assert both[1].tolerance == one(*judged).tolerance


def test_a_control_of_another_protocol_is_no_obstacle() -> None:
    control = lambda codec: row(role="control", protocol={"in_distribution": "cifar10", "codec": codec})
    cell = one(control("PNG 2"), control("PNG 1"))
    assert (cell.outcome, cell.reason) == (Outcome.NOT_JUDGED, "control; codec: PNG 1 -> PNG 2")


@pytest.mark.parametrize("key", ["suite", "dataset", "system", "size", "metric"])
def test_cells_are_matched_by_all_that_names_them(key: str) -> None:
    other = replace(row(0.2), **{key: "other"})
    assert [str(c.outcome) for c in compare([row(), other], [row()])] == ["equal", "new"]


def test_cells_of_another_in_distribution_are_others() -> None:
    mnist = row(0.2, protocol={"in_distribution": "mnist"})
    assert [str(c.outcome) for c in compare([row(), mnist], [row()])] == ["equal", "new"]


def test_seeds_tell_rows_apart_only_where_there_are_several() -> None:
    seeds = [row(0.75 + 0.001 * seed, seed=seed) for seed in range(3)]
    assert [str(c.outcome) for c in compare(seeds, seeds)] == ["equal"] * 3
    assert [str(c.outcome) for c in compare(seeds, seeds[:1])] == ["equal", "new", "new"]
    assert [str(c.outcome) for c in compare(seeds[:1], seeds)] == ["equal", "missing", "missing"]
    assert one(seeds[1], seeds[0]).reason == "seed: 0 -> 1"


def test_two_rows_for_one_cell_are_refused() -> None:
    with pytest.raises(UserError, match="two rows for ood vaebm svhn auroc in the baseline"):
        compare([row()], [row(), row(0.7)])
    assert len(compare([row(), row()], [row()])) == 1  # the same row twice is one row


def test_correlation_counts_only_for_the_headline_auroc_of_the_same_images() -> None:
    data = {"provenance": {"data": {"cifar10": "a", "svhn": "b"}}}
    known = {("vaebm", "svhn"): 0.9}
    old, new = row(**data), row(0.735, **data)
    paired = one(new, old, correlations=known)
    assert (paired.correlation, paired.outcome) == (0.9, Outcome.REGRESSED)
    assert paired.tolerance == pytest.approx(one(new, old).tolerance * np.sqrt(0.1))
    others = {"data": {"cifar10": "a", "svhn": "c"}}
    for change in ({"provenance": {}}, {"provenance": others}):
        for pair in ((replace(new, **change), old), (new, replace(old, **change))):
            assert (one(*pair, correlations=known).correlation, one(*pair, correlations=known).outcome) == (
                0,
                "within noise",
            )
    for change in ({"metric": "aupr"}, {"suite": "generation"}, {"role": "diagnostic"}):
        assert one(replace(new, **change), replace(old, **change), correlations=known).correlation == 0
    assert one(new, old, correlations={("vaebm", "celeba"): 0.9}).correlation == 0
    assert one(row(0.735), row(), correlations=known).correlation == 0  # neither says which images


ROWS = st.builds(
    lambda value, width, metric, dataset, system, role, missing: replace(
        row(None if missing else value, system, dataset, metric, role=role),
        **({} if missing else {"low": value - width[0], "high": value + width[1]}),
    ),
    st.floats(-1e6, 1e6),
    st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)),
    st.sampled_from(["auroc", "fpr95", "fid", "kd_net", "authenticity", "unheard"]),
    st.sampled_from(["svhn", "mean"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["headline", "diagnostic", "control"]),
    st.booleans(),
)


@given(st.lists(ROWS, max_size=12, unique_by=lambda r: (r.metric, r.dataset, r.system, r.role)))
def test_a_run_beside_itself_passes(rows: list[Measurement]) -> None:
    cells = compare(rows, rows)
    assert {str(cell.outcome) for cell in cells} <= {"equal", "not judged"}
    report = Report(cells, "baseline.json")
    assert report.exit_code == (0 if report.judged else 2)
    assert report.judged == sum(map(judgeable, rows))


@given(st.lists(ROWS, min_size=1, max_size=12, unique_by=lambda r: (r.metric, r.dataset, r.system, r.role)), st.data())
def test_a_deeper_drop_never_passes_where_a_smaller_one_failed(rows: list[Measurement], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(rows) - 1))
    least, more = sorted(data.draw(st.tuples(*[st.floats(0, 1e4)] * 2)))
    worse = {"auroc": -1.0, "fpr95": 1.0, "fid": 1.0, "kd_net": 1.0}.get(rows[i].metric, 0.0)

    def code(drop: float) -> int:
        at = rows[i]
        shifted = at
        if at.value is not None:
            assert at.low is not None
            assert at.high is not None
            by = worse * drop
            shifted = replace(at, value=at.value + by, low=at.low + by, high=at.high + by)
        return Report(compare([*rows[:i], shifted, *rows[i + 1 :]], rows), "").exit_code

    assert code(least) <= code(more)


# --- exit codes and what is printed ----------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a result file."""

    def write(rows: list[Measurement], name: str = "baseline.json", suite: str = "ood", **more: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_results(Results(suite, rows, **more), path)
        return path

    return write


def run_of(rows: list[Measurement], suite: str = "ood", path: Path = Path("somewhere/ood.json")) -> list[Run]:
    return [(path, Results(suite, rows))]


BASE = (row(), row(dataset="celeba"), row(0.4, metric="fpr95"))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({0: row(0.76)}, 0),
        ({0: row(0.9)}, 0),  # improved
        ({0: row(0.6)}, 1),
        ({2: row(0.5, metric="fpr95")}, 1),
        ({0: row(seed=3)}, 2),
        ({0: row(None)}, 2),
        ({0: None}, 2),
        ({0: row(0.6), 1: None}, 1),
        ({0: row(0.6), 1: row(n=3, dataset="celeba")}, 1),
        ({0: replace(row(), provenance={"fingerprint": {"weights": "f" * 64}})}, 0),
    ],
)
def test_exit_codes(
    changed: Mapping[int, Measurement | None], code: int, stored: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [changed.get(i, row) for i, row in enumerate(BASE)]
    present = [row for row in rows if row is not None]
    assert check(run_of(present), stored(list(BASE)), tmp_path / "out") == code
    document = json.loads((tmp_path / "out/check.json").read_text())
    assert document["exit_code"] == code
    assert f"exit code {code}" in document["verdict"]


@pytest.mark.parametrize(
    ("run", "base"),
    [
        ([row(0.1, role="control")], [row(role="control")]),
        ([row(0.1, metric="my_metric")], [row(metric="my_metric")]),
        ([replace(row(0.1), low=None)], [replace(row(), low=None)]),
        ([row(0.1, role="diagnostic", variant="log_p")], [row(role="diagnostic", variant="log_p")]),
        ([row(0.1)], [row(None)]),
        ([row(0.1)], []),
        ([], []),
    ],
)
def test_where_nothing_was_tested_nothing_passes(
    run: list[Measurement],
    base: list[Measurement],
    stored: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(run_of(run), stored(base), tmp_path / "out") == 2
    assert capsys.readouterr().out.endswith("Not compared: there was no cell to test (exit code 2).\n")
    assert json.loads((tmp_path / "out/check.json").read_text())["exit_code"] == 2


def test_a_missing_control_stops_and_a_diagnostic_without_variant_is_judged(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    control, part = row(system="pixel_std", role="control"), row(dataset="celeba", role="diagnostic")
    assert check(run_of([row(), part]), stored([row(), part, control]), tmp_path) == 2
    worse = replace(part, value=0.2, low=0.1, high=0.3)
    assert check(run_of([row(), worse, control]), stored([row(), part, control]), tmp_path) == 1


def test_suites_that_were_not_run_are_missing_and_named(
    stored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = stored([*BASE, *generation_rows(), *modes_rows()], suite="ood,generation,modes")
    assert check(run_of([*BASE]), baseline, tmp_path / "out") == 2
    printed = capsys.readouterr().out
    assert "Suite generation of the baseline was not run." in printed
    assert "Suite modes of the baseline was not run." in printed
    assert "2 missing" in printed
    runs = [
        (Path(f"{suite}.json"), Results(suite, rows))
        for suite, rows in {"ood": [*BASE], "generation": generation_rows(), "modes": modes_rows()}.items()
    ]
    assert check(runs, baseline, tmp_path / "out") == 0
    # A suite that the baseline does not have is new, and no reason to fail.
    assert check(runs, stored([*BASE]), tmp_path / "out") == 0


def test_prints_what_moved_worst_first(
    stored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [row(dataset=name) for name in ("same", "noise", "gone", "up", "down", "deep", "other")]
    silent = [row(0.5 - 0.1 * i, system=f"control{i}", role="control") for i in (0, 1)]
    moved = {"noise": 0.745, "up": 0.9, "down": 0.65, "deep": 0.4}
    run = [row(moved.get(r.dataset, 0.75), dataset=r.dataset) for r in base if r.dataset != "gone"]
    run = [replace(r, n=9) if r.dataset == "other" else r for r in run]
    run += [replace(silent[0], value=0.51), silent[1]]
    assert check(run_of(run), stored([*base, *silent]), tmp_path) == 1
    printed = capsys.readouterr().out.splitlines()
    lines = [line.split() for line in printed if line.startswith("vaebm (mini)")]
    assert [line[2] for line in lines] == ["deep", "down", "other", "gone", "noise", "up"]
    deep = next(line for line in printed if " deep " in line)
    tolerance = compare(run, [*base, *silent])[5].tolerance
    assert deep.split()[4:] == [
        "0.7500",
        "[0.7304,",
        "0.7696]",
        "0.4000",
        "[0.3804,",
        "0.4196]",
        "-0.35",
        f"{tolerance:.2g}",
        "regressed",
    ]
    assert any(line.startswith("control0") and line.endswith("control") for line in printed)
    assert not any(line.startswith("control1") for line in printed)  # it did not move
    assert printed[-1] == "Fails: 2 cells regressed (exit code 1)."
    assert printed[-2].startswith(
        "5 cells tested at a family-wise level of 0.05 (Holm): 2 regressed, 1 improved, 1 within noise, 1 equal."
    )
    assert "1 incomparable, 1 missing, 0 new, 2 not judged" in printed[-2]


def test_markdown_is_safe_and_says_the_same(stored: Callable[..., Path], tmp_path: Path) -> None:
    name = "a|b_<img src=x>\x1b[31m`"
    assert check(run_of([row(0.5, system=name)]), stored([row(system=name)]), tmp_path) == 1
    text = (tmp_path / "check.md").read_text()
    assert text.startswith("### Regression gate\n\n**Fails: 1 cell regressed (exit code 1).**\n")
    (line,) = (line for line in text.splitlines() if "regressed |" in line)
    assert "\\<img" in line
    assert line.replace("\\|", "").count("|") == 9
    report = Report(compare([row(0.5, system=name)], [row(system=name)]), "x")
    assert "\x1b" not in to_text(report)


def test_json_has_every_cell_with_both_sides(stored: Callable[..., Path], tmp_path: Path) -> None:
    check(run_of([row(0.6), row(dataset="more")]), stored([*BASE]), tmp_path)
    document = json.loads((tmp_path / "check.json").read_text())
    assert document["judged"] == 1
    assert document["counts"] == {
        "regressed": 1,
        "incomparable": 0,
        "missing": 2,
        "improved": 0,
        "within noise": 0,
        "equal": 0,
        "new": 1,
        "not judged": 0,
    }
    (cell,) = (cell for cell in document["cells"] if cell["outcome"] == "regressed")
    assert cell["baseline"]["value"] == 0.75
    assert cell["run"]["value"] == 0.6
    assert cell["change"] == pytest.approx(-0.15)
    assert cell["p"] < 1e-6
    # No result file: what reads a folder of results must not take it for one.
    assert '"schema_version"' not in (tmp_path / "check.json").read_text()


def test_json_of_a_number_without_any_width_is_json() -> None:
    point = replace(row(), low=0.75, high=0.75)
    moved = replace(point, value=0.7, low=0.7, high=0.7)
    assert json.loads(to_json(Report(compare([moved], [point]), "x")))["exit_code"] == 1


def test_long_lists_of_what_is_not_judged_are_cut_in_the_terminal_and_whole_in_markdown() -> None:
    base = [row(0.5, system=f"c{i}", role="control") for i in range(25)]
    report = Report(compare([replace(r, value=0.51) for r in base], base), "x")
    assert "... and 15 more in check.md" in to_text(report)
    assert sum(line.startswith("| c") for line in to_markdown(report).splitlines()) == 25
    assert report.exit_code == 2  # controls alone are no test


def test_changed_weights_are_named_by_the_part_that_changed(
    stored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_weights = lambda text: replace(row(), provenance={"fingerprint": {"weights": text}})
    old, new = "a" * 64 + "b" * 64, "a" * 64 + "c" * 64
    assert check(run_of([with_weights(new)]), stored([with_weights(old)]), tmp_path) == 0
    printed = capsys.readouterr().out
    assert f"vaebm (mini): other weights than in the baseline ({'b' * 12}, now {'c' * 12})." in printed
    assert check(run_of([with_weights(old)]), stored([with_weights(old)]), tmp_path) == 0
    assert "other weights" not in capsys.readouterr().out


def test_the_text_goes_where_it_is_sent(
    stored: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    check(run_of([*BASE]), stored([*BASE]), tmp_path, stream=sys.stderr)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Passes: nothing regressed (exit code 0)." in streams.err


# --- real scores -----------------------------------------------------------------------------------------------


class Sharpness:
    """A scorer whose AUROC against SVHN is far above chance; ``sign`` turns it round, ``noise`` blurs it."""

    def __init__(self, sign: float = 1.0, noise: float = 0.0) -> None:
        self.sign, self.noise = sign, noise

    def score(self, images: np.ndarray) -> np.ndarray:
        scores = self.sign * IMAGE_STATISTICS["high_pass_energy"].score(images)
        rng = np.random.default_rng(int(images[0].astype(np.int64).sum()))
        return scores + self.noise * np.std(scores) * rng.normal(size=len(scores))


@pytest.fixture(scope="module")
def images() -> dict[str, ImageSet]:
    return {name: load_images(name, n=300, download=False) for name in ("cifar10", "svhn", "cifar100")}


@pytest.fixture(scope="module")
def measured(images: dict[str, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Run]]:
    """Runs the OOD suite on real images, with its scores beside its result file."""

    def measure(scorer: object, weights: str = "0" * 64, **protocol: Any) -> list[Run]:
        out = tmp_path_factory.mktemp("run")
        about = {
            "size": "mini",
            "fingerprint": {"weights": weights},
            "protocol": {"estimator": "sharpness", **protocol},
        }
        system = SystemUnderTest("sharp", scorer, (32, 32, 3), **about)
        outer = {name: images[name] for name in ("svhn", "cifar100")}
        found = OODSuite(replicates=100).run({"sharp": system}, images["cifar10"], outer, out=out)
        write_results(Results("ood", found.rows), out / "ood.json")
        return [(out / "ood.json", Results("ood", found.rows))]

    return measure


@pytest.fixture(scope="module")
def baseline(measured: Callable[..., list[Run]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "baseline.json"
    write_baseline(measured(Sharpness()), path)
    return path


def test_other_weights_with_equal_metrics_pass(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(measured(Sharpness(), weights="1" * 64), baseline, tmp_path, score_correlations) == 0
    printed = capsys.readouterr().out
    assert "other weights" in printed
    assert "7 cells tested" in printed  # three metrics on two sets, and the mean
    assert "7 equal" in printed


def test_a_turned_sign_fails(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for correlate in (score_correlations, None):
        assert check(measured(Sharpness(-1.0)), baseline, tmp_path, correlate) == 1
        printed = capsys.readouterr().out
        assert [line.split()[2] for line in printed.splitlines() if line.endswith("regressed")].count("svhn") == 3


def test_rounding_passes(measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path) -> None:
    runs = measured(Sharpness(noise=1e-4))  # as of another machine: some pairs of images change places
    values = lambda rows: [
        row.value for row in rows if row.metric == "auroc" and row.role == "headline" and row.system == "sharp"
    ]
    assert values(runs[0][1].rows) != values(json_rows(baseline))
    assert check(runs, baseline, tmp_path, score_correlations) == 0


def json_rows(path: Path) -> list[Measurement]:
    return [Measurement.from_json(row) for row in json.loads(path.read_text())["measurements"]]


def test_another_recipe_of_the_score_is_incomparable(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path
) -> None:
    assert check(measured(Sharpness(), K=10), baseline, tmp_path, score_correlations) == 2
    assert check(measured(Sharpness(-1.0), K=10), baseline, tmp_path, score_correlations) == 2


def test_scores_of_both_runs_let_the_gate_see_a_smaller_drop(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = measured(Sharpness(noise=0.25))
    check(runs, baseline, tmp_path)
    alone = json.loads((tmp_path / "check.json").read_text())["cells"]
    check(runs, baseline, tmp_path, score_correlations)
    assert "Compared image by image, by the scores of both runs: 3 cells." in capsys.readouterr().out
    paired = json.loads((tmp_path / "check.json").read_text())["cells"]
    for before, after in zip(alone, paired, strict=True):
        if after["metric"] == "auroc" and after["role"] == "headline" and after["system"] == "sharp":
            assert 0.5 < after["correlation"] < 1
            assert after["tolerance"] < before["tolerance"]
        else:
            assert after["tolerance"] == before["tolerance"]


def test_without_the_scores_of_one_run_they_are_independent(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = measured(Sharpness(noise=0.25))
    (runs[0][0].parent / "ood_scores.npz").unlink()
    assert scores_beside(runs[0][0]) is None
    check(runs, baseline, tmp_path, score_correlations)
    assert "image by image" not in capsys.readouterr().out


def correlated(out: Path) -> dict[str, float]:
    """Set -> correlation of the cells of ``check.json`` that were compared image by image."""
    cells = json.loads((out / "check.json").read_text())["cells"]
    return {cell["dataset"]: cell["correlation"] for cell in cells if cell["correlation"]}


def test_scores_of_another_run_are_not_taken_for_those_of_the_rows(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, other = measured(Sharpness(noise=0.25)), measured(Sharpness(noise=1.0))
    scores = lambda run: run[0][0].parent / "ood_scores.npz"
    alone = check(runs, baseline, tmp_path / "alone"), (tmp_path / "alone/check.json").read_text()
    said = lambda file: f"The scores beside {file} are not those of its rows"
    check(runs, baseline, tmp_path, score_correlations)
    assert correlated(tmp_path).keys() == {"svhn", "cifar100", "mean"}
    assert "are not those" not in capsys.readouterr().out
    own = scores(runs).read_bytes()

    # The run's scores are replaced by another run's.
    scores(runs).write_bytes(scores(other).read_bytes())
    assert check(runs, baseline, tmp_path, score_correlations) == alone[0]
    assert correlated(tmp_path) == {}
    printed, document = capsys.readouterr().out, json.loads((tmp_path / "check.json").read_text())
    assert said(runs[0][0]) in printed
    assert said(baseline) not in printed
    assert "image by image, by the scores" not in printed
    assert said(runs[0][0]) in (tmp_path / "check.md").read_text().replace("\\", "")
    assert document["foreign_scores"] == [str(runs[0][0])]
    assert document["cells"] == json.loads(alone[1])["cells"]

    # The baseline's are.
    scores(runs).write_bytes(own)
    stale = tmp_path / "stale.json"
    stale.write_bytes(baseline.read_bytes())
    (tmp_path / "stale.scores.npz").write_bytes(scores(other).read_bytes())
    check(runs, stale, tmp_path, score_correlations)
    printed = capsys.readouterr().out
    assert correlated(tmp_path) == {}
    assert said(stale) in printed
    assert said(runs[0][0]) not in printed


def test_scores_of_one_set_that_are_another_runs_cost_that_set_and_the_mean(
    measured: Callable[..., list[Run]], baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = measured(Sharpness(noise=0.25))
    file = runs[0][0].parent / "ood_scores.npz"
    with np.load(file) as held:
        arrays = {name: held[name] for name in held.files}
    arrays["sharp/svhn/score"] = -arrays["sharp/svhn/score"]
    np.savez(file, **arrays)
    check(runs, baseline, tmp_path, score_correlations)
    assert correlated(tmp_path).keys() == {"cifar100"}
    assert "are not those of its rows" in capsys.readouterr().out


@pytest.mark.parametrize("off", [2e-9, -2e-9, 5e-10])
def test_how_near_the_auroc_of_the_scores_must_be(off: float, stored: Callable[..., Path], tmp_path: Path) -> None:
    data = {"provenance": {"data": {"svhn": "a"}}}
    path = stored([row(**data)], "run/ood.json")
    for file in (tmp_path / "run/ood_scores.npz", tmp_path / "baseline.scores.npz"):
        file.touch()
    baseline = stored([row(0.76, **data)])
    for first, second in ((0.75 + off, 0.76), (0.75, 0.76 + off)):
        told = lambda a, b, name, pair=(0.9, first, second): {("vaebm", "svhn"): pair}
        check([(path, Results("ood", [row(**data)]))], baseline, tmp_path / "out", told)
        assert correlated(tmp_path / "out") == ({"svhn": 0.9} if abs(off) < 1e-9 else {})
