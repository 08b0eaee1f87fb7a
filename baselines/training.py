"""Training of the baselines: configurations, one task per kind of system, and the export of a finished run."""

import copy
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from baselines.glow import Glow, GlowArchitecture, GlowSampling, GlowSystem, bits_per_dim, dequantise, image_log_prob
from baselines.igebm import IGEBM, IGEBMArchitecture, IGEBMSystem, LangevinRecipe, run_chains
from vaebm.checkpoints import load_checkpoint, save_checkpoint
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import seed_step
from vaebm.training.batches import Batches, to_uint8, to_unit
from vaebm.training.ema import EMA
from vaebm.training.loop import Diverged, Schedule, Stateful, Stopwatch, fit, last_logged, restore
from vaebm.training.record import record_run

CONFIGS = Path(__file__).parent / "configs"
N_VALIDATION = 2000  # the last images of the training set: scored after training, never trained on


def _require(name: str, value: float, *, at_least: float, at_most: float = math.inf) -> None:
    if not at_least <= value <= at_most:
        above = f" and at most {at_most:g}" if at_most < math.inf else ""
        raise UserError(f"training.{name} = {value:g}, needed at least {at_least:g}{above}")


@dataclass(frozen=True)
class GlowTraining:
    """Adam on -log p / D, warmed up, decayed to 0 and clipped; ``bf16`` runs the coupling networks in bfloat16."""

    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    bf16: bool = False

    def __post_init__(self) -> None:
        _require("batch_size", self.batch_size, at_least=1)
        _require("learning_rate", self.learning_rate, at_least=0)
        _require("ema_decay", self.ema_decay, at_least=0, at_most=1)


@dataclass(frozen=True)
class IGEBMTraining:
    """Adam (beta_1 = 0) on mean E(x+) - mean E(x-) + energy_l2 (mean E(x+)^2 + mean E(x-)^2), x- from replayed chains.

    ``fresh_share`` of the chains restart from uniform noise; ``chain_steps`` to ``gradient_clip`` are the chain;
    ``max_energy`` is the mean of abs(E) past which training has diverged; ``bf16`` runs the convolutions in bfloat16.
    """

    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup: int = 100
    clip_norm: float = 1.0
    energy_l2: float = 1.0
    buffer_size: int = 4096
    fresh_share: float = 0.05
    chain_steps: int = 20
    step_size: float = 10.0
    noise_scale: float = 0.005
    gradient_clip: float = 0.01
    max_energy: float = 100.0
    bf16: bool = False

    def __post_init__(self) -> None:
        _require("batch_size", self.batch_size, at_least=1)
        _require("learning_rate", self.learning_rate, at_least=0)
        _require("buffer_size", self.buffer_size, at_least=self.batch_size)
        _require("fresh_share", self.fresh_share, at_least=0, at_most=1)
        _ = self.chain  # its own checks

    @property
    def chain(self) -> LangevinRecipe:
        """How the negatives move."""
        return LangevinRecipe(self.chain_steps, self.step_size, self.noise_scale, self.gradient_clip)


class ReplayBuffer:
    """Where the chains of earlier updates stopped, so that later ones continue them: images in [0, 1], kept in half
    precision.

    Args:
        size: number of chains.
        shape: (C, H, W).
        fresh_share: probability that a drawn chain restarts from uniform noise.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], fresh_share: float) -> None:
        self.fresh_share = fresh_share
        self.images = torch.rand(size, *shape).half()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the positions (n,) of n different chains and where they stand, (n, C, H, W)."""
        chosen = torch.randperm(len(self.images))[:n]
        x = self.images[chosen].float()
        fresh = torch.rand(n) < self.fresh_share
        return chosen, torch.where(fresh[:, None, None, None], torch.rand(x.shape), x)

    def put(self, chosen: Tensor, x: Tensor) -> None:
        """Store where the chains ``chosen`` stopped."""
        self.images[chosen] = x.half().cpu()

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.images.copy_(state["images"])


class BaselineTask(Protocol):
    """A task of the training loop that can be exported."""

    batch_size: int
    rate_scale: float
    stopwatch: Stopwatch

    def state(self) -> Mapping[str, Stateful]: ...

    def step(self, step: int) -> dict[str, float]: ...

    def preview(self) -> np.ndarray: ...

    def weights(self) -> dict[str, Tensor]:
        """The weights to export."""
        ...

    def validate(self, images: np.ndarray) -> dict[str, float]:
        """Figures of merit on images (uint8, (N, H, W, C)) that were not trained on."""
        ...


class GlowTask:
    """Maximum likelihood. The first 256 shuffled images set the actnorms."""

    rate_scale = 1.0

    def __init__(self, config: "Config", images: np.ndarray, seed: int, device: torch.device) -> None:
        options: GlowTraining = config.training
        self.options, self.config, self.device, self.batch_size = options, config, device, options.batch_size
        self.batches = Batches(images, options.batch_size, seed)
        seed_step(seed, 0)
        self.glow = Glow(config.architecture).to(device)
        first = Batches(images, min(256, len(images)), seed)[1].to(device)
        self.glow.initialise(dequantise(first, torch.rand(first.shape, device=device)))
        self.optimizer = torch.optim.Adam(self.glow.parameters(), lr=options.learning_rate)
        self.ema = EMA(self.glow, options.ema_decay)
        self.stopwatch = Stopwatch()

    def state(self) -> Mapping[str, Stateful]:
        return {"glow": self.glow, "optimizer": self.optimizer, "ema": self.ema, "stopwatch": self.stopwatch}

    def step(self, step: int) -> dict[str, float]:
        images = self.batches[step].to(self.device)
        dimensions = images[0].numel()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            loss = -image_log_prob(self.glow, images, torch.rand(images.shape, device=self.device)).mean() / dimensions
        self.optimizer.zero_grad()
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.glow.parameters(), self.options.clip_norm)
        set_learning_rate(
            self.optimizer,
            self.rate_scale * self.options.learning_rate,
            step,
            self.options.warmup,
            self.config.schedule.steps,
        )
        self.optimizer.step()
        self.ema.update()
        return {"bits_per_dim": loss.item() / math.log(2), "gradient": gradient.item()}

    def _system(self) -> GlowSystem:
        averaged = Glow(self.config.architecture)
        averaged.load_state_dict(self.ema.shadow)
        return GlowSystem(averaged, self.config.sampling, device=self.device)

    def preview(self) -> np.ndarray:
        return self._system().sample(range(64))

    def weights(self) -> dict[str, Tensor]:
        return self.ema.shadow

    def validate(self, images: np.ndarray) -> dict[str, float]:
        return {"bits_per_dim": float(bits_per_dim(self._system().score(images).mean(), images[0].size))}


class IGEBMTask:
    """Maximum likelihood by contrast with Langevin samples, with a replay buffer."""

    rate_scale = 1.0

    def __init__(self, config: "Config", images: np.ndarray, seed: int, device: torch.device) -> None:
        options: IGEBMTraining = config.training
        self.options, self.config, self.device, self.batch_size = options, config, device, options.batch_size
        self.batches = Batches(images, options.batch_size, seed)
        seed_step(seed, 0)
        self.energy = IGEBM(config.architecture).to(device)
        height, width, channels = config.architecture.image_shape
        self.buffer = ReplayBuffer(options.buffer_size, (channels, height, width), options.fresh_share)
        self.optimizer = torch.optim.Adam(self.energy.parameters(), lr=options.learning_rate, betas=(0.0, 0.999))
        self.stopwatch = Stopwatch()

    def state(self) -> Mapping[str, Stateful]:
        return {"energy": self.energy, "optimizer": self.optimizer, "buffer": self.buffer, "stopwatch": self.stopwatch}

    def step(self, step: int) -> dict[str, float]:
        options = self.options
        # Noise of one bin makes the data continuous; it has mean 0, so that bytes / 255, which is what gets scored,
        # is their centre.
        bytes_ = self.batches[step].to(self.device)
        x_plus = (to_unit(bytes_) + (torch.rand(bytes_.shape, device=self.device) - 0.5) / 255).clamp(0, 1)
        chosen, x = self.buffer.draw(options.batch_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.bf16):
            self.energy.eval()  # the power iteration advances once per update, not once per step of the chain
            x = x.to(self.device)
            x_minus = run_chains(self.energy, x, lambda _: torch.randn(x.shape, device=self.device), options.chain)
            self.energy.train()
            energies = self.energy(torch.cat([x_plus, x_minus]))
        e_plus, e_minus = energies.chunk(2)
        loss = e_plus.mean() - e_minus.mean() + options.energy_l2 * (e_plus.square() + e_minus.square()).mean()
        size = energies.detach().abs().mean()
        if not size <= options.max_energy:  # also true of NaN
            raise Diverged(f"mean |E| is {size.item():.4g}, the limit (max_energy) is {options.max_energy:g}")
        self.optimizer.zero_grad()
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.energy.parameters(), options.clip_norm)
        rate = self.rate_scale * options.learning_rate
        set_learning_rate(self.optimizer, rate, step, options.warmup, self.config.schedule.steps)
        self.optimizer.step()
        self.buffer.put(chosen, x_minus)
        return {
            "loss": loss.item(),
            "energy_data": e_plus.mean().item(),
            "energy_samples": e_minus.mean().item(),
            "energy_std": e_plus.std().item(),
            "gradient": gradient.item(),
        }

    def preview(self) -> np.ndarray:
        """Return chains of the buffer."""
        return to_uint8(self.buffer.images[:64].float())

    def weights(self) -> dict[str, Tensor]:
        return self.energy.state_dict()

    def validate(self, images: np.ndarray) -> dict[str, float]:
        energies = -IGEBMSystem(copy.deepcopy(self.energy), self.config.sampling, device=self.device).score(images)
        return {"energy_mean": float(energies.mean()), "energy_std": float(energies.std())}


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: int, total: int) -> None:
    """Linear from 0 to ``peak`` over ``warmup`` updates, times a cosine that reaches 0 after update ``total``."""
    rate = peak * min(1.0, step / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
    for group in optimizer.param_groups:
        group["lr"] = rate


@dataclass(frozen=True)
class Kind:
    """The classes that a kind of system is made of."""

    architecture: type
    sampling: type
    training: type
    task: type


KINDS = {
    "glow": Kind(GlowArchitecture, GlowSampling, GlowTraining, GlowTask),
    "igebm": Kind(IGEBMArchitecture, LangevinRecipe, IGEBMTraining, IGEBMTask),
}


@dataclass(frozen=True)
class Config:
    """One training configuration, as in the TOML files of ``baselines/configs``."""

    name: str
    kind: str
    size: str
    dataset: str
    architecture: Any
    sampling: Any
    training: Any
    schedule: Schedule


def read_config(kind: str, name: str) -> Config:
    """Read a configuration: ``name`` of a bundled one (``baselines/configs/KIND-NAME.toml``) or the path of a TOML
    file.

    Raises:
        UserError: no such kind or configuration, an unknown or missing key, or a value of the wrong type; the message
        names it.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    path = Path(name) if name.endswith(".toml") else CONFIGS / f"{kind}-{name}.toml"
    if not path.is_file():
        bundled = [p.stem.removeprefix(f"{kind}-") for p in CONFIGS.glob(f"{kind}-*.toml")]
        raise UserError(
            f"--config {name}: no such configuration of {kind}.{did_you_mean(name, bundled)} Or give a .toml file."
        )
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path.name}: not a TOML file ({error})") from None
    top = {key: value for key, value in table.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    made_of = KINDS[kind]
    classes = {
        "architecture": made_of.architecture,
        "sampling": made_of.sampling,
        "training": made_of.training,
        "schedule": Schedule,
    }
    _same_keys(top, ["kind", "size", "dataset"], path.name)
    _same_keys(sections, classes, path.name)
    if top["kind"] != kind:
        raise UserError(f"--config {path.name}: is for {top['kind']!r}, not {kind!r}")
    parsed = {key: _parse(cls, sections[key], f"{path.name} [{key}]") for key, cls in classes.items()}
    return Config(name=path.stem, kind=kind, size=str(top["size"]), dataset=str(top["dataset"]), **parsed)


def _same_keys(table: Mapping[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
    for key in known:
        if key not in table:
            raise UserError(f"{where}: {key!r} is missing")


def _parse(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass ``cls``: keys that have a default may be left out, and types must be those declared."""
    known = {field.name: field for field in fields(cls)}
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
        needed = known[key].type
        if needed is float and type(value) is int:
            value = float(value)
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(needed, type) and type(value) is not needed:
            raise UserError(f"{where}: {key} = {value!r}, needed {needed.__name__}")
        values[key] = value
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None


def train(
    config: Config,
    images: np.ndarray,
    folder: Path,
    *,
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
    task: BaselineTask = KINDS[config.kind].task(config, images[: len(images) - held_out], seed, torch.device(device))
    outcome = fit(task, folder, config.schedule, seed=seed, resume=resume, progress=progress)
    newest = folder / "checkpoint.pt"
    if outcome.interrupted or not newest.exists():
        return None
    updates = restore(newest, task)  # after a divergence this goes back to the newest healthy state
    validation = task.validate(images[len(images) - held_out :])
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
