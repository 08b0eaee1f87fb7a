"""What --list prints, and that nothing heavy is imported for it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import benchmark
import leaderboards
from baselines import SYSTEMS, listing
from baselines.cards import FOLDER, card_names, read_card
from evaluators import SUITES
from vaebm.cli import run
from vaebm.data import DATASETS

ROOT = Path(benchmark.__file__).parent
WIDTH = 120


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]):
    """Call the front door; return what it printed, after exit code 0."""

    def called(*words: str) -> str:
        capsys.readouterr()
        assert run(benchmark.main, words) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return called


def cells(table: str) -> dict[str, list[str]]:
    """The rows of the systems table by name; of a row of several lines, the first."""
    header, rule, *lines = table.splitlines()
    starts = [match.start() for match in re.finditer("-+", rule)]
    cut = lambda line: [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert cut(header) == ["name", "family", "here", "by file", "weights bundled", "licence"]
    return {row[0]: row[1:] for row in map(cut, lines) if row[0]}


# --- systems -------------------------------------------------------------------------------------------------------


def test_the_table_has_every_system_and_fits_a_terminal(listed) -> None:
    table = listed("--list", "systems")
    assert set(cells(table)) == {*SYSTEMS, *card_names()}
    assert max(map(len, table.splitlines())) <= WIDTH


def test_a_row_says_family_abilities_size_and_licence(listed) -> None:
    rows = cells(listed("--list", "systems"))
    size = (FOLDER / "checkpoints" / "glow-mini-cifar10.safetensors").stat().st_size
    assert rows["glow"] == [
        *("flow", "score sample train official", "samples scores"),
        *(f"mini cifar10 {size / 1e6:.1f} MB", "Apache-2.0"),
    ]
    assert rows["stylegan2_noada"] == ["GAN", "–", "samples scores", "–", "–"]


def test_weights_for_several_sets_have_a_line_each(listed) -> None:
    table = listed("--list", "systems")
    assert re.search(
        r"^vaebm .+ mini cifar10 \d\.\d MB +Apache-2\.0\n +mini stacked_mnist \d\.\d MB$", table, re.MULTILINE
    )


def test_bundled_means_that_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.cards.FOLDER", tmp_path)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "glow.toml").write_text((FOLDER / "cards" / "glow.toml").read_text())
    assert cells(listing.systems_table())["glow"][3:] == ["–", "–"]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "glow-mini-cifar10.safetensors").write_bytes(bytes(1_500_000))
    (tmp_path / "checkpoints" / "glow-mini-cifar10.json").write_text('{"size": "small"}')
    assert cells(listing.systems_table())["glow"][3:] == ["small cifar10 1.5 MB", "Apache-2.0"]


def test_a_system_of_another_package_and_one_without_a_card(monkeypatch: pytest.MonkeyPatch, listed) -> None:
    monkeypatch.setitem(SYSTEMS._targets, "theirs", "elsewhere:Theirs")
    monkeypatch.setitem(SYSTEMS._targets, "gebm", "elsewhere:GEBM")
    monkeypatch.setitem(SYSTEMS._targets, "new", "baselines.new:New")
    monkeypatch.setattr(SYSTEMS, "packages", {"theirs": "their-package", "gebm": "their-package"})
    rows = cells(listed("--list", "systems"))
    assert rows["theirs"] == ["–", "plug-in of their-package", "samples scores", "–", "–"]
    assert rows["gebm"] == ["hybrid", "plug-in of their-package", "samples scores", "–", "–"]
    assert rows["new"] == ["–", "–", "samples scores", "–", "–"]
    lines = listed("--list").splitlines()
    assert "  theirs               elsewhere:Theirs, of the installed package their-package" in lines
    assert "  new                  baselines.new:New  (no weights bundled)" in lines
    assert listed("--list", "theirs") == "theirs: elsewhere:Theirs, of the installed package their-package\n"


# --- one system ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", card_names())
def test_a_card_is_printed_whole(name: str) -> None:
    card, text = read_card(name), listing.describe(name)
    words = " ".join(text.split())
    assert text.startswith(f"{name}: {card.title} ({card.family})\n")
    said = [
        card.summary,
        card.training,
        card.citation,
        card.recompute,
        card.recipe,
        *card.reported,
        *card.imports.values(),
    ]
    said += [card.licence, card.origin, *card.commands.values(), *(each.where for each in card.public)]
    for fact in said:
        assert " ".join(fact.split()) in words
    assert words.count("; verified)") == sum(each.verified for each in card.public)
    assert words.count("; not verified)") == sum(not each.verified for each in card.public)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_front_door_prints_the_card(listed) -> None:
    assert listed("--list", "gebm") == listing.describe("gebm") + "\n"


# --- the other lists -----------------------------------------------------------------------------------------------


def test_everything_is_listed(listed) -> None:
    text = listed("--list")
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == ["suites", "tables", "systems", "datasets"]
    names = re.findall(r"^  (\w+)  ", text, re.MULTILINE)
    assert set(names) >= {*SUITES, *SYSTEMS, *card_names(), *DATASETS, *leaderboards.BOARDS}
    assert len(names) == len(text.splitlines()) - 4


@pytest.mark.parametrize("kind", ["suites", "tables", "datasets"])
def test_one_kind_is_its_part_of_the_whole(kind: str, listed) -> None:
    part = listed("--list", kind)
    assert part.startswith(f"{kind}:\n")
    assert part in listed("--list")


def test_lines_say_what_there_is(listed) -> None:
    text = listed("--list")
    assert re.search(r"^  ood +Scores systems against outer data sets$", text, re.MULTILINE)
    assert re.search(r"^  modes +Mode coverage on StackedMNIST: Table 5 of the paper$", text, re.MULTILINE)
    assert re.search(r"^  glow +normalising flow.*\(weights for cifar10\)$", text, re.MULTILINE)
    assert re.search(r"^  mdsm +.*\(samples and scores come in from elsewhere\)$", text, re.MULTILINE)
    assert re.search(r"^  svhn +SVHN; non-commercial use only$", text, re.MULTILINE)


def test_an_unknown_word_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(benchmark.main, ["--list", "system"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --list system: unknown. Did you mean 'systems'? Available: ")
    assert err.count("\n") == 1


def test_the_first_sentence_of_nothing_is_empty() -> None:
    assert listing.first_sentence(type("Suite", (), {})) == ""
    assert listing.first_sentence(type("Suite", (), {"__doc__": "\n  One. Two.\n Three."})) == "One"


@pytest.mark.parametrize("words", [["--list"], ["--list", "systems"], ["--list", "vaebm"]])
def test_listing_imports_no_torch(words: list[str]) -> None:
    code = f"import sys, benchmark; benchmark.main({words}); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stderr) == (0, "")


# --- what comes in from elsewhere stands below the published row of its name ---------------------------------------


@pytest.fixture
def measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the front door on few images; return the lines of the table and the measurements."""
    monkeypatch.delenv("VAEBM_DATA", raising=False)
    monkeypatch.setattr(leaderboards, "write_plots", lambda *_, **__: [])

    def called(suite: str, *words: str | Path) -> tuple[list[str], list[dict]]:
        places = ("--out", tmp_path / "out", "--cache", "none", "--no-progress", "--offline")
        assert run(benchmark.main, [*map(str, ("--suite", suite, "--systems", "none", *words, *places))]) == 0
        rows = json.loads((tmp_path / "out" / f"{suite}.json").read_text())["measurements"]
        return capsys.readouterr().out.splitlines(), rows

    return called


def below(lines: list[str], label: str) -> str:
    return lines[next(i for i, line in enumerate(lines) if line.startswith(f"  {label} ")) + 1]


def test_scores_from_elsewhere_are_below_the_published_row(tmp_path: Path, measured) -> None:
    draw = np.random.default_rng(0).normal
    np.savez(tmp_path / "scores.npz", cifar10=draw(1, 1, 40), svhn=draw(0, 1, 30))
    words = [word for name in ("jem", "gebm") for word in ("--scores", f"{name}={tmp_path / 'scores.npz'}")]
    lines, rows = measured("ood", *words, "--ood", "svhn", "--num-images", "20")
    (row,) = (row for row in rows if (row["system"], row["metric"], row["variant"]) == ("jem", "auroc", ""))
    assert 0.5 < row["value"] < 1
    assert row["n"] == 70
    assert below(lines, "JEM").split()[:3] == ["JEM", "(measured)", f"{row['value']:.2f}"]
    gebm = next(line for line in lines if line.startswith("  GEBM "))  # Table 6 has no row of it
    assert gebm.split()[1] == f"{row['value']:.2f}"


def test_samples_from_elsewhere_are_below_the_published_row(tmp_path: Path, measured) -> None:
    (tmp_path / "samples").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(50, 200, (8, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / "samples" / f"{i}.png")
    given = f"stylegan2_noada={tmp_path / 'samples'}"
    lines, rows = measured("generation", "--samples", given, "--features", "inception,cifar10net", "--metrics", "fd,kd")
    assert below(lines, "StyleGAN2 w/o ADA").startswith("    StyleGAN2 w/o ADA (measured)")
    (kd,) = (row for row in rows if (row["system"], row["metric"]) == ("stylegan2_noada", "kd_cifar10net"))
    assert kd["value"] > 0
    assert kd["n"] == 8
