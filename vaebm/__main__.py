"""The model's own command line::

    python -m vaebm train vae --config mini-cifar10 --out runs/vae
    python -m vaebm train ebm --config mini-cifar10 --vae runs/vae --out runs/ebm --seed 0
    python -m vaebm export runs/ebm --step 300 --out vaebm.safetensors
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from vaebm.cli import find_config, parse, run
from vaebm.settings import Settings

CONFIGS = Path(__file__).parent / "configs"


def _parser(stage: str) -> ArgumentParser:
    parser = ArgumentParser(prog=f"python -m vaebm train {stage}", exit_on_error=False, parser_mode="toml", description=__doc__)
    parser.add_argument("--config", action="config", help="name of a configuration in vaebm/configs, or a .toml file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--vae", type=Path, required=stage == "ebm", help="stage 1: a run folder or a .safetensors checkpoint") if stage == "ebm" else None
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is random")
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_class_arguments(Settings, "settings", fail_untyped=True)
    return parser
