"""One self-contained web page of all tables and plots: it asks the network for nothing, and reads without JavaScript."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.result_file import Results
from leaderboards.board import Board
from leaderboards.files import write_all
from leaderboards.page.details import Details
from leaderboards.page.figures import page_figures
from leaderboards.page.runs import run_views, sizes, summary
from leaderboards.page.tables import table_view
from leaderboards.render.numbers import Style

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "index.html"
HERE = Path(__file__).parent

SUITES = {
    "ood": "Out-of-distribution detection",
    "generation": "Image generation",
    "modes": "Mode coverage",
    "ablation": "Related training methods",
    "speed": "Sampling time",
    "tradeoff": "Quality against cost",
}


def write_page(
    boards: Mapping[str, Sequence[Board]],
    out_dir: Path,
    *,
    runs: Sequence[tuple[Path, Results]] = (),
    style: Style | None = None,
) -> Path:
    """Write ``<out_dir>/index.html``, whole or not at all, and return its path.

    Args:
        boards: suite -> its tables, in the order of the page.
        runs: (result file, content); PNG files ``<suite>_*.png`` beside a result file are shown with the suite's tables.
        style: of the numbers in the tables; details show full precision.

    Raises:
        UserError: ``out_dir`` cannot be written.
    """
    path = Path(out_dir) / FILE
    # A name in a JSON file can hold half a surrogate pair, which UTF-8 has no bytes for.
    write_all({path: to_html(boards, runs, style or Style()).encode("utf-8", "replace")})
    return path


def to_html(boards: Mapping[str, Sequence[Board]], runs: Sequence[tuple[Path, Results]], style: Style) -> str:
    """Return the page."""
    from jinja2.utils import htmlsafe_json_dumps

    from leaderboards.render.bibliography import html_references, used_keys

    details = Details()
    references = html_references(used_keys(board for tables in boards.values() for board in tables))
    numbers = {key: number for number, (key, _) in enumerate(references, 1)}
    anchors: set[str] = set()
    figures = page_figures(boards, runs)
    suites = [
        {
            "id": anchor(f"suite-{suite}", anchors),
            "title": SUITES.get(suite, suite),
            "tables": [
                table_view(board, anchor(f"table-{board.name}", anchors), style, details, numbers) for board in tables
            ],
            "figures": figures[suite],
        }
        for suite, tables in boards.items()
    ]
    css, js = read("page.css"), read("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            suites=suites,
            runs=(told := run_views(runs)),
            made=summary(told),
            sizes=sizes(boards),
            references=[html for _, html in references],
            details=htmlsafe_json_dumps(details.to_json(), separators=(",", ":")),
            css=css,
            js=js,
            css_hash=csp_hash(css),
            js_hash=csp_hash(js),
        )
    )


def anchor(name: str, taken: set[str]) -> str:
    """Return an id for a link: the name's letters and digits, with a number behind where that is taken."""
    plain = re.sub("[^A-Za-z0-9]+", "-", name).strip("-")
    made, count = plain, 1
    while made in taken:
        count += 1
        made = f"{plain}-{count}"
    taken.add(made)
    return made


def csp_hash(text: str) -> str:
    """Return the source expression of an inline script or style: ``sha256-...``."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def read(name: str) -> str:
    """Return a part of the page."""
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
