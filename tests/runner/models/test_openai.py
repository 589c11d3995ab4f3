"""The client against a real HTTP server: what is retried, what is refused, what is kept."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from runner.config import ModelConfig
from runner.errors import ConfigError, ContextOverflow, ModelRefused, ModelUnavailable
from runner.models import ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from runner.models.retrying import retry_after_s
from tests.runner.factories import sample
from tests.stub_server import StubServer, completion, refusal

REQUEST = ModelRequest(
    sample=sample("one"),
    epoch=1,
    n_turns_done=0,
    conversation=Conversation([{"role": "user", "content": "hi there"}]),
    stop=("</execute>",),
)


class Clock:
    """Adds up what a client says of where the time went."""

    waited_s = 0.0
    excused_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began_at = time.perf_counter()
        yield
        self.waited_s += time.perf_counter() - began_at

    def excuse(self, seconds: float) -> None:
        self.excused_s += seconds


def config(**changes: Any) -> ModelConfig:
    values = {"client": "openai:x", "max_retries": 2, "max_backoff_s": 0.01}
    return ModelConfig.model_validate(values | changes)


def replies(*responses: Callable[[], web.StreamResponse]) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Give these responses one after the other, the last one for ever."""
    queue = list(responses)

    async def handler(body: dict[str, Any]) -> web.StreamResponse:
        return queue.pop(0)() if len(queue) > 1 else queue[0]()

    return handler


async def ask(server: StubServer, **changes: Any) -> Any:
    client = OpenAIClient([server.url], config(**changes))
    try:
        await client.start()
        return await client.complete(REQUEST)
    finally:
        await client.close()


async def test_reply_with_everything() -> None:
    """Text, finish reason, reasoning, tool calls and the server's usage are kept."""
    calls = [{"id": "1", "type": "function", "function": {"name": "python", "arguments": "{}"}}]
    full = replies(lambda: completion("hello", "length", reasoning_content="hm", tool_calls=calls))
    async with StubServer(full) as server:
        reply = await ask(server)

    assert (reply.text, reply.finish_reason, reply.reasoning) == ("hello", "length", "hm")
    assert reply.tool_calls == calls
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens, reply.usage.estimated) == (11, 18, False)


async def test_request_is_merged_verbatim() -> None:
    """`model.request` enters the body as it is and wins over ours; headers are sent."""
    async with StubServer() as server:
        await ask(server, request={"temperature": 0.2, "stop": ["X"]}, headers={"X-Team": "night"})

    body = server.requests[0]
    assert body == {
        "model": "stub",
        "messages": [{"role": "user", "content": "hi there"}],
        "stop": ["X"],
        "temperature": 0.2,
    }
    assert server.headers[0]["X-Team"] == "night"
    assert "Authorization" not in server.headers[0]


async def test_api_key_is_sent() -> None:
    """The key goes into the Authorization header."""
    async with StubServer() as server:
        client = OpenAIClient([server.url], config(), api_key="k")
        await client.start()
        await client.complete(REQUEST)
        await client.close()

    assert server.headers[0]["Authorization"] == "Bearer k"


async def test_password_in_the_address() -> None:
    """It is sent, and shown nowhere."""
    async with StubServer(replies(lambda: completion("ok"), lambda: refusal(500, "boom"))) as server:
        url = server.url.replace("http://", "http://user:s3cret@")
        client = OpenAIClient([url], config(max_retries=0))
        await client.start()
        await client.complete(REQUEST)
        with pytest.raises(ModelUnavailable) as caught:
            await client.complete(REQUEST)
        await client.close()

    assert server.headers[0]["Authorization"] == f"Basic {b64encode(b'user:s3cret').decode()}"
    assert str(caught.value).startswith(f"{server.url}: no usable answer")


async def test_name_is_found_when_there_is_one_model() -> None:
    """Without model.name, the only model that is served is used."""
    async with StubServer(models=("only",)) as server:
        await ask(server)

    assert server.requests[0]["model"] == "only"


async def test_name_is_needed_when_there_are_several() -> None:
    """Several models and no name is an error that lists them."""
    async with StubServer(models=("a", "b")) as server:
        with pytest.raises(ConfigError, match=r"model.name is not set.*lists a, b"):
            await ask(server)


async def test_address_without_v1() -> None:
    """A server that has nothing there gets the usual remedy, whether or not a name is set."""
    async with StubServer() as server:
        for name in (None, "x"):
            client = OpenAIClient([server.url.removesuffix("/v1")], config(name=name))
            with pytest.raises(ConfigError, match=r"HTTP 404.*most addresses end in /v1"):
                await client.start()
            await client.close()


async def test_page_in_the_place_of_the_models() -> None:
    """What is no list of models is not mistaken for an empty one."""

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>hello</html>")

    server = StubServer()
    server._list_models = page  # type: ignore[method-assign]
    async with server:
        with pytest.raises(ConfigError, match=r"no list of models.*<html>hello"):
            await ask(server)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(lambda: web.Response(text="<html>Bad gateway</html>", content_type="text/html"), id="html"),
        pytest.param(lambda: web.Response(text='{"choices": [{"mess'), id="truncated-json"),
        pytest.param(lambda: web.json_response({"choices": []}), id="no-choices"),
        pytest.param(lambda: web.json_response({"choices": [{"message": None}]}), id="no-message"),
        pytest.param(lambda: web.json_response({"choices": [{"message": {"content": 3}}]}), id="content-no-text"),
        pytest.param(lambda: web.json_response([1]), id="a-list"),
        pytest.param(lambda: web.Response(text="[" * 20_000), id="nested-deeply"),
        pytest.param(lambda: web.Response(), id="empty"),
        pytest.param(lambda: completion("I will now", "abort"), id="aborted"),
        pytest.param(lambda: completion("", "error"), id="error"),
        pytest.param(lambda: refusal(500, "boom"), id="500"),
        pytest.param(lambda: refusal(503, "busy"), id="503"),
        pytest.param(lambda: refusal(408, "slow"), id="408"),
        pytest.param(lambda: refusal(429, "too many"), id="429"),
    ],
)  # fmt: skip
async def test_retried_and_then_fine(response: Callable[[], web.StreamResponse]) -> None:
    """A passing fault or an unreadable answer costs a retry, not the attempt."""
    async with StubServer(replies(response, lambda: completion("ok"))) as server:
        assert (await ask(server)).text == "ok"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("response", "said"),
    [
        pytest.param(lambda: web.Response(text="<html>x</html>"), "not JSON.*<html>x</html>", id="html"),
        pytest.param(lambda: web.json_response({"choices": []}), r"without choices\[0\].message", id="no-choices"),
        pytest.param(lambda: refusal(500, "boom"), "HTTP 500: boom", id="500"),
        pytest.param(lambda: completion("I will", "abort"), "finish_reason 'abort'.*'I will'", id="aborted"),
    ],
)  # fmt: skip
async def test_retried_in_vain(response: Callable[[], web.StreamResponse], said: str) -> None:
    """After all retries the error names the server, the tries and what it said last."""
    async with StubServer(replies(response)) as server:
        with pytest.raises(ModelUnavailable, match=rf"no usable answer in 3 tries.*{said}"):
            await ask(server)
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_other_refusals_are_final(status: int) -> None:
    """A 4xx that would come again is not tried again."""
    async with StubServer(replies(lambda: refusal(status, "no such thing"))) as server:
        with pytest.raises(ModelRefused, match=f"HTTP {status}: no such thing"):
            await ask(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(
            lambda: refusal(400, "This model's maximum context length is 4096 tokens. However, ..."), id="vllm"
        ),
        pytest.param(lambda: refusal(400, "too many", param="input_tokens"), id="vllm-param"),
        pytest.param(lambda: refusal(400, "too many", param="input_text"), id="vllm-text-param"),
        pytest.param(lambda: refusal(400, TOO_MANY_TOKENS, param=None), id="vllm-0.32-tokens"),
        pytest.param(lambda: refusal(400, TOO_MUCH_TEXT, param=None), id="vllm-0.32-text"),
        pytest.param(lambda: refusal(400, NO_ROOM, param=None), id="vllm-0.32-engine"),
        pytest.param(lambda: refusal(400, "too long", code="context_length_exceeded"), id="openai-code"),
        pytest.param(
            lambda: refusal(400, "the request exceeds the available context size (512 tokens)"), id="llama.cpp"
        ),
    ],
)  # fmt: skip
async def test_context_overflow_is_recognised(response: Callable[[], web.StreamResponse]) -> None:
    """What the servers say when a conversation does not fit is not an error of theirs."""
    async with StubServer(replies(response)) as server:
        with pytest.raises(ContextOverflow):
            await ask(server)
        assert len(server.requests) == 1


TOO_MANY_TOKENS = (
    "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
)
TOO_MUCH_TEXT = (
    "This model's maximum context length is 512 tokens. However, your prompt contains 9000 characters (more than "
    "8192 characters, which is the upper bound for 512 input tokens). Please reduce the length of the input prompt."
)
NO_ROOM = "Input length (600) exceeds model's maximum context length (512)."
FILLED = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
TOO_LARGE = (
    "'max_tokens' or 'max_completion_tokens' is too large: 100000. This model's maximum context length is 4096 "
    "tokens and your request has 30 input tokens (100000 > 4096 - 30)."
)


@pytest.mark.parametrize("error", [{"param": "max_tokens"}, {"param": "max_completion_tokens"}, {}])
async def test_reply_that_may_be_too_long_from_the_first(error: dict[str, Any]) -> None:
    """Before the model has said anything it is the config's fault; later, the conversation has grown."""
    async with StubServer(replies(lambda: refusal(400, TOO_LARGE, **error))) as server:
        with pytest.raises(ModelRefused, match=r"too large: 100000.*lower model\.request\.max_tokens"):
            await ask(server)
        client = OpenAIClient([server.url], config())
        await client.start()
        with pytest.raises(ContextOverflow):
            await client.complete(replace(REQUEST, n_turns_done=1))
        await client.close()


async def test_prompt_that_fills_the_window_to_its_last_token() -> None:
    """The conversation has grown too long, whatever parameter the server names."""
    async with StubServer(replies(lambda: refusal(400, FILLED, param="max_tokens"))) as server:
        client = OpenAIClient([server.url], config())
        await client.start()
        with pytest.raises(ContextOverflow, match="got 0"):
            await client.complete(replace(REQUEST, n_turns_done=1))
        await client.close()


async def test_refusal_nested_deeply() -> None:
    """What a server says is told whatever its shape."""
    body = b'{"error":' + b"[" * 1000 + b"]" * 1000 + b"}"
    async with StubServer(replies(lambda: web.Response(status=400, body=body))) as server:
        with pytest.raises(ModelRefused, match=r"HTTP 400: \[\[\["):
            await ask(server)


async def test_nothing_listens() -> None:
    """A server that is down is named before any work is begun."""
    async with StubServer() as server:
        url = server.url
    client = OpenAIClient([url], config())
    with pytest.raises(ModelUnavailable, match=rf"no model server at {url}: .*Start it"):
        await client.start()
    await client.close()


async def test_server_that_goes_away() -> None:
    """A connection that breaks is retried, then reported."""
    async with StubServer() as server:
        client = OpenAIClient([server.url], config())
        await client.start()
    with pytest.raises(ModelUnavailable, match="no usable answer in 3 tries"):
        await client.complete(REQUEST)
    await client.close()


async def test_slow_answer_is_given_up() -> None:
    """`timeout_s` bounds one request."""
    async with StubServer(latency_s=30) as server:
        with pytest.raises(ModelUnavailable, match="Timeout"):
            await ask(server, timeout_s=0.05, max_retries=0)


async def test_cancelling_a_call_is_clean() -> None:
    """A cancelled call raises CancelledError and leaves the client usable."""
    async with StubServer(latency_s=30) as server:
        client = OpenAIClient([server.url], config())
        await client.start()
        call = asyncio.ensure_future(client.complete(REQUEST))
        while not server.requests:  # noqa: ASYNC110 - the server has no event to wait for
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.latency_s = 0
        assert (await client.complete(REQUEST)).text
        await client.close()


async def test_refused_key_is_explained() -> None:
    """A server that wants a key is told apart at the start."""

    async def unauthorized(request: web.Request) -> web.StreamResponse:
        return refusal(401, "bad key")

    server = StubServer()
    server._list_models = unauthorized  # type: ignore[method-assign]
    async with server:
        with pytest.raises(ConfigError, match=r"bad key.*model.api_key_env"):
            await ask(server)


async def test_lone_surrogates_go_both_ways() -> None:
    """Half a character, which orjson refuses, neither fails the call nor the next request."""
    odd = replies(lambda: web.Response(body=b'{"choices": [{"message": {"content": "a\\ud83d"}}]}'))
    async with StubServer(odd) as server:
        assert (await ask(server)).text == "a\ud83d"
        client = OpenAIClient([server.url], config())
        await client.start()
        messages = [{"role": "assistant", "content": "a\ud83d"}]
        await client.complete(ModelRequest(sample("one"), 1, 0, Conversation(messages)))
        await client.close()

    assert server.requests[-1]["messages"][0]["content"] == "a\\ud83d"


async def test_usage_is_estimated_when_the_server_is_silent() -> None:
    """Without usage, a quarter of the characters is counted and marked."""
    silent = replies(lambda: web.json_response({"choices": [{"message": {"content": "12345678"}}]}))
    async with StubServer(silent) as server:
        usage = (await ask(server)).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (2, 2, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("", None), ("soon", None)],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Seconds are read as they are, nonsense is ignored."""
    assert retry_after_s({"Retry-After": value}, now=0.0) == expected


def test_retry_after_as_a_date() -> None:
    """A date means the time until then."""
    now = time.time()
    assert retry_after_s({"Retry-After": formatdate(now + 60, usegmt=True)}, now) == pytest.approx(
        60, abs=1.5
    )


async def test_retry_after_is_waited_for() -> None:
    """The next try comes no sooner than the server asks."""
    handler = replies(lambda: refusal(429, "later", {"Retry-After": "0.3"}), lambda: completion("ok"))
    async with StubServer(handler) as server:
        began_at = time.perf_counter()
        await ask(server)

    assert time.perf_counter() - began_at >= 0.3


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("headers", [None, {"Retry-After": "0"}, {"Retry-After": "0.01"}])
async def test_waits_grow(
    status: int, headers: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with too many calls gets more time after each, however soon it asks us to come back."""
    monkeypatch.setattr("runner.models.retrying.FIRST_BACKOFF_S", 0.02)
    asked_at: list[float] = []

    async def handler(body: dict[str, Any]) -> web.StreamResponse:
        asked_at.append(time.perf_counter())
        return refusal(status, "later", headers)

    async with StubServer(handler) as server:
        with pytest.raises(ModelUnavailable):
            await ask(server, max_retries=4, max_backoff_s=60)
    gaps = [after - before for before, after in pairwise(asked_at)]
    assert all(gap >= 0.01 * 2**n for n, gap in enumerate(gaps)), gaps


@pytest.mark.parametrize("value", ["inf", "1e300", "3600"])
async def test_retry_after_has_a_limit(value: str) -> None:
    """A server that asks to wait longer than a call may take has failed: nobody sleeps that long."""
    handler = replies(lambda: refusal(429, "later", {"Retry-After": value}))
    async with StubServer(handler) as server, asyncio.timeout(10):
        with pytest.raises(ModelUnavailable, match=r"asks us to wait .* model\.timeout_s"):
            await ask(server)


async def test_lost_time_is_told() -> None:
    """The request hears of all seconds that failed tries and the waits after them took."""
    clock = Clock()
    handler = replies(lambda: refusal(429, "later", {"Retry-After": "0.2"}), lambda: completion("ok"))
    async with StubServer(handler) as server:
        client = OpenAIClient([server.url], config())
        await client.start()
        await client.complete(replace(REQUEST, clock=clock))
        await client.close()

    assert 0.19 <= clock.waited_s < 5
    assert 0 < clock.excused_s < 5


def test_url_must_be_one() -> None:
    """What is no address is refused at once."""
    with pytest.raises(ConfigError, match="openai:http://localhost:8000/v1"):
        OpenAIClient(["localhost:8000"], config())
