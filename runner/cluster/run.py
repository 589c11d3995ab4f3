"""Drives the workers of a run, and replaces those that are lost.

To those who watch or control a run it is what a `Scheduler` is. Draining stops the handing out; workers
give what runs the grace period, and are ended soon after it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from runner.cluster.coordinator import Coordinator
from runner.cluster.crew import Crew, Member
from runner.cluster.desk import Desk
from runner.cluster.hands import Hands
from runner.cluster.serving import STAGING, Serving
from runner.config import RunLimits
from runner.endpoint_table import EngineEndpoint
from runner.errors import DiskFull, JournalError
from runner.gate import Gate
from runner.journal import Journal
from runner.plan import Attempt
from runner.recorder import RunIdentity
from runner.scheduling.attempt import OnFinished
from runner.telemetry.statistics import RunStatistics
from runner.trajectory.limits import run_limit_reached

KEEP_INTERVAL_S = 0.2
HIRE_INTERVAL_S = 2.0
NO_WORKER_S = 300.0
"""A run without any worker ends after so long, and can be resumed."""

DRAIN_SLACK_S = 3.0
"""What workers get beyond the grace period to say how their last attempts ended."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a run on a cluster is driven."""

    concurrency: int
    max_calls: int | None = None
    """At each endpoint; None: as many as trajectories."""

    grace_s: float = 30.0
    window_factor: float = 2.0
    run_limits: RunLimits = field(default_factory=RunLimits)
    resumes_turns: bool = True


class ClusterRun:
    """One process's part of a run: `n_total` attempts, on the workers of a crew."""

    def __init__(
        self,
        crew: Crew,
        identity: RunIdentity,
        journal: Journal,
        settings: ClusterSettings,
        *,
        n_total: int,
        n_done_before: int = 0,
        on_finished: OnFinished | None = None,
        shared_trajectories: Gate | None = None,
    ) -> None:
        """`shared_trajectories` is a limit that other runs have a part in."""
        self._crew = crew
        self._journal = journal
        self._settings = settings
        self._n_total = n_total
        self._n_done_before = n_done_before
        self._hands = Hands(settings.concurrency, settings.max_calls)
        self._coordinator = Coordinator(settings.window_factor)
        self._desk = Desk(
            journal,
            identity,
            self._coordinator,
            give=lambda worker, names: self._hands[worker].inbox.put_nowait(names),
            on_done=self._on_done,
            on_finished=on_finished,
            shared_trajectories=shared_trajectories,
            resumes_turns=settings.resumes_turns,
        )
        self._serving = Serving(
            crew,
            self._hands,
            self._coordinator,
            self._desk,
            journal,
            identity,
            grace_s=settings.grace_s,
            drain=self.drain,
        )
        self._served: set[asyncio.Task[None]] = set()
        self._hiring: set[asyncio.Task[None]] = set()
        self._drain_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._no_worker_since: float | None = None

    async def run(self, attempts: Iterable[Attempt]) -> None:
        """Run all attempts, or until drained.

        Raises:
            ExceptionGroup: of a bug, or of what keeps every worker from running anything.
            JournalError: the run directory cannot be written.
        """
        staging = self._journal.run_dir / STAGING
        await asyncio.to_thread(partial(shutil.rmtree, staging, ignore_errors=True))
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for member in self._crew.members:
                    self._join(member)
                works = [self._feed(iter(attempts)), self._keep(), self._hire(), self._drain()]
                tasks = [group.create_task(work) for work in works]
                await self._is_ending.wait()
                while self._served:
                    await asyncio.wait(self._served)
                for task in [*tasks, *self._hiring]:
                    task.cancel()
        finally:
            self._desk.close()
            await asyncio.to_thread(partial(shutil.rmtree, staging, ignore_errors=True))

    def drain(self, reason: str = "asked to") -> None:
        """Hand nothing more out; what runs gets the grace period. A second call ends that too."""
        self._hands.drain(reason)
        if self._drain_asked.is_set():
            self._hurry_asked.set()
            return
        self._desk.is_closed = True
        self._drain_asked.set()
        self._is_ending.set()
        self._event("draining", reason=reason, n_in_flight=len(self._coordinator.running()))

    def pause(self, reason: str) -> None:
        """Begin nothing until `resume`; what runs goes on."""
        self._hands.pause(reason)

    def resume(self) -> None:
        """End a pause."""
        self._hands.resume()

    def cancel(self, sample_id: str) -> list[str]:
        """Cancel the running attempts of a sample, or one by its name; return which. A resume runs them."""
        running = self._coordinator.running()
        names = [name for name in running if sample_id in (name, name.rpartition("@")[0])]
        self._desk.cancelling(names)
        for name in names:
            self._hands[str(self._coordinator.owner_of(name))].tell("cancel", name)
        return names

    def set_endpoints(self, table: tuple[EngineEndpoint, ...]) -> None:
        """Tell all workers which engines there are, where the run hosts them itself."""
        self._hands.set_endpoints(table)

    def set_concurrency(self, concurrency: int) -> int:
        """Change how many trajectories may be in flight; return what is in force."""
        self._event("concurrency_set", before=self._hands.concurrency, after=concurrency)
        self._hands.concurrency = concurrency
        self._serving.share_out()
        return concurrency

    def statistics(self) -> RunStatistics:
        """Return how far the run is, by what each worker said a moment ago."""
        own = RunStatistics(
            n_total=self._n_total,
            n_done_before=self._n_done_before,
            concurrency=self._hands.concurrency,
            paused=self._hands.paused,
            draining=self._hands.draining,
        )
        return self._desk.statistics(own)

    def _join(self, member: Member) -> None:
        """Let a worker that is open take part."""
        self._no_worker_since = None
        task = self._group.create_task(self._serving.serve(self._serving.join(member), self._group))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _feed(self, attempts: Iterator[Attempt]) -> None:
        """Hand out when all first workers are there, so that each has its part."""
        for hand in list(self._hands):
            await hand.has_answered.wait()
        await self._desk.feed(attempts)

    def _on_done(self) -> None:
        self._is_ending.set()
        self._hands.finish()

    async def _keep(self) -> None:
        """Hold the run to its limits and to a disk that can be written; move work to idle workers."""
        while not self._drain_asked.is_set():
            await asyncio.sleep(KEEP_INTERVAL_S)
            if reason := self._reason_to_end():
                self.drain(reason)
            elif self._desk.all_taken:
                self._take_back()

    def _take_back(self) -> None:
        for worker, names in self._coordinator.withdrawals().items():
            hand = self._hands[worker]
            if not hand.is_giving_back:
                hand.is_giving_back = True
                self._group.create_task(self._serving.take_back(hand, names))

    async def _hire(self) -> None:
        """Replace workers that are lost, and take in nodes that join, while there is work for them."""
        while not self._is_ending.is_set():
            await asyncio.sleep(HIRE_INTERVAL_S)
            if not self._desk.all_taken or self._coordinator.has_queued or not len(self._hands):
                task = self._group.create_task(self._hire_now())
                self._hiring.add(task)
                task.add_done_callback(self._hiring.discard)

    async def _hire_now(self) -> None:
        for member in await self._crew.hire():
            self._join(member)

    async def _drain(self) -> None:
        await self._drain_asked.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace_s):
                await self._hurry_asked.wait()
        await asyncio.sleep(DRAIN_SLACK_S)
        for hand in self._hands:
            hand.member.link.kill()

    def _reason_to_end(self) -> str | None:
        trouble = self._journal.trouble
        if trouble is not None:
            return "the disk is full" if isinstance(trouble, DiskFull) else str(trouble)
        if not len(self._hands):
            now = time.monotonic()
            self._no_worker_since = self._no_worker_since or now
            if now - self._no_worker_since >= NO_WORKER_S:
                return f"there was no worker for {NO_WORKER_S:g} s; the last error: {self._crew.last_error}"
        s = self.statistics()
        n_tokens = s.n_prompt_tokens + s.n_completion_tokens
        return run_limit_reached(self._settings.run_limits, s.elapsed_s, n_tokens, s.cost or 0.0)

    def _event(self, name: str, **details: Any) -> None:
        with suppress(JournalError):  # the next line says it
            self._journal.event(name, **details)
