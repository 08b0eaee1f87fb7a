"""Time and memory of a Langevin step: straightforward, with gradients for eps alone, and on frozen networks, in one run.

python benchmarks/langevin.py --batch-size 2                                    # CIFAR-10 setting at full size, random weights, CPU
python benchmarks/langevin.py --device cuda --batch-size 64 --repeats 20        # the same on a GPU, where the step is captured as well
python benchmarks/langevin.py --config mini --batch-size 16                     # the bundled VAEBM

Straightforward: weight norm recomputed, BatchNorm on its own, contiguous layout, a backward pass that gives gradients to all weights too.
Frozen: vaebm.frozen.freeze and gradients for eps alone. Rounds are interleaved, every step sees the same noise, and the run fails unless
states and gradients agree to 1e-4 at its end. Memory on a CPU is the peak of a process that makes one step, with its weights; at 64 images
it is measured if 64 is among --memory, else the straight line through the sizes that are.
"""

import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import Comparison, write_json
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from baselines.load import read_card
from vaebm.checkpoints import load_checkpoint
from vaebm.checkpoints.models import build_vaebm
from vaebm.cli import parse, run, use_device
from vaebm.energy import ENERGIES, EnergyNetwork, data_dependent_init
from vaebm.errors import UserError
from vaebm.frozen import capture, freeze
from vaebm.langevin import value_and_gradient
from vaebm.model import VAEBM
from vaebm.nvae import NVAE, NVAEConfig
from vaebm.nvae.cells import DecoderCombiner

State = Sequence[Tensor]
Gradient = Callable[[State], Sequence[Tensor]]  # dU / d state
STEP_SIZE = 8e-5
TOLERANCE = 1e-4
IMAGES = 64  # the batch that memory is stated for
CONFIGS = ("cifar10", "mini")
STRAIGHTFORWARD, EPS_ONLY, FROZEN, CAPTURED = "straightforward", "eps-gradients alone", "frozen", "frozen, CUDA graph"
WANTED = {(True, FROZEN): 1.5, (False, CAPTURED): 2.0}  # on a CPU or not: times faster than the straightforward step


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; fail when the variants disagree."""
    options = ArgumentParser(prog="langevin.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--config", type=str, default="cifar10", help=f"one of {', '.join(CONFIGS)}")
    options.add_argument("--device", type=str, default="cpu")
    options.add_argument("--batch-size", type=int, default=2)
    options.add_argument(
        "--repeats", type=int, default=3, help="rounds, each one step of every variant, after one that warms up"
    )
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--memory", type=str, default="1,2", help="CPU: batch sizes to measure memory at; '' for none")
    options.add_argument("--json", type=Path, default=None, help="write all numbers there")
    options.add_argument("--memory-of", type=str, default=None, help="print the peak of one step of a variant and stop")
    given = parse(options, arguments)
    if given.config not in CONFIGS:
        raise UserError(f"--config {given.config}: needed one of {', '.join(CONFIGS)}")
    if given.batch_size < 1 or given.repeats < 1:
        raise UserError(f"--batch-size {given.batch_size} --repeats {given.repeats}: needed at least 1 of each")
    try:
        sizes = sorted({int(size) for size in given.memory.split(",") if size})
    except ValueError:
        sizes = [0]
    if sizes and sizes[0] < 1:
        raise UserError(f"--memory {given.memory}: needed whole numbers from 1 on, separated by commas")
    use_device(given.device, given.threads)
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits would hide any difference
    if given.memory_of is not None:
        print(peak_of_one_step(given.config, given.memory_of, given.batch_size, given.device))
        return 0

    model = build(given.config, given.device)
    start = noise(model, given.batch_size, 0)
    steps = variants(model, start)
    times, difference = measure(steps, start, lambda k: noise(model, given.batch_size, k + 1), given.repeats)
    memory = {
        name: {size: measured_memory(given, name, size) for size in (sizes if given.device == "cpu" else [IMAGES])}
        for name in steps
        if sizes and not (given.device == "cpu" and name == EPS_ONLY)
    }
    record = {
        "setting": f"{given.config}, {given.batch_size} images, {given.repeats} rounds, {given.threads} threads",
        "device": given.device,
        "machine": machine(given.device),
        "seconds": times,
        "difference": difference,
        "memory_bytes": memory,
    }
    print(report(record))
    if given.json is not None:
        write_json(given.json, {**record, "comparisons": [row.to_json() for row in comparisons(record)]})
    if not all(value <= TOLERANCE for value in difference.values()):
        raise RuntimeError(f"the variants differ by more than {TOLERANCE}: {difference}")
    return 0


@torch.no_grad()
def build(config: str, device: str) -> VAEBM:
    """Return the model, in eval mode. The random one gets BatchNorm statistics of its own and the published data-dependent initialisation;
    without these and with its first gains signals fade on the way, and any two variants would agree."""
    if config == "mini":
        card = read_card("vaebm")
        assert card is not None
        return build_vaebm(load_checkpoint(card.path()), "mini").to(device).eval()
    torch.manual_seed(0)
    energy = EnergyNetwork(ENERGIES["cifar10"])
    model = VAEBM(NVAE(NVAEConfig()), energy)
    for module in model.nvae.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, DecoderCombiner):
            # Its rows start at a third of the variance that would keep the signal's.
            assert module.conv.log_weight_norm is not None
            module.conv.log_weight_norm.add_(math.log(3) / 2)
    x, _ = model.to(device).train().decode(noise(model, 2, 99))
    data_dependent_init(energy, x)
    return model.eval()


def noise(model: VAEBM, batch_size: int, seed: int) -> list[Tensor]:
    """Return standard normal draws shaped like a state."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    return [torch.randn(batch_size, *shape, generator=generator).to(device) for shape in model.state_shapes]


def variants(model: VAEBM, start: State) -> dict[str, Gradient]:
    """Return the ways to the gradient, slowest first."""
    frozen = freeze(model).potential()
    ways: dict[str, Gradient] = {
        STRAIGHTFORWARD: lambda state: straightforward(model, state),
        EPS_ONLY: lambda state: value_and_gradient(model.potential(), state)[1],
        FROZEN: lambda state: value_and_gradient(frozen, state)[1],
    }
    if start[0].is_cuda:
        captured = capture(frozen, start)
        ways[CAPTURED] = lambda state: value_and_gradient(captured, state)[1]
    return ways


def straightforward(model: VAEBM, state: State) -> list[Tensor]:
    """Backpropagate into everything that asks for a gradient, keep that of the state."""
    inputs = [part.detach().requires_grad_() for part in state]
    model.potential()(inputs).sum().backward()
    model.zero_grad(set_to_none=True)
    return [part.grad for part in inputs if part.grad is not None]


def measure(
    ways: dict[str, Gradient], start: State, draws: Callable[[int], State], repeats: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    """Run a chain per variant, in turns; return (wall, CPU) seconds of every step, and how far each is from the straightforward one.

    The distance is the largest over the parts of the state: for states after the last step ||a - b|| / ||a||; for gradients at the start
    ||a - b|| / ||a - eps||, since a - eps is what the networks contribute (the rest is eps itself, the same in all).
    """
    states: dict[str, list[Tensor]] = {name: list(start) for name in ways}
    first: dict[str, Sequence[Tensor]] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for k in range(repeats + 1):  # the first round warms up
        w = draws(k)
        for name, gradient in ways.items():
            wait(start[0])
            began, began_cpu = time.perf_counter(), time.process_time()
            slopes = gradient(states[name])
            states[name] = [
                part - STEP_SIZE / 2 * slope + STEP_SIZE**0.5 * draw
                for part, slope, draw in zip(states[name], slopes, w, strict=True)
            ]
            wait(start[0])
            times[name].append((time.perf_counter() - began, time.process_time() - began_cpu))
            first.setdefault(name, [slope.clone() for slope in slopes])
            print(f"round {k}, {name}: {times[name][-1][0]:.3f} s", file=sys.stderr, flush=True)
    moved = [
        ((a - b).norm() / a.norm()) for name in ways for a, b in zip(states[STRAIGHTFORWARD], states[name], strict=True)
    ]
    pulled = [
        (a - b).norm() / (a - part).norm()
        for name in ways
        for a, b, part in zip(first[STRAIGHTFORWARD], first[name], start, strict=True)
    ]
    # A tensor's maximum, unlike Python's, is NaN when anything is.
    difference = {"states": float(torch.stack(moved).max()), "gradients": float(torch.stack(pulled).max())}
    return {name: seconds[1:] for name, seconds in times.items()}, difference


def wait(part: Tensor) -> None:
    """Let the device finish."""
    if part.is_cuda:
        torch.cuda.synchronize(part.device)


def measured_memory(given: Any, name: str, batch_size: int) -> int:
    """Return the peak of :func:`peak_of_one_step` in a process of its own."""
    command = [sys.executable, __file__, "--config", given.config, "--device", given.device, "--memory-of", name]
    command += ["--batch-size", str(batch_size), "--threads", str(given.threads)]
    # glibc gives large blocks back to the system at once, so that the peak is of what is alive.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--memory: the step of {batch_size} images failed ({last}); choose smaller sizes")
    return int(done.stdout.split()[-1])


def peak_of_one_step(config: str, name: str, batch_size: int, device: str) -> int:
    """Return the peak of memory, in bytes, of one step of a variant, weights included; on a CPU that of the whole process."""
    model = build(config, device)
    start = noise(model, batch_size, 0)
    if name in (FROZEN, CAPTURED):
        model = freeze(model)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    elif (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5")  # forget the peak of building and freezing
    if name == STRAIGHTFORWARD:
        straightforward(model, start)
    else:
        value_and_gradient(capture(model.potential(), start) if name == CAPTURED else model.potential(), start)
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine(device: str) -> str:
    """What the numbers belong to."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else torch.backends.cpu.get_cpu_capability()
    return f"{platform.system()} {platform.machine()}, {name}, torch {torch.__version__}"


def report(record: dict[str, Any]) -> str:
    """Return the table: medians with quartiles, ratios to the straightforward step within a round, memory."""
    # The CPU time of this process suffers less from what else the machine does; beside a GPU it means little.
    clocks = {"wall": 0, "CPU": 1} if record["device"] == "cpu" else {"wall": 0}
    spread = lambda low, middle, high: f"{middle:.3g} [{low:.3g}, {high:.3g}]"
    lines = [
        f"{record['setting']}; {record['machine']}",
        "",
        "| step | "
        + "".join(f"{clock} seconds [quartiles] | times faster [least, most] | " for clock in clocks)
        + f"GiB at {IMAGES} images |",
        "|---" * (2 * len(clocks) + 2) + "|",
    ]
    seconds = {name: np.array(times) for name, times in record["seconds"].items()}
    for name, times in seconds.items():
        cells = [name]
        for clock in clocks.values():
            ratios = seconds[STRAIGHTFORWARD][:, clock] / times[:, clock]
            cells.append(spread(*np.quantile(times[:, clock], (0.25, 0.5, 0.75))))
            cells.append(spread(*np.quantile(ratios, (0, 0.5, 1))))
        lines.append(f"| {' | '.join(cells)} | {at_64(record['memory_bytes'].get(name, {}))} |")
    rounds = len(seconds[STRAIGHTFORWARD])
    lines += [
        "",
        "Medians; ratios are within rounds, and least to most holds their true median with probability "
        f"{1 - 2.0 ** (1 - rounds):.2f} ({rounds} rounds).",
        "Largest relative difference: "
        + ", ".join(f"{what} {value:.1e}" for what, value in record["difference"].items())
        + f" (allowed: {TOLERANCE:.0e}).",
    ]
    return "\n".join(lines)


def comparisons(record: dict[str, Any]) -> list[Comparison]:
    """Return how many times faster than the straightforward step each of the others is."""
    wall = {name: [seconds[0] for seconds in times] for name, times in record["seconds"].items()}
    apart = ", ".join(f"{what} {value:.0e}" for what, value in record["difference"].items())
    return [
        Comparison.of(
            f"Langevin step: {name}",
            STRAIGHTFORWARD,
            seconds,
            wall[STRAIGHTFORWARD],
            setting=f"{record['setting']}, {record['device']}",
            unchanged=f"{apart} of their norms",
            wanted=WANTED.get((record["device"] == "cpu", name), 0.0),
        )
        for name, seconds in wall.items()
        if name != STRAIGHTFORWARD
    ]


def at_64(peaks: dict[int, int]) -> str:
    """Return the peak at 64 images in GiB: as measured, or from the straight line through the smallest and the largest size."""
    if not peaks:
        return "not measured"
    if IMAGES in peaks:
        return f"{peaks[IMAGES] / 2**30:.1f}"
    small, large = min(peaks), max(peaks)
    if small == large:
        return f"{peaks[small] / 2**30:.1f} at {small}"
    slope = (peaks[large] - peaks[small]) / (large - small)
    return f"{(peaks[small] + (IMAGES - small) * slope) / 2**30:.1f} (extrapolated from {small} and {large})"


if __name__ == "__main__":
    raise SystemExit(run(main))
