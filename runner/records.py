"""What a line of the journal holds: one finished attempt, and the turns in it.

Field names and units are the file format (`trajectories.jsonl`, ARCHITECTURE.md); changing one means
raising SCHEMA_VERSION. Records are plain data: building, encoding and reading them needs nothing
else of the runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 2
"""1: before native tool calls, costs and resumed turns; `journal/migrations.py` reads it."""


class StopReason(StrEnum):
    """Why an attempt ended. A closed set."""

    ANSWER = "answer"
    MAX_TURNS = "max_turns"
    MAX_PROPOSALS = "max_proposals"
    CONTEXT_OVERFLOW = "context_overflow"
    LENGTH = "length"
    TOKEN_LIMIT = "token_limit"
    COST_LIMIT = "cost_limit"
    TIME_LIMIT = "time_limit"
    REPEATED_ACTION = "repeated_action"
    FORMAT_ERROR = "format_error"
    MODEL_ERROR = "model_error"
    SANDBOX_ERROR = "sandbox_error"
    ENGINE_ERROR = "engine_error"
    CANCELLED = "cancelled"


class Owner(StrEnum):
    """Who has to answer for how an attempt ended. Only the first two end as scores."""

    MODEL = "model"
    SAMPLE = "sample"
    SANDBOX = "sandbox"
    ENGINE = "engine"
    RUNNER = "runner"


OWNER_OF: Mapping[StopReason, Owner] = {
    StopReason.SANDBOX_ERROR: Owner.SANDBOX,
    StopReason.ENGINE_ERROR: Owner.ENGINE,
    StopReason.CANCELLED: Owner.RUNNER,
}
"""The owner of each stop reason that is not the model's."""


@dataclass(slots=True)
class Usage:
    """Tokens, summed over the calls that it stands for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False
    """True when the server did not say and a quarter of the characters was counted."""

    cost: float | None = None
    """By `model.prices`; None where the config has none."""

    def add(self, other: Usage) -> None:
        """Add another usage to this one."""
        if other.cost is not None:
            self.cost = (self.cost or 0.0) + other.cost
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.total_tokens += other.total_tokens
        self.estimated = self.estimated or other.estimated


@dataclass(slots=True)
class Timings:
    """Where the seconds went."""

    queued_s: float = 0.0
    """From the start of this process's run to the attempt's first try."""

    call_wait_s: float = 0.0
    """Until the endpoint had a call slot free, and between tries of a call."""

    model_s: float = 0.0
    """The calls themselves."""

    sandbox_wait_s: float = 0.0
    """Until sandboxes were there, with their setup cells run."""

    execute_s: float = 0.0


@dataclass(slots=True)
class TurnTimings:
    """Where the seconds of one turn went."""

    model_s: float = 0.0
    execute_s: float = 0.0


@dataclass(slots=True)
class FurtherAction:
    """An action of a turn after its first: native tool calls may come several in one reply."""

    action: str
    observation: dict[str, Any] | None


@dataclass(slots=True)
class Turn:
    """One model call and, if any, its action and observation."""

    completion: str
    """The reply as the server sent it, before a protocol mends it."""

    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    finish_reason: str | None = None
    action: str | None = None
    """The code that was executed; None when the reply held none."""

    observation: dict[str, Any] | None = None
    """`status, outputs[], limits_hit, truncated, duration_s, n_output_bytes, kernel_alive`, and
    `peak_memory_bytes` where the system counts it; pictures are named as artifacts."""

    further: list[FurtherAction] = field(default_factory=list)
    """Executed after `action`, in order."""

    logprobs: Any = None
    """As the server sent them, where `model.request` asks for them."""

    verdict: Any = None
    usage: Usage = field(default_factory=Usage)
    timings: TurnTimings = field(default_factory=TurnTimings)


@dataclass(slots=True)
class ArtifactRecord:
    """A file that the model's code made, or, with `problem`, one that was left behind."""

    path: str
    """Relative to the run directory: `artifacts/<sample>/<epoch>/<path in the sandbox>`."""

    bytes: int
    sha256: str | None
    problem: str | None = None


@dataclass(slots=True)
class TryRecord:
    """A try that failed by our fault, before the one that the line is about."""

    stop_reason: StopReason
    owner: Owner
    error: str
    at: float
    """Unix seconds."""


@dataclass(slots=True)
class Trajectory:
    """What one attempt produced."""

    schema_version: int
    run_id: str
    config_hash: str
    benchmark: str
    sample_id: str
    epoch: int
    """From 1."""

    attempt: str
    """`sample_id@epoch`."""

    model: str
    protocol: str
    kernel: str
    """That of the sample's sandbox profile."""

    tier: str
    host: str
    seed: int
    """What `random` and `numpy.random` start from in each of its kernels."""

    messages: list[dict[str, Any]]
    """The list that the model saw, with its replies; loads into any fine-tuning tool."""

    turns: list[Turn]
    stop_reason: StopReason
    owner: Owner
    error: str | None
    """What went wrong, in words, when `stop_reason` is an `_error` or a context overflow."""

    tries: list[TryRecord]
    n_resumed_turns: int
    """Turns that were recorded by an earlier try or process and executed again here."""

    artifacts: list[ArtifactRecord]
    usage: Usage
    timings: Timings
    started_at: float
    """Unix seconds."""

    finished_at: float


def attempt_id(sample_id: str, epoch: int) -> str:
    """Return the name of an attempt, `sample_id@epoch`."""
    return f"{sample_id}@{epoch}"
