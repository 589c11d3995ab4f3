"""Where the time of one model call goes: what counts against the trajectory, and what does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runner.telemetry.meter import AttemptPhase
from runner.telemetry.statistics import Phase
from runner.trajectory.limits import Budget


class CallTimer:
    """The clock of one model call; see `models.base.CallClock`."""

    __slots__ = ("_budget", "_deadline", "_phase", "waited_s")

    def __init__(self, budget: Budget, phase: AttemptPhase, deadline: asyncio.Timeout) -> None:
        self._budget = budget
        self._phase = phase
        self._deadline = deadline
        self.waited_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """See CallClock."""
        began_at = time.perf_counter()
        self._phase.enter(Phase.QUEUED)
        if not self._deadline.expired():
            self._deadline.reschedule(None)
        try:
            yield
        finally:
            self.waited_s += time.perf_counter() - began_at
            self.excuse(time.perf_counter() - began_at)
            self._phase.enter(Phase.MODEL)

    def excuse(self, seconds: float) -> None:
        """See CallClock."""
        self._budget.excuse(seconds)
        if not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(now + self._budget.remaining_s)
