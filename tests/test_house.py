"""The rules of the house: who imports whom, how long the front door may be, and that no place on a machine is named."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("vaebm", "baselines", "evaluators", "leaderboards")
PROJECT = (*WINGS, "benchmark", "tests")

# What each wing may import of the project, besides itself. A name allows the module and everything in it.
ALLOWED = {
    "vaebm": (),
    "baselines": ("vaebm",),
    "evaluators": (
        *(
            "vaebm.arithmetic",
            "vaebm.atomic",
            "vaebm.batching",
            "vaebm.cli",
            "vaebm.data",
            "vaebm.errors",
            "vaebm.lock",
        ),
        *("vaebm.parallel", "vaebm.registry"),
    ),
    "leaderboards": (
        *("evaluators.measurement", "evaluators.result_file", "vaebm.atomic", "vaebm.errors", "vaebm.registry"),
    ),
}
FRONT_DOOR_LINES = 200


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """Return every imported name as "module" or "module.name", anywhere in ``source``, relative ones resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def forbidden(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return the project's names that ``module`` imports and may not."""
    wing = module.split(".")[0]
    allowed = (wing, *ALLOWED[wing])
    inside = lambda name, parents: any(name == parent or name.startswith(parent + ".") for parent in parents)
    return sorted(
        name for name in imports(source, module, is_package) if inside(name, PROJECT) and not inside(name, allowed)
    )


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("wing", WINGS)
def test_wing_imports_only_what_the_house_allows(wing: str) -> None:
    files = sorted((ROOT / wing).rglob("*.py"))
    assert files
    found = {
        str(path.relative_to(ROOT)): forbidden(path.read_text(), module_name(path), path.name == "__init__.py")
        for path in files
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("module", "source", "names"),
    [
        ("vaebm.model", "import evaluators", ["evaluators"]),
        ("vaebm.model", "def f():\n    from baselines.glow import Glow", ["baselines.glow.Glow"]),
        (
            "baselines.glow",
            "from vaebm import nvae; from evaluators.protocols import Scorer",
            ["evaluators.protocols.Scorer"],
        ),
        ("evaluators.ood", "from vaebm import data, nvae", ["vaebm.nvae"]),
        ("evaluators.ood", "import vaebm.data.load, vaebm.database", ["vaebm.database"]),
        ("evaluators.ood", "from . import protocols; from .metrics import auroc; from .. import vaebm", []),
        ("leaderboards.board", "from evaluators import protocols, measurement", ["evaluators.protocols"]),
        ("leaderboards.board", "import benchmark, numpy", ["benchmark"]),
    ],
)
def test_rule_sees_every_form_of_import(module: str, source: str, names: list[str]) -> None:
    assert forbidden(source, module) == names


def test_relative_imports_are_resolved_from_modules_and_packages() -> None:
    assert imports("from ..energy import E", "vaebm.nvae.model", False) == {"vaebm.energy.E"}
    assert imports("from ..energy import E", "vaebm.nvae", True) == {"vaebm.energy.E"}
    assert imports("from .cells import C", "vaebm.nvae", True) == {"vaebm.nvae.cells.C"}


def test_front_door_is_short() -> None:
    door = ROOT / "benchmark.py"
    if not door.exists():
        pytest.skip("benchmark.py is not there yet")
    assert len(door.read_text().splitlines()) < FRONT_DOOR_LINES


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        answer = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone")
    places = [f"/{folder}/".encode() for folder in ("work", "tmp/w", "home", "root")]
    files = [ROOT / name for name in answer.split("\0") if name and (ROOT / name).is_file()]
    assert ROOT / "pyproject.toml" in files
    found = {}
    for path in files:
        content = path.read_bytes()
        if b"\0" not in content and (named := [place.decode() for place in places if place in content]):
            found[str(path.relative_to(ROOT))] = named
    assert found == {}
