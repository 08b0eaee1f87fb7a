"""The scripts behind the measured numbers of the documentation run, at the smallest size."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from vaebm.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importance_samples_prints_a_row_per_k_and_the_bound_rises(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("importance_samples").main(["--num-images", "20", "--k", "1,8"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith(("| 1 ", "| 8 "))]
    assert len(rows) == 2
    assert float(rows[1][2]) > float(rows[0][2])


def test_sample_grid_holds_both_systems(tmp_path: Path) -> None:
    assert script("sample_grid").main(["--to", str(tmp_path / "grid.png"), "--num", "2"]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (4 * 65 - 1, 64)


def test_update_docs_fills_the_marks_and_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = script("update_docs")
    monkeypatch.setattr(update, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for page, mark in (("README.md", "ood"), ("docs/measured.md", "ood"), ("TRAINING.md", "bundled")):
        (tmp_path / page).write_text(f"before <!-- {mark}:begin -->old<!-- {mark}:end --> after")
    results = tmp_path / "results"
    results.mkdir()
    (results / "ood.md").write_text("### One\n\n| a |\n|---|\n| 1 |\n\n- note\n\n### Two\n\n| b |\n")
    record = {"command": "x --out y --seed 1", "seconds": 1.0, "machine": "m", "packages": {"torch": "t"}}
    (results / "ood.json").write_text(json.dumps(record))
    assert update.main([str(results)]) == 0
    readme = (tmp_path / "README.md").read_text()
    assert "| 1 |" in readme
    assert "| b |" not in readme
    assert "old" not in readme
    assert "`x --seed 1`" in readme
    assert (readme.startswith("before "), readme.endswith(" after")) == (True, True)
    assert "| b |" in (tmp_path / "docs/measured.md").read_text()


def test_update_docs_fills_a_mark_with_printed_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = script("update_docs")
    monkeypatch.setattr(update, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("a <!-- x:begin -->old<!-- x:end --> b")
    (tmp_path / "out.txt").write_text("| 1 |\n")
    assert update.main(["--text", f"page.md:x={tmp_path / 'out.txt'}"]) == 0
    assert (tmp_path / "page.md").read_text() == "a <!-- x:begin -->\n| 1 |\n<!-- x:end --> b"
    with pytest.raises(UserError, match="the marks"):
        update.main(["--text", f"page.md:y={tmp_path / 'out.txt'}"])


def test_update_docs_refuses_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no results of ood, generation, modes"):
        script("update_docs").main([str(tmp_path)])


def test_langevin_targets_start_alike_and_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    assert script("langevin_targets").main(["--num", "200", "--steps", "0,1", "--grid", str(grid)]) == 0
    rows = [
        [cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines() if "bundled" in line
    ]
    assert [row[3:5] for row in rows] == [["paper", "0"], ["paper", "1"], ["official", "0"], ["official", "1"]]
    assert rows[0][5:] == rows[2][5:]
    assert rows[1][5:] != rows[3][5:]
    assert grid.is_file()
