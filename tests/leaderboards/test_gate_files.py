"""What the gate compares with: a baseline is written whole, read strictly, and never mixed with another run's scores."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ood_rows
from synthetic import generation_rows, modes_rows

from evaluators.pairing import score_correlations
from evaluators.result_file import Results, read_results, write_results
from evaluators.score_files import load_scores, save_scores
from leaderboards.gate import check, write_baseline
from leaderboards.gate.files import join, read_baseline, scores_beside, store_baseline
from vaebm.errors import UserError

Run = tuple[Path, Results]
ROWS = {"ood": ood_rows, "generation": generation_rows, "modes": modes_rows}
WHEN = {"ood": "2026-01-01T00:00:01Z", "generation": "2026-01-03T00:00:01Z", "modes": "2026-01-02T00:00:01Z"}


def run(folder: Path, suite: str, *, scores: float | None = None, **more: object) -> Run:
    """A run in a folder, with scores beside it whose values start at ``scores``."""
    about: dict[str, object] = {
        "created": WHEN[suite],
        "command": f"python benchmark.py --suite {suite}",
        "seconds": 2.0,
    }
    about |= {
        "packages": {"torch": "2.8"},
        "python": "3.11",
        "commit": "abc",
        "machine": "Linux x86_64",
        "options": {"seed": 0},
    }
    results = Results(suite, ROWS[suite](), **{**about, **more})  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    path = folder / f"{suite}.json"
    write_results(results, path)
    if scores is not None:
        values = scores + np.arange(5.0)
        save_scores(folder / "ood_scores.npz", {"vaebm": {name: {"score": values} for name in ("cifar10", "svhn")}})
    return path, results


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [run(tmp_path / "results", suite, scores=0.0 if suite == "ood" else None) for suite in ROWS]


def test_runs_of_all_suites_become_one_file_that_passes_beside_them(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "new" / "baseline.json"
    write_baseline(runs, path)
    stored = read_results(path)
    assert stored.suite == "ood,generation,modes"
    assert stored.rows == [row for _, results in runs for row in read_back(results)]
    assert (stored.created, stored.seconds) == (WHEN["generation"], 6.0)
    assert stored.command.split(" && ") == [results.command for _, results in runs]
    assert (stored.packages, stored.python, stored.commit) == ({"torch": "2.8"}, "3.11", "abc")
    assert stored.options == {suite: {"seed": 0} for suite in ROWS}
    assert check(runs, path, tmp_path / "out", score_correlations) == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["baseline.json", "baseline.scores.npz"]


def read_back(results: Results) -> list[object]:
    """As a file has them: tuples are lists."""
    return [type(row).from_json(json.loads(json.dumps(row.to_json()))) for row in results.rows]


def test_one_run_is_stored_as_it_is(runs: list[Run], tmp_path: Path) -> None:
    write_baseline(runs[:1], tmp_path / "b.json")
    assert replace(read_results(tmp_path / "b.json"), rows=[]) == replace(read_results(runs[0][0]), rows=[])


def test_what_runs_do_not_share_is_listed(tmp_path: Path) -> None:
    one = run(
        tmp_path / "a",
        "ood",
        commit="abc",
        machine="Linux x86_64",
        packages={"torch": "2.8"},
        numerics={"a": 1, "b": 1},
    )
    two = run(tmp_path / "b", "modes", commit="def", machine="", packages={"torch": "2.9"}, numerics={"a": 1, "b": 2})
    joined = join([one, two])
    assert (joined.commit, joined.machine, joined.packages) == ("abc, def", "Linux x86_64", {"torch": "2.8, 2.9"})
    assert joined.numerics == {"a": 1}


def test_two_runs_of_one_suite_and_none_are_refused(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run(tmp_path / "again", "ood")
    write_baseline(runs, tmp_path / "whole.json")
    for call in (write_baseline, lambda runs, path: check(runs, path, tmp_path / "out")):
        with pytest.raises(UserError, match=r"two runs of suite ood, .*ood\.json and .*again/ood\.json; needed one"):
            call([*runs, other], tmp_path / "whole.json")
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="found no run"):
        write_baseline([], tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_a_baseline_that_nothing_can_be_tested_against_is_stored_with_a_warning(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, warning = tmp_path / "b.json", "has no cell that the gate can test"
    kept = Results("ood", [row for row in ood_rows() if row.role == "control"])
    assert kept.rows
    for poor in (kept, Results("ood", [replace(row, low=None) for row in ood_rows()]), Results("ood", [])):
        write_baseline([(tmp_path / "ood.json", poor)], path)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if warning in line]
        assert line.startswith(f"Warning: {path} ")
        assert len(read_results(path).rows) == len(poor.rows)
        assert check([(tmp_path / "ood.json", poor)], path, tmp_path / "out") == 2
        capsys.readouterr()
    write_baseline(runs, path, stream=sys.stderr)
    assert warning not in "".join(capsys.readouterr())
    write_baseline([(tmp_path / "ood.json", kept)], path, stream=sys.stderr)
    assert warning in capsys.readouterr().err


def test_scores_go_with_the_baseline_and_stale_ones_go(runs: list[Run], tmp_path: Path) -> None:
    path, kept = tmp_path / "b.json", tmp_path / "b.scores.npz"
    write_baseline(runs, path)
    assert load_scores(kept)["svhn"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert scores_beside(path) == kept
    write_baseline([run(tmp_path / "other", "ood", scores=7.0)], path)
    assert load_scores(kept)["svhn"][0] == 7.0
    write_baseline(runs[1:], path)
    assert not kept.exists()
    assert scores_beside(path) is None


def test_scores_of_a_run_are_those_beside_its_own_file_alone(runs: list[Run]) -> None:
    folder = runs[0][0].parent
    assert scores_beside(folder / "ood.json") == folder / "ood_scores.npz"
    assert scores_beside(folder / "generation.json") is None
    assert scores_beside(folder / "baseline.json") is None  # stored among the results of a later run
    # A baseline may be a run of another folder as it is.
    assert scores_beside(folder / "no" / "ood.json") is None


def test_nothing_is_half_written(runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.json"
    write_baseline([run(tmp_path / "first", "ood", scores=1.0)], path)
    before = {name: (tmp_path / name).read_bytes() for name in ("b.json", "b.scores.npz")}
    full = lambda self, content: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    write_bytes, scores = Path.write_bytes, runs[0][0].with_name("ood_scores.npz").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda self, c: (full if c == scores else write_bytes)(self, c))
    with pytest.raises(UserError, match=r"--check .*b\.json: cannot write there \(No space left on device\)"):
        write_baseline(runs, path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_is_no_place_for_a_baseline(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()
    with pytest.raises(UserError, match="found a folder"):
        write_baseline(runs, tmp_path / "b.json")
    with pytest.raises(UserError, match="--check"):
        check(runs, tmp_path / "b.json", tmp_path / "out")


def test_what_moves_is_printed_before_it_is_replaced(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.json"
    write_baseline(runs, path)
    assert capsys.readouterr().out == ""
    worse = [
        replace(row, value=row.value - 0.2, low=row.low - 0.2, high=row.high - 0.2)
        if (row.system, row.dataset, row.metric, row.role) == ("vaebm", "svhn", "auroc", "headline")
        and row.value
        and row.low
        and row.high
        else row
        for row in runs[0][1].rows
    ]
    write_baseline([(runs[0][0], replace(runs[0][1], rows=worse)), *runs[1:]], path)
    printed = capsys.readouterr().out
    assert printed.startswith("Replaces the old baseline; against it:\n")
    assert "regressed" in next(line for line in printed.splitlines() if line.startswith("vaebm (mini)  svhn"))
    assert "exit code" not in printed  # nothing passes or fails here
    assert "1 regressed" in printed.splitlines()[-1]
    assert "check.md" not in printed  # which is not written
    assert read_results(path).rows[0].value == worse[0].value
    write_baseline(runs, path, stream=sys.stderr)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "improved" in streams.err


def test_an_unreadable_baseline_is_replaced(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.json"
    write_baseline(runs, path)
    whole = path.read_text()
    assert "without a comparison" not in capsys.readouterr().out
    for text in (whole[:100], whole[:-9], edited(whole), whole.replace("[", "<", 1), "", " \n"):
        path.write_text(text)
        write_baseline(runs, path)
        assert "The old baseline is replaced without a comparison: --check" in capsys.readouterr().out
        assert len(read_results(path).rows) == sum(len(results.rows) for _, results in runs)


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b'import json  # reads {"schema_version": 2}\n',
        b"{}",
        b"{",
        b"[1, 2]",
        b'["schema_version"]',
        b'{"properties": {"schema_version": 2}}',
        b"\x93NUMPY\x01\x00",
        b"[" * 100_000,
    ],
)
def test_what_is_no_baseline_is_not_replaced(
    content: bytes, runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = tmp_path / "notes.txt", tmp_path / "notes.scores.npz"
    path.write_bytes(content)
    kept.write_bytes(b"mine")
    for store in (lambda: write_baseline(runs, path), lambda: store_baseline(runs, path)):
        with pytest.raises(UserError, match=r"--check .*notes\.txt: found a file that is no result file; .* --check"):
            store()
    assert (path.read_bytes(), kept.read_bytes()) == (content, b"mine")
    assert capsys.readouterr().out == ""


def test_a_link_to_itself_is_no_baseline(runs: list[Run], tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match=r"--check .*loop\.json: "):
        read_baseline(loop, [runs[0][0]])


def test_an_in_distribution_that_is_no_text_is_taken_for_one(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write_baseline(runs, path)
    odd = lambda row: replace(row, protocol={**row.protocol, "in_distribution": {"name": ["cifar10"]}})
    rows = list(map(odd, read_results(path).rows))
    write_results(replace(read_results(path), rows=rows), path)
    assert check(runs, path, tmp_path / "out", score_correlations) == 2  # other cells, so the old ones are missing
    same = [(runs[0][0], replace(runs[0][1], rows=list(map(odd, runs[0][1].rows)))), *runs[1:]]
    write_baseline(same, path, score_correlations)
    assert check(same, path, tmp_path / "out", score_correlations) == 0


def edited(text: str) -> str:
    document = json.loads(text)
    document["measurements"][0]["value"] = 0.99
    return json.dumps(document)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut off"),
        (edited, "edited"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 9'), "newer version"),
        (lambda text: "[]", "JSON of another kind"),
    ],
)
def test_a_baseline_that_cannot_be_trusted_is_refused(
    damage: Callable[[str], str], message: str, runs: list[Run], tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    write_baseline(runs, path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        check(runs, path, tmp_path / "out")
    assert str(error.value).startswith("--check ")
    assert not (tmp_path / "out").exists()


def test_a_missing_baseline_says_how_to_make_one(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file; .*--update-baseline"):
        check(runs, tmp_path / "none.json", tmp_path / "out")
    with pytest.raises(UserError, match="--update-baseline"):
        read_baseline(tmp_path / "none.json")


def test_a_run_is_no_baseline_for_itself(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found the run's own file"):
        check(runs, runs[0][0].parent / ".." / "results" / "ood.json", tmp_path / "out")
    # Asked before anything is measured, it is not overwritten first.
    with pytest.raises(UserError, match="elsewhere than in --out"):
        read_baseline(runs[0][0], [tmp_path / "results" / "ood.json"])
    assert read_baseline(runs[0][0], [tmp_path / "elsewhere" / "ood.json"]).suite == "ood"


def test_results_of_version_1_can_be_a_baseline(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    rows = [row.to_json() for row in runs[0][1].rows]
    path.write_text(json.dumps({"schema_version": 1, "command": "", "measurements": rows}))
    assert check(runs[:1], path, tmp_path / "out") == 0


def test_broken_scores_are_named(runs: list[Run], tmp_path: Path) -> None:
    write_baseline(runs, tmp_path / "b.json")
    (tmp_path / "b.scores.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"b\.scores\.npz: found no scores in it"):
        check(runs, tmp_path / "b.json", tmp_path / "out", score_correlations)
    assert check(runs, tmp_path / "b.json", tmp_path / "out") == 0
