"""The list of messages that a model sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench_data import Sample


def opening_messages(sample: Sample, system_prompt: str, *, merge: bool) -> list[dict[str, Any]]:
    """Return what an attempt begins with: the system prompt, if any, and the sample's messages."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    own_system = any(message["role"] == "system" for message in sample.messages)
    messages = [*([] if own_system else system), *(dict(message) for message in sample.messages)]
    return merge_user_messages(messages) if merge else messages


def merge_user_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join consecutive user messages whose content is text, with a blank line between."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last and _is_user_text(last) and _is_user_text(message):
            last["content"] = f"{last['content']}\n\n{message['content']}"
        else:
            merged.append(dict(message))
    return merged


def _is_user_text(message: Mapping[str, Any]) -> bool:
    return message["role"] == "user" and isinstance(message.get("content"), str)
