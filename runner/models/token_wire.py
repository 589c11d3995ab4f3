"""What is asked of a server in token ids, and what it answers. Pure; never trusts the shape of an answer.

As vLLM has it: `/tokenize` renders a conversation by the chat template, `/detokenize` says what text ids are,
`/v1/completions` takes ids for a prompt and gives back those of the reply, the token that ended it included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson

from runner.encoding import encode
from runner.errors import ConfigError
from runner.models.base import Completion
from runner.models.wire import BadAnswer, excerpt, parse_json, read_choice, read_finish_reason, read_usage

OF_TEMPLATE = ("chat_template", "chat_template_kwargs", "add_special_tokens")
"""Keys of `model.request` that say how a conversation is rendered."""

OF_CHAT = (
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
    *(
        "documents",
        "reasoning_effort",
        "include_reasoning",
        "add_generation_prompt",
        "continue_final_message",
    ),
    *("media_io_kwargs", "mm_processor_kwargs", "return_prompt_text"),
)
"""Keys that a server reads beside messages alone; beside ids it would pass them over."""

OF_PROMPT = ("prompt", "prompt_embeds", "suffix", "echo", "truncate_prompt_tokens", "stream")
"""Keys that would change what the ids mean, or the answer's form."""


def completion_parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `model.request` says of chat completions, in the words of completions.

    Raises:
        ConfigError: it says something that completions have no word for.
    """
    for key in (*OF_CHAT, *OF_PROMPT):
        if key in request:
            raise ConfigError(
                f"model.request.{key} cannot be sent with model.transport: tokens, which asks for "
                "completions of token ids; leave it out, or set model.transport=chat"
            )
    parameters = {key: value for key, value in request.items() if key not in OF_TEMPLATE}
    n_tokens = parameters.pop("max_completion_tokens", None)
    # Unset it is 16 for completions; null is the rest of the window, as for chat.
    parameters["max_tokens"] = parameters.get("max_tokens", n_tokens)
    n_top = parameters.pop("top_logprobs", None)
    if isinstance(parameters.get("logprobs"), bool):
        parameters["logprobs"] = (n_top or 0) if parameters["logprobs"] else None
    if parameters.get("logprobs") is not None:
        parameters.setdefault("return_tokens_as_token_ids", True)
    parameters["return_token_ids"] = True
    return parameters


def render_body(model: str, request: Mapping[str, Any], messages: bytes) -> bytes:
    """Return the body that asks `/tokenize` for the prompt of a conversation, given as a JSON array."""
    options = {"model": model, "add_generation_prompt": True}
    options |= {key: request[key] for key in OF_TEMPLATE if key in request}
    return b'{"messages":%b,%b' % (messages, encode(options)[1:])


def read_ids(body: bytes) -> tuple[int, ...]:
    """Return the ids that `/tokenize` answers. Raises BadAnswer."""
    ids = _read_object(body).get("tokens")
    if not _are_ids(ids) or not ids:
        raise BadAnswer(f"/tokenize: HTTP 200 without a list of tokens: {excerpt(body)}")
    return tuple(ids)


def read_text(body: bytes) -> str:
    """Return the text that `/detokenize` answers. Raises BadAnswer."""
    text = _read_object(body).get("prompt")
    if not isinstance(text, str):
        raise BadAnswer(f"/detokenize: HTTP 200 without a text: {excerpt(body)}")
    return text


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A reply, with the ids that the model made."""

    completion: Completion
    prompt_ids: Any
    """As the server says it had them; not looked at, for they are many."""

    ids: Sequence[int]
    is_ended: bool
    """Whether the last of them is the model's own end of the reply, which its text does not hold."""


def read_token_reply(body: bytes, parameters: Mapping[str, Any]) -> TokenReply:
    """Return the reply in an answer to ids that were sent with `parameters`. Raises BadAnswer."""
    answer, choice = read_choice(body)
    text, ids, prompt_ids = choice.get("text"), choice.get("token_ids"), choice.get("prompt_token_ids")
    if not isinstance(text, str):
        raise BadAnswer(f"HTTP 200 without choices[0].text: {excerpt(body)}")
    if not _are_ids(ids):
        raise BadAnswer(f"HTTP 200 without choices[0].token_ids: {excerpt(body)}")
    finish_reason = read_finish_reason(choice, text)
    stop = choice.get("stop_reason")
    is_asked_for = isinstance(stop, str) or stop in (parameters.get("stop_token_ids") or ())
    completion = Completion(
        text=text,
        finish_reason=finish_reason,
        logprobs=_chat_logprobs(choice.get("logprobs")),
        usage=read_usage(answer.get("usage"), [], text),
    )
    return TokenReply(completion, prompt_ids, ids, finish_reason == "stop" and bool(ids) and not is_asked_for)


def joined(ids: Sequence[int]) -> bytes:
    """Return ids as JSON without brackets."""
    return orjson.dumps(list(ids))[1:-1]


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        answer = parse_json(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise BadAnswer(f"HTTP 200 whose body is no JSON object: {excerpt(body)}")
    return answer


def _chat_logprobs(said: Any) -> Any:
    """Return the logprobs of a completion in the form that chat completions give them."""
    if not isinstance(said, dict):
        return said
    tokens, values = said.get("tokens"), said.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return said
    tops = said.get("top_logprobs") or [None] * len(tokens)
    rows = zip(tokens, values, tops, strict=False)
    return {"content": [_chat_logprob(token, value, top) for token, value, top in rows]}


def _chat_logprob(token: Any, value: Any, top: Any) -> dict[str, Any]:
    others = top.items() if isinstance(top, dict) else ()
    return {
        "token": token,
        "logprob": value,
        "top_logprobs": [{"token": other, "logprob": of_other} for other, of_other in others],
    }


def _are_ids(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int for item in value)
