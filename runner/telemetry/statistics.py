"""What is known of a running run, for whoever watches it: a terminal, a metrics page, another shell.

Plain snapshots; the scheduler makes them, and nothing here is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runner.records import Owner, StopReason


class Phase(StrEnum):
    """Where a trajectory in flight is."""

    QUEUED = "queued"
    """Before its first call, between two tries, or waiting for a call slot of its endpoint."""

    MODEL = "model"
    SANDBOX = "sandbox"
    """Waiting for a sandbox."""

    EXECUTING = "executing"


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """One server of the model."""

    name: str
    """Its address without scheme, user or path."""

    state: str
    """`ready` or `ejected`."""

    n_calls_in_flight: int
    n_calls_waiting: int
    """Trajectories that wait for a call slot."""

    max_calls: int
    n_trajectories: int
    """That stick to it now."""

    max_trajectories: int
    latency_s: float | None
    """Of a call, smoothed over the latest; None before the first."""

    n_calls: int
    n_failed_calls: int


@dataclass(frozen=True, slots=True)
class SandboxStatistics:
    """The pool, as the run uses it."""

    n_leased: int
    n_waiting: int
    max_leased: int
    """What this machine's pressure allows now, at most the pool's own limit."""

    n_idle: int
    """Started, and not handed out yet."""


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    """One of the last that ended."""

    attempt: str
    stop_reason: StopReason
    owner: Owner
    n_turns: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """How far a run is. Counts attempts of this process only, except `n_done_before`."""

    n_total: int
    """Attempts that this process has to run."""

    n_done_before: int = 0
    """Attempts that have a line since an earlier process."""

    n_finished: int = 0
    n_failed: int = 0
    """By our fault, after all tries; they are not among the finished."""

    n_cancelled: int = 0
    n_in_flight: int = 0
    concurrency: int = 0
    """What the user allows."""

    max_trajectories: int = 0
    """What the endpoints allow now, at most `concurrency`."""

    phases: Mapping[Phase, int] = field(default_factory=dict)
    n_turns: int = 0
    """Of trajectories in flight too."""

    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    cost: float | None = None
    """None where the config has no prices."""

    stop_reasons: Mapping[StopReason, int] = field(default_factory=dict)
    failures_by_owner: Mapping[Owner, int] = field(default_factory=dict)
    """Tries that failed by our fault, those included that another try made good."""

    n_resumed: int = 0
    """Attempts that went on from recorded turns."""

    n_restarted: int = 0
    """Attempts with recorded turns that began again: they diverged, or took too long."""

    elapsed_s: float = 0.0
    finished_per_s: float = 0.0
    """Over the last half minute."""

    tokens_per_s: float = 0.0
    """Completion tokens, over the last half minute."""

    loop_lag_p50_s: float = 0.0
    loop_lag_p99_s: float = 0.0
    endpoints: tuple[EndpointStatistics, ...] = ()
    sandboxes: SandboxStatistics | None = None
    recent: tuple[FinishedAttempt, ...] = ()
    """Latest last."""

    paused: str | None = None
    """Why no attempt is begun; None when they are."""

    draining: str | None = None
    """Why the run is about to end before its work is done."""

    last_failure: str | None = None
