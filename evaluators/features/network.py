"""What every extractor that is a torch network shares: batches of one fixed size, exact arithmetic, numpy in and out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluators.array_store import source_hash
from evaluators.features.extractor import Heads, Options, check_images
from evaluators.protocols import Images
from vaebm.data.messages import reason
from vaebm.errors import UserError


class NetworkExtractor:
    """An ``Extractor`` (see there) around a torch network.

    Args:
        name: of the features.
        network: (n, C, H, W) -> a tensor (n, width) per head, in the order of ``heads``.
        prepare: uint8 (n, H, W, C) -> float32 (n, C, H, W), what the network takes; each image by itself.
        heads: head -> width.
        options: device, batch size and dtype.
        weights: sha256 of the weights.
        resize: how images come to the network's size.

    Raises:
        UserError: the device is not there.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prepare: Callable[[Images], NDArray[np.float32]],
        heads: Mapping[str, int],
        options: Options,
        *,
        weights: str,
        resize: str,
    ) -> None:
        self.name = name
        self.dim = heads["features"]
        self.heads = tuple(heads)
        self.batch_size = options.batch_size
        self.prepare = prepare
        self.dtype = getattr(torch, options.dtype)
        try:
            self.device = torch.device(options.device)
            self.network = network.to(self.device, self.dtype).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without that device
            raise UserError(f"--device {options.device}: cannot be used ({reason(error)})") from None
        self.protocol: dict[str, Any] = {"features": name, "weights": f"sha256:{weights[:8]}", "resize": resize}
        self.fingerprint: dict[str, Any] = {
            **self.protocol,
            "weights": weights,
            "batch_size": options.batch_size,
            "dtype": options.dtype,
            "device": self.device.type,
            "torch": torch.__version__,
            "code": source_hash(Path(__file__).parent.glob("*.py")),
        }

    @torch.no_grad()
    def extract(self, images: Images) -> Heads:
        """See ``Extractor``; raises UserError also where a batch does not fit into the device's memory."""
        check_images(images, self.name)
        n, size = len(images), self.batch_size
        parts: list[list[NDArray[np.floating]]] = []
        with exact_arithmetic():
            for start in range(0, n, size):
                x = torch.from_numpy(self.prepare(images[start : start + size]))
                real = len(x)
                # Another batch size may take another kernel, and so other numbers: every batch has the same.
                x = torch.cat([x, x[-1:].expand(size - real, -1, -1, -1)]) if real < size else x
                try:
                    out = self.network(x.to(self.device, self.dtype))
                except torch.OutOfMemoryError:
                    raise UserError(
                        f"--batch-size {size}: {self.name} on {self.device} has no memory for it; take less"
                    ) from None
                tensors: tuple[Tensor, ...] = out if isinstance(out, tuple) else (out,)
                assert all(t.dtype == self.dtype for t in tensors), "the network left the dtype it was given"
                parts.append([t[:real].cpu().numpy() for t in tensors])
        columns = zip(*parts, strict=True)
        return {head: np.concatenate(column) for head, column in zip(self.heads, columns, strict=True)}


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Products of float32 in float32 (no TF32), convolutions by the same algorithm each time; what was set before is set again."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def hash_of_state(network: nn.Module) -> str:
    """sha256 of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()
