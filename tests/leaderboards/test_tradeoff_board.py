"""The table of quality against cost: what stands where, which settings are marked, what a variant says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tradeoff_rows import tradeoff_rows

from evaluators.measurement import Measurement
from evaluators.tradeoff.sweep import Setting as Drawn
from leaderboards import build_boards, render_text
from leaderboards.board import Board, Row
from leaderboards.pareto import non_dominated
from leaderboards.render import fragment, to_csv, to_markdown
from leaderboards.tables.tradeoff import Setting, setting_of
from vaebm.errors import UserError

# --- what no other point beats ---------------------------------------------------------------------------------------

small = st.integers(0, 4).map(float)  # with ties


def beaten(points: Sequence[tuple[float, float]], i: int) -> bool:
    x, y = points[i]
    return any(u <= x and v <= y and (u, v) != (x, y) for u, v in points)


@given(st.lists(st.tuples(small, small) | st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=12))
def test_non_dominated_is_what_brute_force_finds(points: list[tuple[float, float]]) -> None:
    found = non_dominated([x for x, _ in points], [y for _, y in points])
    assert found.dtype == bool
    assert found.tolist() == [not beaten(points, i) for i in range(len(points))]
    assert found.any() == bool(points)


@given(st.lists(st.tuples(small, small), min_size=1, max_size=8), st.randoms())
def test_non_dominated_does_not_depend_on_the_order(points: list[tuple[float, float]], random: Any) -> None:
    order = list(range(len(points)))
    random.shuffle(order)
    plain = non_dominated(*np.array(points).T)
    np.testing.assert_array_equal(non_dominated(*np.array(points)[order].T), plain[order])


def test_non_dominated_wants_finite_pairs() -> None:
    assert non_dominated([1, 2, 3, 3], [3, 2, 2, 1]).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="both"):
        non_dominated([1.0, 2.0], [1.0])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            non_dominated([1.0, bad], [1.0, 2.0])


# --- variants ----------------------------------------------------------------------------------------------------------

positive = st.floats(1e-9, 1e9).map(lambda x: float(f"{x:.12g}"))


@given(st.none() | st.integers(0, 10**6), st.none() | positive, st.none() | positive)
def test_a_variant_is_read_as_the_suite_wrote_it(steps: int | None, step_size: float, temperature: float) -> None:
    assert setting_of(Drawn(steps, step_size, temperature).variant) == Setting(steps, step_size, temperature)


@pytest.mark.parametrize("variant", ["", "log_p", "steps=x", "steps=4, colour=2", "step_size=x", "steps"])
def test_a_variant_that_is_no_setting_is_refused(variant: str) -> None:
    with pytest.raises(UserError, match="needed the form"):
        setting_of(variant)


# --- the table ---------------------------------------------------------------------------------------------------------


def board_of(rows: Sequence[Measurement]) -> Board:
    (board,) = build_boards(rows)["tradeoff"]
    return board


def labels(board: Board, block: int) -> list[str]:
    return [row.full_label for row in board.blocks[block].rows]


def row_of(board: Board, block: int, label: str) -> Row:
    (found,) = [row for row in board.blocks[block].rows if row.label == label]
    return found


def test_a_block_per_system_in_order_of_settings_and_the_controls_last() -> None:
    board = board_of(tradeoff_rows())
    assert [block.title for block in board.blocks] == ["VAEBM (mini)", "NVAE (mini)", "Controls (measured)"]
    assert [row.label for row in board.blocks[0].rows] == [
        *("steps = 0", "steps = 4", "steps = 8", "steps = 4, step size x0.5", "steps = 8, step size x0.5"),
        "steps = 4, temperature 0.7",
    ]
    assert labels(board, 2) == ["test images", "VAEBM: test images (mini)"]
    titles = [column.title for column in board.columns]
    assert titles == ["s/image", "FD", "KD", "Score gap", "E gap", "P(test > sample)", "P(sample > outer)"]
    assert "AUROC" not in titles


def test_cells_are_the_rows_and_seconds_those_of_their_protocols() -> None:
    rows = tradeoff_rows()
    board = board_of(rows)
    keys = [column.key for column in board.columns]
    line = row_of(board, 0, "steps = 8, step size x0.5")
    cell = line.cells[keys.index("fd_cifar10net")]
    (row,) = [r for r in rows if (r.metric, r.variant) == ("fd_cifar10net", "steps=8, step_size=x0.5")]
    assert (cell.value, cell.low, cell.high, cell.n) == (row.value, row.low, row.high, row.n)
    assert line.cells[0].value == row.protocol["seconds_per_image"]
    assert line.cells[0].low is None


def test_marks_say_what_is_the_systems_own_and_what_nothing_beats() -> None:
    """FD and seconds of synthetic.tradeoff_rows: VAEBM (20, 1), (10, 5), (15, 9), (12, 5), (9, 9), (18, 5); NVAE (19, 0.9)."""
    board = board_of(tradeoff_rows())
    assert labels(board, 0) == [
        "steps = 0 (front)",
        "steps = 4 (own, front of all)",
        "steps = 8",
        "steps = 4, step size x0.5",
        "steps = 8, step size x0.5 (front of all)",
        "steps = 4, temperature 0.7",
    ]
    assert labels(board, 1) == ["own recipe (front of all)", "step size x0.5"]
    assert any(
        "front of all: nor is any other system's" in note and "of seconds and FD" in note for note in board.footnotes
    )


def test_marks_follow_kd_where_fd_could_not_be_had() -> None:
    rows = [row for row in tradeoff_rows() if not row.metric.startswith("fd_")]
    board = board_of(rows)
    assert "steps = 4 (own, front of all)" in labels(board, 0)
    assert any("of seconds and KD" in note for note in board.footnotes)
    without = board_of([row for row in rows if not row.metric.startswith("kd_")])
    assert not any("front" in label for block in (0, 1) for label in labels(without, block))
    assert not any("front of all" in note for note in without.footnotes)


def test_other_numbers_of_images_and_devices_do_not_compete() -> None:
    nvae = [row for row in tradeoff_rows() if row.system == "nvae"]
    others = [row for row in tradeoff_rows() if row.system != "nvae"]
    assert labels(board_of([*others, *(replace(row, n=7) for row in nvae)]), 0)[0] == "steps = 0 (front of all)"
    on_gpu = [replace(row, provenance={"fingerprint": {"device": "cuda"}}) for row in nvae]
    assert labels(board_of([*others, *on_gpu]), 0)[0] == "steps = 0 (front of all)"


def test_footnotes_keep_these_aurocs_apart_and_tell_the_recipe_once() -> None:
    notes = "\n".join(board_of(tradeoff_rows()).footnotes)
    assert "neither is the out-of-distribution AUROC of the paper's Table 6" in notes
    assert "outer svhn" in notes
    assert "Samples: VAEBM mini: step size 0.001, temperature 1; NVAE mini: temperature 1." in notes
    assert "own recipe yes" not in notes
    assert "Not ranked against each other" not in notes
    assert "Scores: VAEBM mini and NVAE mini: log p(x) - E(x) (ELBO)." in notes


def test_a_table_per_feature_space_and_data_set() -> None:
    rows = tradeoff_rows()
    inception = [replace(row, metric="fid") for row in rows if row.metric == "fd_cifar10net"]
    boards = build_boards([*rows, *inception])["tradeoff"]
    assert [board.name for board in boards] == ["tradeoff_inception", "tradeoff_cifar10net"]
    assert [column.key for column in boards[0].columns][:2] == ["seconds_per_image", "fid"]
    other = [replace(row, dataset="celeba64") for row in rows]
    assert [board.name for board in build_boards([*rows, *other])["tradeoff"]] == ["tradeoff", "tradeoff_celeba64"]


def test_reasons_and_lone_scores_make_a_table() -> None:
    lone = [row for row in tradeoff_rows() if row.metric == "score_gap"]
    board = board_of(lone)
    assert [column.title for column in board.columns] == ["s/image", "Score gap"]
    assert "has no step size" in board.reasons()


def test_every_format_prints_it() -> None:
    board = board_of(tradeoff_rows())
    assert "steps = 4 (own, front of all)" in render_text([board])
    assert "steps = 4 (own, front of all)" in to_markdown(board)
    assert "sample" in to_markdown(board).splitlines()[2]
    assert "own, front of all" in fragment([board], "tradeoff")
    assert to_csv([board]).count("tradeoff,") == sum(1 for _ in board.cells())
