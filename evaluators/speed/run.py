"""One run of the rounds: what is kept from an earlier one is read, the rest is measured and kept."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from evaluators.array_store import ArrayStore
from evaluators.protocols import Networked
from evaluators.speed import memory
from evaluators.speed.counting import counting
from evaluators.speed.machine import arithmetic, load, machine
from evaluators.speed.rounds import Clock, Timed, one_round
from evaluators.suite import Bench
from vaebm.errors import UserError

_FORMAT = 1  # of what is kept; part of its key


@dataclass(frozen=True)
class Taken:
    """What was measured of all systems.

    Attributes:
        first: per system what the first round showed: ``evaluations`` (network -> numbers), ``memory`` (bytes or None),
            ``memory_reason``; ``reason`` where the system could not draw at all.
        seconds: of a block, (rounds, S), extrapolated to whole chains.
        processor_seconds: the same of this process's work, all threads together.
        when: of each round, seconds since 1970.
        load: of the machine when each round began; NaN where it is not known.
    """

    first: list[dict[str, Any]]
    seconds: NDArray[np.float64]
    processor_seconds: NDArray[np.float64]
    when: NDArray[np.float64]
    load: NDArray[np.float64]


class Run:
    """One process's timing of all systems."""

    def __init__(self, bench: Bench, timed: Sequence[Timed], now: Clock) -> None:
        self.bench, self.timed, self.now = bench, timed, now
        self.device, self.compiled = bench.options.device, bool(getattr(bench.options, "compile", False))
        self.warm = False

    def take(self) -> Taken:
        """Measure what is not kept from an earlier run."""
        rounds = self.bench.options.repeats
        known = all(each.subject.fingerprint for each in self.timed)  # else nothing says what a kept time would be of
        store = ArrayStore(self.bench.folder("speed") if known else None)
        systems = [_identity(each) for each in self.timed]
        key = {"speed": _FORMAT, "systems": systems, "machine": machine(self.device), **arithmetic(self.bench.options)}
        about: dict[str, Any] = {"alone": True, "chunk": 1}
        with tqdm(
            total=rounds + 1, desc="rounds of all systems", disable=not self.bench.progress, leave=False
        ) as self.bar:
            kept = store.compute(key | {"part": "first round"}, 1, self._first, label="first round", **about)
            first = json.loads(bytes(kept["json"][0]).decode())
            able = [i for i, found in enumerate(first) if not found["reason"]]
            found = store.compute(
                key | {"part": "rounds"}, rounds, lambda start, _: self._round(start, able), label="rounds", **about
            )
        seconds = found["seconds"]  # (rounds, S, clocks, 2)
        whole = lambda which: np.stack(
            [each.whole(seconds[:, i, which, 0], seconds[:, i, which, 1]) for i, each in enumerate(self.timed)], axis=1
        )
        return Taken(first, whole(0), whole(1), np.array(found["when"]), np.array(found["load"]))

    def _first(self, start: int, stop: int) -> dict[str, Any]:
        """The first round: everything is set up, evaluations are counted, memory is measured."""
        found = []
        for each in self.timed:
            try:
                found.append(self._look(each))
            except UserError as error:
                found.append({"reason": str(error)})
        self.warm = True
        self.bar.update()
        return {"json": np.frombuffer(json.dumps(found).encode(), dtype=np.uint8)[None]}

    def _look(self, each: Timed) -> dict[str, Any]:
        system = each.subject.system
        networks = dict(system.networks) if isinstance(system, Networked) else {}
        with counting(networks) as counter:
            each.draw(0, each.steps)
        # Not in the same pass: whoever draws first brings libraries into memory, which are nobody's.
        with memory.measuring(self.device) as rise:
            each.draw(0, each.steps)
        some, none = counter.evaluations(), counter.evaluations()
        if each.extrapolated:
            with counting(networks) as counter:
                each.draw(0, 0)
            none = counter.evaluations()
        return {
            "reason": "",
            "evaluations": {
                name: asdict(count)
                | {
                    "forward": float(each.whole(none[name].forward, count.forward)),
                    "backward": float(each.whole(none[name].backward, count.backward)),
                }
                for name, count in some.items()
            },
            "memory": None if rise.bytes is None else rise.bytes + memory.weights(networks),
            "memory_reason": rise.reason,
        }

    def _round(self, number: int, able: Sequence[int]) -> dict[str, Any]:
        """One timed round, of the systems that can draw."""
        chosen = [self.timed[i] for i in able]
        if not self.warm:  # the first round is from an earlier run: nothing here is set up yet
            for each in chosen:
                each.draw(0, each.steps)
            self.warm = True
        when, busy = time.time(), load()
        seconds = np.zeros((len(self.timed), 2, 2))
        seconds[list(able)] = one_round(chosen, number, self.now, self._wait)
        self.bar.n = number + 2
        self.bar.refresh()
        return {"seconds": seconds[None], "when": np.array([when]), "load": np.array([busy])}

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)


def _identity(each: Timed) -> dict[str, Any]:
    subject = each.subject
    about = {"name": subject.name, "system": subject.fingerprint, "sampling": subject.sampling}
    return about | {"block": each.block, "steps": each.steps, "total": each.total}
