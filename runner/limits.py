"""What is left to a trajectory: seconds and tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.config import Limits
from runner.records import StopReason, Usage


class Budget:
    """Counts one trajectory against its limits. Time spent in our own queues does not count."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.perf_counter) -> None:
        self._limits = limits
        self._clock = clock
        self._started_at = clock()
        self.waited_s = 0.0
        """Seconds that did not count."""

    @property
    def remaining_s(self) -> float:
        """Seconds left, 0 when there are none."""
        used_s = self._clock() - self._started_at - self.waited_s
        return max(0.0, self._limits.working_s - used_s)

    @property
    def cell_s(self) -> float:
        """Seconds that the next cell may take."""
        return min(self._limits.cell_s, self.remaining_s)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave the time spent in this block out of the count."""
        began_at = self._clock()
        try:
            yield
        finally:
            self.excuse(self._clock() - began_at)

    def excuse(self, seconds: float) -> None:
        """Leave seconds out of the count."""
        self.waited_s += seconds

    def exceeded(self, n_turns: int, usage: Usage) -> StopReason | None:
        """Return the limit that forbids another turn, or None."""
        if n_turns >= self._limits.max_turns:
            return StopReason.MAX_TURNS
        if self.remaining_s <= 0:
            return StopReason.TIME_LIMIT
        max_tokens = self._limits.max_total_tokens
        if max_tokens is not None and usage.total_tokens >= max_tokens:
            return StopReason.TOKEN_LIMIT
        return None
