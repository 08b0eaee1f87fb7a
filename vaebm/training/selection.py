"""Which run, which update and how many chain steps: a written rule instead of an eye.

The number of a VAEBM always contains checkpoint selection: training is stopped by hand before it explodes. Here

1. a run's checkpoint is one of:
   * ``newest`` (default): the end of the run, or the healthy state that the guard went back to when it stopped it;
   * ``guard``: the newest kept state that is healthy, i.e. that a full window of updates without an alarm followed;
   * ``distance``: among all healthy kept states the one that point 2 puts nearest;
2. its number of chain steps is the one on a fixed ladder whose samples lie nearest to held-out training images;
3. among runs (seeds), the nearest one is taken.

"Near" is by default the Frechet distance between Gaussians fitted to images reduced to 4x4 pixels (48 numbers: colour and layout; it sees
neither sharpness nor objects). The rule looks at images of the training distribution only, never at an out-of-distribution set.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vaebm.atomic import write_atomically
from vaebm.errors import UserError
from vaebm.model import VAEBM, ChainSettings
from vaebm.training.batches import from_uint8

SELECTS = ("newest", "guard", "distance")
SAMPLES = 256
LADDER = (0, 1, 2, 4, 8, 12, 16)
REDUCED = 4  # pixels per side


@dataclass(frozen=True)
class Candidate:
    """One number of steps: the distance of its samples to held-out images, and the mean energy of both in units of the held-out sd."""

    steps: int
    distance: float
    relative_gap: float


def reduce_images(x: Tensor) -> np.ndarray:
    """Map images (N, C, H, W) in [0, 1] to float64 (N, 16 C): means over a grid of 4x4 blocks."""
    return F.adaptive_avg_pool2d(x, REDUCED).flatten(1).double().numpy()


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^{1/2}) of rows a (N, D) and b (M, D), N and M above D.

    The trace of the root is the sum of the roots of the eigenvalues of C^T S_b C with S_a = C C^T, all symmetric and in float64.
    (Dowson & Landau, 1982.)
    """
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    factor = np.linalg.cholesky(s_a + 1e-12 * np.trace(s_a) / len(s_a) * np.eye(len(s_a)))
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(factor.T @ s_b @ factor), 0, None))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a) + np.trace(s_b) - 2 * roots.sum())


def choose_steps(
    model: VAEBM,
    held_out: np.ndarray,
    chain: ChainSettings,
    *,
    n: int = SAMPLES,
    ladder: tuple[int, ...] = LADDER,
    batch_size: int = 64,
    features: Callable[[Tensor], np.ndarray] = reduce_images,
) -> tuple[int, list[Candidate]]:
    """Return the number of steps that the rule picks, and what was found for every number on the ladder.

    Args:
        held_out: uint8 (M, H, W, C), M above 48: training images that were not trained on.
        chain: step size and target; its number of steps is ignored.
        n: samples.
        features: maps images (N, C, H, W) in [0, 1] to float64 (N, D), between which the distance is taken; M and n above D.

    Raises:
        UserError: no energy, or no chain, stays finite. (A rung whose samples do not is left out.)
    """
    real = from_uint8(held_out)
    reference = features(real)
    with torch.no_grad():
        energies = torch.cat([model.energy(part) for part in real.split(batch_size)]).double()
    longest = replace(chain, steps=max(ladder))
    samples: dict[int, list[Tensor]] = {steps: [] for steps in ladder}
    for i in range(0, n, batch_size):
        # One chain passes every rung: its first k steps are the chain of k steps.
        for steps, state in enumerate(model.trajectory(range(i, min(n, i + batch_size)), longest)):
            if steps in samples:
                with torch.no_grad():
                    samples[steps].append(model.decode(state)[1].distribution.mean.clamp(0, 1))
    found = []
    for steps, parts in samples.items():
        with torch.no_grad():
            mean = float(torch.cat([model.energy(part) for part in parts]).double().mean())
        if not math.isfinite(mean - float(energies.mean())):
            continue
        distance = frechet_distance(features(torch.cat(parts)), reference)
        found.append(
            Candidate(steps, round(distance, 4), round((mean - float(energies.mean())) / float(energies.std()), 3))
        )
    if not found:
        raise UserError(
            "energies are not finite: training exploded, or its chains do (step_size); name an earlier update with --step"
        )
    return min(found, key=lambda candidate: candidate.distance).steps, found


def write_selection(
    path: Path, found: Mapping[int, list[Candidate]], *, rule: str, update: int, steps: int, n: int, seed: int
) -> None:
    """Keep the choice and everything it was made from.

    Args:
        found: for every update that was compared, what was found for every number of steps.
        rule: of ``SELECTS``, or ``"step"`` where the update was named.
        update, steps: the choice.
        n: samples per candidate.
        seed: of the run.
    """
    candidates = [{"update": at, **asdict(candidate)} for at, rungs in found.items() for candidate in rungs]
    choice = {"rule": rule, "update": update, "steps": steps, "n": n, "seed": seed, "candidates": candidates}
    write_atomically(path, lambda partial: partial.write_text(json.dumps(choice, indent=1) + "\n"))
