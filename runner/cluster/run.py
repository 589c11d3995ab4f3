"""Drives the workers of a run, and replaces those that are lost.

To those who watch or control a run it is what a `Scheduler` is. Draining stops the handing out; workers
give what runs the grace period, and are ended soon after it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from runner.attempt import OnFinished
from runner.cluster.coordinator import Coordinator
from runner.cluster.crew import Crew, Member
from runner.cluster.desk import Desk
from runner.cluster.hands import Hand, Hands
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Over, Terms
from runner.cluster.pump import Pump
from runner.config import RunLimits
from runner.endpoint_table import EngineEndpoint
from runner.errors import DiskFull, JournalError, RunnerError, write_error
from runner.gate import Gate
from runner.journal import Journal
from runner.limits import run_limit_reached
from runner.plan import Attempt
from runner.recorder import RunIdentity
from runner.statistics import RunStatistics
from sandbox_pool import SandboxError

logger = logging.getLogger(__name__)

STAGING = ".workers"
"""In the run directory: folders of workers that see it."""

KEEP_INTERVAL_S = 0.2
HIRE_INTERVAL_S = 2.0
NO_WORKER_S = 300.0
"""A run without any worker ends after so long, and can be resumed."""

DRAIN_SLACK_S = 3.0
"""What workers get beyond the grace period to say how their last attempts ended."""

SUBMIT_AT_ONCE = 16
SUBMIT_LINGER_S = 0.02
"""How long an attempt waits for others on the way to a worker, which has some in hand."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a run on a cluster is driven."""

    concurrency: int
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
        self._identity = identity
        self._journal = journal
        self._settings = settings
        self._n_total = n_total
        self._n_done_before = n_done_before
        self._hands = Hands(settings.concurrency)
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
        self._serving: set[asyncio.Task[None]] = set()
        self._hiring: set[asyncio.Task[None]] = set()
        self._drain_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._draining: str | None = None
        self._paused: str | None = None
        self._endpoints: tuple[EngineEndpoint, ...] = ()
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
                while self._serving:
                    await asyncio.wait(self._serving)
                for task in [*tasks, *self._hiring]:
                    task.cancel()
        finally:
            self._desk.close()
            await self._hands.close()
            await asyncio.to_thread(partial(shutil.rmtree, staging, ignore_errors=True))

    def drain(self, reason: str = "asked to") -> None:
        """Hand nothing more out; what runs gets the grace period. A second call ends that too."""
        self._hands.tell_all("drain", reason)
        if self._drain_asked.is_set():
            self._hurry_asked.set()
            return
        self._draining = reason
        self._desk.is_closed = True
        self._drain_asked.set()
        self._is_ending.set()
        self._event("draining", reason=reason, n_in_flight=len(self._coordinator.running()))

    def pause(self, reason: str) -> None:
        """Begin nothing until `resume`; what runs goes on."""
        self._paused = reason
        self._hands.tell_all("pause", reason)

    def resume(self) -> None:
        """End a pause."""
        self._paused = None
        self._hands.tell_all("resume")

    def cancel(self, sample_id: str) -> list[str]:
        """Cancel the running attempts of a sample, or one by its name; return which. A resume runs them."""
        running = self._coordinator.running()
        names = [name for name in running if sample_id in (name, name.rpartition("@")[0])]
        for name in names:
            self._hands.tell(self._hands[str(self._coordinator.owner_of(name))], "cancel", name)
        return names

    def set_endpoints(self, table: tuple[EngineEndpoint, ...]) -> None:
        """Tell all workers which engines there are, where the run hosts them itself."""
        self._endpoints = table
        self._hands.tell_all("set_endpoints", table)

    def set_concurrency(self, concurrency: int) -> int:
        """Change how many trajectories may be in flight; return what is in force."""
        self._event("concurrency_set", before=self._hands.concurrency, after=concurrency)
        self._hands.concurrency = concurrency
        self._share_out()
        return concurrency

    def statistics(self) -> RunStatistics:
        """Return how far the run is, by what each worker said a moment ago."""
        own = RunStatistics(
            n_total=self._n_total,
            n_done_before=self._n_done_before,
            concurrency=self._hands.concurrency,
            paused=self._paused,
            draining=self._draining,
        )
        return self._desk.statistics(own)

    def _join(self, member: Member) -> None:
        """Let a worker that is open take part."""
        pump = Pump(member.name, member.link, self._desk.intake, self._coordinator.owns)
        hand = Hand(member, pump)
        self._hands.add(hand)
        self._no_worker_since = None
        task = self._group.create_task(self._serve(hand))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _feed(self, attempts: Iterator[Attempt]) -> None:
        """Hand out when all first workers are there, so that each has its part."""
        for hand in list(self._hands):
            await hand.has_answered.wait()
        await self._desk.feed(attempts)

    async def _serve(self, hand: Hand) -> None:
        """Let one worker work, to its end."""
        submitting: asyncio.Task[None] | None = None
        try:
            if not await self._has_begun(hand):
                return
            hand.has_answered.set()
            self._desk.dispatch()
            submitting = self._group.create_task(self._submit(hand))
            over = await hand.pump.hear(partial(self._desk.on_message, hand.name))
            self._on_over(hand, over)
        except (WorkerLost, WorkerUnavailable) as error:
            await self._on_lost(hand, str(error))
        finally:
            if submitting is not None:
                submitting.cancel()
            hand.has_answered.set()
            self._hands.remove(hand)
            self._crew.drop(hand.member)
            self._desk.totals.gone(hand.name)
        if len(self._hands):
            self._share_out()

    async def _has_begun(self, hand: Hand) -> bool:
        """Begin; return False where a worker cannot. Raises its error if it is the last one."""
        try:
            await self._begin(hand)
        except (WorkerLost, WorkerUnavailable):
            raise
        except (RunnerError, OSError) as error:
            self._crew.failed(hand.member.node, error)
            self._event("worker_failed", worker=hand.name, reason=str(error))
            logger.warning("worker %s cannot begin: %s", hand.name, error)
            if len(self._hands) == 1:
                raise
            return False
        return True

    async def _begin(self, hand: Hand) -> None:
        staging = self._journal.run_dir.absolute() / STAGING / hand.name
        nonce = uuid4().hex
        await asyncio.to_thread(_make_staging, staging, nonce)
        hand.concurrency = self._hands.share_of(hand.name)
        terms = Terms(
            identity=self._identity,
            concurrency=hand.concurrency,
            n_workers=len(self._hands),
            grace_s=self._settings.grace_s,
            staging=str(staging),
            nonce=nonce,
            endpoints=self._endpoints,
        )
        sees_run_dir = await hand.member.link.call("begin", terms)
        hand.has_begun = True
        self._coordinator.add_worker(hand.name, hand.concurrency)
        info = hand.member.info
        details = {"sees_run_dir": sees_run_dir, "has_benchmark": info.has_benchmark}
        self._event("worker_joined", worker=hand.name, node=hand.member.node, **details)
        if self._paused is not None:
            self._hands.tell(hand, "pause", self._paused)
        if self._draining is not None:
            self._hands.tell(hand, "drain", self._draining)
        elif self._is_ending.is_set():
            self._hands.tell(hand, "finish")
        self._share_out()
        self._desk.dispatch()

    async def _submit(self, hand: Hand) -> None:
        has_benchmark = hand.member.info.has_benchmark
        with suppress(WorkerLost):  # who hears it learns that too
            while True:
                names = await hand.inbox.get()
                await asyncio.sleep(SUBMIT_LINGER_S)
                while not hand.inbox.empty():
                    names += hand.inbox.get_nowait()
                for begin in range(0, len(names), SUBMIT_AT_ONCE):
                    some = names[begin : begin + SUBMIT_AT_ONCE]
                    prepare = partial(self._desk.assignments, some, has_benchmark=has_benchmark)
                    await hand.pump.insist("submit", await asyncio.to_thread(prepare))

    def _on_done(self) -> None:
        self._is_ending.set()
        self._hands.tell_all("finish")

    def _on_over(self, hand: Hand, over: Over) -> None:
        """A worker's scheduler has ended: because nothing is left, or because it cannot go on."""
        held = self._coordinator.retire(hand.name)
        if over.error is None and over.drained is None:
            return
        why = str(over.error or over.drained)
        self._crew.exclude(hand.member.node)
        self._event("worker_gave_up", worker=hand.name, reason=why, n_requeued=len(held))
        logger.warning("worker %s gave up: %s", hand.name, why)
        is_last = len(self._hands) == 1
        if over.error is not None and (is_last or not isinstance(over.error, SandboxError)):
            raise over.error
        if is_last:
            self.drain(why)
        self._desk.dispatch()

    async def _on_lost(self, hand: Hand, why: str) -> None:
        requeued = await self._desk.lose(hand.name)
        self._event("worker_lost", worker=hand.name, reason=why, n_requeued=len(requeued))
        logger.warning("worker %s is lost: %s. %d attempts are requeued", hand.name, why, len(requeued))

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
                self._group.create_task(self._take_back_from(hand, names))

    async def _take_back_from(self, hand: Hand, names: list[str]) -> None:
        with suppress(WorkerLost):
            self._coordinator.returned(hand.name, await hand.pump.insist("withdraw", names))
            self._desk.dispatch()
        hand.is_giving_back = False

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

    def _share_out(self) -> None:
        for hand in self._hands.share_out():
            self._coordinator.set_concurrency(hand.name, hand.concurrency)
        self._desk.dispatch()

    def _event(self, name: str, **details: Any) -> None:
        with suppress(JournalError):  # the next line says it
            self._journal.event(name, **details)


def _make_staging(folder: Path, nonce: str) -> None:
    try:
        folder.mkdir(parents=True)
        (folder / nonce).touch()
    except OSError as error:
        raise write_error(folder, error) from error
