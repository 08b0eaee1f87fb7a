"""benchmarks/metrics.py at its smallest: a few images, one round."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vaebm.errors import UserError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "metrics.py"
sys.path.append(str(SCRIPT.parent))  # as for a script there
SMALL = ["--images", "120", "--kid-images", "130", "--dim", "24", "--subsets", "3", "--size", "50"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_metrics", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_part_prints_a_table_and_its_values_agree(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for module in ("cleanfid.fid", "torch_fidelity", "prdc"):
        pytest.importorskip(module)
    out = tmp_path / "metrics.json"
    assert script.main([*SMALL, "--repeats", "2", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ") and line[2] != "|"]
    assert [row for row in rows if row.startswith("ours")] == ["ours", *["ours (float32 in)"] * 2, "ours"]
    assert rows[-1] == script.SUM
    assert "Memory of ours beyond the features" in printed
    record = json.loads(out.read_text())
    assert list(record["parts"]) == ["frechet", "kid", "prdc", "all"]
    assert record["setting"]["images"] == 120
    for part in record["parts"].values():
        assert all(len(rounds) == 2 and np.min(rounds) >= 0 for rounds in part["seconds"].values())
    assert 0 <= record["parts"]["prdc"]["memory_bytes"] < 3e8
    rows = record["comparisons"]
    assert [row["against"] for row in rows if row["what"].startswith("KID")] == list(record["parts"]["kid"]["seconds"])[
        1:
    ]
    assert [row["against"] for row in rows if row["what"].startswith("All")] == [script.SUM]
    found = record["parts"]["frechet"]
    row = next(row for row in rows if row["against"] == "torch-fidelity")
    (own, _), (theirs, _) = (found["seconds"][name][0] for name in ("ours", "torch-fidelity"))
    (own2, _), (theirs2, _) = (found["seconds"][name][1] for name in ("ours", "torch-fidelity"))
    assert row["ratio"] == pytest.approx((theirs / own + theirs2 / own2) / 2)
    assert row["unchanged"] == f"frechet {found['differences']['torch-fidelity']['frechet']:.0e}"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_it_fails_when_a_value_differs(script: ModuleType, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    pytest.importorskip("cleanfid.fid")
    pytest.importorskip("torch_fidelity")
    honest = script.frechet_distance
    calls: list[Callable] = []

    def wrong(*statistics: np.ndarray) -> float:
        calls.append(wrong)
        return honest(*statistics) * (1 if len(calls) == 1 else factor)  # the first sets the tolerance

    monkeypatch.setattr(script, "frechet_distance", wrong)
    with pytest.raises(RuntimeError, match="torch-fidelity: frechet is"):
        script.main([*SMALL, "--only", "frechet"])


def test_only_runs_what_it_names(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cleanfid.fid")
    pytest.importorskip("torch_fidelity")
    assert script.main([*SMALL, "--only", "frechet"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| ours") == 1
    assert "Frechet distance of statistics, 24 features" in printed


def test_a_missing_package_is_named_with_its_extra(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, package in (("prdc", "prdc"), ("cleanfid.fid", "clean-fid")):
        monkeypatch.setitem(sys.modules, module.split(".")[0], None)
        monkeypatch.delitem(sys.modules, "cleanfid.fid", raising=False)
        with pytest.raises(UserError, match=rf"{package}: not installed.*pip install -e \.\[peers\]"):
            script.peer(module)


def test_ratios_are_medians_within_rounds(script: ModuleType) -> None:
    contenders = [script.Contender("ours", dict, {}), script.Contender("theirs", dict, {}, 2.5)]
    times = {"ours": [(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)], "theirs": [(3.0, 2.0), (8.0, 4.0), (8.0, 8.0)]}
    assert script.report(contenders, times).splitlines()[-1] == "| theirs | 8 | 4 | 3 | 2 | >= 2.5 |"


def test_the_sum_of_the_peers_is_compared_where_each_has_a_part(script: ModuleType) -> None:
    contenders = [script.Contender(name, dict, {}) for name in ("ours", script.FRECHET_OF_ALL, "torch-fidelity: KID")]
    times = {"ours": [(1.0, 1.0)], script.FRECHET_OF_ALL: [(2.0, 9.0)], "torch-fidelity: KID": [(3.0, 9.0)]}
    apart = {"ours": {}, script.FRECHET_OF_ALL: {"frechet": 1e-9}, "torch-fidelity: KID": {"kid": 1e-5}}
    (row,) = script.comparisons("All metrics", contenders, times, apart)
    assert (row.against, row.reference, row.ratio, row.wanted) == (script.SUM, 5.0, 5.0, script.SUM_WANTED)
    assert row.unchanged == "frechet 1e-09, kid 1e-05"


def test_memory_is_that_of_a_process_of_its_own(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([*SMALL, "--peak-of-prdc"]) == 0
    assert 0 <= int(capsys.readouterr().out) < 3e8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "prcd"], "--only prcd: needed some of frechet, kid, prdc, all"),
        (["--images", "0"], "needed at least 1"),
        (["--repeats", "0"], "needed at least 1"),
        (["--image", "5"], "Did you mean --images"),
    ],
)
def test_mistakes_are_one_line(script: ModuleType, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        script.main(options)
