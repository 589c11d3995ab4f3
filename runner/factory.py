"""From the words of the config to objects: protocols and model clients."""

from __future__ import annotations

import os
from pathlib import Path

from bench_data import Benchmark
from runner.config import ModelConfig, RunConfig, Truncation
from runner.errors import ConfigError
from runner.models import CachingClient, ModelClient, NopClient, OpenAIClient, ReplayClient, ScriptedClient
from runner.models.endpoint import OnEvent
from runner.protocols import PROTOCOLS, Protocol
from runner.protocols.base import TextLimits

MODEL_KINDS = "openai:URL[,URL...], replay:FILE, oracle, decoy, nop"


def build_protocol(config: RunConfig, benchmark: Benchmark) -> Protocol:
    """Return the protocol of a run."""
    protocol_class = PROTOCOLS[config.protocol.kind or benchmark.protocol]
    match config.protocol.truncation:
        case "off":
            return protocol_class(None)
        case Truncation(head_chars=head_chars, tail_chars=tail_chars):
            return protocol_class(TextLimits(head_chars, tail_chars))
        case _:
            return protocol_class(protocol_class.default_limits)


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
            return _openai_client(argument.split(","), config, on_event)
        case _:
            raise ConfigError(f"--model {config.model.client}: no such model client; known: {MODEL_KINDS}")


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
