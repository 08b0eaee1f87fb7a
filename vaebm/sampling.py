"""Images from a model to a file: one seed per image, saved as they come, continued after a kill.

A run writes ``TARGET`` (one uint8 array (N, H, W, C), or a folder of PNGs) with ``TARGET.json`` beside it, which says how the images were
made. While it works its shards lie in ``TARGET.unfinished/``, so that the same command continues where it stopped.
"""

import hashlib
import json
import os
import pickle
import platform
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vaebm import lock
from vaebm.atomic import FULL, write_atomically
from vaebm.errors import UserError, did_you_mean
from vaebm.frozen import freeze
from vaebm.lock import locked
from vaebm.model import OUTPUTS, VAEBM, ChainSettings, last
from vaebm.parallel import in_turns, on_main, rank, world_size
from vaebm.training.batches import to_uint8

SAMPLE_BLOCK = 16
POSTPROCESSES = ("clamp", "minmax_per_image")


@dataclass(frozen=True)
class Sampling:
    """All that decides an image besides the weights and its index.

    Attributes:
        chain: steps, step size, target, temperature, metropolis.
        output: ``"mean"`` of the decoder or a ``"sample"`` of it.
        postprocess: ``"clamp"`` to [0, 1], or ``"minmax_per_image"`` (see :func:`to_images`).
        seed: of the run.
    """

    chain: ChainSettings
    output: str = "mean"
    postprocess: str = "clamp"
    seed: int = 0

    def __post_init__(self) -> None:
        for what, found, known in (("output", self.output, OUTPUTS), ("postprocess", self.postprocess, POSTPROCESSES)):
            if found not in known:
                raise UserError(f"--{what} {found}: unknown.{did_you_mean(found, known)}")


@dataclass(frozen=True)
class Chains:
    """States of N chains to continue from, on the CPU.

    Attributes:
        eps_z: per latent group, (N, *latent_shapes[l]).
        eps_x: (N, ...); ``None`` where it was not kept and is to be drawn afresh.
        done: steps that the chains have behind them under their seeds' noise.
        sha256: of the file that they came from.
    """

    eps_z: list[Tensor]
    eps_x: Tensor | None
    done: int
    sha256: str


def to_images(x: Tensor, postprocess: str = "clamp") -> np.ndarray:
    """Map images (N, C, H, W), nominally in [0, 1], to uint8 (N, H, W, C).

    ``"clamp"`` cuts off what lies outside. ``"minmax_per_image"`` first stretches each image by itself to all of [0, 1], over its channels
    together, as the released code saves its samples (``torchvision.utils.save_image(normalize=True)``): it changes contrast, hence FID.
    """
    if postprocess == "minmax_per_image":
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        x = (x - low) / (high - low).clamp(min=1e-5)
    return to_uint8(x)


def blocks(seeds: Sequence[int], block: int = SAMPLE_BLOCK) -> Iterator[tuple[list[int], int]]:
    """Yield ``block`` seeds at a time, the last ones filled up, and how many of them were asked for."""
    for start in range(0, len(seeds), block):
        part = list(seeds[start : start + block])
        yield part + part[:1] * (block - len(part)), len(part)


def sample_in_blocks(
    draw: Callable[[Sequence[int]], np.ndarray],
    seeds: Sequence[int],
    image_shape: tuple[int, ...],
    block: int = SAMPLE_BLOCK,
) -> np.ndarray:
    """Draw images in blocks of one fixed size, the last one filled up and cut.

    Kernels for another batch size add in another order, and a long chain turns a last bit into grey levels. At one
    fixed size an image comes out the same, byte for byte, alone or among others (for one number of threads and one
    kind of device).

    Args:
        draw: maps ``block`` seeds to as many uint8 images (n, H, W, C), or ladders of them.
        image_shape: what follows n, for no seeds at all.
        block: images drawn together; another number may change the last bits of an image.
    """
    parts = [np.empty((0, *image_shape), dtype=np.uint8)]
    return np.concatenate(parts + [draw(filled)[:n] for filled, n in blocks(seeds, block)])


def on_device(model: VAEBM, device: torch.device | str) -> VAEBM:
    """Return a copy of the model where and as it is sampled: kernels normalised once, BatchNorm folded, no weight gradients."""
    return freeze(model.to(device))


def draw_images(
    model: VAEBM, seeds: Sequence[int], sampling: Sampling, chains: Chains | None = None
) -> tuple[np.ndarray, list[Tensor]]:
    """Return uint8 images (n, H, W, C) and the last states [eps_x, eps_z_1, ...] of one batch of chains.

    Args:
        chains: start chain ``i`` from the state at position ``seeds[i]`` of these.

    Raises:
        UserError: a chain left the finite numbers.
    """
    start = None
    if chains is not None:
        start = model.start(seeds, seed=sampling.seed)
        eps_x = start[0] if chains.eps_x is None else chains.eps_x[list(seeds)].to(start[0].device)
        start = [eps_x, *(part[list(seeds)].to(eps_x.device) for part in chains.eps_z)]
    done = 0 if chains is None else chains.done
    state = last(model.trajectory(seeds, sampling.chain, seed=sampling.seed, start=start, done=done))
    x = model.render(state, sampling.output, sampling.chain.temperature)
    _check_finite(x, seeds, sampling.chain.steps)
    return to_images(x, sampling.postprocess), state


def draw_ladder(model: VAEBM, seeds: Sequence[int], sampling: Sampling, ladder: Sequence[int]) -> np.ndarray:
    """Return uint8 images (n, len(ladder), H, W, C) of one batch of chains after every number of steps on the ascending ladder.

    Raises:
        UserError: a chain left the finite numbers.
    """
    chain = replace(sampling.chain, steps=ladder[-1])
    rungs = []
    for steps, state in enumerate(model.trajectory(seeds, chain, seed=sampling.seed)):
        if steps in ladder:
            x = model.render(state, sampling.output, chain.temperature)
            _check_finite(x, seeds, steps)
            rungs.append(to_images(x, sampling.postprocess))
    return np.stack(rungs, axis=1)


def _check_finite(x: Tensor, seeds: Sequence[int], steps: int) -> None:
    finite = x.isfinite().flatten(1).all(1)
    if not finite.all():
        first = seeds[int(finite.logical_not().nonzero()[0])]
        raise UserError(f"image {first} is not finite after {steps} steps: use a smaller --step-size")


# Chains in files


def read_chains(path: Path, model: VAEBM, flag: str = "--start-from") -> Chains:
    """Read chains that a sampling run saved (.npz), or the replay buffer of a training run (its checkpoint.pt), whose eps_x were not kept.

    Raises:
        UserError: the file is missing, damaged, of another kind or another model's, or its buffer is empty.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                states = [torch.from_numpy(file[f"eps_z_{i}"]) for i in range(len(model.state_shapes) - 1)]
                eps_x, done = torch.from_numpy(file["eps_x"]), int(file["done"])
        else:
            buffer = torch.load(path, weights_only=True, map_location="cpu")["buffer"]
            # (rows, lanes, C, H, W): a row per update, a lane per chain of the batch.
            states = [part[: buffer["filled"]].flatten(0, part.dim() - 4) for part in buffer["stored"]]
            eps_x, done = None, 0
    except Exception as error:  # zip, pickle, missing entry: whatever is wrong with the file, the answer is the same
        said = (
            "" if isinstance(error, pickle.UnpicklingError) else f": {error}"
        )  # torch's text is a page about unsafe loading
        raise UserError(
            f"{flag} {path}: found no chains of this model ({type(error).__name__}{said}), needed a file of --save-chains "
            "or the checkpoint.pt of a training run with a replay buffer"
        ) from None
    found = [tuple(part.shape[1:]) for part in states]
    if found != model.state_shapes[1:]:
        raise UserError(
            f"{flag} {path}: holds eps_z of shapes {found}, this model needs {model.state_shapes[1:]}: another model's"
        )
    if not len(states[0]):
        raise UserError(f"{flag} {path}: its replay buffer is empty (the run trains without one)")
    with path.open("rb") as file_of_bytes:
        return Chains(states, eps_x, done, hashlib.file_digest(file_of_bytes, "sha256").hexdigest())


# A run


class SamplingRun:
    """``num_images`` images of one recipe on their way to a file.

    Args:
        target: ``.npz`` (array "images"), ``.npy``, or a folder for PNGs.
        model: on its device.
        weights: sha256 of the files that the weights came from, by name.
        batch_size: images between two saves, in whole blocks of ``SAMPLE_BLOCK``. It decides no byte of an image.
        chains: states to continue from.
        save_chains: ``.npz`` for the last states of all chains.

    Raises:
        UserError: the target or ``save_chains`` is of no known kind, holds something else, or has an unfinished run of another recipe;
            or ``chains`` are too few.
    """

    def __init__(
        self,
        target: str,
        model: VAEBM,
        sampling: Sampling,
        num_images: int,
        *,
        weights: dict[str, str],
        batch_size: int = 64,
        chains: Chains | None = None,
        save_chains: Path | None = None,
    ) -> None:
        self.target, self.model, self.sampling, self.num_images = Path(target), model, sampling, num_images
        self.chains, self.save_chains = chains, save_chains
        self.shard = -(-batch_size // SAMPLE_BLOCK) * SAMPLE_BLOCK
        self.to_folder = target.endswith(("/", os.sep)) or not self.target.suffix
        if not self.to_folder and self.target.suffix not in (".npz", ".npy"):
            raise UserError(f"--to {target}: needed a .npz, a .npy, or a folder (FOLDER/) for PNGs")
        if save_chains is not None and save_chains.suffix != ".npz":
            raise UserError(f"--save-chains {save_chains}: needed a .npz")
        if num_images < 1 or batch_size < 1:
            flag, found = ("--num-images", num_images) if num_images < 1 else ("--batch-size", batch_size)
            raise UserError(f"{flag} {found}: needed at least 1")
        if chains is not None and len(chains.eps_z[0]) < num_images:
            raise UserError(
                f"--start-from holds {len(chains.eps_z[0])} chains, --num-images asks for {num_images}: lower it to that number"
            )
        self.recipe: dict[str, Any] = {
            "weights": weights,
            **asdict(sampling),
            "num_images": num_images,
            "start": None if chains is None else {"sha256": chains.sha256, "done": chains.done},
            "saves_chains": save_chains is not None,
            "device": next(model.nvae.parameters()).device.type,
        }
        self.key = hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()
        self.record = self.target.with_name(self.target.name + ".json")
        self.unfinished = self.target.with_name(self.target.name + ".unfinished")

    def run(self, *, progress: bool = True) -> Path:
        """Draw what is missing, write the target and return its path; a finished one of the same recipe is left as it is.

        Processes under torchrun share out the images; the first one puts them together.

        Raises:
            UserError: something else is there, another run makes it, or the files cannot be written.
        """
        if self._on_main(self._finished):
            self._on_main(self._clean_up)
            return self.target
        with locked(self.unfinished, "--to", self.target):
            if not self._on_main(self._finished):  # by a run that has just ended
                self._on_main(self._open_unfinished)
                self._draw(progress)
            self._on_main(self._clean_up)
        return self.target

    def _on_main(self, work: Callable[[], Any]) -> Any:
        return on_main(lambda: self._writing(work))

    def _writing(self, work: Callable[[], Any]) -> Any:
        """Call ``work``; what the file system refuses is the user's to mend."""
        try:
            return work()
        except OSError as error:
            kept = "; repeat the command once there is room: what was made is kept" if error.errno in FULL else ""
            raise UserError(f"--to {self.target}: cannot be written ({error.strerror or error}){kept}") from None

    def _draw(self, progress: bool) -> None:
        missing = self._on_main(self._missing)
        began = time.perf_counter()
        todo = sum(map(len, missing))
        with tqdm(
            total=self.num_images,
            initial=self.num_images - todo,
            disable=not progress or rank() > 0,
            file=sys.stderr,
            unit=" images",
            smoothing=0.1,
        ) as bar:

            def drawn(n: int) -> None:
                bar.update(min(n * world_size(), self.num_images - bar.n))  # the others are about as far

            try:
                in_turns(missing, lambda span: self._writing(lambda: self._draw_shard(span, drawn)))
            except UserError:
                # A chain exploded: nothing to keep, and a smaller step size is another recipe.
                self._on_main(lambda: None if self._kept() else self._clean_up())
                raise
        self._on_main(lambda: self._write(np.concatenate(self._shards()), time.perf_counter() - began))

    def _missing(self) -> list[range]:
        """The images that no shard holds, cut into shards; for several processes into smaller ones, so that they end together."""
        kept, gaps, start = self._kept(), [], 0
        while start < self.num_images:
            if start in kept:
                start += kept[start]
                continue
            stop = min([self.num_images, *(first for first in kept if first > start)])
            gaps.append(range(start, stop))
            start = stop
        share = -(-sum(map(len, gaps)) // (4 * world_size()))
        size = min(self.shard, -(-share // SAMPLE_BLOCK) * SAMPLE_BLOCK) if world_size() > 1 else self.shard
        return [gap[i : i + size] for gap in gaps for i in range(0, len(gap), size)]

    def _draw_shard(self, span: range, drawn: Callable[[int], None]) -> None:
        parts: dict[str, list[np.ndarray]] = {"images": []}
        for seeds, n in blocks(span):
            images, state = draw_images(self.model, seeds, self.sampling, self.chains)
            parts["images"].append(images[:n])
            if self.save_chains is not None:
                for name, part in zip(self._state_names(), state, strict=True):
                    parts.setdefault(name, []).append(part[:n].cpu().numpy())
            drawn(n)
        _write_npz(self._shard_path(span.start), {name: np.concatenate(arrays) for name, arrays in parts.items()})

    def _state_names(self) -> list[str]:
        return ["eps_x", *(f"eps_z_{i}" for i in range(len(self.model.state_shapes) - 1))]

    def _shard_path(self, start: int) -> Path:
        return self.unfinished / f"{start:09d}.npz"

    def _finished(self) -> bool:
        """Whether the target is there already. Raises: UserError when something else is."""
        there = self.target.exists() and not (self.target.is_dir() and not any(self.target.iterdir()))
        own = there and self._key_in(self.record) == self.key
        if there and not own:
            other = f"another recipe ({self._difference(self.record)})" if self.record.exists() else "something else"
            raise UserError(f"--to {self.target}: already holds {other}; choose another place or move it away")
        chains = self.save_chains
        if chains is not None and chains.exists():
            if str(_read_array(chains, "key")) != self.key:
                raise UserError(f"--save-chains {chains}: already holds something else; choose another place")
        elif own and chains is not None:
            raise UserError(f"--save-chains {chains}: {self.target} is finished but its chains are gone; move it away")
        return own

    def _open_unfinished(self) -> None:
        recipe = self.unfinished / "recipe.json"
        there = {path.name for path in self.unfinished.iterdir()} - {lock.FILE}
        if there and self._key_in(recipe) != self.key:
            raise UserError(
                f"--to {self.target}: {self.unfinished.name} holds an unfinished run of another recipe "
                f"({self._difference(recipe)}); repeat its command, choose another place or remove it"
            )
        if self.save_chains is not None:
            self.save_chains.parent.mkdir(parents=True, exist_ok=True)
        _write_json(recipe, {"key": self.key, "recipe": self.recipe})

    @staticmethod
    def _key_in(path: Path) -> str | None:
        try:
            return str(json.loads(path.read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _difference(self, path: Path) -> str:
        """Name the first setting in which the recipe of another run differs."""
        try:
            other = json.loads(path.read_text())["recipe"]
            flat = lambda nested: {**nested, **nested["chain"], "chain": None}
            mine, theirs = flat(self.recipe), flat(other)
            name = next(name for name in mine if mine[name] != theirs.get(name))
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            return f"{path.name} is not readable"
        return f"other {name}" if name in ("weights", "start") else f"{name} {theirs.get(name)}, now {mine[name]}"

    def _kept(self) -> dict[int, int]:
        """First image -> number of images of every shard that is whole."""
        shards = {int(path.stem): _read_array(path, "images") for path in self.unfinished.glob("[0-9]*.npz")}
        return {start: len(images) for start, images in shards.items() if images is not None and len(images)}

    def _shards(self, name: str = "images") -> list[np.ndarray]:
        """One array of all shards, from image 0 on.

        Raises:
            UserError: one has been damaged since it was written.
        """
        found: list[np.ndarray] = []
        while (start := sum(map(len, found))) < self.num_images:
            part = _read_array(self._shard_path(start), name)
            if part is None:
                raise UserError(f"{self._shard_path(start)}: damaged since it was written; repeat the command")
            found.append(part)
        return found

    def _write(self, images: np.ndarray, seconds: float) -> None:
        if self.save_chains is not None:
            joined = {name: np.concatenate(self._shards(name)) for name in self._state_names()}
            done = self.sampling.chain.steps + (self.chains.done if self.chains else 0)
            _write_npz(self.save_chains, {**joined, "done": np.array(done), "key": np.array(self.key)})
        record = {
            "key": self.key,
            "recipe": self.recipe,
            "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
            "shape": list(images.shape),
            "seconds": round(seconds, 1),  # of the process that finished it
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
        # The record first: a target without one could not be told from a stranger's file.
        _write_json(self.record, record)
        if self.to_folder:
            self._write_pngs(images)
        elif self.target.suffix == ".npz":
            _write_npz(self.target, {"images": images})
        else:
            _write_npy(self.target, images)

    def _write_pngs(self, images: np.ndarray) -> None:
        from PIL import Image

        folder = self.unfinished / "png"
        folder.mkdir(exist_ok=True)
        digits = max(6, len(str(len(images) - 1)))
        for i, image in enumerate(images):
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{i:0{digits}d}.png")
        os.replace(folder, self.target)

    def _clean_up(self) -> None:
        # The target is in place: what is left of its shards is only litter, and not worth an error.
        if self._key_in(self.unfinished / "recipe.json") == self.key:
            shutil.rmtree(self.unfinished, ignore_errors=True)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # given a path, numpy would append .npz to it
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def _write_npy(path: Path, array: np.ndarray) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, array)

    write_atomically(path, write)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_atomically(path, lambda partial: partial.write_text(json.dumps(values, indent=1) + "\n"))


def _read_array(path: Path, name: str) -> np.ndarray | None:
    """One array of a .npz; None where the file is missing or damaged or has no such array."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return file[name]
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None
