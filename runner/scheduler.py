"""Many trajectories at once: workers over one iterator of attempts.

Each worker takes the next attempt, tries it until it ends by the model's doing or `max_tries` is used
up, and hands the record to the journal. Draining stops the taking; what still runs after the grace
period is cancelled, recorded as such, and left for a resume.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from runner.errors import JournalError
from runner.journal import Journal
from runner.plan import Attempt
from runner.records import SCHEMA_VERSION, Owner, StopReason, Trajectory, TryRecord
from runner.rollout import Outcome, Rollout, RolloutSettings

logger = logging.getLogger(__name__)

RETRIED = frozenset({StopReason.SANDBOX_ERROR, StopReason.ENGINE_ERROR})
FIRST_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What every line of a run repeats, so that a line can be read alone."""

    run_id: str
    config_hash: str
    benchmark: str
    model: str
    protocol: str
    kernel: str
    tier: str
    host: str
    seed: int
    """Of the run: see `attempt_seed`."""

    kernels: Mapping[str, str] = field(default_factory=dict)
    """The kernel of each sandbox profile that a sample may name; `kernel` is that of all others."""

    def kernel_of(self, profile: str | None) -> str:
        """Return the kernel that runs the code of samples with this profile."""
        return self.kernel if profile is None else self.kernels.get(profile, self.kernel)


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """How far a run is. Counts attempts of this process only."""

    n_total: int
    n_finished: int
    n_failed: int
    """By our fault, after all tries; they are not among the finished."""

    n_in_flight: int
    n_turns: int
    n_tokens: int
    stop_reasons: dict[str, int]
    elapsed_s: float
    last_failure: str | None


def idle_statistics() -> SchedulerStatistics:
    """Return the statistics of a run with nothing to do."""
    return SchedulerStatistics(0, 0, 0, 0, 0, 0, stop_reasons={}, elapsed_s=0.0, last_failure=None)


class Scheduler:
    """One run of `n_total` attempts, `concurrency` at a time."""

    def __init__(
        self,
        settings: RolloutSettings,
        identity: RunIdentity,
        journal: Journal,
        *,
        concurrency: int,
        n_total: int,
        grace_s: float,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._concurrency = min(concurrency, max(1, n_total))
        self._n_total = n_total
        self._grace_s = grace_s
        self._began_at = time.perf_counter()
        self._drain_asked = asyncio.Event()
        self._hurry_asked = asyncio.Event()
        self._n_in_flight = 0
        self._n_failed = 0
        self._n_turns = 0
        self._n_tokens = 0
        self._stop_reasons: Counter[str] = Counter()
        self._last_failure: str | None = None

    async def run(self, attempts: Iterable[Attempt]) -> None:
        """Run all attempts, or until drained.

        Raises:
            ExceptionGroup: of JournalError when the run directory cannot be written, or of a bug.
        """
        self._began_at = time.perf_counter()
        source = iter(attempts)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work(source)) for _ in range(self._concurrency)]
            drainer = group.create_task(self._drain(workers))
            await asyncio.wait(workers)
            drainer.cancel()

    def drain(self) -> None:
        """Take no further attempts; give running ones the grace period. A second call ends that too."""
        if self._drain_asked.is_set():
            self._hurry_asked.set()
        self._drain_asked.set()

    def statistics(self) -> SchedulerStatistics:
        """Return how far the run is."""
        return SchedulerStatistics(
            n_total=self._n_total,
            n_finished=self._stop_reasons.total(),
            n_failed=self._n_failed,
            n_in_flight=self._n_in_flight,
            n_turns=self._n_turns,
            n_tokens=self._n_tokens,
            stop_reasons=dict(self._stop_reasons),
            elapsed_s=time.perf_counter() - self._began_at,
            last_failure=self._last_failure,
        )

    async def _work(self, source: Iterator[Attempt]) -> None:
        for attempt in source:
            if self._drain_asked.is_set():
                return
            self._n_in_flight += 1
            try:
                await self._run_attempt(attempt)
            finally:
                self._n_in_flight -= 1

    async def _drain(self, workers: list[asyncio.Task[None]]) -> None:
        await self._drain_asked.wait()
        try:
            async with asyncio.timeout(self._grace_s):
                await self._hurry_asked.wait()
        except TimeoutError:
            pass
        for worker in workers:
            worker.cancel()

    async def _run_attempt(self, attempt: Attempt) -> None:
        tries: list[TryRecord] = []
        queued_s = time.perf_counter() - self._began_at
        while True:
            started_at = time.time()
            path, prefix = await asyncio.to_thread(
                self._journal.artifacts_dir, attempt.sample.id, attempt.epoch
            )
            rollout = Rollout(
                self._settings, attempt.sample, attempt.epoch, path, prefix, seed=self._seed_of(attempt)
            )
            rollout.outcome.timings.queued_s = queued_s
            try:
                outcome = await rollout.run()
            except asyncio.CancelledError:
                await self._record_cancelled(attempt, rollout.outcome, tries, started_at)
                raise
            trajectory = self._trajectory(attempt, outcome, tries, started_at)
            if outcome.owner in (Owner.MODEL, Owner.SAMPLE):
                await self._record_finished(trajectory)
                return
            tries.append(TryRecord(outcome.stop_reason, outcome.owner, outcome.error or "", time.time()))
            error = in_one_line(outcome.error or "")
            self._last_failure = f"{attempt.name}: {error}"
            logger.warning("attempt failed: attempt=%s try=%d error=%s", attempt.name, len(tries), error)
            if not self._is_worth_another(outcome, len(tries)):
                await self._record_failed(trajectory)
                return
            try:
                await asyncio.sleep(FIRST_RETRY_S * 2 ** (len(tries) - 1))
            except asyncio.CancelledError:
                await self._record_cancelled(attempt, outcome, tries, started_at)
                raise

    def _is_worth_another(self, outcome: Outcome, n_tries: int) -> bool:
        """Whether an attempt that failed by our fault is tried again."""
        can_help = outcome.stop_reason in RETRIED and not outcome.would_repeat
        return can_help and n_tries < self._settings.limits.max_tries

    def _seed_of(self, attempt: Attempt) -> int:
        return attempt_seed(self._identity.seed, attempt.name)

    async def _record_finished(self, trajectory: Trajectory) -> None:
        await self._journal.append(trajectory)
        self._stop_reasons[trajectory.stop_reason] += 1
        self._n_turns += len(trajectory.turns)
        self._n_tokens += trajectory.usage.total_tokens

    async def _record_failed(self, trajectory: Trajectory) -> None:
        await self._journal.append_failure(trajectory)
        self._n_failed += 1

    async def _record_cancelled(
        self, attempt: Attempt, outcome: Outcome, tries: list[TryRecord], started_at: float
    ) -> None:
        outcome.stop(StopReason.CANCELLED)
        trajectory = self._trajectory(attempt, outcome, tries, started_at)
        try:
            await self._journal.append_failure(trajectory)
        except JournalError as error:
            # The run is ending already, perhaps for this very reason.
            logger.warning("cancelled attempt not recorded: attempt=%s error=%s", attempt.name, error)

    def _trajectory(
        self, attempt: Attempt, outcome: Outcome, tries: list[TryRecord], started_at: float
    ) -> Trajectory:
        identity = self._identity
        return Trajectory(
            schema_version=SCHEMA_VERSION,
            run_id=identity.run_id,
            config_hash=identity.config_hash,
            benchmark=identity.benchmark,
            sample_id=attempt.sample.id,
            epoch=attempt.epoch,
            attempt=attempt.name,
            model=identity.model,
            protocol=identity.protocol,
            kernel=identity.kernel_of(attempt.sample.profile),
            tier=identity.tier,
            host=identity.host,
            seed=self._seed_of(attempt),
            messages=outcome.messages,
            turns=outcome.turns,
            stop_reason=outcome.stop_reason,
            owner=outcome.owner,
            error=outcome.error,
            tries=tries,
            artifacts=outcome.artifacts,
            usage=outcome.usage,
            timings=outcome.timings,
            started_at=started_at,
            finished_at=time.time(),
        )


def attempt_seed(run_seed: int, attempt: str) -> int:
    """Return the seed of an attempt, 0 to 2**32 - 1: the same for the same run seed and attempt."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{attempt}".encode()).digest()[:4], "big")


def in_one_line(error: str) -> str:
    """Return the first and the last line of an error; the whole is in failures.jsonl."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return " ... ".join([*lines[:1], *lines[1:][-1:]])
