"""What no checkpoint may ask for: networks and chains beyond all measure. Every limit is far above what is published."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vaebm.errors import UserError

MAX_SIZE = 2**16  # of a number in an architecture: widths, sides of images, steps of a noise schedule
MAX_STEPS = 2**20  # of a number in a recipe: steps of a chain
MAX_ENTRIES = 10_000  # of a list
MAX_DEPTH = 8
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye}


def check_numbers(architecture: Mapping[str, Any], sampling: Mapping[str, Any], origin: str) -> None:
    """Refuse what would take forever or fill the memory before any weight is looked at.

    Raises:
        UserError: a number is too large, NaN or infinite, a list too long, or a value nested too deep; it is named.
    """
    for part, values, most in (("architecture", architecture, MAX_SIZE), ("sampling", sampling, MAX_STEPS)):
        for name, value in _leaves(values, part, origin):
            if isinstance(value, int) and abs(value) > most:
                raise UserError(f"{origin}: {name} {str(value)[:40]}, needed at most {most:,}")
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{origin}: {name} {value}, needed a finite number")


def _leaves(value: Any, name: str, origin: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping | list | tuple):
        yield name, value
        return
    if depth > MAX_DEPTH or len(value) > MAX_ENTRIES:
        raise UserError(f"{origin}: {name} is nested deeper than {MAX_DEPTH} or longer than {MAX_ENTRIES:,}")
    items = value.items() if isinstance(value, Mapping) else ((f"[{i}]", entry) for i, entry in enumerate(value))
    for key, entry in items:
        yield from _leaves(entry, f"{name}.{str(key)[:40]}", origin, depth + 1)


@contextmanager
def at_most(tensors: int, origin: str) -> Iterator[None]:
    """Refuse to go on building a network that has far more parameters than ``tensors``, or of impossible shapes.

    Far more: where a few are missing, they are to be named, when the network stands.

    Raises:
        UserError: at the first parameter beyond twice as many and a hundred.
    """
    made, most = 0, 2 * tensors + 100

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal made
        made += parameter is not None
        if made > most:
            raise UserError(f"{origin}: the architecture of its card has more than {most} weights, its file {tensors}")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, OverflowError, MemoryError, ZeroDivisionError, RecursionError) as error:
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{origin}: its card describes no network ({why})") from None
    finally:
        hook.remove()


class Room(TorchFunctionMode):
    """Refuse tensors that would take more room than a network with such weights can need, before any of it is taken.

    The meta device would do as much; but its first use costs seconds of imports.

    Args:
        values: numbers in the file's weights.

    Raises:
        UserError: at the first tensor beyond sixteen times as many, and 2^24, all tensors that were made counted.
    """

    def __init__(self, values: int, origin: str) -> None:
        super().__init__()
        self.left, self.values, self.origin = 16 * values + 2**24, values, origin

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            given = args or (kwargs.get("size", ()),)
            size = [
                side for side in (given[0] if isinstance(given[0], list | tuple) else given) if isinstance(side, int)
            ]
            self.left -= math.prod(size) ** (2 if func is torch.eye and len(size) == 1 else 1)
            if self.left < 0:
                asked = f"a tensor of shape {tuple(size)}, its file holds {self.values:,} numbers"
                raise UserError(f"{self.origin}: the architecture of its card asks for {asked}")
        return func(*args, **kwargs)
