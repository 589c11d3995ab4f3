"""Trajectories in token ids: each prompt is the one before, the reply, and what the template writes between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from runner.config import ModelConfig
from runner.endpoint_table import EngineEndpoint
from runner.errors import ConfigError, ContextOverflow, ModelUnavailable
from runner.models import CachingClient, ModelClient, ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from runner.models.engine_metrics import parse_engine_load
from runner.models.template_check import probes, stub_probes
from tests.fake_engine import FakeEngine, parse
from tests.fake_engine_core import detokenize, render, tokenize
from tests.runner.factories import sample

N_RENDERS = len(stub_probes()) + len(probes(with_system=True)) + 1
"""Of a check."""

SYSTEM = {"role": "system", "content": "You run code."}


class Served(FakeEngine):
    """The fake engine in this process. `broken` are paths that answer with a status."""

    def __init__(self, *options: str) -> None:
        super().__init__(parse(["--model", "m", *options]))
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.prompts: list[list[int]] = []
        self.replies: list[list[int]] = []
        self.broken: dict[str, int] = {}
        self.resets = 0
        """Requests whose connection is to break."""

        self.url = ""

    async def listen(self) -> web.AppRunner:
        """Serve on a free port."""
        application = self.application()
        application.middlewares.append(self._record)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[union-attr]
        return runner

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.resets and request.method == "POST":
            self.resets -= 1
            assert request.transport is not None
            request.transport.abort()
        if request.path in self.broken:
            return web.json_response({"error": {"message": "broken"}}, status=self.broken[request.path])
        if request.method == "POST":
            self.asked.append((request.path, orjson.loads(await request.read())))
        response: web.Response = await handler(request)
        if request.path == "/v1/completions" and self.asked[-1][1]["max_tokens"] != 1:
            choice = orjson.loads(response.body)["choices"][0]  # type: ignore[arg-type]
            self.prompts.append(choice["prompt_token_ids"])
            self.replies.append(choice["token_ids"])
        return response

    @property
    def hit_rate(self) -> float:
        """Of all prompt tokens, those that were in the prefix cache."""
        load = parse_engine_load(self.core.metrics())
        assert load is not None
        return load.n_prefix_hits / load.n_prefix_queries


@asynccontextmanager
async def serving(*engines: Served) -> AsyncIterator[None]:
    """Have engines listen."""
    runners = [await engine.listen() for engine in engines]
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


@asynccontextmanager
async def client(
    *engines: Served, events: list[tuple[str, dict[str, Any]]] | None = None, **model: Any
) -> AsyncIterator[OpenAIClient]:
    """Have a client started."""
    values = {"client": "openai:x", "transport": "tokens", "max_retries": 2, "max_backoff_s": 0.01, **model}
    heard = [] if events is None else events
    opened = OpenAIClient(
        [engine.url for engine in engines],
        ModelConfig.model_validate(values),
        on_event=lambda name, details: heard.append((name, details)),
    )
    try:
        await opened.start()
        yield opened
    finally:
        await opened.close()


def request(conversation: Conversation, n_turns: int = 0, **changes: Any) -> ModelRequest:
    """Return a request of one attempt."""
    values = {"sample": sample("s"), "epoch": 1, "seed": 7} | changes
    return ModelRequest(n_turns_done=n_turns, conversation=conversation, **values)


async def talk(
    model: ModelClient, n_turns: int, *, seen: str = "[1, 2]\n", **changes: Any
) -> tuple[Conversation, list[str]]:
    """Hold a conversation; return it and its replies."""
    conversation, replies = Conversation([SYSTEM, {"role": "user", "content": "odd"}]), []
    for n_done in range(n_turns):
        reply = await model.complete(request(conversation, n_done, **changes))
        replies.append(reply.text)
        conversation.append({"role": "assistant", "content": reply.text})
        conversation.append({"role": "user", "content": f"{seen}{n_done}"})
    return conversation, replies


def assert_only_adds(prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> None:
    """Each prompt begins with the one before it and the reply to that."""
    for before, reply, after in zip(prompts, replies, prompts[1:], strict=False):
        assert list(after[: len(before) + len(reply)]) == [*before, *reply]


@pytest.mark.parametrize("drift", [False, True])
async def test_each_prompt_begins_with_the_one_before_and_its_reply(drift: bool) -> None:
    """Also where the model's ids are not those of a tokenizer; in text it is what the template writes."""
    engine = Served(*(["--drift"] if drift else []))
    async with serving(engine), client(engine, request={"max_tokens": 200}) as model:
        conversation, replies = await talk(model, 4)
    assert len(engine.prompts) == 4
    assert_only_adds(engine.prompts, engine.replies)
    assert detokenize(engine.prompts[-1]) == render(conversation.messages[:-2])
    assert (engine.prompts[-1] == tokenize(render(conversation.messages[:-2]))) is not drift
    assert replies[0].startswith("```python")
    assert replies[-1].startswith("All done")
    assert "<|end|>" not in "".join(replies)


async def test_replies_are_those_of_chat() -> None:
    """The transport changes nothing of what a trajectory is, but for ids that a tokenizer would not make."""
    engine = Served()
    async with serving(engine):
        async with client(engine, transport="chat") as model:
            by_chat = await talk(model, 4)
        async with client(engine) as model:
            by_tokens = await talk(model, 4)
    assert by_tokens[1] == by_chat[1]
    assert by_tokens[0].messages == by_chat[0].messages


async def test_prefix_hits_more_than_by_chat_where_ids_drift() -> None:
    """All of a prompt but its last reply's end, the observation, and what is left of a block."""
    rates = []
    for transport in ("chat", "tokens"):
        engine = Served("--drift", "--block-size", "4")
        async with serving(engine), client(engine, transport=transport) as model:
            await talk(model, 8)
        rates.append(engine.hit_rate)
    assert rates[1] > rates[0] + 0.1


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [({"max_tokens": 5}, "length"), ({"stop": ["print"], "include_stop_str_in_output": True}, "stop"), ({}, "stop")],
)  # fmt: skip
async def test_a_reply_has_one_end_however_it_ended(parameters: dict[str, Any], reason: str) -> None:
    """The model's own, or else the template's."""
    engine = Served()
    async with serving(engine), client(engine, request=parameters) as model:
        conversation, _ = await talk(model, 3)
        reply = await model.complete(request(conversation, 3))
    assert reply.finish_reason == reason
    assert_only_adds(engine.prompts, engine.replies)
    assert detokenize(engine.prompts[-1]) == render(conversation.messages)


async def test_another_end_than_the_templates_is_left_out() -> None:
    """As chat leaves it out, which knows of the text alone."""
    engine = Served()
    made = engine.core.generate

    async def ends_by_another(*arguments: Any) -> dict[str, Any]:
        answer = await made(*arguments)
        return {**answer, "output": [*answer["output"][:-1], 99]}

    engine.core.generate = ends_by_another  # type: ignore[method-assign]
    async with serving(engine), client(engine) as model:
        await talk(model, 2)
    assert engine.replies[0][-1] == 99
    assert 99 not in engine.prompts[1]
    assert engine.prompts[1][: len(engine.prompts[0]) + len(engine.replies[0]) - 1] == [
        *engine.prompts[0], *engine.replies[0][:-1],
    ]  # fmt: skip


async def test_a_token_that_was_asked_to_stop_at_stays() -> None:
    """It is the reply's, not its end."""
    engine = Served()
    made = engine.core.generate

    async def stops_at(*arguments: Any) -> dict[str, Any]:
        answer = await made(*arguments)
        return {**answer, "output": answer["output"][:3], "stop": 77, "reason": "stop"}

    engine.core.generate = stops_at  # type: ignore[method-assign]
    async with serving(engine), client(engine, request={"stop_token_ids": [77]}) as model:
        await talk(model, 2)
    assert_only_adds(engine.prompts, engine.replies)


async def test_only_what_was_added_is_rendered() -> None:
    """The whole conversation once; then each time an observation behind a stub."""
    engine = Served()
    async with serving(engine), client(engine) as model:
        engine.asked.clear()
        await talk(model, 3)
    rendered = [body["messages"] for path, body in engine.asked if path == "/tokenize"]
    assert [len(messages) for messages in rendered] == [2, 3, 3]
    assert [messages[-1]["content"] for messages in rendered] == ["odd", "[1, 2]\n0", "[1, 2]\n1"]


async def test_what_is_not_known_is_rendered_whole_and_said() -> None:
    """After a resume; and the turns behind it go on from there."""
    engine, events = Served("--drift"), list[tuple[str, dict[str, Any]]]()
    async with serving(engine), client(engine, events=events) as model:
        conversation, _ = await talk(model, 2)
        model.forget("s@1")
        for n_done in (2, 3):
            reply = await model.complete(request(conversation, n_done))
            conversation.append({"role": "assistant", "content": reply.text})
            conversation.append({"role": "user", "content": "x"})
    said = [details for name, details in events if name == "history_rendered"]
    assert [(row["attempt"], row["n_turns"]) for row in said] == [("s@1", 2)]
    assert "not known here" in said[0]["reason"]
    assert_only_adds(engine.prompts[:2], engine.replies)
    assert_only_adds(engine.prompts[2:], engine.replies[2:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda messages: messages[2].update(content="mended"), "mended"),
        (lambda messages: messages[2].update(reasoning_content="hm"), "mended"),
        (lambda messages: messages.pop(), "does not go on"),
        (lambda messages: messages.__setitem__(1, {"role": "user", "content": "another"}), "does not go on"),
        (lambda messages: messages.append({"role": "assistant", "content": "no"}), "did not make"),
    ],
)
async def test_what_the_model_did_not_see_is_rendered_whole(change: Any, reason: str) -> None:
    """Never ids that stand for another conversation."""
    engine, events = Served(), list[tuple[str, dict[str, Any]]]()
    async with serving(engine), client(engine, events=events) as model:
        conversation, _ = await talk(model, 1)
        messages = [dict(message) for message in conversation.messages]
        change(messages)
        await model.complete(request(Conversation(messages), 1))
    assert reason in events[-1][1]["reason"]
    assert detokenize(engine.prompts[-1]) == render(messages)


async def test_replies_of_the_cache_have_no_ids(tmp_path: Path) -> None:
    """What follows them is rendered whole; with chat, the same words are another request."""
    engine, events = Served(), list[tuple[str, dict[str, Any]]]()
    async with serving(engine):
        for n_turns in (2, 3):
            async with client(engine, events=events) as model:
                cached = CachingClient(model, tmp_path)
                conversation, _ = await talk(cached, n_turns)
        assert len(engine.prompts) == 3
        async with client(engine, transport="chat") as model:
            await CachingClient(model, tmp_path).complete(request(Conversation(conversation.messages[:2])))
    assert [details["n_turns"] for name, details in events if name == "history_rendered"] == [2]
    assert engine.asked[-1][0] == "/v1/chat/completions"
    assert detokenize(engine.prompts[-1]) == render(conversation.messages[:-2])


async def test_a_template_that_changes_at_midnight() -> None:
    """What follows a reply is not where it was: the conversation is rendered whole."""
    engine, events = Served(), list[tuple[str, dict[str, Any]]]()
    async with serving(engine), client(engine, events=events) as model:
        conversation, _ = await talk(model, 1)
        plain = engine._render
        engine._render = lambda body: "Sunday. " + plain(body)  # type: ignore[method-assign]
        await model.complete(request(conversation, 1))
    assert "in another way than at the start" in events[-1][1]["reason"]
    assert detokenize(engine.prompts[-1]) == "Sunday. " + render(conversation.messages)


async def test_a_turn_is_redone_elsewhere_with_the_same_ids() -> None:
    """Any engine of the model takes them; nothing is rendered again."""
    engines = [Served("--drift"), Served("--drift")]
    events: list[tuple[str, dict[str, Any]]] = []
    async with serving(*engines), client(*engines, events=events) as model:
        conversation, _ = await talk(model, 2)
        had, other = sorted(engines, key=lambda engine: -len(engine.prompts))
        had.broken = {"/v1/completions": 500}
        await model.complete(request(conversation, 2))
    assert (len(had.prompts), len(other.prompts)) == (2, 1)
    assert_only_adds([*had.prompts, *other.prompts], had.replies)
    assert not [name for name, _ in events if name == "history_rendered"]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions"])
async def test_a_server_that_fails_is_tried_again(path: str) -> None:
    """For the rendering as for the reply; in the end it is the engine's fault."""
    engine = Served()
    async with serving(engine), client(engine) as model:
        engine.broken = {path: 503}
        with pytest.raises(ModelUnavailable, match="no usable answer in 3 tries"):
            await talk(model, 1)
        engine.broken = {}
        await talk(model, 2)
    assert_only_adds(engine.prompts, engine.replies)


@pytest.mark.parametrize("n_wanted", [200, None])
async def test_a_conversation_ends_when_its_window_is_full(n_wanted: int | None) -> None:
    """How long a prompt is, is known: no request is refused, and no reply is shorter than it must be."""
    engine = Served("--max-model-len", "400")
    parameters = {} if n_wanted is None else {"max_tokens": n_wanted}
    async with serving(engine), client(engine, request={**parameters, "ignore_eos": True, "n": 1}) as model:
        conversation = Conversation([{"role": "user", "content": "x" * 200}])
        for n_done in range(2 if n_wanted else 1):
            reply = await model.complete(request(conversation, n_done))
            conversation.append({"role": "assistant", "content": reply.text})
            conversation.append({"role": "user", "content": "y"})
        with pytest.raises(ContextOverflow, match=r"has \d+ tokens, and the model's window 400"):
            await model.complete(request(conversation, 9))
    lengths = [len(prompt) + len(reply) for prompt, reply in zip(engine.prompts, engine.replies, strict=True)]
    assert lengths[-1] == 400
    assert max(lengths) == 400


async def test_logprobs_are_in_chats_form_and_name_ids() -> None:
    """So that the record holds the ids of what the model made."""
    engine = Served("--drift")
    async with serving(engine), client(engine, request={"logprobs": True}) as model:
        reply = await model.complete(request(Conversation([{"role": "user", "content": "x"}])))
    assert [row["token"] for row in reply.logprobs["content"]] == [f"token_id:{n}" for n in engine.replies[0]]
    assert all(row["logprob"] <= 0 for row in reply.logprobs["content"])


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("strips", "does not keep white space at the ends of a reply"),
        ("forgets", "does not keep what the model thought"),
        ("prefills", "writes what stood before a reply in another way"),
        ("moves", "writes what stood before a reply in another way"),
    ],
)
async def test_templates_are_refused_at_the_start(template: str, problem: str) -> None:
    """With the reason and both remedies."""
    engine = Served("--template", template)
    async with serving(engine):
        with pytest.raises(ConfigError, match=rf"{problem}.*engines\.chat_template.*model\.transport=chat"):
            async with client(engine):
                pass
    assert not engine.prompts


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/tokenize", "its /tokenize gives no tokens"),
        ("/detokenize", "its /detokenize gives no text"),
        ("/v1/completions", "its completions take no token ids"),
    ],
)
async def test_servers_without_ids_are_refused_at_the_start(path: str, problem: str) -> None:
    engine = Served()
    engine.broken = {path: 404}
    async with serving(engine):
        with pytest.raises(ConfigError, match=rf"{problem} \(HTTP 404: broken\).*model\.transport=chat"):
            async with client(engine):
                pass


async def test_a_server_that_does_not_answer_is_no_bad_template() -> None:
    engine = Served()
    engine.broken = {"/tokenize": 503}
    async with serving(engine):
        with pytest.raises(ModelUnavailable, match="does not answer at /tokenize"):
            async with client(engine):
                pass


async def test_servers_that_write_differently_are_refused_together() -> None:
    """A trajectory may move from one to the other."""
    engines = [Served(), Served()]
    plain = engines[1]._render
    engines[1]._render = lambda body: "BEGIN " + plain(body)  # type: ignore[method-assign]
    async with serving(*engines):
        with pytest.raises(ConfigError, match="write a conversation in different tokens"):
            async with client(*engines):
                pass


def row(number: int, engine: Served) -> EngineEndpoint:
    """Return how an engine that is ready is told of."""
    return EngineEndpoint(f"engine-{number}", engine.url, 1, "m", 32768, "ready")


async def test_a_server_that_comes_later_is_checked_before_it_is_asked() -> None:
    """One that writes otherwise gets no prompt, and its trajectories go elsewhere; one like the first does."""
    first, like, strips = Served(), Served(), Served("--template", "strips")
    other = Served()
    plain = other._render
    other._render = lambda body: "BEGIN " + plain(body)  # type: ignore[method-assign]
    engines = [first, like, strips, other]
    events: list[dict[str, Any]] = []
    settings = {"client": "vllm:m", "name": "m", "transport": "tokens", "max_backoff_s": 0.01}
    config = ModelConfig.model_validate(settings)
    model = OpenAIClient([], config, on_event=lambda name, details: events.append({"name": name, **details}))
    async with serving(*engines):
        model.set_endpoints([row(0, first)])
        await model.start()
        model.set_endpoints([row(number, engine) for number, engine in enumerate(engines)])
        talks = await asyncio.gather(*(talk(model, 3, sample=sample(f"s{n}")) for n in range(32)))
        await model.close()
    assert first.prompts
    assert like.prompts
    assert len(first.prompts) + len(like.prompts) == 32 * 3
    assert not strips.prompts
    assert not other.prompts
    assert len({tuple(replies) for _, replies in talks}) == 1
    n_checks = sum(path == "/tokenize" for path, _ in strips.asked) / N_RENDERS
    assert n_checks < 4  # by all eight that were to begin there, and by probes
    reasons = {event["endpoint"]: event["reason"] for event in events if event["name"] == "endpoint_ejected"}
    assert "does not keep white space" in reasons["engine-2"]
    assert "write a conversation in different tokens" in reasons["engine-3"]


async def test_a_server_that_was_away_is_checked_again() -> None:
    """Another may listen there since."""
    engine = Served()
    async with serving(engine), client(engine, max_retries=0) as model:
        await talk(model, 1)
        engine.core.options.template = "strips"
        await talk(model, 1)
        engine.resets = 1
        with pytest.raises(ModelUnavailable, match="Disconnected"):
            await talk(model, 1)
        with pytest.raises(ModelUnavailable, match="does not keep white space"):
            await talk(model, 1)
        engine.core.options.template = "plain"
        await talk(model, 1)
    assert len(engine.prompts) == 3


async def test_a_message_that_is_more_than_text_is_refused() -> None:
    """Its picture would not be sent."""
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    engine = Served()
    async with serving(engine), client(engine) as model:
        with pytest.raises(ConfigError, match=r"sample s: .*text alone.*set model\.transport=chat"):
            await model.complete(request(Conversation([{"role": "user", "content": picture}])))


async def test_engines_that_are_lost_while_the_client_starts_leave_nobody_to_check() -> None:
    """Said as what it is: an iterator's end would have ended the run as a bug."""
    config = ModelConfig.model_validate({"client": "vllm:m", "transport": "tokens"})
    model = OpenAIClient([], config)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(ModelUnavailable, match="no engine is ready any more"):
            await model._transport.check(http, [])
