"""Seconds of feature extraction beside the packages users have, on the same images and weights, in one run.

OMP_NUM_THREADS=1 python benchmarks/extraction.py                          # needs pip install -e .[peers]
OMP_NUM_THREADS=1 python benchmarks/extraction.py --only kept              # features found again in the store against extracting them
python benchmarks/extraction.py --device cuda --images 512 --batch-size 64 --threads 0

Inception has random weights, scaled so that signals keep their size: time does not depend on them, and the known ones are a download. Every
package takes 32x32 uint8 images from memory and resizes them its own way, ours as each of them does. Of clean-fid it is the resize and its
PyTorch network, since its scripted one is a download too. Rounds are interleaved, and the run fails unless features agree.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from peers import peer
from torch import Tensor, nn

from evaluators.features import load_extractor
from evaluators.features.inception import fid_inception
from evaluators.features.summary import summarise
from evaluators.protocols import Images
from vaebm.cli import parse, run, use_device
from vaebm.errors import UserError

Features = NDArray[np.floating]
Extract = Callable[[Images], Features]
TOLERANCE = 1e-4  # ||ours - theirs|| / ||theirs||
KEPT = "kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; fail when features disagree."""
    options = ArgumentParser(prog="extraction.py", exit_on_error=False, allow_abbrev=False)
    parts = (*PEERS, KEPT)
    options.add_argument("--only", type=str, default=",".join(parts), help=f"parts, of {', '.join(parts)}")
    options.add_argument("--images", type=int, default=16, help="through Inception, per round")
    options.add_argument("--kept-images", type=int, default=2000, help="through cifar10net, in the part kept")
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--repeats", type=int, default=6, help="rounds, after one that warms up")
    options.add_argument("--device", type=str, default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    given = parse(options, arguments)
    chosen = [part for part in given.only.split(",") if part]
    if unknown := [part for part in chosen if part not in parts]:
        raise UserError(f"--only {unknown[0]}: needed some of {', '.join(parts)}")
    if min(given.images, given.kept_images, given.batch_size, given.repeats) < 1:
        raise UserError("--images, --kept-images, --batch-size, --repeats: needed at least 1 of each")
    use_device(given.device, given.threads)
    rows = []
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "random.pth"
        if any(part in PEERS for part in chosen):
            torch.save(random_state(), weights)
        for part in chosen:
            rows.append(kept(given) if part == KEPT else beside(part, weights, given))
            print(as_line(rows[-1]), flush=True)
    if given.json is not None:
        write_json(given.json, {"comparisons": [row.to_json() for row in rows]})
    return 0


@dataclass(frozen=True)
class Peer:
    """A package's way from images to features.

    Attributes:
        resize: of ours that is the same.
        load: (file of weights, device, batch size) -> (images -> features).
    """

    resize: str
    load: Callable[[Path, str, int], Extract]


def torch_fidelity(weights: Path, device: str, size: int) -> Extract:
    """Its extractor takes bytes and resizes as TensorFlow 1 did."""
    module = peer("torch_fidelity.feature_extractor_inceptionv3")
    found = module.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
    network = found.to(device).eval()
    return in_batches(
        lambda x: network(x)[0], lambda images: torch.from_numpy(images).permute(0, 3, 1, 2), device, size
    )


def pytorch_fid(weights: Path, device: str, size: int) -> Extract:
    """Its network takes numbers from 0 to 1 and resizes as torch does."""
    module = peer("pytorch_fid.inception")
    with mock.patch.object(module, "load_state_dict_from_url", return_value=torch.load(weights)):
        network = module.InceptionV3([3]).to(device).eval()
    prepare = lambda images: torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return in_batches(lambda x: network(x)[0].flatten(1), prepare, device, size)


def clean_fid(weights: Path, device: str, size: int) -> Extract:
    """Its resize, by Pillow and image by image, then its port of the network in PyTorch."""
    resize = peer("cleanfid.resize").build_resizer("clean")
    module = peer("cleanfid.inception_pytorch")
    with mock.patch.object(module, "load_state_dict_from_url", return_value=torch.load(weights)):
        network = module.InceptionV3([3], resize_input=False, normalize_input=False).to(device).eval()
    prepare = lambda images: torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2)
    return in_batches(lambda x: network((x - 128) / 128)[0].flatten(1), prepare, device, size)


PEERS = {
    "torch-fidelity": Peer("legacy_tensorflow", torch_fidelity),
    "clean-fid": Peer("clean", clean_fid),
    "pytorch-fid": Peer("legacy_pytorch", pytorch_fid),
}


def in_batches(
    network: Callable[[Tensor], Tensor], prepare: Callable[[Images], Tensor], device: str, size: int
) -> Extract:
    """Take images through a network ``size`` at a time."""

    @torch.no_grad()
    def extract(images: Images) -> Features:
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([network(prepare(batch).to(device)).cpu().numpy() for batch in batches])

    return extract


def beside(name: str, weights: Path, given: Any) -> Comparison:
    """Compare with a package; where it is not installed, say so.

    Raises:
        RuntimeError: the features differ.
    """
    what = f"Inception features, {PEERS[name].resize} resize"
    try:
        theirs = PEERS[name].load(weights, given.device, given.batch_size)
    except UserError as reason:
        return Comparison.missing(what, name, str(reason))
    about: dict[str, Any] = {"weights": weights, "resize": PEERS[name].resize}
    extractor = load_extractor("inception", device=given.device, batch_size=given.batch_size, **about)
    images = pictures(given.images)
    ways: dict[str, Extract] = {"ours": lambda x: extractor.extract(x)["features"], name: theirs}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    apart = 0.0
    for k in range(given.repeats + 1):  # the first round warms up
        features = {}
        for way, extract in list(ways.items())[:: 1 if k % 2 else -1]:  # who comes first changes from round to round
            began = time.perf_counter()
            features[way] = extract(images)
            seconds[way].append(time.perf_counter() - began)
            print(f"round {k}, {what}, {way}: {seconds[way][-1]:.2f} s", file=sys.stderr, flush=True)
        difference = relative(features["ours"], features[name])
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{what}: ours differ from those of {name} by {difference} (allowed: {TOLERANCE})")
        apart = max(apart, difference)
    return Comparison.of(
        what,
        name,
        seconds["ours"][1:],
        seconds[name][1:],
        setting=f"{given.images} images of 32x32, batches of {given.batch_size}, {where(given)}",
        unchanged=f"features {apart:.0e} of their norm",
    )


def kept(given: Any) -> Comparison:
    """Compare features that the store holds with extracting them: cifar10net, and the moments that a metric takes.

    Raises:
        RuntimeError: the moments differ.
    """
    extractor, images = load_extractor("cifar10net", device=given.device), pictures(given.kept_images)
    seconds: dict[str, list[float]] = {"store": [], "extracted": []}
    extractor.extract(images[:100])
    for k in range(given.repeats):
        with TemporaryDirectory() as folder:
            moments = []
            for way in ("extracted", "store"):
                began = time.perf_counter()
                summary = summarise(images, extractor, keep_features=True, cache=Path(folder))
                seconds[way].append(time.perf_counter() - began)
                moments.append(summary.moments.statistics()[1:])
                print(f"round {k}, cifar10net, {way}: {seconds[way][-1]:.2f} s", file=sys.stderr, flush=True)
        if not all(np.array_equal(a, b) for a, b in zip(*moments, strict=True)):
            raise RuntimeError("moments of kept features differ from those of extracted ones")
    return Comparison.of(
        "cifar10net features from the store",
        "extracted anew",
        seconds["store"],
        seconds["extracted"],
        setting=f"{given.kept_images} images of 32x32, {where(given)}",
        unchanged="moments bit for bit the same",
    )


def pictures(n: int) -> Images:
    """Coarse blobs and fine noise, so that a resize has something to show."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (n, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return (0.7 * coarse + 0.3 * rng.uniform(0, 255, (n, 32, 32, 3))).astype(np.uint8)


@torch.no_grad()
def random_state() -> dict[str, Tensor]:
    """Weights of the network at random, by which its depth neither swallows nor blows up a signal."""
    generator = torch.Generator().manual_seed(0)
    network = fid_inception()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
    network.get_submodule("fc").get_parameter("bias").zero_()
    return network.state_dict()


def relative(a: Features, b: Features) -> float:
    """||a - b|| / ||b||."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def where(given: Any) -> str:
    """What computes."""
    if given.device.startswith("cuda"):
        return torch.cuda.get_device_name(given.device)
    return f"{torch.get_num_threads()} threads, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"


def as_line(row: Comparison) -> str:
    """One line of text."""
    if row.ratio is None:
        return f"{row.what}: not compared with {row.against}: {row.reason}"
    return (
        f"{row.what}: {row.ours:.3g} s, {row.against} {row.reference:.3g} s: {row.ratio:.3g} times faster "
        f"in {row.rounds} rounds; {row.unchanged} ({row.setting})"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
