"""From the outcome of a try to a line of the run directory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.encoding import encode_joined
from runner.journal import AttemptJournal
from runner.plan import Attempt
from runner.records import SCHEMA_VERSION, Trajectory, TryRecord
from runner.trajectory.outcome import Outcome


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
    """Of the run: see `plan.attempt_seed`."""

    kernels: Mapping[str, str] = field(default_factory=dict)
    """The kernel of each sandbox profile that a sample may name; `kernel` is that of all others."""

    def kernel_of(self, profile: str | None) -> str:
        """Return the kernel that runs the code of samples with this profile."""
        return self.kernel if profile is None else self.kernels.get(profile, self.kernel)


@dataclass(slots=True)
class AttemptHistory:
    """What has become of one attempt in this process."""

    attempt: Attempt
    seed: int
    queued_s: float
    """From the start of this process's run to the attempt's first try."""

    started_at: float = field(default_factory=time.time)
    """Of the latest try, Unix seconds."""

    tries: list[TryRecord] = field(default_factory=list)
    """Those that failed by our fault."""

    def failed(self, outcome: Outcome) -> None:
        """Add a try that failed by our fault."""
        self.tries.append(TryRecord(outcome.stop_reason, outcome.owner, outcome.error or "", time.time()))


class Recorder:
    """Writes what came of attempts."""

    def __init__(self, journal: AttemptJournal, identity: RunIdentity) -> None:
        self._journal = journal
        self._identity = identity

    async def finished(self, history: AttemptHistory, outcome: Outcome) -> tuple[Trajectory, bool]:
        """Append a finished attempt; return it, and whether its line is on disk. Raises JournalError."""
        trajectory = self._trajectory(history, outcome)
        line = encode_joined(trajectory, **outcome.encoded())
        return trajectory, await self._journal.append(trajectory.attempt, line)

    async def failed(self, history: AttemptHistory, outcome: Outcome) -> None:
        """Append an attempt that failed by our fault or was cancelled. Raises JournalError."""
        line = encode_joined(self._trajectory(history, outcome), **outcome.encoded())
        await self._journal.append_failure(line)

    def _trajectory(self, history: AttemptHistory, outcome: Outcome) -> Trajectory:
        identity, attempt = self._identity, history.attempt
        outcome.timings.queued_s = history.queued_s
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
            seed=history.seed,
            messages=outcome.conversation.messages,
            turns=outcome.turns,
            stop_reason=outcome.stop_reason,
            owner=outcome.owner,
            error=outcome.error,
            tries=history.tries,
            n_resumed_turns=outcome.n_resumed_turns,
            artifacts=outcome.artifacts,
            usage=outcome.usage,
            timings=outcome.timings,
            started_at=history.started_at,
            finished_at=time.time(),
        )
