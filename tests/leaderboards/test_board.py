"""Table 6 and its companions: what stands where, what is bold, and why a cell is empty."""

import subprocess
import sys
from dataclasses import replace

import pytest

from evaluators.measurement import Measurement
from leaderboards import Selection, build_boards
from leaderboards.board import Board, Cell, Row
from leaderboards.published import read_published
from leaderboards.tables.footnotes import (
    Entry,
    describe_differences,
    describe_images,
    describe_origins,
    describe_scores,
)
from vaebm.errors import UserError


def board_of(rows: list[Measurement], name: str = "ood") -> Board:
    return next(board for board in build_boards(rows)["ood"] if board.name == name)


def row_of(board: Board, label: str) -> Row:
    return next(row for block in board.blocks for row in block.rows if row.full_label == label)


def cell_of(board: Board, label: str, column: str) -> Cell:
    keys = [c.key for c in board.columns]
    return row_of(board, label).cells[keys.index(column)]


def test_published_cells_equal_the_csv(rows: list[Measurement]) -> None:
    board = board_of(rows)
    published = [row for row in read_published() if row.suite == "ood"]
    assert len(published) == 26
    for row in published:
        assert cell_of(board, row.provenance["label"], row.dataset).value == row.value
    shown = [c for *_, c in board.cells() if c.origin == "published" and c.value is not None and c.dataset != "mean"]
    assert len(shown) == len(published)


def test_blocks_and_rows_stand_as_in_the_paper_with_measured_rows_below_their_counterparts(
    rows: list[Measurement],
) -> None:
    board = board_of(rows)
    assert [column.title for column in board.columns] == [
        *("SVHN", "Interp.", "CIFAR-100", "CelebA", "Mean", "my_textures")
    ]
    assert [block.title.partition(":")[0] for block in board.blocks] == [
        "Unsupervised training",
        "Supervised training",
        "Systems without a published row (measured)",
        "Diagnostics",
        "Controls",
    ]
    assert [row.full_label for row in board.blocks[0].rows] == [
        "NVAE",
        "NVAE (measured, mini)",
        "Glow",
        "Glow (measured, mini)",
        "IGEBM",
        "IGEBM (measured, mini)",
        "Divergence Triangle",
        "VAEBM",
        "VAEBM (measured, mini)",
    ]
    assert [row.full_label for row in board.blocks[1].rows] == ["JEM", "HDGE"]
    assert [row.full_label for row in board.blocks[2].rows] == ["my_density"]
    assert [row.full_label for row in board.blocks[3].rows] == ["VAEBM: log p(x) (mini)", "VAEBM: -E(x) (mini)"]
    assert board.blocks[4].rows[0].full_label == "high-pass energy"


def test_without_measurements_the_paper_alone_is_printed() -> None:
    boards = build_boards([])["ood"]
    assert [board.name for board in boards] == ["ood"]
    assert {cell.origin for *_, cell in boards[0].cells()} == {"published"}
    assert len(boards[0].columns) == 5


def test_the_mean_of_a_published_row_is_that_of_its_cells(rows: list[Measurement]) -> None:
    board = board_of(rows)
    assert cell_of(board, "VAEBM", "mean").value == pytest.approx((0.83 + 0.7 + 0.62 + 0.77) / 4)
    empty = cell_of(board, "Divergence Triangle", "mean")
    assert empty.value is None
    assert "four sets" in empty.note


def test_every_empty_cell_has_a_reason_and_each_reason_one_number(rows: list[Measurement]) -> None:
    for board in build_boards(rows)["ood"]:
        reasons = board.reasons()
        assert list(reasons.values()) == list(range(1, len(reasons) + 1))
        for *_, cell in board.cells():
            assert cell.value is not None or cell.note in reasons


def test_a_system_that_lacks_a_set_says_so(rows: list[Measurement]) -> None:
    fewer = [r for r in rows if (r.system, r.dataset) != ("glow", "svhn")]
    assert cell_of(board_of(fewer), "Glow (measured, mini)", "svhn").note == "Not measured."


def test_best_is_marked_only_among_its_like(rows: list[Measurement]) -> None:
    high = [
        replace(r, value=0.999) if (r.system, r.dataset, r.metric) == ("vaebm", "svhn", "auroc") else r for r in rows
    ]
    board = board_of(high)
    assert cell_of(board, "VAEBM", "svhn").rank == 1  # published, though a measured row stands above it
    assert cell_of(board, "VAEBM (measured, mini)", "svhn").rank == 1
    assert cell_of(board, "IGEBM", "svhn").rank != 1
    assert cell_of(board, "IGEBM", "cifar10_interp").rank == 1  # a tie
    assert cell_of(board, "HDGE", "svhn").rank == 1  # of its own block
    assert not any(cell.rank for block, *_, cell in board.cells() if block.title.startswith(("Diag", "Control")))


def test_rows_of_unequal_protocol_are_not_ranked(rows: list[Measurement]) -> None:
    other = [replace(r, protocol=r.protocol | {"resize": "nearest"}) if r.system == "vaebm" else r for r in rows]
    board = board_of(other)
    assert cell_of(board, "VAEBM (measured, mini)", "svhn").rank != 1
    assert cell_of(board, "IGEBM (measured, mini)", "svhn").rank == 1  # of those left with equal protocols


def test_how_a_system_makes_its_score_is_no_difference_of_protocol(rows: list[Measurement]) -> None:
    assert cell_of(board_of(rows), "VAEBM (measured, mini)", "svhn").rank == 1  # all estimators differ


def test_a_lower_fpr95_is_better(rows: list[Measurement]) -> None:
    board = board_of(rows, "ood_aupr_fpr95")
    block = board.blocks[1]
    first = [(row.cells[0].value, row.cells[0].rank == 1) for row in block.rows]
    assert min(first)[1]
    assert sum(best for _, best in first) == 1


def test_numbers_of_unequal_n_are_not_ranked() -> None:
    few, many = (Measurement("ood", name, "svhn", "auroc", v, n=n) for name, v, n in (("a", 0.1, 10), ("b", 0.2, 20)))
    assert not any(c.rank for *_, c in build_boards([few, many])["ood"][0].cells() if c.origin == "measured")
    board = build_boards([few, replace(many, n=10)])["ood"][0]
    assert sum(c.rank == 1 for *_, c in board.cells() if c.origin == "measured") == 1


def test_correlations_show_scores_before_their_terms_and_the_spread_of_terms(rows: list[Measurement]) -> None:
    board = board_of(rows, "ood_correlations")
    assert [row.full_label for row in board.blocks[0].rows][:4] == [
        *("VAEBM (mini)", "VAEBM: log p(x) (mini)", "VAEBM: -E(x) (mini)", "NVAE (mini)")
    ]
    assert cell_of(board, "NVAE (mini)", "high_pass_energy").value == -0.8813
    assert cell_of(board, "VAEBM: log p(x) (mini)", "codec_bytes").value == pytest.approx(0.1)
    assert cell_of(board, "VAEBM: -E(x) (mini)", "sd").value == pytest.approx(612.3 * 1.05)


@pytest.mark.parametrize("variant", ["neg_energy:pixel_std", "pixel_std:neg_energy", "neg_energy/pixel_std"])
def test_term_and_statistic_are_told_apart_in_either_order(variant: str) -> None:
    row = Measurement("ood", "vaebm", "cifar10", "rank_correlation", 0.25, variant=variant, role="diagnostic")
    assert cell_of(board_of([row], "ood_correlations"), "VAEBM: -E(x)", "pixel_std").value == 0.25


def test_coefficients_ascend_and_the_sentence_says_what_they_move(rows: list[Measurement]) -> None:
    board = board_of(rows[::-1], "ood_coefficient")
    assert [row.label for row in board.blocks[0].rows] == [f"c = {c}" for c in ("0", "0.1", "0.3", "1", "3", "10")]
    assert "scale of E moves the headline number: over the c shown, SVHN 0.29 to 0.82" in board.footnotes[0]
    bad = Measurement("ood", "vaebm", "svhn", "auroc_at_coefficient", 0.5, variant="c=much")
    with pytest.raises(UserError, match="c=much"):
        build_boards([bad])


def test_several_seeds_make_several_rows_and_empty_cells_join_them(rows: list[Measurement]) -> None:
    again = [replace(r, seed=1, value=r.value and r.value - 0.01) for r in rows if r.system == "vaebm" and r.value]
    board = board_of([*rows, *again])
    assert cell_of(board, "VAEBM (measured, mini, seed 1)", "svhn").value == pytest.approx(0.7113)
    assert cell_of(board, "VAEBM (measured, mini, seed 0)", "svhn").value == 0.7213
    assert "VAEBM_DATA" in cell_of(board, "VAEBM (measured, mini, seed 0)", "celeba").note
    seedless = [replace(r, seed=None) if r.value is None else r for r in rows]
    for seed in (0, 1):
        label = f"VAEBM (measured, mini, seed {seed})"
        assert "VAEBM_DATA" in cell_of(board_of([*seedless, *again]), label, "celeba").note


def test_two_sizes_make_two_rows(rows: list[Measurement]) -> None:
    board = board_of([*rows, *(replace(r, size="small") for r in rows if r.system == "vaebm")])
    assert row_of(board, "VAEBM (measured, small)").size == "small"


def test_two_values_for_one_cell_are_refused(rows: list[Measurement]) -> None:
    with pytest.raises(UserError, match=r"vaebm, auroc on svhn.*0.7213 and 0.5"):
        build_boards([*rows, replace(rows[0], value=0.5)])
    build_boards([*rows, rows[0]])  # the same measurement twice is one


def test_another_in_distribution_set_gets_its_own_table_without_the_papers_numbers(rows: list[Measurement]) -> None:
    row = replace(rows[0], dataset="kmnist", protocol={"in_distribution": "mnist"})
    boards = build_boards([*rows, row])["ood"]
    board = next(board for board in boards if board.name == "ood_mnist")
    assert [column.title for column in board.columns] == ["KMNIST"]
    assert {cell.origin for *_, cell in board.cells()} == {"measured"}
    assert "MNIST" in board.title
    assert "Table 6" not in board.title


def test_footnotes_say_protocols_warnings_and_what_a_control_reaches(rows: list[Measurement]) -> None:
    text = "\n".join(board_of(rows).footnotes)
    assert "Measured rows: 2,000 CIFAR-10 images against 2,000 of SVHN, Interp." in text
    assert "1,982 of CIFAR-100" in text
    assert "duplicates removed: 18 from CIFAR-100; seed 0" in text
    assert "95 % intervals (DeLong)" in text
    assert "Glow: exact log p(x)" in text
    assert "class labels" in text
    assert "never rank" in text
    assert "slides, confidence high" in text
    assert "every measured system shown: high-pass energy on SVHN (0.93)" in text


def test_a_table_has_few_footnotes(rows: list[Measurement]) -> None:
    assert len(board_of(rows).footnotes) <= 10
    for name in ("ood_aupr_fpr95", "ood_correlations", "ood_coefficient"):
        notes = board_of(rows, name).footnotes
        assert len(notes) <= 5
        assert notes[-1] == "Images and scores: see the AUROC table."


def entry(row: str, column: str, **more: object) -> Entry:
    fields = {key: more.pop(key) for key in ("mean", "control", "seed") if key in more}
    return Entry(row, column, "AUROC", more, **fields)


def test_images_are_told_once_for_rows_that_share_them_and_apart_for_others() -> None:
    shared = {"n_in": 300, "n_out": 300, "duplicates_removed": 0, "in_split": "test", "image_shape": "32x32x3"}
    same = [entry(row, column, **shared, seed=0) for row in "AB" for column in ("SVHN", "MNIST")]
    told = "300 CIFAR-10 test images (32x32x3) against 300 of each set; no duplicates found; seed 0."
    assert describe_images(same) == [f"Measured rows: {told}"]
    mean = entry("A", "Mean", n_in=300, n_out=[300, 300], mean=True)
    other = entry("mine", "SVHN", n_in=2000, n_out=1000, duplicates_removed=None, seed=1)
    assert describe_images([*same, mean, other]) == [
        f"A and B: {told}",
        "mine: 2,000 CIFAR-10 images against 1,000 of SVHN; duplicates not looked for; seed 1.",
        "Measured rows of different images are not ranked against each other.",
    ]
    controls = [entry(row, "SVHN", **shared, control=True) for row in ("edges", "bytes")]
    assert describe_images([*same, *controls, other])[0] == f"A, B and controls: {told}"
    assert describe_images([entry("A", "", n_in=9, seed=0), entry("A", "", n_in=9, seed=2)]) == [
        "Measured rows: 9 CIFAR-10 images; seeds 0, 2."
    ]
    assert describe_images([]) == []


def test_origins_say_what_is_no_official_test_image() -> None:
    inside = {"in_split": "test", "in_source": "root: x", "in_notes": "a"}
    notes = "18 exact duplicates of cifar10 removed; the rest as it is"
    assert describe_origins(
        [
            entry("A", "SVHN", **inside, out_split="test", out_source="root: x"),
            entry("A", "CIFAR-100", out_source="root: y", out_notes=notes),
            entry(
                "A", "Interp.", out_split="test", out_source="interpolated from cifar10: x", out_notes="a; mean of two"
            ),
        ]
    ) == [
        "Images: CIFAR-10 and SVHN: root, x; CIFAR-100: root, y. Not known to be official test images: CIFAR-100.",
        "CIFAR-10: a.",
        "CIFAR-100: the rest as it is.",
        "Interp: mean of two.",
    ]
    assert describe_origins([entry("mine", "SVHN")]) == []


def test_scores_controls_and_the_scale_of_the_energy() -> None:
    control = {"estimator": "statistic; sharper = in-distribution", "control": True}
    found = describe_scores(
        [
            entry("VAEBM", "SVHN", score="log p - E", estimator="ELBO", scale_of="neg_energy"),
            entry("mine", "SVHN", estimator="given"),
            entry("edges", "SVHN", **control),
        ]
    )
    assert found[:2] == [
        "Scores: VAEBM: log p - E (ELBO); mine: given.",
        "Signs of the controls, the same on every set: in-distribution means sharper (edges).",
    ]
    assert found[2].startswith("VAEBM: ")
    assert "another scale of E moves this row" in found[2]


def test_a_key_without_a_sentence_is_named_when_rows_of_a_column_differ_in_it() -> None:
    same = [entry("A", "X", common=True, sets=1), entry("A", "Y", common=True, sets=2)]
    assert describe_differences([*same, entry("B", "X", common=True, sets=1)]) == []
    assert describe_differences([*same, entry("B", "X", common=True, sets=1, input_noise={"sd": 0.03})]) == [
        "Not ranked against each other, input noise differs: none (A); sd 0.03 (B)."
    ]


def test_a_differing_protocol_is_told_and_not_ranked(rows: list[Measurement]) -> None:
    other = [replace(r, protocol=r.protocol | {"resize": "nearest"}) if r.system == "vaebm" else r for r in rows]
    assert any("resize differs: nearest (VAEBM)" in note for note in board_of(other).footnotes)
    fewer = [replace(r, protocol=r.protocol | {"n_in": 500}) if r.system == "vaebm" else r for r in rows]
    board = board_of(fewer)
    assert any(note.startswith("VAEBM: 500 CIFAR-10 images") for note in board.footnotes)
    assert cell_of(board, "VAEBM (measured, mini)", "svhn").rank != 1


def test_the_scale_of_an_energy_is_part_of_a_score_and_no_difference_of_protocol(rows: list[Measurement]) -> None:
    scaled = [replace(r, protocol=r.protocol | {"scale_of": "neg_energy"}) if r.system == "vaebm" else r for r in rows]
    assert cell_of(board_of(scaled), "VAEBM (measured, mini)", "svhn").rank == 1


def test_another_packages_suite_is_printed_with_a_column_per_metric() -> None:
    rows = [Measurement("theirs", name, "x", m, 0.5, seed=0) for name in ("vaebm", "own") for m in ("fid", "odd")]
    (board,) = build_boards(rows)["theirs"]
    assert [column.key for column in board.columns] == ["fid", "odd"]
    assert [row.full_label for row in board.blocks[0].rows] == ["VAEBM", "own"]


def test_importing_leaderboards_loads_neither_matplotlib_nor_pandas_nor_torch() -> None:
    code = (
        "import sys, leaderboards, leaderboards.tables.ood, leaderboards.tables.generation, leaderboards.tables.modes,"
    )
    code += " leaderboards.plots.ood, leaderboards.plots.generation, leaderboards.plots.modes; print([m for m in ('matplotlib', 'pandas',"
    code += " 'seaborn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_mean_over_other_sets_than_the_papers_says_so(rows: list[Measurement]) -> None:
    of = lambda sets: [
        replace(r, protocol=r.protocol | {"mean_of": sets}) if r.dataset == "mean" and r.metric == "auroc" else r
        for r in rows
    ]
    usual = board_of(of(["svhn", "cifar10_interp", "cifar100", "celeba"]))
    assert not any("Mean of measured rows" in note for note in usual.footnotes)
    other = board_of(of(["svhn", "my_textures"]))
    assert any(note.startswith("Mean of measured rows: over SVHN and my_textures.") for note in other.footnotes)
    mixed = [
        row if row.system == "vaebm" else usual for row, usual in zip(of(["svhn"]), of(["svhn", "celeba"]), strict=True)
    ]
    (told,) = [note for note in board_of(mixed).footnotes if note.startswith("Mean of measured rows")]
    assert "over SVHN (VAEBM); over SVHN and CelebA (" in told
    assert cell_of(board_of(mixed), "VAEBM (measured, mini)", "mean").rank == 0


def with_near_and_far(rows: list[Measurement], near: list[str], far: list[str]) -> list[Measurement]:
    """The means of near and of far sets beside every mean."""
    added = []
    for row in rows:
        if row.dataset == "mean" and row.metric == "auroc":
            for name, sets in (("mean_near", near), ("mean_far", far)):
                added.append(replace(row, dataset=name, protocol=row.protocol | {"mean_of": sets}, note=""))
    return rows + added


def test_means_of_near_and_far_sets_have_a_table_of_their_own(rows: list[Measurement]) -> None:
    measured = with_near_and_far(rows, ["cifar10_interp", "cifar100"], ["svhn", "celeba"])
    board = board_of(measured, "ood_near_far")
    assert [column.key for column in board.columns] == ["mean_near", "mean_far"]
    assert cell_of(board, "VAEBM", "mean_near").value == pytest.approx((0.7 + 0.62) / 2)
    assert cell_of(board, "VAEBM", "mean_far").value == pytest.approx((0.83 + 0.77) / 2)
    assert cell_of(board, "Divergence Triangle", "mean_far").value == pytest.approx((0.68 + 0.56) / 2)
    assert "both sets" in cell_of(board, "Divergence Triangle", "mean_near").note
    assert "Near mean: over Interp. and CIFAR-100; Far mean: over SVHN and CelebA." in board.footnotes
    assert {cell.rank for _, _, column, cell in board.cells() if column.key == "mean_far"} >= {1, 2}
    assert board_of(measured) == board_of(rows), "Table 6 stays as in the paper"
    assert "ood_near_far" not in [each.name for each in build_boards(rows)["ood"]]


def test_near_means_over_unlike_sets_name_their_rows_and_do_not_compete(rows: list[Measurement]) -> None:
    few = with_near_and_far([row for row in rows if row.system == "vaebm"], ["cifar100", "celeba"], ["svhn", "celeba"])
    many = with_near_and_far([row for row in rows if row.system != "vaebm"], ["cifar100", "svhn"], ["svhn", "celeba"])
    board = board_of(few + many, "ood_near_far")
    (told,) = [note for note in board.footnotes if note.startswith("Near mean: ")]
    assert "over CIFAR-100 and CelebA (VAEBM" in told
    assert "Far mean: over SVHN and CelebA." in told
    assert cell_of(board, "VAEBM (measured, mini)", "mean_near").rank == 0


def test_beside_another_in_distribution_set_the_means_stand_last(rows: list[Measurement]) -> None:
    moved = [
        replace(
            row, dataset=row.dataset.replace("celeba", "kmnist"), protocol=row.protocol | {"in_distribution": "mnist"}
        )
        for row in with_near_and_far(rows, ["kmnist", "cifar100"], ["svhn", "cifar10_interp"])
    ]
    (board,) = [board for board in build_boards(moved)["ood"] if board.name == "ood_mnist"]
    keys = [column.key for column in board.columns]
    assert keys == ["svhn", "cifar10_interp", "cifar100", "kmnist", "my_textures", "mean"]


def test_drawn_images_are_not_taken_for_unofficial_test_images(rows: list[Measurement]) -> None:
    origin = {
        "out_source": "drawn from seed 0",
        "out_notes": "one colour per image; seed 0",
        "in_source": "cut",
        "in_split": "test",
    }
    drawn = [replace(row, protocol=row.protocol | origin) for row in rows if row.dataset == "my_textures"]
    notes = board_of([replace(row, dataset="constant") for row in drawn]).footnotes
    assert "Constant: one colour per image; seed 0." in notes
    assert not any("Not known to be official" in note for note in notes)


def test_supervised_models_are_spoken_of_where_there_is_one(rows: list[Measurement]) -> None:
    text = lambda names: " ".join(build_boards(rows, Selection(rows=names))["ood"][0].footnotes)
    assert "Supervised models" in text(("jem", "vaebm"))
    assert "Supervised models" not in text(("vaebm",))


def test_footnotes_speak_of_the_columns_shown(rows: list[Measurement]) -> None:
    told = [replace(r, protocol=r.protocol | {"out_source": f"place of {r.dataset}", "in_source": "in"}) for r in rows]
    text = " ".join(build_boards(told, Selection(columns=("svhn",)))["ood"][0].footnotes)
    assert "place of svhn" in text
    assert "place of cifar100" not in text


def test_words_of_the_wrong_kind_in_a_protocol_do_not_stop_a_table(rows: list[Measurement]) -> None:
    odd = [replace(r, protocol=r.protocol | {"interval": 5, "in_source": 5, "in_notes": 7}) for r in rows]
    assert board_of(odd).footnotes
