"""The model's own command line::

python -m vaebm train vae --config mini-cifar10 --out runs/vae
python -m vaebm train ebm --config mini-cifar10 --vae-from runs/vae --out runs/ebm --seed 0
python -m vaebm export runs/ebm --step 300 --to vaebm.safetensors
"""

import sys
from collections.abc import Sequence

from vaebm.cli import run
from vaebm.registry import Registry

VERBS = Registry(
    "command",
    {
        "train": "vaebm.commands.train:main",
        "export": "vaebm.commands.export:main",
    },
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Dispatch to a verb; see the module's docstring."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if given else 2
    verb, *rest = given
    return int(VERBS.load(verb)(rest))


if __name__ == "__main__":
    raise SystemExit(run(main))
