"""Which states of a run are healthy, which attempt it is in, and where to go back to after an alarm.

A state is *healthy* once a full window of updates after it passed without an alarm: an explosion begins before it is seen. Two states are
enough to always have one: the newest healthy one, and one *candidate* on its way there, which replaces it. Before there is a healthy state,
the candidate, which is the oldest state kept, is the best guess. The healthy state before the newest is kept for a retry that fails, too:
the seed of an explosion may lie further back than a window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaebm.training.guard import Diverged, GuardSettings


@dataclass
class Ledger:
    """The guard's record of a run; a part of every saved state, so that a resumed run decides as an unbroken one.

    Attributes:
        healthy, candidate, older: updates of the three states (above).
        alarms: what was seen, one entry per attempt that failed.
        stopped: the last alarm ended the run.
    """

    settings: GuardSettings
    healthy: int | None = None
    candidate: int | None = None
    older: int | None = None
    alarms: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False

    @property
    def attempt(self) -> int:
        """Number of times that training went back and continued; decides noise and rate."""
        return len(self.alarms) - self.stopped

    @property
    def rate_scale(self) -> float:
        """What the learning rate is multiplied by: ``guard_rate_factor`` to the power of the attempt."""
        return self.settings.guard_rate_factor**self.attempt

    def passed(self, step: int) -> None:
        """Updates up to ``step`` gave no alarm."""
        if self.candidate is not None and step >= self.candidate + self.settings.guard_window:
            self.older, self.healthy, self.candidate = self.healthy, self.candidate, None

    def saved(self, step: int) -> None:
        """A state of update ``step`` is about to be saved."""
        self.passed(step)
        if self.settings.guard_window and self.candidate is None:
            self.candidate = step

    def finished(self, step: int) -> None:
        """The run ends with update ``step``: nothing can be proven after it, and its last state is the one to use."""
        self.passed(step)
        self.candidate = self.older = None

    def alarm(self, step: int, seen: Diverged) -> int | None:
        """Record that update ``step`` gave an alarm; return the update to go back to, None where no state was kept.

        A run that may retry keeps its initial state until there is a later one. A second alarm from the same state goes one back.
        """
        self.passed(step - 1)
        attempt, rate_scale = self.attempt, self.rate_scale
        if self.older is not None and self.alarms and self.alarms[-1]["back_to"] == self.healthy:
            self.healthy, self.older = self.older, None
        back_to = self.candidate if self.healthy is None else self.healthy
        if back_to is None and self.settings.guard_retries:
            back_to = 0
        # A best guess has to prove itself in the next attempt; a healthy state has.
        self.candidate = back_to if self.healthy is None else None
        self.stopped = back_to is None or attempt >= self.settings.guard_retries
        self.alarms.append(
            {
                "attempt": attempt,
                "rate_scale": rate_scale,
                "update": step,
                "reason": str(seen),
                "seen": seen.evidence,
                "back_to": back_to,
                "healthy": self.healthy is not None,
                "then": "stopped" if self.stopped else "continued",
            }
        )
        return back_to

    def continue_stopped(self) -> bool:
        """Turn a stop into a retry if more retries are allowed by now; return whether the run goes on."""
        if self.stopped and self.alarms[-1]["back_to"] is not None and self.attempt < self.settings.guard_retries:
            self.stopped = False
            self.alarms[-1] = {**self.alarms[-1], "then": "continued"}
        return not self.stopped

    def sentence(self) -> str:
        """The last alarm in one line: what was seen, and which checkpoint to use and why."""
        last, window = self.alarms[-1], self.settings.guard_window
        if last["back_to"] is None:
            use = "No state was kept before it: nothing to use but update 0"
        elif last["healthy"]:
            use = f"Use checkpoint.pt, update {last['back_to']}: healthy, the {window} updates after it gave no alarm"
        else:
            use = (
                f"Use checkpoint.pt, update {last['back_to']}, with care: the oldest state kept, no state had {window} "
                "updates without an alarm after it"
            )
        return f"stopped at update {last['update']}: {last['reason']}. {use}"

    def report(self, step: int, steps: int) -> dict[str, Any]:
        """Return guard.json of a run at update ``step`` of ``steps``: which checkpoint to use and why, settings, every alarm."""
        state = "stopped" if self.stopped else "finished" if step == steps else "running"
        why = {
            "stopped": self.sentence() if self.stopped else "",
            "finished": f"the end of the run, reached after {self.attempt} retries",
            "running": f"the newest state; training continues after {self.attempt} retries",
        }[state]
        return {
            "state": state,
            "use": {
                "file": "checkpoint.pt",
                "update": self.alarms[-1]["back_to"] if self.stopped else step,
                "why": why,
            },
            "attempt": self.attempt,
            "rate_scale": self.rate_scale,
            "settings": {name: getattr(self.settings, name) for name in GuardSettings.__dataclass_fields__},
            "alarms": self.alarms,
        }

    def is_healthy(self, step: int, newest: int) -> bool:
        """Whether a kept state of update ``step`` is healthy, in a run whose updates were made up to ``newest``."""
        made = self.alarms[-1]["update"] - 1 if self.stopped else newest
        return step <= (self.healthy or 0) or step + self.settings.guard_window <= made

    def state_dict(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy,
            "candidate": self.candidate,
            "older": self.older,
            "alarms": self.alarms,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.healthy, self.candidate, self.older = state["healthy"], state["candidate"], state["older"]
        self.alarms, self.stopped = list(state["alarms"]), state["stopped"]
