"""Reading what a server of OpenAI's API answers. Pure; never trusts the shape of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from runner.encoding import encode
from runner.models.base import Completion
from runner.records import Usage

OVERFLOW_SIGNS = (
    "maximum context length",  # OpenAI, vLLM, Ray Serve LLM
    "maximum model length",  # vLLM's engine
    "must be at least 1, got 0",  # vLLM 0.32, of a prompt that fills the window to its last token
    "context_length_exceeded",  # OpenAI's code
    "context size",  # llama.cpp: "exceeds the available context size"
    "context window",
    "prompt is too long",
    "input is too long",
    "longer than the model's context length",  # SGLang
)
OVERFLOW_PARAMS = ("input_tokens", "input_text")
"""`error.param` of vLLM's 400 when the prompt does not fit."""

REPLY_PARAMS = ("max_tokens", "max_completion_tokens")
"""`error.param` of vLLM's 400 when the prompt fits, but no reply as long as the request allows. Older ones
name no parameter, and begin their message with both."""

REPLY_SIGNS = (
    "output tokens and your prompt",  # vLLM 0.29; 0.32 shortens the reply by itself
    "in the completion",  # OpenAI
    "for the completion",  # SGLang
)
"""What refusals say that count the longest reply among what does not fit."""

BROKEN_OFF = frozenset({"abort", "error"})
"""What vLLM and SGLang give as `finish_reason` when they, not the model, ended a reply."""

CHARS_PER_TOKEN = 4


class BadAnswer(ValueError):  # noqa: N818 - an answer, not an exception of ours
    """An HTTP 200 whose body is no completion, or not the whole of one."""


def read_completion(body: bytes, messages: Sequence[dict[str, Any]]) -> Completion:
    """Return the completion in an answer. Raises BadAnswer with the beginning of the body."""
    answer, choice = read_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadAnswer(f"HTTP 200 without choices[0].message: {excerpt(body)}")
    text = message.get("content")
    if not isinstance(text, str | None):
        raise BadAnswer(f"HTTP 200 whose message.content is a {type(text).__name__}: {excerpt(body)}")
    tool_calls = message.get("tool_calls") or None
    if tool_calls is not None and not _are_objects(tool_calls):
        raise BadAnswer(f"HTTP 200 whose message.tool_calls is no list of objects: {excerpt(body)}")
    return Completion(
        text=text or "",
        finish_reason=read_finish_reason(choice, text or ""),
        reasoning=_text_or_none(message.get("reasoning_content") or message.get("reasoning")),
        tool_calls=tool_calls,
        logprobs=choice.get("logprobs"),
        usage=read_usage(answer.get("usage"), messages, text or ""),
    )


def read_choice(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an answer and the first choice in it. Raises BadAnswer."""
    try:
        answer = parse_json(body)
    except ValueError as error:
        raise BadAnswer(f"HTTP 200 whose body is not JSON ({error}): {excerpt(body)}") from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise BadAnswer(f"HTTP 200 without choices[0].message: {excerpt(body)}")
    return answer, choice


def read_finish_reason(choice: dict[str, Any], text: str) -> str | None:
    """Return why a reply ended. Raises BadAnswer when the server broke it off."""
    finish_reason = _text_or_none(choice.get("finish_reason"))
    if finish_reason in BROKEN_OFF:
        raise BadAnswer(f"HTTP 200 with finish_reason {finish_reason!r} behind {text[:200]!r}")
    return finish_reason


def parse_json(body: bytes) -> Any:
    """Return the value in a body. Raises ValueError.

    orjson refuses what a model can make a server write: an escaped lone surrogate, for one.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_context_overflow(status: int, body: bytes) -> bool:
    """Whether a refusal says that the conversation does not fit the model's window."""
    if status not in (400, 413, 422):
        return False
    if _param(body) in OVERFLOW_PARAMS:
        return True
    text = body.decode("utf-8", "replace").lower()
    return any(sign in text for sign in OVERFLOW_SIGNS)


def is_reply_too_long(body: bytes) -> bool:
    """Whether a context overflow is one only because of the length that the request allows the reply."""
    text = body.decode("utf-8", "replace")
    return _param(body) in REPLY_PARAMS or all(f"'{name}'" in text for name in REPLY_PARAMS)


def counts_reply(body: bytes) -> bool:
    """Whether a context overflow may be none with a shorter reply."""
    text = body.decode("utf-8", "replace")
    return is_reply_too_long(body) or any(sign in text for sign in REPLY_SIGNS)


def _param(body: bytes) -> Any:
    """Return `error.param` of a refusal."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    inner = answer.get("error", answer) if isinstance(answer, dict) else None
    return inner.get("param") if isinstance(inner, dict) else None


def refusal_text(status: int, body: bytes) -> str:
    """Return what a server said when it refused, in one line."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return f"HTTP {status}: {excerpt(body)}"
    inner = answer.get("error", answer) if isinstance(answer, dict) else answer
    said = inner.get("message", inner) if isinstance(inner, dict) else inner
    return f"HTTP {status}: {(said if isinstance(said, str) else encode(said).decode())[:500]}"


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, fit for an error message."""
    text = " ".join(body[:300].decode("utf-8", "replace").split())
    return repr(text[:200]) if text else "an empty body"


def read_usage(said: Any, messages: Sequence[dict[str, Any]], text: str) -> Usage:
    """Return what a server counted, or else an estimate by the characters."""
    if isinstance(said, dict) and isinstance(said.get("prompt_tokens"), int):
        prompt, completion = said["prompt_tokens"], said.get("completion_tokens")
        completion = completion if isinstance(completion, int) else 0
        return Usage(prompt, completion, prompt + completion)
    n_prompt_chars = sum(len(str(message.get("content") or "")) for message in messages)
    prompt, completion = n_prompt_chars // CHARS_PER_TOKEN, len(text) // CHARS_PER_TOKEN
    return Usage(prompt, completion, prompt + completion, estimated=True)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
