"""Counts what a run does, as it does it; `RunStatistics` are made from it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from runner.records import Owner, StopReason, Usage
from runner.telemetry.statistics import FinishedAttempt, Phase

N_RECENT = 8
RATE_WINDOW_S = 30


class Rate:
    """Something per second, over the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began_at = clock()
        self._buckets: deque[tuple[int, float]] = deque()

    def add(self, amount: float = 1.0) -> None:
        """Count an amount now."""
        second = int(self._clock())
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + amount)
            return
        self._buckets.append((second, amount))
        self._forget(second)

    def per_s(self) -> float:
        """Return the amount per second."""
        now = self._clock()
        self._forget(int(now))
        span_s = min(RATE_WINDOW_S, max(1.0, now - self._began_at))
        return sum(amount for _, amount in self._buckets) / span_s

    def _forget(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - RATE_WINDOW_S:
            self._buckets.popleft()


class PhaseCounter:
    """Where the trajectories in flight are."""

    def __init__(self) -> None:
        self.counts: dict[Phase, int] = dict.fromkeys(Phase, 0)

    def track(self) -> AttemptPhase:
        """Return the phase of one more attempt in flight, queued. Its owner must leave."""
        return AttemptPhase(self.counts)


class AttemptPhase:
    """Where one attempt in flight is."""

    __slots__ = ("_counts", "_phase")

    def __init__(self, counts: dict[Phase, int]) -> None:
        self._counts = counts
        self._phase: Phase | None = Phase.QUEUED
        counts[Phase.QUEUED] += 1

    def enter(self, phase: Phase | None) -> Phase | None:
        """Move to a phase, None for out of flight; return the one before."""
        before = self._phase
        if before is not None:
            self._counts[before] -= 1
        if phase is not None:
            self._counts[phase] += 1
        self._phase = phase
        return before


class RunMeter:
    """All counts of one process's part of a run."""

    def __init__(self) -> None:
        self.began_at = time.perf_counter()
        self.phases = PhaseCounter()
        self.n_turns = 0
        self.usage = Usage()
        self.n_failed = 0
        self.n_cancelled = 0
        self.n_resumed = 0
        self.n_restarted = 0
        self.stop_reasons: Counter[StopReason] = Counter()
        self.failures_by_owner: Counter[Owner] = Counter()
        self.recent: deque[FinishedAttempt] = deque(maxlen=N_RECENT)
        self.last_failure: str | None = None
        self.finished_rate = Rate()
        self.tokens_rate = Rate()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run of this process began."""
        return time.perf_counter() - self.began_at

    def on_turn(self, usage: Usage) -> None:
        """Count a model's reply."""
        self.n_turns += 1
        self.usage.add(usage)
        self.tokens_rate.add(usage.completion_tokens)

    def on_finished(self, attempt: FinishedAttempt) -> None:
        """Count an attempt that has its line."""
        self.stop_reasons[attempt.stop_reason] += 1
        self.recent.append(attempt)
        self.finished_rate.add()

    def on_failed_try(self, attempt: str, owner: Owner, error: str) -> None:
        """Count a try that failed by our fault."""
        self.failures_by_owner[owner] += 1
        self.last_failure = f"{attempt}: {in_one_line(error)}"


def in_one_line(error: str) -> str:
    """Return the first and the last line of an error; the whole is in failures.jsonl."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return " ... ".join([*lines[:1], *lines[1:][-1:]])
