"""One self-contained web page of all tables and plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluators.result_file import Results
from leaderboards.board import Board
from leaderboards.render.numbers import Style


def write_page(
    boards: Mapping[str, Sequence[Board]],
    out_dir: Path,
    runs: Sequence[tuple[Path, Results]],
    style: Style | None = None,
) -> Path:
    return Path(out_dir) / "index.html"
