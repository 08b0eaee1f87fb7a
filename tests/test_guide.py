"""docs/add_a_system.md, run as it is printed: its files are written, its package is installed, its commands are called."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "add_a_system.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MOST_LINES = 20
# What a test adds to a printed command: its folders, and less work where the numbers are not looked at.
SMALL = ("--no-progress", "--offline")
FEWER = {"--suite ood": ("--ood", "svhn"), "--suite generation": ("--metrics", "kd")}
# Python starts once for all commands of the front door.
DOOR = """
import json, sys
import benchmark
from vaebm.cli import run
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    if code := run(benchmark.main, words):
        sys.exit(code)
"""


@dataclass(frozen=True)
class Done:
    files: dict[str, str]
    commands: list[str]
    printed: str
    out: Path

    def rows(self, number: int, **wanted: str) -> list[dict]:
        """The rows that the front door's command ``number`` wrote."""
        places = [self.out / str(number) / f"{suite}.json" for suite in ("ood", "generation")]
        (path,) = filter(Path.is_file, places)
        rows = json.loads(path.read_text())["measurements"]
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    def value(self, number: int, **wanted: str) -> float:
        (row,) = self.rows(number, role="headline", **wanted)
        assert row["value"] is not None, row["note"]
        return row["value"]


def blocks() -> tuple[dict[str, str], list[str]]:
    """Return the guide's files, by the name in their first line, and its commands, in order."""
    found = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    files = {text.split("\n")[0].removeprefix("# "): text for language, text in found if language != "bash"}
    return files, [line for language, text in found if language == "bash" for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Do what the guide says."""
    folder, site, out = (tmp_path_factory.mktemp(name) for name in ("package", "site", "out"))
    files, commands = blocks()
    for name, text in files.items():
        (folder / name).write_text(text)
    environment = {key: value for key, value in os.environ.items() if key != "VAEBM_DATA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])
    called = lambda words: subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    door = []
    for command in commands:
        python, *words = shlex.split(command)
        assert python == "python"
        if words[:3] == ["-m", "pip", "install"]:  # not into the environment of the tests, and without network
            called([*words, "--target", str(site), "--no-deps", "--no-index", "--no-build-isolation", "--quiet"])
        elif words[0] == "benchmark.py":
            fewer = next((more for suite, more in FEWER.items() if suite in command and "--ood" not in command), ())
            places = ("--out", str(out / str(len(door))), "--cache", str(out / "cache"))
            door.append([*words[1:], *fewer, *(() if "--list" in words else (*SMALL, *places))])
        else:
            called(words)
    return Done(files, commands, called(["-c", DOOR, json.dumps(door)]).stdout, out)


def test_the_class_has_at_most_so_many_lines_and_imports_nothing_from_here() -> None:
    files, _ = blocks()
    for name in ("pink.py", "filtered.py"):
        lines = [line for line in files[name].splitlines()[1:] if line.strip()]
        assert 5 < len(lines) <= MOST_LINES, f"{name} has {len(lines)} lines"
        imports = [node for node in ast.walk(ast.parse(files[name])) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {getattr(node, "module", None) or node.names[0].name for node in imports}
        assert not {each for each in names if each.split(".")[0] in ("vaebm", "evaluators", "baselines")}


def test_the_list_shows_the_package(done: Done) -> None:
    (line,) = [line for line in done.printed.splitlines() if line.startswith("pink ")]
    assert "plug-in of my-models" in line
    assert any(line.startswith("filtered ") for line in done.printed.splitlines())


def test_the_class_is_measured_by_its_scores_and_by_its_samples(done: Done) -> None:
    assert re.search(r"^  pink +0\.\d\d \[", done.printed, re.MULTILINE)
    (row,) = done.rows(1, system="pink", dataset="svhn", metric="auroc")
    assert 0 < row["low"] <= row["value"] <= row["high"] < 1
    assert row["n"] == 1000
    assert row["protocol"]["estimator"].startswith("exact")
    assert {"spectrum", "code", "torch"} <= set(row["provenance"]["fingerprint"])
    assert done.value(2, system="pink", metric="kd_cifar10net") > 0


def test_weights_come_in_by_checkpoint(done: Done) -> None:
    (row,) = done.rows(3, system="filtered", dataset="svhn", metric="auroc")
    assert row["size"] == "mini"
    assert re.fullmatch(r"[0-9a-f]{64}", row["provenance"]["fingerprint"]["weights"])
    assert 0 < row["value"] < 1


def test_arrays_give_the_numbers_of_the_class(done: Done) -> None:
    """Without duplicates to remove, as on SVHN, there is no difference; samples are the same images."""
    assert done.value(4, system="mine", dataset="svhn", metric="auroc") == done.value(
        1, system="pink", dataset="svhn", metric="auroc"
    )
    assert done.value(5, system="mine", metric="kd_cifar10net") == pytest.approx(
        done.value(2, system="pink", metric="kd_cifar10net"), rel=1e-9
    )


def test_every_command_of_the_guide_was_called(done: Done) -> None:
    assert len(done.commands) == 9
    assert done.printed.count("$ ") == 6
