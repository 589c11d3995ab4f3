"""The numbers of a whole run, from those of its workers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from runner.telemetry.statistics import EndpointStatistics, RunStatistics, SandboxStatistics

COUNTED = ("n_turns", "n_prompt_tokens", "n_completion_tokens", "n_resumed", "n_restarted")
"""What stays counted when a worker is gone."""


class Totals:
    """Adds up what workers said last."""

    def __init__(self) -> None:
        self._now: dict[str, RunStatistics] = {}
        self._counts: Counter[str] = Counter()
        self._cost: float | None = None
        self._failures: Counter[Any] = Counter()
        self._last_failure: str | None = None

    def update(self, worker: str, statistics: RunStatistics) -> None:
        """Take what a worker says of itself."""
        self._now[worker] = statistics
        self._last_failure = statistics.last_failure or self._last_failure

    def gone(self, worker: str) -> None:
        """A worker is gone; what it did stays done."""
        last = self._now.pop(worker, None)
        if last is not None:
            self._counts.update({name: getattr(last, name) for name in COUNTED})
            self._failures.update(last.failures_by_owner)
            self._cost = _sum_of([self._cost, last.cost])

    def of_run(self, own: RunStatistics) -> RunStatistics:
        """Return the driver's own numbers with those of all workers."""
        all_now = list(self._now.values())
        counts = Counter(self._counts)
        failures = Counter(self._failures)
        phases: Counter[Any] = Counter()
        for one in all_now:
            counts.update({name: getattr(one, name) for name in COUNTED})
            failures.update(one.failures_by_owner)
            phases.update(one.phases)
        return replace(
            own,
            n_turns=counts["n_turns"],
            n_prompt_tokens=counts["n_prompt_tokens"],
            n_completion_tokens=counts["n_completion_tokens"],
            n_resumed=counts["n_resumed"],
            n_restarted=counts["n_restarted"],
            n_in_flight=sum(one.n_in_flight for one in all_now),
            max_trajectories=sum(one.max_trajectories for one in all_now),
            phases=dict(phases),
            cost=_sum_of([self._cost, *(one.cost for one in all_now)]),
            failures_by_owner=dict(failures),
            tokens_per_s=sum(one.tokens_per_s for one in all_now),
            loop_lag_p50_s=max((one.loop_lag_p50_s for one in all_now), default=0.0),
            loop_lag_p99_s=max((one.loop_lag_p99_s for one in all_now), default=0.0),
            endpoints=_endpoints(all_now),
            sandboxes=_sandboxes([one.sandboxes for one in all_now if one.sandboxes]),
            paused=own.paused or next((one.paused for one in all_now if one.paused), None),
            last_failure=own.last_failure or self._last_failure,
        )


def _sum_of(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


def _endpoints(all_now: Iterable[RunStatistics]) -> tuple[EndpointStatistics, ...]:
    merged: dict[str, EndpointStatistics] = {}
    for endpoint in (endpoint for one in all_now for endpoint in one.endpoints):
        before = merged.get(endpoint.name)
        merged[endpoint.name] = endpoint if before is None else _both(before, endpoint)
    return tuple(merged.values())


def _both(a: EndpointStatistics, b: EndpointStatistics) -> EndpointStatistics:
    latencies = [one.latency_s for one in (a, b) if one.latency_s is not None]
    return replace(
        a,
        state="ready" if "ready" in (a.state, b.state) else a.state,
        n_calls_in_flight=a.n_calls_in_flight + b.n_calls_in_flight,
        n_calls_waiting=a.n_calls_waiting + b.n_calls_waiting,
        max_calls=a.max_calls + b.max_calls,
        n_trajectories=a.n_trajectories + b.n_trajectories,
        max_trajectories=a.max_trajectories + b.max_trajectories,
        latency_s=max(latencies, default=None),
        n_calls=a.n_calls + b.n_calls,
        n_failed_calls=a.n_failed_calls + b.n_failed_calls,
    )


def _sandboxes(pools: Sequence[SandboxStatistics]) -> SandboxStatistics | None:
    if not pools:
        return None
    return SandboxStatistics(
        n_leased=sum(pool.n_leased for pool in pools),
        n_waiting=sum(pool.n_waiting for pool in pools),
        max_leased=sum(pool.max_leased for pool in pools),
        n_idle=sum(pool.n_idle for pool in pools),
    )
