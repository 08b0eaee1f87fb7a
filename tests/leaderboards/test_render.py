"""The same cell in every format; names with special characters; options that do what they say."""

import csv
import html
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic import generation_rows, modes_rows

from evaluators.measurement import Measurement
from leaderboards import Style, build_boards, render_text, write_board
from leaderboards.board import Block, Board, Cell, Column, Row
from leaderboards.render import latex, markdown, to_csv, to_latex, to_markdown, to_text
from leaderboards.render.numbers import parts
from vaebm.errors import UserError

NUMBER = r"-?\d*\.?\d+"


def numbers(text: str) -> tuple[str, ...]:
    """The value and the interval printed in one cell, e.g. ``("0.84", ".82", ".86")``; ``("–",)`` for an empty one."""
    text = text.replace("$-$", "-").replace("\\,", " ")
    text = re.sub(r"<sup>.*?</sup>|\\textsuperscript\{.*?\}|\\textbf|\\tiny|[⁰¹²³⁴⁵⁶⁷⁸⁹*{}]|&nbsp;", " ", text)
    return tuple(re.findall(NUMBER, text)) or (("–",) if re.search("–|--", text) else ())


def every_board(rows: list[Measurement]) -> list[Board]:
    boards = [
        *build_boards(rows)["ood"],
        *build_boards(generation_rows())["generation"],
        *build_boards(modes_rows())["modes"],
    ]
    assert len({board.name for board in boards}) == len(boards) == 9
    return boards


def text_cells(board: Board) -> list[tuple[str, ...]]:
    """Split the lines of the terminal's rows at the columns' positions."""
    body = to_text(board, width=400).splitlines()
    rules = [i for i, line in enumerate(body) if line.startswith("─")]
    header = body[rules[0] + 1]
    starts, place = [], 0
    for column in board.columns:
        place = header.index(f"  {column.title}", place)
        starts.append(place)
    rows = [line for line in body[rules[1] + 1 : rules[2]] if line.startswith("  ")]
    ends = [*starts[1:], None]
    return [numbers(line[a:b]) for line in rows for a, b in zip(starts, ends, strict=True)]


def markdown_cells(board: Board) -> list[tuple[str, ...]]:
    lines = [line for line in to_markdown(board).splitlines() if line.startswith("|") and "***" not in line][2:]
    return [numbers(cell) for line in lines for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def latex_cells(board: Board) -> list[tuple[str, ...]]:
    """The cells of all panels, row by row."""
    panels = []
    for part in to_latex(board).split(r"\toprule")[1:]:
        body = part.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        lines = [line for line in body.splitlines() if " & " in line]
        panels.append([[numbers(cell) for cell in line.removesuffix(r" \\").split(" & ")[1:]] for line in lines])
    return [cell for lines in zip(*panels, strict=True) for line in lines for cell in line]


def printed(cell: Cell, column: Column) -> str:
    assert cell.value is not None
    if column.decimals is not None:
        return f"{cell.value:.{column.decimals}f}"
    if not column.magnitude:
        return f"{cell.value:.2f}"
    return (
        f"{cell.value:.3g}"
        if cell.origin == "published"
        else f"{cell.value:#.3g}".removesuffix(".").replace("1.00e+03", "1000")
    )


def test_cells_agree_across_all_formats(rows: list[Measurement]) -> None:
    for board in every_board(rows):
        cells = [(column, cell) for *_, column, cell in board.cells()]
        assert text_cells(board) == markdown_cells(board) == latex_cells(board)
        records = list(csv.DictReader(io.StringIO(to_csv([board]))))
        frame = board.to_frame()
        assert len(records) == len(cells) == len(frame) * len(board.columns)
        flat = [value for line in frame[[c.key for c in board.columns]].to_numpy() for value in line]
        for (column, cell), shown, record, framed in zip(cells, text_cells(board), records, flat, strict=True):
            if cell.value is None:
                assert shown == ("–",)
                assert record["value"] == ""
                assert record["note"] == cell.note != ""
                assert math.isnan(framed)
                continue
            assert framed == float(record["value"]) == cell.value
            assert shown[0] == printed(cell, column)
            assert len(shown) == (3 if cell.low is not None else 1)
            assert [record["low"], record["high"]] == ["" if x is None else repr(x) for x in (cell.low, cell.high)]
            if cell.low is not None:
                assert float(shown[1]) == pytest.approx(
                    cell.low, rel=0.006, abs=0.5 if column.decimals == 0 else 0.0051
                )


def test_arrows_say_which_way_is_better_in_every_format() -> None:
    columns = (Column("a", "a", higher_is_better=True), Column("b", "b", higher_is_better=False), Column("c", "c"))
    cells = (Cell(1.0), Cell(2.0), Cell(3.0))
    board = Board("t", "t", columns, (Block("b", (Row("r", "", "measured", cells),)),))
    assert to_text(board).splitlines()[2].split() == ["a", "↑", "b", "↓", "c"]
    assert "| | a ↑ | b ↓ | c |" in to_markdown(board)
    assert r" & a $\uparrow$ & b $\downarrow$ & c \\" in to_latex(board)


def test_many_columns_make_panels_in_latex_that_repeat_the_rows() -> None:
    columns = tuple(Column(f"k{i}", f"title{i}") for i in range(13))
    board = Board(
        "t", "t", columns, (Block("b", (Row("r", "", "measured", tuple(Cell(float(i)) for i in range(13))),)),)
    )
    text = to_latex(board)
    assert text.count(r"\begin{tabular}") == text.count("\nr & ") == 3
    assert latex_cells(board) == [(f"{i}.00",) for i in range(13)]


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
        "best": "True",
        "note": "",
    }


def test_empty_cells_show_a_dash_and_their_reason(rows: list[Measurement]) -> None:
    board = build_boards(rows)["ood"][0]
    for text in (render_text([board]), to_markdown(board), to_latex(board)):
        assert " ".join(text.split()).replace("\\", "").count("VAEBM_DATA") == 1
    assert "–²" in render_text([board])
    assert "–<sup>2</sup>" in to_markdown(board)
    assert r"--\textsuperscript{2}" in to_latex(board)


def test_the_terminal_table_fits_its_width_and_other_columns_go_to_a_panel_below(rows: list[Measurement]) -> None:
    boards = build_boards(rows)["ood"]
    for width in (80, 120):
        assert max(len(line) for line in render_text(boards, width=width).splitlines()) <= width
    narrow, wide = to_text(boards[0], width=80), to_text(boards[0], width=200)
    assert narrow.count("IGEBM (measured, mini)") > wide.count("IGEBM (measured, mini)") == 1
    assert narrow.count("CelebA  ") >= 1


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


def test_write_board_takes_the_style_and_leaves_no_partial_file(rows: list[Measurement], tmp_path: Path) -> None:
    paths = write_board(build_boards(rows)["ood"], tmp_path / "new", "ood", Style(measured_decimals=3))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["ood.csv", "ood.md", "ood.tex"]
    assert all("0.721" in path.read_text(encoding="utf-8") for path in paths)


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(rows: list[Measurement], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file"):
        write_board(build_boards(rows)["ood"], tmp_path / "file", "ood")
    (tmp_path / "out" / "ood.csv.partial").mkdir(parents=True)  # the second of three files fails
    with pytest.raises(UserError, match="--out"):
        write_board(build_boards(rows)["ood"], tmp_path / "out", "ood")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ood.csv.partial"]


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
        *((0.087, "measured", "0.0870"), (0.087, "published", "0.087"), (2.5e6, "measured", "2.50e+06")),
    ],
)
def test_magnitudes_have_three_digits_and_published_ones_no_more_than_the_paper(
    value: float, origin: str, shown: str
) -> None:
    assert parts(Cell(value, origin=origin), Column("a", "a", magnitude=True), Style()) == (shown, "")


def test_counts_have_no_decimals_whatever_the_style() -> None:
    assert parts(Cell(998.0, 997.0, 999.0), Column("a", "a", decimals=0), Style(decimals=3)) == ("998", "[997,999]")


# --------------------------------------------------------------------------------------------------------------------
# Special characters

labels = st.text(alphabet=st.sampled_from("ab 1&%_#${}~^\\[]*<>|`'\"-–é中!"), min_size=1, max_size=12)
plain = labels.map(lambda text: " ".join(text.split())).filter(bool)


def read_latex(text: str) -> str:
    """Undo the escapes, one token at a time; a special character outside an escape is an error."""
    inverse = sorted(((v, k) for k, v in latex.ESCAPES.items()), key=lambda pair: -len(pair[0]))
    out = ""
    while text:
        match = next((pair for pair in inverse if text.startswith(pair[0])), (text[0], text[0]))
        assert match[0] != match[1] or match[0] not in "&%$#_{}~^\\"
        out, text = out + match[1], text[len(match[0]) :]
    return re.sub(r"U\+([0-9A-F]{4})", lambda m: chr(int(m[1], 16)), out.replace(latex.JOINER, ""))


@given(plain)
@example("--")
@example("a_b & 100% {x} ~ ^ \\ # $")
def test_latex_escapes_can_be_undone(label: str) -> None:
    assert read_latex(latex.escape(label)) == label


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
    body = to_latex(board).partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if r"\\" in line and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(board.columns)}
    assert len(list(csv.DictReader(io.StringIO(to_csv([board]))))) == len(list(board.cells()))


def test_control_characters_do_not_reach_the_terminal() -> None:
    row = Measurement("ood", "\x1b[31mred\nline", "svhn", "auroc", 0.5)
    assert "\x1b" not in render_text(build_boards([row])["ood"])
    assert " [31mred line" in render_text(build_boards([row])["ood"])


def test_markdown_shows_names_as_they_are() -> None:
    assert html.unescape(markdown.escape("a|b_c*")) == r"a\|b\_c\*"


def test_latex_compiles(rows: list[Measurement], tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (apt-get install texlive-latex-recommended)")
    hostile = "[x] *y* & 100% a_b #1 ${}~^\\ <>|`'\" -- – é 中 ł"
    extra = Measurement("ood", hostile, "svhn", "auroc", 0.5, note=hostile)
    write_board([*build_boards([*rows, extra])["ood"], *every_board(rows)[4:]], tmp_path, "ood")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{ood.tex}\\end{document}\n"
    (tmp_path / "main.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000
