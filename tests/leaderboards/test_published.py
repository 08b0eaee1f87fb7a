"""published.csv is read as it stands, and nothing else passes for it."""

import csv
import re
from pathlib import Path

import pytest

from leaderboards.published import (
    COLUMNS,
    DEVIATIONS_TOML,
    PUBLISHED_CSV,
    REFERENCES_BIB,
    read_deviations,
    read_published,
)
from vaebm.errors import UserError

LINE = "ood_detection,Table 6,NVAE,nvae,Unsupervised Training,svhn,auroc,0.42,true,vahdat2020NVAE,slides,high"


def written(folder: Path, header: str = ",".join(COLUMNS), line: str = LINE) -> Path:
    path = folder / "published.csv"
    path.write_text(f"{header}\n{line}\n")
    return path


def test_every_line_becomes_one_measurement_with_its_value_and_source() -> None:
    rows = read_published()
    with PUBLISHED_CSV.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(rows) == len(lines) > 70
    for row, line in zip(rows, lines, strict=True):
        assert (row.system, row.dataset, row.metric) == (line["model_key"], line["dataset"], line["metric"])
        assert row.value == float(line["value"])
        assert row.origin == "published"
        assert row.protocol == {"table": line["table"], "higher_is_better": line["higher_is_better"] == "true"}
        assert row.provenance["citation"] == line["citation_key"]
        assert row.provenance["source"] == line["source"]
        assert row.provenance["confidence"] == line["confidence"]


def test_every_citation_key_is_in_the_bibliography() -> None:
    keys = set(re.findall(r"@\w+\{([^,]+),", REFERENCES_BIB.read_text()))
    assert {row.provenance["citation"] for row in read_published()} <= keys


def test_a_good_file_is_read(tmp_path: Path) -> None:
    assert [row.value for row in read_published(written(tmp_path))] == [0.42]


@pytest.mark.parametrize(
    ("header", "line", "named"),
    [
        (",".join([*COLUMNS, "extra"]), LINE + ",1", "extra"),
        (",".join(COLUMNS[:-1]), LINE.rpartition(",")[0], "confidence"),
        (",".join([*COLUMNS, "suite"]), LINE + ",ood_detection", "once each"),
        (",".join(COLUMNS), LINE + ",1", "more or fewer"),
        (",".join(COLUMNS), LINE.rpartition(",")[0], "more or fewer"),
        (",".join(COLUMNS), LINE.replace("0.42", "0,42"), "more or fewer"),
        (",".join(COLUMNS), LINE.replace("0.42", "nan"), "'nan'"),
        (",".join(COLUMNS), LINE.replace("0.42", "?"), "'?'"),
        (",".join(COLUMNS), LINE.replace("true", "yes"), "'yes'"),
        (",".join(COLUMNS), LINE.replace("ood_detection", "odd"), "'odd'"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, header: str, line: str, named: str) -> None:
    path = written(tmp_path, header, line)
    with pytest.raises(UserError, match=re.escape(named)) as caught:
        read_published(path)
    assert str(path) in str(caught.value)


# --------------------------------------------------------------------------------------------------------------------
# Deviations

ENTRY = """
[[deviation]]
table = "Table 1 (CIFAR-10 unconditional)"
system = "glow"
metrics = ["fid"]
ranked = true
note = "Another paper quotes 45.99."
evidence = "its table"
"""


def test_every_deviation_is_about_a_published_number_and_says_its_evidence() -> None:
    known = {(row.protocol["table"], row.system, row.metric) for row in read_published()}
    found = read_deviations()
    assert known >= found.keys()
    assert all(". Source: " in known.note for known in found.values())
    systems = {system for _, system, _ in found}
    assert {"fdiv_ebm", "igebm", "sngan", "ncsnv2", "nvae", "glow", "stylegan2_noada"} <= systems
    assert {system for (_, system, _), known in found.items() if not known.ranked} == {"fdiv_ebm", "igebm", "sngan"}
    # Only from memory, so not a statement to print.
    text = DEVIATIONS_TOML.read_text()
    assert "biggan" not in text
    assert "38.2" not in text


def test_a_good_file_of_deviations_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "deviations.toml").write_text(ENTRY)
    ((place, known),) = read_deviations(path).items()
    assert place == ("Table 1 (CIFAR-10 unconditional)", "glow", "fid")
    assert (known.note, known.ranked) == ("Another paper quotes 45.99. Source: its table.", True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[[deviation]", "no TOML"),
        (ENTRY.replace("ranked = true\n", ""), "needed table (str), system (str), metrics (list), ranked (bool)"),
        (ENTRY.replace("ranked = true", 'ranked = "yes"'), "ranked (bool)"),
        (ENTRY + 'extra = "x"\n', "extra"),
        (ENTRY.replace('"glow"', '"glov"'), "entry 1 is about Table 1 (CIFAR-10 unconditional) / glov / fid: no such"),
        (ENTRY.replace('["fid"]', '["auroc"]'), "no such published number"),
        (ENTRY + ENTRY, "entry 2 is about Table 1 (CIFAR-10 unconditional) / glow / fid: a second one"),
    ],
)
def test_a_damaged_file_of_deviations_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (path := tmp_path / "deviations.toml").write_text(text)
    with pytest.raises(UserError, match=re.escape(named)) as caught:
        read_deviations(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
