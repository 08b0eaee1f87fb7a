"""Train a baseline in a folder and export what came of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.training import TASKS
from baselines.training.config import Config
from baselines.training.task import BaselineTask
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError
from vaebm.training.loop import fit, last_logged, restore
from vaebm.training.record import record_run

N_VALIDATION = 2000  # the last images of the training set: scored after training, never trained on


def train(
    config: Config,
    images: np.ndarray,
    folder: Path,
    *,
    labels: np.ndarray | None = None,
    command: str,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    progress: bool = True,
) -> Path | None:
    """Train in ``folder`` and export the result as ``folder/<config name>.safetensors`` with its card.

    After a divergence the newest healthy state is exported, and the card says so.

    Args:
        images: the training set, uint8 (N, H, W, C); its last ``N_VALIDATION`` (or last fifth, if fewer) are held out.
        labels: of the images, int (N,), for systems that are trained with them.
        command: the command line, for the card.

    Returns:
        The exported file, or None when the run was interrupted or has nothing healthy to export.

    Raises:
        UserError: the folder holds another run, or the data do not fit the configuration.
    """
    if images.shape[1:] != config.architecture.image_shape:
        needed = config.architecture.image_shape
        raise UserError(
            f"{config.dataset}: images are {images.shape[1:]}, {config.name} is for {needed} (architecture.image_shape)"
        )
    held_out = min(N_VALIDATION, len(images) // 5)
    recorded = {**_plain(asdict(config)), "seed": seed}
    record_run(folder, recorded, resume=resume)
    trained = slice(len(images) - held_out)
    validated = slice(len(images) - held_out, None)
    of = lambda part: None if labels is None else labels[part]
    task: BaselineTask = TASKS.load(config.kind)(config, images[trained], of(trained), seed, torch.device(device))
    outcome = fit(task, folder, config.schedule, seed=seed, resume=resume, progress=progress)
    newest = folder / "checkpoint.pt"
    if outcome.interrupted or not newest.exists():
        return None
    updates = restore(newest, task)  # after a divergence this goes back to the newest healthy state
    validation = task.validate(images[validated], of(validated))
    card = {
        "kind": config.kind,
        "size": config.size,
        "dataset": config.dataset,
        "architecture": recorded["architecture"],
        "sampling": recorded["sampling"],
        "training": {
            "command": command,
            "config": {key: recorded[key] for key in ("name", "training", "schedule")},
            "seed": seed,
            "updates": updates,
            "minutes": round(task.stopwatch.seconds / 60, 1),
            "device": torch.device(device).type,
            "final": last_logged(folder, updates),
            "validation": {**validation, "images": f"the last {held_out} training images, not trained on"},
            **({"stopped": outcome.stopped} if outcome.stopped else {}),
        },
    }
    path = folder / f"{config.name}.safetensors"
    save_checkpoint(path, task.weights(), card, half=True)
    load_checkpoint(path)  # what was written can be read
    return path


def _plain(value: Any) -> Any:
    """What JSON would give back: tuples become lists."""
    return json.loads(json.dumps(value))
