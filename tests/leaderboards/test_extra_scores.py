"""Scores beyond the paper in the tables: a block of their own, ranked within itself, and a gate that they do not disturb."""

from typing import Any

import pytest

from evaluators.measurement import Measurement
from leaderboards import Selection, build_boards
from leaderboards.board import Block, Board
from leaderboards.gate import compare
from leaderboards.gate.comparison import Outcome

SETS = ("svhn", "cifar100", "mean")
BLOCK = "Scores beyond the paper (measured)"
VALUES = {"typicality": 0.89, "typicality:25": 0.97, "input_complexity:webp": 0.93}


def row(system: str, dataset: str, metric: str, value: float | None, variant: str = "", **more: Any) -> Measurement:
    interval = {} if value is None else {"low": value - 0.01, "high": value + 0.01}
    return Measurement(
        "ood", system, dataset, metric, value, **interval, n=more.pop("n", 200), seed=0, size="mini", variant=variant,
        role="diagnostic" if variant else "headline",
        protocol={"in_distribution": "cifar10", "n_in": 100, "n_out": 100} | more.pop("protocol", {}), **more,
    )  # fmt: skip


def rows() -> list[Measurement]:
    found = []
    for dataset in SETS:
        for metric in ("auroc", *(("aupr", "fpr95") if dataset != "mean" else ())):
            found.append(row("glow", dataset, metric, 0.06, protocol={"score": "log p(x), nats", "estimator": "exact"}))
            for score, value in VALUES.items():
                about = {"score": f"formula of {score}", "estimator": "s = log p(x), nats (exact)"}
                n = 8 if score.endswith("25") else 200
                found.append(row("glow", dataset, metric, value, f"score:{score}", protocol=about, n=n))
    found.append(row("glow", "svhn", "auroc", 0.05, "log_p"))
    reason = "has no scorer"
    found += [row("ncsn", dataset, "auroc", None, note=reason, n=None) for dataset in SETS]
    found += [
        row("ncsn", dataset, "auroc", 0.91, "score:score_norm", protocol={"score": "-||ds / dx||"}) for dataset in SETS
    ]
    return found


@pytest.fixture(scope="module")
def boards() -> dict[str, Board]:
    return {board.name: board for board in build_boards(rows())["ood"]}


def block(board: Board, title: str) -> Block:
    return next(block for block in board.blocks if block.title == title)


def test_they_stand_in_a_block_of_their_own_and_nowhere_else(boards: dict[str, Board]) -> None:
    board = boards["ood"]
    labels = [line.label for line in block(board, BLOCK).rows]
    assert labels == [
        *("Glow: typicality", "Glow: typicality (25)", "Glow: input complexity (webp)", "NCSN: score norm"),
    ]
    (terms,) = block(board, "Diagnostics: terms of the score (measured)").rows
    assert terms.label == "Glow: log p(x)"
    others = [line for other in board.blocks if other.title != BLOCK for line in other.rows]
    assert not any(line.variant.startswith("score:") for line in others)
    assert any(line.system == "ncsn" and line.cells[0].note == "has no scorer" for line in others)


def test_they_are_ranked_among_themselves_where_n_agrees(boards: dict[str, Board]) -> None:
    ranks = {line.label: line.cells[0].rank for line in block(boards["ood"], BLOCK).rows}
    # Batches of 25 count 8 values, not 200, and compete with nobody.
    assert ranks == {
        "Glow: typicality": 0,
        "Glow: typicality (25)": 0,
        "Glow: input complexity (webp)": 1,
        "NCSN: score norm": 2,
    }
    systems = [cell for line in boards["ood"].blocks[0].rows if line.system == "glow" for cell in line.cells]
    assert all(cell.rank == 0 for cell in systems)


def test_a_note_gives_each_formula_once_and_those_of_systems_stay(boards: dict[str, Board]) -> None:
    notes = boards["ood"].footnotes
    (told,) = [note for note in notes if note.startswith("Scores beyond the paper")]
    assert told.count("formula of typicality;") == 1
    assert "input complexity (webp): formula of input_complexity:webp" in told
    assert any("Glow mini: log p(x), nats (exact)" in note or "Glow: log p(x), nats (exact)" in note for note in notes)


def test_aupr_and_fpr95_have_their_blocks_with_their_directions(boards: dict[str, Board]) -> None:
    board = boards["ood_aupr_fpr95"]
    for title, higher in (("AUPR of scores beyond the paper", True), ("FPR95 of scores beyond the paper", False)):
        found = block(board, title)
        assert (found.higher_is_better, len(found.rows)) == (higher, 3)


def test_a_run_without_them_has_the_tables_it_had() -> None:
    plain = [measurement for measurement in rows() if not measurement.variant.startswith("score:")]
    board = build_boards(plain)["ood"][0]
    assert BLOCK not in [found.title for found in board.blocks]
    assert not any("beyond the paper" in note for note in board.footnotes)


def test_they_follow_their_system_when_rows_are_chosen() -> None:
    board = build_boards(rows(), Selection(rows=("ncsn",)))["ood"][0]
    assert [line.label for line in block(board, BLOCK).rows] == ["NCSN: score norm"]


def test_the_gate_shows_them_and_judges_the_papers_number_alone() -> None:
    worse = [
        row("glow", m.dataset, m.metric, 0.5, m.variant, protocol=m.protocol, n=m.n)
        if m.variant == "score:typicality"
        else m
        for m in rows()
    ]
    found = compare(worse, rows())
    about = {cell.outcome for cell in found if cell.row.variant.startswith("score:")}
    assert about == {Outcome.NOT_JUDGED}
    assert not [cell for cell in found if cell.outcome is Outcome.REGRESSED]
