"""``python -m vaebm likelihood``: ELBO, importance-weighted bound and bits per dimension of an NVAE on a data set.

Several processes share out the batches under torchrun; no number depends on how many there are.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from vaebm import parallel
from vaebm.cli import parse, use_device
from vaebm.commands import in_each
from vaebm.errors import UserError

if TYPE_CHECKING:
    from vaebm.data import ImageSet
    from vaebm.nvae import NVAE, NVAEConfig
    from vaebm.nvae.likelihood import Likelihood


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = ArgumentParser(prog="python -m vaebm likelihood", exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="an NVAE: .safetensors, or checkpoint.pt of the released code"
    )
    parser.add_argument("--dataset", type=str, required=True, help="a data set by name, NAME=PATH or PATH")
    parser.add_argument("--split", type=str, default="test", help="test or train")
    parser.add_argument("--num-images", type=int, default=None, help="the first so many; all there are without it")
    parser.add_argument("--importance-samples", type=int, default=10, help="K of the importance-weighted bound")
    parser.add_argument("--batch-size", type=int, default=100, help="images at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the posterior's noise")
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    options = parse(parser, arguments)

    from vaebm.checkpoints.native import file_sha256

    device = str(parallel.start(options.device))
    use_device(device, options.threads)
    nvae, images = in_each(lambda: _nvae_and_images(options, device))
    found = _estimate(nvae, images.images, options)
    if parallel.rank():
        return 0
    report = {
        "checkpoint": options.checkpoint.name,
        "checkpoint_sha256": file_sha256(options.checkpoint),
        "likelihood": nvae.config.likelihood,
        "log_sigma_min": nvae.config.log_sigma_min if nvae.config.likelihood == "gaussian" else None,
        "dataset": images.name,
        "split": images.split,
        "source": images.source,
        "notes": list(images.notes),
        "images_sha256": images.sha256,
        "n": len(images),
        "seed": options.seed,
        **summarise(found, nvae.config),
    }
    print(json.dumps(report, indent=1) if options.json else render(report))
    return 0


def _nvae_and_images(options: Namespace, device: str) -> tuple["NVAE", "ImageSet"]:
    from vaebm.data import load_images

    nvae = load_nvae(options.checkpoint).to(device).eval()
    images = load_images(options.dataset, split=options.split, n=options.num_images, data_root=options.data_root)
    _check_size(options.dataset, images.images.shape[1:], nvae.config)
    if options.batch_size < 1:
        raise UserError(f"--batch-size {options.batch_size}: needed at least 1")
    return nvae, images


def _estimate(nvae: "NVAE", images: Any, options: Namespace) -> "Likelihood":
    """Estimate batch by batch, batch i in process i mod W: an image is always among the same others."""
    import numpy as np
    from tqdm import tqdm

    from vaebm.nvae.likelihood import Likelihood, estimate

    starts = range(0, len(images), options.batch_size)
    shown = not options.no_progress and parallel.rank() == 0
    with tqdm(total=len(starts), unit="batch", disable=not shown, file=sys.stderr) as bar:

        def one(start: int) -> Likelihood:
            part = images[start : start + options.batch_size]
            found = estimate(nvae, part, options.importance_samples, options.seed, options.batch_size)
            bar.update(min(parallel.world_size(), len(starts) - bar.n))  # the others are about as far
            return found

        parts = parallel.in_turns(starts, one)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("log_px", "kl_per_group", "bound")
    }
    return Likelihood(**joined, importance_samples=options.importance_samples)


def load_nvae(path: Path) -> "NVAE":
    """Read an NVAE from a native checkpoint or from ``checkpoint.pt`` of the released code.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    from vaebm.checkpoints import load_checkpoint
    from vaebm.checkpoints.models import build_nvae
    from vaebm.nvae import NVAE

    flag = f"--checkpoint {path}"
    if not path.is_file():
        raise UserError(f"{flag}: no such file")
    if path.suffix != ".safetensors":
        from vaebm.checkpoints import load_official

        model = load_official(path)
        if not isinstance(model, NVAE):
            raise UserError(f"{flag}: holds an energy network, needed an NVAE (checkpoint.pt)")
        return model
    checkpoint = load_checkpoint(path)
    if checkpoint.kind == "vaebm":
        raise UserError(
            f"{flag}: log Z of a VAEBM is unknown, so it has no likelihood; give its NVAE, {checkpoint.card['nvae']['file']}"
        )
    if checkpoint.kind != "nvae":
        raise UserError(f"{flag}: found a checkpoint of kind {checkpoint.kind!r}, needed 'nvae'")
    return build_nvae(checkpoint, flag)


def summarise(found: "Likelihood", config: "NVAEConfig") -> dict[str, Any]:
    """Return means with their standard errors, ready for JSON: nats, and bits per dimension by what they are of."""
    from vaebm.nvae.likelihood import bits_per_dim, dimensions, mean_and_error

    def entry(values: Any) -> dict[str, float | None]:
        mean, error = mean_and_error(values)
        return {"mean": mean, "standard_error": None if math.isnan(error) else error}

    bounds = {"elbo": found.elbo, "bound": found.bound}
    nats = {name: entry(values) for name, values in bounds.items()}
    per_bit = dimensions(config) * math.log(2)
    bits = [
        {"of": name, "label": label, "mean": value, "standard_error": error and error / per_bit}
        for name, error in ((name, nats[name]["standard_error"]) for name in bounds)
        for label, value in bits_per_dim(float(bounds[name].mean()), config).items()
    ]
    return {
        "dimensions": dimensions(config),
        "importance_samples": found.importance_samples,
        "nats": {**nats, "log_px": entry(found.log_px), "kl": entry(found.kl_per_group.sum(1))},
        "kl_per_group": [
            {"shape": list(shape), **entry(values)}
            for shape, values in zip(config.latent_shapes, found.kl_per_group.T, strict=True)
        ],
        "bits_per_dim": bits,
    }


def render(report: dict[str, Any]) -> str:
    """Lay the report out for a terminal."""
    names = {
        "elbo": "ELBO",
        "bound": f"importance-weighted bound, K = {report['importance_samples']}",
        "log_px": "log p(x | z)",
        "kl": "KL(q || p), all groups",
    }
    nats = [(names[key], entry) for key, entry in report["nats"].items()]
    for number, entry in enumerate(report["kl_per_group"], start=1):
        shape = "x".join(map(str, entry["shape"]))
        nats.append((f"  KL, group {number} ({shape})", entry))
    clamp = report["log_sigma_min"]
    clamped = f", its density taken with log sigma >= {clamp:g}" if clamp is not None else ""
    split = f" ({report['split']})" if report["split"] else ""
    lines = [
        f"{report['checkpoint']}: {report['likelihood']} decoder, {report['dimensions']} dimensions{clamped}",
        f"{report['dataset']}{split}: {report['n']} images, {report['source']}",
        *(f"  {note}" for note in report["notes"]),
        "",
        f"{'nats per image':<44}{'mean':>12}{'std. error':>12}",
        *(_row(label, entry, 2) for label, entry in nats),
        "",
        f"{'bits per dimension':<44}{'mean':>12}{'std. error':>12}",
    ]
    for label in dict.fromkeys(entry["label"] for entry in report["bits_per_dim"]):
        lines.append(label)
        lines += [_row(f"  {names[e['of']]}", e, 4) for e in report["bits_per_dim"] if e["label"] == label]
    return "\n".join(lines)


def _row(label: str, entry: dict[str, Any], digits: int) -> str:
    error = entry["standard_error"]
    return f"{label:<44}{entry['mean']:>12.{digits}f}{'-' if error is None else f'{error:.{digits}f}':>12}"


def _check_size(dataset: str, found: tuple[int, ...], config: "NVAEConfig") -> None:
    needed = (config.image_size, config.image_size, config.image_channels)
    if tuple(found) != needed:
        hint = "; mnist32 is MNIST padded to 32x32" if (dataset, needed) == ("mnist", (32, 32, 1)) else ""
        show = lambda shape: "x".join(map(str, shape))
        raise UserError(f"--dataset {dataset}: found {show(found)} images, the model needs {show(needed)}{hint}")
