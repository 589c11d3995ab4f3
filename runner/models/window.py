"""How long a reply may be, so that it and its prompt fit the model's window.

Servers refuse a request whose prompt and longest reply are too long together, though a shorter reply would
do. How long a prompt is only the server knows: the usage of an attempt's last call says most of it, what
was added since is estimated. Where the server refuses all the same, half as long a reply is asked for.
Pure, but for what is kept of each attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.errors import ContextOverflow
from runner.models.base import Completion

BYTES_PER_TOKEN = 3
"""Of JSON that was added since the last call: few, so that the estimate is rarely too low."""

MARGIN_TOKENS = 64
"""For what the chat template puts around the messages."""

MIN_REPLY_TOKENS = 16
"""A reply that may be no longer says nothing; the conversation is too long for the window then."""

SHORT_REPLY_TOKENS = 256
"""Asked for at least, where what is known for sure leaves room: an estimate may be too high as well."""


class ReplyTooLong(ContextOverflow):
    """The prompt may fit, but no reply as long as the request allows."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last call of an attempt said."""

    n_tokens: int
    """Of its prompt and, where that is sent back, its reply."""

    n_bytes: int
    """Of the same in the request."""


class Window:
    """The longest replies of a model; `n_tokens` is prompt and reply together, None where nobody told."""

    def __init__(self) -> None:
        self.n_tokens: int | None = None
        self._known: dict[str, _Known] = {}

    def narrow(self, n_tokens: int) -> None:
        """Take in the window of one of the servers: the smallest counts for all."""
        self.n_tokens = min(self.n_tokens or n_tokens, n_tokens)

    def longest_reply(self, attempt: str, n_bytes: int, wanted: int) -> int:
        """Return `wanted` tokens, or fewer if no more are likely to fit behind a request of so many bytes."""
        if self.n_tokens is None:
            return wanted
        known = self._known.get(attempt, _Known(0, 0))
        n_added = math.ceil(max(0, n_bytes - known.n_bytes) / BYTES_PER_TOKEN)
        surely = self.n_tokens - known.n_tokens - MARGIN_TOKENS
        likely = max(surely - n_added, min(surely, SHORT_REPLY_TOKENS))
        return min(wanted, max(likely, MIN_REPLY_TOKENS))

    def on_completion(self, attempt: str, n_bytes: int, completion: Completion) -> None:
        """Learn from a call that was answered how long the next prompt of its attempt is at least."""
        usage = completion.usage
        if usage.estimated or self.n_tokens is None:
            return
        if completion.reasoning or completion.tool_calls:  # is not sent back, or not as it was counted
            self._known[attempt] = _Known(usage.prompt_tokens, n_bytes)
        else:
            n_reply_bytes = len(completion.text.encode("utf-8", "replace"))
            self._known[attempt] = _Known(usage.total_tokens, n_bytes + n_reply_bytes)

    def forget(self, attempt: str) -> None:
        """An attempt has ended."""
        self._known.pop(attempt, None)


def shorter_reply(n_tokens: int) -> int | None:
    """Return how long a reply to ask for when one of `n_tokens` was refused; None when that is the end."""
    return max(MIN_REPLY_TOKENS, n_tokens // 2) if n_tokens > MIN_REPLY_TOKENS else None
