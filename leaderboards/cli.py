"""What the front door can do with result files: tables of them, a page, their history, the regression gate."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.result_file import Results, find_results, read_results
from leaderboards import Selection, Style, build_boards, render_text, write_board
from leaderboards.merge import merge
from vaebm.errors import UserError

Run = tuple[Path, Results]  # a result file and its content

OPTIONS: dict[str, dict[str, Any]] = {
    "--board": {
        "type": str,
        "nargs": "*",
        "default": None,
        "metavar": "PATH",
        "help": "tables of result files or of folders of them, joined; with no PATH, the paper's own tables",
    },
    "--columns": {"type": str, "default": "", "help": "columns of the tables, with commas: svhn,mean or fd,recall"},
    "--rows": {"type": str, "default": "", "help": "systems in the tables, with commas"},
    "--published": {"action": "store_true", "help": "published rows only"},
    "--measured": {"action": "store_true", "help": "measured rows only"},
    "--precision": {"type": int, "default": 2, "help": "decimals of the tables"},
    "--pdf": {"action": "store_true", "help": "every plot as PDF, too"},
    "--check": {
        "type": Path,
        "default": None,
        "metavar": "BASELINE",
        "help": "compare with a stored run: exit code 1 on a real regression, 2 if they cannot be compared",
    },
    "--update-baseline": {"action": "store_true", "help": "store this run as the baseline that --check names"},
    "--history": {"type": str, "default": None, "metavar": "SYSTEM", "help": "earlier results of a system"},
    "--metric": {"type": str, "default": "", "help": "with --history: of one metric"},
}


def selection(options: Any) -> Selection:
    """Return what the options want to see.

    Raises:
        UserError: they contradict each other.
    """
    if options.published and options.measured:
        raise UserError("--published --measured: needed one of them; without any, both kinds of rows are shown")
    split = lambda text: tuple(name for name in text.split(",") if name)
    origin = "published" if options.published else "measured" if options.measured else ""
    return Selection(split(options.columns), split(options.rows), origin)


def read_runs(places: Sequence[str]) -> list[Run]:
    """Read all result files among files and folders.

    Raises:
        UserError: one of them cannot be used.
    """
    return [(path, read_results(path)) for path in find_results([Path(place) for place in places])]


def publish(runs: Sequence[Run], options: Any, out: Path) -> str:
    """Write the tables of runs, joined, in every format; return them as text.

    Raises:
        UserError: a selection names what is in no table, or ``out`` cannot be written.
    """
    style = Style(decimals=options.precision)
    boards = build_boards(merge(runs), selection(options))
    for suite, tables in boards.items():
        write_board(tables, out, suite, style)
    return render_text([table for tables in boards.values() for table in tables], style)


def write_page(runs: Sequence[Run], options: Any, out: Path) -> None:
    """Write ``index.html``: the tables of runs with the plots beside their result files.

    Raises:
        UserError: ``out`` cannot be written.
    """
    from leaderboards import page

    boards = build_boards(merge(runs), selection(options))
    page.write_page(boards, out, runs=runs, style=Style(decimals=options.precision))


def refresh_page(options: Any, out: Path) -> None:
    """Write the page of all results in a folder, without those that cannot be read: a run must not fail for them."""
    runs = []
    for path in find_results([out]):
        try:
            runs.append((path, read_results(path)))
        except UserError as error:
            print(f"index.html leaves out {error}", file=sys.stderr)
    write_page(runs, options, out)


def show_boards(options: Any) -> int:
    """Print and write the tables of result files; with a baseline, compare them with it. Return the exit code."""
    runs, out = read_runs(options.board), options.out
    print(publish(runs, options, out), end="")
    write_page(runs, options, out)
    print(f"files in {out}", file=sys.stderr)
    return check(runs, options, out) if options.check else 0


def check(runs: Sequence[Run], options: Any, out: Path) -> int:
    """Compare runs with the baseline, or store them as the baseline; return the exit code."""
    from leaderboards import gate

    if options.update_baseline:
        gate.write_baseline(runs, options.check)
        print(f"baseline in {options.check}", file=sys.stderr)
        return 0
    return gate.check(runs, options.check, out)


def show_history(options: Any) -> int:
    """Print and plot what was measured before; return the exit code."""
    from leaderboards import history

    return history.show(options.out / history.FILE, options.history, options.metric, options.out, pdf=options.pdf)
