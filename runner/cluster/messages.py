"""What a driver and a worker tell each other. Plain data, pickled by Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench_data import Sample
from runner.cluster.shipping import Content
from runner.config import RunConfig
from runner.endpoint_table import EngineEndpoint
from runner.protocols import Protocol
from runner.recorder import RunIdentity
from runner.telemetry.statistics import FinishedAttempt, RunStatistics


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs to open its pool and its model client."""

    config: RunConfig
    protocol: Protocol
    system_prompt: str
    benchmark_digest: str
    trusted_code: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the config names, such as the API key's."""

    recording_digest: str | None = None
    """SHA-256 of the file that the model replays; None if it replays none."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker found on its node."""

    host: str
    capabilities: Mapping[str, Any]
    """Of its pool."""

    has_benchmark: bool
    """Whether it loads the same samples itself."""

    has_recording: bool = True
    """Whether the file that the model replays is there, if there is one."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker may have in flight, of what the whole run may. It changes as workers come and go."""

    n_attempts: int = 0
    """0 where others have them all."""

    max_calls: int | None = None
    """Model calls at each endpoint; None: as many as trajectories."""

    @property
    def concurrency(self) -> int:
        """Trajectories that may be in flight: what was begun there goes on."""
        return max(1, self.n_attempts)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker needs to begin."""

    identity: RunIdentity
    share: Share
    grace_s: float
    staging: str
    """A folder for this worker in the run directory, which it uses when it sees it."""

    nonce: str
    """The name of a file in that folder."""

    endpoints: tuple[EngineEndpoint, ...] = ()
    """The engines that the run hosts itself."""

    recording: bytes | None = None
    """The file that the model replays, for a worker that has it not."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attempt that a worker is given."""

    attempt: str
    sample: Sample | str
    """The id is enough for a worker that has the benchmark."""

    epoch: int
    turns: bytes | None = None
    """What is recorded of it: the content of its write-ahead."""

    pictures: tuple[tuple[str, bytes], ...] = ()
    """The files that its recorded turns name: their paths in the run directory, and what they hold."""

    @property
    def n_bytes(self) -> int:
        """Of the files that it holds."""
        files = self.sample.files if isinstance(self.sample, Sample) else ()
        inputs = sum(file.content.n_bytes for file in files if isinstance(file.content, Content))
        return inputs + len(self.turns or b"") + sum(len(data) for _, data in self.pictures)


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker takes an attempt from those that wait with it."""

    attempt: str


@dataclass(frozen=True, slots=True)
class TurnDone:
    """A turn of an attempt, for its write-ahead."""

    attempt: str
    header: Mapping[str, Any]
    line: bytes
    replaces: bool
    """Whether it is the first turn of a try that began again."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A piece of a file of an attempt; the pieces of a file come in order."""

    attempt: str
    path: str
    """In the run directory."""

    offset: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of an attempt that lies in the worker's folder in the run directory, whole and synced."""

    attempt: str
    path: str
    """Where it belongs in the run directory."""

    source: str
    """Where it lies there now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The line of an attempt; all its files were sent before. The worker waits for what became of it."""

    attempt: str
    line: bytes
    files: tuple[tuple[str, int], ...]
    """All that are to be there, those of recorded turns included: their paths, and their bytes."""

    summary: FinishedAttempt
    is_failure: bool = False
    """Whether it is a line of `failures.jsonl`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt runs no more; what there was to say of it was sent before."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a worker."""

    at: float
    name: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker is; sent every second, so that silence means something."""

    statistics: RunStatistics


@dataclass(frozen=True, slots=True)
class Over:
    """A worker's scheduler has ended; the last message of all."""

    drained: str | None
    """Why it ended before it was told that nothing more comes."""

    error: Exception | None = None


Message = Begun | TurnDone | FilePart | StagedFile | Recorded | Ended | Happened | Progress | Over


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A line is not written, because a file did not arrive whole: that is its attempt's alone."""

    why: str


Answer = bool | str | Incomplete
"""What became of a line: whether it is on disk, or why no line can be written."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in a row."""

    first: int
    """The number of the first one; a worker counts its messages from 1."""

    messages: tuple[Message, ...]

    @property
    def last(self) -> int:
        """The number of the last one."""
        return self.first + len(self.messages) - 1
