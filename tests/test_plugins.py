"""Another package's systems and suites: installed as users install them, and every way in which one can be wrong."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import SYSTEMS, plugins
from baselines.load import facts, load_system
from vaebm import registry
from vaebm.errors import UserError
from vaebm.registry import Registry

ROOT = Path(__file__).parents[1]
PACKAGE = Path(__file__).parent / "plugin"
WARNING = (
    "warning: system 'glow' of package bright-models is not used: the name is taken by baselines.glow:GlowSystem; "
    "needed another name in its entry point\n"
)
# Python starts once for all commands of the front door; what each answered goes to a file.
DOOR = """
import contextlib, io, json, sys
import benchmark
from vaebm.cli import run
answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(benchmark.main, words)
    answers.append((code, out.getvalue(), err.getvalue(), "torch" in sys.modules))
print(json.dumps(answers))
"""


# --- the package, installed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Install the package beside, not into, the environment of the tests; then call the front door in a process that sees it."""
    folder, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    shutil.copytree(PACKAGE, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    install = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    python = lambda *words, **how: subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=600, check=True, **how
    )
    python("-m", "pip", "install", *install, "--target", site, folder / "plugin")
    environment = {key: value for key, value in os.environ.items() if key != "VAEBM_DATA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])

    def called(*commands: list[str | Path]) -> list[Any]:
        words = json.dumps([[str(word) for word in words] for words in commands])
        return json.loads(python("-c", DOOR, words, cwd=folder, env=environment).stdout)

    return called


def test_an_installed_package_is_listed_measured_and_replaces_nothing(door: Any, tmp_path: Path) -> None:
    places = ("--num-images", "20", "--no-progress", "--offline", "--cache", tmp_path / "cache", "--out")
    ood = ("--suite", "ood", "--ood", "svhn")
    (tmp_path / "level.txt").write_text("120")
    trained = ("--checkpoint", f"trained={tmp_path / 'level.txt'}")
    answers = door(
        ["--list", "systems"],
        ["--list", "suites"],
        [*ood, "--systems", "brightness,glow", *trained, *places, tmp_path / "ood"],
        ["--suite", "levels", "--systems", "brightness,glow", "--unit", "2", *places, tmp_path / "levels"],
        ["--suite", "levels", "--systems", "brightness", *places, tmp_path / "one"],
        [*ood, "--systems", "trained", *places, tmp_path / "refused"],
        [*ood, "--checkpoint", f"brightness={tmp_path / 'level.txt'}", *places, tmp_path / "refused"],
    )
    assert [err.count("warning:") for _, _, err, _ in answers] == [1, 0, 0, 0, 0, 0, 0]  # once per process
    assert answers[0][2] == WARNING
    table, suites, measured, halved, whole, *refused = answers

    assert not table[3], "listing imported torch"
    assert [line.split()[:4] for line in table[1].splitlines() if "bright-models" in line] == [
        ["brightness", "–", "plug-in", "of"],
        ["trained", "–", "plug-in", "of"],
    ]
    assert "  levels      Mean brightness of what the systems draw\n" in suites[1]

    assert measured[0] == 0, measured[2]
    rows = json.loads((tmp_path / "ood" / "ood.json").read_text())["measurements"]
    found = {row["system"]: row for row in rows if (row["dataset"], row["metric"]) == ("svhn", "auroc")}
    assert {"brightness", "trained", "glow"} <= set(found)
    assert found["glow"]["provenance"]["fingerprint"]["kind"] == "glow"  # the shipped one
    assert (found["trained"]["size"], found["brightness"]["size"]) == ("mini", "")
    assert found["trained"]["protocol"]["estimator"] == "exact"
    assert found["trained"]["provenance"]["fingerprint"]["weights"] == 120.0
    assert found["brightness"]["provenance"]["fingerprint"] == {}
    kept = len(list((tmp_path / "cache" / "scores").iterdir()))
    assert kept == 2 * (2 + 4)  # two sets; glow, trained and the four controls, but not what says nothing of itself

    assert (halved[0], whole[0]) == (0, 0), halved[2] + whole[2]
    levels = [
        {
            row["system"]: row["value"]
            for row in json.loads((tmp_path / run / "levels.json").read_text())["measurements"]
        }
        for run in ("levels", "one")
    ]
    assert set(levels[0]) == {"brightness", "glow"}
    assert 2 * levels[0]["brightness"] == levels[1]["brightness"]

    assert [(code, out) for code, out, *_ in refused] == [(2, ""), (2, "")]
    assert refused[0][2].endswith(
        "'trained' of package bright-models: brings no weights; give some with --checkpoint trained=PATH\n"
    )
    assert "'brightness' of package bright-models: takes no checkpoint; leave --checkpoint brightness=" in refused[1][2]
    assert not (tmp_path / "refused").exists()


# --- what an entry point may name, and what it may not -------------------------------------------------------------


class Plain:
    image_shape = (4, 4, 1)

    def score(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2, 3))


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mine`` is a system of another package."""
    monkeypatch.setattr(SYSTEMS, "packages", {"mine": "theirs", "gebm": "theirs"})
    for name in ("mine", "gebm"):
        monkeypatch.setitem(SYSTEMS._targets, name, f"{__name__}:Plain")


def test_a_class_without_arguments_is_enough(named: None) -> None:
    system = load_system("mine")
    assert isinstance(system, Plain)
    nothing = {"size": "", "dataset": "", "fingerprint": {}, "protocol": {}, "sampling": {}}
    assert facts(system) == {"image_shape": (4, 4, 1), **nothing}


def test_what_a_system_says_of_itself_is_taken() -> None:
    said = {"size": "small", "dataset": "svhn", "fingerprint": {"a": 1}, "protocol": {"b": 2}}
    system = type("Said", (Plain,), {**said, "recipe": {"steps": 3, "importance_samples": 5}})()
    assert facts(system) == {"image_shape": (4, 4, 1), **said, "sampling": {"steps": 3}}
    facts(system)["fingerprint"]["c"] = 3
    assert system.fingerprint == {"a": 1}


def test_a_name_that_has_a_card_but_no_class_is_free(named: None) -> None:
    assert isinstance(load_system("gebm"), Plain)


def test_it_is_called_with_what_its_signature_takes(named: None, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def some(seed, batch_size=3):
        seen.update(seed=seed, batch_size=batch_size)
        return Plain()

    def everything(**given):
        seen.update(given)
        return Plain()

    def weights(checkpoint, *, device="?"):
        seen.update(checkpoint=checkpoint, device=device)
        return Plain()

    given = {"device": "cpu", "batch_size": 7, "seed": 5}
    for target, path, expected in (
        (some, None, {"seed": 5, "batch_size": 7}),
        (everything, None, given),
        (everything, tmp_path, {**given, "checkpoint": tmp_path}),
        (weights, tmp_path, {"checkpoint": tmp_path, "device": "cpu"}),
    ):
        seen.clear()
        plugins.build("mine", target, path, **given)
        assert seen == expected


def changed(**attributes: Any) -> type:
    return type("Changed", (Plain,), attributes)


def needs_more(learning_rate):
    return Plain()


def needs_weights(checkpoint):
    return Plain()


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (Plain(), "found a Plain, needed a class or function that returns the system"),
        (sys, "found a module, needed a class or function"),
        (needs_more, "needs an argument 'learning_rate'; what it can take is device, batch_size, seed, checkpoint"),
        (needs_weights, "brings no weights; give some with --checkpoint mine=PATH"),
        (object, "found a object without score(images) and sample(seeds), needed one of them"),
        (lambda: None, "found a NoneType without score(images)"),
        (changed(score=3), "without score(images)"),
        (changed(image_shape=None), "found image_shape None, needed a tuple (H, W, C)"),
        (changed(image_shape=[4, 4, 1]), "found image_shape [4, 4, 1]"),
        (changed(image_shape=(4, 4)), "found image_shape (4, 4)"),
        (changed(image_shape=(4, 0, 1)), "found image_shape (4, 0, 1)"),
        (changed(image_shape=(4.0, 4, 1)), "found image_shape (4.0, 4, 1)"),
        (changed(size=32), "found size 32, needed a text"),
        (changed(dataset=None), "found dataset None, needed a text"),
        (changed(fingerprint="abc"), "found fingerprint 'abc', needed a dictionary that JSON can hold"),
        (changed(fingerprint={"path": Path("x")}), "found fingerprint {'path': PosixPath('x')}"),
        (changed(protocol={"sigma": float("nan")}), "found protocol {'sigma': nan}"),
        (changed(protocol={1: "x"}), "found protocol {1: 'x'}"),
        (changed(recipe=[("steps", 3)]), "found recipe [('steps', 3)]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_missing_is_one_line(named: None, monkeypatch: pytest.MonkeyPatch, target: Any, complaint: str) -> None:
    monkeypatch.setattr(Registry, "load", lambda self, name: target)
    with pytest.raises(UserError) as error:
        load_system("mine")
    assert str(error.value).startswith("system 'mine' of package theirs: ")
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_built_from_checkpoints_wants_one(named: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "load", lambda self, name: changed(from_checkpoint=classmethod(lambda cls, x: cls())))
    with pytest.raises(UserError, match=r"system 'mine' ships no checkpoint: give one with --checkpoint mine=PATH"):
        load_system("mine")


def test_an_error_inside_a_system_is_its_own(named: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed):
        raise ZeroDivisionError("theirs")

    monkeypatch.setattr(Registry, "load", lambda self, name: broken)
    with pytest.raises(ZeroDivisionError, match="theirs"):
        load_system("mine")


# --- the registry --------------------------------------------------------------------------------------------------


def entries(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    found = [EntryPoint(name.removesuffix("_again"), value, "vaebm.systems") for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def test_a_taken_name_is_one_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    entries(monkeypatch, ours="a:B", new="c:D", new_again="e:F")
    names = Registry("system", {"ours": "x:Y"}, group="vaebm.systems")
    assert (names["ours"], names["new"], set(names.packages)) == ("x:Y", "c:D", {"new"})
    assert capsys.readouterr().err.splitlines() == [
        "warning: system 'ours' of package a:B is not used: the name is taken by x:Y; needed another name in its entry point",
        "warning: system 'new' of package e:F is not used: the name is taken by c:D; needed another name in its entry point",
    ]


def test_the_same_entry_twice_is_no_clash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A package that is found in two folders of the path."""
    entries(monkeypatch, new="c:D", new_again="c:D")
    assert Registry("system", {}, group="vaebm.systems")["new"] == "c:D"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("no_such_module_there:X", "ModuleNotFoundError: No module named 'no_such_module_there'"),
        ("json:Nothing", "AttributeError: "),
        ("json", "AttributeError: "),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, target: str, why: str) -> None:
    entries(monkeypatch, new=target)
    names = Registry("system", {"ours": target}, group="vaebm.systems")
    with pytest.raises(UserError) as error:
        names.load("new")
    assert str(error.value).startswith(f"system 'new' of package {target}: {target} cannot be imported ({why}")
    assert str(error.value).endswith("mend or uninstall the package")
    with pytest.raises((ImportError, AttributeError)):  # our own mistake keeps its traceback
        names.load("ours")
