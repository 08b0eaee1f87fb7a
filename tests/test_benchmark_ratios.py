"""The table of ratios, from made-up benchmarks: what is kept, what is tried again, what stands in the table."""

import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaebm.cli import run
from vaebm.errors import UserError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # as for a script there
addresses, commands, comparison, peers, ratios = (
    importlib.import_module(name) for name in ("addresses", "commands", "comparison", "peers", "ratios")
)

ROW = comparison.Comparison.of(
    "KID", "torch-fidelity", [1.0, 2.0, 1.0], [2.0, 6.0, 5.0], setting="100 images", unchanged="kid 1e-09", wanted=2
)
HERE = {"processor": "Abacus 9", "cores": 2, "gpu": "", "system": "Linux x86_64", "torch": "2.15.0"}


# One ratio


def test_a_ratio_is_the_median_of_those_within_rounds() -> None:
    assert (ROW.ours, ROW.reference, ROW.rounds) == (1.0, 5.0, 3)
    assert (ROW.low, ROW.ratio, ROW.high) == (2.0, 3.0, 5.0)  # not 5 / 1
    assert ROW.coverage == 0.75


def test_one_round_has_no_interval() -> None:
    row = comparison.Comparison.of("a", "b", [2.0], [3.0], setting="", unchanged="")
    assert (row.ratio, row.low, row.high) == (1.5, None, None)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=9))
def test_a_ratio_turns_over_when_sides_are_changed(rounds: list[tuple[float, float]]) -> None:
    ours, theirs = map(list, zip(*rounds, strict=True))
    about: dict[str, Any] = {"setting": "", "unchanged": ""}
    one = comparison.Comparison.of("a", "b", ours, theirs, **about)
    other = comparison.Comparison.of("a", "b", theirs, ours, **about)
    if len(rounds) % 2:  # of an even number the median is a mean of two
        assert one.ratio * other.ratio == pytest.approx(1)
    if len(rounds) > 1:
        assert one.low * other.high == pytest.approx(1)
        assert one.low <= one.ratio <= one.high


def test_rounds_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        comparison.Comparison.of("a", "b", [1.0], [1.0, 2.0], setting="", unchanged="")


def test_a_row_goes_through_json() -> None:
    assert comparison.Comparison(**json.loads(json.dumps(ROW.to_json()))) == ROW


# The commands


def script(folder: Path, text: str) -> list[str]:
    file = folder / "script.py"
    file.write_text(text)
    return [sys.executable, str(file)]


def test_a_command_is_timed_and_passes_on_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "import os, sys, time; print('table'); print('round 1', os.environ['MORE'], file=sys.stderr); time.sleep(0.2)"
    )
    assert 0.2 <= commands.timed(script(tmp_path, text), {"MORE": "7"}) < 60
    assert capsys.readouterr() == ("", "round 1 7\n")


def test_a_command_that_fails_says_its_last_line(tmp_path: Path) -> None:
    text = "import sys; print('a note', file=sys.stderr); sys.exit('error: --device cuda: not available')"
    with pytest.raises(commands.CommandError, match="ended with exit code 1: --device cuda") as error:
        commands.timed(script(tmp_path, text))
    assert error.value.reason == "--device cuda: not available"


@pytest.mark.skipif(not commands.cores_here(), reason="the system does not tell which cores a process may use")
def test_a_command_gets_its_cores_and_this_process_keeps_its_own(tmp_path: Path) -> None:
    import os

    before = os.sched_getaffinity(0)
    text = f"import os; open({str(tmp_path / 'cores')!r}, 'w').write(str(sorted(os.sched_getaffinity(0))))"
    commands.timed(script(tmp_path, text), cores=commands.cores_here()[-1:])
    assert (tmp_path / "cores").read_text() == str(commands.cores_here()[-1:])
    assert os.sched_getaffinity(0) == before


def test_an_interrupted_command_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = commands.Popen

    def popen(*args: Any, **how: Any) -> Any:
        started.append(real(*args, **how))
        return started[-1]

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "Popen", popen)
    monkeypatch.setattr("builtins.print", interrupt)  # while its first line is passed on
    text = "import sys, time; sys.stderr.write('begun\\n'); sys.stderr.flush(); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        commands.timed(script(tmp_path, text))
    assert started[0].poll() is not None


# The collection


class Bench:
    """Stands in for the benchmarks: notes which are run, and fails or is killed where it is told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails: dict[str, str | BaseException] = {}

    def timed(self, command: Sequence[str], *_: Any) -> float:
        name = Path(command[1]).stem + "".join(re.findall(r" --only \w+", " ".join(command)))
        self.ran.append(name + (" cuda" if "cuda" in command else ""))
        failure = self.fails.get(self.ran[-1])
        file = Path(command[command.index("--json") + 1])
        if failure == "numbers disagree":
            file.write_text(json.dumps({"comparisons": [ROW.to_json()]}))
        if isinstance(failure, BaseException):
            raise failure
        if failure == "wrote nothing":
            return 1.0
        if failure is not None:
            raise commands.CommandError(command, 2, failure)
        file.write_text(json.dumps({"comparisons": [ROW.to_json()]}))
        return 1.0


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(ratios, "timed", bench.timed)
    monkeypatch.setattr(ratios, "machine", lambda: dict(HERE))
    return bench


def table(text: str) -> list[list[str]]:
    """The cells of every row but the header."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1:]]


ALL = [
    "langevin",
    "langevin cuda",
    *(f"metrics --only {part}" for part in ("frechet", "kid", "prdc", "all")),
    "extraction",
    "extraction cuda",
    "numerics",
    "numerics cuda",
    "scale_out",
    "warm",
]


def test_every_part_runs_once_and_stands_in_the_table(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "ratios.json"
    assert ratios.main(["--out", str(out)]) == 0
    assert bench.ran == ALL
    printed = capsys.readouterr()
    assert len(table(printed.out)) == len(ratios.PARTS)
    assert table(printed.out)[0] == ["KID", "torch-fidelity", "1", "5", "3 [2, 5]", ">= 2", "3", "kid 1e-09"]
    assert "Machine: Abacus 9, 2 cores, no GPU, Linux x86_64; torch 2.15.0." in printed.out
    assert "- warm: `python benchmarks/warm.py" in printed.out
    assert ": 100 images." in printed.out
    assert f"{len(ALL)} of {len(ALL)} parts to measure, about" in printed.err
    document = json.loads(out.read_text())
    assert list(document["parts"]) == list(ratios.PARTS)
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", part["began"]) for part in document["parts"].values())
    assert [path.name for path in out.parent.iterdir()] == ["ratios.json"]


@pytest.mark.parametrize("killed", ["langevin", "metrics --only prdc", "warm"])
def test_a_killed_run_goes_on_with_what_is_missing(bench: Bench, tmp_path: Path, killed: str) -> None:
    out = tmp_path / "ratios.json"
    bench.fails[killed] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ratios.main(["--out", str(out)])
    before = ALL[: ALL.index(killed)]
    assert bench.ran == [*before, killed]
    kept = json.loads(out.read_text())["parts"] if before else {}
    bench.ran, bench.fails = [], {}
    ratios.main(["--out", str(out)])
    assert bench.ran == ALL[len(before) :]
    document = json.loads(out.read_text())
    assert list(document["parts"]) == list(ratios.PARTS)
    assert {name: document["parts"][name] for name in kept} == kept


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("--device cuda: not available (no driver)", "--device cuda: not available (no driver)"),
        ("prdc: not installed | needed", "prdc: not installed / needed"),
        ("wrote nothing", "wrote no ratios (FileNotFoundError"),
    ],
)
def test_a_part_that_fails_says_why_and_is_tried_again(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: str, reason: str
) -> None:
    out = tmp_path / "ratios.json"
    bench.fails["extraction"] = failure
    assert ratios.main(["--out", str(out)]) == 0
    assert bench.ran == ALL
    (row,) = (row for row in table(capsys.readouterr().out) if row[4] == "not measured")
    assert row[0] == "extraction"
    assert row[-1].startswith(reason)
    bench.ran, bench.fails = [], {}
    ratios.main(["--out", str(out)])
    assert bench.ran == ["extraction"]
    assert "not measured" not in capsys.readouterr().out


def test_a_part_whose_numbers_disagree_shows_them_and_that(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.fails["warm"] = "numbers disagree"
    ratios.main(["--out", str(tmp_path / "ratios.json"), "--only", "warm"])
    (row, failed) = table(capsys.readouterr().out)
    assert row[0] == "KID"
    assert (failed[0], failed[4], failed[-1]) == ("warm", "failed", "numbers disagree")


def test_a_row_without_a_ratio_says_why(bench: Bench, tmp_path: Path) -> None:
    row = comparison.Comparison.missing("Inception features", "pytorch-fid", "not installed\nat all")
    assert list(ratios.cells(row)) == [
        "Inception features", "pytorch-fid", "", "", "not measured", "", "", "not installed at all",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("only", "ran"),
    [
        ("langevin", ["langevin", "langevin cuda"]),
        ("langevin-cuda,warm", ["langevin cuda", "warm"]),
        ("metrics", [name for name in ALL if name.startswith("metrics")]),
        ("metrics-kid", ["metrics --only kid"]),
        ("scale-out", ["scale_out"]),
    ],
)
def test_only_chooses_and_leaves_the_others_in_the_file(
    bench: Bench, tmp_path: Path, only: str, ran: list[str]
) -> None:
    out = tmp_path / "ratios.json"
    ratios.main(["--out", str(out), "--only", "extraction"])
    bench.ran = []
    ratios.main(["--out", str(out), "--only", only])
    assert bench.ran == ran
    assert len(json.loads(out.read_text())["parts"]) == len(ran) + 2


def test_fresh_measures_what_is_there(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "ratios.json"
    ratios.main(["--out", str(out)])
    ratios.main(["--out", str(out), "--only", "warm"])
    assert bench.ran == ALL
    ratios.main(["--out", str(out), "--only", "warm", "--fresh"])
    assert bench.ran == [*ALL, "warm"]
    assert len(json.loads(out.read_text())["parts"]) == len(ALL)


def test_quick_measures_smaller_into_another_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OUT", "QUICK_OUT"):
        monkeypatch.setattr(ratios, name, tmp_path / f"{name}.json")
    ratios.main(["--quick", "--only", "warm"])
    ratios.main(["--only", "warm"])
    quick, whole = (json.loads((tmp_path / f"{name}.json").read_text())["parts"] for name in ("QUICK_OUT", "OUT"))
    assert quick["warm"]["command"].startswith(whole["warm"]["command"] + " ")
    # The command decides what is done: a file of small ones is not taken for one of whole ones.
    bench.ran = []
    ratios.main(["--only", "warm", "--out", str(tmp_path / "QUICK_OUT.json")])
    assert bench.ran == ["warm"]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", ratios.PARTS)
def test_the_options_of_parts_are_known_to_their_scripts(
    name: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, *options = ratios.PARTS[name].words(quick)
    module = importlib.import_module(Path(path).stem)
    monkeypatch.setattr(module, "parse", lambda parser, arguments: seen.append(real(parser, arguments)) or stop())
    real: Callable[..., Any] = importlib.import_module("vaebm.cli").parse
    seen: list[Any] = []

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        module.main([*options, "--json", "part.json"])
    assert seen[0].json == Path("part.json")


def test_another_machine_is_refused_until_all_is_measured_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ratios.json"
    ratios.main(["--out", str(out), "--only", "warm,scale-out"])
    before = out.read_bytes()
    monkeypatch.setattr(ratios, "machine", lambda: {**HERE, "torch": "2.16.0"})
    with pytest.raises(UserError, match=r"was measured with torch 2\.15\.0, here it is 2\.16\.0"):
        ratios.main(["--out", str(out), "--only", "warm"])
    with pytest.raises(UserError, match="--fresh"):
        ratios.main(["--out", str(out), "--only", "warm", "--fresh"])  # scale-out would stay
    assert out.read_bytes() == before
    ratios.main(["--out", str(out), "--fresh"])
    assert json.loads(out.read_text())["machine"]["torch"] == "2.16.0"


def test_show_prints_the_table_of_a_file_and_measures_nothing(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ratios.json"
    ratios.main(["--out", str(out)])
    printed, bench.ran = capsys.readouterr().out, []
    ratios.main(["--show", str(out)])
    assert capsys.readouterr().out == printed
    assert not bench.ran


def test_two_runs_do_not_share_a_folder(bench: Bench, tmp_path: Path) -> None:
    from vaebm.lock import locked

    with locked(tmp_path, "--out"), pytest.raises(UserError, match="in use by"):
        ratios.main(["--out", str(tmp_path / "ratios.json")])
    assert not bench.ran


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "langevin,metrisc-kid"], "--only metrisc-kid: unknown. Did you mean 'metrics-kid'?"),
        (["--quik"], "Did you mean --quick"),
        (["--show", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--show", "other.json"], "needed a file that benchmarks/ratios.py wrote"),
        (["--out", "other.json"], "needed a file that benchmarks/ratios.py wrote"),
        (["--show", "text.json"], "needed a file that benchmarks/ratios.py wrote"),
    ],
)
def test_mistakes_are_one_line(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"kind": "other", "machine": {}, "parts": {}}')
    (tmp_path / "text.json").write_text("words")
    assert run(ratios.main, options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not bench.ran


def test_the_machine_is_named_without_its_places() -> None:
    found = ratios.machine()
    assert found["cores"] >= 1
    assert {"processor", "gpu", "system", "torch", "numpy", "OMP_NUM_THREADS"} <= found.keys()
    assert not re.search(r"[\s\"'=,]/\w+/\w", json.dumps(found))


# In the documentation


def test_pages_take_the_table_and_its_numbers(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "docs" / "results" / "ratios-here.json"
    ratios.main(["--out", str(out), "--only", "warm"])
    sources = addresses.Sources(tmp_path)
    assert sources.table("ratios-here") == ratios.report(ratios.read(out)).strip()
    found = sources.number("ratios-here/KID/torch-fidelity/times faster")
    assert (found.value, found.text) == (3.0, "3")
    with pytest.raises(UserError, match="found 0 cells"):
        sources.number("ratios-here/KID/prdc/times faster")
