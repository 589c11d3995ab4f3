"""What one try of an attempt came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runner.encoding import array, encode
from runner.models.conversation import Conversation, Message
from runner.records import OWNER_OF, ArtifactRecord, Owner, StopReason, Timings, Turn, Usage


@dataclass(slots=True)
class Outcome:
    """Grows turn by turn; ends with `stop`."""

    conversation: Conversation
    turns: list[Turn] = field(default_factory=list)
    encoded_turns: list[bytes] = field(default_factory=list)
    """Each of the turns that are over, as JSON."""

    stop_reason: StopReason = StopReason.CANCELLED
    owner: Owner = Owner.RUNNER
    error: str | None = None
    would_repeat: bool = False
    """Whether another try would end the same way."""

    broke_resuming: bool = False
    """Whether it failed while recorded actions were executed again."""

    n_resumed_turns: int = 0
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)

    def stop(self, reason: StopReason, error: str | None = None, owner: Owner | None = None) -> None:
        """Say why it ended."""
        self.stop_reason = reason
        self.owner = owner or OWNER_OF.get(reason, Owner.MODEL)
        self.error = error

    def take_over(self, turn: Turn, messages: Iterable[Message], artifacts: Iterable[ArtifactRecord]) -> None:
        """Add a turn that an earlier try or process had finished, with the messages and files it added."""
        self.turns.append(turn)
        self.encoded_turns.append(encode(turn))
        self.artifacts.extend(artifacts)
        self.usage.add(turn.usage)
        self.timings.model_s += turn.timings.model_s
        self.timings.execute_s += turn.timings.execute_s
        for message in messages:
            self.conversation.append(message)
        self.n_resumed_turns += 1

    def encoded(self) -> dict[str, bytes]:
        """Return the messages and the turns as JSON arrays. What was encoded before is not encoded again."""
        unencoded = self.turns[len(self.encoded_turns) :]
        turns = array([*self.encoded_turns, *(encode(turn) for turn in unencoded)])
        return {"messages": self.conversation.encoded(), "turns": turns}
