"""benchmarks/langevin.py at its smallest: the bundled model, two images, one round."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from vaebm.errors import UserError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "langevin.py"
sys.path.append(str(SCRIPT.parent))  # as for a script there
MINI = ["--config", "mini", "--batch-size", "2", "--repeats", "1"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_langevin", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_a_row_per_variant_and_they_agree(
    script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "langevin.json"
    assert script.main([*MINI, "--memory", "", "--json", str(out)]) == 0
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows == ["step", script.STRAIGHTFORWARD, script.EPS_ONLY, script.FROZEN]
    record = json.loads(out.read_text())
    assert all(len(steps) == 1 and min(steps[0]) > 0 for steps in record["seconds"].values())
    assert record["difference"]["states"] < script.TOLERANCE
    # Not zero: the frozen gradient is another computation.
    assert 0 < record["difference"]["gradients"] < script.TOLERANCE
    rows = record["comparisons"]
    assert [row["what"] for row in rows] == [f"Langevin step: {name}" for name in (script.EPS_ONLY, script.FROZEN)]
    assert [row["wanted"] for row in rows] == [0.0, 1.5]
    for row, name in zip(rows, (script.EPS_ONLY, script.FROZEN), strict=True):
        wall = {way: record["seconds"][way][0][0] for way in (script.STRAIGHTFORWARD, name)}
        assert row["against"] == script.STRAIGHTFORWARD
        assert row["ratio"] == wall[script.STRAIGHTFORWARD] / wall[name]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_it_fails_when_a_variant_differs(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float
) -> None:
    honest = script.freeze

    def wrong(model: torch.nn.Module) -> torch.nn.Module:
        frozen = honest(model)
        frozen.energy.linear.weight.mul_(factor)
        return frozen

    monkeypatch.setattr(script, "freeze", wrong)
    with pytest.raises(RuntimeError, match="the variants differ"):
        script.main([*MINI, "--memory", ""])


def test_the_straightforward_step_asks_all_weights_and_leaves_no_gradient(script: ModuleType) -> None:
    model = script.build("mini", "cpu")
    asked: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda _grad, name=name: asked.append(name))
    gradients = script.straightforward(model, script.noise(model, 1, 0))
    assert len(gradients) == len(model.state_shapes)
    decoding = {name for name in dict(model.named_parameters()) if "dec_tower" in name or name.startswith("energy")}
    assert decoding <= set(asked)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_memory_is_that_of_a_process_of_its_own(script: ModuleType) -> None:
    given = SimpleNamespace(config="mini", device="cpu", threads=1)
    assert 2**26 < script.measured_memory(given, script.FROZEN, 2) < 2**34
    with pytest.raises(UserError, match="failed"):
        script.measured_memory(SimpleNamespace(config="midi", device="cpu", threads=1), script.FROZEN, 2)


def test_memory_is_extrapolated_on_a_straight_line(script: ModuleType) -> None:
    assert script.at_64({1: 3 * 2**30, 3: 5 * 2**30}) == "66.0 (extrapolated from 1 and 3)"
    assert script.at_64({2: 2**30, 64: 2**33}) == "8.0"
    assert script.at_64({}) == "not measured"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "minni"], "needed one of cifar10, mini"),
        (["--repeats", "0"], "needed at least 1"),
        (["--memory", "1,two"], "whole numbers"),
        (["--memory", "0"], "whole numbers"),
        (["--device", "abacus"], "not available"),
    ],
)
def test_mistakes_are_one_line(script: ModuleType, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        script.main(options)
