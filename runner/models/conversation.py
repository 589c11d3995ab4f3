"""The messages that a model sees, each encoded once however often the list is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench_data import Sample
from runner.encoding import encode

Message = dict[str, Any]


class Conversation:
    """A list of messages that only grows. A message must not be changed once it is in."""

    __slots__ = ("_encoded", "messages")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.messages: list[Message] = list(messages)
        self._encoded: list[bytes] = []

    def append(self, message: Message) -> None:
        """Add a message at the end."""
        self.messages.append(message)

    def encoded(self, start: int = 0) -> bytes:
        """Return the messages from `start` on as a JSON array. Only those added since are encoded."""
        for message in self.messages[len(self._encoded) :]:
            self._encoded.append(encode(message))
        return b"[" + b",".join(self._encoded[start:] if start else self._encoded) + b"]"

    def __len__(self) -> int:
        return len(self.messages)


def opening_messages(sample: Sample, system_prompt: str, *, merge: bool) -> list[Message]:
    """Return what an attempt begins with: the system prompt, if any, and the sample's messages."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    own_system = any(message["role"] == "system" for message in sample.messages)
    messages = [*([] if own_system else system), *(dict(message) for message in sample.messages)]
    return merge_user_messages(messages) if merge else messages


def merge_user_messages(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Join consecutive user messages whose content is text, with a blank line between."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last and _is_user_text(last) and _is_user_text(message):
            last["content"] = f"{last['content']}\n\n{message['content']}"
        else:
            merged.append(dict(message))
    return merged


def _is_user_text(message: Mapping[str, Any]) -> bool:
    return message["role"] == "user" and isinstance(message.get("content"), str)
