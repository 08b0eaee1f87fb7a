"""Runs that are killed at random moments end as ones that were not, and compute nothing twice that was complete."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

# A front door that keeps chunks in the store and writes a result file, without a network: as killed runs go, a second long.
DOOR = """
import argparse, time
from pathlib import Path
import numpy as np
from evaluators import result_file
from evaluators.array_store import ArrayStore
from evaluators.measurement import Measurement

parser = argparse.ArgumentParser()
for name in ("cache", "out", "suite"):
    parser.add_argument(f"--{name}")
given = parser.parse_args()
store = ArrayStore(Path(given.cache))

def draw(start, stop):
    time.sleep(0.06)
    return {"x": np.arange(start, stop) ** 2 % 7}

rows = store.compute({KEY}, 40, draw, chunk=5, label="squares")["x"]
out = Path(given.out)
out.mkdir(exist_ok=True)
row = Measurement("ood", "a", "b", "mean", float(rows.mean()) + {NOISE}, n=40)
result_file.write_results(result_file.Results("ood", [row], created="2030-01-01T00:00:00Z"), out / "ood.json")
time.sleep(0.1)
"""
GOOD = {"KEY": '{"of": "squares"}', "NOISE": "0"}


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kills", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["kills"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """The script in a project whose front door is the one above, with changes."""

    def with_door(**changes: str) -> ModuleType:
        door = DOOR
        for name, value in (GOOD | changes).items():
            door = door.replace(f"{{{name}}}", value)
        (tmp_path / "benchmarks").mkdir()
        shutil.copy(ROOT / "benchmarks" / "kills.py", tmp_path / "benchmarks")
        (tmp_path / "benchmark.py").write_text(door)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        return script(tmp_path / "benchmarks" / "kills.py")

    return with_door


def test_kills_leave_no_trace(kills: Callable[..., ModuleType], tmp_path: Path) -> None:
    record = kills().kill_again_and_again(["--suite", "ood"], 12, 0, tmp_path / "runs")
    assert record["differences"] == []
    assert record["repeated_rows"] == 0
    attempts = record["attempts"]
    killed = [one for one in attempts if one["killed_after"] is not None]
    assert (len(killed), record["kills"]) == (12, 12)
    assert attempts[0]["made"] == record["rows"] == 40
    for life in range(1, record["lives"] + 1):
        assert sum(one["made"] for one in attempts if one["life"] == life) == 40
    assert sum(one["found"] > 0 for one in attempts), "no kill left anything to go on from: move the moments"


def test_what_is_computed_again_is_seen(kills: Callable[..., ModuleType], tmp_path: Path) -> None:
    """As of a store whose key is never the same... which is the case that a row under its own key is made again."""
    module = kills()
    _, complete = module.attempt([], tmp_path / "a", 1, None, {})
    shutil.rmtree(tmp_path / "a" / "cache")
    again, _ = module.attempt([], tmp_path / "a", 1, None, complete)
    assert (again.repeated, again.made, again.found) == (40, 40, 40)


def test_a_number_that_differs_is_seen(kills: Callable[..., ModuleType], tmp_path: Path) -> None:
    module = kills(NOISE="time.time() * 1e-9")
    record = module.kill_again_and_again([], 1, 0, tmp_path / "runs")
    assert len(record["differences"]) >= 1
    assert ".measurements[0].value" in record["differences"][0]
    assert "1 differences" in module.report(record)


def test_times_are_not_compared_and_everything_else_is() -> None:
    module = script(ROOT / "benchmarks" / "kills.py")
    one = {"seconds": 1, "rows": [{"value": 0.1, "protocol": {"seconds_per_image": 2, "n": 3}}]}
    other = {"seconds": 2, "rows": [{"value": 0.1, "protocol": {"seconds_per_image": 1, "n": 3}}]}
    assert module.compare(*map(module.without_times, (one, other))) == []
    other["rows"][0]["protocol"]["n"] = 4
    other["more"] = 1
    found = module.compare(*map(module.without_times, (one, other)))
    assert [said.split(":")[0] for said in found] == [".rows[0].protocol.n", ".more"]
    assert len(module.compare({"rows": [1]}, {"rows": [1, 2]})) == 1


def test_half_a_chunk_is_not_complete(tmp_path: Path) -> None:
    module = script(ROOT / "benchmarks" / "kills.py")
    folder = tmp_path / "scores" / "key"
    folder.mkdir(parents=True)
    (folder / "0-5.json").write_text(json.dumps({"arrays": {"x": {"file": "0-5-x.npy"}}}))
    assert module.in_store(tmp_path) == {}
    (folder / "0-5-x.npy").write_text("")
    assert module.in_store(tmp_path) == {"key": set(range(5))}


def test_three_kills_of_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--suite", "ood", "--systems", "glow", "--num-images", "8", "--kills", "3"]
    assert script(ROOT / "benchmarks" / "kills.py").main([*options, "--json", str(tmp_path / "kills.json")]) == 0
    record = json.loads((tmp_path / "kills.json").read_text())
    assert (record["kills"], record["differences"], record["repeated_rows"]) == (3, [], 0)
    assert record["rows"] > 0
    assert "3 kills in" in capsys.readouterr().out


@pytest.mark.slow
def test_twenty_kills_of_a_sampling_and_scoring_run(tmp_path: Path) -> None:
    assert script(ROOT / "benchmarks" / "kills.py").main(["--json", str(tmp_path / "kills.json")]) == 0
    record = json.loads((tmp_path / "kills.json").read_text())
    assert len(record["kills_by_phase"]) > 2  # not all in one place
