"""The entries that tables cite: none more, none less, in full, in three formats."""

import html.parser
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ood_rows
from pybtex.database import parse_file, parse_string

from leaderboards import Selection, build_boards, write_board
from leaderboards.published import REFERENCES_BIB
from leaderboards.render import bibliography
from leaderboards.render.bibliography import bibtex, html_references, latex_bibliography, used_keys
from vaebm.errors import UserError

SOURCE = parse_file(str(REFERENCES_BIB), "bibtex").entries
OOD_KEYS = sorted(
    [
        "vahdat2020NVAE",
        "kingma2018glow",
        "du2019implicit",
        "han2020joint",
        "xiao2021vaebm",
        "grathwohl2020your",
        "liu2020hybrid",
    ]
)


def test_used_keys_are_those_of_the_rows_each_once() -> None:
    boards = build_boards([])
    assert used_keys(boards["ood"]) == OOD_KEYS
    assert used_keys([*boards["ood"], *boards["ood"]]) == OOD_KEYS
    assert used_keys(build_boards([], Selection(rows=("glow", "vaebm")))["ood"]) == ["kingma2018glow", "xiao2021vaebm"]
    assert used_keys(build_boards(ood_rows(), Selection(origin="measured"))["ood"]) == []
    assert used_keys([]) == []


def test_bibtex_has_just_these_entries_with_all_their_fields() -> None:
    found = parse_string(bibtex(["kingma2018glow", "grathwohl2020your", "kingma2018glow"]), "bibtex").entries
    assert list(found) == ["grathwohl2020your", "kingma2018glow"]
    for key, entry in found.items():
        assert (entry.type, dict(entry.fields), entry.persons) == (
            SOURCE[key].type,
            dict(SOURCE[key].fields),
            SOURCE[key].persons,
        )
    assert r"J{\"o}rn-Henrik" in bibtex(["grathwohl2020your"])


def test_every_entry_of_the_source_can_be_printed_in_every_format() -> None:
    latex, page = latex_bibliography(SOURCE), html_references(SOURCE)
    assert {line.partition("{")[2].rstrip("}") for line in latex.splitlines() if line.startswith(r"\bibitem")} == {
        *SOURCE
    }
    assert sorted(key for key, _ in page) == sorted(SOURCE)
    assert parse_string(bibtex(SOURCE), "bibtex").entries.keys() == SOURCE.keys()
    assert latex.count(r"\bibitem[") == latex.count("\n\n\\bibitem") == len(SOURCE)
    assert all(entry.fields["year"] in dict(page)[key] for key, entry in SOURCE.items())


def test_latex_numbers_the_entries_by_author_as_plain_does() -> None:
    text = latex_bibliography(["xiao2021vaebm", "kingma2018glow", "du2019implicit"])
    places = [
        text.index(f"\\bibitem[{i}]{{{key}}}")
        for i, key in enumerate(("du2019implicit", "kingma2018glow", "xiao2021vaebm"), 1)
    ]
    assert places == sorted(places)
    assert text.startswith(r"\begin{thebibliography}{")
    assert text.endswith("\\end{thebibliography}\n")
    assert [key for key, _ in html_references(["xiao2021vaebm", "kingma2018glow", "du2019implicit"])] == [
        *("du2019implicit", "kingma2018glow", "xiao2021vaebm")
    ]


class Tags(html.parser.HTMLParser):
    """Collects the text, the links, and whether every tag is closed and harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.links = "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("em", "span", "a")
        assert {name for name, _ in attrs} <= {"class", "href"}
        self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(source: str) -> Tags:
    tags = Tags()
    tags.feed(source)
    tags.close()
    assert not tags.open
    return tags


def test_html_is_well_formed_and_links_to_arxiv_only_by_its_number() -> None:
    for key, source in html_references(SOURCE):
        tags = read(source)
        assert "\\" not in tags.text, key
        assert "{" not in tags.text, key
        assert all(link.startswith("https://") for link in tags.links)
    assert read(dict(html_references(["xiao2021vaebm"]))["xiao2021vaebm"]).links == ["https://arxiv.org/abs/2010.00654"]
    assert read(dict(html_references(["grathwohl2020your"]))["grathwohl2020your"]).text.count("Jörn-Henrik") == 1
    # An address is a link, not a macro.
    assert (
        "https://github.com/mseitzer/pytorch-fid"
        in read(dict(html_references(["Seitzer2020FID"]))["Seitzer2020FID"]).links
    )


def test_html_of_an_entry_with_markup_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "@article{x, title={<script>alert(1)</script> & more}, author={A <b>B</b>}, journal={J}, year={2020}}"
    (tmp_path / "references.bib").write_text(hostile)
    monkeypatch.setattr(bibliography, "REFERENCES_BIB", tmp_path / "references.bib")
    bibliography._source.cache_clear()
    try:
        [(_, source)] = html_references(["x"])
    finally:
        bibliography._source.cache_clear()
    assert "<script" not in source
    assert "alert(1)" in read(source).text


@pytest.mark.parametrize("use", [bibtex, latex_bibliography, html_references])
def test_an_unknown_key_is_named_with_what_was_meant(use: object) -> None:
    with pytest.raises(UserError, match=r"references\.bib.*'xiao2020vaebm'.*xiao2021vaebm"):
        use(["kingma2018glow", "xiao2020vaebm"])  # type: ignore[operator]


@pytest.mark.parametrize("content", [None, "@article{x, title={never closed", b"\xff\xfe\x00"])
def test_a_bibliography_that_cannot_be_read_is_named(
    content: str | bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.bib"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(bibliography, "REFERENCES_BIB", path)
    bibliography._source.cache_clear()
    try:
        with pytest.raises(UserError, match=r"broken\.bib"):
            bibtex(["x"])
    finally:
        bibliography._source.cache_clear()


def test_only_tables_that_cite_have_a_bibliography_file(tmp_path: Path) -> None:
    write_board(build_boards(ood_rows())["ood"], tmp_path / "both", "ood")
    write_board(build_boards(ood_rows(), Selection(origin="measured"))["ood"], tmp_path / "measured", "ood")
    assert sorted(parse_file(str(tmp_path / "both" / "ood.bib"), "bibtex").entries) == OOD_KEYS
    assert not (tmp_path / "measured" / "ood.bib").exists()
    assert "thebibliography" not in (tmp_path / "measured" / "ood_standalone.tex").read_text()
    assert r"\bibliography{ood}" in (tmp_path / "both" / "ood.tex").read_text().splitlines()[1]
    assert r"\bibliography" not in (tmp_path / "measured" / "ood.tex").read_text()


def test_tables_are_imported_without_the_library_of_bibliographies() -> None:
    code = "import sys, leaderboards, leaderboards.render.bibliography; sys.exit('pybtex' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_library_of_bibliographies_warns_of_nothing_and_starts_fast() -> None:
    code = (
        "import time; start = time.perf_counter(); from leaderboards.render.bibliography import latex_bibliography;"
        "latex_bibliography(['xiao2021vaebm']); print(time.perf_counter() - start)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert float(done.stdout) < 5  # seconds; a tenth of one on an idle machine
