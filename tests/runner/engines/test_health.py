"""Engines that stand still are told from engines that have nothing to do."""

from __future__ import annotations

import asyncio

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from runner.admission import EngineLoad
from runner.engines.health import StallDetector, watch_health
from tests.stub_server import StubServer


def load(n_tokens: int, n_running: int = 1, n_waiting: int = 0) -> EngineLoad:
    """Return what a metrics page says."""
    return EngineLoad(
        n_running=n_running, n_waiting=n_waiting, kv_usage=0.1, n_preemptions=0, n_generated_tokens=n_tokens,
        max_kv_tokens=None, n_prefix_queries=0, n_prefix_hits=0,
    )  # fmt: skip


def test_requests_without_tokens_are_a_stall() -> None:
    """After so long, and not before."""
    detector = StallDetector(10.0, now=0.0)
    assert [detector.observe(now, load(5)) for now in (1.0, 10.0, 11.0)] == [False, False, True]


def test_a_queue_that_does_not_move_is_a_stall() -> None:
    """Nothing runs, but something waits."""
    detector = StallDetector(10.0, now=0.0)
    assert [detector.observe(now, load(5, n_running=0, n_waiting=3)) for now in (1.0, 11.0)] == [False, True]


def test_silence_is_a_stall() -> None:
    """A server that does not serve its metrics."""
    detector = StallDetector(10.0, now=0.0)
    assert not detector.observe(9.0, None)
    assert detector.observe(10.0, None)


def test_nothing_to_do_is_no_stall() -> None:
    """However long it lasts; nor is a counter that was reset."""
    detector = StallDetector(10.0, now=0.0)
    assert not any(detector.observe(now, load(5, n_running=0)) for now in (5.0, 50.0, 500.0))
    assert not detector.observe(505.0, load(3))


@given(st.lists(st.tuples(st.floats(0.01, 9.9), st.integers(1, 100)), max_size=50))
def test_progress_is_never_a_stall(looks: list[tuple[float, int]]) -> None:
    """Some tokens within each `stall_s` are enough."""
    detector, now, n_tokens = StallDetector(10.0, now=0.0), 0.0, 0
    for gap_s, n_new in looks:
        now, n_tokens = now + gap_s, n_tokens + n_new
        assert not detector.observe(now, load(n_tokens))


def test_time_in_which_nobody_looked_is_no_stall() -> None:
    """The runner was stopped for an hour, with its engines or without: they are asked again first."""
    detector = StallDetector(300.0, now=0.0)
    assert not detector.observe(1.0, load(5))
    assert not detector.observe(3601.0, None)
    assert not detector.observe(3602.0, load(5))
    assert not detector.observe(3870.0, load(6))


def test_an_engine_without_figures_is_no_stall() -> None:
    """Under --disable-log-stats vLLM answers and says nothing; silence counts all the same."""
    detector = StallDetector(10.0, now=0.0)
    assert not any(detector.observe(now, None, is_there=True) for now in (5.0, 10.0, 50.0))
    assert detector.observe(60.0, None)


async def test_a_dead_core_is_seen_at_once() -> None:
    """It answers /health with 503 then."""

    async def health(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async with StubServer(routes=[web.get("/health", health)]) as server, asyncio.timeout(5.0):
        assert "503" in await watch_health(server.url, 60.0)


async def test_an_engine_that_hangs_is_seen() -> None:
    """Health is 200, a request runs, and no token comes."""
    page = "vllm:num_requests_running 1.0\nvllm:num_requests_waiting 0.0\nvllm:generation_tokens_total 7.0\n"

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=page)

    routes = [web.get("/health", health), web.get("/metrics", metrics)]
    async with StubServer(routes=routes) as server, asyncio.timeout(10.0):
        assert "made no token for 0.2 s" in await watch_health(server.url, 0.2)


async def test_an_engine_whose_page_is_empty_is_left_alone() -> None:
    """It is well, as far as can be told."""
    n_looks = 0

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    async def metrics(request: web.Request) -> web.Response:
        nonlocal n_looks
        n_looks += 1
        if n_looks > 10:
            enough.set()
        return web.Response(text="python_info 1.0\n")

    enough = asyncio.Event()
    routes = [web.get("/health", health), web.get("/metrics", metrics)]
    async with StubServer(routes=routes) as server, asyncio.timeout(10.0):
        watching = asyncio.create_task(watch_health(server.url, 0.1))
        await enough.wait()
        assert not watching.done()
        watching.cancel()
        await asyncio.wait([watching])


async def test_an_engine_that_says_nothing_is_seen() -> None:
    """Nobody listens there any more."""
    async with asyncio.timeout(10.0):
        assert "did not answer for 0.2 s" in await watch_health("http://127.0.0.1:9/v1", 0.2)
