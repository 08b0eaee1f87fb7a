"""What of the tables is shown: --rows, --columns, --published, --measured."""

import pytest
from synthetic import generation_rows, modes_rows

from evaluators.measurement import Measurement
from leaderboards import Selection, build_boards
from leaderboards.board import Board
from vaebm.errors import UserError


@pytest.fixture
def every(rows: list[Measurement]) -> list[Measurement]:
    return [*rows, *generation_rows(), *modes_rows()]


def boards(measured: list[Measurement], /, **selection: object) -> dict[str, Board]:
    made = build_boards(measured, Selection(**selection))
    return {board.name: board for found in made.values() for board in found}


def systems(board: Board) -> list[str]:
    return [row.system for block in board.blocks for row in block.rows]


def test_without_a_selection_everything_is_shown(every: list[Measurement]) -> None:
    made = build_boards(every)
    assert list(made) == ["ood", "generation", "modes"]
    assert {name for name in boards(every) if name.startswith("ood")} == {
        *("ood", "ood_aupr_fpr95", "ood_correlations", "ood_coefficient")
    }


def test_rows_are_cut_and_stand_in_the_order_wanted(rows: list[Measurement]) -> None:
    board = boards(rows, rows=("my_density", "nvae", "vaebm"))["ood"]
    assert set(systems(board)) == {"my_density", "nvae", "vaebm"}
    first = [row.full_label for row in board.blocks[0].rows]
    assert first == ["NVAE", "NVAE (measured, mini)", "VAEBM", "VAEBM (measured, mini)"]
    text = " ".join(board.footnotes)
    assert "Glow" not in text  # footnotes speak of what is shown
    assert "NVAE" in text


def test_ranks_are_those_of_the_rows_shown(rows: list[Measurement]) -> None:
    best = lambda board: {
        row.system for *_, row, column, cell in board.cells() if column.key == "svhn" and cell.rank == 1
    }
    assert "vaebm" in best(boards(rows)["ood"])
    few = boards(rows, rows=("nvae", "igebm"), origin="published")["ood"]
    assert best(few) == {"igebm"}


def test_published_and_measured_rows_alone(rows: list[Measurement]) -> None:
    for origin in ("published", "measured"):
        board = boards(rows, origin=origin)["ood"]
        assert {row.origin for block in board.blocks for row in block.rows} == {origin}
        assert not any(row.nested for block in board.blocks for row in block.rows)
        assert any("Published rows" in note for note in board.footnotes) == (origin == "published")
    assert "ood_coefficient" not in boards(rows, origin="published")


@pytest.mark.parametrize("wanted", [("mean", "svhn"), ("celeba",)])
def test_columns_are_cut_and_stand_in_the_order_wanted(rows: list[Measurement], wanted: tuple[str, ...]) -> None:
    made = boards(rows, columns=wanted)
    board = made["ood"]
    assert tuple(column.key for column in board.columns) == wanted
    whole = {(row.full_label, column.key): cell.value for _, row, column, cell in boards(rows)["ood"].cells()}
    assert all(cell.value == whole[row.full_label, column.key] for _, row, column, cell in board.cells())
    assert all(len(row.cells) == len(wanted) for block in board.blocks for row in block.rows)
    assert "ood_correlations" not in made  # it has none of these columns


def test_a_metric_is_found_in_whatever_features_and_footnotes_speak_of_it_alone() -> None:
    made = boards(generation_rows(), columns=("recall", "fd"))
    keys = [column.key for column in made["generation_cifar10net"].columns]
    assert keys == ["recall_cifar10net", "fd_cifar10net"]
    assert not any("KD" in note for note in made["generation_cifar10net"].footnotes)
    assert [
        c.key for c in boards(generation_rows(), columns=("seconds_per_image",))["generation_steps_cifar10net"].columns
    ]


def test_unknown_names_are_answered_with_what_there_is(every: list[Measurement]) -> None:
    with pytest.raises(UserError, match=r"--rows vaebn: .*Did you mean 'vaebm'"):
        boards(every, rows=("vaebn",))
    with pytest.raises(UserError, match=r"--columns svnh: .*Did you mean 'svhn'"):
        boards(every, columns=("svnh",))


def test_a_system_known_to_no_published_table_is_found_among_the_measured(rows: list[Measurement]) -> None:
    assert systems(boards(rows, rows=("my_density",), origin="measured")["ood"]) == ["my_density"]


def test_the_name_of_both_versions_of_a_published_system_means_both() -> None:
    fid = Measurement("generation", "vaebm", "cifar10", "fid", 50.0, 49.0, 51.0, n=10, size="mini")
    board = boards([fid], rows=("vaebm",))["generation"]
    assert systems(board) == ["vaebm_no_pc", "vaebm", "vaebm_pc"]
    assert [block.title for block in board.blocks] == ["Ours"]
    board = boards([fid], columns=("is",))["generation"]
    assert {"vaebm_no_pc", "vaebm_pc"} <= set(systems(board))
    assert not any("without a published row" in block.title for block in board.blocks)


def test_what_a_selection_hides_is_not_denied() -> None:
    fid = Measurement("generation", "vaebm", "cifar10", "fid", 50.0, n=10, size="mini")
    other = Measurement("generation", "glow", "cifar10", "fd_x", 5.0, n=10, size="mini")
    for selection in ({"columns": ("is",)}, {"rows": ("glow",)}):
        text = " ".join(boards([fid, other], **selection)["generation"].footnotes)
        assert "nothing was measured" not in text


def test_a_control_is_held_against_the_systems_shown(rows: list[Measurement]) -> None:
    board = boards(rows, rows=("nvae", "codec_bytes"))["ood"]
    (told,) = [note for note in board.footnotes if note.startswith("A control without parameters")]
    assert "every measured system shown:" in told


def test_a_run_does_not_end_by_a_selection_of_what_it_has_not(rows: list[Measurement]) -> None:
    assert build_boards(rows, Selection(columns=("fd",)), strict=False) == {}
    assert build_boards(rows, Selection(rows=("nobody",)), strict=False) == {}
    assert build_boards(rows, Selection(columns=("svhn", "fd")), strict=False)
