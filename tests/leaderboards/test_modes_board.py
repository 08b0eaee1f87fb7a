"""Table 5 and the 25 Gaussians: what stands where, the floor, and what is ranked."""

from dataclasses import replace

import pytest
from synthetic import modes_rows

from evaluators.measurement import Measurement
from leaderboards import build_boards, render_text
from leaderboards.board import Board
from leaderboards.published import read_published
from vaebm.errors import UserError


def boards(rows: list[Measurement]) -> dict[str, Board]:
    return {board.name: board for board in build_boards(rows)["modes"]}


def lines(board: Board) -> dict[str, list[float | None]]:
    return {row.full_label: [cell.value for cell in row.cells] for block in board.blocks for row in block.rows}


def test_table_5_has_the_published_number_the_measured_ones_and_the_controls() -> None:
    board = boards(modes_rows())["modes"]
    assert [c.title for c in board.columns] == ["Modes (of 1000)", "KL (nats)", "Confidence"]
    assert [c.higher_is_better for c in board.columns] == [True, False, None]
    assert lines(board) == {
        "VAEBM": [1000, 0.087, None],
        "VAEBM (measured, mini)": [1000, 0.0312, 0.971],
        "NVAE (mini)": [997, 0.2173, None],
        "test images": [1000, 0.0195, None],
        "perfect sampler": [1000, 0.01941, None],
    }
    assert board.blocks[-1].title == "Controls (measured)"
    assert "Table 5 of the paper" in board.title
    published = {r.metric: r.value for r in read_published() if r.suite == "modes"}
    assert published == {"modes": 1000, "kl": 0.087}


def test_floor_classifier_and_n_are_told() -> None:
    text = "\n".join(boards(modes_rows())["modes"].footnotes)
    assert "even a perfect sampler has 0.0194 at N = 26,000: the floor" in text
    assert "classifier mnistnet 0b1c2d3e" in text
    assert "N 26,000" in text


def test_numbers_are_printed_as_they_are_read() -> None:
    text = render_text(build_boards(modes_rows())["modes"])
    assert " 1000  " in text
    assert "1000 [998,1000]" in text
    assert "0.0312 [.0296,.0328]" in text
    assert " 0.087 " in text


def test_the_toy_has_its_true_density_as_control_and_differences_as_diagnostics() -> None:
    board = boards(modes_rows())["modes_gaussians25"]
    assert [c.title for c in board.columns] == ["Log-likelihood (nats)", "Modes (of 25)", "High quality"]
    assert lines(board) == {
        "VAEBM": [-1.5123, 25, 0.962],
        "NVAE": [-2.913, 25, 0.411],
        "VAEBM: minus true density": [-0.0607, None, None],
        "true density": [-1.4516, 25, 0.989],
    }
    best = {(row.full_label, column.key) for _, row, column, cell in board.cells() if cell.rank == 1}
    assert best == {("VAEBM", "log_likelihood"), ("VAEBM", "high_quality"), ("VAEBM", "modes"), ("NVAE", "modes")}


def test_without_measurements_table_5_alone_is_printed() -> None:
    (board,) = build_boards([])["modes"]
    assert lines(board) == {"VAEBM": [1000, 0.087]}


def test_curves_over_steps_get_a_table_of_their_own() -> None:
    first = modes_rows()[1]
    curve = [
        replace(
            first, role="diagnostic", variant=f"steps={k}", value=0.3 / (1 + k), protocol=first.protocol | {"steps": k}
        )
        for k in (8, 0, 4)
    ]
    made = boards([*modes_rows(), *curve])
    assert list(made) == ["modes", "modes_steps", "modes_gaussians25"]
    assert [row.label for row in made["modes_steps"].blocks[0].rows] == ["steps = 0", "steps = 4", "steps = 8"]
    assert [row.cells[0].rank for row in made["modes_steps"].blocks[0].rows] == [0, 2, 1]
    assert list(lines(made["modes_steps"]))[-2:] == ["test images", "perfect sampler"]
    assert not any("steps" in label for label in lines(made["modes"]))


def test_two_values_for_one_cell_are_refused() -> None:
    rows = modes_rows()
    with pytest.raises(UserError, match="found two measurements"):
        boards([*rows, replace(rows[0], value=3.0)])


def test_another_data_set_gets_a_plain_table() -> None:
    (board,) = build_boards([Measurement("modes", "mine", "grid49", "modes", 40.0)])["modes"]
    assert board.title == "Mode coverage on grid49, measured"
    assert board.columns[0].title == "Modes"
