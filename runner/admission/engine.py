"""What to make of an engine's metrics: how full its KV cache is, who queues, what it drops, whether it lives.

Grow below `kv_grow`, trim above `kv_soft`, at once above `kv_hard`; cut when requests were preempted, when
calls queue for want of room, and when an engine with calls makes no token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from runner.admission.observed import EngineLoad, grown
from runner.config import AdmissionConfig

BINDS = 0.9
"""A cap of which less is in use is not what holds an endpoint back."""

N_POLLS_MISSED = 3
CUT_INTERVAL_S = 1.0


class Wish(NamedTuple):
    """A cap as it should be, before the user's limit is applied."""

    what: Literal["calls", "trajectories"]
    cap: int
    reason: str


@dataclass(frozen=True, slots=True)
class Use:
    """What is in flight at an endpoint, and its caps."""

    n_calls_in_flight: int
    n_calls_waiting: int
    n_trajectories: int
    max_calls: int
    max_trajectories: int
    growth: float
    """Of the cap of calls, when it grows."""

    @property
    def trajectories_in_use(self) -> int:
        """What a cut is taken from: what is there may be less than the cap."""
        return min(self.max_trajectories, max(1, self.n_trajectories))

    def reduced(self, share: float) -> int:
        """Return the cap for a share of the trajectories that are there.

        More than the cap are there while an earlier cut is waited for: they fill the cache, not the cap, and
        a cut of the cap at each look would end at one.
        """
        return min(self.max_trajectories, int(share * max(1, self.n_trajectories)))


class EngineAdmission:
    """Reads the metrics of one engine, poll by poll."""

    def __init__(self, config: AdmissionConfig) -> None:
        self._config = config
        self._before: EngineLoad | None = None
        self._n_polls_queued = 0
        self._cut_at = -math.inf
        self._trimmed_at = -math.inf
        self._made_token_at = 0.0
        self._looked_at = 0.0
        self._tells_usage = False

    @property
    def has_read(self) -> bool:
        """Whether the engine has metrics."""
        return self._before is not None

    def on_load(self, now: float, load: EngineLoad, use: Use) -> list[Wish]:
        """Return the caps that should be others. Counters that fall were those of an engine started again."""
        before, self._before = self._before, load
        looked_at, self._looked_at = self._looked_at, now
        if before is None:
            self._made_token_at = now
            self._tells_usage = load.kv_usage is not None
            return self._begin(load, use)
        if now - looked_at > max(self._config.stall_s, N_POLLS_MISSED * self._config.poll_s):
            self._made_token_at = now  # nobody looked meanwhile: it may have had nothing to do
        if self._has_stalled(now, before, load):
            return self._on_stall(load, use)
        if n_preemptions := _increase(before.n_preemptions, load.n_preemptions):
            return self._on_preemptions(now, n_preemptions, use)
        self._tells_usage = self._tells_usage or load.kv_usage is not None
        usage = load.kv_usage or 0.0
        if usage > self._config.kv_soft:
            return self._trim(now, usage, use)
        queued = self._on_queue(load, use)
        is_known = load.kv_usage is not None or not self._tells_usage
        is_calm = now - self._trimmed_at > self._config.hard_trim_s
        if queued or load.n_queued or usage >= self._config.kv_grow or not (is_known and is_calm):
            return queued
        return self._grow(usage, use)

    def _begin(self, load: EngineLoad, use: Use) -> list[Wish]:
        if not load.max_kv_tokens:
            return []
        fits = max(8, load.max_kv_tokens // self._config.tokens_per_trajectory)
        reason = f"the KV cache holds {load.max_kv_tokens} tokens"
        return [Wish("trajectories", min(use.max_trajectories, fits), reason)]

    def _has_stalled(self, now: float, before: EngineLoad, load: EngineLoad) -> bool:
        """Whether it has had calls for `stall_s` and made no token; after that it has as long again."""
        has_calls = load.n_running + load.n_waiting > 0
        if not has_calls or load.n_generated_tokens != before.n_generated_tokens:
            self._made_token_at = now
        if now - self._made_token_at < self._config.stall_s:
            return False
        self._made_token_at = now
        return True

    def _on_stall(self, load: EngineLoad, use: Use) -> list[Wish]:
        n_calls = load.n_running + load.n_waiting
        reason = f"no token for {self._config.stall_s:g} s with {n_calls} calls (admission.stall_s)"
        calls = min(use.max_calls, max(1, use.n_calls_in_flight))
        return [
            Wish("calls", int(self._config.cut * calls), reason),
            Wish("trajectories", int(self._config.cut * use.trajectories_in_use), reason),
        ]

    def _on_preemptions(self, now: float, n: int, use: Use) -> list[Wish]:
        if now - self._cut_at < CUT_INTERVAL_S:
            return []
        self._cut_at = self._trimmed_at = now
        return [Wish("trajectories", use.reduced(self._config.cut), f"{n} preemptions")]

    def _trim(self, now: float, usage: float, use: Use) -> list[Wish]:
        is_hard = usage > self._config.kv_hard
        if now - self._trimmed_at < (self._config.hard_trim_s if is_hard else self._config.soft_trim_s):
            return []
        self._trimmed_at = now
        fits = use.reduced(self._config.kv_target / usage)
        return [Wish("trajectories", fits, f"KV cache {usage:.0%} full")]

    def _on_queue(self, load: EngineLoad, use: Use) -> list[Wish]:
        if load.n_queued <= self._config.max_queued * max(1, load.n_running):
            self._n_polls_queued = 0
            return []
        self._n_polls_queued += 1
        if self._n_polls_queued < self._config.n_polls_queued:
            return []
        self._n_polls_queued = 0
        fits = load.n_running + load.n_queued // 2
        reason = f"{load.n_queued} calls queue in the engine beside {load.n_running} running"
        return [Wish("calls", min(int(0.9 * use.max_calls), max(1, fits)), reason)]

    def _grow(self, usage: float, use: Use) -> list[Wish]:
        reason = f"KV cache {usage:.0%} full and no queue"
        wishes = []
        if use.n_calls_waiting or use.n_calls_in_flight >= BINDS * use.max_calls:
            wishes.append(Wish("calls", grown(use.max_calls, use.growth), reason))
        if use.n_trajectories >= BINDS * use.max_trajectories:
            wishes.append(Wish("trajectories", grown(use.max_trajectories, self._config.growth), reason))
        return wishes


def _increase(before: int, after: int) -> int:
    """Return by how much a counter has risen, from zero if its engine was started again."""
    return after - before if after >= before else after
