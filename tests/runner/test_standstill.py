"""Engines that stand still: since when, and that no trajectory is blamed for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from runner.admission import EngineLoad, Standstill, standstill
from runner.config import AdmissionConfig, ModelConfig
from runner.endpoint_table import EngineEndpoint, EngineState
from runner.models import ModelRequest, OpenAIClient
from runner.models.base import NoClock
from runner.models.call_time import CallTime
from runner.models.conversation import Conversation
from runner.records import Owner, StopReason
from tests.runner.factories import rollout, rollout_settings, sample
from tests.stub_server import StubServer, completion


def load(n_tokens: int, n_running: int = 1, n_waiting: int = 0) -> EngineLoad:
    """Return what a metrics page says."""
    return EngineLoad(
        n_running=n_running, n_waiting=n_waiting, kv_usage=0.1, n_preemptions=0,
        n_generated_tokens=n_tokens, max_kv_tokens=None,
    )  # fmt: skip


def test_calls_without_tokens_are_a_standstill() -> None:
    """Since the last token; silence is as bad, and a token ends it."""
    engine = Standstill()
    looks = [(0.0, load(5)), (2.0, load(9)), (8.0, load(9)), (12.0, load(9, 0, 3)), (14.0, None)]
    assert [engine.observe(now, found) for now, found in looks] == [None, None, None, 2.0, 2.0]
    assert engine.observe(16.0, load(10)) is None
    assert engine.observe(25.0, None) is None
    assert engine.observe(26.0, None) == 16.0


def test_nothing_to_do_and_nothing_known_are_none() -> None:
    """However long."""
    idle, unknown = Standstill(), Standstill()
    assert not any(idle.observe(now, load(5, 0)) for now in (0.0, 50.0, 100.0))
    assert not any(unknown.observe(now, None) for now in (0.0, 50.0, 100.0))


class Excused(NoClock):
    """Counts what was excused."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def excuse(self, seconds: float) -> None:
        """See CallClock."""
        self.seconds += seconds


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20)), max_size=20))
def test_no_second_is_excused_twice(looks: list[tuple[float, float]]) -> None:
    """Whatever the engine stood still for, and all of a call that failed."""
    clock, now = Excused(), 100.0
    spent = CallTime(clock, now)
    for gap_s, quiet_s in looks:
        now += gap_s
        spent.excuse_from(now - quiet_s, now)
        assert clock.seconds <= now - 100.0 + 1e-6
    spent.excuse_all(now + 1.0)
    assert clock.seconds == pytest.approx(now + 1.0 - 100.0)
    spent.excuse_all(now + 1.0)
    assert clock.seconds == pytest.approx(now + 1.0 - 100.0)


async def metrics(_: web.Request) -> web.Response:
    """A page of an engine that has a request and makes no token."""
    page = "vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0.0\nvllm:generation_tokens_total 7.0\n"
    return web.Response(text=page)


class Engines:
    """One that hangs, and one that is started when the first is lost."""

    def __init__(self) -> None:
        self._never = asyncio.Event()
        self._hangs = StubServer(self._hang, routes=[web.get("/metrics", metrics)])
        self._works = StubServer(self._answer)
        admission = AdmissionConfig(poll_s=0.02)
        self.model = OpenAIClient([], ModelConfig(client="vllm:x"), admission=admission)

    async def __aenter__(self) -> Engines:
        """Start the client."""
        await self._hangs.__aenter__()
        await self._works.__aenter__()
        self._set("ready", "starting")
        await self.model.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all."""
        self._never.set()
        await self.model.close()
        await self._hangs.__aexit__()
        await self._works.__aexit__()

    def lose(self) -> None:
        """Find that the first one hangs."""
        self._set("lost", "ready")

    def _set(self, *states: EngineState) -> None:
        servers = (self._hangs, self._works)
        self.model.set_endpoints(
            [
                EngineEndpoint(f"engine-{index}", server.url, 1, "stub", 4096, state)
                for index, (server, state) in enumerate(zip(servers, states, strict=True))
            ]
        )

    async def _hang(self, _: object) -> web.StreamResponse:
        await self._never.wait()
        return completion("too late")

    async def _answer(self, _: object) -> web.StreamResponse:
        return completion("the answer")


async def test_a_call_at_an_engine_that_hangs_is_excused_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not only when it has come to nothing; and not twice then."""
    monkeypatch.setattr(standstill, "QUIET_S", 0.05)
    clock = Excused()
    async with Engines() as engines, asyncio.timeout(10):
        began_at = time.perf_counter()
        messages = Conversation([{"role": "user", "content": "x"}])
        calling = asyncio.create_task(
            engines.model.complete(ModelRequest(sample(), 1, 0, messages, clock=clock))
        )
        while clock.seconds < 0.15:  # noqa: ASYNC110 - told by nobody
            await asyncio.sleep(0.01)
        assert not calling.done()
        engines.lose()
        assert (await calling).text == "the answer"
        assert clock.seconds <= time.perf_counter() - began_at


@pytest.mark.slow
async def test_a_trajectory_is_not_blamed_for_an_engine_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its working time does not run out while the engine stands still; then the turn is redone elsewhere."""
    monkeypatch.setattr(standstill, "QUIET_S", 0.1)
    async with Engines() as engines, asyncio.timeout(20):
        settings = rollout_settings(engines.model, working_s=2.0)
        running = asyncio.create_task(rollout(settings, sample(), tmp_path).run())
        await asyncio.sleep(3.0)
        assert not running.done()
        engines.lose()
        outcome = await running
    assert (outcome.stop_reason, outcome.owner) == (StopReason.ANSWER, Owner.MODEL)
    assert outcome.conversation.messages[-1]["content"] == "the answer"
