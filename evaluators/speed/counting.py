"""How often a network is evaluated, counted by hooks while it works.

A network may be entered by other doors than ``forward``, call some of its parts alone or share them, so what is counted are its smallest
parts: every module that holds parameters of its own (with those of its parametrisations). One evaluation of the network calls each of
them once; where parts are called differently often, the evaluations are the mean of their calls, weighted by their parameters. Parts that
are never called, like the encoder of a VAE that samples, do not count. A gradient evaluation is a gradient that reaches a part's output.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluations:
    """Of one network.

    Attributes:
        forward, backward: evaluations and gradient evaluations.
        share: of the network's parameters, those in parts that were called; 0: it is not used through modules.
        calls: fewest and most calls of such a part.
    """

    forward: float
    backward: float
    share: float
    calls: tuple[int, int]


@dataclass
class _Part:
    """A module with parameters: how many these are, and how often it was called and had a gradient."""

    parameters: int
    forward: int = 0
    backward: int = 0

    def called(self, module: Any, inputs: Any, output: Any) -> None:
        self.forward += 1
        tensor = next(_tensors(output), None)
        if tensor is not None and tensor.requires_grad:
            tensor.register_hook(self.differentiated)

    def differentiated(self, gradient: Any) -> None:
        self.backward += 1


@dataclass
class Counter:
    """What :func:`counting` counts; read it at any time."""

    parts: dict[str, list[_Part]] = field(default_factory=dict)

    def evaluations(self) -> dict[str, Evaluations]:
        """Return what was counted so far, per network."""
        return {name: _summary(parts) for name, parts in self.parts.items()}


@contextmanager
def counting(networks: Mapping[str, Any]) -> Iterator[Counter]:
    """Count evaluations of torch modules, by name, while the block runs; compiled ones run as written, where hooks see them."""
    import torch

    counter = Counter()
    with ExitStack() as undo:
        for name, network in networks.items():
            counter.parts[name] = []
            for module in _holders(network):
                part = _Part(_parameters(module))
                counter.parts[name].append(part)
                undo.callback(module.register_forward_hook(part.called).remove)
        undo.enter_context(torch.compiler.set_stance("force_eager"))
        yield counter


def _holders(network: Any) -> Iterator[Any]:
    """Yield the modules that hold parameters, each once; a parametrisation belongs to the module that it parametrises."""
    inside = {part for module in network.modules() for part in getattr(module, "parametrizations", {}).values()}
    hidden = {module for part in inside for module in part.modules()}
    return (module for module in network.modules() if module not in hidden and _parameters(module))


def _parameters(module: Any) -> int:
    own = [*module.parameters(recurse=False)]
    for part in getattr(module, "parametrizations", {}).values():
        own += part.parameters()
    return sum(parameter.numel() for parameter in own)


def _tensors(output: Any) -> Iterator[Any]:
    if hasattr(output, "requires_grad"):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _summary(parts: list[_Part]) -> Evaluations:
    used = [part for part in parts if part.forward]
    differentiated = [part for part in used if part.backward]
    total, weight = sum(part.parameters for part in parts), sum(part.parameters for part in used)
    if not used:
        return Evaluations(0.0, 0.0, 0.0, (0, 0))
    forward = sum(part.parameters * part.forward for part in used) / weight
    # The first layers before any noise enters have no gradient: they are the same for every state of a chain.
    steep = sum(part.parameters for part in differentiated)
    backward = sum(part.parameters * part.backward for part in differentiated) / steep if steep else 0.0
    calls = [part.forward for part in used]
    return Evaluations(forward, backward, weight / total, (min(calls), max(calls)))
