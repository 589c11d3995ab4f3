"""What a group of engines needs of whoever hosts one: a process here, or an actor elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How an engine is started. Plain data, so that it can be sent to another machine."""

    argv: tuple[str, ...]
    """The command line, without the address to listen on."""

    env: Mapping[str, str]
    """Laid over the environment of whoever starts it."""

    start_timeout_s: float


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine that is ready listens, and what it said of itself."""

    url: str
    model: str
    max_model_len: int


class EngineHost(Protocol):
    """Hosts one engine at a time. `ended` and `log_tail` may be called beside the others."""

    async def start(self) -> EngineAddress:
        """Start the engine, also after an earlier one has ended, and return once it answers.

        Safe to cancel: nothing of it is left then, nor after an error.

        Raises:
            EngineStartError: it ended, or was not ready in time; the message ends with its log.
        """
        ...

    async def ended(self) -> str:
        """Wait until the engine, or what hosts it, has ended; return how. Safe to cancel."""
        ...

    async def stop(self, grace_s: float) -> None:
        """End the engine and all that it started, at once for 0. Idempotent; never raises."""

    async def log_tail(self) -> str:
        """Return the end of the engine's log; empty when there is none."""
        ...

    async def close(self) -> None:
        """Give back what the host holds, after the last `stop`. Idempotent."""
