"""``python -m evaluators.features.train``: train the bundled CIFAR-10 classifier.

SGD with Nesterov momentum, triangular rate, label smoothing; flips and shifts. Half an hour on one core; a killed run starts again.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from safetensors.torch import save as save_safetensors
from tqdm import tqdm

from evaluators.features.cifar10net import WEIGHTS, CIFAR10Net, augment
from vaebm.data import load_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write weights and card; print the test accuracy."""
    parser = ArgumentParser(prog="python -m evaluators.features.train")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-images", type=int, default=50_000, help="training images: the first ones")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    train = load_images("cifar10", split="train", n=options.num_images, data_root=options.data_root)
    test = load_images("cifar10", split="test", n=10_000, data_root=options.data_root)
    assert train.labels is not None
    assert test.labels is not None
    images = torch.from_numpy(train.images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(train.labels).long()
    net = CIFAR10Net().to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.dim() > 1]
    other = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=options.rate, momentum=0.9, nesterov=True)
    per_epoch = len(images) // options.batch_size
    total = options.epochs * per_epoch
    shape = lambda step: min((step + 1) / (0.2 * total), max(0.0, (total - step) / (0.8 * total)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
    began = time.perf_counter()
    bar = tqdm(total=total, file=sys.stderr, mininterval=5)
    for epoch in range(options.epochs):
        net.train()
        right = 0
        order = torch.randperm(len(images), generator=generator)[: per_epoch * options.batch_size]
        for chosen in order.split(options.batch_size):
            x = augment(images[chosen].float() / 255, generator).contiguous(memory_format=torch.channels_last)
            logits = net(x)[1]
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == labels[chosen]).sum())
            bar.update()
        accuracy = right / len(order)
        print(f"epoch {epoch + 1}: training accuracy {accuracy:.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    bar.close()
    accuracy = evaluate(net, test.images, test.labels)
    payload = save_safetensors(
        {name: value.half().contiguous() for name, value in net.state_dict().items() if value.dim()}
    )
    card = {
        "kind": "cifar10net",
        "features": net.linear.in_features,
        "test_accuracy": round(accuracy, 4),
        "test_images": len(test.images),
        "training": {
            **{key: options[key] for key in ("epochs", "batch_size", "rate", "seed")},
            "images": len(images),
            "command": "python -m evaluators.features.train",
        },
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (options.out, payload),
        (options.out.with_suffix(".json"), json.dumps(card, indent=1).encode() + b"\n"),
    ):
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content)
        os.replace(partial, path)
    print(f"test accuracy {accuracy:.4f} on {len(test.images)} images; wrote {options.out}")
    return 0


@torch.no_grad()
def evaluate(net: CIFAR10Net, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose largest logit is their label's."""
    net.eval()
    right = 0
    for start in range(0, len(images), 250):
        x = torch.from_numpy(images[start : start + 250].transpose(0, 3, 1, 2).copy()).float() / 255
        right += int((net(x)[1].argmax(1).numpy() == labels[start : start + 250]).sum())
    return right / len(images)


if __name__ == "__main__":
    raise SystemExit(main())
