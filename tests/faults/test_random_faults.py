"""Thousands of trajectories while the network, the server and the sandboxes fail at random."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench_data import Samples
from runner.config import AdmissionConfig, ModelConfig
from runner.journal import Journal, read_events, read_failures, read_trajectories
from runner.models import OpenAIClient
from runner.plan import attempts
from runner.records import Owner
from sandbox_pool import FakePool, Observation, SandboxError, Status, Stream
from tests.fault_proxy import FAULTS, FaultProxy, at_random
from tests.faults.invariants import check_sound
from tests.runner.factories import rollout_settings, sample, scheduler
from tests.stub_server import StubServer

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # both loops would take twice as long

QUICK = {"client": "openai:x", "name": "stub", "max_backoff_s": 0.05, "timeout_s": 5}


def failing_sandboxes(seed: int) -> FakePool:
    """Return a pool whose sandboxes break now and then, and are slow now and then."""
    chance = random.Random(seed)

    def script(number: int) -> Any:
        async def cell(code: str) -> Observation:
            if chance.random() < 0.03:
                raise SandboxError("broken by the test")
            if chance.random() < 0.02:
                await asyncio.sleep(0.05)
            return Observation(Status.OK, (Stream("stdout", "1\n"),))

        return cell

    return FakePool(script)


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 0.001)


async def drive(tmp_path: Path, urls: list[str], n: int, pool: FakePool, **limits: Any) -> Any:
    """Run n samples at 128 in flight; return the statistics at the end."""
    model = OpenAIClient(urls, ModelConfig(**QUICK, max_retries=limits.pop("max_retries", 8)),
                         admission=AdmissionConfig(), concurrency=128)  # fmt: skip
    await model.start()
    try:
        settings = rollout_settings(model, pool, **limits)
        with Journal(tmp_path) as journal:
            run = scheduler(settings, journal, n, concurrency=128, breaker={"max_share": 0.95, "window": 200})
            await run.run(attempts(Samples.of([sample(f"s{i}") for i in range(n)]), 1, frozenset()))
            return run.statistics()
    finally:
        await model.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a proxy has no event for that
            await asyncio.sleep(0.01)


@pytest.mark.timeout(180)
async def test_every_attempt_ends_once_with_the_right_owner(tmp_path: Path) -> None:
    """2,000 samples, one call in ten broken, one cell in thirty: all end once, none is blamed on the model."""
    n = 2000
    names = {f"s{i}@1" for i in range(n)}
    async with (
        StubServer(latency_s=0.005, keep_requests=False) as server,
        FaultProxy(server.port, at_random(0.1, seed=1)) as proxy,
    ):
        statistics = await drive(tmp_path, [proxy.url], n, failing_sandboxes(2), max_tries=4)

    assert set(proxy.done) == {"", *FAULTS}, "every fault took place"
    check_sound(tmp_path, names)
    rows = list(read_trajectories(tmp_path))
    assert Counter(row["stop_reason"] for row in rows) == {"answer": len(rows)}
    finished, failed = {row["attempt"] for row in rows}, [row["attempt"] for row in read_failures(tmp_path)]
    assert len(failed) == len(set(failed)) < 0.01 * n
    assert finished | set(failed) == names
    assert not finished & set(failed)
    assert (statistics.n_finished, statistics.n_failed) == (len(finished), len(failed))
    assert set(statistics.failures_by_owner) <= {Owner.SANDBOX, Owner.ENGINE}
    assert statistics.failures_by_owner[Owner.SANDBOX] > 50
    assert all(row["owner"] == Owner.MODEL for row in rows)
    assert sum(statistics.phases.values()) == 0


@pytest.mark.timeout(120)
async def test_failures_of_the_engine_are_never_the_models(tmp_path: Path) -> None:
    """Where nearly every call fails for good, attempts end in failures.jsonl with every try, and nowhere else."""
    async with (
        StubServer(keep_requests=False) as server,
        FaultProxy(server.port, at_random(0.7, 3, ["reset", "503", "garbage", "half"])) as proxy,
    ):
        statistics = await drive(tmp_path, [proxy.url], 200, FakePool(), max_retries=1, max_tries=2)

    rows, failures = list(read_trajectories(tmp_path)), list(read_failures(tmp_path))
    assert statistics.n_failed == len(failures) > 20
    assert len(rows) + len(failures) == 200
    assert {row["owner"] for row in failures} == {"engine"}
    assert {len(row["tries"]) for row in failures} == {2}
    assert all(row["stop_reason"] == "answer" for row in rows)


@pytest.mark.timeout(120)
async def test_server_dies_and_comes_back_on_the_same_port(tmp_path: Path) -> None:
    """With two servers, trajectories of the dead one move on at once; it is taken back when it answers."""
    async with StubServer(latency_s=0.005, keep_requests=False) as server:
        first, second = FaultProxy(server.port), FaultProxy(server.port)
        await first.__aenter__()
        async with second:
            run = asyncio.create_task(drive(tmp_path, [first.url, second.url], 2500, FakePool()))
            await until(lambda: first.done.total() > 100)
            await first.__aexit__()
            n_before, n_of_second = first.done.total(), second.done.total()
            await until(lambda: second.done.total() > n_of_second + 200)
            async with first:
                statistics = await run
    assert (statistics.n_finished, statistics.n_failed) == (2500, 0)
    assert first.done.total() > n_before, "it was taken back"
    assert [row["tries"] for row in read_trajectories(tmp_path)] == [[]] * 2500
    assert {event["event"] for event in read_events(tmp_path)} <= {"adapted"}


async def test_storm_of_429_shrinks_the_cap_and_fails_nothing(tmp_path: Path) -> None:
    """A server that refuses whatever is beyond four at a time is met with fewer, and everything ends well."""
    n_in_flight = 0
    storm: list[int] = []

    class Narrow(StubServer):
        async def _complete(self, request: Any) -> Any:
            nonlocal n_in_flight
            n_in_flight += 1
            try:
                if n_in_flight > 8:
                    storm.append(n_in_flight)
                    from tests.stub_server import refusal

                    return refusal(429, "slow down", {"Retry-After": "0.02"})
                return await super()._complete(request)
            finally:
                n_in_flight -= 1

    async with Narrow(latency_s=0.01, keep_requests=False) as server:
        statistics = await drive(tmp_path, [server.url], 300, FakePool(), max_retries=30)
    assert storm
    assert (statistics.n_finished, statistics.n_failed) == (300, 0)
    assert statistics.endpoints[0].max_calls < 16
