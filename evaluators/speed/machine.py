"""What of a machine decides how long something takes."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from evaluators.provenance import numerics


def machine(device: str) -> dict[str, Any]:
    """Return versions, threads, and under ``device`` what computes; part of the key of kept times."""
    if device.startswith("cuda"):
        import torch

        return {"device": torch.cuda.get_device_name(device), **numerics()}
    about = numerics()
    return {"device": f"{processor()}, {about['cpu_capability']}", **about}


def processor() -> str:
    """Return what the processor is called: ``"AMD EPYC 7R13 Processor"``."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def arithmetic(options: Any) -> dict[str, Any]:
    """Return what of a run's options decides how fast the same arithmetic is done."""
    return {"dtype": getattr(options, "dtype", "float32"), "compile": bool(getattr(options, "compile", False))}


def load() -> float:
    """Return how many processes the machine was busy with, mean of the last minute; NaN where it does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return float("nan")
