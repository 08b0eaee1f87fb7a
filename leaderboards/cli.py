"""What the front door can do with result files: tables of them, a page, their history, the regression gate."""

import sys
from collections.abc import Collection, Sequence
from os.path import realpath
from pathlib import Path
from typing import Any

from evaluators.result_file import find_results, read_results
from leaderboards import Selection, Style, build_boards, gate, render_text, write_board
from leaderboards.merge import Run, merge
from vaebm.errors import UserError

OUT = Path("results")  # where files go unless --out says otherwise ...
JOINED = OUT / "board"  # ... and those of --board, so that the tables of a run stay as they are

PUBLISHED_DECIMALS, MOST_DECIMALS = 2, 12

OPTIONS: dict[str, dict[str, Any]] = {
    "--board": {
        "type": str,
        "nargs": "*",
        "default": None,
        "metavar": "PATH",
        "help": f"tables of result files or of folders of them, joined (to {JOINED}); with no PATH, the paper's own tables",
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
    "--reproduce": {
        "type": Path,
        "default": None,
        "metavar": "RESULTS",
        "help": "run again what made a result file, without cache, and say what differs",
    },
    "--curves": {
        "type": Path,
        "nargs": "+",
        "default": None,
        "metavar": "FOLDER",
        "help": "training curves of runs of `python -m vaebm train` or `python -m baselines train`",
    },
}

# What each thing to do listens to, beside --out and --config. Options that are not ours are for those that measure.
LISTENS = {
    "--board": ("--columns", "--rows", "--published", "--measured", "--precision", "--check", "--update-baseline"),
    "--history": ("--metric", "--pdf"),
    "--curves": ("--pdf",),
    "--reproduce": ("--columns", "--rows", "--published", "--measured", "--precision", "--pdf"),
    "--suite": tuple(
        flag for flag in OPTIONS if flag not in ("--board", "--history", "--metric", "--curves", "--reproduce")
    ),
}
MEASURE = ("--suite", "--reproduce")


def chosen_task(options: Any, typed: Collection[str]) -> str:
    """Return the one thing to do, ``"--board"``, ``"--suite"``, ...; empty if none is named. Without --out, its own folder is put there.

    Args:
        typed: names of the options that were given.

    Raises:
        UserError: two are named, or an option was given that the chosen one does not listen to.
    """
    value = lambda flag: getattr(options, flag.removeprefix("--").replace("-", "_"))
    tasks = [flag for flag in LISTENS if value(flag) not in (None, "")]
    if len(tasks) > 1:
        raise UserError(f"{' '.join(tasks)}: needed one of these at a time")
    if not tasks:
        return ""
    heard, measures = (tasks[0], "--out", "--config", *LISTENS[tasks[0]]), tasks[0] in MEASURE
    for flag in (f"--{name.replace('_', '-')}" for name in typed):
        if flag not in heard and (flag in OPTIONS or not measures):
            listeners = ", ".join(task for task, flags in LISTENS.items() if flag in flags) or ", ".join(MEASURE)
            raise UserError(f"{flag}: {tasks[0]} does not listen to it, only {listeners}")
    if options.update_baseline and not options.check:
        raise UserError(
            "--update-baseline: found no --check; needed --check baseline.json, the file to store the run in"
        )
    if not 0 <= options.precision <= MOST_DECIMALS:
        raise UserError(f"--precision {options.precision}: needed 0 to {MOST_DECIMALS} decimals")
    options.out = options.out or (JOINED if tasks[0] == "--board" else OUT)
    if options.check and realpath(options.check.parent) == realpath(options.out):
        raise UserError(
            f"--check {options.check}: found it in --out {options.out}, where runs are written; needed it elsewhere"
        )
    if options.check and not options.update_baseline:
        gate.read_baseline(options.check)  # nothing is measured for a baseline that cannot be read ...
    if options.check and options.update_baseline:
        gate.check_replaceable(options.check)  # ... or written
    return tasks[0]


def selection(options: Any) -> Selection:
    """Return what the options want to see.

    Raises:
        UserError: they contradict each other.
    """
    if options.published and options.measured:
        raise UserError("--published --measured: needed one of them; without any, both kinds of rows are shown")
    split = lambda text: tuple(name.strip() for name in text.split(",") if name.strip())
    origin = "published" if options.published else "measured" if options.measured else ""
    return Selection(split(options.columns), split(options.rows), origin)


def style_of(options: Any) -> Style:
    """Return how numbers are printed: of published ones never more digits than the papers have."""
    return Style(decimals=min(options.precision, PUBLISHED_DECIMALS), measured_decimals=options.precision)


def read_runs(places: Sequence[str]) -> list[Run]:
    """Read all result files among files and folders.

    Raises:
        UserError: one of them cannot be used.
    """
    if "" in places:
        raise UserError("--board: found an empty path; needed a result file or a folder of them")
    runs = [(path, read_results(path)) for path in find_results([Path(place) for place in places])]
    if places and not any(results.rows for _, results in runs):
        raise UserError(f"--board {' '.join(places)}: found no measurement in it; needed a result file with rows")
    return runs


def publish(runs: Sequence[Run], options: Any, out: Path, *, strict: bool = True) -> str:
    """Write the tables of runs, joined, in every format; return them as text.

    Args:
        strict: refuse a selection of what is in no table; else say on stderr that none is left, for a run must not end by it.

    Raises:
        UserError: a selection names what is in no table, or ``out`` cannot be written.
    """
    style = style_of(options)
    boards = build_boards(merge(runs), selection(options), strict=strict)
    if not boards and strict:
        raise UserError("nothing is left of the tables; needed other --rows, --columns, --published or --measured")
    if not boards:
        print(
            "no table has what --rows and --columns name; --board shows others without measuring again", file=sys.stderr
        )
    for suite, tables in boards.items():
        write_board(tables, out, suite, style)
    return render_text([table for tables in boards.values() for table in tables], style)


def write_page(runs: Sequence[Run], chosen: Selection, options: Any, out: Path) -> None:
    """Write ``index.html``: the tables of runs with the plots beside their result files.

    Raises:
        UserError: ``out`` cannot be written.
    """
    from leaderboards import page

    boards = build_boards(merge(runs), chosen)
    page.write_page(boards, out, runs=runs, style=style_of(options))


def refresh_page(options: Any, out: Path) -> None:
    """Write the page of all results in a folder, whole, without those that cannot be read: a run must not fail for them."""
    runs = []
    for path in find_results([out]):
        try:
            runs.append((path, read_results(path)))
        except UserError as error:
            print(f"index.html leaves out {error}", file=sys.stderr)
    write_page(runs, Selection(), options, out)


def show_boards(options: Any, correlate: gate.Correlate) -> int:
    """Print and write the tables of result files; with a baseline, compare them with it. Return the exit code.

    Args:
        correlate: as for :func:`check`.
    """
    runs, out = read_runs(options.board), options.out
    print(publish(runs, options, out), end="")
    write_page(runs, selection(options), options, out)
    print(f"files in {out}", file=sys.stderr)
    return check(runs, options, out, correlate) if options.check else 0


def check(runs: Sequence[Run], options: Any, out: Path, correlate: gate.Correlate) -> int:
    """Compare runs with the baseline, or store them as the baseline; return the exit code.

    Args:
        correlate: how far the AUROCs of two runs move together; see :func:`leaderboards.gate.check`.
    """
    stream = sys.stderr if options.json else sys.stdout
    if options.update_baseline:
        gate.write_baseline(runs, options.check, correlate, stream)
        print(f"baseline in {options.check}", file=sys.stderr)
        return 0
    return gate.check(runs, options.check, out, correlate, stream)


def show_history(options: Any) -> int:
    """Print and plot what was measured before; return the exit code."""
    from leaderboards import history

    return history.show(options.out / history.FILE, options.history, options.metric, options.out, pdf=options.pdf)


def show_curves(options: Any) -> int:
    """Plot the logs of training runs; return the exit code."""
    from leaderboards.plots.training import write_curves

    for path in write_curves(options.curves, options.out, pdf=options.pdf):
        print(path)
    return 0


TASKS = {"--history": show_history, "--curves": show_curves}
