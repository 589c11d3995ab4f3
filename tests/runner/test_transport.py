"""What does not go with `model.transport: tokens` is refused before any server is asked."""

from __future__ import annotations

from typing import Any

import pytest

from bench_data import DataOptions, load
from runner.config import check_config
from runner.errors import ConfigError
from runner.factory import build_model, build_protocol
from runner.models import OpenAIClient


def built(**settings: Any) -> Any:
    """Return the model client of a config."""
    values = {"model": {"client": "openai:http://127.0.0.1:1/v1", "transport": "tokens"}, **settings}
    config = check_config(values)
    protocol = build_protocol(config, load("quickstart", DataOptions()))
    return build_model(config, protocol, lambda name, details: None)


@pytest.mark.parametrize("kind", ["fenced", "execute_tag", "function_call"])
def test_actions_that_are_text(kind: str) -> None:
    assert isinstance(built(protocol=kind), OpenAIClient)


@pytest.mark.parametrize("client", ["openai:http://127.0.0.1:1/v1", "vllm:some/model"])
def test_native_tools(client: str) -> None:
    """Their calls are read by the server, from chat completions alone."""
    wanted = (
        r"protocol tool_call.*model\.transport=chat, or a protocol\.kind.*fenced, function_call, execute_tag"
    )
    with pytest.raises(ConfigError, match=wanted):
        built(protocol="tool_call", model={"client": client, "transport": "tokens"})
    assert built(protocol="tool_call", model={"client": client})


@pytest.mark.parametrize(
    "args", [{"reasoning_parser": "qwen3"}, ["--reasoning-parser", "qwen3"], ["--reasoning-parser=qwen3"]]
)
def test_a_reasoning_parser_of_our_engines(args: Any) -> None:
    """It would not read what comes as ids."""
    engines = {"args": args}
    with pytest.raises(ConfigError, match=r"engines\.args has a reasoning_parser"):
        built(model={"client": "vllm:some/model", "transport": "tokens"}, engines=engines)
    assert built(model={"client": "vllm:some/model"}, engines=engines)
    assert built(engines=engines)  # which are not used


def test_a_key_that_completions_do_not_know() -> None:
    model = {"client": "openai:http://127.0.0.1:1/v1", "transport": "tokens", "request": {"documents": []}}
    with pytest.raises(ConfigError, match=r"model\.request\.documents cannot be sent"):
        built(model=model)


def test_another_word() -> None:
    with pytest.raises(ConfigError, match=r"model\.transport: .*'chat' or 'tokens', got 'ids'"):
        built(model={"client": "oracle", "transport": "ids"})
