"""LaTeX: hostile names are text, tables fit their page, and every file compiles with a small TeX Live."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ood_rows
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic import generation_rows, modes_rows

from evaluators.measurement import Measurement
from leaderboards import Selection, Style, build_boards, write_board
from leaderboards.board import Block, Board, Cell, Column, Row
from leaderboards.render import fragment, standalone, to_latex
from leaderboards.render.latex_grid import Grid
from leaderboards.render.latex_text import BREAK, ESCAPES, JOINER, LONGEST_WORD, escape
from leaderboards.render.layout import GAP, panels

# --------------------------------------------------------------------------------------------------------------------
# Text

anything = st.text(st.characters(), max_size=60)  # of all of Unicode, with control characters and lone surrogates
awkward = st.text(alphabet=st.sampled_from("ab 1&%_#${}~^\\[]*<>|`'\"-–,é中!?/.:\n\t"), max_size=80)


def tokens(text: str) -> list[str]:
    """Split what :func:`escape` returns; what it may not contain is an error."""
    found, depth = [], 0
    while text:
        known = max((command for command in ESCAPES.values() if text.startswith(command)), key=len, default=text[0])
        if known == text[0]:
            assert known not in "&%$#_~^\\{}", f"{known} has a meaning"
            assert known.isascii() or "À" <= known <= "ÿ", f"{known!r} is in no default font"
            assert known.isprintable()
        depth += known.count("{") - known.count("}") if known[0] != "\\" else 0
        assert depth == 0
        found.append(known)
        text = text[len(known) :]
    return found


def read(text: str) -> str:
    """What is printed: the inverse of :func:`escape`."""
    inverse = {value: key for key, value in ESCAPES.items()} | {ESCAPES[JOINER]: "", ESCAPES[BREAK]: ""}
    return "".join(inverse.get(token, token) for token in tokens(text))


def plain(text: str) -> str:
    """What may be printed of a text: in one line, other letters as their codes."""
    known = lambda c: " " <= c <= "~" or c == "–" or ("À" <= c <= "ÿ" and c not in "×÷ÐðÞþ")
    return "".join(c if known(c) else f"U+{ord(c):04X}" for c in " ".join(text.split()))


@given(anything | awkward)
@example("--")
@example("\\")
@example("a_b & 100% {x} ~ ^ \\ # $ ${")
@example(f"zero{BREAK}width{JOINER}marks")
@example("x" * 100)
@example("/a/very/long/path/without/any/space/in/it/at/all.npz")
def test_escaped_text_prints_as_it_is_and_has_no_meaning(text: str) -> None:
    assert read(escape(text)) == plain(text)


@given(anything | awkward)
@example(",,")
@example("--")
@example("–-")
@example("?` !` `` '' << >>")
@example("x" * 200)
def test_escaped_text_makes_no_ligature_and_can_be_broken(text: str) -> None:
    escaped = escape(text)
    assert not re.search(r",,|---|\?`|!`|``|''|<<|>>|\"", escaped)
    without = escaped.replace("--", "–")  # an en dash of the text
    assert "--" not in without
    assert "–-" not in without
    for word in re.split(r" |\\allowbreak\{\}", escaped):
        assert len(tokens(word)) <= 2 * LONGEST_WORD + 2  # with a joiner behind every hyphen


def test_short_words_are_left_alone() -> None:
    assert escape("VAEBM (measured, mini)") == "VAEBM (measured, mini)"
    assert escape("5 % of [0,1]") == r"5 \% of {[}0,1{]}"


# --------------------------------------------------------------------------------------------------------------------
# Layout


def board(columns: int = 3, rows: int = 2, *, label: str = "system", title: str = "column", notes: int = 0) -> Board:
    """A table of intervals with two marks of rank."""
    cells = tuple(Cell(0.5, 0.41, 0.59, rank=i) for i in range(columns))
    lines = tuple(Row(f"{label} {i}", "", "measured", cells) for i in range(rows))
    heads = tuple(Column(f"k{i}", f"{title} {i}", higher_is_better=True) for i in range(columns))
    return Board(
        "t", "Title", heads, (Block("Block", lines, ranked=True),), ("A sentence of a footnote. " * 4,) * notes
    )


@given(st.lists(st.floats(1, 200), max_size=20), st.floats(10, 500))
def test_panels_hold_all_columns_in_order_fit_and_are_as_few_as_can_be(widths: list[float], room: float) -> None:
    found = panels(widths, room)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(len(widths)))
    sums = [sum(widths[start:stop]) for start, stop in found]
    assert all(total <= room + 1e-3 or stop - start == 1 for total, (start, stop) in zip(sums, found, strict=True))
    # Filling one after another cannot be beaten in number, nor can any limit below the widest panel hold them in as many.
    greedy, used = 1, 0.0
    for column in widths:
        greedy, used = (greedy, used + column) if not used or used + column <= room + 1e-6 else (greedy + 1, column)
    assert len(found) == greedy
    assert len(found) == 1 or max(sums) <= max(room + 1e-3, max(widths))


def test_more_columns_than_fit_make_panels_that_repeat_the_rows() -> None:
    text = to_latex(board(12))
    assert text.count(r"\begin{tabular}") == text.count("\nsystem 0 & ") == 2
    assert text.count(r"\caption") == text.count(r"\begin{table}") == 1
    assert to_latex(board(3)).count(r"\begin{tabular}") == 1


def test_type_is_smaller_where_that_saves_a_panel() -> None:
    assert r"\footnotesize\setlength" in to_latex(board(3))
    small = next(text for n in range(3, 9) if r"\scriptsize\setlength" in (text := to_latex(board(n))))
    assert small.count(r"\begin{tabular}") == 1


def test_a_wider_page_takes_more_columns() -> None:
    count = lambda text: text.count(r"\begin{tabular}")
    assert count(standalone([board(9)])) < count(fragment([board(9)], "t"))


@pytest.mark.parametrize("made", [board(3, 60), board(3, 3, notes=80), board(12, 25)], ids=["rows", "notes", "panels"])
def test_what_is_longer_than_a_page_is_a_longtable_and_says_what_it_needs(made: Board) -> None:
    text = fragment([made], "t")
    assert r"\begin{longtable}" in text
    assert r"\begin{table}" not in text
    assert text.count(r"\caption") == 1
    assert text.count(r"\addtocounter{table}{-1}") == text.count(r"\begin{longtable}") - 1
    assert r"\usepackage{booktabs,longtable}" in text.splitlines()[1]
    short = fragment([board(3, 20)], "t")
    assert r"\begin{table}[tbp]" in short
    assert r"\usepackage{booktabs}" in short.splitlines()[1]


def test_long_labels_and_headings_are_broken_into_lines_and_lose_nothing() -> None:
    long = "a name of many words that tells all about a system and its settings"
    text = to_latex(board(2, 1, label=long, title="a heading of many words"))
    stacks = re.findall(r"\\begin\{tabular\}\[[tb]\]\{@\{\}[lr]@\{\}\}(.*?)\\end\{tabular\}", text)
    assert [stack.replace(r"\\", " ") for stack in stacks] == [
        *(f"a heading of many words {i} $\\uparrow$" for i in range(2)),
        f"{long} 0",
    ]


def test_marks_of_rank_enclose_the_number_alone() -> None:
    cells = tuple(Cell(-0.5, -0.6, 0.4, note="Why.", rank=rank) for rank in (0, 1, 2))
    made = replace(board(3, 1), blocks=(Block("B", (Row("r", "", "measured", cells),), True),))
    for number in ("$-$0.50", r"\textbf{$-$0.50}", r"\underline{$-$0.50}"):
        assert rf"& {number} & \textsuperscript{{1}}\,{{\scriptsize [$-$.60,.40]}}" in to_latex(made)


def test_tables_without_intervals_and_notes_have_one_column_per_column() -> None:
    assert r"\begin{tabular}{@{}lrrr@{}}" in to_latex(board(3), Style(intervals=False))
    assert r"\begin{tabular}{@{}lr@{}lr@{}lr@{}l@{}}" in to_latex(board(3))


def test_a_label_is_a_safe_key() -> None:
    assert r"\label{tab:a-b--c}" in to_latex(replace(board(), name="a_b%}c"))


# --------------------------------------------------------------------------------------------------------------------
# Compiling

HOSTILE = (
    *(
        r"\input{/etc/passwd}",
        r"\end{table}",
        r"\end{document}",
        "\\",
        "}",
        "{",
        "}{",
        "$",
        "$$",
        "%",
        "#1",
        "&",
        "& & &",
    ),
    *(
        "~",
        "^",
        "_",
        "a_b",
        "^^M",
        "[x]",
        "[0pt]",
        "*",
        "*y*",
        "--",
        "--->",
        "–-",
        "?`",
        "!`",
        "``''",
        ",,",
        "<<>>",
        '"a',
    ),
    *(
        "|",
        "@",
        "line\nbreak",
        "tab\tstop",
        "\x00\x1b[31m",
        "\ud800",
        "é ü ß ÿ Å",
        "e\u0301",
        "中文",
        "🙂",
        "שלום",
        "þ ð ×",
    ),
    *(
        "x" * 200,
        "a/long/path/" * 12,
        "words " * 40,
        " ",
        "VAEBM: -E(x)",
        r"\\",
        r"\\*",
        r"\\[1cm]",
        "\\hline",
        "\u2028",
    ),
)


def hostile_boards() -> list[Board]:
    """Names in every place of a table."""
    cells = lambda text: (Cell(0.5, 0.4, 0.6, note=text, rank=1), Cell(None, note=text))
    rows = tuple(
        Row(text, "mini", "measured", cells(text), tag=text if i % 2 else "", nested=i % 3 == 0)
        for i, text in enumerate(HOSTILE)
    )
    heads = tuple(Column(text, text, higher_is_better=i % 2 == 0) for i, text in enumerate(HOSTILE))
    wide = Row("r", "", "measured", tuple(Cell(float(i)) for i in range(len(HOSTILE))))
    many = [
        Board(text, text, (Column("a", "a"),), (Block(text, (Row(text, "", "measured", (Cell(1.0),)),)),), (text,))
        for text in HOSTILE
    ]
    return [
        Board(
            "hostile_rows", "Names of rows", (Column("a", "a"), Column("b", "b")), (Block("All", rows, True),), HOSTILE
        ),
        Board("hostile_columns", "Names of columns", heads, (Block("All", (wide,)),)),
        *many,
    ]


def all_boards() -> list[Board]:
    """Measured tables of all suites, all of the paper's, long ones and an empty one; each with a name of its own."""
    measured = build_boards([*ood_rows(), *generation_rows(), *modes_rows()])
    many = [
        Measurement(
            "ood", f"system {i}", dataset, "auroc", 0.3 + i / 100, 0.2, 0.9, n=200, protocol={"interval": "DeLong"}
        )
        for i in range(60)
        for dataset in ("svhn", "celeba", "my_textures")
    ]
    more = [*build_boards(many)["ood"], board(12, 30), board(2, 2, notes=120), board(8, 20, notes=9), board(0, 2)]
    found = [
        *(b for boards in measured.values() for b in boards),
        *(b for boards in build_boards([]).values() for b in boards),
    ]
    return [replace(made, name=f"{made.name}_{i}") for i, made in enumerate([*found, *more])]


def run(command: Sequence[str], folder: Path, times: int = 1) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (apt-get install texlive-latex-base texlive-latex-recommended)")
    for _ in range(times):
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]


def latex(folder: Path, name: str, times: int, *options: str) -> str:
    """Compile a document and return the log of the last run."""
    run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", *options, f"{name}.tex"], folder, times)
    return (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def check(log: str, points: float) -> None:
    """Nothing unresolved, nothing that runs out of its page by more than some points."""
    assert "undefined" not in log
    assert "multiply defined" not in log
    assert "too large for page" not in log
    assert "Missing character" not in log
    over = [float(found) for found in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log)]
    assert max(over, default=0.0) <= points, over


def test_the_standalone_file_of_every_table_compiles_resolves_and_fits(tmp_path: Path) -> None:
    write_board(all_boards(), tmp_path, "all")
    text = (tmp_path / "all_standalone.tex").read_text(encoding="utf-8")
    assert text.splitlines()[1] == "% Run pdflatex three times."
    (tmp_path / "alone").mkdir()  # it needs no other file
    (tmp_path / "alone" / "all.tex").write_text(text, encoding="utf-8")
    log = latex(tmp_path / "alone", "all", 3)
    check(log, 3)
    assert "Rerun" not in log
    assert (tmp_path / "alone" / "all.pdf").stat().st_size > 10_000


def test_two_runs_are_enough_where_no_table_is_long(tmp_path: Path) -> None:
    [made] = build_boards([], Selection(rows=("vaebm", "nvae", "glow")))["ood"]
    write_board([made], tmp_path, "ood")
    assert (tmp_path / "ood_standalone.tex").read_text().splitlines()[1] == "% Run pdflatex twice."
    log = latex(tmp_path, "ood_standalone", 2)
    check(log, 0.5)
    assert "Rerun" not in log


PAPER_OF_A_USER = r"""
\documentclass{article}
\usepackage{booktabs,longtable}
\begin{document}
As Table~\ref{tab:ood-0} shows \cite{xiao2021vaebm}.
\input{all}
\bibliographystyle{plain}
\bibliography{all}
\end{document}
"""


def test_the_fragment_stands_in_a_paper_with_bibtex(tmp_path: Path) -> None:
    write_board(all_boards(), tmp_path, "all")
    (tmp_path / "paper.tex").write_text(PAPER_OF_A_USER)
    latex(tmp_path, "paper", 1)
    run(["bibtex", "paper"], tmp_path)
    log = latex(tmp_path, "paper", 3)
    check(log, 3)
    assert len(re.findall(r"\\bibitem", (tmp_path / "paper.bbl").read_text())) > 20


@pytest.mark.parametrize("encoding", ["OT1", "T1"])
def test_hostile_names_compile_in_every_place_of_a_table(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tex"
    text = standalone([replace(made, name=f"{made.name}{i}") for i, made in enumerate(hostile_boards())])
    path.write_text(text.replace("\\begin{document}", f"\\usepackage[{encoding}]{{fontenc}}\n\\begin{{document}}", 1))
    # A small TeX Live has the outlines of one encoding only: nothing is drawn.
    check(latex(tmp_path, "hostile", 2, "-draftmode"), 10)


def test_estimated_widths_are_those_of_the_fonts(tmp_path: Path) -> None:
    document, estimates = [r"\documentclass{article}\usepackage{booktabs}\newsavebox\made\begin{document}"], []
    for made in [
        made for boards in build_boards([*ood_rows(), *generation_rows(), *modes_rows()]).values() for made in boards
    ]:
        grid = Grid(made, Style())
        for size, gap in GAP.items():
            estimates.append(grid.label_width(size) + sum(grid.column_widths(size)))
            panel = grid.panel(0, len(made.columns), size)
            table = "\n".join([rf"\begin{{tabular}}{{{panel.columns}}}", panel.heading, *panel.body, r"\end{tabular}"])
            settings = rf"\{size}\setlength{{\tabcolsep}}{{{gap / 2}pt}}"
            document.append(rf"\sbox\made{{{settings}{table}}}\typeout{{width \the\wd\made}}")
    (tmp_path / "widths.tex").write_text("\n".join([*document, r"\end{document}"]), encoding="utf-8")
    widths = [float(found) for found in re.findall(r"width ([\d.]+)pt", latex(tmp_path, "widths", 1))]
    assert estimates == pytest.approx(widths, rel=0.05)
