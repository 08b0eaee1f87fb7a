"""What the number K of importance samples changes: AUROC of the bound, its mean, and seconds per image, in one run.

python benchmarks/importance_samples.py --system nvae --num-images 500 --k 1,4,16
"""

import sys
import time
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from baselines.load import load_system
from evaluators.metrics.auroc import auroc_interval
from vaebm.cli import parse, run, use_device
from vaebm.data import DataUnavailable, load_images

SETS = ("svhn", "cifar10_interp", "cifar100", "celeba")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one Markdown row per K."""
    options = ArgumentParser(prog="importance_samples.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--system", type=str, default="nvae", help="nvae or vaebm")
    options.add_argument("--num-images", type=int, default=500)
    options.add_argument("--k", type=str, default="1,4,16", help="comma-separated numbers of samples")
    options.add_argument("--data-root", type=str, default=None)
    options.add_argument("--threads", type=int, default=1)
    given = parse(options, arguments)
    use_device("cpu", given.threads)
    sets = {}
    for name in SETS:
        try:
            sets[name] = load_images(name, n=given.num_images, size=(32, 32), data_root=given.data_root).images
        except DataUnavailable as reason:
            print(f"{name} left out: {reason}", file=sys.stderr)
    inside = load_images("cifar10", n=given.num_images, data_root=given.data_root).images
    print(f"{given.system}, {given.num_images} images per set\n")
    print("| K | mean log p(x) in nats | " + " | ".join(sets) + " | ms per image |")
    print("|---|---|" + "---|" * (len(sets) + 1))
    for k in map(int, given.k.split(",")):
        system = load_system(given.system, importance_samples=k)
        began = time.perf_counter()
        reference = system.score(inside)
        seconds = time.perf_counter() - began
        cells = []
        for images in sets.values():
            estimate = auroc_interval(reference, system.score(images))
            cells.append(f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
        print(
            f"| {k} | {reference.mean():.1f} | " + " | ".join(cells) + f" | {1000 * seconds / len(inside):.1f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
