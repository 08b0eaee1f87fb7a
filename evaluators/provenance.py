"""Where a number comes from: versions, machine, and the code that made it."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("vaebm-bench", "torch", "torchvision", "numpy", "scipy", "pillow", "clean-fid")
# Variables of the environment that choose other arithmetic.
SETTINGS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> str:
    """Return the commit of the checkout at ``folder`` (``-dirty`` with changes), or "" outside one."""
    try:
        run = lambda *words: (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout
        )
        return run("rev-parse", "HEAD").strip() + (
            "-dirty" if run("status", "--porcelain", "--untracked-files=no").strip() else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


def numerics() -> dict[str, Any]:
    """Return what decides the last digits of a number, and with a chain of samples more than these."""
    import torch

    libc = " ".join(platform.libc_ver())
    used = torch.cuda.is_initialized()  # asking for names would initialise it
    gpus = sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}) if used else []
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({"libc": libc} if libc.strip() else {}),
        **({"gpu": ", ".join(gpus)} if gpus else {}),
        **{name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def environment(folder: Path) -> dict[str, Any]:
    """Return what a reader needs to repeat a run: time, versions, commit and kind of machine (no name of it, no path on it)."""
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "packages": package_versions(),
        "python": platform.python_version(),
        "commit": commit(folder),
        "machine": f"{platform.system()} {platform.machine()}",
        "numerics": numerics(),
    }
