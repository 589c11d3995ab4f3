"""The client of engines that come and go: what was in flight is redone, and only there where it was lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from runner.config import AdmissionConfig, ModelConfig
from runner.endpoint_table import EngineEndpoint, EngineState
from runner.errors import ModelRefused, ModelUnavailable
from runner.models import ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from tests.runner.factories import sample
from tests.stub_server import StubServer, completion

ADMISSION = AdmissionConfig(poll_s=0.02)


class Engine:
    """A stub server and its row in the table; `hold` keeps its answers back."""

    def __init__(self, index: int) -> None:
        self.index, self.epoch = index, 1
        self.answers = asyncio.Event()
        self.answers.set()
        self.was_asked = asyncio.Event()
        self.server = StubServer(handler=self._answer)
        self.bodies: list[dict[str, Any]] = []

    async def _answer(self, body: dict[str, Any]) -> web.StreamResponse:
        self.bodies.append(body)
        self.was_asked.set()
        await self.answers.wait()
        return completion(f"engine-{self.index}")

    def row(self, state: EngineState = "ready") -> EngineEndpoint:
        url = "" if state == "starting" and self.epoch == 1 else self.server.url
        return EngineEndpoint(f"engine-{self.index}", url, self.epoch, "stub", 4096, state)

    def asked(self) -> Counter[str]:
        return Counter(body["messages"][0]["content"] for body in self.bodies)


def client(events: list[str] | None = None, **changes: Any) -> OpenAIClient:
    seen = events if events is not None else []
    config = ModelConfig.model_validate({"client": "vllm:x", "max_backoff_s": 0.02} | changes)
    return OpenAIClient(
        [], config, admission=ADMISSION, concurrency=64, on_event=lambda name, details: seen.append(name)
    )


def request(name: str) -> ModelRequest:
    return ModelRequest(sample(name), 1, 0, Conversation([{"role": "user", "content": name}]), seed=7)


async def until_asked(engine: Engine, n_requests: int) -> None:
    async with asyncio.timeout(5.0):
        while len(engine.bodies) < n_requests:
            engine.was_asked.clear()
            await engine.was_asked.wait()


async def test_calls_of_a_lost_engine_are_redone_elsewhere() -> None:
    """The same body and seed, at once, although the dead connection says nothing; nobody else moves."""
    a, b = Engine(0), Engine(1)
    events: list[str] = []
    async with a.server, b.server:
        model = client(events)
        model.set_endpoints([a.row(), b.row()])
        await model.start()
        names = [f"s{number}" for number in range(32)]
        await asyncio.gather(*(model.complete(request(name)) for name in names))
        of_a, of_b = a.asked().keys(), b.asked().keys()
        assert len(of_a) == len(of_b) == 16
        a.answers.clear()
        a.bodies.clear()
        calls = asyncio.gather(*(model.complete(request(name)) for name in names))
        await until_asked(a, 16)
        began_at = time.perf_counter()
        model.set_endpoints([a.row("lost"), b.row()])
        replies = await calls
        assert time.perf_counter() - began_at < 5.0
        assert {reply.text for reply in replies} == {"engine-1"}
        assert b.asked() == Counter(dict.fromkeys(of_b, 2) | dict.fromkeys(of_a, 1))
        first = {body["messages"][0]["content"]: body for body in a.bodies}
        again = {body["messages"][0]["content"]: body for body in b.bodies}
        assert all(first[name] == again[name] for name in of_a)
        assert [endpoint.n_trajectories for endpoint in model.endpoints()] == [0, 32]
        assert "endpoint_ejected" not in events
        a.answers.set()
        await model.close()


async def test_calls_wait_for_an_engine_that_comes_back() -> None:
    """At another address; the wait is not the trajectory's, and trajectories that moved do not move again."""
    a, b = Engine(0), Engine(0)
    async with a.server, b.server:
        model = client(max_retries=1)
        model.set_endpoints([a.row()])
        await model.start()
        a.answers.clear()
        calling = asyncio.create_task(model.complete(request("one")))
        await until_asked(a, 1)
        model.set_endpoints([a.row("lost")])
        model.set_endpoints([a.row("starting")])
        await asyncio.sleep(0.1)
        assert not calling.done()
        b.epoch = 2
        model.set_endpoints([b.row()])
        assert (await calling).text == "engine-0"
        assert b.asked() == {"one": 1}
        a.answers.set()
        await model.close()


async def test_a_loss_is_not_counted_against_what_came_after_it() -> None:
    """A worker may hear of an engine's loss and return in one: the new one has failed nobody."""
    a, b = Engine(0), Engine(0)
    b.epoch = 2
    events: list[str] = []
    async with a.server, b.server, asyncio.timeout(10.0):
        model = client(events)
        model.set_endpoints([a.row()])
        await model.start()
        a.answers.clear()
        calls = asyncio.gather(*(model.complete(request(f"s{number}")) for number in range(8)))
        await until_asked(a, 8)
        model.set_endpoints([b.row()])
        assert {reply.text for reply in await calls} == {"engine-0"}
        assert "endpoint_ejected" not in events
        assert len(b.bodies) == 8
        a.answers.set()
        await model.close()


async def test_an_engine_that_is_late_joins() -> None:
    """New trajectories go there; those that began elsewhere stay."""
    a, b = Engine(0), Engine(1)
    async with a.server, b.server:
        model = client()
        model.set_endpoints([a.row(), b.row("starting")])
        await model.start()
        for number in range(4):
            await model.complete(request(f"old{number}"))
        assert not b.bodies
        model.set_endpoints([a.row(), b.row()])
        for number in range(4):
            await model.complete(request(f"old{number}"))
            await model.complete(request(f"new{number}"))
        assert b.asked() == {f"new{number}": 1 for number in range(4)}
        await model.close()


async def test_a_draining_engine_finishes_what_it_has() -> None:
    """And gets nothing more."""
    a, b = Engine(0), Engine(1)
    async with a.server, b.server:
        model = client()
        model.set_endpoints([a.row(), b.row()])
        await model.start()
        a.answers.clear()
        calling = asyncio.create_task(model.complete(request("one")))
        await until_asked(a, 1)
        model.set_endpoints([a.row("draining"), b.row()])
        assert (await model.complete(request("two"))).text == "engine-1"
        a.answers.set()
        assert (await calling).text == "engine-0"
        await model.close()


async def test_no_engine_left_is_the_engines_fault() -> None:
    """Calls in flight and later ones fail at once."""
    a = Engine(0)
    async with a.server:
        model = client()
        model.set_endpoints([a.row()])
        await model.start()
        a.answers.clear()
        calling = asyncio.create_task(model.complete(request("one")))
        await until_asked(a, 1)
        model.set_endpoints([a.row("failed")])
        for call in (calling, model.complete(request("two"))):
            with pytest.raises(ModelUnavailable, match="all engines are lost"):
                await call
        a.answers.set()
        await model.close()


async def test_a_request_that_kills_every_engine_ends() -> None:
    """Losses count as tries."""
    a = Engine(0)
    async with a.server:
        model = client(max_retries=2)
        model.set_endpoints([a.row()])
        await model.start()
        a.answers.clear()
        calling = asyncio.create_task(model.complete(request("one")))
        for n_losses in range(3):
            await until_asked(a, n_losses + 1)
            model.set_endpoints([a.row("lost")])
            a.epoch += 1
            model.set_endpoints([a.row()])
        with pytest.raises(ModelUnavailable, match="no usable answer in 3 tries"):
            await calling
        a.answers.set()
        await model.close()


async def test_a_client_needs_an_engine_to_start() -> None:
    """Whoever opens the engines starts them first."""
    model = client()
    model.set_endpoints([Engine(0).row("starting")])
    with pytest.raises(ModelUnavailable, match="no engine is ready"):
        await model.start()
    await model.close()


async def test_what_was_learnt_of_an_engine_goes_with_it() -> None:
    """One that refused everything before it was lost is given calls again, and the log says so."""
    a = Engine(0)
    seen: list[tuple[str, dict[str, Any]]] = []
    config = ModelConfig.model_validate({"client": "vllm:x"})
    model = OpenAIClient(
        [], config, admission=ADMISSION, concurrency=64, on_event=lambda *event: seen.append(event)
    )
    async with a.server:
        model.set_endpoints([a.row()])
        await model.start()
        loop = asyncio.get_running_loop()
        for _ in range(20):
            model._endpoints[0].on_refusal(loop.time(), 503)
        assert model.endpoints()[0].max_calls < 16
        model.set_endpoints([a.row("lost")])
        assert model.endpoints()[0].max_calls < 16
        a.epoch = 2
        model.set_endpoints([a.row()])
        assert model.endpoints()[0].max_calls == 16
        assert seen[-1][0] == "adapted"
        assert seen[-1][1]["reason"] == "the engine was started again"
        await model.close()


class Breakable(Engine):
    """Dies of a request that says poison, comes back, and is slow enough for others to be in flight."""

    def __init__(self, index: int, model: OpenAIClient) -> None:
        super().__init__(index)
        self._model = model
        self.n_deaths = 0

    async def _answer(self, body: dict[str, Any]) -> web.StreamResponse:
        self.bodies.append(body)
        await asyncio.sleep(0.05)
        if body["messages"][0]["content"] == "poison":
            self.n_deaths += 1
            asyncio.get_running_loop().call_later(0.02, self._die)
            return web.json_response({"error": {"message": "EngineCore encountered an issue."}}, status=500)
        return completion(f"engine-{self.index}")

    def _die(self) -> None:
        self._model.set_endpoints([self.row("lost")])
        self.epoch += 1
        asyncio.get_running_loop().call_later(0.02, lambda: self._model.set_endpoints([self.row()]))


async def test_a_request_that_engines_break_on_is_given_up() -> None:
    """After three engines, and nobody who was in flight with it is."""
    model = client(max_retries=20, max_backoff_s=0.1)
    engine = Breakable(0, model)
    async with engine.server, asyncio.timeout(20.0):
        model.set_endpoints([engine.row()])
        await model.start()
        names = ["poison", *(f"s{number}" for number in range(12))]
        ends = await asyncio.gather(
            *(model.complete(request(name)) for name in names), return_exceptions=True
        )
        assert isinstance(ends[0], ModelRefused), ends[0]
        assert "correct or leave out the sample" in str(ends[0])
        assert [end for end in ends[1:] if isinstance(end, BaseException)] == []
        assert engine.n_deaths <= 4
        assert (await model.complete(request("later"))).text == "engine-0"
        await model.close()


async def test_suspects_are_tried_one_at_a_time() -> None:
    """What was in flight when two engines were lost; a cancelled one lets the next go on."""
    a = Engine(0)
    async with a.server, asyncio.timeout(20.0):
        model = client(max_retries=20)
        model.set_endpoints([a.row()])
        await model.start()
        a.answers.clear()
        calls = [asyncio.create_task(model.complete(request(f"s{number}"))) for number in range(5)]
        for n_asked in (5, 10):
            await until_asked(a, n_asked)
            model.set_endpoints([a.row("lost")])
            a.epoch += 1
            model.set_endpoints([a.row()])
        await until_asked(a, 11)
        await asyncio.sleep(0.1)
        assert len(a.bodies) == 11
        alone = a.bodies[-1]["messages"][0]["content"]
        calls.pop(int(alone[1:])).cancel()
        await until_asked(a, 12)
        a.answers.set()
        assert len(await asyncio.gather(*calls)) == 4
        await model.close()
