"""Why a try ended, and whose doing that was. Pure."""

from __future__ import annotations

from typing import NamedTuple

from bench_data import Sample
from runner.errors import ContextOverflow, ModelError, ModelUnavailable, ReplayEnded
from runner.records import Owner, StopReason, Timings
from sandbox_pool import SandboxError, SandboxSetupError


class Ending(NamedTuple):
    """What `Outcome.stop` is told."""

    reason: StopReason
    error: str | None = None
    owner: Owner | None = None
    """None: whose the reason is by itself."""


def ending_of_model_error(error: ModelError) -> Ending:
    """Return how a try ends that the model client could not go on with."""
    match error:
        case ContextOverflow():
            return Ending(StopReason.CONTEXT_OVERFLOW, str(error))
        case ReplayEnded():
            return Ending(StopReason.MODEL_ERROR, str(error), Owner.MODEL)
        case ModelUnavailable():
            return Ending(StopReason.ENGINE_ERROR, str(error))
        case _:
            return Ending(StopReason.MODEL_ERROR, str(error), Owner.ENGINE)


def ending_of_sandbox_error(error: SandboxError, sample: Sample) -> Ending:
    """Return how a try ends whose sandbox failed."""
    if isinstance(error, SandboxSetupError):
        what = f"the setup cell of sample {sample.id} failed; correct it and begin a new run"
        return Ending(StopReason.SANDBOX_ERROR, f"{what}\n{error}")
    return Ending(StopReason.SANDBOX_ERROR, f"{type(error).__name__}: {error}")


def ending_of_time(timings: Timings, wall_s: float | None, *, is_lost_to_waits: bool) -> Ending:
    """Return how a try ends whose time is up: most of the wall time may have been lost in our queues."""
    if not is_lost_to_waits or wall_s is None:
        return Ending(StopReason.TIME_LIMIT)
    waited = (
        f"{timings.sandbox_wait_s:.1f} s for sandboxes and {timings.call_wait_s:.1f} s for calls, of the "
        f"{wall_s:g} s of limits.wall_s"
    )
    owner = Owner.SANDBOX if timings.sandbox_wait_s > timings.call_wait_s else Owner.ENGINE
    error = f"it mostly waited: {waited}; raise it, or lower the concurrency"
    return Ending(StopReason.TIME_LIMIT, error, owner)
