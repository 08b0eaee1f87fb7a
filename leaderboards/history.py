"""What was measured before: every run of the front door appends to a small SQLite file."""

from pathlib import Path

from evaluators.result_file import Results

FILE = "history.db"


def append(results: Results, folder: Path) -> None: ...


def show(path: Path, system: str, metric: str, out: Path, *, pdf: bool = False) -> int:
    return 0
