"""``python -m vaebm sample``: images of a model, as one array or as PNGs.

Several processes share them out under torchrun; no byte depends on how many there are::

    torchrun --nproc-per-node 8 --max-restarts 3 -m vaebm sample --checkpoint vaebm.safetensors --to samples.npz --device cuda
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from vaebm import parallel
from vaebm.cli import parse, use_device
from vaebm.commands import in_each
from vaebm.errors import UserError

if TYPE_CHECKING:
    from vaebm.sampling import SamplingRun


def add_chain_options(parser: ArgumentParser) -> None:
    """Add the options that override a checkpoint's recipe for its chains."""
    parser.add_argument("--steps", type=int, default=None, help="Langevin steps (default: the checkpoint's)")
    parser.add_argument("--step-size", type=float, default=None, help="eta (default: the checkpoint's)")
    parser.add_argument("--target", type=str, default=None, help="paper or official (default: the checkpoint's)")
    parser.add_argument(
        "--temperature", type=float, default=None, help="of the prior (default: the checkpoint's, or 1)"
    )
    parser.add_argument("--metropolis", action="store_true", help="accept or refuse each step (MALA)")


def chain_settings(recipe: Mapping[str, Any], options: Namespace, *, has_energy: bool) -> Any:
    """Return the chain of a checkpoint's recipe with the command line's changes.

    Raises:
        UserError: steps without an energy network, or a value that no chain can have.
    """
    from vaebm.model import ChainSettings

    names = ("steps", "step_size", "target", "temperature")
    given = {name: options[name] for name in names if options[name] is not None}
    if options.metropolis:
        given["metropolis"] = True
    if not has_energy:
        if given.get("steps"):
            raise UserError(
                f"--steps {given['steps']}: --checkpoint names an NVAE alone, which has no energy; needed that of a VAEBM"
            )
        given["steps"] = 0
    try:
        return ChainSettings.from_json({**recipe, **given})
    except ValueError as error:
        raise UserError(f"{error} (--steps, --step-size, --target, --temperature)") from None


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = ArgumentParser(prog="python -m vaebm sample", exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", type=str, required=True, metavar="FILE[,EBM]", help="native, or official: checkpoint.pt,EBM.pth"
    )
    parser.add_argument("--num-images", type=int, default=64, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="image i is a function of it and of i")
    add_chain_options(parser)
    parser.add_argument(
        "--output", type=str, default=None, help="mean or sample of the decoder (default: the checkpoint's)"
    )
    parser.add_argument("--postprocess", type=str, default=None, help="clamp (default) or minmax_per_image")
    parser.add_argument("--to", type=str, required=True, help="samples.npz, samples.npy, or FOLDER/ for PNGs")
    parser.add_argument(
        "--start-from",
        type=Path,
        default=None,
        help="continue chains: a file of --save-chains, or a run's checkpoint.pt",
    )
    parser.add_argument("--save-chains", type=Path, default=None, help="keep the chains' last states in this .npz")
    parser.add_argument("--batch-size", type=int, default=64, help="images between two saves; changes no image")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    options = parse(parser, arguments)
    device = str(parallel.start(options.device))
    use_device(device, options.threads)
    path = in_each(lambda: _sampling_run(options, device)).run(progress=not options.no_progress)
    if parallel.rank() == 0:
        print(path)
    return 0


def _sampling_run(options: Namespace, device: str) -> "SamplingRun":
    from vaebm.checkpoints.models import load_model
    from vaebm.sampling import Sampling, SamplingRun, on_device, read_chains

    loaded = load_model(options.checkpoint)
    sampling = Sampling(
        chain=chain_settings(loaded.recipe, options, has_energy=loaded.has_energy),
        output=options.output or loaded.recipe.get("output", "mean"),
        postprocess=options.postprocess or loaded.recipe.get("postprocess", "clamp"),
        seed=options.seed,
    )
    model = on_device(loaded.model, device)
    return SamplingRun(
        options.to,
        model,
        sampling,
        options.num_images,
        weights=loaded.sha256,
        batch_size=options.batch_size,
        chains=read_chains(options.start_from, model) if options.start_from else None,
        save_chains=options.save_chains,
    )
