"""``python -m vaebm train vae|ebm``: train one stage of a setting and export it.

Several processes train together under torchrun, one per GPU or with gloo on the CPU; the batch size stays that of the whole::

    torchrun --nproc-per-node 8 -m vaebm train vae --config cifar10 --out runs/vae --device cuda --vae.precision bf16
"""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from vaebm.cli import find_config, parse, use_device
from vaebm.errors import UserError, did_you_mean

CONFIGS = Path(__file__).parents[1] / "configs"


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    from vaebm import parallel
    from vaebm.lock import locked
    from vaebm.training.stages import STAGES, Run, Settings, train

    if not arguments or arguments[0] not in STAGES:
        found = arguments[0] if arguments else "nothing"
        raise UserError(f"train: found {found!r}, needed a stage.{did_you_mean(found, STAGES)}")
    stage, *rest = arguments
    options = parse(_train_parser(stage), [_config_path(rest, i) for i in range(len(rest))])
    device = parallel.start(options.device)
    use_device(str(device), options.threads)
    first = parallel.rank() == 0
    settings = Settings(
        **{name: getattr(options, name) for name in ("dataset", "size", "validation")},
        **{name: options[name] for name in ("nvae", "vae", "vae_output", "energy", "ebm", "ebm_output")},
    )
    name = Path(options.config[0].relative).stem if options.config else settings.dataset
    with locked(options.out, "--out"):
        exported = train(
            stage,
            settings,
            Run(
                folder=options.out,
                name=f"{'nvae' if stage == 'vae' else 'vaebm'}-{name}",
                # Folders say nothing about the weights; everything else that was asked for does.
                command=f"python -m vaebm train {stage} " + " ".join(_without_folders(rest)),
                seed=options.seed,
                data_root=options.data_root,
                device=str(device),
                resume=options.resume,
                progress=not options.no_progress,
                vae=options.get("vae_from"),
            ),
        )
    if exported is None:
        return 130
    if first:
        print(exported)
    return 0


def _train_parser(stage: str) -> ArgumentParser:
    from vaebm.energy import EnergyConfig
    from vaebm.nvae import NVAEConfig
    from vaebm.training.ebm import EBMTraining
    from vaebm.training.stages import Output, Settings
    from vaebm.training.vae import VAETraining

    parser = ArgumentParser(
        prog=f"python -m vaebm train {stage}", exit_on_error=False, allow_abbrev=False, parser_mode="toml"
    )
    parser.add_argument("--config", action="config", help="a configuration of vaebm/configs by name, or a .toml file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    if stage == "ebm":
        parser.add_argument("--vae-from", type=Path, required=True, help="stage 1: its run folder or checkpoint")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, as if it had not stopped")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, batches and noise")
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    default = Settings()
    for name, kind in (("dataset", str), ("size", str), ("validation", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(default, name))
    for name, part in (
        ("nvae", NVAEConfig),
        ("vae", VAETraining),
        ("vae_output", Output),
        ("energy", EnergyConfig),
        ("ebm", EBMTraining),
        ("ebm_output", Output),
    ):
        parser.add_argument(f"--{name}", type=part, default=getattr(default, name))
    return parser


def _config_path(arguments: Sequence[str], i: int) -> str:
    """Argument ``i``, with the name of a configuration turned into its file."""
    if i and arguments[i - 1] == "--config":
        return str(find_config(arguments[i], CONFIGS))
    if arguments[i].startswith("--config="):
        return "--config=" + str(find_config(arguments[i].removeprefix("--config="), CONFIGS))
    return arguments[i]


def _without_folders(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        name = argument.split("=")[0]
        if skip:
            skip = False
        elif name in ("--out", "--data-root", "--vae-from", "--device", "--threads"):
            skip = "=" not in argument
        elif name not in ("--resume", "--no-progress"):
            kept.append(argument)
    return kept
