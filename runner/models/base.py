"""What the rollout asks of a model, and what it gets."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench_data import Sample
from runner.models.conversation import Conversation
from runner.records import Usage, attempt_id
from runner.telemetry.statistics import EndpointStatistics


class CallClock(Protocol):
    """Told by a client where the time of a call went, so that only the model's own counts."""

    def waiting(self) -> AbstractContextManager[None]:
        """Leave the time spent in this block, waiting for a call slot or for the next try, out of the count.

        While it lasts the trajectory is shown as queued, and its limit of working time does not run out.
        """
        ...

    def excuse(self, seconds: float) -> None:
        """Leave seconds out of the count that a failing server has cost already."""
        ...


class NoClock:
    """Counts nothing."""

    def waiting(self) -> AbstractContextManager[None]:
        """See CallClock."""
        return nullcontext()

    def excuse(self, seconds: float) -> None:
        """See CallClock."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call for one turn of one attempt."""

    sample: Sample
    epoch: int
    n_turns_done: int
    """Turns of this attempt that are over: 0 at the first call."""

    conversation: Conversation
    stop: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    """Native tools of the protocol, as the API describes them; empty for protocols of plain text."""

    seed: int | None = None
    """0 to 2**32 - 1, of this turn: the same when the turn is asked for again."""

    clock: CallClock = field(default_factory=NoClock)

    @property
    def attempt(self) -> str:
        """`sample_id@epoch`: what sticks to an endpoint."""
        return attempt_id(self.sample.id, self.epoch)


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply."""

    text: str
    """As the model wrote it; empty when it wrote nothing but reasoning or tool calls."""

    finish_reason: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    logprobs: Any = None
    """As the server sent them, where the request asked for them."""

    usage: Usage = field(default_factory=Usage)
    is_cached: bool = field(default=False, compare=False)
    """Given before: it costs nothing now."""


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

    def forget(self, attempt: str) -> None:
        """Told when an attempt has ended: whatever was kept for it may go."""

    def endpoints(self) -> tuple[EndpointStatistics, ...]:
        """Return how its servers are doing; empty for a model without."""
        ...

    def max_trajectories(self) -> int | None:
        """Return how many trajectories its servers bear now; None: any number."""
        ...

    def set_concurrency(self, concurrency: int) -> None:
        """Told when the user changes how many trajectories may be in flight."""

    async def close(self) -> None:
        """Release connections. Idempotent."""
