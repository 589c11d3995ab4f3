"""What the rollout asks of a model, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench_data import Sample
from runner.records import Usage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call for one turn of one attempt."""

    sample: Sample
    epoch: int
    n_turns_done: int
    """Turns of this attempt that are over: 0 at the first call."""

    messages: Sequence[dict[str, Any]]
    stop: tuple[str, ...] = ()
    excuse: Callable[[float], None] = lambda seconds: None
    """Told how many seconds a server's failure has cost and the wait for the next try will: they do not
    count as the trajectory's time."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply."""

    text: str
    """As the model wrote it; empty when it wrote nothing but reasoning or tool calls."""

    finish_reason: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    usage: Usage = field(default_factory=Usage)


class ModelClient(Protocol):
    """One model. The run closes it; calls may be concurrent and are safe to cancel."""

    name: str
    """What the journal calls the model."""

    async def start(self) -> None:
        """Check that the model is there, before any work is begun. Raises ModelError, ConfigError."""

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the reply to a conversation.

        Raises:
            ContextOverflow: the conversation does not fit; the attempt ends there.
            ModelRefused: the request is refused for good.
            ModelUnavailable: no usable answer after all retries.
            ReplayEnded: a recorded run has no further message.
        """
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
