"""The page without a browser: what it says, that it asks for nothing, and that no name can break out of its place."""

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_examples import HOSTILE, WEIGHTS, boards_of, empty_row, png, rows_of, runs_of
from PIL import Image
from synthetic import generation_result, generation_rows, modes_result

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards import Style, build_boards, write_plots
from leaderboards.board import Board
from leaderboards.page import anchor, figures, to_html, write_page
from leaderboards.page.details import flat
from leaderboards.page.figures import Picture, fit, owner, page_figures, words
from leaderboards.page.runs import duration, moment, summary
from leaderboards.render import to_csv
from leaderboards.render.numbers import arrow, parts
from vaebm.errors import UserError

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Node:
    """An element: tag, attributes, children (elements and texts)."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes, self.children = tag, attributes, []  # type: ignore[var-annotated]

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name) or ""

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, **attributes: str) -> list["Node"]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [n for n in self.walk() if n.tag == tag and all(n[name] == value for name, value in wanted.items())]

    def text(self, skip: tuple[str, ...] = ()) -> str:
        """The text that is seen: not that for screen readers."""
        parts = [
            child if isinstance(child, str) else child.text(skip)
            for child in self.children
            if isinstance(child, str) or (child["class"] != "vh" and child.tag not in skip)
        ]
        return "".join(parts)


class Tree(HTMLParser):
    """Parses strictly: every element is closed by its own tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open = [Node("root", {})]
        self.feed(html)
        self.close()
        assert [node.tag for node in self.open] == ["root"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of <{tag}> twice"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(html: str) -> Node:
    return Tree(html).open[0]


def page_of(rows: list[Measurement], folder: Path, style: Style | None = None) -> tuple[dict[str, list[Board]], Node]:
    runs = runs_of(rows, folder)
    boards = boards_of(runs)
    return boards, parse(to_html(boards, runs, style or Style()))


def details_of(root: Node) -> list[list[dict[str, str]]]:
    """Return per number of details: the number itself, protocol, provenance."""
    (node,) = root.all("script", id="details")
    stored = json.loads(node.text())
    return [[dict(stored["pairs"][pair] for pair in stored["groups"][g]) for g in cell] for cell in stored["cells"]]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Board]], Node]:
    rows = [*rows_of(["vaebm", "nvae", "mine"]), empty_row()]
    return page_of(rows, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("style", [Style(), Style(decimals=4), Style(intervals=False)], ids=["two", "four", "bare"])
def test_every_cell_of_the_csv_stands_in_the_table_as_it_is_printed_elsewhere(style: Style, tmp_path: Path) -> None:
    boards, root = page_of([*rows_of(["vaebm", "nvae", "mine"]), empty_row()], tmp_path, style)
    every = [board for tables in boards.values() for board in tables]
    records = csv.DictReader(io.StringIO(to_csv(every)))
    seen = 0
    for board, table in zip(every, root.all("table"), strict=True):
        assert table.all("caption")[0].text() == board.title
        heads = [head.text() for head in table.all("thead")[0].all("th")]
        assert heads == ["System", *(column.title + arrow(column) for column in board.columns)]
        bodies = table.all("tbody")
        assert [body.all("th", scope="rowgroup")[0].text() for body in bodies] == [b.title for b in board.blocks]
        lines = [line for body in bodies for line in body.all("tr") if line["data-origin"]]
        cells = board.cells()
        for line in lines:
            for printed in line.all("td"):
                record, (_, row, column, cell) = next(records), next(cells)
                assert line.all("th", scope="row")[0].all("bdi")[0].text() == record["row"] == row.full_label
                assert line["data-origin"] == row.origin
                assert printed["data-v"] == record["value"]
                number, interval = parts(cell, column, style)
                assert printed.text(("sup", "small")).strip() == number
                assert "".join(small.text() for small in printed.all("small")) == interval
                assert [len(printed.all("strong")), len(printed.all("u"))] == [cell.rank == 1, cell.rank == 2]
                marks = [sup.text() for sup in printed.all("sup")]
                assert marks == ([str(board.reasons()[cell.note])] if cell.note else [])
                seen += 1
        assert next(cells, None) is None
    assert next(records, None) is None
    assert seen > 200


def test_reasons_and_footnotes_stand_below_their_table(example: tuple[dict[str, list[Board]], Node]) -> None:
    boards, root = example
    every = [board for tables in boards.values() for board in tables]
    for board, section in zip(every, root.all("section", class_="board"), strict=True):
        numbered = [item.text() for notes in section.all("ol") for item in notes.all("li")]
        assert numbered == list(board.reasons())
        told = [item.text() for notes in section.all("ul") for item in notes.all("li")]
        assert told[-len(board.footnotes) :] == list(board.footnotes)
        assert any(text.startswith("Bold: best") for text in told) == board.has_rank(1)


def test_details_of_a_measured_cell_hold_everything_that_is_known(example: tuple[dict[str, list[Board]], Node]) -> None:
    boards, root = example
    details = details_of(root)
    cells = [cell for tables in boards.values() for board in tables for *_, cell in board.cells()]
    for cell, printed in zip(cells, root.all("td"), strict=True):
        own, *more = details[int(printed["data-d"])]
        if cell.value is None:
            assert own["empty because"] == cell.note
            continue
        assert float(own["value"]) == cell.value
        if cell.origin == "measured" and cell.low is not None:
            assert own["95 % interval"] == f"{cell.low!r} to {cell.high!r}"
            assert (own["n"], own["seed"], own["size"]) == ("4,000", "0", "mini")
            assert more[-1]["fingerprint weights"] == WEIGHTS
        if cell.origin == "published" and cell.measurement is not None:
            assert more[0]["table"] == cell.measurement.protocol["table"]
            assert more[1].keys() == {"source", "confidence"}
            assert own["citation"]
    protocols = [more[0] for _, *more in details if more]
    assert any(protocol.get("estimator") == "ELBO" and protocol.get("n in") == "2000" for protocol in protocols)


def test_a_published_mean_says_that_it_was_computed_here() -> None:
    root = parse(to_html(build_boards([]), [], Style()))
    assert any("computed" in own.get("origin", "") for own, *_ in details_of(root))


def test_details_are_stored_once_however_many_cells_share_them(tmp_path: Path) -> None:
    length = lambda count: len(
        page_of(rows_of([f"s{i:03d}" for i in range(count)]), tmp_path)[1].all("script", id="details")[0].text()
    )
    one, four, seven = (length(count) for count in (1, 4, 7))
    told = sum(len(json.dumps(row.to_json())) for row in rows_of(["s"]))
    assert seven - four == pytest.approx(four - one, rel=0.1)  # what is shared is paid for once
    assert (seven - four) / 3 < told / 4


def test_nested_facts_are_flat_and_in_full_precision() -> None:
    facts = {
        "data": {"svhn": "27", "deep": {"x_y": 0.1}},
        "steps": [1, 2.5],
        "metropolis": False,
        "k": None,
        "empty": "",
    }
    told = flat(facts)
    assert told == [("data svhn", "27"), ("data deep x y", "0.1"), ("steps", "1, 2.5"), ("metropolis", "no")]
    assert flat({"a": 1, "b": 2}, skip=("a",)) == [("b", "2")]


# --------------------------------------------------------------------------------------------------------------------
# Nothing from outside, nothing from inside that runs


def test_page_asks_for_nothing(example: tuple[dict[str, list[Board]], Node]) -> None:
    _, root = example
    for node in root.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            assert name not in ("srcset", "style", "action", "poster", "srcdoc", "ping", "background")
            if name == "src":
                assert node.tag == "img"
                assert (value or "").startswith("data:image/")
            if name == "href":
                here = (value or "").startswith(("#", "data:image/svg+xml,") if node.tag != "a" else ("#", "https://"))
                assert here, (node.tag, value)
        assert node.tag not in ("iframe", "object", "embed", "base", "audio", "video")
    (style,) = root.all("style")
    assert "url(" not in style.text()
    assert "@import" not in style.text()
    assert "@font-face" not in style.text()


def test_links_within_the_page_have_a_target_and_ids_are_unique(example: tuple[dict[str, list[Board]], Node]) -> None:
    _, root = example
    ids = [node["id"] for node in root.walk() if node["id"]]
    assert len(ids) == len(set(ids))
    targets = [node["href"][1:] for node in root.all("a") if node["href"].startswith("#")]
    assert set(targets) <= set(ids)
    labelled = [name for node in root.walk() for name in node["aria-labelledby"].split()]
    assert set(labelled) <= set(ids)
    assert sum(target.startswith("ref-") for target in targets) >= 10


def test_policy_allows_the_inlined_script_and_style_and_nothing_else(
    example: tuple[dict[str, list[Board]], Node],
) -> None:
    _, root = example
    (meta,) = [node for node in root.all("meta") if node["http-equiv"]]
    told = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    digest = lambda text: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    (script,) = [node for node in root.all("script") if node["type"] != "application/json"]
    assert told == {
        "default-src": "'none'",
        "script-src": digest(script.text()),
        "style-src": digest(root.all("style")[0].text()),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def hostile_rows() -> list[Measurement]:
    """Every name that comes from a file, as bad as it can be."""
    rows = rows_of(HOSTILE)
    bad = HOSTILE[0]
    note = f"{bad} {HOSTILE[2]}"
    rows.append(
        Measurement(
            "modes", HOSTILE[1], bad, HOSTILE[2], 1.0, size=HOSTILE[1], variant=bad, protocol={bad: note}, note=note
        )
    )
    rows.append(Measurement("ablation", "x", "cifar10", bad, 2.0, provenance={HOSTILE[1]: {HOSTILE[2]: bad}}))
    return rows


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    boards, root = page_of(hostile_rows(), tmp_path)
    assert len(root.all("script")) == 2  # the page's own and the details
    assert [img for img in root.all("img") if img["src"] == "x"] == []
    assert len(root.all("h1")) == 1
    labels = {bdi.text() for bdi in root.all("bdi", class_="label")}
    for name in HOSTILE:
        assert any(name in label for label in labels), name
    texts = json.dumps(details_of(root), ensure_ascii=False)
    assert json.dumps(HOSTILE[2], ensure_ascii=False)[1:-1] in texts
    assert sum(len(tables) for tables in boards.values()) == len(root.all("table"))
    html = to_html(boards, runs_of(hostile_rows(), tmp_path), Style())
    assert html.count("<script") == html.count("</script") == 2
    path = write_page(boards, tmp_path)  # half a surrogate pair has no bytes in UTF-8
    assert parse(path.read_text(encoding="utf-8")).all("table")


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_any_system_name_survives(name: str) -> None:
    rows = [Measurement("speed", name or "x", "cifar10", "seconds_per_50_images", 1.5, protocol={"name": name})]
    root = parse(to_html({"speed": build_boards(rows)["speed"]}, [], Style()))
    labels = [bdi.text() for bdi in root.all("bdi", class_="label")]
    shown = (name or "x").replace("\r\n", "\n").replace("\r", "\n")
    assert any(label.replace("\r\n", "\n").replace("\r", "\n") == shown for label in labels)
    assert any(name in more[0].values() for _, *more in details_of(root) if more) or not name


def test_anchors_are_plain_and_taken_once() -> None:
    taken: set[str] = set()
    made = [anchor(name, taken) for name in ("table-ood", "table-ood", 'table-"> <b>', "table-b")]
    assert made == ["table-ood", "table-ood-2", "table-b", "table-b-2"]
    assert taken == set(made)


# --------------------------------------------------------------------------------------------------------------------
# Figures


def test_plots_beside_the_result_files_are_embedded_with_caption_and_text(tmp_path: Path) -> None:
    for name in ("ood_roc.png", "ood_my_own.png", "modes_counts.png", "oodles_x.png", "history_vaebm.png", "ood.png"):
        (tmp_path / name).write_bytes(png(50 + len(name)))
    (tmp_path / "ood_text.png").write_text("no picture")
    (tmp_path / "ood_cut.png").write_bytes(png()[:60])
    _, root = page_of(rows_of(["vaebm", "<b>mine"]), tmp_path)
    found = {figure.all("figcaption")[0].all("bdi")[0].text(): figure for figure in root.all("figure")}
    assert set(found) == {"ood_roc.png", "ood_my_own.png", "modes_counts.png"}
    image = found["ood_roc.png"].all("img")[0]
    assert (
        base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == (tmp_path / "ood_roc.png").read_bytes()
    )
    assert (image["width"], image["height"]) == ("61", "40")
    assert (image["loading"], image["decoding"]) == ("lazy", "async")
    assert "VAEBM" in image["alt"]
    assert "<b>mine" in image["alt"]
    assert "SVHN, Interp., CIFAR-100 and CelebA" in image["alt"]
    assert found["ood_roc.png"].all("b")[0].text() == "ROC curves."
    assert found["ood_my_own.png"].all("b")[0].text() == "My own."


def test_figures_of_several_runs_say_their_folder_and_a_file_is_shown_once(tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ood_roc.png").write_bytes(png(30 + len(name)))
        runs += [(tmp_path / name / f"{file}.json", Results("ood", rows_of([name]))) for file in ("ood", "again")]
    made = page_figures(["ood"], runs)["ood"]
    assert [figure.caption for figure in made] == ["ROC curves (first)", "ROC curves (second)"]


def test_a_figure_belongs_to_the_suite_with_the_longest_name() -> None:
    assert owner("modes_toy_counts", ["modes", "modes_toy", "ood"]) == "modes_toy"
    assert owner("modes_counts", ["modes", "modes_toy"]) == "modes"
    assert owner("modes", ["modes"]) == ""


@pytest.mark.parametrize("stem", sorted(figures.KNOWN))
def test_texts_of_known_figures_have_no_gap(stem: str) -> None:
    suite = stem.partition("_")[0]
    rows = [row for row in rows_of(["vaebm"]) if row.suite == suite]
    caption, alt = words(stem, suite, rows)
    assert caption
    assert "VAEBM" in alt or suite == "ood" or not rows
    assert not re.search(r"[{}]", caption + alt)


def test_every_plot_of_a_suite_is_known(tmp_path: Path) -> None:
    made = write_plots("generation", generation_result(), tmp_path) + write_plots("modes", modes_result(), tmp_path)
    assert len(made) > 6
    assert {path.stem for path in made} <= figures.KNOWN.keys()


def test_a_plot_over_steps_names_the_systems_on_it() -> None:
    assert words("generation_steps", "generation", generation_rows())[1].startswith(
        "Each metric against the number of Langevin steps, for VAEBM, with"
    )
    assert "VAEBM, NVAE" in words("generation_samples", "generation", generation_rows())[1]


def _pictures(count: int) -> dict[Path, Picture]:
    return {Path(f"{i}.png"): Picture(png(200 + i, 200, noise=True), "png", (200 + i, 200)) for i in range(count)}


def test_pictures_within_the_budget_stay_as_they_are() -> None:
    pictures = _pictures(2)
    assert fit(pictures, 10**6) == pictures


def test_pictures_beyond_the_budget_become_smaller_until_they_fit() -> None:
    pictures = _pictures(3)
    total = sum(len(picture.content) for picture in pictures.values())
    for budget in (total - 1, total // 3, total // 40):
        fitted = fit(pictures, budget)
        assert sum(len(picture.content) for picture in fitted.values()) <= budget
        for file, picture in fitted.items():
            with Image.open(io.BytesIO(picture.content)) as image:
                assert image.size == picture.size
                assert image.format == picture.kind.upper()
            ratio = pictures[file].size[0] / pictures[file].size[1]
            assert picture.size[0] / picture.size[1] == pytest.approx(ratio, rel=0.1)
    assert any(picture.reduced for picture in fitted.values())


def test_first_the_same_pixels_are_written_in_fewer_bytes() -> None:
    plain = png(400, 300)
    noisy = png(90, 90, noise=True)
    pictures = {Path("a"): Picture(plain, "png", (400, 300)), Path("b"): Picture(noisy, "png", (90, 90))}
    fitted = fit(pictures, len(plain) + len(noisy) - 100)
    assert not any(picture.reduced for picture in fitted.values())
    for file, picture in fitted.items():
        with Image.open(io.BytesIO(picture.content)) as now, Image.open(io.BytesIO(pictures[file].content)) as then:
            assert now.convert("RGB").tobytes() == then.convert("RGB").tobytes()


def test_a_page_stays_below_ten_megabytes(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"ood_{i}.png").write_bytes(png(1100 + i, 1100, noise=True))
    runs = runs_of(rows_of(["vaebm"]), tmp_path)
    path = write_page(boards_of(runs), tmp_path, runs=runs)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.png")) > 10_000_000
    assert path.stat().st_size < 10_000_000
    assert path.read_text(encoding="utf-8").count("reduced for this page") == 3


# --------------------------------------------------------------------------------------------------------------------
# Runs, and the file


def test_head_says_how_each_run_was_made(tmp_path: Path) -> None:
    _, root = page_of(rows_of(["vaebm"]), tmp_path)
    (told,) = root.all("details", class_="runs")
    assert "5 runs (ood, generation, modes, ablation, speed), 2026-11-21 18:04 UTC, Linux x86_64" in told.text()
    assert [code.text() for code in told.all("code")][1] == "python benchmark.py --suite generation"
    for text in ("Python 3.11, torch 2.9", "0123456789ab", "61 s", f"{tmp_path.name}/ood.json"):
        assert text in told.text()


def test_without_runs_the_page_holds_the_papers_tables() -> None:
    boards = build_boards([])
    root = parse(to_html(boards, [], Style()))
    assert len(root.all("table")) == sum(len(tables) for tables in boards.values()) > 5
    assert root.all("details") == root.all("figure") == []
    assert "nothing was measured" in root.all("header")[0].text()


def test_without_tables_there_is_still_a_page() -> None:
    assert parse(to_html({}, [], Style())).all("table") == []


def test_times_are_short() -> None:
    assert [duration(s) for s in (1.2, 119, 120, 7100, 7200)] == ["1 s", "119 s", "2 min", "118 min", "2.0 h"]
    assert moment("2026-11-21T18:04:05Z") == "2026-11-21 18:04 UTC"
    assert [moment(text) for text in ("", "yesterday")] == ["", "yesterday"]
    run = {"suite": "ood", "machine": "", "created": ""}
    assert summary([run]) == "1 run (ood): commands and versions"
    dated = [{**run, "created": f"2026-11-{day}"} for day in (21, 20)]
    assert "2 runs (ood), 2026-11-20 to 2026-11-21" in summary(dated)


def test_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = build_boards([])
    path = write_page(boards, tmp_path / "new")
    assert path == tmp_path / "new" / "index.html"
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
        write_page({}, tmp_path / "new")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["index.html"]
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot write there"):
        write_page({}, tmp_path / "file")


def test_same_results_make_the_same_bytes(tmp_path: Path) -> None:
    runs = runs_of(rows_of(["vaebm"]), tmp_path)
    first, second = (write_page(boards_of(runs), tmp_path / name, runs=runs).read_bytes() for name in "ab")
    assert first == second
