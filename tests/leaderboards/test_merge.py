"""Several result files in one table."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import modes_rows

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards import build_boards
from leaderboards.merge import RUN, merge
from vaebm.errors import UserError


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
        (("a/x.json", "a/y.json", "b/x.json"), ("a/x", "a/y", "b/x")),
        (("p/a/x.json", "q/a/x.json"), ("p/a", "q/a")),
        (("o/p/a/x.json", "r/p/a/x.json"), ("o/p/a/x.json", "r/p/a/x.json")),
    ],
)
def test_runs_are_told_apart_by_the_shortest_name_that_does(
    rows: list[Measurement], paths: tuple[str, ...], names: tuple[str, ...]
) -> None:
    vaebm = next(row for row in rows if row.system == "vaebm")
    runs = [run(path, [replace(vaebm, value=0.1 * i)]) for i, path in enumerate(paths, 1)]
    assert tuple(row.provenance[RUN] for row in merge(runs)) == names


def test_a_line_is_never_made_of_two_runs(rows: list[Measurement]) -> None:
    """Neither of other weights nor of the same, unless one run holds all that the other found."""
    vaebm = [row for row in rows if row.system == "vaebm" and row.metric == "auroc" and not row.variant]
    with_weights = lambda row, w: replace(row, provenance={"fingerprint": {"weights": w}})
    first = [with_weights(row, "aaa") for row in vaebm if row.dataset == "svhn"]
    for weights in ("aaa", "bbb"):
        second = [with_weights(row, weights) for row in vaebm if row.dataset == "cifar100"]
        merged = merge([run("a/ood.json", first), run("b/ood.json", second)])
        assert [name for name in labels(merged) if "measured" in name] == [
            "VAEBM (measured, mini, a)",
            "VAEBM (measured, mini, b)",
        ]
    whole = [with_weights(row, "aaa") for row in vaebm]
    assert merge([run("a/ood.json", first), run("b/ood.json", whole)])[0] == first[0]
    assert not any(RUN in row.provenance for row in merge([run("a/ood.json", first), run("b/ood.json", whole)]))
    equal = [with_weights(row, "bbb") for row in first]  # the same number of other weights
    assert len(merge([run("a/ood.json", first), run("b/ood.json", equal)])) == 2


def test_two_values_for_one_cell_of_one_file_are_still_refused(rows: list[Measurement]) -> None:
    twice = [*rows, replace(rows[0], value=0.5)]
    with pytest.raises(UserError, match="found two measurements"):
        build_boards(merge([run("a/ood.json", twice), run("b/ood.json", rows)]))


def test_runs_are_named_among_those_of_their_suite(rows: list[Measurement]) -> None:
    other = [replace(row, value=0.5) if row.value is not None else row for row in rows]
    modes = (Path("x/a/modes.json"), Results("modes", modes_rows()))
    merged = merge([run("x/a/ood.json", rows), modes, run("x/b/ood.json", other)])
    assert {row.provenance[RUN] for row in merged if RUN in row.provenance} == {"a", "b"}


def test_footnotes_tell_runs_apart(rows: list[Measurement]) -> None:
    """Each run keeps its own number of images, source, score and seed."""
    change = {"n_in": 500, "n_out": 500, "in_source": "bundled cut", "estimator": "another bound"}
    source = {"in_source": "data root", "in_split": "test"}
    first = [replace(row, protocol=row.protocol | source) for row in rows]
    second = [replace(row, protocol=row.protocol | source | change, seed=1) for row in rows]
    board = build_boards(merge([run("a/ood.json", first), run("b/ood.json", second)]))["ood"][0]
    text = "\n".join(board.footnotes)
    assert re.search(r"VAEBM \(a\).*: 2,000 CIFAR-10", text)
    assert re.search(r"VAEBM \(b\).*: 500 CIFAR-10 test images against 500 of", text)
    assert "controls (b)" in text
    assert "Measured rows of different images are not ranked" in text
    assert re.search(r"CIFAR-10 in a: data root", text)
    assert re.search(r"CIFAR-10 in b: bundled cut", text)
    (signs,) = [note for note in board.footnotes if note.startswith("Signs of the controls")]
    assert signs.count("high-pass energy") <= 1
    assert re.search(r"VAEBM \(b\)[^;]*: another bound", text)
    assert "seed 0" in text
    assert "seed 1" in text


def test_the_recipes_and_times_of_two_runs_stand_beside_each_other() -> None:
    def curve(seconds: float, temperature: float) -> list[Measurement]:
        protocol = {"sampling": {"temperature": temperature}, "seconds_per_image": seconds, "steps": 2}
        about = {"size": "mini", "role": "diagnostic", "variant": "steps=2", "n": 10, "protocol": protocol}
        return [Measurement("generation", "vaebm", "cifar10", "fd_x", 10 * temperature, **about)]

    runs = [(Path(f"{name}/generation.json"), Results("generation", curve(*of))) for name, of in RECIPES.items()]
    (board,) = [b for b in build_boards(merge(runs))["generation"] if b.name == "generation_steps_x"]
    shown = [(row.full_label, [cell.value for cell in row.cells]) for row in board.blocks[0].rows]
    assert shown == [("steps = 2 (a)", [5.0, 3.0]), ("steps = 2 (b)", [10.0, 9.0])]
    text = "\n".join(board.footnotes)
    assert "VAEBM mini (a): temperature 0.5" in text
    assert "VAEBM mini (b): temperature 1" in text


RECIPES = {"a": (3.0, 0.5), "b": (9.0, 1.0)}
