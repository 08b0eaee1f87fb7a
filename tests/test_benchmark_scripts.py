"""The scripts behind the measured numbers of the documentation run, at the smallest size."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

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
