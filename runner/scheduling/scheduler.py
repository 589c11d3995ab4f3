"""Many trajectories at once: attempts are taken from one iterator as fast as the limits let them begin.

Three limits are kept apart: trajectories in flight here, model calls in each endpoint's gate, sandboxes in
theirs. Draining stops the taking; what still runs after the grace period is cancelled, recorded as such,
and left for a resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from runner.admission import SandboxAdmission
from runner.config import AdmissionConfig, BreakerConfig, RunLimits
from runner.errors import DiskFull, JournalError
from runner.gate import Gate
from runner.journal import AttemptJournal
from runner.plan import Attempt
from runner.recorder import RunIdentity
from runner.scheduling.attempt import AttemptRunner, OnFinished
from runner.scheduling.breaker import Breaker
from runner.scheduling.sandbox_limit import adapt_sandboxes
from runner.scheduling.turnstile import Turnstile
from runner.telemetry.loop_lag import LoopLag
from runner.telemetry.statistics import RunStatistics, SandboxStatistics
from runner.trajectory.limits import run_limit_reached
from runner.trajectory.rollout import RolloutSettings
from sandbox_pool.config import n_cores

KEEP_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """How a run is driven."""

    concurrency: int
    grace_s: float = 30.0
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    run_limits: RunLimits = field(default_factory=RunLimits)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    max_sandboxes: int | None = None
    """What the pool has room for; None: as many as trajectories."""


class Scheduler:
    """One process's part of a run: `n_total` attempts."""

    def __init__(
        self,
        rollouts: RolloutSettings,
        identity: RunIdentity,
        journal: AttemptJournal,
        settings: SchedulerSettings,
        *,
        n_total: int,
        n_done_before: int = 0,
        n_idle_sandboxes: Callable[[], int] = lambda: 0,
        on_finished: OnFinished | None = None,
        on_ended: Callable[[str], None] = lambda attempt: None,
        shared_trajectories: Gate | None = None,
    ) -> None:
        """`on_ended` is told each attempt that is not running any more, whatever came of it.

        `shared_trajectories` is a limit that other runs have a part in, as in the sandboxes.
        """
        self._rollouts = rollouts
        self._journal = journal
        self._settings = settings
        self._n_total = n_total
        self._n_done_before = n_done_before
        self._n_idle_sandboxes = n_idle_sandboxes
        self._concurrency = settings.concurrency
        self._meter = rollouts.meter
        self._trajectories = Gate(settings.concurrency)
        self._shared_trajectories = shared_trajectories
        self._tell_ended = on_ended
        self._sandbox_gate = rollouts.sandboxes.gate
        self._turnstile = Turnstile(Breaker(settings.breaker), journal.event, self.drain)
        self._attempts = AttemptRunner(rollouts, identity, journal, self._turnstile, on_finished)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._feeder: asyncio.Task[None] | None = None
        self._drain_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()
        self._draining: str | None = None
        self._loop_lag = LoopLag()

    async def run(self, attempts: Iterable[Attempt] | AsyncIterable[Attempt]) -> None:
        """Run all attempts, or until drained.

        Raises:
            ExceptionGroup: of a bug, or of UnsupportedHost.
            JournalError: the run directory cannot be written; what ran was given time to end.
        """
        try:
            async with self._loop_lag, asyncio.TaskGroup() as group:
                works = [self._keep(), self._drain()]
                if self._shared_trajectories is None:
                    works.append(self._adapt_sandboxes())
                keepers = [group.create_task(work) for work in works]
                self._feeder = group.create_task(self._feed(group, _each(attempts)))
                if self._drain_asked.is_set():
                    self._feeder.cancel()
                await asyncio.wait([self._feeder])
                while self._running:
                    await asyncio.wait(list(self._running.values()))
                for keeper in keepers:
                    keeper.cancel()
        finally:
            self._turnstile.close()

    def drain(self, reason: str = "asked to") -> None:
        """Take no further attempts; give running ones the grace period. A second call ends that too."""
        if self._drain_asked.is_set():
            self._hurry_asked.set()
            return
        self._draining = reason
        self._drain_asked.set()
        with suppress(JournalError):
            self._journal.event("draining", reason=reason, n_in_flight=len(self._running))
        if self._feeder is not None:
            self._feeder.cancel()

    def pause(self, reason: str) -> None:
        """Begin nothing until `resume`; what runs goes on."""
        self._turnstile.pause(reason)

    def resume(self) -> None:
        """End a pause."""
        self._turnstile.resume()

    def cancel(self, sample_id: str) -> list[str]:
        """Cancel the running attempts of a sample, or one by its name; return which. A resume runs them."""
        names = [name for name in self._running if sample_id in (name, name.rpartition("@")[0])]
        for name in names:
            self._running[name].cancel()
            self._journal.event("attempt_cancelled", attempt=name)
        return names

    def set_concurrency(self, concurrency: int) -> int:
        """Change how many trajectories may be in flight; return what is in force."""
        self._journal.event("concurrency_set", before=self._concurrency, after=concurrency)
        self._concurrency = concurrency
        self._rollouts.model.set_concurrency(concurrency)
        self._apply_cap()
        return concurrency

    def statistics(self) -> RunStatistics:
        """Return how far the run is."""
        meter = self._meter
        return RunStatistics(
            n_total=self._n_total,
            n_done_before=self._n_done_before,
            n_finished=meter.stop_reasons.total(),
            n_failed=meter.n_failed,
            n_cancelled=meter.n_cancelled,
            n_in_flight=len(self._running),
            concurrency=self._concurrency,
            max_trajectories=self._trajectories.limit,
            phases=dict(meter.phases.counts),
            n_turns=meter.n_turns,
            n_prompt_tokens=meter.usage.prompt_tokens,
            n_completion_tokens=meter.usage.completion_tokens,
            cost=meter.usage.cost,
            stop_reasons=dict(meter.stop_reasons),
            failures_by_owner=dict(meter.failures_by_owner),
            n_resumed=meter.n_resumed,
            n_restarted=meter.n_restarted,
            elapsed_s=meter.elapsed_s,
            finished_per_s=meter.finished_rate.per_s(),
            tokens_per_s=meter.tokens_rate.per_s(),
            loop_lag_p50_s=self._loop_lag.p50_s,
            loop_lag_p99_s=self._loop_lag.p99_s,
            endpoints=self._rollouts.model.endpoints(),
            sandboxes=SandboxStatistics(
                n_leased=self._sandbox_gate.n_held,
                n_waiting=self._sandbox_gate.n_waiting,
                max_leased=self._sandbox_gate.limit,
                n_idle=self._n_idle_sandboxes(),
            ),
            recent=tuple(meter.recent),
            paused=self._turnstile.paused,
            draining=self._draining,
            last_failure=meter.last_failure,
        )

    async def _feed(self, group: asyncio.TaskGroup, source: AsyncIterator[Attempt]) -> None:
        async for attempt in source:
            await self._turnstile.wait()
            await self._trajectories.acquire()
            if self._shared_trajectories is not None:
                await self._shared_trajectories.acquire()
            task = group.create_task(self._run_attempt(attempt))
            self._running[attempt.name] = task
            task.add_done_callback(partial(self._on_ended, attempt.name))

    def _on_ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._running[name]
        self._trajectories.release()
        if self._shared_trajectories is not None:
            self._shared_trajectories.release()
        self._tell_ended(name)

    async def _run_attempt(self, attempt: Attempt) -> None:
        try:
            await self._attempts.run(attempt)
        except JournalError as error:
            self._journal.trouble = self._journal.trouble or error

    async def _keep(self) -> None:
        """Hold the run to what its endpoints bear, to its limits, and to a disk that can be written."""
        while True:
            self._apply_cap()
            if not self._drain_asked.is_set() and (reason := self._reason_to_end()):
                self.drain(reason)
            await asyncio.sleep(KEEP_INTERVAL_S)

    async def _adapt_sandboxes(self) -> None:
        settings = self._settings
        admission = SandboxAdmission(
            max_leased=settings.max_sandboxes or settings.concurrency,
            n_cores=n_cores(),
            adaptive=settings.admission.mode == "adaptive",
        )
        poll_s = settings.admission.poll_s
        await adapt_sandboxes(self._sandbox_gate, admission, poll_s, self._journal.event)

    async def _drain(self) -> None:
        await self._drain_asked.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace_s):
                await self._hurry_asked.wait()
        for task in self._running.values():
            task.cancel()

    def _apply_cap(self) -> None:
        cap = self._rollouts.model.max_trajectories()
        self._trajectories.limit = self._concurrency if cap is None else max(1, min(self._concurrency, cap))

    def _reason_to_end(self) -> str | None:
        trouble = self._journal.trouble
        if trouble is not None:
            return "the disk is full" if isinstance(trouble, DiskFull) else str(trouble)
        usage = self._meter.usage
        return run_limit_reached(
            self._settings.run_limits, self._meter.elapsed_s, usage.total_tokens, usage.cost or 0.0
        )


async def _each(attempts: Iterable[Attempt] | AsyncIterable[Attempt]) -> AsyncIterator[Attempt]:
    if isinstance(attempts, AsyncIterable):
        async for attempt in attempts:
            yield attempt
        return
    for attempt in attempts:
        yield attempt
