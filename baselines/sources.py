"""Which files of the project decide a system's numbers: its module and what that imports. A cache outlives changes elsewhere."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
WINGS = ("vaebm", "baselines")
READERS = ROOT / "baselines" / "official"


def source_files(system: object) -> list[Path]:
    """Return the Python files behind a system, sorted: the module of its class, its imports among ``vaebm`` and ``baselines``, theirs, and
    the readers of published checkpoints that name that module.

    A system of another package has that module alone, besides what it imports of this project.
    """
    module = type(system).__module__
    own = getattr(sys.modules[module], "__file__", None)
    found: set[Path] = set()
    readers = [f"baselines.official.{path.stem}" for path in READERS.glob("*.py") if module in _imported(path)]
    waiting = [module, *readers]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        path = Path(own) if name == module and own else _file(name)
        if path is not None:
            found.add(path)
            new = _imported(path) - seen
            seen |= new
            waiting += new
    return sorted(found)


@cache
def _imported(path: Path) -> set[str]:
    return set(_names(ast.parse(path.read_text())))


def _names(tree: ast.AST) -> Iterator[str]:
    """Every module of the project that an import may mean: ``from a import b`` means a, and a.b where that is a module."""
    for node in ast.walk(tree):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in named if name.partition(".")[0] in WINGS)


def _file(module: str) -> Path | None:
    """The file of a module of this project; None for anything else."""
    if module.partition(".")[0] not in WINGS:
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
