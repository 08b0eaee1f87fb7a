"""Tables 1 to 3 and Church with their companions: what stands where, what is ranked with what, what is refused."""

from dataclasses import replace

import pytest
from synthetic import NO_WEIGHTS, STEPS, generation_rows, row

from evaluators.measurement import Measurement
from leaderboards import build_boards, render_text
from leaderboards.board import Board, Cell, Row
from leaderboards.metrics import INCEPTION, METRICS, in_order, metric_column, split_metric
from leaderboards.published import read_deviations, read_published
from vaebm.errors import UserError

OFFICIAL = {"cifar10": "Table 1", "celeba64": "Table 2", "celebahq256": "Table 3", "lsun_church64": "Section 5.1"}


def boards(rows: list[Measurement]) -> dict[str, Board]:
    return {board.name: board for board in build_boards(rows)["generation"]}


def row_of(board: Board, label: str) -> Row:
    (found,) = [row for block in board.blocks for row in block.rows if row.full_label == label]
    return found


def cell_of(board: Board, label: str, column: str) -> Cell:
    return row_of(board, label).cells[[c.key for c in board.columns].index(column)]


@pytest.fixture
def made() -> dict[str, Board]:
    return boards(generation_rows())


@pytest.mark.parametrize("dataset", OFFICIAL)
def test_published_cells_equal_the_csv_for_each_data_set_of_the_paper(dataset: str) -> None:
    published = [r for r in read_published() if (r.suite, r.dataset) == ("generation", dataset)]
    board = next(iter(boards([row("mine", "fd_x", 1.0, dataset=dataset)]).values()))
    assert board.title.endswith(f"{OFFICIAL[dataset]} of the paper")
    for line in published:
        assert cell_of(board, line.provenance["label"], line.metric).value == line.value
    shown = [cell for *_, cell in board.cells() if cell.value is not None]
    assert len(shown) == len(published) > 0
    assert {cell.origin for cell in shown} == {"published"}


def test_blocks_stand_as_in_the_paper_with_measured_rows_below_their_counterparts(made: dict[str, Board]) -> None:
    board = made["generation"]
    assert [(c.title, c.higher_is_better) for c in board.columns] == [("IS", True), ("FID", False)]
    assert [block.title for block in board.blocks] == [
        *("Ours", "EBMs", "Other Likelihood Models", "Score-based Models", "GAN-based Models"),
        *("Systems without a published row (measured)", "Controls (measured)"),
    ]
    assert [row.full_label for row in board.blocks[0].rows] == [
        *("VAEBM w/o persistent chain", "VAEBM (measured, mini)", "VAEBM w/ persistent chain")
    ]
    labels = [row.full_label for row in board.blocks[2].rows]
    assert labels.index("NVAE (measured, mini)") == labels.index("NVAE") + 1
    assert [row.full_label for row in board.blocks[5].rows] == ["mine"]
    assert [row.full_label for row in board.blocks[6].rows] == ["test images"]
    assert any("unless its protocol says persistent_chain" in note for note in board.footnotes)


@pytest.mark.parametrize("protocol", [{"persistent_chain": True}, {"sampling": {"persistent_chain": True}}])
def test_a_vaebm_trained_with_a_persistent_chain_stands_below_that_row(protocol: dict[str, object]) -> None:
    board = boards([row("vaebm", "fid", 30.0, protocol=protocol)])["generation"]
    assert [row.full_label for row in board.blocks[0].rows][1:] == [
        "VAEBM w/ persistent chain",
        "VAEBM (measured, mini)",
    ]


def test_a_vaebm_of_another_table_stands_below_its_own_row() -> None:
    board = boards([row("vaebm", "fid", 30.0, dataset="celeba64")])["generation_celeba64"]
    assert [row.full_label for row in board.blocks[0].rows] == ["VAEBM", "VAEBM (measured, mini)"]
    assert not any("persistent" in note for note in board.footnotes)
    assert [c.key for c in board.columns] == ["fid"]


def test_without_measurements_all_of_the_papers_tables_are_printed() -> None:
    boards = build_boards([])["generation"]
    names = ["generation", "generation_celeba64", "generation_lsun_church64", "generation_celebahq256"]
    assert [board.name for board in boards] == names
    assert {cell.origin for board in boards for *_, cell in board.cells()} == {"published"}


def test_every_deviation_is_a_numbered_note_at_its_number(made: dict[str, Board]) -> None:
    board, deviations = made["generation"], read_deviations()
    labels = {
        r.system: r.provenance["label"] for r in read_published() if r.dataset == "cifar10" and r.suite == "generation"
    }
    told = 0
    for (table, system, metric), known in deviations.items():
        if table.startswith("Table 1 "):
            cell = cell_of(board, labels[system], metric)
            assert cell.note == known.note
            assert known.note in board.reasons()
            told += 1
    noted = [c for *_, c in board.cells() if c.origin == "published" and c.note and c.value is not None]
    assert len(noted) == told == 8
    assert "class-conditional" in render_text([board])


def test_published_numbers_are_ranked_among_themselves_but_not_those_of_another_protocol(
    made: dict[str, Board],
) -> None:
    board = made["generation"]
    best = {(row.full_label, column.key) for _, row, column, cell in board.cells() if cell.rank == 1}
    assert best == {
        *(("VAEBM w/ persistent chain", "fid"), ("GEBM", "fid"), ("NVAE", "is"), ("Glow", "fid")),
        *(
            ("Denoising Diffusion", "is"),
            ("Denoising Diffusion", "fid"),
            ("BigGAN", "is"),
            ("StyleGAN2 w/o ADA", "fid"),
        ),
    }
    assert not cell_of(board, "F-div EBM", "fid").comparable  # class-conditional


def test_numbers_of_other_features_never_share_a_table_with_fid(made: dict[str, Board]) -> None:
    assert list(made) == ["generation", "generation_cifar10net", "generation_steps_cifar10net"]
    for board in made.values():
        spaces = {split_metric(c.key)[1] for c in board.columns} - {""}
        assert len(spaces) == 1
    board = made["generation_cifar10net"]
    assert [c.title for c in board.columns] == [
        *("IS", "FD", "FD inf", "KD", "Precision", "Recall", "Density", "Coverage", "Authenticity", "NN ratio")
    ]
    assert [c.higher_is_better for c in board.columns] == [True, False, False, False, *[True] * 4, None, None]
    assert any("it is not FID" in note for note in board.footnotes)
    assert "cifar10net features" in board.title


def test_two_feature_spaces_make_two_tables() -> None:
    made = boards([row("mine", m, 0.5) for m in ("fd_cifar10net", "fd_dinov2_vitb14", "kid", "fid", "fd_own.module")])
    assert list(made) == [
        *(
            "generation",
            "generation_inception",
            "generation_cifar10net",
            "generation_dinov2_vitb14",
            "generation_own.module",
        )
    ]
    assert [c.key for c in made["generation_inception"].columns] == ["fid", "kid"]


def test_best_follows_the_direction_of_each_column(made: dict[str, Board]) -> None:
    board = made["generation_cifar10net"]
    assert cell_of(board, "mine", "fd_cifar10net").rank == 1
    assert cell_of(board, "mine", "is_cifar10net").rank == 1
    assert cell_of(board, "IGEBM (mini)", "recall_cifar10net").rank == 1
    assert not any(cell.rank for *_, c, cell in board.cells() if c.key == "nearest_ratio_cifar10net")
    assert not any(cell.rank for block, *_, cell in board.cells() if block.title.startswith("Controls"))


def test_sampling_recipes_do_not_decide_comparability_but_the_reference_and_n_do() -> None:
    rows = [row("vaebm", "fd_cifar10net", 3.0, protocol={"sampling": {"steps": 4}}), row("nvae", "fd_cifar10net", 5.0)]
    board = boards(rows)["generation_cifar10net"]
    assert cell_of(board, "VAEBM (mini)", "fd_cifar10net").rank == 1
    assert any("Samples: VAEBM mini: steps 4; NVAE mini: temperature 1." in note for note in board.footnotes)
    for other in (replace(rows[1], protocol=rows[1].protocol | {"reference": "cifar10 test"}), replace(rows[1], n=500)):
        board = boards([rows[0], other])["generation_cifar10net"]
        assert not any(cell.rank for *_, cell in board.cells())
        assert any(note.startswith("Not ranked against each other") for note in board.footnotes)


def test_protocol_is_told_once_and_metrics_of_their_own_k_apart(made: dict[str, Board]) -> None:
    text = "\n".join(made["generation_cifar10net"].footnotes)
    assert "k 3 (Precision and Recall), 5 (Density and Coverage)" in text
    assert text.count("N 10,000") == 1
    assert "reference cifar10 train, 50,000 images" in text
    assert "delete-group jackknife, 20 groups" in text


def test_controls_say_in_what_they_differ() -> None:
    rows = [
        row("mine", "fd_x", 3.0),
        row("test images", "fd_x", 1.0, role="control", n=2000, protocol={"reference": "half"}),
    ]
    text = "\n".join(boards(rows)["generation_x"].footnotes)
    assert "Controls differ from the systems: test images: N 2,000, reference half." in text
    assert "N 10,000" in text


def test_empty_cells_have_a_reason(made: dict[str, Board]) -> None:
    for board in made.values():
        for *_, cell in board.cells():
            assert cell.value is not None or cell.note in board.reasons()
    assert cell_of(made["generation"], "NVAE (measured, mini)", "is").note == NO_WEIGHTS
    assert "Not in published.csv" in cell_of(made["generation"], "GEBM", "is").note


def test_steps_ascend_with_their_time_and_the_controls_below(made: dict[str, Board]) -> None:
    board = boards(generation_rows()[::-1])["generation_steps_cifar10net"]
    assert [row.full_label for row in board.blocks[0].rows] == [f"steps = {steps}" for steps in STEPS]
    assert board.blocks[0].title == "VAEBM (mini)"
    assert cell_of(board, "steps = 8", "seconds_per_image").value == pytest.approx(0.01 + 0.0123 * 8)
    assert cell_of(board, "test images", "fd_cifar10net").value == 0.2841
    lowest = min(
        c.value for *_, column, c in board.cells() if column.key == "fd_cifar10net" and c.note == "" and c.value > 1
    )
    (best,) = [c for *_, column, c in board.cells() if column.key == "fd_cifar10net" and c.rank == 1]
    assert best.value == lowest
    assert not any(c.rank for *_, column, c in board.cells() if column.key == "seconds_per_image")
    assert any(note == "Samples: VAEBM mini: step size 8e-05, temperature 1." for note in board.footnotes)
    assert "steps" not in {row.variant[:5] for block in made["generation_cifar10net"].blocks for row in block.rows}


def test_without_times_there_is_no_column_of_times() -> None:
    rows = [
        row("vaebm", "fid", 3.0, role="diagnostic", variant="steps=4", protocol={"steps": 4, "seconds_per_image": 0.0})
    ]
    assert [c.key for c in boards(rows)["generation_steps_inception"].columns] == ["fid"]


@pytest.mark.parametrize("variant", ["steps=", "steps=many", "steps=-1", "steps=1.5"])
def test_a_number_of_steps_that_cannot_be_read_is_refused(variant: str) -> None:
    with pytest.raises(UserError, match=f"'{variant}', needed the form 'steps=8'"):
        boards([row("vaebm", "fid", 3.0, role="diagnostic", variant=variant)])


def test_a_distance_of_other_features_that_is_called_fid_is_refused() -> None:
    with pytest.raises(UserError, match="needed fd_cifar10net"):
        boards([row("mine", "fid_cifar10net", 3.0)])


def test_two_values_for_one_cell_are_refused() -> None:
    rows = generation_rows()
    with pytest.raises(UserError, match="found two measurements"):
        boards([*rows, replace(rows[0], value=0.5)])
    boards([*rows, rows[0]])  # the same measurement twice is one


def test_an_unknown_metric_and_another_variant_are_shown_and_not_dropped() -> None:
    rows = [
        row("mine", "vendi", 3.14159),
        row("mine", "fid", 9.0),
        row("mine", "fid", 8.0, role="diagnostic", variant="n=9"),
    ]
    made = boards(rows)
    assert cell_of(made["generation_other"], "mine", "vendi").value == 3.14159
    assert cell_of(made["generation"], "mine: n=9", "fid").value == 8.0
    assert made["generation"].blocks[-1].title == "Diagnostics (measured)"


def test_another_data_set_has_measured_rows_only() -> None:
    (board,) = boards([row("vaebm", "fid", 3.0, dataset="my_set")]).values()
    assert board.name == "generation_my_set_inception"
    assert {cell.origin for *_, cell in board.cells()} == {"measured"}
    assert "of the paper" not in board.title


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        *(("fid", ("fid", INCEPTION)), ("is", ("is", INCEPTION)), ("fid_infinity", ("fid_infinity", INCEPTION))),
        *(("fd_infinity_a_b", ("fd_infinity", "a_b")), ("fd_a_b", ("fd", "a_b")), ("sfd_x", ("sfd", "x"))),
        *(("nearest_ratio_x", ("nearest_ratio", "x")), ("modes", ("modes", "")), ("island", ("island", ""))),
    ],
)
def test_metric_and_features_are_told_apart(name: str, parts: tuple[str, str]) -> None:
    assert split_metric(name) == parts


def test_columns_come_in_one_order_and_unknown_ones_last() -> None:
    assert in_order({"zeta", "coverage_x", "fd_x", "is_x", "alpha"}) == ["is_x", "fd_x", "coverage_x", "alpha", "zeta"]
    assert in_order(set(METRICS)) == list(METRICS)
    assert metric_column("modes", " (of 9)").title == "Modes (of 9)"
