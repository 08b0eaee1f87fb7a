"""``python -m evaluators.features.train cifar10net|mnistnet``: train a bundled classifier.

SGD with Nesterov momentum, triangular rate, label smoothing; mirrors and shifts. State is kept every epoch in ``WEIGHTS.training.pt``, from
which the same command continues after a kill.
"""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser, Namespace
from safetensors.torch import save as save_safetensors
from torch import Tensor
from tqdm import tqdm

from evaluators.features.classifiers import CLASSIFIERS, WEIGHTS, Classifier, Settings
from vaebm.atomic import write_atomically
from vaebm.data import load_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write weights and card; print the test accuracy."""
    parser = ArgumentParser(prog="python -m evaluators.features.train")
    parser.add_argument("name", choices=list(CLASSIFIERS))
    parser.add_argument("--out", type=Path, default=None, help="default: the bundled weights")
    parser.add_argument("--data-root", type=str, default=None, help="folder with data sets (default: $VAEBM_DATA)")
    parser.add_argument("--epochs", type=int, default=None, help="default: the classifier's own")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-images", type=int, default=60_000, help="training images: the first ones")
    parser.add_argument("--device", type=str, default="cpu")
    options = parser.parse_args(arguments)
    settings = CLASSIFIERS[options.name]
    options.out = options.out or WEIGHTS / f"{options.name}.safetensors"
    options.epochs = options.epochs or settings.epochs
    train = load_images(settings.dataset, split="train", n=options.num_images, data_root=options.data_root)
    test = load_images(settings.dataset, split="test", n=10_000, data_root=options.data_root)
    assert train.labels is not None
    assert test.labels is not None
    images = torch.from_numpy(train.images.transpose(0, 3, 1, 2).copy())
    net = fit(settings, images, torch.from_numpy(train.labels).long(), options)
    accuracy = evaluate(net, test.images, test.labels)
    payload = save_safetensors(
        {name: value.cpu().half().contiguous() for name, value in net.state_dict().items() if value.dim()}
    )
    card = {
        "kind": options.name,
        "features": net.linear.in_features,
        "test_accuracy": round(accuracy, 4),
        "test_images": len(test.images),
        "training": {
            **{key: options[key] for key in ("epochs", "batch_size", "rate", "seed")},
            "images": len(images),
            "command": f"python -m evaluators.features.train {options.name}",
        },
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, lambda partial: partial.write_bytes(payload))
    card_text = json.dumps(card, indent=1) + "\n"
    write_atomically(options.out.with_suffix(".json"), lambda partial: partial.write_text(card_text))
    state_path(options.out).unlink(missing_ok=True)
    print(f"test accuracy {accuracy:.4f} on {len(test.images)} images; wrote {options.out}")
    return 0


def fit(settings: Settings, images: Tensor, labels: Tensor, options: Namespace) -> Classifier:
    """Train from scratch, or on from the state that a killed run of the same options left.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """
    torch.manual_seed(options.seed)
    net = Classifier(settings).to(options.device).to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.dim() > 1]
    other = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=options.rate, momentum=0.9, nesterov=True)
    per_epoch = len(images) // options.batch_size
    total = options.epochs * per_epoch
    shape = lambda step: min((step + 1) / (0.2 * total), max(0.0, (total - step) / (0.8 * total)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
    recipe = json.dumps({key: options[key] for key in ("name", "epochs", "batch_size", "rate", "seed", "num_images")})
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    kept, first = state_path(options.out), 0
    if kept.is_file() and (state := torch.load(kept, weights_only=True))["recipe"] == recipe:
        first = state["epoch"]
        for key, part in parts.items():
            part.load_state_dict(state[key])  # type: ignore[attr-defined]
    bar = tqdm(total=total, initial=first * per_epoch, file=sys.stderr, mininterval=5)
    for epoch in range(first, options.epochs):
        began, right = time.perf_counter(), 0
        net.train()
        generator = torch.Generator().manual_seed(options.seed * 1000 + epoch)  # an epoch repeats alike after a kill
        order = torch.randperm(len(images), generator=generator)[: per_epoch * options.batch_size]
        for chosen in order.split(options.batch_size):
            x = augment(images[chosen].float() / 255, generator, settings.shift, mirrored=settings.mirrored)
            y = labels[chosen].to(options.device)
            logits = net(x.to(options.device).contiguous(memory_format=torch.channels_last))[1]
            loss = F.cross_entropy(logits, y, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == y).sum())
            bar.update()
        seconds = time.perf_counter() - began
        print(f"epoch {epoch + 1}: training accuracy {right / len(order):.4f}, {seconds:.0f} s", flush=True)
        state = {"recipe": recipe, "epoch": epoch + 1, **{key: part.state_dict() for key, part in parts.items()}}  # type: ignore[attr-defined]
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda partial: torch.save(state, partial))  # noqa: B023 (called at once)
    bar.close()
    return net


def state_path(weights: Path) -> Path:
    """Where an unfinished training is kept."""
    return weights.with_suffix(".training.pt")


def augment(x: Tensor, generator: torch.Generator, shift: int, *, mirrored: bool) -> Tensor:
    """Shift by up to ``shift`` pixels, reflected at the border, and mirror with probability 1/2, each image by itself."""
    n, _, h, w = x.shape
    if mirrored:
        x = torch.where((torch.rand(n, generator=generator) < 0.5)[:, None, None, None], x.flip(-1), x)
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    rows = torch.randint(2 * shift + 1, (n, 1), generator=generator) + torch.arange(h)
    columns = torch.randint(2 * shift + 1, (n, 1), generator=generator) + torch.arange(w)
    batch = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def evaluate(net: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose largest logit is their label's."""
    net.eval()
    device, right = net.linear.weight.device, 0
    for start in range(0, len(images), 250):
        x = torch.from_numpy(images[start : start + 250].transpose(0, 3, 1, 2).copy()).to(device).float() / 255
        right += int((net(x)[1].argmax(1).cpu().numpy() == labels[start : start + 250]).sum())
    return right / len(images)


if __name__ == "__main__":
    raise SystemExit(main())
