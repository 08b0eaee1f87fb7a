"""``python -m vaebm export``: a kept update of a run as a native checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from vaebm.cli import parse


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    from vaebm.training.selection import SAMPLES, SELECTS
    from vaebm.training.stages import export

    parser = ArgumentParser(prog="python -m vaebm export", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--step", type=int, default=None, help="a kept update, instead of a rule")
    parser.add_argument(
        "--select",
        choices=SELECTS,
        default=SELECTS[0],
        help="the update: the newest state; the newest that the guard holds for healthy; of all healthy ones the one "
        "whose samples are nearest to held-out images",
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples per candidate for that distance")
    parser.add_argument(
        "--to", type=Path, required=True, help="the .safetensors file to write; its card lies beside it"
    )
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    options: Namespace = parse(parser, arguments)
    print(
        export(
            options.run,
            options.to,
            step=options.step,
            select=options.select,
            samples=options.samples,
            data_root=options.data_root,
        )
    )
    return 0
