"""What every test shares: one thread per process, and folders outside the repository that facts are held against."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: the suite runs under pytest-xdist, and its networks are too small to share among threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On CPUs whose widest vectors are AVX2, torch 2.15's convolution gradients write out of bounds for very narrow networks and abort.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX")

# An example's time says more about the machine than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).parents[1]


def outside(variable: str, default: str) -> Path:
    """Return the folder an environment variable names, else one beside the repository; skip when neither exists."""
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / default)
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; set {variable}")
    return folder


@pytest.fixture(scope="session")
def official() -> Path:
    """The parity fixtures of the official layouts."""
    return outside("VAEBM_OFFICIAL", "official")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real data sets."""
    return outside("VAEBM_DATA", "data")
