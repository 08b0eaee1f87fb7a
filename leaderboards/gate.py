"""The regression gate: is a run worse than a stored one, beyond what both intervals allow?"""

from collections.abc import Sequence
from pathlib import Path

from evaluators.result_file import Results


def check(runs: Sequence[tuple[Path, Results]], baseline: Path, out: Path) -> int:
    return 0


def write_baseline(runs: Sequence[tuple[Path, Results]], path: Path) -> None: ...
