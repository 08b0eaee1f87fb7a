"""What every extractor that is a torch network shares: batches of one fixed size, exact arithmetic, numpy in and out."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluators.array_store import source_hash
from evaluators.features.extractor import Heads, Options, check_images
from evaluators.protocols import Images
from vaebm import parallel
from vaebm.arithmetic import exact_arithmetic
from vaebm.batching import fitting_size, is_out_of_memory
from vaebm.data.messages import reason
from vaebm.errors import UserError


class NetworkExtractor:
    """An ``Extractor`` (see there) around a torch network.

    Args:
        name: of the features.
        network: (n, C, H, W) -> a tensor (n, width) per head, in the order of ``heads``.
        prepare: uint8 (n, H, W, C) -> float32 (n, C, H, W), what the network takes; each image by itself.
        heads: head -> width.
        options: device, batch size (``"auto"``: chosen here, before anything is kept under it) and dtype.
        weights: sha256 of the weights.
        resize: how images come to the network's size.
        example: (H, W, C) of images that it takes.

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
        example: tuple[int, int, int] = (32, 32, 3),
    ) -> None:
        self.name = name
        self.dim = heads["features"]
        self.heads = tuple(heads)
        self.prepare = prepare
        self.dtype = getattr(torch, options.dtype)
        try:
            self.device = torch.device(options.device)
            self.network = network.to(self.device, self.dtype).eval().requires_grad_(False)
            # Measured to be faster on CPUs, with the same numbers to the last bits of float32; on GPUs it was not measured.
            self.layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
            self.network.to(memory_format=self.layout)
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without that device
            raise UserError(f"--device {options.device}: cannot be used ({reason(error)})") from None
        self.batch_size = self._fitting_size(example) if options.batch_size == "auto" else int(options.batch_size)
        self.protocol: dict[str, Any] = {"features": name, "weights": f"sha256:{weights[:8]}", "resize": resize}
        self.fingerprint: dict[str, Any] = {
            **self.protocol,
            "weights": weights,
            "batch_size": self.batch_size,
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
                    tensors = self._forward(x)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    # Not halved: the size is part of what the features are kept under.
                    raise UserError(
                        f"--batch-size {size}: {self.name} on {self.device} has no memory for it; take less, or auto"
                    ) from None
                assert all(t.dtype == self.dtype for t in tensors), "the network left the dtype it was given"
                parts.append([t[:real].cpu().numpy() for t in tensors])
        columns = zip(*parts, strict=True)
        return {head: np.concatenate(column) for head, column in zip(self.heads, columns, strict=True)}

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = self.network(x.to(self.device, self.dtype).contiguous(memory_format=self.layout))
        return out if isinstance(out, tuple) else (out,)

    @torch.no_grad()
    def _fitting_size(self, example: tuple[int, int, int]) -> int:
        """The same for all processes that share out the images: they keep features under it."""
        run = lambda n: self._forward(torch.from_numpy(self.prepare(np.zeros((n, *example), np.uint8))))
        with exact_arithmetic():
            return min(parallel.together(lambda: fitting_size(run, self.device)))


def hash_of_state(network: nn.Module) -> str:
    """sha256 of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()
