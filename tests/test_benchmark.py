"""The front door: every option takes effect, every mistake is one line and exit code 2, and nothing is half-written."""

import csv
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

import benchmark
import leaderboards
from baselines import SYSTEMS
from baselines.load import read_card
from evaluators import SUITES
from vaebm import cli
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.data import cuts, load_images

ROOT = Path(benchmark.__file__).parent
BUNDLED = [name for name in SYSTEMS if (card := read_card(name)) and "cifar10" in card.bundled]
TERMS = {"vaebm": ("log_p", "neg_energy")}
CONTROLS = {"high_pass_energy", "total_variation", "pixel_std", "codec_bytes"}
SMALL = ("--suite", "ood", "--systems", "glow", "--ood", "svhn", "--num-images", "20", "--no-progress")
TABLES = {"ood.md", "ood.csv", "ood.tex", "ood_standalone.tex", "ood_tables.json", "ood.bib", "index.html"}
FILES = TABLES | {"history.db", "ood.json", "ood_scores.npz", "ood_histograms.png", "ood_roc.png"}


@dataclass(frozen=True)
class Run:
    """What one call of the front door did; its result files are read at once, before the next call replaces them."""

    code: int
    stdout: str
    stderr: str
    out: Path
    document: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, code: int, stdout: str, stderr: str, out: Path) -> "Run":
        if code != 0:
            return cls(code, stdout, stderr, out)
        with np.load(out / "ood_scores.npz") as file:
            arrays = dict(file)
        return cls(code, stdout, stderr, out, json.loads((out / "ood.json").read_text()), arrays)

    def value(self, system: str, dataset: str, metric: str = "auroc", variant: str = "") -> float:
        (row,) = self.rows(system=system, dataset=dataset, metric=metric, variant=variant)
        return row["value"]

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        rows = self.document["measurements"]
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    def numbers(self) -> list[tuple[Any, ...]]:
        keys = ("system", "dataset", "metric", "role", "variant", "value", "low", "high", "n")
        return [tuple(row[key] for key in keys) for row in self.document["measurements"]]

    def scores(self, system: str, dataset: str) -> np.ndarray:
        return self.arrays[f"{system}/{dataset}/score"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundled images only, whatever the machine has; threads as they were."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Call the front door as ``__main__`` does, with files in ``tmp_path / "out"`` unless told otherwise."""

    def called(*arguments: str | Path) -> Run:
        words = [str(word) for word in arguments]
        out = Path(words[words.index("--out") + 1]) if "--out" in words else tmp_path / "out"
        words += [] if "--out" in words else ["--out", str(out)]
        words += [] if "--cache" in words else ["--cache", str(cache)]
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            if "--pdf" not in words:  # drawing is half the time of a small run; the whole run below draws, too
                patch.setattr(leaderboards, "write_plots", lambda *_, **__: [])
            code = cli.run(benchmark.main, words)
        return Run.of(code, *capsys.readouterr(), out)

    return called


@pytest.fixture
def small(call: Callable[..., Run]) -> Callable[..., Run]:
    """The smallest run there is, and more words; the last of a repeated option counts."""
    return lambda *more: call(*SMALL, *more)


def refused(run: Run, *parts: str) -> None:
    """One line on stderr that names the mistake, exit code 2, nothing on stdout and no file."""
    assert run.code == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    for part in parts:
        assert part in run.stderr
    assert not run.out.exists() or run.out.is_file() or list(run.out.iterdir()) == []


def subprocess_of(*words: str | Path, **variables: str) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "VAEBM_DATA"} | variables
    command = [sys.executable, str(ROOT / "benchmark.py"), *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def glow_files(folder: Path) -> Path:
    """A copy of the bundled Glow, to be spoiled."""
    folder.mkdir(parents=True, exist_ok=True)
    source = read_card("glow").path()
    for file in (source, source.with_suffix(".json")):
        shutil.copy(file, folder)
    return folder / source.name


# --- the whole command ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    run: Run
    folder: Path
    words: tuple[str, ...]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Whole:
    """Every bundled system on every set, 40 images each, as a process of its own: streams and exit code count."""
    out = tmp_path_factory.mktemp("whole") / "new" / "out"
    words = ("--suite", "ood", "--num-images", "40", "--out", str(out), "--cache", str(cache))
    process = subprocess_of(*words)
    stdout, stderr = process.communicate()
    return Whole(Run.of(process.returncode, stdout, stderr, out), cache, words)


def test_the_table_goes_to_stdout_and_progress_to_stderr(whole: Whole) -> None:
    run = whole.run
    assert run.code == 0, run.stderr
    assert run.stdout.startswith("Out-of-distribution detection (Table 6 of the paper)")
    for word in ("NVAE", "Glow", "CIFAR-100", "high-pass energy", "measured, mini"):
        assert word in run.stdout
    assert "img/s" not in run.stdout
    assert "files in" not in run.stdout
    assert "glow on svhn" in run.stderr
    assert f"files in {run.out}" in run.stderr.splitlines()[-1]
    assert max(map(len, run.stdout.splitlines())) <= 120


def test_every_system_is_measured_on_every_set_that_is_there(whole: Whole) -> None:
    run = whole.run
    assert run.code == 0
    for name in (*BUNDLED, *CONTROLS):
        for dataset in ("svhn", "cifar10_interp", "cifar100"):
            (row,) = run.rows(system=name, dataset=dataset, metric="auroc", variant="")
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
            assert row["seed"] == 0
            assert row["n"] == 80 - (row["protocol"]["duplicates_removed"])
        (celeba,) = run.rows(system=name, dataset="celeba", metric="auroc", variant="")
        assert celeba["value"] is None
        assert "VAEBM_DATA" in celeba["note"]
    for name in set(BUNDLED) & set(TERMS):
        assert {row["variant"] for row in run.rows(system=name, role="diagnostic", metric="auroc")} == set(TERMS[name])


def test_files_agree_with_each_other_and_nothing_is_left_half_written(whole: Whole) -> None:
    run = whole.run
    expected = FILES | ({"ood_coefficient.png"} if set(BUNDLED) & set(TERMS) else set())
    assert {path.name for path in run.out.iterdir()} == expected
    cells = list(csv.DictReader(io.StringIO((run.out / "ood.csv").read_text())))
    (cell,) = [
        c for c in cells if (c["board"], c["system"], c["column"], c["origin"]) == ("ood", "glow", "svhn", "measured")
    ]
    assert float(cell["value"]) == run.value("glow", "svhn")
    shown = f"{run.value('glow', 'svhn'):.2f}"
    for name in ("ood.md", "ood.tex"):
        assert shown in (run.out / name).read_text()
    for name in expected - {"ood_scores.npz"}:
        if name.endswith(".png"):
            assert Image.open(run.out / name).width > 300
    assert run.scores("glow", "svhn").shape == (40,)
    assert not [path for path in whole.folder.rglob("*") if "partial" in path.name]


def test_the_document_says_where_its_numbers_come_from(whole: Whole) -> None:
    document = whole.run.document
    assert document["command"].startswith("python benchmark.py --suite ood --num-images 40")
    assert document["seconds"] > 0
    assert set(document["packages"]) >= {"torch", "numpy", "scipy", "pillow"}
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", document["commit"])
    assert document["python"].count(".") == 2
    (row,) = whole.run.rows(system="glow", dataset="svhn", metric="auroc")
    fingerprint = row["provenance"]["fingerprint"]
    assert fingerprint["weights"] == load_checkpoint(read_card("glow").path()).card["sha256"]
    assert {"code", "torch", "device", "seed"} <= set(fingerprint)
    assert row["provenance"]["data"] == {name: load_images(name, n=40).sha256 for name in ("cifar10", "svhn")}
    assert row["protocol"]["in_distribution"] == "cifar10"


def test_a_second_run_from_the_cache_calls_no_model(
    whole: Whole, call: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Any, images: np.ndarray) -> None:
        raise AssertionError("scored again")

    for name in BUNDLED:
        for method in ("score", "score_terms"):
            if hasattr(SYSTEMS.load(name), method):
                monkeypatch.setattr(SYSTEMS.load(name), method, never)
    again = call("--suite", "ood", "--num-images", "40", "--no-progress")
    assert again.code == 0
    assert again.stdout == whole.run.stdout
    assert again.numbers() == whole.run.numbers()
    with pytest.raises(AssertionError, match="scored again"):
        call("--suite", "ood", "--num-images", "40", "--no-progress", "--cache", "none")


def test_batch_size_changes_no_auroc(whole: Whole, call: Callable[..., Run], tmp_path: Path) -> None:
    words = ("--suite", "ood", "--num-images", "40", "--no-progress", "--cache", "none")
    runs = [call(*words, "--batch-size", size, "--out", tmp_path / size) for size in ("16", "200")]
    found = [
        {
            (r["system"], r["dataset"], r["variant"]): r["value"] and round(r["value"], 4)
            for r in run.rows(metric="auroc")
        }
        for run in (*runs, whole.run)
    ]
    assert found[0] == found[1] == found[2]


def test_batch_size_takes_effect(small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    from baselines import glow

    sizes = []
    inner = glow.image_log_prob
    monkeypatch.setattr(glow, "image_log_prob", lambda model, x, u: sizes.append(len(x)) or inner(model, x, u))
    assert small("--batch-size", "7", "--cache", "none").code == 0
    assert sizes == [7, 7, 6, 7, 7, 6]


def test_a_killed_run_is_resumed_to_the_same_numbers(whole: Whole, tmp_path: Path) -> None:
    kept, out = tmp_path / "cache", tmp_path / "out"
    words = ("--suite", "ood", "--num-images", "40", "--out", out, "--cache", kept, "--no-progress", "--json")
    process = subprocess_of(*words)
    deadline = time.monotonic() + 120
    while not list(kept.glob("scores/*/0-40.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    finished = {path: path.stat().st_mtime_ns for path in kept.glob("scores/*/0-40.json")}
    assert 0 < len(finished) < 4 * len(BUNDLED)
    assert not (out / "ood.json").exists()
    resumed = subprocess_of(*words)
    stdout, stderr = resumed.communicate()
    assert resumed.returncode == 0, stderr
    assert json.loads(stdout) == json.loads((out / "ood.json").read_text())
    assert Run.of(0, stdout, stderr, out).numbers() == whole.run.numbers()
    assert finished == {path: path.stat().st_mtime_ns for path in finished}, "scored again what was done"
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and "partial" in path.name and path.parent == out
    ]


def test_list_needs_no_torch() -> None:
    code = "import sys, benchmark; benchmark.main(['--list']); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    for word in (*SYSTEMS, "ood", "svhn", "celeba", "kmnist"):
        assert word in found.stdout


def test_a_mistake_in_a_process_is_one_line_and_code_two(tmp_path: Path) -> None:
    process = subprocess_of("--suite", "odd", "--out", tmp_path / "out")
    stdout, stderr = process.communicate()
    refused(Run(process.returncode, stdout, stderr, tmp_path / "out"), "unknown suite 'odd'. Did you mean 'ood'?")


# --- every option takes effect -------------------------------------------------------------------------------------


def test_json_prints_the_document_and_nothing_else(small: Callable[..., Run]) -> None:
    run = small("--json")
    assert json.loads(run.stdout) == run.document
    assert {row["system"] for row in run.document["measurements"]} == {"glow", *CONTROLS}


def test_several_suites_run_one_after_the_other(call: Callable[..., Run]) -> None:
    run = call(*("--suite", "ood,generation", *SMALL[2:], "--metrics", "kd"))
    assert run.code == 0, run.stderr
    assert run.value("glow", "svhn") < 0.5
    document = json.loads((run.out / "generation.json").read_text())
    assert {row["metric"] for row in document["measurements"]} == {"kd_cifar10net"}
    assert {path.suffix for path in run.out.glob("generation.*")} == {".json", ".md", ".csv", ".tex", ".bib"}
    assert "kd" in run.stdout.lower()


def test_suite_all_is_every_suite_and_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, pages = [], []
    monkeypatch.setattr(benchmark, "run_suite", lambda name, suite, bench: ran.append((name, suite.name)))
    monkeypatch.setattr(benchmark.cli, "refresh_page", lambda options, out: pages.append(out))
    assert cli.run(benchmark.main, ["--suite", "all", "--out", str(tmp_path)]) == 0
    assert pages == [tmp_path]
    assert ran == [(name, name) for name in SUITES]


def test_a_dry_run_prints_its_cost_and_writes_nothing(call: Callable[..., Run], tmp_path: Path) -> None:
    out = tmp_path / "dry"
    words = ["--suite", "generation", "--systems", "nvae", "--num-images", "50000", "--dry-run", "--out", str(out)]
    assert cli.run(benchmark.main, [*words, "--cache", str(tmp_path / "cache")]) == 0
    assert not out.exists()


def test_systems_are_those_asked_for(call: Callable[..., Run], small: Callable[..., Run]) -> None:
    assert {row["system"] for row in small("--systems", "nvae,glow").document["measurements"]} == {
        *("nvae", "glow"),
        *CONTROLS,
    }
    none = small("--systems", "none")
    assert none.code == 0
    assert {row["system"] for row in none.document["measurements"]} == CONTROLS


def test_own_scores_measure_as_the_systems_own(whole: Whole, call: Callable[..., Run], tmp_path: Path) -> None:
    names = ("cifar10", "svhn", "cifar10_interp", "cifar100")
    np.savez(tmp_path / "mine.npz", **{name: whole.run.scores("glow", name) for name in names})
    words = ("--suite", "ood", "--systems", "none", "--num-images", "40", "--no-progress")
    own = ("--scores", f"mine={tmp_path / 'mine.npz'}", "--scores", f"other={tmp_path / 'mine.npz'}")
    run = call(*words, *own)
    assert run.code == 0
    for dataset in names[1:]:
        for metric in ("auroc", "aupr", "fpr95"):
            assert run.value("mine", dataset, metric) == whole.run.value("glow", dataset, metric)
            assert run.value("other", dataset, metric) == whole.run.value("glow", dataset, metric)
    assert "mine" in run.stdout
    suites = {key: values for key, values in run.arrays.items() if key.startswith("mine/")}  # its own file's layout
    np.savez(tmp_path / "suite.npz", **suites)
    assert call(*words, "--scores", f"again={tmp_path / 'suite.npz'}").value("again", "svhn") == run.value(
        "mine", "svhn"
    )


def test_own_scores_that_fall_with_their_model_are_the_opposite(small: Callable[..., Run], tmp_path: Path) -> None:
    run = small()
    sets = {name: -run.scores("glow", name) for name in ("cifar10", "svhn")}
    np.savez(tmp_path / "negative.npz", **sets)
    again = small("--scores", f"negative={tmp_path / 'negative.npz'}")
    assert again.value("negative", "svhn") == pytest.approx(1 - again.value("glow", "svhn"), abs=1e-12)


def test_checkpoint_adds_a_label_or_replaces_the_bundled_one(small: Callable[..., Run], tmp_path: Path) -> None:
    bundled = small().value("glow", "svhn")
    checkpoint = load_checkpoint(glow_files(tmp_path / "same"))
    other = {name: value * 0.5 if name.startswith("top") else value for name, value in checkpoint.weights.items()}
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, other, checkpoint.card)

    labelled = small("--checkpoint", f"mine={path}", "--checkpoint", f"copy={checkpoint.path}")
    assert labelled.value("glow", "svhn") == labelled.value("copy", "svhn") == bundled
    assert not np.array_equal(labelled.scores("mine", "svhn"), labelled.scores("glow", "svhn"))
    replaced = small("--checkpoint", f"glow={path}")
    np.testing.assert_array_equal(replaced.scores("glow", "svhn"), labelled.scores("mine", "svhn"))
    alone = small("--systems", "none", "--checkpoint", f"mine={path}")
    assert {row["system"] for row in alone.document["measurements"]} == {"mine", *CONTROLS}


@pytest.mark.parametrize("form", ["folder", "npy", "npz", "zip", "path alone"])
def test_ood_takes_images_of_ones_own(small: Callable[..., Run], tmp_path: Path, form: str) -> None:
    images = load_images("svhn", n=12).images
    folder = tmp_path / "textures"
    folder.mkdir()
    if form in ("folder", "zip", "path alone"):
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i:02}.png")
    path = {"npy": tmp_path / "textures.npy", "npz": tmp_path / "textures.npz"}.get(form, folder)
    if form == "npy":
        np.save(path, images)
    elif form == "npz":
        np.savez(path, images=images)
    elif form == "zip":
        path = Path(shutil.make_archive(str(folder), "zip", folder))
    run = small("--ood", str(path) if form == "path alone" else f"svhn,textures={path}", "--num-images", "12")
    assert run.code == 0, run.stderr
    twin = small("--ood", "svhn", "--num-images", "12", "--out", tmp_path / "twin")
    assert run.value("glow", "textures") == twin.value("glow", "svhn")
    if form != "path alone":
        assert run.value("glow", "mean") == pytest.approx(run.value("glow", "svhn"))


def test_ood_takes_groups_grey_sets_and_drawn_ones(small: Callable[..., Run], tmp_path: Path) -> None:
    run = small("--ood", "svhn,synthetic,mnist,near", "--num-images", "12", "--out", tmp_path / "groups")
    assert run.code == 0, run.stderr
    aurocs = run.rows(system="glow", metric="auroc", variant="")
    sets = [
        "svhn",
        "gaussian_noise",
        "uniform_noise",
        "constant",
        "mnist",
        "cifar10_interp",
        "cifar100",
        "tiny_imagenet",
    ]
    assert [row["dataset"] for row in aurocs] == [*sets, "mean", "mean_near", "mean_far"]
    assert "repeated in 3 channels" in next(row for row in aurocs if row["dataset"] == "mnist")["protocol"]["out_notes"]
    assert {row["dataset"] for row in aurocs if row["value"] is None} == {"tiny_imagenet", "mean", "mean_near"}
    assert "tiny-imagenet-200/" in " ".join(run.stdout.split())
    far = np.mean([run.value("glow", "svhn"), run.value("glow", "mnist")])
    assert run.value("glow", "mean_far") == pytest.approx(far)
    assert run.value("glow", "constant") < 0.2  # the famous failure of likelihoods
    other = small("--ood", "constant", "--num-images", "12", "--seed", "1", "--out", tmp_path / "other")
    data = lambda found: found.rows(system="pixel_std", dataset="constant", metric="auroc")[0]["provenance"]["data"]
    assert data(run)["constant"] != data(other)["constant"]


def test_num_images(small: Callable[..., Run]) -> None:
    assert {row["n"] for row in small("--num-images", "9").rows(metric="auroc")} == {18}


def test_dataset_is_the_in_distribution_side(small: Callable[..., Run]) -> None:
    run = small("--dataset", "svhn", "--ood", "cifar10")
    assert run.value("glow", "cifar10") == pytest.approx(1 - small().value("glow", "svhn"), abs=1e-12)
    assert "in-distribution SVHN" in run.stdout
    assert "Table 6" not in run.stdout


def test_seed(small: Callable[..., Run]) -> None:
    first, second = small(), small("--seed", "1", "--out", small().out.with_name("second"))
    assert {row["seed"] for row in second.document["measurements"]} == {1}
    assert not np.array_equal(first.scores("glow", "svhn"), second.scores("glow", "svhn"))
    low = lambda run: run.rows(system="pixel_std", dataset="svhn", metric="aupr")[0]["low"]
    assert low(first) != low(second)  # the bootstrap's


def test_interp(small: Callable[..., Run]) -> None:
    words = ("--systems", "none", "--ood", "cifar10_interp")
    found = {}
    for pairing in ("neighbours", "batches", "shuffled"):
        run = small(*words, "--interp", pairing, "--num-images", "130")
        found[pairing] = run.scores("pixel_std", "cifar10_interp")
        assert pairing in run.rows(metric="auroc")[0]["protocol"]["out_notes"]
    assert not np.array_equal(found["neighbours"], found["shuffled"])
    assert not np.array_equal(found["neighbours"], found["batches"])


@pytest.mark.parametrize("name", [name for name in ("nvae", "vaebm") if name in BUNDLED])
def test_importance_samples(small: Callable[..., Run], name: str) -> None:
    words = ("--systems", name, "--num-images", "6")
    one, three = small(*words).scores(name, "svhn"), small(*words, "--importance-samples", "3")
    assert (three.scores(name, "svhn") - one).mean() > 0
    assert "K = 3" in three.stdout


def test_precision_and_pdf(small: Callable[..., Run]) -> None:
    run = small("--precision", "4", "--pdf")
    assert f"{run.value('glow', 'svhn'):.4f}" in run.stdout
    assert f"{run.value('glow', 'svhn'):.4f}" in (run.out / "ood.tex").read_text()
    assert {path.name for path in run.out.iterdir()} == FILES | {"ood_histograms.pdf", "ood_roc.pdf"}


def test_no_progress(call: Callable[..., Run]) -> None:
    words = [word for word in SMALL if word != "--no-progress"]
    assert "glow on svhn" in call(*words, "--cache", "none").stderr
    quiet = call(*words, "--cache", "none", "--no-progress").stderr
    assert "glow on" not in quiet
    assert quiet.count("\n") == 1
    assert quiet.endswith(f"files in {call(*words).out}\n")


def test_a_config_file_gives_options_and_the_command_line_overrules_it(
    small: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("num_images: 7\nprecision: 3\n")
    run = small("--config", tmp_path / "run.yaml", "--precision", "1")
    assert {row["n"] for row in run.rows(metric="auroc")} == {14}
    assert f"{run.value('glow', 'svhn'):.1f} [" in run.stdout
    (tmp_path / "typo.yaml").write_text("num_imags: 7\n")
    refused(small("--config", tmp_path / "typo.yaml", "--out", tmp_path / "no"), "num_imags")
    refused(small("--config", tmp_path / "none.yaml", "--out", tmp_path / "no"), "none.yaml")


def test_threads(small: Callable[..., Run]) -> None:
    before = torch.get_num_threads()
    assert small("--threads", str(before + 1)).code == 0
    assert torch.get_num_threads() == before + 1


def test_cache_is_where_scores_are_kept(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "by variable"))
    assert small("--cache", "none").code == 0
    assert not (tmp_path / "by variable").exists()
    assert small("--cache", "").code == 0
    assert len(list((tmp_path / "by variable" / "scores").iterdir())) == 10  # five scorers, two sets
    assert small("--cache", tmp_path / "given").code == 0
    assert len(list((tmp_path / "given" / "scores").iterdir())) == 10


def test_data_root_is_searched_first(small: Callable[..., Run], tmp_path: Path) -> None:
    np.save(tmp_path / "svhn_test.npy", load_images("cifar100", n=20).images)
    run = small("--data-root", tmp_path)
    assert run.rows(metric="auroc", system="glow")[0]["protocol"]["out_source"].startswith("data root")
    np.testing.assert_array_equal(
        run.scores("glow", "svhn"), small("--ood", "cifar100", "--out", tmp_path / "b").scores("glow", "cifar100")
    )


def test_celeba_fills_its_column_from_the_data_root(small: Callable[..., Run], data_root: Path) -> None:
    run = small("--ood", "celeba", "--data-root", data_root)
    assert 0 < run.value("glow", "celeba") < 1


def test_without_a_network_a_row_says_what_is_missing(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    (tmp_path / "cuts").mkdir()
    for name in ("cifar10", "svhn"):  # nothing else is bundled
        (tmp_path / "cuts" / name).symlink_to(cuts.FOLDER / name)
    monkeypatch.setattr(cuts, "FOLDER", tmp_path / "cuts")

    def no_network(url: str, **_: Any) -> None:
        asked.append(url)
        raise requests.ConnectionError("NameResolutionError: no such host")

    monkeypatch.setattr(requests, "get", no_network)
    monkeypatch.setenv("VAEBM_CACHE", str(tmp_path / "downloads"))
    for words, why in (((), "no network"), (("--offline",), "downloads are switched off")):
        asked.clear()
        run = small("--ood", "svhn,fashion_mnist", *words)
        assert run.code == 0
        assert bool(asked) == (not words)
        (row,) = run.rows(system="glow", dataset="fashion_mnist", metric="auroc")
        assert row["value"] is None
        assert why in row["note"]
        assert "--data-root" in row["note"]
        assert run.value("glow", "svhn") < 0.5
        assert why in " ".join(run.stdout.split())


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--suite", "odd"), ("unknown suite 'odd'", "Did you mean 'ood'?")),
        (("--systems", "glw"), ("unknown system 'glw'", "Did you mean 'glow'?")),
        (("--systems", "glow,all"), ("unknown system 'all'",)),
        (("--dataset", "cifar1"), ("unknown data set 'cifar1'", "Did you mean 'cifar10'?")),
        (("--ood", "svnh"), ("unknown data set 'svnh'", "Did you mean 'svhn'?")),
        (("--ood", ""), ("--ood",)),
        (("--ood", "cifar10"), ("20 of them also in cifar10", "--ood")),
        (("--ood", "mean=x.npy"), ("x.npy",)),
        (("--ood", "svhn,svhn"), ("two sets are called 'svhn'",)),
        (("--interp", "neighbors"), ("unknown pairing 'neighbors'", "Did you mean 'neighbours'?")),
        (("--ood", "mine=nowhere/"), ("nowhere/", "does not exist")),
        (("--num-image", "9"), ("unknown option --num-image", "Did you mean --num-images?")),
        (("--sed", "9"), ("unknown option --sed", "Did you mean --seed?")),
        (("--num-images", "many"), ("num_images", "many")),
        (("--num-images", "3"), ("--num-images 3", "at least 4")),
        (("--batch-size", "0"), ("--batch-size 0", "at least 1")),
        (("--importance-samples", "0"), ("--importance-samples 0", "at least 1")),
        (("--precision", "-1"), ("--precision -1", "needed 0")),
        (("--threads", "-1"), ("--threads -1", "at least 0")),
        (("--seed", "-1"), ("--seed -1", "at least 0")),
        (("--device", "cudda"), ("--device cudda",)),
        (("--data-root", "nowhere"), ("--data-root", "nowhere")),
        (("--dataset", "mnist"), ("glow", "mnist", "found 32x32 grey", "needed 32x32 RGB")),
        (("--checkpoint", "x"), ("--checkpoint x", "NAME=PATH")),
        (("--checkpoint", "a=b", "--checkpoint", "a=c"), ("twice",)),
        (("--checkpoint", "mine=nowhere.safetensors"), ("nowhere.safetensors", "no such file")),
        (("--scores", "mine=nowhere.npz"), ("nowhere.npz", "no such file")),
        (("--metrics", "fd"), ("--metrics", "--suite ood does not listen to it, only generation")),
        (("--dry-run",), ("--dry-run", "does not listen to it, only", "generation, modes")),
        (("--batch-size", "few"), ("--batch-size", "few")),
        (("--sample-batch", "0"), ("--sample-batch 0", "at least 1")),
        (("--threads", "100000"), ("--threads 100000", "to 1024")),
        (("--dtype", "float8"), ("--dtype float8", "unknown")),
        (("--suite", "ood,speed", "--random-weights"), ("--random-weights", "needed speed alone")),
        (("--importance-samples", "4"), ("--importance-samples", "vaebm")),
        (("--interp", "shuffled"), ("--interp", "cifar10_interp")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_word_is_named(small: Callable[..., Run], words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(small(*words), *parts)


def test_random_weights_are_of_cifar10_alone(call: Callable[..., Run]) -> None:
    refused(call("--suite", "speed", "--random-weights", "--dataset", "mnist"), "--dataset mnist", "CIFAR-10")


def test_no_suite_says_which_there_are(call: Callable[..., Run]) -> None:
    refused(call(), "--suite", "ood")


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def truncated_with_its_hash(path: Path) -> Path:
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = sha256(truncated(path).read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def without_card(path: Path) -> Path:
    path.with_suffix(".json").unlink()
    return path


def edited(**changes: Any) -> Callable[[Path], Path]:
    def edit(path: Path) -> Path:
        card = json.loads(path.with_suffix(".json").read_text()) | changes
        kept = {key: value for key, value in card.items() if value is not None}
        path.with_suffix(".json").write_text(json.dumps(kept))
        return path

    return edit


def another_shape(path: Path) -> Path:
    checkpoint = load_checkpoint(path)
    first = next(iter(checkpoint.weights))
    save_checkpoint(path, checkpoint.weights | {first: torch.zeros(5, 7)}, checkpoint.card)
    return path


def one_weight_less(path: Path) -> Path:
    checkpoint = load_checkpoint(path)
    save_checkpoint(path, dict(list(checkpoint.weights.items())[1:]), checkpoint.card)
    return path


def broken_card(path: Path) -> Path:
    path.with_suffix(".json").write_text("{")
    return path


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (truncated, ("truncated",)),
        (truncated_with_its_hash, ("not a glow checkpoint",)),
        (without_card, (".json", "no such file")),
        (broken_card, (".json", "not a checkpoint card")),
        (another_shape, ("has shape (5, 7), needed",)),
        (one_weight_less, ("is missing",)),
        (edited(kind="glew"), ("unknown kind 'glew'", "Did you mean 'glow'?")),
        (edited(format=99), ("format 99",)),
        (edited(kind=None), (".json", "kind")),
        (edited(sampling=None), (".json", "sampling")),
        (edited(architecture=None), (".json", "architecture")),
        (edited(architecture={"image_shape": [32, 32, 3], "wide": 3}), (".json", "wide")),
        (edited(sampling={"temperature": 9.0}), ("temperature 9.0",)),
    ],
)
def test_a_spoiled_checkpoint_is_named(
    small: Callable[..., Run], tmp_path: Path, spoil: Callable[[Path], Path], parts: tuple[str, ...]
) -> None:
    path = spoil(glow_files(tmp_path / "spoiled"))
    refused(small("--checkpoint", f"mine={path}"), "spoiled", *parts)


def test_a_checkpoint_under_the_name_of_another_system_is_refused(small: Callable[..., Run], tmp_path: Path) -> None:
    path = glow_files(tmp_path)
    refused(small("--checkpoint", f"nvae={path}"), "the file holds a glow")


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.safetensors", "x.npz", "x.npy"])
def test_a_pickle_never_runs(small: Callable[..., Run], tmp_path: Path, name: str, writer: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / name
    if writer == "torch":
        torch.save({"weights": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(marker)))
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()  # so it would
    marker.unlink()

    for words in (
        ("--checkpoint", f"mine={path}"),
        ("--checkpoint", f"glow={path}"),
        ("--scores", f"mine={path}"),
        ("--ood", f"mine={path}"),
    ):
        refused(small(*words), str(path.with_suffix("")))
        assert not marker.exists()
    if name == "x.safetensors":  # with a card that vouches for it
        card = json.loads(read_card("glow").path().with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(card | {"sha256": sha256(path.read_bytes()).hexdigest()}))
        refused(small("--checkpoint", f"mine={path}"), name, "not a glow checkpoint")
        assert not marker.exists()


def test_an_object_array_of_scores_never_runs(small: Callable[..., Run], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.savez(tmp_path / "x.npz", cifar10=np.array([Malicious(marker)], dtype=object), svhn=np.zeros(3))
    refused(small("--scores", f"mine={tmp_path / 'x.npz'}"), "x.npz")
    assert not marker.exists()


def test_weights_of_a_foreign_safetensors_are_refused(small: Callable[..., Run], tmp_path: Path) -> None:
    path = glow_files(tmp_path)
    path.write_bytes(to_safetensors({"a": torch.zeros(3)}))
    refused(small("--checkpoint", f"mine={path}"), path.name, "sha256")


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"cifar10": [1.0, 2.0], "svhn": [1.0, np.nan]}, ("svhn", "NaN")),
        ({"cifar10": [np.inf, 2.0], "svhn": [1.0, 2.0]}, ("cifar10", "NaN or infinite")),
        ({"cifar10": [1.0, 2.0]}, ("no scores of svhn", "--ood")),
        ({"svhn": [1.0, 2.0]}, ("no scores of cifar10",)),
        ({"cifar10": [[1.0, 2.0]], "svhn": [1.0, 2.0]}, ("cifar10", "shape")),
        ({"cifar10": ["a", "b"], "svhn": [1.0, 2.0]}, ("cifar10", "needed real numbers")),
        ({"cifar10": [1.0], "svhn": [1.0, 2.0]}, ("cifar10", "at least 2")),
        ({}, ("no arrays",)),
    ],
    ids=str,
)
def test_scores_that_are_none_are_named(
    small: Callable[..., Run], tmp_path: Path, arrays: dict[str, list], parts: tuple[str, ...]
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **{name: np.array(values) for name, values in arrays.items()})
    refused(small("--scores", f"mine={path}"), *parts)


def test_scores_may_not_take_the_name_of_a_system(small: Callable[..., Run], tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", cifar10=np.arange(5.0), svhn=np.arange(5.0))
    for name in ("glow", "pixel_std", "a/b"):
        refused(small("--scores", f"{name}={tmp_path / 'mine.npz'}"), name)
    (tmp_path / "text.npz").write_text("cifar10 1 2 3")
    refused(small("--scores", f"mine={tmp_path / 'text.npz'}"), "text.npz")


@pytest.mark.parametrize("kind", ["empty", "mixed sizes", "mixed colours", "damaged", "one image", "grey", "float"])
def test_images_that_are_no_set_are_named(small: Callable[..., Run], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    images = load_images("svhn", n=3).images
    for i, image in enumerate(images[: {"empty": 0, "one image": 1}.get(kind, 3)]):
        Image.fromarray(image[..., 0] if kind == "grey" else image).save(folder / f"{i}.png")
    if kind == "mixed sizes":
        Image.fromarray(images[0, :20]).save(folder / "3.png")
    elif kind == "mixed colours":
        Image.fromarray(images[0, ..., 0]).save(folder / "3.png")
    elif kind == "damaged":
        truncated_png = (folder / "1.png").read_bytes()[:200]
        (folder / "1.png").write_bytes(truncated_png)
    path = folder
    if kind == "float":
        path = tmp_path / "mine.npy"
        np.save(path, images / 255.0)
    parts = {
        "empty": ("no image in it",),
        "mixed sizes": ("3.png", "one size"),
        "mixed colours": ("3.png", "colour"),
        "damaged": ("1.png",),
        "one image": ("needed at least 2",),
        "grey": ("found 32x32 grey", "needed 32x32 RGB"),
        "float": ("float64", "needed"),
    }[kind]
    refused(small("--ood", f"mine={path}"), "mine", *parts)


def test_a_folder_that_cannot_be_written_is_found_before_scoring(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("a file")
    monkeypatch.setattr(SYSTEMS.load("glow"), "score", lambda *_: pytest.fail("scored before the folder was tried"))
    refused(small("--out", in_the_way, "--cache", "none"), str(in_the_way), "--out")
    refused(small("--out", in_the_way / "below", "--cache", "none"), "--out")
    refused(small("--cache", in_the_way), str(in_the_way), "--cache")
    assert in_the_way.read_text() == "a file"


def test_a_run_that_fails_leaves_earlier_results_as_they_were(small: Callable[..., Run]) -> None:
    before = small()
    kept = {path.name: path.read_bytes() for path in before.out.iterdir()}
    assert small("--ood", "svnh").code == 2
    assert {path.name: path.read_bytes() for path in before.out.iterdir()} == kept


def test_a_model_that_gives_nan_leaves_nothing(small: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SYSTEMS.load("glow"), "score", lambda self, images: np.full(len(images), np.nan))
    refused(small("--cache", "none"), "glow on cifar10", "NaN or infinite")
