"""published.csv is read as it stands, and nothing else passes for it."""

import csv
import re
from pathlib import Path

import pytest

from leaderboards.published import COLUMNS, PUBLISHED_CSV, REFERENCES_BIB, read_published
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
