"""What decides a system's numbers is found, and nothing else is."""

import importlib.util
import sys

import pytest

from baselines import SYSTEMS
from baselines.load import load_system
from baselines.sources import ROOT, source_files


def names(system) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in source_files(system)}


def test_a_system_rests_on_its_module_and_what_that_imports() -> None:
    found = names(load_system("vaebm"))
    assert {
        "baselines/vaebm.py",
        "baselines/nvae.py",
        "vaebm/energy.py",
        "vaebm/nvae/model.py",
        "vaebm/langevin.py",
    } <= found
    assert not {path for path in found if path.startswith(("vaebm/commands", "baselines/training", "tests"))}
    assert "baselines/glow.py" not in found


@pytest.mark.parametrize(
    ("kind", "reader"),
    [(kind, kind) for kind in ("glow", "jem", "ncsn", "ddpm")] + [("ncsnv2", "ncsn"), ("hdge", None)],
)
def test_the_reader_of_published_files_of_its_kind_counts(kind: str, reader: str | None) -> None:
    system = object.__new__(SYSTEMS.load(kind))
    found = {path for path in names(system) if path.startswith("baselines/official/")}
    assert found == ({f"baselines/official/{reader}.py"} if reader else set())


@pytest.mark.parametrize("imported", ["from vaebm.energy import EnergyNetwork", "import vaebm.energy as e"])
def test_a_system_of_another_package_counts_itself_and_what_it_takes_from_here(tmp_path, imported) -> None:
    path = tmp_path / "elsewhere.py"
    path.write_text(f"{imported}\nimport json\n\nclass Mine:\n    pass\n")
    spec = importlib.util.spec_from_file_location("elsewhere", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["elsewhere"] = module
    try:
        spec.loader.exec_module(module)
        found = source_files(module.Mine())
    finally:
        del sys.modules["elsewhere"]
    assert path in found
    assert ROOT / "vaebm/energy.py" in found
