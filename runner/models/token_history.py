"""What a trajectory was told and has said, as token ids. Pure.

A prompt is the one before it, the reply as the model made it, and what the chat template writes from there to
the next reply. The token by which the model ended its reply is the template's to write: at that place it may
have another, and where a limit or a stop string ended the reply there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.models.conversation import Conversation, Message
from runner.models.token_wire import TokenReply, joined


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Ids, encoded once however often they are sent."""

    encoded: bytes = b""
    """JSON, without brackets."""

    n_tokens: int = 0

    def plus(self, ids: Sequence[int]) -> TokenIds:
        """Return these and others behind them."""
        if not ids:
            return self
        separator = b"," if self.encoded else b""
        return TokenIds(b"%b%b%b" % (self.encoded, separator, joined(ids)), self.n_tokens + len(ids))


@dataclass(frozen=True, slots=True)
class Told:
    """A trajectory up to a reply."""

    messages: tuple[Message, ...]
    """Those that the reply was to."""

    reply: str
    ids: TokenIds
    """Of the prompt and the reply, but for the token by which the model ended it."""


def told(messages: Sequence[Message], prompt: TokenIds, reply: TokenReply) -> Told:
    """Return what a trajectory has come to by a reply to a prompt, which stands for the messages."""
    ids = reply.ids[:-1] if reply.is_ended else reply.ids
    return Told(tuple(messages), reply.completion.text, prompt.plus(ids))


def why_rendered(known: Told | None, conversation: Conversation) -> str | None:
    """Return why a conversation's prompt cannot be made of what is known; None if it can."""
    if known is None:
        return "its ids are not known here: they were another try's, another process's, or the cache's"
    messages, n = conversation.messages, len(known.messages)
    if len(messages) < n + 2 or tuple(messages[:n]) != known.messages:
        return "it does not go on from what the model was told last"
    if messages[n] != {"role": "assistant", "content": known.reply}:
        return "its last reply was mended, or is another"
    if any(message["role"] == "assistant" for message in messages[n + 1 :]):
        return "it holds a reply that the model did not make"
    return None
