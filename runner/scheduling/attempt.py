"""One attempt: tries until it ends by the model's doing, or `max_tries` have failed by our fault."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runner.errors import JournalError
from runner.journal import AttemptJournal, TurnLog, empty_artifacts
from runner.models.conversation import Conversation, opening_messages
from runner.plan import Attempt, attempt_seed
from runner.recorder import AttemptHistory, Recorder, RunIdentity
from runner.records import Owner, StopReason, Trajectory
from runner.scheduling.turnstile import Turnstile
from runner.telemetry.meter import RunMeter, in_one_line
from runner.telemetry.statistics import FinishedAttempt
from runner.trajectory.artifacts import PICTURES_FOLDER
from runner.trajectory.lease import ArtifactsFolder
from runner.trajectory.outcome import Outcome
from runner.trajectory.recovery import CannotResume, RecordedTurn, read_recorded
from runner.trajectory.rollout import Rollout, RolloutSettings

logger = logging.getLogger(__name__)

RETRIED = frozenset({StopReason.SANDBOX_ERROR, StopReason.ENGINE_ERROR})
FIRST_RETRY_S = 0.5

MAX_BROKEN_RESUMES = 2
"""After so many sandboxes that broke on its recorded actions an attempt begins again."""

OnFinished = Callable[[Trajectory], Awaitable[None]]


@dataclass(slots=True)
class _Running:
    """An attempt on its way to its line."""

    history: AttemptHistory
    turn_log: TurnLog
    folder: ArtifactsFolder
    outcome: Outcome
    """Of the latest try."""


class AttemptRunner:
    """Runs attempts of one run, any number at once."""

    def __init__(
        self,
        settings: RolloutSettings,
        identity: RunIdentity,
        journal: AttemptJournal,
        turnstile: Turnstile,
        on_finished: OnFinished | None = None,
    ) -> None:
        self._settings = settings
        self._meter: RunMeter = settings.meter
        self._identity = identity
        self._journal = journal
        self._recorder = Recorder(journal, identity)
        self._turnstile = turnstile
        self._on_finished = on_finished

    async def run(self, attempt: Attempt) -> None:
        """Run an attempt to its line in the journal.

        Cancelling it leaves it for a resume, and notes it as cancelled; where its line is being written
        already, it has ended as any other.

        Raises:
            JournalError: the run directory cannot be written.
        """
        running = self._begin(attempt)
        try:
            await self._run_tries(running)
        except asyncio.CancelledError:
            if attempt.name not in self._journal.done:
                await self._note_cancelled(running)
            raise

    def _begin(self, attempt: Attempt) -> _Running:
        settings = self._settings
        seed = attempt_seed(self._identity.seed, attempt.name)
        path, prefix = self._journal.artifacts_dir(attempt.sample.id, attempt.epoch)
        opening = opening_messages(attempt.sample, settings.system_prompt, merge=settings.merge_user_messages)
        return _Running(
            history=AttemptHistory(attempt, seed, queued_s=self._meter.elapsed_s),
            turn_log=self._turn_log(attempt),
            folder=ArtifactsFolder(path, prefix),
            outcome=Outcome(Conversation(opening)),
        )

    async def _run_tries(self, running: _Running) -> None:
        attempt, history, turn_log = running.history.attempt, running.history, running.turn_log
        recorded = await self._recorded(attempt, turn_log, is_first=True)
        n_counted = n_broken = 0
        while True:
            outcome = await self._try(running, recorded)
            if outcome.owner in (Owner.MODEL, Owner.SAMPLE):
                await self._finish(history, outcome, turn_log)
                return
            is_counted = self._note_failed_try(history, outcome)
            n_counted += is_counted
            if not self._is_worth_another(outcome, n_counted):
                await self._recorder.failed(history, outcome)
                self._meter.n_failed += 1
                return
            await self._wait_for_next_try(len(history.tries))
            if not outcome.broke_resuming:
                recorded = await self._recorded(attempt, turn_log)
                continue
            n_broken += 1
            if n_broken >= MAX_BROKEN_RESUMES:
                self._note_restarted(attempt, f"{n_broken} sandboxes broke while its actions were executed")
                recorded = []

    async def _try(self, running: _Running, recorded: Sequence[RecordedTurn]) -> Outcome:
        history, turn_log, folder = running.history, running.turn_log, running.folder
        attempt = history.attempt
        while True:
            history.started_at = time.time()
            if has_folder(folder.path):
                keep = PICTURES_FOLDER if recorded else None
                await asyncio.to_thread(partial(empty_artifacts, folder.path, keep=keep))
            (turn_log.continued if recorded else turn_log.restart)()
            phase = self._meter.phases.track()
            rollout = Rollout(
                self._settings,
                attempt.sample,
                attempt.epoch,
                folder,
                seed=history.seed,
                phase=phase,
                turn_log=turn_log,
                recorded=recorded,
            )
            running.outcome = rollout.outcome
            try:
                with self._settings.tracer.span("trajectory", self._span_attributes(attempt)) as span:
                    outcome = await rollout.run()
                    span.set_attributes(
                        {
                            "kernelfleet.stop_reason": str(outcome.stop_reason),
                            "kernelfleet.owner": str(outcome.owner),
                            "kernelfleet.n_turns": len(outcome.turns),
                        }
                    )
            except CannotResume as reason:
                self._note_restarted(attempt, str(reason))
                recorded = []
                continue
            finally:
                phase.enter(None)
                self._settings.model.forget(attempt.name)
            if outcome.n_resumed_turns:
                self._note_resumed(attempt, outcome.n_resumed_turns, rollout.divergence)
            return outcome

    async def _recorded(
        self, attempt: Attempt, turn_log: TurnLog, *, is_first: bool = False
    ) -> list[RecordedTurn]:
        """Return the turns to go on from: of an earlier process, or of the try before."""
        if is_first and attempt.name not in self._journal.unfinished:
            return []
        try:
            unfinished = await asyncio.to_thread(turn_log.read)
            if unfinished is None:
                return []
            read = partial(read_recorded, unfinished, self._journal.run_dir, self._settings.resume)
            return await asyncio.to_thread(read)
        except (CannotResume, JournalError) as reason:
            self._note_restarted(attempt, str(reason))
            return []

    def _span_attributes(self, attempt: Attempt) -> dict[str, str | int]:
        return {
            "kernelfleet.run_id": self._identity.run_id,
            "kernelfleet.attempt": attempt.name,
            "gen_ai.request.model": self._identity.model,
        }

    def _turn_log(self, attempt: Attempt) -> TurnLog:
        header = {"run_id": self._identity.run_id, "config_hash": self._identity.config_hash}
        return self._journal.turn_log(attempt.name, header)

    async def _wait_for_next_try(self, n_failed: int) -> None:
        phase = self._meter.phases.track()
        try:
            await asyncio.sleep(FIRST_RETRY_S * 2 ** min(n_failed, 6) / 2)
            await self._turnstile.wait()
        finally:
            phase.enter(None)

    async def _finish(self, history: AttemptHistory, outcome: Outcome, turn_log: TurnLog) -> None:
        trajectory, is_on_disk = await self._recorder.finished(history, outcome)
        if is_on_disk:
            turn_log.remove()
        self._turnstile.on_try(None)
        self._meter.on_finished(
            FinishedAttempt(
                attempt=trajectory.attempt,
                stop_reason=trajectory.stop_reason,
                owner=trajectory.owner,
                n_turns=len(trajectory.turns),
                seconds=trajectory.finished_at - trajectory.started_at,
            )
        )
        if self._on_finished is not None:
            await self._on_finished(trajectory)

    def _note_failed_try(self, history: AttemptHistory, outcome: Outcome) -> bool:
        """Record a try that failed by our fault. Return whether it counts against `max_tries`."""
        name, error = history.attempt.name, outcome.error or ""
        history.failed(outcome)
        self._meter.on_failed_try(name, outcome.owner, error)
        logger.warning(
            "attempt failed: attempt=%s try=%d error=%s", name, len(history.tries), in_one_line(error)
        )
        is_counted = self._turnstile.failing is None
        self._turnstile.on_try(failure_reason(outcome))
        return is_counted

    def _is_worth_another(self, outcome: Outcome, n_counted: int) -> bool:
        """Whether an attempt that failed by our fault is tried again."""
        can_help = outcome.stop_reason in RETRIED and not outcome.would_repeat
        return can_help and n_counted < self._settings.limits.max_tries

    async def _note_cancelled(self, running: _Running) -> None:
        history, outcome = running.history, running.outcome
        outcome.stop(StopReason.CANCELLED)
        self._meter.n_cancelled += 1
        try:
            await self._recorder.failed(history, outcome)
        except JournalError as error:
            # The run is ending already, perhaps for this very reason.
            logger.warning("cancelled attempt not recorded: attempt=%s error=%s", history.attempt.name, error)

    def _note_resumed(self, attempt: Attempt, n_turns: int, divergence: str | None) -> None:
        self._meter.n_resumed += 1
        details = {"divergence": divergence} if divergence else {}
        self._journal.event("attempt_resumed", attempt=attempt.name, n_turns=n_turns, **details)

    def _note_restarted(self, attempt: Attempt, reason: str) -> None:
        self._meter.n_restarted += 1
        self._journal.event("attempt_restarted", attempt=attempt.name, reason=reason)


def has_folder(path: Path) -> bool:
    """Whether a folder is there; a thread to ask from would cost more than the answer."""
    return path.is_dir()


def failure_reason(outcome: Outcome) -> str:
    """Return why a try failed, the same words for failures of one kind."""
    lines = (outcome.error or outcome.stop_reason).strip().splitlines()
    return f"{outcome.owner}: {re.sub(r'[0-9]+', 'N', lines[0])[:200] if lines else ''}"
