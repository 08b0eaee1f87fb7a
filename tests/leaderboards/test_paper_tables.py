"""All of the paper's tables: every published number stands in exactly one place, with its citation and its direction."""

from collections import Counter

import pytest

from evaluators.measurement import Measurement
from leaderboards import BOARDS, build_boards
from leaderboards.board import Board
from leaderboards.metrics import metric_of
from leaderboards.published import read_published

COMPUTED = ("mean",)  # of a published row of Table 6


@pytest.fixture(scope="module")
def boards() -> list[Board]:
    return [board for found in build_boards([]).values() for board in found]


def test_every_suite_with_tables_prints_the_papers() -> None:
    assert set(build_boards([])) == {row.suite for row in read_published()} == set(BOARDS) - {"tradeoff"}


def test_every_published_number_stands_in_exactly_one_place(boards: list[Board]) -> None:
    shown = Counter(
        (row.label, row.citation, cell.dataset, cell.metric, cell.value)
        for board in boards
        for _, row, column, cell in board.cells()
        if cell.value is not None and column.key not in COMPUTED
    )
    expected = Counter(
        (row.provenance["label"], row.provenance["citation"], row.dataset, row.metric, row.value)
        for row in read_published()
        if row.metric != "speedup_over_ncsn"  # stands in the row of VAEBM, not in one called "VAEBM vs NCSN"
    )
    ratio = [key for key in shown if key[3] == "speedup_over_ncsn"]
    assert [(key[0], key[4]) for key in ratio] == [("VAEBM (16 LD steps)", 12)]
    assert Counter({key: n for key, n in shown.items() if key not in ratio}) == expected


def test_directions_are_those_of_the_published_file(boards: list[Board]) -> None:
    for row in read_published():
        if row.suite != "ood":
            assert metric_of(row.metric).higher_is_better is row.protocol["higher_is_better"], row.metric
    (ood,) = [board for board in boards if board.name == "ood"]
    assert {column.higher_is_better for column in ood.columns} == {True}


def test_every_cell_says_where_it_is_from_or_why_it_is_empty(boards: list[Board]) -> None:
    for board in boards:
        for *_, column, cell in board.cells():
            if cell.value is None:
                assert cell.note in board.reasons()
            elif column.key not in COMPUTED:
                assert cell.measurement is not None
                assert cell.measurement.provenance["source"]
        assert any(note.startswith("Published rows: the paper's") for note in board.footnotes)


def test_titles_name_the_papers_table(boards: list[Board]) -> None:
    titles = " ".join(board.title for board in boards)
    for place in (
        "Table 1",
        "Table 2",
        "Table 3",
        "Table 4",
        "Table 5",
        "Table 6",
        "ection 5.1",
        "ection 5.5",
        "Appendix C.2",
    ):
        assert place in titles


def test_measured_rows_stand_below_their_system(boards: list[Board]) -> None:
    ours = [
        Measurement("ablation", "ablation_wgan_nvae_dec", "cifar10", "fid", 33.0, size="mini"),
        Measurement("ablation", "ablation_vaebm_kl", "cifar10", "fid", 44.0, size="mini"),
        Measurement("ablation", "mine", "cifar10", "fid", 55.0),
        Measurement("speed", "ncsn", "cifar10", "seconds_per_50_images", 66.0, 65.0, 67.0),
    ]
    made = build_boards(ours)
    table, appendix = made["ablation"]
    labels = [row.full_label for block in table.blocks for row in block.rows]
    assert labels == [
        "EBM on x (Du & Mordatch)",
        "WGAN w/ NVAE decoder",
        "WGAN w/ NVAE decoder (measured, mini)",
        "VAEBM",
        "mine",
    ]
    assert [row.full_label for row in appendix.blocks[0].rows][1].endswith("(measured, mini)")
    (speed,) = made["speed"]
    assert [row.full_label for row in speed.blocks[1].rows] == ["NCSN", "NCSN (measured)"]
    assert "only the ratio" in " ".join(speed.footnotes)


def test_without_published_rows_the_titles_do_not_claim_the_paper() -> None:
    from leaderboards import Selection

    metrics = {"speed": "seconds_per_50_images", "ablation": "fid"}
    ours = [Measurement(suite, "mine", "cifar10", metric, 66.0) for suite, metric in metrics.items()]
    for (board,) in build_boards(ours, Selection(origin="measured")).values():
        assert "paper" not in board.title
        assert not any("Titan" in note or "Table 4" in note for note in board.footnotes)
