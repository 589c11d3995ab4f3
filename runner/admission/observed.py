"""What admission goes by, and what it says when a cap changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Adaptation:
    """A cap that has changed, and why: an event of the run."""

    what: Literal["calls", "trajectories", "sandboxes"]
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine's metrics page says."""

    n_running: int
    n_waiting: int
    """For whatever reason."""

    kv_usage: float | None
    """0 to 1."""

    n_preemptions: int
    """Since the engine started."""

    n_generated_tokens: int
    """Since the engine started."""

    max_kv_tokens: int | None
    """What the KV cache holds."""

    n_prefix_queries: int = 0
    n_prefix_hits: int = 0
    """Tokens of prompts looked up in the prefix cache, and found, since the engine started."""

    n_waiting_for_room: int | None = None
    """Of those that wait, how many do because the engine is full; None where it gives no reasons."""

    @property
    def n_queued(self) -> int:
        """How many calls are too many for it now."""
        return self.n_waiting if self.n_waiting_for_room is None else self.n_waiting_for_room


@dataclass(frozen=True, slots=True)
class HostPressure:
    """How pressed this machine is; None where the system does not tell."""

    available_memory_share: float | None
    memory_stalled_share: float | None
    """Of the last ten seconds, in which everything waited for memory."""

    runnable_per_core: float | None
    """Tasks that run or want to."""


def grown(cap: int, factor: float) -> int:
    """Return a larger cap."""
    return max(cap + 1, int(cap * factor))


def changed(
    what: Literal["calls", "trajectories", "sandboxes"], before: int, after: int, reason: str
) -> list[Adaptation]:
    """Return the event of a cap that was set, if that changed it."""
    return [Adaptation(what, before, after, reason)] if before != after else []
