"""benchmarks/scale_out.py, warm.py and extraction.py: what they compare and refuse, on made-up runs."""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluators.array_store import ArrayStore
from evaluators.measurement import Measurement
from evaluators.result_file import Results, write_results
from vaebm.cli import run

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # as for a script there
extraction, scale_out, warm = (importlib.import_module(name) for name in ("extraction", "scale_out", "warm"))

ROW = Measurement("generation", "vaebm", "cifar10", "fd", 1.5, 1.0, 2.0, n=4, protocol={"steps": 8})


def made_run(place: Path, seconds: float = 1.0, pixel: int = 7, value: float = 1.5, chunk: int = 4) -> Path:
    """A cache and a result file as a run leaves them; only ``pixel`` and ``value`` are more than time."""

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        images = np.full((stop - start, 2, 2, 3), pixel, np.uint8)
        return {"images": images, "seconds": np.full(stop - start, seconds)}

    ArrayStore(place / "cache" / "samples").compute({"weights": "9f"}, 4, rows, chunk=chunk)
    score = lambda start, stop: {"score": np.arange(start, stop, dtype=np.float64)}
    ArrayStore(place / "cache" / "scores").compute({"weights": "9f"}, 4, score, chunk=chunk)
    (place / "out").mkdir()
    row = replace(ROW, value=value, protocol={**ROW.protocol, "seconds_per_image": seconds})
    write_results(Results("generation", [row], seconds=seconds, command=str(place)), place / "out" / "generation.json")
    return place


# scale_out


def test_runs_that_differ_in_seconds_and_chunks_are_the_same(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "a"), made_run(tmp_path / "b", seconds=2.0, chunk=1)
    assert scale_out.compare(one, other) == []
    assert scale_out.what_is_the_same(one) == "all bytes the same (1 of samples, 1 of scores) and all 1 rows"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixel": 8}, "2 of 2 kept arrays, samples/"),  # a file of either has no fellow
        ({"value": 1.75}, "1 of 1 rows of results, generation 0 (vaebm, cifar10, fd)"),
    ],
)
def test_anything_else_that_differs_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (difference,) = scale_out.compare(made_run(tmp_path / "a"), made_run(tmp_path / "b", **change))
    assert difference.startswith(said)


def test_bytes_count_and_not_names_of_files(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "a"), made_run(tmp_path / "b")
    (file,) = (other / "cache" / "samples").rglob("*images*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert len(scale_out.compare(one, other)) == 1


def test_a_missing_array_and_a_missing_row_are_found(tmp_path: Path) -> None:
    one, other = made_run(tmp_path / "a"), made_run(tmp_path / "b")
    next((other / "cache" / "scores").rglob("*.npy")).unlink()
    write_results(Results("generation", [ROW, replace(ROW, metric="kd")]), one / "out" / "generation.json")
    assert len(scale_out.compare(one, other)) == len(scale_out.compare(other, one)) == 2


def test_sampling_and_scoring_is_what_the_warm_run_saves() -> None:
    seconds = {
        scale_out.ONE: [{"cold": 110.0, "warm": 10.0}, {"cold": 90.0, "warm": 10.0}],
        scale_out.MANY: [{"cold": 65.0, "warm": 15.0}, {"cold": 60.0, "warm": 20.0}],
    }
    given = SimpleNamespace(suite="ood", systems="vaebm", num_images=100, processes=2)
    inner, whole = scale_out.comparisons(given, seconds, "same")
    assert (inner.ours, inner.reference, inner.ratio, inner.wanted) == (45.0, 90.0, 2.0, 1.8)
    assert whole.ratio == pytest.approx((110 / 65 + 90 / 60) / 2)
    assert whole.wanted == 0


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Any, Any]]:
    """What the scripts would have run; each run leaves its cache and results behind."""
    seen: list[tuple[list[str], Any, Any]] = []

    def timed(command: Sequence[str], environment: Any = None, cores: Any = None) -> float:
        seen.append((list(command), environment, cores))
        place = Path(command[command.index("--out") + 1]).parent
        if not (place / "out").exists():
            made_run(place, value=float(len(seen)) if "changing" in command else 1.5)
            return 10.0 if "torch.distributed.run" not in command else 6.0
        if "changing" in command:
            row = replace(ROW, value=90.0 + len(seen))
            write_results(Results("generation", [row]), place / "out" / "generation.json")
        return 2.0

    for module in (scale_out, warm):
        monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(scale_out, "cores_here", lambda: [3, 5, 6])
    return seen


def test_scale_out_runs_each_way_cold_and_warm_on_its_cores(
    typed: list[tuple[list[str], Any, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scale.json"
    options = ["--repeats", "2", "--num-images", "50", "--systems", "nvae", "--suite", "ood", "--json", str(out)]
    assert scale_out.main(options) == 0
    many = ["torch.distributed.run" in command for command, *_ in typed]
    assert many == [False, False, True, True, True, True, False, False]  # who comes first changes
    assert [cores for *_, cores in typed] == [[3, 5] if several else [3] for several in many]
    assert all(environment["OMP_NUM_THREADS"] == "1" for _, environment, _ in typed)
    caches = [command[command.index("--cache") + 1] for command, *_ in typed]
    assert len(set(caches)) == 4
    assert caches[::2] == caches[1::2]
    for command, *_ in typed:
        words = " ".join(command)
        assert "--suite ood --systems nvae --num-images 50" in words
        assert ("--nproc-per-node 2 benchmark.py" in words) == ("torch.distributed.run" in words)
    rows = json.loads(out.read_text())["comparisons"]
    assert [row["ratio"] for row in rows] == [2.0, 10 / 6]
    assert "2 times faster (wanted >= 1.8) in 2 rounds; all bytes the same" in capsys.readouterr().out


def test_scale_out_fails_where_numbers_differ(typed: list[Any]) -> None:
    with pytest.raises(RuntimeError, match="2 processes do not give what one gives: 1 of 1 rows"):
        scale_out.main(["--systems", "changing"])
    assert len(typed) == 4  # after the first round


# warm


def test_warm_runs_the_same_command_twice(
    typed: list[tuple[list[str], Any, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "warm.json"
    options = ["--repeats", "2", "--num-images", "50", "--threads", "2", "--systems", "nvae", "--suite", "ood"]
    assert warm.main([*options, "--json", str(out)]) == 0
    commands = [command for command, *_ in typed]
    assert commands[0] == commands[1] != commands[2] == commands[3]
    assert "--suite ood --systems nvae --num-images 50 --threads 2" in " ".join(commands[0])
    document = json.loads(out.read_text())
    assert [(row["what"], row["ratio"], row["wanted"]) for row in document["comparisons"]] == [
        ("Warm rerun", 5.0, 10.0)
    ]
    assert document["seconds"]["warm"][0] == {"whole command": 2.0, "generation": 1.0}
    assert "Warm rerun, measuring generation: warm 1 s, cold 1 s: 1 times faster" in capsys.readouterr().out


def test_warm_fails_where_rows_differ(typed: list[Any]) -> None:
    with pytest.raises(RuntimeError, match=r"1 rows are not the same again: generation 0 \(vaebm, cifar10, fd\)"):
        warm.main(["--systems", "changing"])


# extraction


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inception is slow; its place takes a mean over pixels."""

    def means(images: np.ndarray) -> np.ndarray:
        return images.astype(np.float64).mean(axis=(1, 2))

    monkeypatch.setattr(extraction, "random_state", dict)
    monkeypatch.setattr(
        extraction, "load_extractor", lambda *_, **__: SimpleNamespace(extract=lambda x: {"features": means(x)})
    )
    peers = {
        "close": extraction.Peer("clean", lambda *_: lambda x: means(x) * (1 + 1e-6)),
        "far": extraction.Peer("clean", lambda *_: lambda x: means(x) * 1.01),
        "odd": extraction.Peer("clean", lambda *_: lambda x: means(x) * np.nan),
        "absent": extraction.Peer("clean", lambda *_: extraction.peer("torch_fidelity.nothing")),
    }
    monkeypatch.setattr(extraction, "PEERS", peers)


def test_extraction_compares_with_what_is_there(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    out = tmp_path / "extraction.json"
    assert extraction.main(["--only", "close,absent", "--repeats", "3", "--images", "5", "--json", str(out)]) == 0
    close, absent = json.loads(out.read_text())["comparisons"]
    assert (close["against"], close["rounds"]) == ("close", 3)
    assert close["unchanged"] == "features 1e-06 of their norm"
    assert close["setting"].startswith("5 images of 32x32, batches of 8")
    assert absent["ratio"] is None
    assert "torch-fidelity: not installed" in absent["reason"]
    assert "not compared with absent: torch-fidelity: not installed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["far", "odd"])
def test_extraction_fails_where_features_differ(small: None, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"differ from those of {name} by"):
        extraction.main(["--only", name, "--repeats", "1", "--images", "2"])


def test_features_from_the_store_are_compared_with_extracted_ones(tmp_path: Path) -> None:
    out = tmp_path / "kept.json"
    options = ["--only", "kept", "--kept-images", "40", "--repeats", "2", "--json", str(out)]
    assert extraction.main(options) == 0
    (row,) = json.loads(out.read_text())["comparisons"]
    assert (row["rounds"], row["unchanged"]) == (2, "moments bit for bit the same")


@pytest.mark.slow
def test_every_package_gives_our_features(tmp_path: Path) -> None:
    out = tmp_path / "extraction.json"
    assert extraction.main(["--images", "1", "--batch-size", "1", "--repeats", "1", "--json", str(out)]) == 0
    for row in json.loads(out.read_text())["comparisons"]:
        assert row["reason"] == ""
        assert row["ratio"] > 0


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (scale_out, ["--processes", "4"], "--processes 4: found 3 cores"),
        (scale_out, ["--processes", "1"], "needed at least 1, 1 and 2"),
        (scale_out, ["--repeats", "0"], "needed at least 1, 1 and 2"),
        (scale_out, ["--image", "5"], "unknown option --image"),
        (warm, ["--num-images", "0"], "needed at least 1 of each"),
        (warm, ["--suites", "all"], "Did you mean --suite"),
        (extraction, ["--only", "clean-fidelity"], "--only clean-fidelity: needed some of torch-fidelity"),
        (extraction, ["--batch-size", "0"], "needed at least 1 of each"),
        (extraction, ["--device", "abacus"], "not available"),
    ],
)
def test_mistakes_are_one_line(
    typed: list[Any],
    module: ModuleType,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(module.main, options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not typed
