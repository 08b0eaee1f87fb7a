"""Inception-v3 with the weights that define FID, through clean-fid's blocks and resize functions; three heads from one forward pass.

features  (n, 2048)  mean over pixels of the last block: FID, KID, precision and recall
logits    (n, 1008)  without the last layer's bias, as the Inception score was defined with
spatial   (n, 2023)  17 x 17 pixels of the first 7 channels of Mixed_6d (``mixed_6/conv`` of the original graph), row by row: sFID

How an image comes to 299x299 and to [-1, 1] changes FID by whole points, so it is part of the protocol:

clean              Pillow bicubic, antialiased, without rounding to 8 bits; (x - 128) / 128
legacy_tensorflow  TensorFlow 1's bilinear, aliased, corners not aligned, pixel i at i * in/out; (x - 128) / 128
legacy_pytorch     torch's bilinear, aliased, pixel i at (i + 1/2) * in/out - 1/2; 2 x / 255 - 1

The weights are those of the TensorFlow graph inception-2015-12-05 as ported for pytorch-fid, one file for all three modes. clean-fid itself
takes another port of the same graph for the first two.

References: Heusel et al., GANs Trained by a Two Time-Scale Update Rule (NeurIPS 2017); Salimans et al., Improved Techniques for Training
GANs (NeurIPS 2016); Nash et al., Generating Images with Sparse Representations (ICML 2021); Parmar et al., On Aliased Resizing (CVPR 2022).
"""

import hashlib
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluators.features.extractor import Options
from evaluators.features.network import NetworkExtractor
from evaluators.protocols import Images
from vaebm.data.download import RemoteFile, cache_folder, fetch
from vaebm.data.messages import reason
from vaebm.data.unavailable import DataUnavailable
from vaebm.errors import UserError, did_you_mean

RESIZES = ("clean", "legacy_tensorflow", "legacy_pytorch")
SIDE = 299
SPATIAL_CHANNELS = 7
HEADS = {"features": 2048, "logits": 1008, "spatial": 17 * 17 * SPATIAL_CHANNELS}

# The file's name carries the first 8 digits of its sha256; the rest is as several projects that use it publish it.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = RemoteFile(
    "pt_inception-2015-12-05-6726825d.pth",
    f"sha256:{SHA256}",
    (
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
)


def load(name: str, options: Options) -> NetworkExtractor:
    """Load the network; with other weights than FID's it is called ``inception-<their hash>``, so that no number in them is called FID.

    Raises:
        UserError: the resize mode is unknown, or the file is not this network's.
        DataUnavailable: no weights are given and the known ones cannot be had.
    """
    if options.resize not in RESIZES:
        raise UserError(f"--resize: unknown mode {options.resize!r}.{did_you_mean(options.resize, RESIZES)}")
    path = find_weights(options)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network = read_network(path)
    return NetworkExtractor(
        name if sha256 == SHA256 else f"{name}-{sha256[:8]}",
        ThreeHeads(network, options.resize),
        Preparation(options.resize),
        HEADS,
        options,
        weights=sha256,
        resize=options.resize,
    )


def find_weights(options: Options) -> Path:
    """Return the file given with ``--weights``, or the known one: from the cache folder, else downloaded into it.

    Raises:
        DataUnavailable: it is nowhere; the line says which file from which address to put where.
        UserError: the given file is not there, or the cache folder cannot be written.
    """
    if options.weights is not None:
        if not options.weights.is_file():
            raise UserError(f"--weights {options.weights}: no such file")
        return options.weights
    folder = cache_folder() / "weights"
    kept = folder / FILE.name
    why = "downloads are off"
    if kept.is_file() or options.download:
        try:
            return fetch(FILE if options.download else RemoteFile(FILE.name, FILE.known_hash, ()), folder)
        except DataUnavailable as error:
            why = str(error) if options.download else f"{kept} is not the known file (its sha256 differs)"
    raise DataUnavailable(
        f"the Inception weights are not here ({why}): put {FILE.urls[0]} (sha256 {SHA256[:8]}...) into {folder}, "
        "give it with --weights FILE, or ask for features that are bundled"
    )


def read_network(path: Path) -> nn.Module:
    """Return the network with the state dict (``torch.save``) of a file, strictly.

    Raises:
        UserError: the file is no plain state dict, or not of this network.
    """
    needed = f"needed a state dict of the FID Inception, as {FILE.name} is"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"--weights {path}: cannot be read ({reason(error)}); {needed}") from None
    network = fid_inception()
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"--weights {path}: does not fit ({reason(error)}); {needed}") from None
    return network


def fid_inception() -> nn.Module:
    """Return torchvision's Inception-v3 with the blocks in which the network of FID differs, as clean-fid has them; weights not set."""
    from cleanfid.inception_pytorch import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import Inception3

    network = Inception3(num_classes=HEADS["logits"], aux_logits=False, init_weights=False)
    network.Mixed_5b = FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = FIDInceptionE_1(1280)
    network.Mixed_7c = FIDInceptionE_2(2048)
    return network


class ThreeHeads(nn.Module):
    """Images (n, 3, H, W) in 0..255, at 299x299 already or (legacy_tensorflow) of any size -> (features, logits, spatial)."""

    def __init__(self, network: nn.Module, resize: str) -> None:
        super().__init__()
        self.resize = resize
        stages = [module for name, module in network.named_children() if name not in ("AuxLogits", "dropout", "fc")]
        cut = 1 + next(i for i, stage in enumerate(stages) if stage is network.Mixed_6d)
        self.to_spatial, self.to_features = nn.Sequential(*stages[:cut]), nn.Sequential(*stages[cut:])
        self.fc = network.get_submodule("fc")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.resize == "legacy_tensorflow":
            x = resize_as_tensorflow1(x)
        x = 2 * (x / 255) - 1 if self.resize == "legacy_pytorch" else (x - 128) / 128
        middle = self.to_spatial(x)  # (n, 768, 17, 17)
        spatial = middle[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # 7 x 17 x 17 -> row by row
        features = self.to_features(middle).flatten(1)
        return features, nn.functional.linear(features, self.fc.get_parameter("weight")), spatial


def resize_as_tensorflow1(x: Tensor) -> Tensor:
    """Resize (n, C, H, W) to 299x299 as ``tf.image.resize_bilinear`` of TensorFlow 1 did: output pixel i lies at i * in/299."""
    for dim in (3, 2):
        n = x.shape[dim]
        position = torch.arange(SIDE, device=x.device, dtype=torch.float32) * (n / SIDE)
        low = position.long()
        shape = [-1 if d == dim else 1 for d in range(4)]
        weight = (position - low).to(x.dtype).view(shape)
        a, b = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp_max(n - 1))
        x = a + (b - a) * weight
    return x


class Preparation:
    """uint8 (n, H, W, C) -> float32 (n, 3, 299, 299) in 0..255, by clean-fid's function.

    Only legacy_tensorflow leaves the size to the network. Grey images get three equal channels.
    """

    def __init__(self, resize: str) -> None:
        from cleanfid.resize import build_resizer

        with warnings.catch_warnings():  # clean-fid's own "ignore everything" stays in here
            self.resizer: Callable[[NDArray], NDArray] = build_resizer(resize)
        self.pool = ThreadPoolExecutor()  # Pillow works outside Python's lock

    def __call__(self, images: Images) -> NDArray[np.float32]:
        if images.shape[3] == 1:
            images = images.repeat(3, axis=3)
        resized = np.stack(list(self.pool.map(self.resizer, images)))
        return np.ascontiguousarray(resized.transpose(0, 3, 1, 2), dtype=np.float32)
