"""Statistics of training sets in the bundled feature spaces, so that distances to them need neither data nor network.

    python -m evaluators.features.references cifar10net cifar10 train

writes mean and covariance of the whole split, and the features of its first images (half precision) for the metrics that need single ones.
They are used only with the very weights that they were made with.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from evaluators.features.extractor import Extractor, load_extractor
from evaluators.features.summary import FeatureSummary, Statistics, summarise
from vaebm.atomic import write_atomically
from vaebm.data import load_images

FOLDER = Path(__file__).parent / "references"
FEATURES = 5000  # images whose features are kept


def bundled_reference(extractor: Extractor, dataset: str, split: str, folder: Path = FOLDER) -> FeatureSummary | None:
    """Return the bundled summary of a split; None where there is none, or one made with other weights."""
    path = folder / f"{extractor.name}-{dataset}-{split}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        card = json.loads(str(file["card"]))
        if card["weights"] != (extractor.fingerprint or {}).get("weights"):
            return None
        moments = Statistics(card["n"], file["mu"], file["cov"])
        features, shape = file["features"].astype(np.float32), tuple(card["image_shape"])
        return FeatureSummary(card["n"], moments, None, None, features, card["data"], shape)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the reference of one split."""
    parser = ArgumentParser(prog="python -m evaluators.features.references")
    parser.add_argument("extractor", type=str)
    parser.add_argument("dataset", type=str)
    parser.add_argument("split", choices=["train", "test"])
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--num-images", type=int, default=None, help="the first ones; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    extractor = load_extractor(options.extractor)
    images = load_images(options.dataset, split=options.split, n=options.num_images, data_root=options.data_root)
    summary = summarise(images.images, extractor, keep_features=True, name=images.name)
    assert summary.features is not None
    n, mu, cov = summary.moments.statistics()
    card: dict[str, Any] = {"n": n, "weights": (extractor.fingerprint or {})["weights"], "data": images.sha256}
    card["image_shape"] = images.images.shape[1:]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{extractor.name}-{options.dataset}-{options.split}.npz"
    features = summary.features[:FEATURES].astype(np.float16)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # numpy would add an ending of its own to a name
            np.savez_compressed(file, card=np.array(json.dumps(card)), mu=mu, cov=cov, features=features)

    write_atomically(path, write)
    print(f"wrote {path}: {n} images, features of {len(features)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
