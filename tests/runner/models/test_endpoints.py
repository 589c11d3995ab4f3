"""Several servers of one model, over real HTTP: stickiness, ejection, return, metrics, what is sent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from runner.config import AdmissionConfig, ModelConfig
from runner.errors import ConfigError, ModelUnavailable
from runner.models import ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from runner.protocols import ToolCall
from tests.runner.factories import sample
from tests.stub_server import StubServer, completion, refusal

ADMISSION = AdmissionConfig(poll_s=0.02)


def request(name: str = "one", **changes: Any) -> ModelRequest:
    values: dict[str, Any] = {"conversation": Conversation([{"role": "user", "content": name}])}
    return ModelRequest(sample(name), 1, 0, **(values | changes))


def client(*servers: StubServer, on_event: Any = lambda name, details: None, **changes: Any) -> OpenAIClient:
    config = ModelConfig.model_validate({"client": "openai:x", "max_backoff_s": 0.02} | changes)
    return OpenAIClient(
        [s.url for s in servers], config, admission=ADMISSION, concurrency=64, on_event=on_event
    )


def seen(server: StubServer) -> Counter[str]:
    return Counter(body["messages"][0]["content"] for body in server.requests)


async def test_trajectories_stick_and_spread() -> None:
    """All calls of a trajectory go to one server, and the trajectories are spread over both."""
    async with StubServer() as a, StubServer() as b:
        model = client(a, b)
        await model.start()
        for _ in range(3):
            await asyncio.gather(*(model.complete(request(f"s{number}")) for number in range(20)))
        counts = [e.n_trajectories for e in model.endpoints()]
        model.forget("s0@1")
        assert sum(e.n_trajectories for e in model.endpoints()) == 19
        await model.close()
    assert counts == [10, 10]
    assert set(seen(a).values()) == set(seen(b).values()) == {3}
    assert not seen(a).keys() & seen(b).keys()


async def test_dead_server_is_ejected_and_comes_back() -> None:
    """Its trajectories move on at once with one retry; when it answers a call again it is used again."""
    events: list[str] = []
    async with StubServer() as a:
        b = StubServer()
        await b.__aenter__()
        model = client(a, b, on_event=lambda name, details: events.append(name))
        await model.start()
        await asyncio.gather(*(model.complete(request(f"s{number}")) for number in range(10)))
        await b.__aexit__()
        await asyncio.gather(*(model.complete(request(f"s{number}")) for number in range(10)))
        assert [e.state for e in model.endpoints()] == ["ready", "ejected"]
        assert model.max_trajectories() == 64
        async with StubServer(port=b.port) as back:
            async with asyncio.timeout(10):
                for number in count():
                    await model.complete(request(f"later{number}"))
                    if "endpoint_returned" in events:
                        break
                    await asyncio.sleep(0.05)
            await asyncio.gather(*(model.complete(request(f"new{number}")) for number in range(20)))
            assert back.requests
        await model.close()
    assert [e for e in events if e != "adapted"] == ["endpoint_ejected", "endpoint_returned"]


async def test_server_that_is_down_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The others do its work, which is told; it joins them when it is there."""
    events: list[tuple[str, str]] = []
    b = StubServer()
    async with StubServer() as a:
        async with b:
            pass
        model = client(a, b, on_event=lambda name, details: events.append((name, details["endpoint"])))
        await model.start()
        assert f"no model server at {b.url}" in caplog.text
        await asyncio.gather(*(model.complete(request(f"s{number}")) for number in range(8)))
        assert len(a.requests) == 8
        async with StubServer(port=b.port), asyncio.timeout(20):
            for number in count():
                await model.complete(request(f"later{number}"))
                if [e.state for e in model.endpoints()] == ["ready", "ready"]:
                    break
                await asyncio.sleep(0.05)
        await model.close()
    address = b.url.removeprefix("http://").removesuffix("/v1")
    assert [e for e in events if e[0] != "adapted"] == [
        ("endpoint_ejected", address),
        ("endpoint_returned", address),
    ]


async def test_no_server_is_there_at_the_start() -> None:
    """With nobody to do the work, the run does not begin."""
    async with StubServer() as a, StubServer() as b:
        pass
    model = client(a, b)
    with pytest.raises(ModelUnavailable, match=f"no model server at {a.url}"):
        await model.start()
    await model.close()


async def test_server_of_another_model_does_not_join() -> None:
    """One that comes later is held to the name that the others were found by."""
    async with StubServer() as a, StubServer() as b:
        model = client(a, b)
        await model.start()
        model._router.eject(0.0, 1)
        b.models = ("other",)
        await asyncio.sleep(1.2)
        for number in range(4):
            await model.complete(request(f"s{number}"))
        assert not b.requests
        await model.close()


async def test_server_that_lists_models_but_hangs_holds_one_call() -> None:
    """The calls of all others go where they are answered, however often it is tried."""
    async with StubServer() as a, StubServer(latency_s=60) as b:
        model = client(a, b, timeout_s=0.3)
        await model.start()
        began_at, number = time.perf_counter(), 0
        while time.perf_counter() - began_at < 3:
            await asyncio.gather(*(model.complete(request(f"s{number + n}")) for n in range(8)))
            for n in range(8):
                model.forget(f"s{number + n}@1")
            number += 8
        assert [e.state for e in model.endpoints()] == ["ready", "ejected"]
        await model.close()
    assert len(b.requests) <= 4 + 2, "four before it is ejected, then one at a time, a second and more apart"


async def test_full_server_is_waited_for() -> None:
    """A 429 moves nobody: the server is well, and knows the conversation."""
    answers = iter([lambda: refusal(429, "too many"), lambda: completion("ok")])

    async def handler(body: dict[str, Any]) -> web.StreamResponse:
        return next(answers)()

    async with StubServer(handler) as a, StubServer() as b:
        model = client(a, b)
        await model.start()
        assert (await model.complete(request())).text == "ok"
        await model.close()
    assert (len(a.requests), len(b.requests)) == (2, 0)


async def test_no_slot_is_lost_to_cancellation_or_held_while_backing_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However calls end, all slots are free afterwards; whoever waits for another try holds none."""
    monkeypatch.setattr("runner.models.retrying.FIRST_BACKOFF_S", 30.0)
    failing = True

    async def handler(body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response(status=500) if failing else completion("ok")

    async with StubServer(handler) as server:
        model = client(server, name="m", max_backoff_s=30, max_retries=3)
        await model.start()
        calls = [asyncio.create_task(model.complete(request(f"s{number}"))) for number in range(40)]
        while model.endpoints()[0].n_failed_calls < 40:  # noqa: ASYNC110 - polled, as the scheduler does
            await asyncio.sleep(0.01)
        (endpoint,) = model.endpoints()
        assert (endpoint.n_calls_in_flight, endpoint.n_calls_waiting) == (0, 0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        failing = False
        calls = [asyncio.create_task(model.complete(request(f"s{number}"))) for number in range(200)]
        for number, call in enumerate(calls):
            if number % 3:
                await asyncio.sleep(0.0005)
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        (endpoint,) = model.endpoints()
        assert (endpoint.n_calls_in_flight, endpoint.n_calls_waiting) == (0, 0)
        await model.close()


async def test_metrics_page_feeds_admission() -> None:
    """A server with vLLM's page is read: a full KV cache trims the trajectories that may be in flight."""
    page = (
        'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} %s\nvllm:num_preemptions_total{engine="0"} 0.0\n'
    )
    usage, events = "0.1", []

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=page % usage)

    async with StubServer(routes=[web.get("/metrics", metrics)]) as server:
        model = client(server, on_event=lambda name, details: events.append(details))
        await model.start()
        await model.complete(request())
        await asyncio.sleep(0.1)
        usage = "0.95"
        async with asyncio.timeout(10):
            while model.max_trajectories() == 64:  # noqa: ASYNC110 - polled, as the scheduler does
                await asyncio.sleep(0.02)
        await model.close()
    trimmed = next(event for event in events if event["what"] == "trajectories")
    assert (trimmed["reason"], trimmed["endpoint"]) == ("KV cache 95% full", f"127.0.0.1:{server.port}")


async def test_seed_and_options_are_sent() -> None:
    """The turn's seed, unless the config has one or wants none; what the config says replaces ours."""
    async with StubServer() as server:
        for changes in (
            {},
            {"request": {"seed": 5, "temperature": 0.5, "stop": ["X"]}},
            {"send_seed": False},
        ):
            model = client(server, **changes)
            await model.start()
            await model.complete(request(seed=77, stop=("</execute>",), tools=ToolCall.tools))
            await model.close()
    first, second, third = server.requests
    assert (first["seed"], first["stop"], first["model"], first["tool_choice"]) == (
        77,
        ["</execute>"],
        "stub",
        "auto",
    )
    assert (second["seed"], second["stop"], second["temperature"]) == (5, ["X"], 0.5)
    assert "seed" not in third
    assert "include_stop_str_in_output" not in first


async def test_vllm_is_asked_for_its_stop_string() -> None:
    """A server that says it is vLLM keeps the stop string in the text, so that the text can be replayed."""
    async with StubServer(owned_by="vllm") as server:
        model = client(server)
        await model.start()
        await model.complete(request(stop=("</execute>",)))
        await model.complete(request())
        await model.close()
    assert [body.get("include_stop_str_in_output") for body in server.requests] == [True, None]


async def test_logprobs_are_kept() -> None:
    """What the server sends beside the text is in the completion."""

    async def handler(body: dict[str, Any]) -> web.StreamResponse:
        choice = {"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [1]}}
        return web.json_response({"choices": [choice]})

    async with StubServer(handler) as server:
        model = client(server, request={"logprobs": True})
        await model.start()
        answer = await model.complete(request())
        await model.close()
    assert answer.logprobs == {"content": [1]}
    assert server.requests[0]["logprobs"] is True


async def test_servers_of_different_models_are_refused() -> None:
    """Two servers are two of the same model, or a mistake."""
    async with StubServer(models=("a",)) as a, StubServer(models=("b",)) as b:
        model = client(a, b)
        with pytest.raises(ConfigError, match="list different models: a, b"):
            await model.start()
        await model.close()


async def test_concurrency_can_be_changed() -> None:
    """A lower limit holds for calls and trajectories at once."""
    async with StubServer() as server:
        model = client(server)
        await model.start()
        model.set_concurrency(3)
        assert (model.max_trajectories(), model.endpoints()[0].max_calls) == (3, 3)
        model.set_max_calls(2)
        assert (model.max_trajectories(), model.endpoints()[0].max_calls) == (3, 2)
        model.set_concurrency(1)
        assert model.endpoints()[0].max_calls == 1
        await model.close()
