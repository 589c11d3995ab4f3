"""A config file of PyBench's own, read as settings of ours; see `config/prompts.py`.

The keys are those of `config/*.yaml` in github.com/Mercury7353/PyBench at fa90fae. What such a file says
of the account and the server is not used: credentials are none of a run's record, and `model.client` names
the servers. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from runner.errors import ConfigError

KINDS = {"prompt": "fenced", "functioncall": "function_call"}
"""Upstream's modes, and the protocols that read replies as they do."""

CLIENT_ARGS = "llm.args.client_args"

WHY_UNUSED = {
    "api_key": "the key is read from the environment variable that model.api_key_env names",
    "api_keys": "the key is read from the environment variable that model.api_key_env names",
    "base_url": "--model names the server",
    "organization": "goes with the key; model.headers can send it",
    "project": "goes with the key; model.headers can send it",
}


class _Strict(BaseModel):
    """An unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ClientArgs(_Strict):
    """What upstream's client is made with. Any value is taken where none is used: none shows in an error."""

    api_key: Any = None
    api_keys: Any = None
    base_url: Any = None
    organization: Any = None
    project: Any = None
    max_retries: NonNegativeInt | None = None
    timeout: PositiveFloat | None = None


class ModelArgs(_Strict):
    """What upstream's client sends with each request, beside the messages."""

    model: str | None = None
    temperature: Any = None
    top_p: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    seed: Any = None
    stop: Any = None
    user: Any = None
    extra_body: dict[str, Any] | None = None
    """Merged into the body, as OpenAI's client does."""


class LlmArgs(_Strict):
    """Arguments of upstream's client, and of its requests."""

    client_args: ClientArgs = ClientArgs()
    model_args: ModelArgs = ModelArgs()


class Llm(_Strict):
    """Which client, and what it is told."""

    type: Literal["openai"] = "openai"
    args: LlmArgs = LlmArgs()


class UpstreamConfig(_Strict):
    """A whole file."""

    system_prompt_template: str
    code_start_token: str | None = Field(default=None, min_length=1)
    code_end_token: str | None = Field(default=None, min_length=1)
    tool_call_token: str | None = Field(default=None, min_length=1)
    mode: Literal["prompt", "functioncall", "assistant"] = "prompt"
    max_turns: PositiveInt | None = None
    llm: Llm = Llm()


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """What a file comes to."""

    settings: dict[str, Any]
    """Nested, as a config file of ours would have it."""

    unused: tuple[str, ...]
    """Keys whose values are not used, dotted; their values are nowhere."""


def read_upstream(data: Mapping[str, Any], source: str) -> UpstreamSettings:
    """Return what a config of upstream's says in our words.

    Raises:
        ConfigError: names the source, the key and what is allowed; never a value that may be a secret.
    """
    try:
        upstream = UpstreamConfig.model_validate(data)
    except ValidationError as error:
        # Not chained: pydantic's own message shows what the file holds.
        raise ConfigError(f"{source}: {_first_problem(error)}") from None
    if upstream.mode == "assistant":
        raise ConfigError(
            f"{source}: mode 'assistant' was never implemented upstream; use prompt or functioncall"
        )
    return UpstreamSettings(_settings(upstream, KINDS[upstream.mode]), tuple(_unused(upstream)))


def why_unused(key: str) -> str:
    """Return why the value of a key of `unused` is not used, and what is instead."""
    return WHY_UNUSED[key.removeprefix(f"{CLIENT_ARGS}.")]


def _settings(upstream: UpstreamConfig, kind: str) -> dict[str, Any]:
    client, model = upstream.llm.args.client_args, upstream.llm.args.model_args
    if kind == "fenced":
        tokens = {
            "code_start_token": upstream.code_start_token,
            "code_end_token": upstream.code_end_token,
        }
    else:
        tokens = {"tool_call_token": upstream.tool_call_token}
    request = model.model_dump(exclude={"model", "extra_body"}) | (model.extra_body or {})
    return {
        "protocol": {"kind": kind, "system_prompt": upstream.system_prompt_template, **_given(tokens)},
        "limits": _given({"max_turns": upstream.max_turns}),
        "model": _given(
            {
                "name": model.model,
                "request": _given(request) or None,
                "max_retries": client.max_retries,
                "timeout_s": client.timeout,
            }
        ),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _unused(upstream: UpstreamConfig) -> Iterator[str]:
    client = upstream.llm.args.client_args
    yield from (f"{CLIENT_ARGS}.{key}" for key in WHY_UNUSED if getattr(client, key) is not None)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; upstream's keys there: {', '.join(_keys_beside(first['loc']))}"
    if first["type"] == "missing":
        return f"{key} is missing; name a config of upstream's, such as its config/llama3.yaml"
    shown = "" if first["loc"][0] == "llm" else f", got {first['input']!r}"
    return f"{key}: {first['msg']}{shown}"


def _keys_beside(location: tuple[int | str, ...]) -> tuple[str, ...]:
    model: Any = UpstreamConfig
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
    return tuple(model.model_fields)
