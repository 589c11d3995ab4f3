"""The attempts of a run on a cluster: taken as workers have room, handed out, counted when they end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from runner.cluster.coordinator import Coordinator
from runner.cluster.intake import Intake
from runner.cluster.messages import (
    Answer,
    Assignment,
    Begun,
    Ended,
    Incomplete,
    Message,
    Progress,
    Recorded,
    WorkerInfo,
)
from runner.cluster.rebuild import read_trajectory
from runner.cluster.shipping import packed
from runner.cluster.totals import Totals
from runner.errors import JournalError
from runner.gate import Gate
from runner.journal import Journal
from runner.models.conversation import Conversation
from runner.plan import Attempt, attempt_seed
from runner.recorder import AttemptHistory, Recorder, RunIdentity
from runner.records import StopReason
from runner.scheduling.attempt import OnFinished
from runner.telemetry.meter import RunMeter
from runner.telemetry.statistics import RunStatistics
from runner.trajectory.outcome import Outcome

SUBMIT_AT_ONCE = 16
SUBMIT_BYTES_AT_ONCE = 8 << 20

MAX_UNRECORDED = 3
"""Ends of an attempt without a line, before it is given up: it may be what its workers break on."""

UNRECORDABLE = f"it ended {MAX_UNRECORDED} times without a line; why is in events.log, at worker_gave_up"
POISONOUS = "two workers were lost on which nothing else ran; look at what its code does to a machine"


class Desk:
    """`give` is told what a worker is to be given, `on_done` that there is nothing left to do."""

    def __init__(
        self,
        journal: Journal,
        identity: RunIdentity,
        coordinator: Coordinator,
        *,
        give: Callable[[str, list[str]], None],
        on_done: Callable[[], None],
        on_finished: OnFinished | None = None,
        shared_trajectories: Gate | None = None,
        resumes_turns: bool = True,
    ) -> None:
        self._journal = journal
        self._identity = identity
        self._coordinator = coordinator
        self._give = give
        self._on_done = on_done
        self._on_finished = on_finished
        self._shared_trajectories = shared_trajectories
        self._resumes_turns = resumes_turns
        self.intake = Intake(journal)
        self.totals = Totals()
        self._recorder = Recorder(journal, identity)
        self._meter = RunMeter()
        self._attempts: dict[str, Attempt] = {}
        """Those that are queued or owned."""

        self._room = asyncio.Event()
        self._n_cancelled = 0
        self._cancelling: set[str] = set()
        self._broken_off: set[tuple[str, str]] = set()
        """Workers, and what they had to cancel and have not ended yet."""

        self._n_unrecorded: Counter[str] = Counter()
        self._whys: dict[str, str] = {}
        """Why attempts have ended without a line, where that is known."""

        self.is_closed = False
        """Whether nothing more is handed out."""

        self.all_taken = False
        """Whether the run has no attempts beyond those that are here."""

    async def feed(self, source: Iterator[Attempt]) -> None:
        """Take attempts as workers have room for them, until there are no more."""
        while True:
            while self._coordinator.n_wanted == 0:
                self._room.clear()
                await self._room.wait()
            attempt = next(source, None)
            if attempt is None:
                break
            if self._shared_trajectories is not None:
                await self._shared_trajectories.acquire()
            self._attempts[attempt.name] = attempt
            self._coordinator.add(attempt.name)
            self.dispatch()
            await asyncio.sleep(0)
        self.all_taken = True
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out what is queued, if there is a worker for it."""
        if self.is_closed:
            return
        for worker, names in self._coordinator.assign().items():
            self._give(worker, names)
        if self._coordinator.n_wanted:
            self._room.set()
        if self.all_taken and self._coordinator.is_idle:
            self.is_closed = True
            self._on_done()

    def held(self, worker: str, names: Sequence[str]) -> list[Attempt]:
        """Return those attempts that a worker is still to be given."""
        return [self._attempts[name] for name in names if self._coordinator.owns(worker, name)]

    def assignments(self, attempts: Sequence[Attempt], info: WorkerInfo) -> list[Assignment]:
        """Return the first attempts, at least one, in the form in which a worker is given them. Blocks."""
        assignments: list[Assignment] = []
        n_bytes = 0
        for attempt in attempts[:SUBMIT_AT_ONCE]:
            assignments.append(self._assignment(attempt, info))
            n_bytes += assignments[-1].n_bytes
            if n_bytes >= SUBMIT_BYTES_AT_ONCE:
                break
        return assignments

    def _assignment(self, attempt: Attempt, info: WorkerInfo) -> Assignment:
        sample = attempt.sample.id if info.has_benchmark else packed(attempt.sample)
        turns, pictures = self.intake.recorded(attempt) if self._resumes_turns else (None, ())
        return Assignment(attempt.name, sample, attempt.epoch, turns, pictures)

    async def on_message(self, worker: str, message: Message, answer: Answer | None) -> None:
        """Take note of what a worker says; it is written already."""
        match message:
            case Begun(attempt):
                self._coordinator.begun(worker, attempt)
            case Recorded(attempt) if isinstance(answer, Incomplete):
                self._whys[attempt] = answer.why
            case Recorded(attempt) if not isinstance(answer, str):
                if self._is_broken_off(message):
                    self._broken_off.add((worker, attempt))  # its worker's until it has ended there
                elif self._coordinator.ended(worker, attempt):
                    await self._on_recorded(message)
            case Ended(attempt) if self._coordinator.owns(worker, attempt):
                await self._on_unrecorded(worker, attempt)
            case Progress(statistics):
                self.totals.update(worker, statistics)
                if statistics.draining is not None:
                    self._coordinator.leaving(worker)
            case _:
                pass
        if isinstance(message, Recorded | Ended):
            self.dispatch()

    async def lose(self, worker: str) -> tuple[str, ...]:
        """A worker is lost; return which of its attempts are handed out again."""
        if self.is_closed:  # the run's end may have ended it: that is no attempt's doing
            return self._coordinator.retire(worker)
        loss = self._coordinator.lose(worker)
        for name in loss.given_up:
            await self._give_up(self._attempts[name], POISONOUS)
        self.dispatch()
        return loss.requeued

    def close(self) -> None:
        """Free what the attempts that did not end hold of the limit that other runs have a part in."""
        for name in list(self._attempts):
            self._forget(name)

    def statistics(self, own: RunStatistics) -> RunStatistics:
        """Return the numbers of all workers, with what is known here; `own` has the rest."""
        meter = self._meter
        counted = RunStatistics(
            n_total=own.n_total,
            n_done_before=own.n_done_before,
            n_finished=meter.stop_reasons.total(),
            n_failed=meter.n_failed,
            n_cancelled=self._n_cancelled,
            concurrency=own.concurrency,
            stop_reasons=dict(meter.stop_reasons),
            elapsed_s=meter.elapsed_s,
            finished_per_s=meter.finished_rate.per_s(),
            recent=tuple(meter.recent),
            paused=own.paused,
            draining=own.draining,
            last_failure=meter.last_failure,
        )
        return self.totals.of_run(counted)

    def cancelling(self, attempts: Iterable[str]) -> None:
        """Know that running attempts are cancelled because somebody asked for it."""
        self._cancelling.update(attempts)

    def _is_broken_off(self, message: Recorded) -> bool:
        """Whether an attempt was cancelled by its worker alone, which cannot go on; another one can."""
        is_cancelled = message.is_failure and message.summary.stop_reason is StopReason.CANCELLED
        return is_cancelled and not self.is_closed and message.attempt not in self._cancelling

    async def _on_unrecorded(self, worker: str, attempt: str) -> None:
        """Let an attempt run again that has ended without a line, as long as that may help."""
        if (worker, attempt) in self._broken_off:  # not its own doing
            self._broken_off.remove((worker, attempt))
        else:
            self._n_unrecorded[attempt] += 1
        if self._n_unrecorded[attempt] < MAX_UNRECORDED:
            self._coordinator.returned(worker, [attempt])
            return
        self._coordinator.ended(worker, attempt)
        await self._give_up(self._attempts[attempt], self._whys.pop(attempt, UNRECORDABLE))

    async def _on_recorded(self, message: Recorded) -> None:
        self._forget(message.attempt)
        if not message.is_failure:
            self._meter.on_finished(message.summary)
            if self._on_finished is not None:
                await self._on_finished(read_trajectory(message.line))
        elif message.summary.stop_reason is StopReason.CANCELLED:
            self._n_cancelled += 1
        else:
            self._meter.n_failed += 1

    def _forget(self, attempt: str) -> None:
        del self._attempts[attempt]
        self._cancelling.discard(attempt)
        if self._shared_trajectories is not None:
            self._shared_trajectories.release()

    async def _give_up(self, attempt: Attempt, error: str) -> None:
        """Record an attempt that no worker brings to an end."""
        outcome = Outcome(Conversation([dict(message) for message in attempt.sample.messages]))
        outcome.stop(StopReason.SANDBOX_ERROR, error)
        seed = attempt_seed(self._identity.seed, attempt.name)
        history = AttemptHistory(attempt, seed, queued_s=self._meter.elapsed_s)
        self._meter.n_failed += 1
        self._meter.on_failed_try(attempt.name, outcome.owner, error)
        self._forget(attempt.name)
        try:
            await self._recorder.failed(history, outcome)
        except JournalError as trouble:
            self._journal.trouble = self._journal.trouble or trouble
