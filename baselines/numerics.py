"""In which arithmetic a system computes, whether its networks are compiled, and how many images it draws together.

``float32`` is float32, on GPUs too. In ``bfloat16`` and ``float16`` the networks' products are taken in that type (torch's autocast); what
networks end in, energies, logits and parameters of densities, and all sums over pixels stay in float32 or float64. In ``tf32`` a GPU keeps
10 bits of the factors of float32 products.

Compilation (torch.compile) fuses what lies between two products. Each network, or each cell of an NVAE, is compiled by itself and for the
shapes that it meets, never for any shape: a graph for all sizes could round a sample otherwise than the one for its own. On CPUs only
scores run through compiled networks: chains gain nothing there, or lose (``benchmarks/numerics.py``).
"""

import copy
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map

from vaebm import parallel
from vaebm.arithmetic import exact, tf32_arithmetic
from vaebm.batching import fitting_size
from vaebm.errors import UserError, did_you_mean

DTYPES = ("float32", "bfloat16", "float16", "tf32")
SAMPLE_BATCHES = (16, 256)  # of --sample-batch auto
_GRAPHS = 4096  # compiled per function of torch's, at most; its own limit is 8, beyond which it computes uncompiled

Network = TypeVar("Network", bound=nn.Module)
T = TypeVar("T")


def apply(system: Any, *, dtype: str = "float32", compile: bool = False, sample_batch: int | str = 16) -> None:
    """Let ``system`` compute in ``dtype``, through compiled networks where ``compile`` says so; its fingerprint names either.

    Args:
        system: a :class:`baselines.common.Adapter`.
        dtype: one of :data:`DTYPES`.
        sample_batch: images drawn together; ``"auto"``: the largest power of two from 16 to 256 that the device has memory for.

    Raises:
        UserError: the dtype or the number is out of range, the device cannot compute in the dtype, or nothing can be compiled here.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: unknown.{did_you_mean(dtype, DTYPES)}")
    if sample_batch != "auto" and not (isinstance(sample_batch, int) and sample_batch >= 1):
        raise UserError(f"--sample-batch {sample_batch}: needed at least 1, or auto")
    if torch.device(system.device).type == "cuda":
        exact()
    if dtype != "float32":
        check_dtype(dtype, system.device)
    if compile and not system.compiled:
        check_compiler()
        compiled(system.whole)
        system.__dict__.pop("sampler", None)  # a copy that is not
    system.dtype, system.compiled = dtype, compile
    system.fingerprint |= system.arithmetic_facts
    system.sample_batch = fitting_sample_batch(system) if sample_batch == "auto" else sample_batch
    if sample_batch == "auto" and parallel.rank() == 0:
        print(f"note: --sample-batch auto: {system.kind} draws {system.sample_batch} images together", file=sys.stderr)


# dtype


@contextmanager
def computing(system: Any, *, samples: bool) -> Iterator[None]:
    """The context in which the networks of ``system`` compute scores, or samples.

    Raises:
        UserError: a network cannot be compiled.
    """
    with ExitStack() as entered:
        entered.enter_context(arithmetic(system.dtype, system.device))
        if system.compiled:
            entered.enter_context(translated(system.kind))
            if samples and torch.device(system.device).type == "cpu":
                entered.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def arithmetic(dtype: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """Return the context in which networks on ``device`` compute in ``dtype``."""
    if dtype == "float32":
        return nullcontext()
    if dtype == "tf32":
        return tf32_arithmetic()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))


def check_dtype(dtype: str, device: torch.device | str) -> None:
    """Raise UserError where ``device`` cannot compute in ``dtype``: a convolution and a product are tried, with their gradients."""
    device = torch.device(device)
    if dtype == "tf32":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
            raise UserError(f"--dtype tf32: {device} has none, only GPUs from Ampere on do; take float32 (--device)")
        return
    try:
        with arithmetic(dtype, device), torch.enable_grad():
            x = torch.ones(1, 4, 4, 4, device=device, requires_grad=True)
            y = F.linear(
                F.conv2d(x, torch.ones(4, 4, 3, 3, device=device)).flatten(1), torch.ones(4, 16, device=device)
            )
            torch.autograd.grad(y.float().sum(), x)
        came = str(y.dtype).removeprefix("torch.")
    except RuntimeError as error:
        came = str(error).partition("\n")[0]
    if came != dtype:
        raise UserError(f"--dtype {dtype}: {device} cannot compute in it ({came}); take float32")


# compile


def compiled(network: Network) -> Network:
    """Compile, in place, every part of ``network`` that is called as a function, and return it. A copy of it is not compiled."""
    if isinstance(network, nn.ModuleList) or type(network).forward is nn.Module.forward:
        for part in network.children():
            compiled(part)
    else:
        network.compile(dynamic=False)
    return network


def check_compiler() -> None:
    """Raise UserError where torch cannot compile, for want of a C++ compiler or otherwise."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no CUDA is no news
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = _GRAPHS
    with translated("a first function"):
        torch.compile(lambda x: (x + 1).relu(), dynamic=False)(torch.zeros(8))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn a failure to compile ``what`` into a UserError."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"--compile: torch cannot compile {what} here ({said}); leave --compile out") from None


def of_few_sizes(function: Callable[[np.ndarray], T], size: int) -> Callable[[np.ndarray], T]:
    """Show ``function`` batches of ``size`` images, of a half, a quarter, ... of that and of no other size: each is compiled anew.

    A batch is filled up to the next of these sizes and what comes of it cut.
    """

    def filled(images: np.ndarray) -> T:
        n, full = len(images), size
        while full // 2 >= n:
            full //= 2
        found = function(np.concatenate([images, images[-1:].repeat(full - n, axis=0)]) if n < full else images)
        return tree_map(lambda values: values[:n], found)

    return filled


# sample batch


def fitting_sample_batch(system: Any) -> int:
    """Return the largest power of two of :data:`SAMPLE_BATCHES` that there is memory to draw together."""
    if not hasattr(system, "sample"):
        return SAMPLE_BATCHES[0]
    least, most = SAMPLE_BATCHES
    run = lambda n: _short(system, n)(range(n))
    # The same for all processes that share out the images: they are kept under it.
    return min(parallel.together(lambda: fitting_size(run, system.device, least=least, most=most)))


def _short(system: Any, n: int) -> Callable[[Sequence[int]], Any]:
    """What draws blocks of ``n`` images as ``system`` does, with as much memory but, where it runs a chain, fewer steps."""
    if system.recipe.get("steps", 0) > 1 and not hasattr(system, "sample_part"):
        system = system.with_recipe(steps=1)
    system = copy.copy(system)
    system.sample_batch = n
    return (lambda seeds: system.sample_part(seeds, 1)) if hasattr(system, "sample_part") else system.sample
