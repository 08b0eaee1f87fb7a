"""The two Langevin targets on one energy: what chains do to samples under the paper's density and under the released code's.

python benchmarks/langevin_targets.py                                        # the bundled VAEBM
python benchmarks/langevin_targets.py --checkpoint official=runs/ebm/vaebm.safetensors --num 1000 --grid docs/targets.png

Per number of steps: Frechet distances of decoder means to CIFAR-10 test images (features of the bundled classifier; and colours of a 4x4
grid), the mean energy in units of its spread over these images, and the sum of log sigma over all latents against the chains' start.
Chains of both targets start from the same noise and see the same noise.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser

from baselines.load import load_system
from evaluators.features import Extractor, load_extractor
from evaluators.metrics.frechet import frechet_distance_of_features
from vaebm.cli import named, parse, run
from vaebm.data import load_images
from vaebm.langevin import TARGETS
from vaebm.model import VAEBM, ChainSettings
from vaebm.training.batches import from_uint8, to_uint8
from vaebm.training.loop import save_grid
from vaebm.training.selection import reduce_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table and write the grid."""
    options = ArgumentParser(prog="langevin_targets.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--checkpoint", type=str, action="append", default=[], metavar="NAME=PATH", help="more models")
    options.add_argument("--num", type=int, default=500, help="samples per target; above 200 for the distance")
    options.add_argument("--steps", type=str, default="0,4,8,16,32", help="numbers of steps")
    options.add_argument("--grid", type=Path, default=None, help="PNG of the first samples: a row per target and steps")
    given = parse(options, arguments)
    ladder = [int(steps) for steps in given.steps.split(",")]
    models = {"bundled": load_system("vaebm")}
    models |= {name: load_system(name, Path(path)) for name, path in named("--checkpoint", given.checkpoint).items()}
    real = load_images("cifar10", n=2000, download=False).images
    extractor = load_extractor("cifar10net")
    references = (features(extractor, real), reduce_images(from_uint8(real)))
    rows, strips = [], []
    for name, system in models.items():
        model: VAEBM = system.model
        with torch.no_grad():
            energies = torch.cat([model.energy(part) for part in from_uint8(real).split(100)]).double()
        for target in TARGETS:
            chain = ChainSettings(max(ladder), system.chain.step_size, target)
            images, energy, log_sigma = sample(model, chain, ladder, given.num)
            for steps in ladder:
                distances = [
                    frechet_distance_of_features(found, reference)
                    for found, reference in zip(
                        (features(extractor, images[steps]), reduce_images(from_uint8(images[steps]))),
                        references,
                        strict=True,
                    )
                ]
                gap = (energy[steps].mean() - energies.mean()) / energies.std()
                drift = log_sigma[steps].mean() - log_sigma[0].mean()
                rows.append((name, system.recipe["target"], target, steps, *distances, float(gap), float(drift)))
                strips.append(images[steps][:16])
    print(f"{given.num} samples, 2000 test images; cifar10net {extractor.protocol['weights']}\n")
    print("| model | trained with | sampled with | steps | FD cifar10net | FD 4x4 | E - E(data), sd | sum log sigma |")
    print("|---|---|---|---|---|---|---|---|")
    for *words, net_fd, small_fd, gap, drift in rows:
        print(f"| {' | '.join(map(str, words))} | {net_fd:.2f} | {small_fd:.3f} | {gap:+.2f} | {drift:+.0f} |")
    if given.grid:
        save_grid(np.concatenate(strips).repeat(2, axis=1).repeat(2, axis=2), given.grid, columns=16)
    return 0


def features(extractor: Extractor, images: np.ndarray) -> np.ndarray:
    """Return the features (N, D) of uint8 images."""
    return extractor.extract(images)["features"]


def sample(
    model: VAEBM, chain: ChainSettings, ladder: Sequence[int], num: int, batch_size: int = 50
) -> tuple[dict[int, np.ndarray], dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """Return decoder means (uint8), energies and sums of log sigma of ``num`` chains after every number of steps on the ladder and 0."""
    images: dict[int, list[np.ndarray]] = {}
    energy: dict[int, list[torch.Tensor]] = {}
    log_sigma: dict[int, list[torch.Tensor]] = {}
    for start in range(0, num, batch_size):
        for steps, state in enumerate(model.trajectory(range(start, min(num, start + batch_size)), chain)):
            if steps and steps not in ladder:
                continue
            with torch.no_grad():
                _, decoded = model.decode(state)
                mean = decoded.distribution.mean.clamp(0, 1)
                # log N(eps) - log p(z(eps)) is the sum of log sigma.
                log_n = sum((-0.5 * part.square() - 0.5 * np.log(2 * np.pi)).flatten(1).sum(1) for part in state[1:])
                images.setdefault(steps, []).append(to_uint8(mean))
                energy.setdefault(steps, []).append(model.energy(mean).double())
                log_sigma.setdefault(steps, []).append((log_n - decoded.log_pz).double())
    return (
        {steps: np.concatenate(parts) for steps, parts in images.items()},
        {steps: torch.cat(parts) for steps, parts in energy.items()},
        {steps: torch.cat(parts) for steps, parts in log_sigma.items()},
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
