"""``python -m vaebm toy``: train the VAE and the VAEBM of the 25 Gaussians; minutes on one CPU core.

The command line with its defaults makes the bundled weights. It writes ``vae-mini-gaussians25`` and ``vaebm-mini-gaussians25``
(``.safetensors`` with a ``.json`` card) into ``--out``.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentParser
from tqdm import tqdm

from vaebm.cli import parse, use_device
from vaebm.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    from vaebm.checkpoints.native import load_checkpoint
    from vaebm.lock import locked
    from vaebm.toy.checkpoints import load, save
    from vaebm.toy.train import EBMTraining, VAETraining, train_ebm, train_vae
    from vaebm.toy.vae import ToyVAE, VAEConfig
    from vaebm.toy.vaebm import ChainConfig, EnergyConfig

    parser = ArgumentParser(prog="python -m vaebm toy", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, batches and noise")
    parser.add_argument(
        "--vae-from", type=Path, default=None, help="a trained VAE (.safetensors): trains the VAEBM alone, on it"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--vae_model", type=VAEConfig, default=VAEConfig())
    parser.add_argument("--vae", type=VAETraining, default=VAETraining())
    parser.add_argument("--energy", type=EnergyConfig, default=EnergyConfig())
    parser.add_argument("--ebm", type=EBMTraining, default=EBMTraining())
    parser.add_argument(
        "--sampling", type=ChainConfig, default=ChainConfig(), help="chains that draw the VAEBM's samples"
    )
    options = parse(parser, arguments)
    use_device("cpu", options.threads)
    vae, made = (
        None,
        {"command": f"python -m vaebm toy --seed {options.seed}", "seed": options.seed, "vae": asdict(options.vae)},
    )  # stage 1, and what the cards say of the training
    if options.vae_from is not None:
        checkpoint = load_checkpoint(options.vae_from)
        given = load(checkpoint)
        if not isinstance(given, ToyVAE):
            raise UserError(f"--vae-from {options.vae_from}: holds a VAEBM, needed the weights of a VAE")
        vae = given
        made["vae"] = checkpoint.card["training"]["vae"]
    with locked(options.out, "--out"):
        paths = {name: options.out / f"{name}-mini-gaussians25.safetensors" for name in ("vae", "vaebm")}

        if vae is None:
            with _Stage("VAE", options.vae.steps, not options.no_progress) as stage:
                vae = train_vae(options.vae_model, options.vae, options.seed, stage.report)
            save(vae, paths["vae"], {**made, "minutes": stage.minutes})
            print(paths["vae"])
        with _Stage("VAEBM", options.ebm.steps, not options.no_progress) as stage:
            model = train_ebm(vae, options.energy, options.ebm, options.sampling, options.seed, stage.report)
        save(model, paths["vaebm"], {**made, "ebm": asdict(options.ebm), "minutes": stage.minutes})
        print(paths["vaebm"])
    return 0


class _Stage:
    """A progress bar on stderr, and the time."""

    def __init__(self, name: str, steps: int, progress: bool) -> None:
        self.bar = tqdm(total=steps, desc=name, unit="update", disable=not progress, file=sys.stderr)

    def __enter__(self) -> "_Stage":
        self.begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def minutes(self) -> float:
        return round((time.monotonic() - self.begin) / 60, 1)

    def report(self, step: int, values: dict[str, float]) -> None:
        """Show a step's numbers."""
        self.bar.update()
        if step % 100 == 0:
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
