"""Where a number comes from: versions, machine, and the code that made it."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "scipy", "pillow")


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


def environment(folder: Path) -> dict[str, Any]:
    """Return what a reader needs to repeat a run: time, versions, commit and kind of machine (no name of it, no path on it)."""
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "packages": package_versions(),
        "python": platform.python_version(),
        "commit": commit(folder),
        "machine": f"{platform.system()} {platform.machine()}",
    }
