"""What the head of the page says of each run, and which sizes of model its filter offers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators.result_file import Results
from leaderboards.board import Board


def run_views(runs: Iterable[tuple[Path, Results]]) -> list[dict[str, Any]]:
    """Return for each run: file, suites, rows, day and minute, duration, machine, versions, commit, command."""
    return [
        {
            "file": f"{path.resolve().parent.name}/{path.name}",
            "suite": results.suite.replace(",", ", "),
            "rows": len(results.rows),
            "created": moment(results.created),
            "seconds": duration(results.seconds),
            "machine": results.machine,
            "versions": ", ".join([f"Python {results.python}"] * bool(results.python) + versions(results.packages)),
            "commit": re.sub("^([0-9a-f]{12})[0-9a-f]+", r"\1", results.commit),
            "command": results.command,
        }
        for path, results in runs
    ]


def summary(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return what was run, when and where: ``"2 runs (ood, modes), 2026-11-20 18:04 UTC to 2026-11-21 09:30 UTC, Linux x86_64"``."""
    times = sorted(filter(None, (run["created"] for run in runs)))
    told = [f"{len(runs)} run{'s' * (len(runs) > 1)} ({', '.join(dict.fromkeys(run['suite'] for run in runs))})"]
    told += [" to ".join(dict.fromkeys([times[0], times[-1]]))] if times else []
    told += [", ".join(dict.fromkeys(filter(None, (run["machine"] for run in runs))))]
    return ", ".join(filter(None, told)) + ": commands and versions"


def versions(packages: Mapping[str, str]) -> list[str]:
    return [f"{name} {version}" for name, version in packages.items()]


def moment(created: str) -> str:
    """``"2026-11-21T18:04:05Z"`` makes ``"2026-11-21 18:04 UTC"``; other text stays as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ", created)
    return f"{found[1]} {found[2]} UTC" if found else created


def duration(seconds: float) -> str:
    """Return seconds below two minutes, minutes below two hours, else hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def sizes(boards: Mapping[str, Sequence[Board]]) -> list[str]:
    """Return the sizes of model on the page, small ones first, others by name."""
    known = ["mini", "small", "paper"]
    found = {row.size for tables in boards.values() for board in tables for block in board.blocks for row in block.rows}
    place = lambda size: (known.index(size) if size in known else len(known), size)
    return sorted(filter(None, found), key=place)
