"""Boards and runs to make pages of: many systems in every suite, names that try to break out, plots beside result files."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from synthetic import REFERENCE, row

from evaluators.measurement import Measurement
from evaluators.result_file import Results
from leaderboards import build_boards
from leaderboards.board import Board
from leaderboards.merge import merge

SUITES = ("ood", "generation", "modes", "ablation", "speed")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "</title><h1>x",
    "' onmouseover='alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- & &amp; -->",
    "模型 модель \u202e txet \U0001f600",
    "half \ud800 a pair",
)
WEIGHTS = "bb5803b3dd51cb899cb081ae9d365e6f755dff277cc359fd7ff91292f12dafd0"

Run = tuple[Path, Results]


def rows_of(systems: Sequence[str]) -> list[Measurement]:
    """Rows of all suites for each system, every number another one."""
    rng = np.random.default_rng(0)
    rows: list[Measurement] = []

    def add(
        suite: str, system: str, dataset: str, metric: str, *, low: float = 0.1, high: float = 0.9, **more: object
    ) -> None:
        value = float(rng.uniform(low, high))
        fields = {
            "n": 4000,
            "seed": 0,
            "size": "mini",
            "low": value - 0.03 * abs(value),
            "high": value + 0.03 * abs(value),
        } | more
        fields["provenance"] = {"fingerprint": {"weights": WEIGHTS, "code": WEIGHTS[::-1]}, "torch": "2.9"}
        rows.append(Measurement(suite, system, dataset, metric, value, **fields))  # type: ignore[arg-type]

    for system in systems:
        about = {
            "in_distribution": "cifar10",
            "n_in": 2000,
            "n_out": 2000,
            "estimator": "ELBO",
            "interval": "DeLong, 95 %",
        }
        for dataset in ("svhn", "cifar10_interp", "cifar100", "celeba", "mean"):
            for metric in ("auroc", "aupr", "fpr95"):
                add("ood", system, dataset, metric, protocol=about)
            for c in (0, 0.1, 1, 10):
                told = {"role": "diagnostic", "variant": f"c={c:g}", "protocol": about}
                add("ood", system, dataset, "auroc_at_coefficient", **told)
        for statistic in ("high_pass_energy", "total_variation", "pixel_std", "codec_bytes"):
            told = {"role": "control", "variant": statistic, "protocol": about}
            add("ood", system, "cifar10", "rank_correlation", low=-1, high=1, **told)
        for metric in ("fid", "is", "fd_net", "kd_net", "precision_net", "recall_net", "density_net", "coverage_net"):
            add("generation", system, "cifar10", metric, low=0.5, high=60, protocol=REFERENCE)
        for steps in (0, 4, 16):
            told = {"role": "diagnostic", "variant": f"steps={steps}", "protocol": REFERENCE | {"steps": steps}}
            add("generation", system, "cifar10", "fd_net", low=0.5, high=60, **told)
        add("modes", system, "stacked_mnist", "modes", low=100, high=1000, protocol={"classifier": "mnistnet"})
        add("modes", system, "stacked_mnist", "kl", protocol={"classifier": "mnistnet"})
        add("modes", system, "gaussians25", "log_likelihood", low=-3, high=-1)
        add("ablation", system, "cifar10", "fid", low=10, high=60)
        add("speed", system, "cifar10", "seconds_per_50_images", high=300)
    return rows


def empty_row() -> Measurement:
    """A cell without a number."""
    return row("nvae", "kid", None, note="No features at hand: give --weights.")


def runs_of(rows: Sequence[Measurement], folder: Path) -> list[Run]:
    """A result file per suite, which need not exist: the page reads its neighbours only."""
    about = {"created": "2026-11-21T18:04:05Z", "seconds": 61.0, "packages": {"torch": "2.9"}, "python": "3.11"}
    about |= {"machine": "Linux x86_64", "commit": "0123456789abcdef" * 2}
    made = []
    for suite in SUITES:
        own = [row for row in rows if row.suite == suite]
        results = Results(suite, own, command=f"python benchmark.py --suite {suite}", **about)  # type: ignore[arg-type]
        made.append((folder / f"{suite}.json", results))
    return made


def boards_of(runs: Sequence[Run]) -> dict[str, list[Board]]:
    return build_boards(merge(runs))


def png(width: int = 60, height: int = 40, *, noise: bool = False) -> bytes:
    """A picture; with noise it cannot be made smaller without loss."""
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 256, (height, width, 3)) if noise else np.full((height, width, 3), 90)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
