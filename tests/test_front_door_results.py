"""The front door on result files: tables, page, gate, history, reproduction. Each task once, end to end, and its mistakes."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import benchmark
from evaluators.result_file import read_results, write_results
from leaderboards import cli
from vaebm.cli import run

SMALL = (
    "--suite",
    "ood",
    "--systems",
    "glow,nvae",
    "--ood",
    "svhn",
    "--num-images",
    "40",
    "--no-progress",
    "--offline",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run; tests copy what they change."""
    folder = tmp_path_factory.mktemp("front")
    assert run(benchmark.main, [*SMALL, "--out", str(folder / "a"), "--cache", str(folder / "cache")]) == 0
    return folder / "a"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        code = run(benchmark.main, [str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def refused(answer: tuple[int, str, str], *parts: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_results_tables_page_and_history(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"ood.json", "ood.md", "ood.csv", "ood.tex", "ood_standalone.tex", "ood.bib", "ood_tables.json"} <= names
    assert {"index.html", "history.db", "ood_scores.npz", "ood_histograms.png"} <= names
    assert not [name for name in names if "partial" in name]
    results = read_results(finished / "ood.json")
    assert (results.suite, results.options["suite"], results.options["num_images"]) == ("ood", "ood", 40)
    assert results.created.endswith("Z")
    assert not {"out", "cache", "data_root", "json", "board", "precision"} & results.options.keys()


def test_the_papers_tables_need_no_result(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = call("--board", "--out", tmp_path)
    assert code == 0
    for table in ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Section 5.1", "section 5.5"):
        assert table in out
    assert (tmp_path / "index.html").is_file()
    assert (tmp_path / "speed.csv").is_file()


def test_a_board_shows_what_the_run_printed(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for place in (finished, finished / "ood.json"):
        code, _, _ = call("--board", place, "--out", tmp_path)
        assert code == 0
        for name in ("ood.md", "ood.csv", "ood.tex"):
            assert (tmp_path / name).read_text() == (finished / name).read_text()


def test_boards_are_joined_and_cut(finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    second = tmp_path / "b"
    words = ("--suite", "ood", "--systems", "nvae,igebm", "--ood", "svhn", "--num-images", "30", "--no-progress")
    assert call(*words, "--offline", "--out", second, "--cache", "none")[0] == 0
    code, out, _ = call("--board", finished, second, "--rows", "nvae,igebm", "--columns", "svhn", "--out", tmp_path)
    assert code == 0
    with (tmp_path / "ood.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert {cell["system"] for cell in cells} == {"nvae", "igebm"}
    assert {cell["column"] for cell in cells} == {"svhn"}
    measured = {cell["row"] for cell in cells if cell["board"] == "ood" and cell["origin"] == "measured"}
    assert measured == {"NVAE (measured, mini, a)", "NVAE (measured, mini, b)", "IGEBM (measured, mini)"}
    assert "Glow" not in out
    code, out, _ = call("--board", finished, "--measured", "--precision", "4", "--out", tmp_path)
    assert "(Table 6" not in out
    assert f"{_auroc(finished, 'glow'):.4f}" in out


def _auroc(folder: Path, system: str) -> float:
    rows = read_results(folder / "ood.json").rows
    (row,) = [r for r in rows if (r.system, r.dataset, r.metric, r.variant) == (system, "svhn", "auroc", "")]
    assert row.value is not None
    return row.value


def test_a_result_without_rows_is_not_the_papers_tables(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_results(_with_rows(read_results(finished / "ood.json"), []), tmp_path / "empty.json")
    refused(call("--board", tmp_path / "empty.json", "--out", tmp_path / "o"), "empty.json", "no measurement")
    assert not (tmp_path / "o").exists()


def test_blanks_around_names_do_not_matter(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    answers = [
        call("--board", finished, "--rows", words, "--out", tmp_path)[:2] for words in ("nvae,glow", "nvae, glow ")
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 0


def test_a_board_does_not_write_over_the_tables_of_a_run() -> None:
    assert cli.JOINED != cli.OUT
    assert cli.OUT in cli.JOINED.parents


def test_a_selection_cuts_the_tables_of_a_run_and_neither_ends_it_nor_cuts_the_page(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "o")
    (tmp_path / "o" / "ood.json").rename(tmp_path / "o" / "earlier.json")
    cached = ("--out", tmp_path / "o", "--cache", finished.parent / "cache")
    code, out, _ = call(*SMALL, *cached, "--rows", "nvae", "--columns", "svhn")
    assert code == 0
    assert "Glow" not in out
    assert "Glow" in (tmp_path / "o" / "index.html").read_text()
    code, out, err = call(*SMALL, *cached, "--columns", "fd", "--check", tmp_path / "b.json", "--update-baseline")
    assert (code, out) == (0, "")
    assert "no table has" in err
    assert (tmp_path / "b.json").is_file()
    refused(call("--board", tmp_path / "o", "--columns", "fd", "--out", tmp_path / "b"), "--columns fd", "svhn")


def test_files_that_cannot_be_used_are_named(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    text = (finished / "ood.json").read_text()
    for name, content, part in (
        ("cut.json", text[: len(text) // 2], "cut off"),
        ("edited.json", text.replace('"value": 0.', '"value": 0.9', 1), "checksum"),
        ("future.json", text.replace('"schema_version": 2', '"schema_version": 99', 1), "newer version"),
        ("other.json", "[1, 2]", "needed a result file"),
    ):
        (tmp_path / name).write_text(content)
        refused(call("--board", tmp_path / name, "--out", tmp_path / "out"), name, part)
        refused(call(*SMALL, "--check", tmp_path / name, "--out", tmp_path / "out", "--cache", "none"), name, part)
    refused(call("--board", tmp_path / "none.json"), "none.json")
    (tmp_path / "empty").mkdir()
    refused(call("--board", tmp_path / "empty"), "empty", "no result file")
    assert not (tmp_path / "out" / "ood.md").exists()


def test_a_broken_result_of_another_run_does_not_spoil_this_one(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    text = (finished / "ood.json").read_text()
    (tmp_path / "modes.json").write_text(text[: len(text) // 2])
    code, _, err = call(*SMALL, "--systems", "glow", "--out", tmp_path, "--cache", finished.parent / "cache")
    assert code == 0
    assert "index.html leaves out" in err
    assert "modes.json" in err
    assert (tmp_path / "index.html").is_file()


# --- gate ------------------------------------------------------------------------------------------------------------


def test_the_gate_passes_its_own_baseline_and_fails_a_worse_run(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    baseline = tmp_path / "baseline.json"
    assert call("--board", finished, "--check", baseline, "--update-baseline", "--out", tmp_path / "o")[0] == 0
    again = (*SMALL, "--out", tmp_path / "again", "--cache", finished.parent / "cache", "--check", baseline)
    code, out, _ = call(*again)
    assert code == 0
    assert (tmp_path / "again" / "check.md").is_file()
    stored = read_results(baseline)
    better = [_lifted(row) for row in stored.rows]
    write_results(_with_rows(stored, better), baseline)
    (tmp_path / "baseline.scores.npz").unlink()
    code, out, _ = call(*again)
    assert code == 1
    assert "regress" in out
    other = [_with_protocol(row) for row in stored.rows]
    write_results(_with_rows(stored, other), baseline)
    assert call(*again)[0] == 2


def _lifted(row):
    if row.metric != "auroc" or row.role != "headline" or row.value is None:
        return row
    return replace(row, value=0.999, low=0.998, high=0.9995)


def _with_protocol(row):
    return replace(row, protocol=row.protocol | {"image_shape": "1x1x1"})


def _with_rows(results, rows):
    return replace(results, rows=rows)


def test_a_baseline_does_not_lie_where_runs_are_written(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    shutil.copy(finished / "ood.json", tmp_path)
    refused(call(*SMALL, "--out", tmp_path, "--check", tmp_path / "ood.json"), "ood.json", "--out")
    assert (tmp_path / "ood.json").read_bytes() == (finished / "ood.json").read_bytes()


def test_a_baseline_takes_the_place_of_no_other_file(
    finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Found before anything is measured or written."""
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    for words in (("--board", finished), SMALL):
        answer = call(*words, "--check", tmp_path / "thesis.tex", "--update-baseline", "--out", tmp_path / "o")
        refused(answer, "thesis.tex")
        refused(call(*words, "--check", tmp_path / "loop.json", "--out", tmp_path / "o"), "loop.json")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "o").exists()


# --- history ---------------------------------------------------------------------------------------------------------


def test_history_lists_runs(finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    shutil.copy(finished / "history.db", tmp_path)
    again = (*SMALL, "--seed", "1", "--out", tmp_path, "--cache", "none", "--systems", "nvae")
    assert call(*again)[0] == 0
    code, out, _ = call("--history", "nvae", "--metric", "auroc", "--out", tmp_path)
    assert code == 0
    assert f"{_auroc(finished, 'nvae'):.2f}"[1:] in out
    assert (tmp_path / "history_nvae_auroc.png").is_file()
    refused(call("--history", "nvea", "--out", tmp_path), "Did you mean", "nvae")
    refused(call("--history", "nvae", "--metric", "aurok", "--out", tmp_path), "auroc")
    refused(call("--history", "nvae", "--out", tmp_path / "nowhere"), "history.db")


# --- one task at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--board", "--history", "nvae"), ("--board", "--history")),
        (("--board", "--suite", "ood"), ("--board", "--suite")),
        (("--suite", "ood", "--metric", "auroc"), ("--metric", "--history")),
        (("--history", "nvae", "--columns", "svhn"), ("--columns", "--board")),
        (("--board", "--pdf"), ("--pdf", "--suite")),
        (("--suite", "ood", "--update-baseline"), ("--update-baseline", "--check")),
        (("--board", "--published", "--measured"), ("--published", "--measured")),
        (("--board", "--rows", "vaebn"), ("--rows", "vaebm")),
        (("--board", "--columns", "fidd"), ("--columns", "fid")),
        (("--board", ""), ("--board", "empty")),
        (("--board", "--measured"), ("nothing is left", "--measured")),
        (("--board", "--precision", "-1"), ("--precision -1", "needed 0")),
        (("--board", "--precision", "99999999999999999999"), ("--precision",)),
        (("--board", "--systems", "nvae"), ("--systems", "--board", "--suite")),
        (("--board", "--json"), ("--json", "--board")),
        (("--history", "nvae", "--seed", "0"), ("--seed", "--history")),
        (("--curves", "nowhere", "--check", "x.json"), ("--check", "--suite")),
        (("--reproduce", "nowhere.json", "--check", "x.json"), ("--check", "--suite")),
        (("--curves", "nowhere"), ("nowhere",)),
        (("--reproduce", "nowhere.json"), ("nowhere.json",)),
        (("--check", "baseline.json"), ("--suite",)),
        (("--suite", "ood", "--check", "baseline.json"), ("--update-baseline",)),
    ],
)
def test_contradictions_are_named(
    call: Callable[..., tuple[int, str, str]], words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path
) -> None:
    refused(call(*words, "--out", tmp_path), *parts)
    assert list(tmp_path.iterdir()) == []


def test_curves_of_a_training_run(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lines = ["step,loss,rate", *(f"{step},{10 / (1 + step):.4f},0.001" for step in range(0, 100, 10))]
    (tmp_path / "run" / "log.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = call("--curves", tmp_path / "run", "--out", tmp_path / "out", "--pdf")
    assert code == 0
    assert {Path(line).suffix for line in out.splitlines()} == {".png", ".pdf"}
    assert all(Path(line).is_file() for line in out.splitlines())


# --- reproduction ----------------------------------------------------------------------------------------------------


def test_a_run_is_reproduced(finished: Path, call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    stored = tmp_path / "ood.json"
    shutil.copy(finished / "ood.json", stored)
    code, out, _ = call("--reproduce", stored, "--out", tmp_path / "again")
    assert code == 0, out
    first, second = (json.loads(path.read_text()) for path in (stored, tmp_path / "again" / "ood.json"))
    assert first["measurements"] == second["measurements"]
    assert first["options"] == second["options"]
