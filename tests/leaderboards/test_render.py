"""The same cell in every format; names with special characters; options that do what they say."""

import csv
import html
import io
import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import generation_rows, modes_rows

from evaluators.measurement import Measurement
from evaluators.result_file import find_results
from leaderboards import Style, build_boards, render_text, write_board
from leaderboards.board import Block, Board, Cell, Column, Row
from leaderboards.render import markdown, to_csv, to_json, to_latex, to_markdown, to_text
from leaderboards.render.latex import typeset
from leaderboards.render.layout import PAPER, SHEET, Page
from leaderboards.render.numbers import parts
from vaebm.errors import UserError

NUMBER = r"-?\d*\.?\d+(?:e[-+]\d+)?"
MARKS = {"text": ("*", "+"), "markdown": ("**", "<ins>"), "latex": (r"\textbf{", r"\underline{")}

# What one cell prints: rank, number, low, high; "" where there is none.
Shown = tuple[int, str, str, str]


def shown(text: str, form: str) -> Shown:
    """Read what is printed in one cell."""
    marks = [mark in text for mark in MARKS[form]]
    rank = 1 + marks.index(True) if any(marks) else 0
    text = text.replace("$-$", "-").replace(r"\,", " ")
    text = re.sub(r"<sup>.*?</sup>|\\textsuperscript\{.*?\}|</?ins>|\\[a-z]+|[⁰¹²³⁴⁵⁶⁷⁸⁹*{}&]|&nbsp;", " ", text)
    found = re.findall(NUMBER, re.sub(r"(?<=\d)\+(?= |$)", " ", text))
    assert found or re.search("–|--", text)
    assert len(found) in (0, 1, 3)
    number, low, high = (*found, "", "", "")[:3]
    return rank, number, low, high


def every_board(rows: list[Measurement]) -> list[Board]:
    """The tables of measured rows of all suites, and all of the paper's."""
    seconds = {"suite": "speed", "dataset": "cifar10", "metric": "seconds_per_50_images", "n": 50, "size": "mini"}
    speed = [
        Measurement(system=s, value=v, low=v * 0.9, high=v * 1.1, **seconds)
        for s, v in (("vaebm", 0.81), ("ncsn", 11.3))
    ]
    method = {"suite": "ablation", "dataset": "cifar10", "metric": "fid", "size": "mini", "n": 10000}
    ablation = [Measurement(system=s, value=v, **method) for s, v in (("vaebm", 31.22), ("nvae", 48.9))]
    measured = build_boards([*rows, *generation_rows(), *modes_rows(), *speed, *ablation])
    boards = [board for boards in (measured, build_boards([])) for found in boards.values() for board in found]
    assert len(boards) >= 20
    return boards


def text_cells(board: Board, style: Style | None = None) -> list[Shown]:
    """Split the lines of the terminal's rows at the columns' positions."""
    body = to_text(board, style, width=600).splitlines()
    rules = [i for i, line in enumerate(body) if line.startswith("─")]
    header = body[rules[0] + 1]
    starts, place = [], 0
    for column in board.columns:
        place = header.index(f"  {column.title}", place)
        starts.append(place)
    rows = [line for line in body[rules[1] + 1 : rules[2]] if line.startswith("  ")]
    ends = [*starts[1:], None]
    return [shown(line[a:b], "text") for line in rows for a, b in zip(starts, ends, strict=True)]


def markdown_cells(board: Board, style: Style | None = None) -> list[Shown]:
    lines = [line for line in to_markdown(board, style).splitlines() if line.startswith("|") and "***" not in line][2:]
    return [shown(cell, "markdown") for line in lines for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def latex_cells(board: Board, style: Style | None = None, page: Page = PAPER) -> list[Shown]:
    """The cells of all panels, row by row."""
    panels = []
    for part in re.split(r"\\begin\{(?:tabular|longtable)\}\{@\{\}l", typeset(board, style, page))[1:]:
        each = 2 if part.startswith("r@{}l") else 1
        long = r"\endfoot" in part
        body = part.partition(r"\endfoot" if long else r"\midrule")[2].partition(
            r"\end{longtable}" if long else r"\bottomrule"
        )[0]
        rows = [line.removesuffix(r" \\").split(" &")[1:] for line in body.splitlines() if " &" in line]
        panels.append([[shown(" ".join(row[i : i + each]), "latex") for i in range(0, len(row), each)] for row in rows])
    return [cell for lines in zip(*panels, strict=True) for line in lines for cell in line]


def rounded(text: str, column: Column, origin: str, style: Style) -> str:
    """Round a number of the CSV file, in decimal arithmetic: as many digits behind the point as the style says, or three in all; not so
    a published magnitude, which is printed as it was published."""
    if not text:
        return ""
    value = Decimal(float(text))
    if column.magnitude and origin == "published":
        return f"{float(text):g}"
    if not column.magnitude:
        measured = style.decimals if style.measured_decimals is None else style.measured_decimals
        digits = style.decimals if origin == "published" else measured
        digits = digits if column.decimals is None else column.decimals
        return f"{value.quantize(Decimal(1).scaleb(-digits))}"
    if value and not 1e-4 <= abs(round(value, 3 - 1 - value.adjusted())) < 1000:
        return f"{value:.0f}" if 999 < abs(value) < 999_999 else f"{value:.2e}"
    return f"{value.quantize(Decimal(1).scaleb(value.adjusted() - 2)) if value else Decimal('0.00')}"


def same(printed: str, expected: str, *, short: bool = False) -> bool:
    """A paper's number may have fewer digits; intervals have no zero before the point; nothing prints a negative zero."""
    if short:
        printed = re.sub(r"^(-?)\.", r"\g<1>0.", printed)
    if expected and not float(expected):
        expected = expected.removeprefix("-")
    return printed == expected


STYLES = [Style(), Style(decimals=3), Style(decimals=1, measured_decimals=4)]


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_every_cell_of_every_format_is_the_rounded_one_of_the_csv_file(rows: list[Measurement], style: Style) -> None:
    for board in every_board(rows):
        cells = [(column, cell) for *_, column, cell in board.cells()]
        printed = text_cells(board, style)
        assert printed == markdown_cells(board, style), board.name
        assert printed == latex_cells(board, style) == latex_cells(board, style, SHEET), board.name
        records = list(csv.DictReader(io.StringIO(to_csv([board]))))
        assert len(records) == len(printed) == len(cells)
        for (column, _), (rank, number, low, high), record in zip(cells, printed, records, strict=True):
            assert rank == int(record["rank"] or 0)
            expected = [rounded(record[key], column, record["origin"], style) for key in ("value", "low", "high")]
            assert same(number, expected[0]), (board.name, number, record)
            assert same(low, expected[1], short=True), (board.name, low, record)
            assert same(high, expected[2], short=True), (board.name, high, record)
            assert record["value"] or record["note"]


def test_the_tables_in_json_are_those_of_the_csv_file(rows: list[Measurement]) -> None:
    boards = every_board(rows)
    tables = json.loads(to_json(boards))["tables"]
    found = [
        {
            **{"board": table["name"], "block": block["title"], "row": row["label"], "origin": cell["origin"]},
            **{key: row[key] for key in ("system", "variant", "size", "citation")},
            **{key: cell[key] for key in ("column", "dataset", "metric", "value", "low", "high", "n", "seed", "rank")},
            "note": cell["note"] + cell["reason"],
        }
        for table in tables
        for block in table["blocks"]
        for row in block["rows"]
        for cell in row["cells"]
    ]
    records = list(csv.DictReader(io.StringIO(to_csv(boards))))
    as_text = [{key: "" if value is None else str(value) for key, value in cell.items()} for cell in found]
    assert as_text == [dict(record) for record in records]


def test_the_tables_in_json_say_why_a_cell_is_empty_what_may_be_ranked_and_which_way_is_better(
    rows: list[Measurement],
) -> None:
    table, aupr, *_ = json.loads(to_json(build_boards(rows)["ood"]))["tables"]
    assert table["title"].startswith("Out-of-distribution detection (Table 6 of the paper)")
    assert table["columns"][0] == {"key": "svhn", "title": "SVHN", "better": "higher"}
    assert table["footnotes"][0] == "AUROC: higher is better, 0.5 is chance."
    assert [block["better"] for block in aupr["blocks"]] == ["higher", "lower"]
    assert all(column["better"] is None for column in aupr["columns"])
    every = [cell for block in table["blocks"] for row in block["rows"] for cell in row["cells"]]
    assert all(bool(cell["reason"]) == (cell["value"] is None) for cell in every)
    assert {cell["note"] for cell in every if cell["note"]} == {"Mean over the sets with a value."}
    assert {cell["reason"] for cell in every if "VAEBM_DATA" in cell["reason"]}
    # Ranked are cells of one group and of no other: in a block, two cells of a column share a group with the best one.
    for block in table["blocks"]:
        for cells in zip(*(row["cells"] for row in block["rows"]), strict=True):
            best = [cell for cell in cells if cell["rank"] == 1]
            for cell in best:
                rivals = [
                    other["value"] for other in cells if other["group"] == cell["group"] and other["value"] is not None
                ]
                assert cell["group"]
                assert len(rivals) > 1
                assert cell["value"] == max(rivals)
            if not block["ranked"]:
                assert not best
    assert any(cell["rank"] == 2 for cell in every)


def test_no_file_of_tables_is_taken_for_a_result_file(rows: list[Measurement], tmp_path: Path) -> None:
    write_board(build_boards(rows)["ood"], tmp_path, "ood")
    assert (tmp_path / "ood_tables.json").is_file()
    with pytest.raises(UserError, match="no result file"):
        find_results([tmp_path])


def test_arrows_say_which_way_is_better_in_every_format() -> None:
    columns = (Column("a", "a", higher_is_better=True), Column("b", "b", higher_is_better=False), Column("c", "c"))
    cells = (Cell(1.0), Cell(2.0), Cell(3.0))
    board = Board("t", "t", columns, (Block("b", (Row("r", "", "measured", cells),)),))
    assert to_text(board).splitlines()[2].split() == ["a", "↑", "b", "↓", "c"]
    assert "| | a ↑ | b ↓ | c |" in to_markdown(board)
    found = re.findall(r"\\multicolumn\{1\}\{r\}\{(.*?)\}", to_latex(board))
    assert found == [r"a $\uparrow$", r"b $\downarrow$", "c"]


def test_csv_has_a_line_per_cell_with_all_fields(rows: list[Measurement]) -> None:
    records = list(csv.DictReader(io.StringIO(to_csv(build_boards(rows)["ood"]))))
    record = next(r for r in records if (r["row"], r["column"]) == ("VAEBM (measured, mini)", "cifar100"))
    assert record == {
        "board": "ood",
        "block": "Unsupervised training",
        "row": "VAEBM (measured, mini)",
        "system": "vaebm",
        "variant": "",
        "size": "mini",
        "citation": "",
        "column": "cifar100",
        "dataset": "cifar100",
        "metric": "auroc",
        "value": "0.5672",
        "low": repr(0.5672 - 0.0152),
        "high": repr(0.5672 + 0.0152),
        "n": "3982",
        "seed": "0",
        "origin": "measured",
        "rank": "1",
        "note": "",
    }


def test_empty_cells_show_a_dash_and_their_reason(rows: list[Measurement]) -> None:
    board = build_boards(rows)["ood"][0]
    for text in (render_text([board]), to_markdown(board), to_latex(board)):
        assert " ".join(text.split()).replace("\\", "").count("VAEBM_DATA") == 1
    assert "–²" in render_text([board])
    assert "–<sup>2</sup>" in to_markdown(board)
    assert r"-- & \textsuperscript{2}" in to_latex(board)


def test_the_terminal_table_fits_its_width_and_other_columns_go_to_a_panel_below(rows: list[Measurement]) -> None:
    boards = build_boards(rows)["ood"]
    for width in (80, 120):
        assert max(len(line) for line in render_text(boards, width=width).splitlines()) <= width
    narrow, wide = to_text(boards[0], width=80), to_text(boards[0], width=200)
    assert narrow.count("IGEBM (measured, mini)") > wide.count("IGEBM (measured, mini)") == 1
    assert narrow.count("CelebA ↑") == wide.count("CelebA ↑") == 1


def test_style_options_take_effect(rows: list[Measurement]) -> None:
    boards = build_boards(rows)["ood"]
    for render in (to_text, to_markdown, to_latex):
        assert "0.721" not in render(boards[0])
        fine = render(boards[0], Style(measured_decimals=3))
        assert "0.721" in fine
        assert "0.630" not in fine  # published numbers keep the paper's two
        assert "0.630" in render(boards[0], Style(decimals=3))
        assert "[.71,.74]" not in render(boards[0], Style(intervals=False))
        assert "[.71,.74]" in render(boards[0])


FILES = ["ood.bib", "ood.csv", "ood.md", "ood.tex", "ood_standalone.tex", "ood_tables.json"]


def test_write_board_takes_the_style_and_leaves_no_partial_file(rows: list[Measurement], tmp_path: Path) -> None:
    paths = write_board(build_boards(rows)["ood"], tmp_path / "new", "ood", Style(measured_decimals=3))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES
    assert all("0.721" in path.read_text(encoding="utf-8") for path in paths if path.suffix != ".bib")


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(rows: list[Measurement], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file"):
        write_board(build_boards(rows)["ood"], tmp_path / "file", "ood")
    folder = tmp_path / "b" / "ood.tex"  # not the first of the files fails
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="--out"):
        write_board(build_boards(rows)["ood"], folder.parent, "ood")
    assert list(folder.parent.iterdir()) == [folder]


def test_a_name_that_utf8_cannot_hold_is_written_with_a_question_mark(tmp_path: Path) -> None:
    row = Measurement("ood", "caf\udce9", "svhn", "auroc", 0.5)
    paths = write_board(build_boards([row])["ood"], tmp_path, "ood")
    assert {path.name for path in paths} == {*FILES}
    assert "caf?" in (tmp_path / "ood.csv").read_text(encoding="utf-8")
    assert "| caf | " in (tmp_path / "ood.md").read_text(encoding="utf-8")  # what cannot be shown is a blank there


def test_numbers_near_zero_and_large_ones() -> None:
    cells = (Cell(-0.001, -0.31, 0.004), Cell(123456.7), Cell(0.00123), Cell(1.0, 0.995, 1.0))
    columns = (Column("a", "a"), Column("b", "b", True), Column("c", "c", True), Column("d", "d"))
    board = Board("t", "t", columns, (Block("b", (Row("r", "", "measured", cells),)),))
    text = " ".join(to_text(board).split())
    assert "r 0.00 [-.31,.00] 123457 0.00123 1.00 [.99,1.00]" in text


@pytest.mark.parametrize(
    ("value", "origin", "shown"),
    [
        *(
            (999.6, "measured", "1000"),
            (999.4, "measured", "999"),
            (11.0, "measured", "11.0"),
            (0.0, "measured", "0.00"),
        ),
        *(
            (0.087, "measured", "0.0870"),
            (0.087, "published", "0.087"),
            (107.9, "published", "107.9"),
            (2.5e6, "measured", "2.50e+06"),
        ),
    ],
)
def test_magnitudes_have_three_digits_and_published_ones_those_of_the_paper(
    value: float, origin: str, shown: str
) -> None:
    assert parts(Cell(value, origin=origin), Column("a", "a", magnitude=True), Style()) == (shown, "")


def test_counts_have_no_decimals_whatever_the_style() -> None:
    assert parts(Cell(998.0, 997.0, 999.0), Column("a", "a", decimals=0), Style(decimals=3)) == ("998", "[997,999]")


# --------------------------------------------------------------------------------------------------------------------
# Special characters

labels = st.text(alphabet=st.sampled_from("ab 1&%_#${}~^\\[]*<>|`'\"-–é中!"), min_size=1, max_size=12)
plain = labels.map(lambda text: " ".join(text.split())).filter(bool)


@given(plain)
def test_markdown_escapes_can_be_undone(label: str) -> None:
    escaped = markdown.escape(label)
    assert re.sub(r"\\(.)", r"\1", escaped) == label
    assert not re.search(r"(?<!\\)(?:\\\\)*[|*_`<$\[]", escaped)


@given(labels)
def test_a_hostile_name_keeps_the_tables_shape(label: str) -> None:
    row = Measurement("ood", label, "svhn", "auroc", 0.5, 0.4, 0.6, note=label)
    board = build_boards([row, replace(row, dataset=label + "!", note="")])["ood"][0]
    lines = [line for line in to_markdown(board).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {len(board.columns) + 2}
    assert len(latex_cells(board)) == len(markdown_cells(board)) == len(list(board.cells()))
    assert len(list(csv.DictReader(io.StringIO(to_csv([board]))))) == len(list(board.cells()))


def test_control_characters_do_not_reach_the_terminal() -> None:
    row = Measurement("ood", "\x1b[31mred\nline", "svhn", "auroc", 0.5)
    assert "\x1b" not in render_text(build_boards([row])["ood"])
    assert " [31mred line" in render_text(build_boards([row])["ood"])


def test_markdown_shows_names_as_they_are() -> None:
    assert html.unescape(markdown.escape("a|b_c*")) == r"a\|b\_c\*"
