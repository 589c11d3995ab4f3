"""What is left to a trajectory and to a run: seconds, tokens, money."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.config import Limits, RunLimits
from runner.records import StopReason, Usage


class Budget:
    """Counts one trajectory against its limits. Time spent in our own queues is no working time."""

    def __init__(
        self, limits: Limits, *, used_s: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Begin to count; `used_s` is the working time of turns that were recorded earlier."""
        self._limits = limits
        self._clock = clock
        self._started_at = clock()
        self._last_action: str | None = None
        self._n_repeated = 0
        self._used_s = used_s
        self.excused_s = -used_s
        """Seconds that did not count as working time."""

    @property
    def working_s(self) -> float:
        """Working time so far."""
        return self._clock() - self._started_at - self.excused_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, of the limit that ends first; 0 when there are none."""
        return max(0.0, min(self._limits.working_s - self.working_s, self.remaining_wall_s))

    @property
    def remaining_wall_s(self) -> float:
        """Seconds left with waits counted; infinite without a limit."""
        if self._limits.wall_s is None:
            return math.inf
        return max(0.0, self._limits.wall_s - (self._clock() - self._started_at))

    @property
    def is_wall_lost_to_waits(self) -> bool:
        """Whether the wall time is what ends first, and more than half of it so far was no working time."""
        if self.remaining_wall_s > max(0.0, self._limits.working_s - self.working_s):
            return False
        waited_s = self.excused_s + self._used_s
        return self._limits.wall_s is not None and waited_s > (self._clock() - self._started_at) / 2

    @property
    def cell_s(self) -> float:
        """Seconds that the next cell may take."""
        return min(self._limits.cell_s, self.remaining_s)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave the time spent in this block out of the working time."""
        began_at = self._clock()
        try:
            yield
        finally:
            self.excuse(self._clock() - began_at)

    def excuse(self, seconds: float) -> None:
        """Leave seconds out of the working time."""
        self.excused_s += seconds

    def exceeded(self, n_turns: int, usage: Usage) -> StopReason | None:
        """Return the limit that forbids another turn, or None."""
        limits = self._limits
        if n_turns >= limits.max_turns:
            return StopReason.MAX_TURNS
        if self.remaining_s <= 0:
            return StopReason.TIME_LIMIT
        if limits.max_total_tokens is not None and usage.total_tokens >= limits.max_total_tokens:
            return StopReason.TOKEN_LIMIT
        if limits.max_cost is not None and (usage.cost or 0.0) >= limits.max_cost:
            return StopReason.COST_LIMIT
        return None

    def is_repeated(self, action: str) -> bool:
        """Count an action, and return whether it came once too often in a row."""
        self._n_repeated = self._n_repeated + 1 if action == self._last_action else 1
        self._last_action = action
        return (
            self._limits.max_repeated_actions is not None
            and self._n_repeated >= self._limits.max_repeated_actions
        )


def run_limit_reached(limits: RunLimits, elapsed_s: float, total_tokens: int, cost: float) -> str | None:
    """Return which limit of a run is used up, in words; None when none is."""
    if limits.wall_s is not None and elapsed_s >= limits.wall_s:
        return f"run_limits.wall_s: {elapsed_s:.0f} s of {limits.wall_s:g} s are over"
    if limits.max_total_tokens is not None and total_tokens >= limits.max_total_tokens:
        return f"run_limits.max_total_tokens: {total_tokens} of {limits.max_total_tokens} tokens are used"
    if limits.max_cost is not None and cost >= limits.max_cost:
        return f"run_limits.max_cost: {cost:.4g} of {limits.max_cost:g} is spent"
    return None
