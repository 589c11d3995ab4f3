"""What is passed through reaches vLLM: a template, adapters, parsers, JSON; and a flag it does not know."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.engines import open_engines
from runner.errors import AllEnginesLost
from runner.models import Completion, ModelRequest
from runner.models.conversation import Conversation
from tests.bench.conversations import client
from tests.engines_real.conftest import ADAPTER, NOTE
from tests.engines_real.hosted import vllm_config
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.processes import wait_until_gone
from tests.runner.engines.test_open_engines import ask
from tests.runner.factories import sample

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(2 * BOOT_LIMIT_S),
    pytest.mark.asyncio(loop_factories=["uvloop"]),
]

MESSAGES = [{"role": "user", "content": "Say something."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
    },
}
CALL = r'<tool_call>\{"name": "python", "arguments": \{"code": "print\([0-9]{1,3}\)"\}\}</tool_call>'
THOUGHT = r"Here is my thought process: [a-z]{1,5}\. Here is my response: [0-9]{1,3}"


async def complete(url: str, name: str = NAME, *, tools: Any = None, **request: Any) -> Completion:
    """Return what our client makes of a reply."""
    settings = {"temperature": 0, "max_tokens": 100, **request}
    model = client([url], 1, name=name, request=settings, send_seed=False)
    await model.start()
    try:
        return await model.complete(
            ModelRequest(sample("one"), 1, 0, Conversation(MESSAGES), seed=1, tools=tools)
        )
    finally:
        await model.close()


async def test_chat_template_of_a_file(pair: list[str]) -> None:
    """Prompts begin as the file has it, and not as the model has it."""
    _, prompt = await ask(pair[0].removesuffix("/v1"), "tokenize", model=NAME, messages=MESSAGES)
    _, text = await ask(pair[0].removesuffix("/v1"), "detokenize", model=NAME, tokens=prompt["tokens"])
    assert text["prompt"] == f"{NOTE}<|start|>user\nSay something.<|end|><|start|>assistant\n"


async def test_adapter_answers_by_its_name(pair: list[str]) -> None:
    """Otherwise than the model, and each time the same, on both engines."""
    own, *adapted = [
        (await complete(url, name, max_tokens=16)).text
        for url, name in ((pair[0], NAME), (pair[0], ADAPTER), (pair[1], ADAPTER))
    ]
    assert adapted[0] == adapted[1] != own


async def test_tool_parser(pair: list[str]) -> None:
    """A call in the reply's text comes as a call."""
    reply = await complete(pair[0], tools=[TOOL], structured_outputs={"regex": CALL})
    assert reply.tool_calls is not None
    (call,) = reply.tool_calls
    assert call["function"]["name"] == "python"
    assert call["function"]["arguments"].startswith('{"code": "print(')


async def test_reasoning_parser(pair: list[str]) -> None:
    """A thought in the reply's text is kept apart, also where the text was prescribed."""
    reply = await complete(pair[0], structured_outputs={"regex": THOUGHT})
    assert reply.reasoning
    assert reply.reasoning.strip().endswith(".")
    assert reply.text.strip().isdigit()


async def test_a_flag_that_vllm_does_not_know(tiny_llama: Path, tmp_path: Path) -> None:
    """One line that says where to correct it, and vLLM's own words; nothing is left."""
    config = vllm_config(tiny_llama, args={"no_such_flag": 1}, max_restarts=0, env={"FOLDER": str(tmp_path)})
    with pytest.raises(AllEnginesLost) as caught:
        await open_engines(config, tmp_path / "logs")
    first, _, log = str(caught.value).partition("\n")
    assert "this vLLM does not know an option: correct engines.args" in first
    assert log.endswith("error: unrecognized arguments: --no-such-flag")
    assert "Traceback" not in log
    assert not await asyncio.to_thread(wait_until_gone, tmp_path)
