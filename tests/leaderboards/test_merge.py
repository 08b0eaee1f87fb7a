"""Several result files in one table."""

from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards import build_boards
from leaderboards.merge import RUN, merge


def run(path: str, rows: list[Measurement]) -> tuple[Path, Results]:
    return Path(path), Results("ood", rows)


def labels(rows: list[Measurement]) -> list[str]:
    return [row.full_label for block in build_boards(rows)["ood"][0].blocks for row in block.rows]


def test_the_same_run_twice_is_one(rows: list[Measurement]) -> None:
    assert merge([run("a/ood.json", rows), run("b/ood.json", rows)]) == rows


def test_different_systems_share_a_table(rows: list[Measurement]) -> None:
    first = [row for row in rows if row.system != "glow"]
    second = [row for row in rows if row.system == "glow"]
    merged = merge([run("a/ood.json", first), run("b/ood.json", second)])
    assert labels(merged) == labels(rows)
    assert not any(RUN in row.provenance for row in merged)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: replace(row, value=0.5),
        lambda row: replace(row, n=17),
        lambda row: replace(row, protocol=row.protocol | {"resize": "nearest"}),
    ],
)
def test_a_system_of_two_minds_gets_a_row_per_run(rows: list[Measurement], change) -> None:
    other = [change(row) if row.system == "vaebm" and row.value is not None else row for row in rows]
    found = labels(merge([run("x/a/ood.json", rows), run("x/b/ood.json", other)]))
    assert "VAEBM (measured, mini, a)" in found
    assert "VAEBM (measured, mini, b)" in found
    assert found.count("NVAE (measured, mini)") == 1


def test_a_time_measured_twice_is_no_disagreement(rows: list[Measurement]) -> None:
    timed = lambda seconds: [replace(r, protocol=r.protocol | {"seconds_per_image": seconds}) for r in rows]
    assert merge([run("a/ood.json", timed(0.1)), run("b/ood.json", timed(0.2))]) == timed(0.1)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("a/ood.json", "b/ood.json"), ("a", "b")),
        (("a/first.json", "a/second.json"), ("first", "second")),
        (("a/x.json", "a/y.json", "b/x.json"), ("a/x.json", "a/y.json", "b/x.json")),
    ],
)
def test_runs_are_told_apart_by_the_shortest_name_that_does(
    rows: list[Measurement], paths: tuple[str, ...], names: tuple[str, ...]
) -> None:
    vaebm = next(row for row in rows if row.system == "vaebm")
    runs = [run(path, [replace(vaebm, value=0.1 * i)]) for i, path in enumerate(paths, 1)]
    assert tuple(row.provenance[RUN] for row in merge(runs)) == names
