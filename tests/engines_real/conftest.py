"""A model on disk and two engines of it, once for all tests of this folder; they skip where vLLM is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines_real.hosted import hosted_vllm, vllm_config
from tests.engines_real.tiny_llama import CHAT_TEMPLATE, write_adapter, write_tiny_llama

ADAPTER = "poet"
NOTE = "<|start|>note\nread from a file<|end|>"
"""What every prompt begins with, by a template that is not the model's own."""


@pytest.fixture(name="tiny_llama", scope="session")
def _tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that any vLLM loads."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here: make test-engines")
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(name="pair", scope="package")
def _pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The URLs, with `/v1`, of two engines of ours with all that can be passed through; see test_passed."""
    folder = tmp_path_factory.mktemp("pair")
    template = folder / "template.jinja"
    template.write_text(NOTE + CHAT_TEMPLATE, encoding="utf-8")
    config = vllm_config(
        tiny_llama,
        replicas=2,
        chat_template=str(template),
        args={
            "block_size": 32,  # finer than vLLM's own on CPU: prompts of tests are short
            "num_gpu_blocks_override": 4096,
            "enable_lora": True,
            "lora_modules": [f"{ADAPTER}={write_adapter(folder / 'adapter')}"],
            "enable_auto_tool_choice": True,
            "tool_call_parser": "hermes",
            "reasoning_parser": "granite",
            "structured_outputs_config": {"enable_in_reasoning": True},
        },
    )
    with hosted_vllm(config, folder / "logs") as urls:
        yield urls


@pytest.fixture(name="server", scope="package")
def _server(pair: list[str]) -> str:
    """The URL of one of the engines, without `/v1`."""
    return pair[0].removesuffix("/v1")
