"""From the words of the config to objects: protocols and model clients."""

from __future__ import annotations

import os
from pathlib import Path

from bench_data import Benchmark
from runner.config import ModelConfig, RunConfig, Truncation, read_options
from runner.errors import ConfigError
from runner.models import CachingClient, ModelClient, NopClient, OpenAIClient, ReplayClient, ScriptedClient
from runner.models.endpoint import OnEvent
from runner.protocols import PROTOCOLS, Fenced, FunctionCall, Protocol
from runner.protocols.base import TextLimits

TOKENS = {"fenced": ("code_start_token", "code_end_token"), "function_call": ("tool_call_token",)}
"""The keys of `protocol` that are some protocols' own."""

MODEL_KINDS = "vllm:PATH_OR_ID, openai:URL[,URL...], replay:FILE, oracle, decoy, nop"


def build_protocol(config: RunConfig, benchmark: Benchmark) -> Protocol:
    """Return the protocol of a run.

    Raises:
        ConfigError: a token is set that the protocol does not have.
    """
    kind = config.protocol.kind or benchmark.protocol
    protocol_class = PROTOCOLS[kind]
    limits = observation_limits(config, protocol_class)
    tokens = _tokens(config, kind)
    if protocol_class is Fenced:
        return Fenced(limits, **tokens)
    if protocol_class is FunctionCall:
        return FunctionCall(limits, **tokens)
    return protocol_class(limits)


def _tokens(config: RunConfig, kind: str) -> dict[str, str]:
    every = [key for keys in TOKENS.values() for key in keys]
    tokens = {key: token for key in every if (token := getattr(config.protocol, key)) is not None}
    for key in tokens:
        if key not in TOKENS.get(kind, ()):
            raise ConfigError(
                f"protocol.{key} is {tokens[key]!r}, and protocol {kind} has no such token; set it to null, "
                f"or leave protocol.kind to the file that gave it (prompts)"
            )
    return tokens


def observation_limits(config: RunConfig, protocol_class: type[Protocol]) -> TextLimits | None:
    """Return how much of an observation the model is shown; None for all of it."""
    match config.protocol.truncation:
        case "off":
            return None
        case Truncation(head_chars=head_chars, tail_chars=tail_chars):
            return TextLimits(head_chars, tail_chars)
        case _:
            return None if config.profile == "upstream" else protocol_class.default_limits


def system_prompt(config: RunConfig, protocol: Protocol) -> str:
    """Return the system prompt of a run; empty for none."""
    own = config.protocol.system_prompt
    return protocol.system_prompt if own is None else own


def build_model(config: RunConfig, protocol: Protocol, on_event: OnEvent) -> ModelClient:
    """Return the model client that `model.client` names; `on_event` writes to events.log.

    Raises:
        ConfigError: there is no such client, or it lacks what it needs.
    """
    kind, _, argument = config.model.client.partition(":")
    match kind:
        case "oracle" | "decoy" if not argument:
            return ScriptedClient("oracle" if kind == "oracle" else "decoy", protocol)
        case "nop" if not argument:
            return NopClient()
        case "replay" if argument:
            return ReplayClient(Path(argument))
        case "openai" if argument:
            check_transport(config, protocol)
            return _openai_client(argument.split(","), config, on_event)
        case "vllm" if argument:
            check_transport(config, protocol)
            return _openai_client([], _hosted(config, argument), on_event)
        case _:
            raise ConfigError(f"--model {config.model.client}: no such model client; known: {MODEL_KINDS}")


def check_transport(config: RunConfig, protocol: Protocol) -> None:
    """Refuse what a server does for chat completions alone, where token ids are to be exchanged.

    Raises:
        ConfigError: the protocol has native tools, or engines of ours would be given a reasoning parser.
    """
    if config.model.transport == "chat":
        return
    if protocol.tools:
        raise ConfigError(
            f"model.transport is tokens, and the calls of protocol {protocol.name} are read from chat "
            "completions by the server; set model.transport=chat, or a protocol.kind whose actions are text: "
            f"{', '.join(name for name, kind in PROTOCOLS.items() if not kind.tools)}"
        )
    is_hosted = config.model.client.startswith("vllm:")
    if is_hosted and "reasoning_parser" in read_options(config.engines.args):
        raise ConfigError(
            "model.transport is tokens, and engines.args has a reasoning_parser, which reads chat "
            "completions alone: what the model thinks would be in its replies; leave it out, or set "
            "model.transport=chat"
        )


def _hosted(config: RunConfig, model: str) -> RunConfig:
    """Return the config with the name that the engines serve the model by."""
    name = config.model.name or config.engines.served_name or model
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})


def _openai_client(urls: list[str], config: RunConfig, on_event: OnEvent) -> ModelClient:
    urls = [url.strip() for url in urls]
    if len(set(urls)) < len(urls):
        raise ConfigError(f"--model {config.model.client}: a server is named twice; name each once")
    client = OpenAIClient(
        urls,
        config.model,
        _api_key(config.model),
        admission=config.admission,
        concurrency=config.concurrency,
        on_event=on_event,
    )
    return CachingClient(client, config.model.cache) if config.model.cache else client


def _api_key(config: ModelConfig) -> str | None:
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"model.api_key_env: the environment variable {config.api_key_env} is not set; "
            f"export the API key in it"
        )
    return key
