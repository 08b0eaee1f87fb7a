"""``python -m vaebm chains``: what a VAEBM's chains do, as a table, plots and a strip of images.

Several processes share out the chains under torchrun; no number depends on how many there are.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from vaebm import parallel
from vaebm.cli import parse, use_device
from vaebm.commands import in_each
from vaebm.commands.sample import add_chain_options, chain_settings
from vaebm.errors import UserError

if TYPE_CHECKING:
    from vaebm.checkpoints.models import LoadedModel
    from vaebm.model import VAEBM, ChainSettings

REFERENCE_IMAGES = 500
STRIP_CHAINS = 8


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    from vaebm.atomic import write_atomically
    from vaebm.diagnostics import diagnose, plot, strip
    from vaebm.lock import locked
    from vaebm.training.loop import save_grid

    parser = ArgumentParser(prog="python -m vaebm chains", exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", type=str, required=True, metavar="FILE[,EBM]", help="native, or official: checkpoint.pt,EBM.pth"
    )
    parser.add_argument("--num-images", type=int, default=64, help="chains")
    parser.add_argument("--seed", type=int, default=0, help="chain i is that of image i of 'sample' with this seed")
    add_chain_options(parser)
    parser.add_argument(
        "--dataset",
        type=str,
        default=None,
        help=f"{REFERENCE_IMAGES} test images of it are the reference; none without it",
    )
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for chains.csv, chains.json, chains.png, strip.png"
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    options = parse(parser, arguments)
    if options.num_images < 1:
        raise UserError(f"--num-images {options.num_images}: needed at least 1")
    device = str(parallel.start(options.device))
    use_device(device, options.threads)
    loaded, model, chain, reference = in_each(lambda: _loaded(options, device))
    with locked(options.out, "--out"):
        say = lambda text: print(text, file=sys.stderr) if parallel.rank() == 0 else None
        say(f"{options.num_images} chains of {chain.steps} steps")
        rows = diagnose(model, range(options.num_images), chain, seed=options.seed, reference=reference)
        record = {
            "weights": loaded.sha256,
            "chain": chain.to_json(),
            "seed": options.seed,
            "num_images": options.num_images,
            "dataset": None if reference is None else f"{options.dataset}, first {len(reference)} test images",
            "dimensions": sum(int(np.prod(shape)) for shape in model.state_shapes),
            "rows": rows,
        }
        if parallel.rank():
            return 0
        write_atomically(options.out / "chains.csv", lambda partial: _write_csv(partial, rows))
        write_atomically(
            options.out / "chains.json", lambda partial: partial.write_text(json.dumps(record, indent=1) + "\n")
        )
        title = f"{options.num_images} chains, step size {chain.step_size:g}, target {chain.target}"
        figure = plot(rows, title)
        write_atomically(options.out / "chains.png", lambda partial: figure.savefig(partial, format="png", dpi=110))
        images, shown = strip(model, range(min(STRIP_CHAINS, options.num_images)), chain, seed=options.seed)
        scale = max(1, 64 // images.shape[1])
        save_grid(images.repeat(scale, axis=1).repeat(scale, axis=2), options.out / "strip.png", columns=len(shown))
        say(f"strip.png: a chain per row, after {', '.join(map(str, shown))} steps")
        print(options.out)
    return 0


def _loaded(options: Namespace, device: str) -> tuple["LoadedModel", "VAEBM", "ChainSettings", np.ndarray | None]:
    """The checkpoint, its model as it is sampled, the chain, and images to compare with."""
    from vaebm.checkpoints.models import load_model
    from vaebm.sampling import on_device

    loaded = load_model(options.checkpoint)
    if not loaded.has_energy:
        raise UserError(f"--checkpoint {options.checkpoint}: an NVAE alone has no chains; needed that of a VAEBM")
    chain = chain_settings(loaded.recipe, options, has_energy=True)
    config, reference = loaded.model.nvae.config, None
    if options.dataset:
        reference = _reference(options.dataset, options.data_root, config.image_size, config.image_channels)
    return loaded, on_device(loaded.model, device), chain, reference


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _reference(dataset: str, data_root: str | None, image_size: int, image_channels: int) -> np.ndarray:
    """Return test images of the model's size, uint8 (n, H, W, C).

    Raises:
        UserError: there is no such data set here, or its images have another number of channels.
    """
    from vaebm.data import load_images

    images = load_images(dataset, n=REFERENCE_IMAGES, data_root=data_root, size=(image_size, image_size)).images
    if images.shape[-1] != image_channels:
        raise UserError(
            f"--dataset {dataset}: found images of {images.shape[-1]} channels, the model needs {image_channels}"
        )
    return images
