"""Work begun ahead gives what it gives when it is asked for, in its order, and no thread outlives an error."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from suite_bench import FEATURES, Painter, make_bench, subject

from evaluators import generation, spaces
from evaluators.ahead import Ahead, spare
from evaluators.generation import GenerationSuite
from vaebm.errors import UserError


def test_work_is_begun_before_it_is_asked_for() -> None:
    begun = threading.Event()
    with Ahead(True) as ahead:
        found = ahead.call(begun.set)
        assert begun.wait(10)
        assert found() is None


def test_without_a_thread_work_is_done_when_it_is_asked_for() -> None:
    done: list[int] = []
    with Ahead(False) as ahead:
        found = ahead.call(lambda: done.append(1) or 7)
        assert done == []
        assert found() == 7


@pytest.mark.parametrize("on", [True, False])
def test_calls_run_in_their_order_and_errors_come_with_the_result(on: bool) -> None:
    order: list[int] = []

    def refuse() -> int:
        raise UserError("no")

    with Ahead(on) as ahead:
        calls = [ahead.call(lambda i=i: order.append(i)) for i in range(5)]
        failed = ahead.call(refuse)
        for call in calls:
            call()
        with pytest.raises(UserError, match="no"):
            failed()
    assert order == list(range(5))


def test_after_an_error_nothing_that_waits_is_begun_and_what_runs_ends() -> None:
    running, release, ended, late = threading.Event(), threading.Event(), threading.Event(), threading.Event()

    def long() -> None:
        running.set()
        release.wait(10)
        ended.set()

    def leave() -> None:
        with Ahead(True) as ahead:
            ahead.call(long)
            ahead.call(late.set)
            running.wait(10)
            threading.Timer(0.05, release.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert ended.is_set()
    assert not late.is_set()


def test_a_cpu_has_something_to_spare_where_torch_leaves_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not spare("cpu")
    assert spare("cuda")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert spare("cpu")
    monkeypatch.setattr("vaebm.parallel.world_size", lambda: 2)
    assert not spare("cpu")
    assert not spare("cuda")


def rows(folder: Path, on: bool, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(generation, "spare", lambda device: on)
    systems = {name: subject(name, Painter(120 + 10 * i)) for i, name in enumerate(("a", "b", "c"))}
    bench = make_bench(folder, systems, features=FEATURES, num_images=60)
    found = [row.to_json() for row in GenerationSuite().measure(bench).rows]
    for row in found:
        row["protocol"].pop("seconds_per_image", None)
    return found


def test_features_extracted_ahead_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(tmp_path / "a", True, monkeypatch) == rows(tmp_path / "b", False, monkeypatch)


def test_features_are_extracted_while_the_next_system_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second painter waits for the features of the first: without a thread ahead it would wait for ever."""
    extracted = threading.Event()
    extract = spaces.summarise

    def seen(*given: Any, **how: Any) -> Any:
        found = extract(*given, **how)
        if how.get("name", "").startswith("first"):
            extracted.set()
        return found

    class Waiting(Painter):
        def sample(self, seeds: Any) -> Any:
            assert extracted.wait(20), "nothing was extracted while this system was to draw"
            return super().sample(seeds)

    monkeypatch.setattr(spaces, "summarise", seen)
    monkeypatch.setattr(generation, "spare", lambda device: True)
    systems = {"first": subject("first", Painter()), "second": subject("second", Waiting())}
    GenerationSuite().measure(make_bench(tmp_path, systems, features=FEATURES, num_images=40))
