"""The model's own command line::

python -m vaebm train vae --config mini-cifar10 --out runs/vae
python -m vaebm train ebm --config mini-cifar10 --vae-from runs/vae --out runs/ebm --seed 0
python -m vaebm export runs/ebm --step 300 --to vaebm.safetensors
python -m vaebm export runs/ebm --select distance --to vaebm.safetensors
python -m vaebm convert checkpoint.pt,EBM.pth vaebm.safetensors
python -m vaebm info checkpoint.pt
python -m vaebm sample --checkpoint vaebm.safetensors --num-images 50000 --to samples.npz --device cuda
python -m vaebm chains --checkpoint vaebm.safetensors --steps 32 --dataset cifar10 --out results/chains
python -m vaebm likelihood --checkpoint nvae.safetensors --dataset cifar10 --importance-samples 100
python -m vaebm toy --out runs/toy
"""

if __name__ == "__main__":  # the imports below take a moment
    from vaebm.interrupts import watch

    watch()

import sys
from collections.abc import Sequence

from vaebm.cli import run
from vaebm.registry import Registry

VERBS = Registry(
    "command",
    {
        "train": "vaebm.commands.train:main",
        "export": "vaebm.commands.export:main",
        "sample": "vaebm.commands.sample:main",
        "chains": "vaebm.commands.chains:main",
        "convert": "vaebm.commands.convert:main",
        "info": "vaebm.commands.info:main",
        "likelihood": "vaebm.commands.likelihood:main",
        "toy": "vaebm.commands.toy:main",
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
