"""Samples of the bundled NVAE above those of the bundled VAEBM, from the same noise, not selected.

python benchmarks/sample_grid.py --to docs/samples.png
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser

from baselines.load import load_system
from vaebm.cli import parse, run
from vaebm.training.loop import save_grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the grid."""
    options = ArgumentParser(prog="sample_grid.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--to", type=Path, required=True, help="PNG to write")
    options.add_argument("--num", type=int, default=32, help="samples per system")
    given = parse(options, arguments)
    seeds = range(given.num)
    images = np.concatenate([load_system(name).sample(seeds) for name in ("nvae", "vaebm")])
    save_grid(images.repeat(2, axis=1).repeat(2, axis=2), given.to, columns=16)  # every pixel twice: readable on a page
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
