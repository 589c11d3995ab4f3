"""What ends, pauses and steers a run while it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench_data import Samples
from runner.config import Prices
from runner.errors import ModelUnavailable
from runner.journal import Journal, read_events, read_failures, read_inflight, read_trajectories
from runner.models import Completion, ModelRequest
from runner.plan import attempts
from runner.records import Usage
from runner.telemetry.statistics import Phase
from sandbox_pool import FakePool
from tests.runner.factories import FakeModel, rollout_settings, sample, scheduler


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 0.0)


class Model(FakeModel):
    """Answers after a while, unless `failing`."""

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.failing = ""
        self.n_in_flight = self.max_in_flight = self.n_calls = 0
        self.cap: int | None = None

    def max_trajectories(self) -> int | None:
        return self.cap

    async def complete(self, request: ModelRequest) -> Completion:
        self.n_calls += 1
        self.n_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.n_in_flight)
        try:
            await asyncio.sleep(self.latency_s)
            if self.failing:
                raise ModelUnavailable(self.failing)
            return Completion("done", "stop", usage=Usage(10, 5, 15))
        finally:
            self.n_in_flight -= 1


def plan(n: int) -> Any:
    return attempts(Samples.of([sample(f"s{i}") for i in range(n)]), 1, frozenset())


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_pause_resume_and_concurrency(tmp_path: Path) -> None:
    """Paused, what runs ends and nothing begins; the number in flight follows the user."""
    model = Model(0.01)
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(model), journal, 300, concurrency=4)
        running = asyncio.create_task(runner.run(plan(300)))
        await until(lambda: runner.statistics().n_finished > 8)
        runner.pause("lunch")
        await until(lambda: runner.statistics().n_in_flight == 0)
        n = runner.statistics().n_finished
        await asyncio.sleep(0.05)
        assert runner.statistics().n_finished == n
        assert runner.statistics().paused == "lunch"
        assert model.max_in_flight == 4
        assert runner.set_concurrency(9) == 9
        runner.resume()
        await running
    assert model.max_in_flight == 9
    assert len(list(read_trajectories(tmp_path))) == 300
    names = [event["event"] for event in read_events(tmp_path)]
    assert names == ["paused", "concurrency_set", "resumed"]


async def test_cancelled_sample_is_left_for_a_resume(tmp_path: Path) -> None:
    """Cancelling one sample touches no other."""
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(Model(0.2)), journal, 4)
        running = asyncio.create_task(runner.run(plan(4)))
        await until(lambda: runner.statistics().n_in_flight == 4)
        assert runner.cancel("nobody") == []
        assert runner.cancel("s2") == ["s2@1"]
        await running
        assert runner.statistics().n_cancelled == 1
    assert {row["sample_id"] for row in read_trajectories(tmp_path)} == {"s0", "s1", "s3"}
    assert [(r["sample_id"], r["stop_reason"], r["owner"]) for r in read_failures(tmp_path)] == [
        ("s2", "cancelled", "runner")
    ]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"wall_s": 0.2}, "run_limits.wall_s"),
        ({"max_total_tokens": 300}, "max_total_tokens"),
        ({"max_cost": 0.001}, "max_cost"),
    ],
)
async def test_limit_of_a_run_drains_it(tmp_path: Path, limits: dict[str, Any], reason: str) -> None:
    """It ends cleanly, says why, and has lost nothing."""
    all_attempts = plan(10_000)  # before the clock of the run begins
    settings = rollout_settings(Model(0.01), prices=Prices(prompt=5, completion=5))
    with Journal(tmp_path) as journal:
        runner = scheduler(settings, journal, 10_000, run_limits=limits, grace_s=5)
        await runner.run(all_attempts)
        statistics = runner.statistics()
    assert reason in (statistics.draining or "")
    assert 0 < statistics.n_finished < 10_000
    assert statistics.n_cancelled == 0
    assert any(event["event"] == "draining" and reason in event["reason"] for event in read_events(tmp_path))


async def test_breaker_pauses_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While everything fails, attempts wait instead of using up their tries; afterwards all end well."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    monkeypatch.setattr("runner.scheduling.breaker.FIRST_PROBE_S", 0.02)
    model = Model()
    model.failing = "connection to 127.0.0.1:1234 refused"
    with Journal(tmp_path) as journal:
        runner = scheduler(
            rollout_settings(model, max_tries=3), journal, 60, concurrency=16, breaker={"window": 20}
        )
        running = asyncio.create_task(runner.run(plan(60)))
        await until(lambda: runner.statistics().paused)
        assert "connection to N.N.N.N:N refused" in (runner.statistics().paused or "")
        await asyncio.sleep(0.2)
        n_failed = runner.statistics().n_failed
        model.failing = ""
        await running
        statistics = runner.statistics()
    assert n_failed <= 3
    assert statistics.n_finished == 60 - n_failed
    names = [event["event"] for event in read_events(tmp_path)]
    assert names[0] == "breaker_opened"
    assert names[-1] == "breaker_closed"
    assert names.count("breaker_probe") < 20


async def test_breaker_ends_a_hopeless_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After max_pause_s the run stops cleanly; what had not ended is left for a resume."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    model = Model()
    model.failing = "down"
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(model), journal, 40, breaker={"window": 10, "max_pause_s": 0.1})
        async with asyncio.timeout(20):
            await runner.run(plan(40))
        statistics = runner.statistics()
    assert "down" in (statistics.draining or "")
    assert statistics.n_finished == 0
    assert statistics.n_in_flight == 0
    assert {row["stop_reason"] for row in read_failures(tmp_path)} <= {"cancelled", "engine_error"}


async def test_nothing_probes_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is cancelled while it pauses leaves no timer behind, whose journal is closed."""
    monkeypatch.setattr("runner.scheduling.turnstile.PROBE_INTERVAL_S", 0.01)
    model = Model()
    model.failing = "down"
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(model), journal, 40, breaker={"window": 10})
        running = asyncio.create_task(runner.run(plan(40)))
        await until(lambda: runner.statistics().paused)
        running.cancel()
        await asyncio.wait([running])
    assert runner._turnstile._timer is None


async def test_endpoints_hold_trajectories_back(tmp_path: Path) -> None:
    """What the endpoints bear is met, whatever the user allows; it may change while the run goes on."""
    model = Model(0.01)
    model.cap = 3
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(model), journal, 200, concurrency=50)
        running = asyncio.create_task(runner.run(plan(200)))
        await until(lambda: runner.statistics().max_trajectories == 3)
        await until(lambda: runner.statistics().n_in_flight <= 3)
        model.max_in_flight = 0
        await until(lambda: runner.statistics().n_finished > 80)
        assert model.max_in_flight <= 3
        model.cap = None
        await running
    assert model.max_in_flight > 3


async def test_waiting_for_a_sandbox_holds_no_call(tmp_path: Path) -> None:
    """With one sandbox and many trajectories, those that wait are counted as waiting, and all end."""

    class Acting(Model):
        async def complete(self, request: ModelRequest) -> Completion:
            answer = await super().complete(request)
            return Completion("```python\nx\n```", "stop") if request.n_turns_done == 0 else answer

    model, pool = Acting(), FakePool(lambda n: lambda code: _slow())
    seen = set()
    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(model, pool, max_sandboxes=1000), journal, 12, concurrency=12)

        async def hold() -> None:
            runner._sandbox_gate.limit = 1
            await asyncio.Event().wait()

        runner._adapt_sandboxes = hold  # type: ignore[method-assign]
        running = asyncio.create_task(runner.run(plan(12)))
        while not running.done():
            await asyncio.sleep(0.002)
            phases = runner.statistics().phases
            seen.add((phases[Phase.SANDBOX], phases[Phase.MODEL], phases[Phase.EXECUTING] <= 1))
        await running
    assert pool.max_leased == 1
    assert max(waiting for waiting, _, _ in seen) >= 10
    assert all(at_most_one for _, _, at_most_one in seen)
    assert len(list(read_trajectories(tmp_path))) == 12


async def _slow() -> Any:
    from sandbox_pool import Observation, Status

    await asyncio.sleep(0.01)
    return Observation(Status.OK)


async def test_drained_trajectories_keep_their_turns(tmp_path: Path) -> None:
    """What the grace period cuts off is recorded as cancelled, with its turns for the next run."""

    class Acting(Model):
        async def complete(self, request: ModelRequest) -> Completion:
            if request.n_turns_done == 2:
                await asyncio.Event().wait()
            return Completion("```python\nx\n```", "stop")

    with Journal(tmp_path) as journal:
        runner = scheduler(rollout_settings(Acting(), FakePool()), journal, 2, grace_s=0.05)
        running = asyncio.create_task(runner.run(plan(2)))
        await until(lambda: runner.statistics().n_turns == 4)
        await asyncio.sleep(0.05)
        runner.drain("test")
        await running
    assert {row["stop_reason"] for row in read_failures(tmp_path)} == {"cancelled"}
    assert [len(unfinished.turns) for unfinished in read_inflight(tmp_path)] == [2, 2]
