"""Times on a clock that the systems turn themselves: medians, paired ratios, extrapolation, what is kept, and refusals."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suite_bench import SHAPE, make_bench, subject

from evaluators.measurement import Measurement
from evaluators.speed import SpeedSuite, memory
from evaluators.speed import rounds as rounds_module
from evaluators.speed.machine import machine, processor
from evaluators.speed.order_statistics import median_of
from evaluators.speed.rounds import one_round, plan
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench
from vaebm.errors import UserError

torch.set_num_threads(1)

# Order statistics


@pytest.mark.parametrize("n", range(2, 13))
def test_the_interval_covers_as_often_as_it_says(n: int) -> None:
    """All 2^n ways in which n values can lie below or above the median, which are equally likely."""
    found = median_of(list(range(n)))
    assert found.low is not None
    assert found.high is not None
    below = np.array([sum(signs) for signs in itertools.product((0, 1), repeat=n)])
    # With b of n values below the median, x_(k) is below it if k <= b and x_(n + 1 - k) above it if n + 1 - k > b.
    low, high = int(found.low) + 1, int(found.high) + 1
    assert np.mean((low <= below) & (high > below)) == pytest.approx(found.coverage)
    assert low + high == n + 1
    if n >= 6:
        assert found.coverage >= 0.95
        assert 1 - 2 * np.mean(below < low + 1) < 0.95  # one value further in would be too narrow
    else:
        assert (low, high) == (1, n)


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=20))
@settings(max_examples=50)
def test_a_median_lies_in_its_interval_and_between_its_quartiles(values: list[float]) -> None:
    found = median_of(values)
    assert found.value == pytest.approx(float(np.median(values)))
    assert found.quartiles[0] <= found.value <= found.quartiles[1]
    if len(values) == 1:
        assert found.low is found.high is None
    else:
        assert found.low <= found.value <= found.high


# A machine whose time passes only when it works


class Machine:
    """A clock; ``slow`` is how much longer everything takes now, which it becomes from round to round."""

    def __init__(self) -> None:
        self.seconds, self.cpu, self.slow = 0.0, 0.0, 1.0
        self.log: list[tuple[str, int | None, tuple[int, ...]]] = []

    def now(self) -> tuple[float, float]:
        return self.seconds, self.cpu

    def work(self, cost: float) -> None:
        self.seconds += cost * self.slow
        self.cpu += cost / 2


class Plain:
    """A sampler of ``cost`` seconds per image."""

    def __init__(self, machine: Machine, name: str, cost: float, block: int = 4) -> None:
        self.machine, self.name, self.cost, self.sample_batch = machine, name, cost, block

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        return self._drawn(seeds, None, self.cost * len(seeds))

    def _drawn(self, seeds: Sequence[int], steps: int | None, cost: float) -> np.ndarray:
        self.machine.log.append((self.name, steps, tuple(seeds)))
        self.machine.work(cost)
        return np.zeros((len(seeds), *SHAPE), np.uint8)


class Long(Plain):
    """A chain of ``total_steps`` steps of ``step`` seconds, and ``overhead`` seconds besides."""

    def __init__(self, machine: Machine, name: str, step: float, overhead: float, total: int, block: int = 4) -> None:
        super().__init__(machine, name, 0.0, block)
        self.step, self.overhead, self.total_steps = step, overhead, total

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        return self._drawn(seeds, None, self.overhead + self.step * self.total_steps)

    def sample_part(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        return self._drawn(seeds, steps, self.overhead + self.step * steps)


class Stepping(Plain):
    """The same, but all that it offers is a chain of any number of steps; its recipe says how many are usual."""

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        return {steps: self._drawn(seeds, steps, 3.0 + self.cost * steps) for steps in ladder}

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        return self._drawn(seeds, None, 3.0 + self.cost * 100)


def bench_of(folder: Path, systems: dict[str, Any], *, cached: bool = True, **options: Any) -> Bench:
    """A bench of systems or subjects."""
    given = {"repeats": 6, "max_steps": 0, "against": "ncsn", "random_weights": False} | options
    subjects = {
        name: system if isinstance(system, SystemUnderTest) else subject(name, system)
        for name, system in systems.items()
    }
    bench = make_bench(folder, subjects, **given)
    return bench if cached else Bench(bench.options, bench.load_systems, bench.load_images, bench.out, None, False)


def run(bench: Bench, clock: Machine) -> list[Measurement]:
    return SpeedSuite(clock.now).measure(bench).rows


def find(rows: list[Measurement], system: str, metric: str, variant: str = "") -> Measurement:
    (row,) = (r for r in rows if (r.system, r.metric, r.variant) == (system, metric, variant))
    return row


def test_seconds_are_those_of_a_block_over_its_images(tmp_path: Path) -> None:
    clock = Machine()
    rows = run(bench_of(tmp_path, {"one": Plain(clock, "one", 0.25), "two": Plain(clock, "two", 0.5, block=8)}), clock)
    for name, cost, block in (("one", 0.25, 4), ("two", 0.5, 8)):
        row = find(rows, name, "seconds_per_image")
        assert (row.value, row.low, row.high, row.n) == (
            pytest.approx(cost),
            pytest.approx(cost),
            pytest.approx(cost),
            6 * block,
        )
        assert find(rows, name, "seconds_per_50_images").value == pytest.approx(50 * cost)
        assert find(rows, name, "seconds_per_50_images", "processor time").value == pytest.approx(25 * cost)
        assert row.protocol["sample_batch"] == block
        assert row.protocol["dtype"] == "float32"
        assert row.protocol["compile"] is False
        assert row.protocol["threads"] == 1
        assert row.protocol["device"] == machine("cpu")["device"]
        assert row.protocol["interval"] == "median of 6 rounds, order statistics, 95 %"
        assert row.provenance["quartiles"] == [pytest.approx(cost), pytest.approx(cost)]
        assert [r["seconds_per_image"] for r in row.provenance["rounds"]] == [pytest.approx(cost)] * 6
        assert all(r["cpu_seconds_per_image"] == pytest.approx(cost / 2) for r in row.provenance["rounds"])


def test_the_first_round_warms_up_and_is_not_timed(tmp_path: Path) -> None:
    clock = Machine()

    class Lazy(Plain):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            if not self.machine.log:
                self.machine.work(1000.0)
            return super().sample(seeds)

    rows = run(bench_of(tmp_path, {"one": Lazy(clock, "one", 0.25)}, repeats=3), clock)
    assert find(rows, "one", "seconds_per_image").high == pytest.approx(0.25)
    assert len(clock.log) == 5


def test_rounds_are_interleaved_turn_around_and_never_draw_the_same_image_twice(tmp_path: Path) -> None:
    clock = Machine()
    run(bench_of(tmp_path, {name: Plain(clock, name, 1.0) for name in "abc"}, repeats=4), clock)
    assert "".join(name for name, *_ in clock.log) == "aabbcc" + "abc" + "cba" + "abc" + "cba"
    drawn = [seeds for name, _, seeds in clock.log if name == "a"][2:]
    assert len(set(itertools.chain(*drawn))) == 4 * 4


def test_ratios_are_taken_within_rounds(tmp_path: Path) -> None:
    """A machine that becomes slower and slower makes every time uncertain, and no ratio."""
    clock = Machine()

    class Tiring(Plain):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            self.machine.slow = 1.0 + 0.2 * (seeds[0] // 4)
            return super().sample(seeds)

    systems = {
        "vaebm": Tiring(clock, "vaebm", 0.5),
        "ncsn": Tiring(clock, "ncsn", 6.0),
        "nvae": Tiring(clock, "nvae", 0.1),
    }
    rows = run(bench_of(tmp_path, systems, repeats=6, against="ncsn,nvae"), clock)
    seconds = find(rows, "vaebm", "seconds_per_image")
    assert seconds.high > 1.9 * seconds.low
    for system, metric, ratio in (("vaebm", "ncsn", 12.0), ("vaebm", "nvae", 0.2), ("nvae", "ncsn", 60.0)):
        row = find(rows, system, f"speedup_over_{metric}")
        assert (row.value, row.low, row.high) == (pytest.approx(ratio),) * 3
    (own,) = (row for row in rows if (row.system, row.metric) == ("ncsn", "speedup_over_ncsn"))
    assert own.value is None
    assert own.note == "it is what others are compared with"


def test_systems_of_other_block_sizes_are_compared_per_image(tmp_path: Path) -> None:
    clock = Machine()
    systems = {"vaebm": Plain(clock, "vaebm", 0.5, block=16), "ncsn": Plain(clock, "ncsn", 6.0, block=2)}
    rows = run(bench_of(tmp_path, systems), clock)
    assert find(rows, "vaebm", "speedup_over_ncsn").value == pytest.approx(12.0)


@pytest.mark.parametrize("kind", ["long", "stepping"])
def test_a_part_of_a_chain_is_extrapolated_exactly_and_its_overhead_is_not_multiplied(
    kind: str, tmp_path: Path
) -> None:
    clock = Machine()
    if kind == "long":
        system: Any = subject("one", Long(clock, "one", 0.7, 3.0, 100), sampling={})
    else:
        system = subject("one", Stepping(clock, "one", 0.7), sampling={"steps": 100})
    rows = run(bench_of(tmp_path, {"one": system}, max_steps=5), clock)
    row = find(rows, "one", "seconds_per_image")
    assert row.value == pytest.approx((3.0 + 0.7 * 100) / 4)
    assert row.value < (3.0 + 0.7 * 5) * 20 / 4 / 1.5  # what a share of the steps alone would say
    assert row.note == "extrapolated from 5 of 100 steps"
    assert {steps for _, steps, _ in clock.log} == {0, 5}


def test_short_chains_are_timed_whole(tmp_path: Path) -> None:
    clock = Machine()
    systems = {"long": Long(clock, "long", 0.5, 1.0, 20), "plain": Plain(clock, "plain", 0.5)}
    rows = run(bench_of(tmp_path, systems, max_steps=20), clock)
    assert find(rows, "long", "seconds_per_image").note == ""
    assert {steps for _, steps, _ in clock.log} == {None}
    assert find(rows, "long", "seconds_per_image").value == pytest.approx(11 / 4)


def test_a_ratio_says_whose_time_is_extrapolated(tmp_path: Path) -> None:
    clock = Machine()
    systems = {"vaebm": Plain(clock, "vaebm", 1.0), "ncsn": Long(clock, "ncsn", 0.5, 0.0, 1000)}
    rows = run(bench_of(tmp_path, systems, max_steps=10), clock)
    row = find(rows, "vaebm", "speedup_over_ncsn")
    assert row.value == pytest.approx(500 / 4)
    assert row.note == "ncsn extrapolated from 10 of 1,000 steps"


@given(st.floats(0, 10), st.floats(0.01, 5), st.integers(1, 30), st.integers(1, 2000))
def test_extrapolation_is_linear_in_the_steps(overhead: float, step: float, timed: int, more: int) -> None:
    total = timed + more
    each = plan(subject("one", Long(Machine(), "one", step, overhead, total), sampling={}), timed)
    assert each.extrapolated
    assert each.whole(overhead, overhead + step * timed) == pytest.approx(overhead + step * total)
    assert each.whole(2 * overhead + step * timed, overhead + step * timed) == pytest.approx(overhead + step * timed)


def test_the_device_is_waited_for_before_and_after_every_block() -> None:
    log: list[str] = []

    class Told(Plain):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            log.append("draw")
            return super().sample(seeds)

    clock = Machine()

    def now() -> tuple[float, float]:
        log.append("look")
        return clock.now()

    timed = [plan(subject(name, Told(clock, name, 1.0)), 0) for name in "ab"]
    one_round(timed, 0, now, lambda: log.append("wait"))
    assert log == ["wait", "look", "draw", "wait", "look"] * 2


def test_the_clock_is_that_of_the_wall_and_of_the_processors() -> None:
    wall, cpu = rounds_module.clock()
    np.linalg.svd(np.random.default_rng(0).normal(size=(200, 200)))
    again = rounds_module.clock()
    assert again[0] > wall
    assert again[1] > cpu


# What the first round shows


class Networked(Plain):
    """Two layers, one of them called twice; its images need 32 MiB."""

    evaluation_note = "a note of its own"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.networks = {"net": torch.nn.Linear(3, 3), "other": torch.nn.Linear(3, 1)}

    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        x = torch.zeros(len(seeds), 3, requires_grad=True)
        self.networks["other"](self.networks["net"](self.networks["net"](x))).sum().backward()
        self.waste = np.ones(2**22)
        del self.waste
        return super().sample(seeds)


def test_evaluations_and_memory_stand_in_rows_of_their_own(tmp_path: Path) -> None:
    clock = Machine()
    rows = run(bench_of(tmp_path, {"one": Networked(clock, "one", 1.0), "two": Plain(clock, "two", 1.0)}), clock)
    forward, backward = (find(rows, "one", f"{what}_evaluations") for what in ("network", "gradient"))
    assert (forward.value, forward.note) == (3, "net 2 + other 1; a note of its own")
    assert (backward.value, backward.note) == (3, "net 2 + other 1")
    assert forward.provenance["evaluations"]["net"]["share"] == 1
    assert "hooks" in forward.protocol["counted"]
    assert forward.n == 4
    other = find(rows, "two", "network_evaluations")
    assert other.value is None
    assert "no networks" in other.note
    found = find(rows, "one", "peak_memory_gib")
    assert found.value is not None
    assert 31.5 <= found.value * 1024 < 48


def test_hooks_are_gone_when_times_are_taken(tmp_path: Path) -> None:
    clock = Machine()
    seen: list[int] = []

    class Watching(Networked):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            seen.append(len(self.networks["net"]._forward_hooks))
            return super().sample(seeds)

    run(bench_of(tmp_path, {"one": Watching(clock, "one", 1.0)}, repeats=2), clock)
    assert seen == [1, 0, 0, 0]


def test_parts_called_differently_often_are_told(tmp_path: Path) -> None:
    clock = Machine()

    class Uneven(Networked):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.networks = {"all": torch.nn.ModuleDict(self.networks)}

        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            x = torch.zeros(len(seeds), 3)
            self.networks["all"]["net"](self.networks["all"]["net"](x))
            self.networks["all"]["other"](x)
            return Plain.sample(self, seeds)

    rows = run(bench_of(tmp_path, {"one": Uneven(clock, "one", 1.0)}), clock)
    row = find(rows, "one", "network_evaluations")
    assert row.value == pytest.approx((12 * 2 + 4) / 16)
    assert row.note == "a note of its own; parts of all were called 1 to 2 times"


def test_a_network_used_without_its_modules_is_not_called_evaluated_zero_times(tmp_path: Path) -> None:
    clock = Machine()

    class Functional(Networked):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            return Plain.sample(self, seeds)

    row = find(run(bench_of(tmp_path, {"one": Functional(clock, "one", 1.0)}), clock), "one", "network_evaluations")
    assert row.value is None
    assert "not called as modules" in row.note


def test_memory_is_what_rises_beyond_what_was_there() -> None:
    kept = np.ones(2**22)  # 32 MiB
    with memory.measuring("cpu") as rise:
        np.ones(2**23)
        np.ones(2**21)
    if rise.bytes is None:
        pytest.skip(rise.reason)
    assert 63.5 <= rise.bytes / 2**20 < 72  # the kernel counts in batches of pages
    with memory.measuring("cpu") as nothing:
        kept.sum()
    assert nothing.bytes < 2**22


def test_memory_that_cannot_be_measured_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "nothing")
    clock = Machine()
    row = find(run(bench_of(tmp_path, {"one": Plain(clock, "one", 1.0)}), clock), "one", "peak_memory_gib")
    assert row.value is None
    assert "Linux" in row.note


def test_weights_are_counted_once() -> None:
    layer = torch.nn.Linear(100, 100, bias=False)
    assert memory.weights({"a": layer, "b": torch.nn.Sequential(layer, torch.nn.BatchNorm1d(2))}) == 40_000 + 4 * 8 + 8


def test_random_weights_are_told_beside_every_number(tmp_path: Path) -> None:
    clock = Machine()
    random = subject(
        "one", Networked(clock, "one", 1.0), fingerprint={"weights": "random, seed 0: 3 layers"}, size="paper"
    )
    rows = run(bench_of(tmp_path, {"one": random}), clock)
    assert all("weights are random" in row.note for row in rows if row.value is not None)
    assert sum(row.value is not None for row in rows) >= 5
    assert {row.protocol["architecture"] for row in rows} == {"3 layers"}
    assert {row.size for row in rows} == {"paper"}


def test_a_system_that_cannot_draw_leaves_the_others_their_numbers(tmp_path: Path) -> None:
    clock = Machine()

    class Broken(Plain):
        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            raise UserError("no memory for a block of 4")

    systems = {"ncsn": Broken(clock, "ncsn", 1.0), "vaebm": Plain(clock, "vaebm", 0.5), "nothing": object()}
    rows = run(bench_of(tmp_path, systems), clock)
    assert find(rows, "vaebm", "seconds_per_image").value == pytest.approx(0.5)
    assert find(rows, "vaebm", "speedup_over_ncsn").note == "ncsn could not be timed"
    assert {row.note for row in rows if row.system == "ncsn"} == {"no memory for a block of 4"}
    assert {row.note for row in rows if row.system == "nothing"} == {"has no sampler"}


def test_no_system_draws_at_all(tmp_path: Path) -> None:
    rows = run(bench_of(tmp_path, {"nothing": object(), "gone": subject("gone", None, reason="no weights")}), Machine())
    assert [row.note for row in rows] == ["has no sampler"] * 5 + ["no weights"] * 5


@pytest.mark.parametrize("repeats", [1, 3, 9])
def test_repeats_are_rounds_and_few_of_them_promise_less(repeats: int, tmp_path: Path) -> None:
    clock = Machine()
    row = find(
        run(bench_of(tmp_path, {"one": Plain(clock, "one", 1.0)}, repeats=repeats), clock), "one", "seconds_per_image"
    )
    assert len(clock.log) == 2 + repeats
    assert row.n == 4 * repeats
    if repeats == 1:
        assert row.low is row.high is None
        assert row.protocol["rounds"] == 1
    else:
        assert ("probability 0.75 only" in row.protocol["interval"]) == (repeats == 3)


# What is kept


def counted(
    folder: Path, repeats: int = 3, cached: bool = True, name: str = "one", **about: Any
) -> tuple[int, list[Measurement]]:
    """Time a system; return how often it drew, and the rows."""
    clock = Machine()
    given = about.pop("options", {})
    system = subject(name, Plain(clock, name, 1.0, about.pop("block", 4)), **about)
    rows = run(bench_of(folder, {name: system}, cached=cached, repeats=repeats, **given), clock)
    return len(clock.log), rows


def test_finished_rounds_are_found_and_missing_ones_made(tmp_path: Path) -> None:
    drew, rows = counted(tmp_path)
    assert drew == 2 + 3
    assert counted(tmp_path) == (0, rows)
    drew, more = counted(tmp_path, repeats=5)
    assert drew == 1 + 2  # to warm up, then rounds 4 and 5
    kept = [find(found, "one", "seconds_per_image").provenance["rounds"] for found in (rows, more)]
    assert kept[1][:3] == kept[0]
    assert counted(tmp_path, repeats=2)[0] == 0


def test_nothing_is_kept_without_a_cache_or_a_fingerprint(tmp_path: Path) -> None:
    for about in ({"cached": False}, {"fingerprint": {}}):
        for _ in range(2):
            assert counted(tmp_path, **about)[0] == 2 + 3
    assert not (tmp_path / "cache" / "speed").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"block": 8},
        {"fingerprint": {"weights": "others"}},
        {"sampling": {"steps": 9}},
        {"name": "another"},
        {"options": {"dtype": "bfloat16"}},
        {"options": {"compile": True}},
    ],
    ids=str,
)
def test_what_decides_a_time_decides_whether_a_kept_one_serves(changed: dict[str, Any], tmp_path: Path) -> None:
    counted(tmp_path)
    assert counted(tmp_path, **changed)[0] >= 2 + 3


def test_times_of_another_machine_do_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(tmp_path)
    monkeypatch.setattr("evaluators.speed.machine.processor", lambda: "an abacus")
    drew, rows = counted(tmp_path)
    assert drew == 2 + 3
    assert rows[0].protocol["device"].startswith("an abacus")


def test_other_systems_of_the_run_decide_too(tmp_path: Path) -> None:
    """Rounds of all systems belong together: ratios are taken within them."""
    counted(tmp_path)
    clock = Machine()
    run(bench_of(tmp_path, {name: Plain(clock, name, 1.0) for name in ("one", "two")}, repeats=3), clock)
    assert len(clock.log) == 2 * (2 + 3)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    clock = Machine()

    class Mortal(Plain):
        lives = 3

        def sample(self, seeds: Sequence[int]) -> np.ndarray:
            self.lives -= 1
            if self.lives < 0:
                raise KeyboardInterrupt
            return super().sample(seeds)

    with pytest.raises(KeyboardInterrupt):
        run(bench_of(tmp_path, {"one": Mortal(clock, "one", 1.0)}, repeats=5), clock)
    drew, rows = counted(tmp_path, repeats=5)
    assert drew == 2 + 3  # two rounds were kept
    assert len(find(rows, "one", "seconds_per_image").provenance["rounds"]) == 5


def test_a_longer_part_is_another_measurement(tmp_path: Path) -> None:
    for most in (5, 6):
        clock = Machine()
        system = subject("one", Long(clock, "one", 0.7, 3.0, 100), sampling={})
        run(bench_of(tmp_path, {"one": system}, max_steps=most), clock)
        assert {steps for _, steps, _ in clock.log} == {0, most}


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repeats": 0}, "--repeats 0: needed at least 1"),
        ({"max_steps": -1}, "--max-steps -1: needed at least 0"),
        ({"against": "ncns"}, "--against ncns: it is not timed"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_drawn(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    clock = Machine()
    with pytest.raises(UserError, match=said):
        run(bench_of(tmp_path, {"ncsn": Plain(clock, "ncsn", 1.0)}, **options), clock)
    assert not clock.log


def test_nothing_to_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to time"):
        run(bench_of(tmp_path, {}), Machine())


def test_rows_survive_json_and_depend_on_the_data_set_asked_for(tmp_path: Path) -> None:
    clock = Machine()
    rows = run(bench_of(tmp_path, {"one": Networked(clock, "one", 1.0)}, dataset="stacked_mnist"), clock)
    assert {row.dataset for row in rows} == {"stacked_mnist"}
    assert [Measurement.from_json(json.loads(json.dumps(row.to_json(), allow_nan=False))) for row in rows] == rows


def test_the_processor_has_a_name() -> None:
    assert processor()
    assert machine("cpu")["device"].startswith(processor())


def test_a_gpu_is_named_and_its_memory_is_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU at hand, its functions are replaced by ones that say what they were asked."""
    asked: list[str] = []
    allocated = iter([1000, 5000])
    fake = {
        "synchronize": lambda device: asked.append("synchronize"),
        "reset_peak_memory_stats": lambda device: asked.append("reset"),
        "memory_allocated": lambda device: next(allocated),
        "max_memory_allocated": lambda device: next(allocated),
        "get_device_name": lambda device: "Titan",
    }
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(**{**vars(torch.cuda), **fake}))
    with memory.measuring("cuda:0") as rise:
        asked.append("work")
    assert rise.bytes == 4000
    assert asked == ["synchronize", "reset", "work", "synchronize"]
    assert machine("cuda:0")["device"] == "Titan"
