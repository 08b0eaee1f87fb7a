"""The two stages from images to an exported checkpoint."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from vaebm.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from vaebm.checkpoints.models import build_nvae, read_files
from vaebm.checkpoints.native import fits_half
from vaebm.data import load_images
from vaebm.energy import EnergyConfig
from vaebm.errors import UserError, did_you_mean
from vaebm.model import VAEBM
from vaebm.noise import content_keys, normal, seed_step
from vaebm.nvae import NVAE, NVAEConfig
from vaebm.parallel import rank, world_size
from vaebm.training.batches import from_uint8
from vaebm.training.ebm import EBMTask, EBMTraining
from vaebm.training.guard import GuardSettings
from vaebm.training.loop import Schedule, check_vacant, fit, kept_states, last_logged, read_ledger, restore
from vaebm.training.record import read_run, record_run
from vaebm.training.selection import SAMPLES, SELECTS, Candidate, choose_steps, write_selection
from vaebm.training.vae import VAETask, VAETraining

STAGES = ("vae", "ebm")


@dataclass(frozen=True)
class Output:
    """How often a run writes, in updates; 0 turns a kind of output off."""

    log_every: int = 20
    checkpoint_every: int = 250
    keep_every: int = 0
    preview_every: int = 500

    def schedule(self, steps: int) -> Schedule:
        """Return the loop's schedule for a run of ``steps`` updates."""
        return Schedule(steps, self.log_every, self.checkpoint_every, self.keep_every, self.preview_every)


@dataclass(frozen=True)
class Settings:
    """One published or bundled setting: data, both networks, both trainings. Each file in ``vaebm/configs`` is one.

    Attributes:
        dataset: name of the training data.
        size: ``"mini"``, ``"small"`` or ``"paper"``; every result says which.
        validation: so many images at the end of the training split are held out: never trained on, used to choose checkpoints.
    """

    dataset: str = "cifar10"
    size: str = "paper"
    validation: int = 2000
    nvae: NVAEConfig = field(default_factory=NVAEConfig)
    vae: VAETraining = field(default_factory=VAETraining)
    vae_output: Output = field(default_factory=Output)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    ebm: EBMTraining = field(default_factory=EBMTraining)
    ebm_output: Output = field(default_factory=lambda: Output(10, 50, 50, 100))


@dataclass(frozen=True)
class Run:
    """Where and how one stage runs: ``name`` and ``command`` go to the card, ``vae`` is stage 2's frozen model."""

    folder: Path
    name: str
    command: str
    seed: int = 0
    data_root: str | None = None
    device: str = "cpu"
    resume: bool = False
    progress: bool = True
    vae: Path | None = None


def train(stage: str, settings: Settings, run: Run) -> Path | None:
    """Train one stage in ``run.folder`` and export it as ``<folder>/<name>.safetensors`` with its card.

    Returns:
        The exported file; None when the run was interrupted.

    Raises:
        UserError: training stopped before its first checkpoint, or the data or the frozen model do not fit.
    """
    device = torch.device(run.device)
    frozen = read_nvae(run.vae) if run.vae is not None else None
    # Only this stage's settings: a change to the other's does not make it another run.
    parts = {"vae": ("nvae", "vae", "vae_output"), "ebm": ("energy", "ebm", "ebm_output")}[stage]
    own = {key: value for key, value in asdict(settings).items() if key in ("dataset", "size", "validation", *parts)}
    recorded = {"stage": stage, "name": run.name, "command": run.command, "seed": run.seed, "settings": own}
    if frozen is not None:
        recorded |= {"nvae_sha256": frozen.card["sha256"], "nvae_file": frozen.path.name}
    check_vacant(run.folder, run.resume)
    if run.resume:
        record_run(run.folder, recorded, resume=True)  # another run's settings are refused before anything slow
    task = make_task(stage, settings, run.seed, device, frozen, run.data_root)
    if not run.resume:
        record_run(run.folder, recorded, resume=False)  # nothing is written where data or model are missing
    if frozen is not None and rank() == 0:
        # The frozen model travels with the run, so that a later export needs no other folder.
        save_checkpoint(run.folder / frozen.path.name, frozen.weights, frozen.card, half=fits_half(frozen.weights))
    output = settings.vae_output if stage == "vae" else settings.ebm_output
    steps = task.training.steps
    outcome = fit(
        task,
        run.folder,
        output.schedule(steps),
        seed=run.seed,
        guard=settings.vae if stage == "vae" else settings.ebm,
        resume=run.resume,
        progress=run.progress,
    )
    if outcome.interrupted:
        return None
    if not (run.folder / "checkpoint.pt").exists():
        raise UserError(f"{run.folder}: nothing healthy to export; {outcome.stopped}")
    path = run.folder / f"{run.name}.safetensors"
    return export(run.folder, path, data_root=run.data_root) if _first_alone() else path


def _first_alone() -> bool:
    """Dissolve the group of processes: return whether this is the first one, which does alone what is left to do."""
    first = rank() == 0
    if world_size() > 1:
        dist.destroy_process_group()
    return first


def make_task(
    stage: str, settings: Settings, seed: int, device: torch.device, frozen: Checkpoint | None, data_root: str | None
) -> VAETask | EBMTask:
    """Build a stage's task on the training split without its validation part."""
    images = load_images(settings.dataset, split="train", data_root=data_root).images
    if not 1 <= settings.validation < len(images):
        raise UserError(
            f"--validation {settings.validation}: needed 1 to {len(images) - 1}, a part of the {len(images)} images"
        )
    images = images[: len(images) - settings.validation]
    seed_step(seed, 0)  # initial weights are update 0
    if stage == "vae":
        return VAETask(NVAE(settings.nvae), images, settings.vae, seed, device)
    if frozen is None:
        raise UserError("stage 2 trains against a frozen NVAE: name its run folder or checkpoint with --vae-from")
    return EBMTask(build_nvae(frozen, "--vae-from"), settings.energy, images, settings.ebm, seed, device)


def read_nvae(path: Path) -> Checkpoint:
    """Read stage 1 from a checkpoint, native or official, or from a run folder that holds exactly one exported one.

    An official one gets the name of a native file, under which it travels with the run.

    Raises:
        UserError: there is none, or it is not an NVAE.
    """
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise UserError(
                f"--vae-from {path}: found {len(found)} exported checkpoints, needed one (has stage 1 finished?)"
            )
        path = found[0]
    checkpoint, _ = read_files(str(path))
    if checkpoint.kind != "nvae":
        raise UserError(f"--vae-from {path}: found a checkpoint of kind {checkpoint.kind!r}, needed 'nvae'")
    return checkpoint if path.suffix == ".safetensors" else replace(checkpoint, path=Path("nvae-official.safetensors"))


def export(
    folder: Path,
    path: Path,
    *,
    step: int | None = None,
    select: str = "newest",
    samples: int = SAMPLES,
    data_root: str | None = None,
) -> Path:
    """Write the averaged weights of a run as a native checkpoint.

    Args:
        step: a kept update (``step-000300.pt``), instead of a rule.
        select: the rule that finds the update, see :mod:`vaebm.training.selection`.
        samples: per candidate, for the distance to held-out images.

    Raises:
        UserError: the run has no such update, or none that the rule may take; ``path`` is no place for a checkpoint; too few samples.
    """
    recorded = read_run(folder)
    stage, settings = recorded["stage"], settings_from_json(recorded["settings"])
    if path.suffix != ".safetensors" or path.is_dir():
        raise UserError(f"--to {path}: needed a .safetensors file to write")
    if stage == "ebm" and samples < 2:
        raise UserError(f"--samples {samples}: needed at least 2 (more than 48 for a distance that means something)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to {path}: cannot be written ({error.strerror})") from None
    sources = _candidates(folder, step, select, settings.ebm if stage == "ebm" else settings.vae)
    if stage == "vae" and select == "distance":
        raise UserError("--select distance compares lengths of chains, and stage 1 has none; needed newest or guard")
    frozen = load_checkpoint(folder / recorded["nvae_file"]) if stage == "ebm" else None
    # On the CPU, where float16 does not train; the state is the same.
    full = replace(settings, vae=replace(settings.vae, precision="no"), ebm=replace(settings.ebm, precision="no"))
    task = make_task(stage, full, recorded["seed"], torch.device("cpu"), frozen, data_root)
    rule = select if step is None else "step"
    found: dict[int, list[Candidate]] = {}
    if isinstance(task, EBMTask):
        held_out = validation_images(settings, data_root)
        for update, source in sources.items():
            restore(source, task)
            _, found[update] = choose_steps(task.averaged(), held_out, settings.ebm.chain, n=samples)
        best, update = min(
            ((candidate, update) for update, rungs in found.items() for candidate in rungs),
            key=lambda pair: pair[0].distance,
        )
    else:
        (update,) = sources
    restore(sources[update], task)
    architecture: dict[str, Any] = {"nvae": settings.nvae.to_json()}
    training: dict[str, Any] = {
        "command": recorded["command"],
        "seed": recorded["seed"],
        "update": update,
        "selection": rule,
        "minutes": round(task.stopwatch.seconds / 60, 1),
        "final": last_logged(folder, update),
        **_guard_record(folder),
    }
    model = task.averaged()
    if isinstance(model, VAEBM):
        assert frozen is not None
        write_selection(
            path.with_suffix(".selection.json"),
            found,
            rule=rule,
            update=update,
            steps=best.steps,
            n=samples,
            seed=recorded["seed"],
        )
        training["validation"] = {
            "rule": "docs/ood.md" + {"newest": "", "step": ", chain steps only"}.get(rule, f", --select {rule}"),
            "samples_distance_4x4": best.distance,
            "relative_energy_gap": best.relative_gap,
        }
        card = {"kind": "vaebm", "sampling": {**settings.ebm.chain.to_json(), "steps": best.steps, "output": "mean"}}
        architecture = {"energy": settings.energy.to_json()}
        training = {**training, "settings": asdict(settings.ebm)}
        # Energies of several seeds share one NVAE: it lies beside them once, and its hash binds them to it.
        card["nvae"] = {"file": recorded["nvae_file"], "sha256": frozen.card["sha256"]}
        beside = path.with_name(recorded["nvae_file"])
        save_checkpoint(beside, frozen.weights, frozen.card, half=fits_half(frozen.weights))
        weights = torch.nn.ModuleDict({"energy": model.energy}).state_dict()
    else:
        card = {"kind": "nvae", "sampling": {"temperature": 1.0, "output": "mean"}}
        training = {**training, "settings": asdict(settings.vae), "validation": validate(model, settings, data_root)}
        weights = torch.nn.ModuleDict({"nvae": model}).state_dict()
    card = {
        **card,
        "size": settings.size,
        "dataset": settings.dataset,
        "architecture": architecture,
        "training": training,
    }
    save_checkpoint(path, weights, card, half=True)
    return path


def _candidates(folder: Path, step: int | None, select: str, guard: GuardSettings) -> dict[int, Path]:
    """The states that an export may take, by update."""
    kept = kept_states(folder)
    names = ", ".join(map(str, kept)) or "none"
    if select not in SELECTS:
        raise UserError(f"--select {select}: unknown rule.{did_you_mean(select, SELECTS)}")
    if step is not None:
        if select != "newest":
            raise UserError(f"--step {step} names an update and --select {select} finds one: needed one of the two")
        if step not in kept:
            raise UserError(f"{folder}: update {step} was not kept (kept: {names})")
        return {step: kept[step]}
    newest = folder / "checkpoint.pt"
    if not newest.is_file():
        raise UserError(f"{folder}: holds no state yet")
    ledger, update = read_ledger(folder, guard)
    if update == 0:
        raise UserError(f"{folder}: nothing trained to export: its state is update 0")
    if select == "newest":
        return {update: newest}
    if not guard.guard_window:
        raise UserError(f"--select {select}: this run was not guarded (guard_window = 0); name an update with --step")
    states = sorted({**kept, update: newest}.items())
    healthy = {at: source for at, source in states if at and ledger.is_healthy(at, update)}
    if not healthy:
        raise UserError(
            f"--select {select}: no state in {folder} was followed by {guard.guard_window} updates without an alarm (kept: {names}); "
            "export the newest one without --select, or name one with --step"
        )
    return healthy if select == "distance" else dict([max(healthy.items())])


def _guard_record(folder: Path) -> dict[str, Any]:
    """What the card says about alarms of the guard; nothing for a run without one."""
    record: dict[str, Any] = {}
    if (stopped := folder / "stopped.txt").exists():
        record["stopped"] = stopped.read_text().strip()
    if (report := folder / "guard.json").exists():
        told = json.loads(report.read_text())
        # The values of the windows stay with the run.
        alarms = [{key: value for key, value in alarm.items() if key != "seen"} for alarm in told["alarms"]]
        record["guard"] = {**{key: told[key] for key in ("state", "use", "attempt", "rate_scale")}, "alarms": alarms}
    return record


def validation_images(settings: Settings, data_root: str | None) -> np.ndarray:
    """The end of the training split, which no stage trains on: uint8 (N, H, W, C)."""
    images = load_images(settings.dataset, split="train", data_root=data_root).images
    return images[len(images) - settings.validation :]


@torch.no_grad()
def validate(nvae: NVAE, settings: Settings, data_root: str | None, limit: int = 1000) -> dict[str, Any]:
    """Return the ELBO in nats and the KL per group on held-out training images."""
    held_out = validation_images(settings, data_root)[:limit]
    log_px, kl = [], []
    for start in range(0, len(held_out), 100):
        part = held_out[start : start + 100]
        x = from_uint8(part)
        eps = [normal(0, content_keys(part), f"posterior.{i}", shape) for i, shape in enumerate(nvae.latent_shapes)]
        terms = nvae.elbo(x, eps)
        log_px.append(terms[0])
        kl.append(terms[1])
    per_group = torch.cat(kl).mean(0)
    return {
        "images": f"{len(held_out)} held-out training images",
        "elbo": round(float(torch.cat(log_px).mean() - per_group.sum()), 1),
        "kl_per_group": [round(float(value), 1) for value in per_group],
    }


def settings_from_json(values: dict[str, Any]) -> Settings:
    """Rebuild settings from :func:`dataclasses.asdict`."""
    parts = {
        "nvae": NVAEConfig,
        "vae": VAETraining,
        "vae_output": Output,
        "energy": EnergyConfig,
        "ebm": EBMTraining,
        "ebm_output": Output,
    }
    return Settings(**{name: parts[name](**value) if name in parts else value for name, value in values.items()})
