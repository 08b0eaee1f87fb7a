"""No number of the documentation is typed: every page is what its files give, and outside the marks stand no results."""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.measurement import Measurement
from evaluators.result_file import Results, read_results, write_results
from leaderboards.published import read_published
from vaebm.cli import run
from vaebm.errors import UserError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # as for a script there
addresses, update_docs = (importlib.import_module(name) for name in ("addresses", "update_docs"))

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


# The lint: what looks like a result, where no mark, code or link holds it

CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"(?<=\])\([^()\s]*\)|<?https?://[^\s)>]+>?")
# What may stand anywhere: names of things that are written with digits, and the level of every interval.
ALLOWED = re.compile(
    r"""^\#+\s+\d+(?:\.\d+)*\.?\s                                           # the number of a heading
    | \b(?:Python|PyTorch|torch|numpy|scipy|CUDA|[Vv]ersions?|Apache)[ -]\d+(?:\.\d+)+
    | \barXiv[ :]\d{4}\.\d{4,5}
    | (?:\b(?:[Ss]ections?|Tables?|Figures?|Appendix|Equations?)|§)\s?[A-Z]?\d+(?:\.\d+)*
    | \b95\ %""",
    re.MULTILINE | re.VERBOSE,
)
UNITS = (
    r"s|ms|us|sec|(?:core-)?(?:seconds?|minutes?|hours?)|min|h|days?|weeks?|nats?|times|fold|sd|[KMGT]i?B|[kMG]Hz|points?"
    r"|images?(?:/s|\ per\ second)|bits?\ per\ \w+"
)
RESULT = re.compile(
    rf"""(?<![\w.])[-+]?(?:\d[\d,]*)?\.\d+                                   # 0.74, .74
    | \b\d+e[-+]?\d+\b                                                      # 2e-6
    | \d\s?(?:%|percent\b)
    | \b\d[\d,]*[\s-]?(?:{UNITS})\b                                         # 72 s, 40 nats, 12 times
    | \b\d+\s?[x×](?!\w|\s?\d)                                              # 12x, but 32x32
    | \b(?:s?F[IC]?D|KID|IS|AUROC|AUPR|FPR95|KL|NLL|accuracy|correlation)(?:\ (?:is|of|was|at))?[\s=:]+[-+]?\d""",
    re.VERBOSE,
)


def results_outside(text: str) -> list[str]:
    """Return what looks like a typed result, with its line: ``"3: 0.74"``."""
    blank = lambda match: re.sub(r"[^\n]", "·", match[0])
    for pattern in (CODE, update_docs.BLOCK, update_docs.VALUE, COMMENT):
        text = pattern.sub(blank, text)
    text = "\n".join(_without_indented_code(text.split("\n")))
    for pattern in (INLINE_CODE, LINK, ALLOWED):
        text = pattern.sub(blank, text)
    return [f"{text.count(chr(10), 0, found.start()) + 1}: {found[0]}" for found in RESULT.finditer(text)]


def _without_indented_code(lines: list[str]) -> list[str]:
    """Four spaces after an empty line are code, except inside a list."""
    kept, in_list, code, empty = [], False, False, True
    for line in lines:
        if line.strip():
            indented = line.startswith(("    ", "\t"))
            code = indented and not in_list and (code or empty)
            in_list = bool(re.match(r"\s*(?:[-*+]|\d+[.)])\s", line)) or (in_list and line.startswith(" "))
        empty = not line.strip()
        kept.append("" if code else line)
    return kept


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_result_stands_outside_marks(page: Path) -> None:
    found = results_outside(page.read_text(encoding="utf-8"))
    assert not found, f"{page.name}: put results between marks and settings in backticks: {found}"


@pytest.mark.parametrize(
    "text",
    [
        "VAEBM has 0.74 here.",
        "a mean of .66 nats",
        "Version 2 scores 1,234.5",
        "It is 88 % right.",
        "88% of them",
        "sixty percent, or 60 percent",
        "agreement to 2e-6",
        "It takes 72 s.",
        "It took 16 minutes each",
        "a 5-minute run",
        "K lifts the bound by 40 nats",
        "12 times faster",
        "12x faster",
        "grew to 16 GB",
        "200 images per second",
        "a FID of 12",
        "AUROC = 1",
        "FID 12 and IS 8",
        "| VAEBM | 0.74 |",
        "* in a list\n\n    0.74 in its paragraph",
        "# Heading with 0.74",
        "<!-- a comment --> 0.74",
        "the drop of 0.03 in the `0.04` case",
        "see [12 % of them](page.md)",
        "an unpaired ` before 0.74\n\nand another ` after",
    ],
)
def test_the_lint_finds(text: str) -> None:
    assert results_outside(text)


@pytest.mark.parametrize(
    "text",
    [
        "a step size of `0.05`",
        "an option with `several words\nand 0.05 on two lines`",
        "``0.05 ` and 3 s``",
        "Words:\n\n    python benchmark.py --rate 0.05   # 72 s\n\n    --rate 0.06",
        "```\n0.74\n```",
        "~~~text\n72 s\n```\n0.74\n~~~",
        "<!-- ood:begin -->\n| 0.74 |\n<!-- ood:end -->",
        "it is <!-- v:ood/vaebm/svhn/auroc -->0.74<!-- /v --> here",
        "<!-- holds: ood/vaebm/svhn/auroc > 0.5 -->",
        "see [results](https://example.org/v0.74/12%20s) and https://example.org/0.74.",
        "![plot](plot_0.5.png)",
        "### 5.5 Sampling time",
        "Python 3.11 or newer, torch 2.8, Apache-2.0",
        "ICLR 2021 (arXiv 2010.00654)",
        "Section 5.5, Table 6, § 2.4, Appendix A.1",
        "intervals are 95 %, FPR at 95 % TPR",
        "CIFAR-10, CIFAR-100, 25 Gaussians, 1,000 modes, 32x32, 240 x 240 nodes, 2,000 images, seeds 0, 1, 2",
        "steps 0, 2, 4: 4x4 pixels of 8 bits, 5 features and 50,000 samples",
        "from 8 on; in 2 sets",
    ],
)
def test_the_lint_lets_pass(text: str) -> None:
    assert results_outside(text) == []


def test_the_lint_names_the_line() -> None:
    assert results_outside("one\n\n```\n0.1\n```\n`0.2`, then 0.3 and\n4 s") == ["6: 0.3", "7: 4 s"]


# The pages of this repository


def test_every_number_is_that_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert update_docs.main(["--check"]) == 0, capsys.readouterr().out


def test_every_stored_file_is_shown() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "TRAINING.md"])
    stored = {path.stem for path in (ROOT / "docs" / "results").iterdir() if path.name != ".lock"}
    assert stored - set(re.findall(r"<!-- (?:v:(?:\w+\()?)?([\w-]+)[/:]", pages)) == set()


def test_stored_files_name_no_place_of_a_machine() -> None:
    for path in (ROOT / "docs" / "results").iterdir():
        assert not re.search(r"[\s\"'=,]/\w+/\w", path.read_text(encoding="utf-8")), path


def test_the_readme_begins_with_the_two_commands() -> None:
    code = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    python")]
    assert code[:2] == [
        "python -m pip install -e . && python benchmark.py --suite ood",
        'python -m pip install -e ".[test]" && python -m pytest -n auto',
    ]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "TRAINING.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = INLINE_CODE.sub("", CODE.sub("", page.read_text(encoding="utf-8")))
    links = re.findall(r"\]\(([^()\s#]+)[^()\s]*\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


# A small checkout


def measured(system: str, value: float | None, **more: Any) -> Measurement:
    fields = {
        "dataset": "svhn",
        "metric": "auroc",
        "n": 4000,
        "protocol": {"in_distribution": "cifar10", "n_out": 2000},
    }
    ends = {} if value is None else {"low": value - 0.02, "high": value + 0.02}
    return Measurement(suite="ood", system=system, value=value, size="mini", **{**fields, **ends, **more})


RESULTS = Results(
    suite="ood",
    rows=[
        measured("vaebm", 0.7406),
        measured("vaebm", 0.0361, variant="log_p", role="diagnostic"),
        measured("vaebm", 793.27, dataset="cifar10", metric="sd_log_p", role="diagnostic", low=None, high=None),
        measured("vaebm", None, dataset="celeba", note="CelebA is not there"),
        measured("nvae", 0.036),
        measured("nvae", 0.5, dataset="cifar100"),
        measured("nvae", 0.6, dataset="cifar100", protocol={"in_distribution": "cifar100"}),
    ],
    command="python benchmark.py --suite ood --num-images 2000",
    seconds=71.6,
    machine="Linux x86_64",
    packages={"torch": "2.15.0"},
)
TABLE = """words

| | target | SVHN | Mean |
|:--|:--|:--|:--|
| &nbsp;&nbsp;vaebm (mini) | paper | **0.74**&nbsp;[.73,.76] | 1,065.5 |
| vaebm (mini) | official | 0.60 |  |

| step | times | times |
|---|---|---|
| frozen | 2.34 | 2.19 |
"""
PAGE = """# Page
The energy lifts SVHN to <!-- v:ood/vaebm/svhn/auroc -->?<!-- /v --> from <!-- v:ood/nvae/svhn/auroc -->?<!-- /v -->.
<!-- holds: ood/vaebm/svhn/auroc#low > ood/nvae/svhn/auroc#high -->

<!-- ood/ood:begin -->
<!-- ood/ood:end -->

<!-- printed:begin -->old<!-- printed:end -->
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pages, a result file and a printed table."""
    monkeypatch.setattr(update_docs, "ROOT", tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    write_results(RESULTS, tmp_path / "docs" / "results" / "ood.json")
    (tmp_path / "docs" / "results" / "printed.txt").write_text(TABLE)
    for name in ("README.md", "TRAINING.md", "docs/page.md"):
        (tmp_path / name).write_text("nothing")
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    for name, accuracy in (("small", 0.8874), ("other", "good")):
        path = tmp_path / "evaluators" / "features" / "weights" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"accuracy": accuracy, "training": {"epochs": 16, "images": 49888}}))
    return tmp_path


def test_marks_are_filled_and_the_rest_stays(checkout: Path) -> None:
    assert update_docs.main([]) == 0
    text = (checkout / "docs" / "page.md").read_text()
    assert text.startswith(
        "# Page\nThe energy lifts SVHN to <!-- v:ood/vaebm/svhn/auroc -->0.74<!-- /v --> from <!-- v:"
    )
    assert "| &nbsp;&nbsp;&nbsp;VAEBM (measured, mini) | **0.74**&nbsp;[.72,.76] |" in text
    assert (
        "Made by `python benchmark.py --suite ood --num-images 2000` in 72 s, with what the cache held (Linux x86_64, torch 2.15.0)"
        in text
    )
    assert text.endswith(f"<!-- printed:begin -->\n{TABLE.strip()}\n<!-- printed:end -->\n")
    assert (checkout / "README.md").read_text() == "nothing"


def test_check_changes_nothing_and_names_page_and_mark(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert update_docs.main(["--check"]) == 1
    assert (checkout / "docs" / "page.md").read_text() == PAGE
    assert capsys.readouterr().out.splitlines() == [
        "page.md: ood/ood:begin: differs from what docs/results gives",
        "page.md: printed:begin: differs from what docs/results gives",
        "page.md: v:ood/vaebm/svhn/auroc: found ?, docs/results gives 0.74",
        "page.md: v:ood/nvae/svhn/auroc: found ?, docs/results gives 0.04",
    ]


CHANGES = {
    "number of a page": ("docs/page.md", "-->0.74<", "-->0.75<"),
    "table of a page": ("docs/page.md", "[.72,.76]", "[.72,.77]"),
    "printed text on a page": ("docs/page.md", "1,065.5", "1,066.5"),
    "printed text": ("docs/results/printed.txt", "1,065.5", "1,066.5"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_digit_more_or_less_is_found(checkout: Path, change: str) -> None:
    name, old, new = CHANGES[change]
    update_docs.main([])
    assert update_docs.main(["--check"]) == 0
    text = (checkout / name).read_text()
    assert text.count(old) == 1
    (checkout / name).write_text(text.replace(old, new))
    assert update_docs.main(["--check"]) == 1


def test_one_digit_of_a_new_measurement_is_found(checkout: Path) -> None:
    update_docs.main([])
    rows = [measured("vaebm", 0.7306), *RESULTS.rows[1:]]
    write_results(replace(RESULTS, rows=rows), checkout / "docs" / "results" / "ood.json")
    assert update_docs.main(["--check"]) == 1
    update_docs.main([])
    assert "-->0.73<" in (checkout / "docs" / "page.md").read_text()


def test_one_digit_of_the_committed_results_and_pages_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("docs", "README.md", "TRAINING.md", *addresses.CARDS):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(update_docs, "ROOT", tmp_path)
    stored, readme = tmp_path / "docs" / "results" / "ood.json", tmp_path / "README.md"
    as_committed = readme.read_text()
    number = re.search(r"(<!-- v:.+? -->-?)(\d)", as_committed)
    assert number
    readme.write_text(as_committed.replace(number[0], number[1] + str((int(number[2]) + 1) % 10), 1))
    assert update_docs.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("README.md: v:")
    readme.write_text(as_committed)
    digits = re.search(r'"value": 0\.(\d)', stored.read_text())
    assert digits
    edited = digits[0][:-1] + str((int(digits[1]) + 1) % 10)
    stored.write_text(stored.read_text().replace(digits[0], edited, 1))
    assert run(update_docs.main, ["--check"]) == 2
    assert "edited" in capsys.readouterr().err


def test_a_claim_that_fails_is_reported_and_the_numbers_are_filled(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "docs" / "page.md").write_text(
        "is <!-- v:ood/vaebm/svhn/auroc -->?<!-- /v -->\n"
        "<!-- holds: 1 > ood/vaebm/svhn/auroc > ood/nvae/svhn/auroc -->\n"
        "<!-- holds: 1 > ood/vaebm/svhn/auroc < ood/nvae/svhn/auroc -->"
    )
    assert update_docs.main([]) == 1
    claim = "holds: 1 > ood/vaebm/svhn/auroc < ood/nvae/svhn/auroc"
    assert capsys.readouterr().out == f"page.md: {claim}: no longer true (1, 0.7406, 0.036); mend the sentence\n"
    assert "-->0.74<" in (checkout / "docs" / "page.md").read_text()


# What marks can name


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ood/vaebm/svhn/auroc", "0.74"),
        ("ood/vaebm/svhn/auroc#low", "0.72"),
        ("ood/vaebm/svhn/auroc#high", "0.76"),
        ("ood/vaebm/svhn/auroc#n", "4,000"),
        ("ood/vaebm/svhn/auroc/log_p", "0.04"),
        ("ood/vaebm/svhn/auroc/log_p#high", "0.06"),
        ("ood/vaebm/cifar10/sd_log_p", "793"),
        ("ood/vaebm/svhn/auroc{.3f}", "0.741"),
        ("ood/vaebm/svhn/auroc{.0%}", "74 %"),
        ("paper/vaebm/svhn/auroc", "0.83"),
        ("paper/vaebm/stacked_mnist/kl", "0.087"),
        ("printed/vaebm/paper/SVHN", "0.74"),
        ("printed/vaebm (mini)/official/SVHN", "0.60"),
        ("printed/vaebm/paper/Mean", "1,065.5"),
        ("card/small/accuracy", "0.887"),
        ("card/small/accuracy{.1%}", "88.7 %"),
        ("card/small/training/images", "49,888"),
        ("ratio(ood/vaebm/svhn/auroc; ood/nvae/svhn/auroc)", "21"),
        ("ratio(printed/vaebm/paper/SVHN; 2)", "0.37"),
        ("difference(ood/vaebm/svhn/auroc; ood/nvae/svhn/auroc){.3f}", "0.705"),
        ("max(ood/vaebm/svhn/auroc; ood/nvae/svhn/auroc; 0.5)", "0.74"),
        ("min(ood/vaebm/svhn/auroc; ood/nvae/svhn/auroc; 0.5)", "0.036"),
    ],
)
def test_addresses(checkout: Path, address: str, text: str) -> None:
    assert addresses.Sources(checkout).number(address).text == text


def test_every_published_number_has_an_address() -> None:
    sources = addresses.Sources(ROOT)
    for published in read_published():
        found = sources.number(f"paper/{published.system}/{published.dataset}/{published.metric}")
        assert found.value == published.value
        assert float(found.text) == pytest.approx(published.value, rel=0.005)  # three digits


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("oood/vaebm/svhn/auroc", "oood: no oood.json or oood.txt in docs/results. Did you mean 'ood'?"),
        ("ood/vaebmm/svhn/auroc", "no system 'vaebmm' there. Did you mean 'vaebm'? Available: nvae, vaebm."),
        ("ood/vaebm/shvn/auroc", "no dataset 'shvn' there. Did you mean 'svhn'?"),
        ("ood/vaebm/svhn/aupr", "no metric 'aupr' there. Did you mean 'auroc'? Available: auroc."),
        ("ood/vaebm/svhn/auroc/logp", "no variant 'logp' there. Did you mean 'log_p'?"),
        ("ood/vaebm/svhn/auroc#mean", "needed FILE/SYSTEM/DATASET/METRIC, /VARIANT if it has one"),
        ("ood/vaebm", "needed FILE/SYSTEM/DATASET/METRIC"),
        ("ood", "needed FILE/SYSTEM/DATASET/METRIC"),
        ("ood/vaebm/celeba/auroc", "found nothing there (CelebA is not there)"),
        ("ood/vaebm/cifar10/sd_log_p#low", "found nothing there"),
        ("ood/nvae/cifar100/auroc", "found 2 measurements there; needed one"),
        ("ood/vaebm/svhn/auroc{two}", "'two' is no format of a number; needed one like .2f"),
        ("ratio(ood/vaebm/svhn/auroc; 0)", "needed two numbers, the second not 0"),
        ("ratio(ood/vaebm/svhn/auroc)", "needed two numbers"),
        ("sum(1; 2)", "no sum(1; 2).json or sum(1; 2).txt in docs/results"),
        ("printed/vaebm/SVHN", "found 2 cells there; needed FILE/CELL/.../COLUMN of exactly one"),
        ("printed/glow/SVHN", "found 0 cells there"),
        ("printed/frozen/times", "found 2 cells there"),
        ("printed/SVHN", "found 0 cells there"),
        ("printed/vaebm/paper/target", "found 'paper' there; needed a number"),
        ("printed/vaebm/official/Mean", "found '' there; needed a number"),
        ("card/smal/accuracy", "no such card. Did you mean 'small'?"),
        ("card/small/acuracy", "no 'acuracy' there. Did you mean 'accuracy'?"),
        ("card/small/accuracy/more", "no 'more' there"),
        ("card/small/training", "found no number there"),
        ("card/other/accuracy", "found no number there"),
    ],
)
def test_an_address_of_nothing_is_one_clear_line(
    checkout: Path, address: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "README.md").write_text(f"is <!-- v:{address} -->0.74<!-- /v -->")
    assert run(update_docs.main, []) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: README.md: ")
    assert message in error
    assert error.count("\n") == 1
    assert (checkout / "docs" / "page.md").read_text() == PAGE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- ood:begin --> and no end", "<!-- ood:begin -->: found no other half of this mark"),
        ("<!-- ood:begin --><!-- modes:end -->", "<!-- ood:begin -->: found no other half"),
        ("no begin <!-- ood:end -->", "<!-- ood:end -->: found no other half"),
        ("is <!-- v:ood/vaebm/svhn/auroc -->0.74\n<!-- /v -->", "of a number on its line"),
        ("is 0.74<!-- /v -->", "<!-- /v -->: found no other half"),
        ("<!-- holds -->", "<!-- holds -->: found no other half"),
        ("is\n<!-- v:ood/vaebm/svhn/auroc -->0.74<!-- /v -->", "found at the start of a line"),
        ("<!-- holds: ood/vaebm/svhn/auroc -->", "needed NUMBER > NUMBER or NUMBER < NUMBER"),
        ("<!-- ood/mode:begin --><!-- ood/mode:end -->", "ood/mode: no such table in ood. Did you mean 'ood'?"),
        ("<!-- od:begin --><!-- od:end -->", "od: no od.json or od.txt in docs/results. Did you mean 'ood'?"),
    ],
)
def test_a_broken_mark_is_one_clear_line(
    checkout: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "README.md").write_text(text)
    assert run(update_docs.main, []) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (checkout / "README.md").read_text() == text


def test_tables_of_published_numbers_alone(checkout: Path) -> None:
    assert addresses.Sources(checkout).table("paper/ood").count("| VAEBM | **0.83** |") == 1


def test_the_table_of_bundled_checkpoints_is_that_of_their_cards() -> None:
    table = addresses.Sources(ROOT).table("bundled")
    for path in (ROOT / "baselines" / "checkpoints").glob("*.json"):
        assert f"| {path.stem} | `{json.loads(path.read_text())['training']['command']}` |" in table


# What is stored


def finished_run(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    write_results(replace(RESULTS, **changes), folder / "ood.json")
    return folder


def test_take_stores_results_without_places_and_fills_the_pages(checkout: Path, tmp_path: Path) -> None:
    command = f"{RESULTS.command} --out {tmp_path} --cache=/a/b --data-root /c --threads 1"
    run_folder = finished_run(tmp_path / "run", rows=[measured("vaebm", 0.81), *RESULTS.rows[1:]], command=command)
    assert update_docs.main(["--take", str(run_folder)]) == 0
    stored = checkout / "docs" / "results" / "ood.json"
    assert read_results(stored).command == f"{RESULTS.command} --threads 1"
    assert read_results(stored).rows == read_results(run_folder / "ood.json").rows
    assert sum('"metric": "auroc"' in line for line in stored.read_text().splitlines()) == 6  # a line each
    assert "-->0.81<" in (checkout / "docs" / "page.md").read_text()


def test_take_gives_names_and_takes_printed_text(checkout: Path, tmp_path: Path) -> None:
    run_folder = finished_run(tmp_path / "run")
    (tmp_path / "out.txt").write_text(f"{TABLE}\n\n")
    assert update_docs.main(["--take", f"seeds={run_folder / 'ood.json'}", f"other={tmp_path / 'out.txt'}"]) == 0
    assert read_results(checkout / "docs" / "results" / "seeds.json").rows == RESULTS.rows
    assert (checkout / "docs" / "results" / "other.txt").read_text() == TABLE


def test_take_brings_the_plots_that_the_pages_show(checkout: Path, tmp_path: Path) -> None:
    run_folder = finished_run(tmp_path / "run")
    for name in ("shown.png", "not_shown.png"):
        (run_folder / name).write_bytes(b"new")
    (checkout / "docs" / "shown.png").write_bytes(b"old")
    update_docs.main(["--take", str(run_folder)])
    assert (checkout / "docs" / "shown.png").read_bytes() == b"new"
    assert not (checkout / "docs" / "not_shown.png").exists()


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("0.7406", "0.8406"))


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:500])


@pytest.mark.parametrize("damage", [edit, cut])
def test_take_refuses_edited_results(checkout: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    run_folder = finished_run(tmp_path / "run")
    before = (checkout / "docs" / "results" / "ood.json").read_bytes()
    damage(run_folder / "ood.json")
    with pytest.raises(UserError, match="edited"):
        update_docs.main(["--take", str(run_folder)])
    assert (checkout / "docs" / "results" / "ood.json").read_bytes() == before


def test_take_stores_all_or_nothing(checkout: Path, tmp_path: Path) -> None:
    good, bad = finished_run(tmp_path / "good"), finished_run(tmp_path / "bad")
    (bad / "ood.json").rename(bad / "other.json")
    cut(bad / "other.json")
    stored = checkout / "docs" / "results" / "ood.json"
    before = stored.read_bytes()
    with pytest.raises(UserError, match="cut off"):
        update_docs.main(["--take", str(good), str(bad)])
    assert stored.read_bytes() == before


def test_take_refuses_what_is_no_text(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match="found no text"):
        update_docs.main(["--take", str(tmp_path / "plot.png")])


@pytest.mark.parametrize(
    "word", ["vaebm=/Users/me/vaebm.safetensors", "/Users/me/a.npz", "vaebm=a.pt,/b/EBM.pth", "~/a"]
)
def test_take_refuses_a_command_that_names_places(checkout: Path, tmp_path: Path, word: str) -> None:
    run_folder = finished_run(tmp_path / "run", command=f"python benchmark.py --checkpoint {word}")
    with pytest.raises(UserError, match=r"its command names .*needed a path below the repository"):
        update_docs.main(["--take", str(run_folder)])


def test_take_refuses_a_folder_without_results(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found no result file"):
        update_docs.main(["--take", str(tmp_path / "empty")])


def test_check_stores_nothing(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--check: changes nothing; needed it without --take"):
        update_docs.main(["--check", "--take", str(tmp_path)])


def test_selections_become_a_table(checkout: Path, tmp_path: Path) -> None:
    for seed, best in ((1, 4), (0, 2)):
        candidates = [{"steps": steps, "distance": abs(steps - best) + 0.5} for steps in (2, 4)]
        choice = {"seed": seed, "update": 600, "steps": best, "candidates": candidates}
        (tmp_path / f"{seed}.selection.json").write_text(json.dumps(choice))
    update_docs.main(["--selections", str(tmp_path / "1.selection.json"), str(tmp_path / "0.selection.json")])
    assert (checkout / "docs" / "results" / "selection.txt").read_text().splitlines() == [
        "| seed | update kept | 2 steps | 4 steps |",
        "|---|---|---|---|",
        "| 0 | 600 | **0.5** | 2.5 |",
        "| 1 | 600 | 2.5 | **0.5** |",
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["[]"], "needed NAME.selection.json"),
        (["{"], "needed NAME.selection.json"),
        (['{"seed": 0, "update": 1, "steps": 4, "candidates": []}'], "needed NAME.selection.json"),
        (
            [
                '{"seed": 0, "update": 1, "steps": 4, "candidates": [{"steps": 4, "distance": 1}]}',
                '{"seed": 1, "update": 1, "steps": 8, "candidates": [{"steps": 8, "distance": 1}]}',
            ],
            "1.json: found other numbers of steps than in",
        ),
    ],
)
def test_other_selections_are_refused(checkout: Path, tmp_path: Path, texts: list[str], message: str) -> None:
    files = [tmp_path / f"{i}.json" for i in range(len(texts))]
    for path, text in zip(files, texts, strict=True):
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        update_docs.main(["--selections", *map(str, files)])
    assert not (checkout / "docs" / "results" / "selection.txt").exists()
