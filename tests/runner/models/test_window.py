"""Replies are asked for that fit the window; a conversation ends when none does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from runner.config import ModelConfig
from runner.errors import ContextOverflow
from runner.models import Completion, ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from runner.models.window import MARGIN_TOKENS, MIN_REPLY_TOKENS, Window, shorter_reply
from runner.models.wire import counts_reply
from runner.records import Usage
from tests.fake_engine import FakeCore, Refused, answer, parse, render, tokenize
from tests.runner.factories import sample

WINDOW_TOKENS = 2000


def window(n_tokens: int = WINDOW_TOKENS) -> Window:
    w = Window()
    w.narrow(n_tokens)
    return w


def completion(n_prompt: int, n_reply: int, **changes: Any) -> Completion:
    values = {"text": "x" * 3 * n_reply, "usage": Usage(n_prompt, n_reply, n_prompt + n_reply)}
    return Completion(**(values | changes))


def test_without_a_window_nothing_is_shortened() -> None:
    """A server that does not tell is asked for what the config says."""
    w = Window()
    w.on_completion("a@1", 3_000_000, completion(10**6, 10))
    assert w.longest_reply("a@1", 3_000_000, 4096) == 4096


def test_the_smallest_window_counts() -> None:
    w = window(4000)
    w.narrow(2000)
    w.narrow(8000)
    assert w.n_tokens == 2000


@given(
    st.integers(200, 10**6), st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**6), st.integers(1, 10**6),
    st.booleans(),
)  # fmt: skip
def test_a_reply_fits_what_is_known(
    n_window: int, n_prompt: int, n_reply: int, n_added_bytes: int, wanted: int, thinks: bool
) -> None:
    """Never more than wanted, never none; beside what the last call counted it fits, if anything does."""
    w = window(n_window)
    reply = completion(n_prompt, n_reply, reasoning="hm" if thinks else None)
    w.on_completion("a@1", 1000, reply)
    asked = w.longest_reply("a@1", 1000 + len(reply.text) + n_added_bytes, wanted)
    known = n_prompt if thinks else n_prompt + n_reply
    assert 1 <= asked <= wanted
    assert asked + known + MARGIN_TOKENS <= n_window or asked <= MIN_REPLY_TOKENS
    w.forget("a@1")
    assert w.longest_reply("a@1", 0, wanted) == min(wanted, n_window - MARGIN_TOKENS)


@given(st.integers(1, 10**6))
def test_shorter_and_shorter_replies_come_to_an_end(n_tokens: int) -> None:
    tries, asked = 0, shorter_reply(n_tokens)
    while asked is not None:
        assert MIN_REPLY_TOKENS <= asked < n_tokens
        n_tokens, tries = asked, tries + 1
        asked = shorter_reply(n_tokens)
    assert tries <= 17


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        ("However, you requested 512 output tokens and your prompt contains 4000 input tokens", True),
        ("However, you requested 5000 tokens (4000 in the messages, 1000 in the completion).", True),
        ("4000 tokens from the input messages and 1000 tokens for the completion.", True),
        ("'max_tokens' or 'max_completion_tokens' is too large: 100000.", True),
        ("your prompt contains 4000 input tokens, which exceeds this limit even without any output tokens.", False),
    ],
)  # fmt: skip
def test_refusals_that_count_the_reply(message: str, counts: bool) -> None:
    assert counts_reply(orjson.dumps({"error": {"message": message}})) is counts


class Engine:
    """The fake engine's core in this process; `clamps` as vLLM 0.32 does, which refuses only long prompts."""

    def __init__(self, *, clamps: bool = False) -> None:
        self.core = FakeCore(parse(["--model", "m", "--max-model-len", str(WINDOW_TOKENS)]))
        self.clamps = clamps
        self.asked: list[int] = []

    async def __aenter__(self) -> Engine:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = site._server.sockets[0].getsockname()  # type: ignore[union-attr]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return answer({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": WINDOW_TOKENS}]})

    async def _chat(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        ids = tokenize(text := render(body["messages"]))
        self.asked.append(body["max_tokens"])
        if self.clamps:
            body["max_tokens"] = max(1, min(body["max_tokens"], WINDOW_TOKENS - len(ids)))
        try:
            made = await self.core.generate(ids, {**body, "ignore_eos": True}, len(text))
        except Refused as refused:
            return answer(refused.body, refused.status)
        n_reply = len(made["output"])
        message = {"role": "assistant", "content": "y" * 2 * n_reply}
        usage = {"prompt_tokens": len(ids), "completion_tokens": n_reply}
        return answer({"choices": [{"finish_reason": "length", "message": message}], "usage": usage})


async def talk(url: str, n_first_chars: int, n_chars: int) -> int:
    """Go on with observations of `n_chars` until the window is full; return the tokens of the last prompt."""
    config = ModelConfig.model_validate({"client": "openai:x", "request": {"max_tokens": 500}})
    client = OpenAIClient([url], config)
    conversation = Conversation([{"role": "user", "content": "x" * n_first_chars}])
    await client.start()
    try:
        for n_turns in range(100):
            n_tokens = len(tokenize(render(conversation.messages)))
            try:
                reply = await client.complete(ModelRequest(sample("a"), 1, n_turns, conversation))
            except ContextOverflow:
                return n_tokens
            conversation.append({"role": "assistant", "content": reply.text})
            conversation.append({"role": "user", "content": "x" * n_chars})
    finally:
        await client.close()
    raise AssertionError("the window is never full")


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize(("n_first_chars", "n_chars"), [(100, 40), (100, 700), (3300, 40), (3900, 1)])
async def test_a_conversation_ends_only_when_the_window_is_full(
    n_first_chars: int, n_chars: int, clamps: bool
) -> None:
    """Not 500 tokens before it, which is what the config allows a reply; refused are few requests on the way."""
    async with Engine(clamps=clamps) as engine:
        n_tokens = await talk(engine.url, n_first_chars, n_chars)
        assert n_tokens > WINDOW_TOKENS - MIN_REPLY_TOKENS
        assert max(engine.asked) <= 500
        assert engine.core.counts["length"] > 0
        assert len(engine.asked) - engine.core.counts["length"] <= 12
        if n_first_chars == 100:
            assert engine.asked[0] == 500
