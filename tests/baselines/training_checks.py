"""What every training task must do, held by the tests of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def weights_after(task: Any, steps: int) -> dict[str, torch.Tensor]:
    """The weights that a task exports after so many updates."""
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        task.step(step)
    return {name: value.clone() for name, value in task.weights().items()}


def assert_differ(task: Any, other: Any, steps: int) -> None:
    """So many updates of the two give other weights."""
    weights = [weights_after(each, steps) for each in (task, other)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def assert_resumes_exactly(
    run: Callable[..., Path | None],
    whole: Path,
    task: type,
    monkeypatch: Any,
    spoil: Callable[[Any], object] = lambda task: None,
    at: int = 5,
) -> None:
    """A run that is killed in the middle of an update, which leaves ``spoil`` behind, goes on to the very same file and log.

    Args:
        run: trains in a folder ``name``; ``resume=True`` continues.
        whole: what an unbroken run of it exported.
    """
    step = task.step

    def killed(self: Any, number: int) -> dict[str, float]:
        if number == at:
            with torch.no_grad():
                spoil(self)
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(task, "step", killed)
    assert run(name="parts") is None
    monkeypatch.undo()
    parts = run(name="parts", resume=True)
    assert parts is not None
    assert parts.read_bytes() == whole.read_bytes()
    logs = [(path.parent / "log.csv").read_text() for path in (whole, parts)]
    assert logs[0] == logs[1]
