"""Train a baseline: ``python -m baselines train glow --config mini-cifar10 --out runs/glow``."""

if __name__ == "__main__":  # the imports below take a moment
    from vaebm.interrupts import watch

    watch()

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from baselines.training import TASKS
from vaebm.cli import run
from vaebm.errors import UserError, did_you_mean


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m baselines", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    train = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a baseline and export it as a checkpoint",
        description="Example: python -m baselines train glow --config mini-cifar10 --out runs/glow",
    )
    train.add_argument("kind", help="which system: " + ", ".join(TASKS))
    train.add_argument(
        "--config", required=True, metavar="NAME", help="bundled configuration (mini-cifar10) or a .toml file"
    )
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the run")
    train.add_argument(
        "--resume", action="store_true", help="continue the run in --out, exactly as if it had not stopped"
    )
    train.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise (default 0)")
    train.add_argument("--steps", type=int, metavar="N", help="updates, instead of the configured number")
    train.add_argument("--data-root", type=Path, metavar="DIR", help="where the data sets are")
    train.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    train.add_argument("--no-progress", action="store_true", help="no progress bar")
    return parser


def _train(options: argparse.Namespace) -> int:
    import torch

    from baselines.training.config import read_config
    from baselines.training.run import train
    from vaebm.data import load_images
    from vaebm.lock import locked

    config = read_config(options.kind, options.config)
    if options.steps is not None:
        if options.steps < 1:
            raise UserError(f"--steps {options.steps}: needed at least 1")
        config = replace(config, schedule=replace(config.schedule, steps=options.steps))
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {options.device}: not available ({str(error).splitlines()[0]})") from None
    data = load_images(config.dataset, split="train", data_root=options.data_root)
    # The card keeps the command without folders: they say nothing about the weights.
    command = f"python -m baselines train {options.kind} --config {Path(options.config).name} --seed {options.seed}"
    if options.steps is not None:
        command += f" --steps {options.steps}"
    with locked(options.out, "--out"):
        path = train(
            config,
            data.images,
            options.out,
            labels=data.labels,
            command=command,
            seed=options.seed,
            device=options.device,
            resume=options.resume,
            progress=not options.no_progress,
        )
    if path is None:  # interrupted, unless the guard stopped it with nothing healthy to export
        return 1 if (options.out / "stopped.txt").is_file() else 130
    print(path)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 when done, 1 when the run stopped without a result, 2 on a user's mistake, or a signal's code."""
    return run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        known = ["--" + name.replace("_", "-") for name in vars(options) if name not in ("verb", "kind")]
        raise UserError(f"unknown option {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    return _train(options)


if __name__ == "__main__":
    sys.exit(main())
