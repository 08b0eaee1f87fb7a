"""Files of per-image scores: what a user brings from any framework, and what the OOD suite leaves behind.

A user's file is an ``.npz`` with one array per data set: ``np.savez("mine.npz", cifar10=a, svhn=b)``. The suite's
``ood_scores.npz`` holds
every system: ``"<system>/<dataset>/score"``, and ``"<system>/<dataset>/<term>"`` for each additive term of the score.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluators.metrics.arrays import finite_scores
from evaluators.protocols import Scores
from evaluators.score_store import write_npz
from vaebm.data.arrays import npz_keys, read_npz
from vaebm.errors import UserError, did_you_mean

SystemScores = Mapping[str, Mapping[str, Scores]]  # dataset -> term -> (N,)


def load_scores(path: Path | str, system: str | None = None) -> dict[str, Scores]:
    """Read the scores of one system.

    Args:
        path: ``.npz``; arrays named by data set, each of finite real numbers (N,), N >= 2, higher = more
            in-distribution. Or a file written by the OOD suite.
        system: which system of a suite's file; not needed when it holds one. A user's own file takes any.

    Returns:
        data set -> float64 (N,).

    Raises:
        UserError: no such file, not an ``.npz``, pickled objects, NaN or infinity (naming file and set), or no such
            system.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file of scores (--scores NAME=FILE.npz)")
    try:
        names = npz_keys(path)
        arrays = None if names is None else read_npz(path, names)
    except UserError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: not an .npz file of plain numbers: {why}") from None
    if arrays is None:
        raise UserError(f"{path}: found a single array, needed an .npz with one array per data set")
    if not arrays:
        raise UserError(f"{path}: holds no arrays, needed one per data set")
    chosen = _one_system(path, arrays, system)
    return {name: finite_scores(values, f"{path}, set {name}", at_least=2) for name, values in chosen.items()}


def save_scores(path: Path, systems: Mapping[str, SystemScores]) -> None:
    """Write ``system -> dataset -> term -> (N,)`` as the suite's file, atomically. Raises: OSError."""
    arrays = {
        f"{system}/{dataset}/{term}": values
        for system, datasets in systems.items()
        for dataset, terms in datasets.items()
        for term, values in terms.items()
    }
    write_npz(path, arrays)


def _one_system(path: Path, arrays: dict[str, np.ndarray], system: str | None) -> dict[str, np.ndarray]:
    parts = {name: name.split("/") for name in arrays}
    if not all(len(part) == 3 for part in parts.values()):
        return arrays
    held = {part[0] for part in parts.values()}
    if system is None and len(held) == 1:
        system = next(iter(held))
    if system not in held:
        wanted = "which system is not said" if system is None else f"holds no system {system!r}"
        raise UserError(f"{path}: {wanted}.{did_you_mean(system or '', held)}")
    return {part[1]: arrays[name] for name, part in parts.items() if part[0] == system and part[2] == "score"}
