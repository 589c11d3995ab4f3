"""One attempt: which tries count, and what a cancellation leaves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.config import BreakerConfig
from runner.errors import ModelUnavailable
from runner.journal import Journal, read_failures, read_trajectories
from runner.models import Completion, ModelRequest
from runner.plan import Attempt
from runner.records import Trajectory
from runner.scheduling.attempt import AttemptRunner
from runner.scheduling.breaker import Breaker
from runner.scheduling.turnstile import Turnstile
from tests.runner.factories import IDENTITY, FakeModel, rollout_settings, sample, scheduler


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 0.0)


class Model(FakeModel):
    """Fails as often as told, and tells of each call before."""

    def __init__(self, n_failing: int, on_call: Callable[[int], None]) -> None:
        self.n_failing = n_failing
        self.on_call = on_call
        self.n_calls = 0

    async def complete(self, request: ModelRequest) -> Completion:
        self.n_calls += 1
        self.on_call(self.n_calls)
        if self.n_calls <= self.n_failing:
            raise ModelUnavailable("down")
        return Completion("done", "stop")


async def test_tries_while_the_run_is_held_never_count(tmp_path: Path) -> None:
    """Two that fail while the breaker is open leave all of max_tries for later."""
    breaker = Breaker(BreakerConfig())

    def hold_first_two(n_calls: int) -> None:
        breaker.reason = "engine: down" if n_calls <= 2 else None

    class Open(Turnstile):
        async def wait(self) -> None:
            """Let everything through, as a probe."""

    model = Model(4, hold_first_two)
    with Journal(tmp_path) as journal:
        turnstile = Open(breaker, journal.event, lambda reason: None)
        await AttemptRunner(rollout_settings(model, max_tries=3), IDENTITY, journal, turnstile).run(
            Attempt(sample("s"), 1)
        )
    (row,) = read_trajectories(tmp_path)
    assert (row["stop_reason"], len(row["tries"])) == ("answer", 4)


async def test_cancelled_while_its_line_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a line, and counts as what it is: finished."""
    is_writing = threading.Event()
    told: list[str] = []

    async def tell(trajectory: Trajectory) -> None:
        told.append(trajectory.attempt)

    with Journal(tmp_path) as journal:
        write = journal._trajectories.append

        def slow(line: bytes) -> None:
            is_writing.set()
            time.sleep(0.3)
            write(line)

        monkeypatch.setattr(journal._trajectories, "append", slow)
        runner = scheduler(rollout_settings(Model(0, lambda n: None)), journal, 1, on_finished=tell)
        running = asyncio.create_task(runner.run([Attempt(sample("s"), 1)]))
        await asyncio.to_thread(is_writing.wait)
        for _ in range(2):  # a person's and the drain's
            runner.cancel("s")
            await asyncio.sleep(0.01)
        await running
        statistics = runner.statistics()
    assert [row["attempt"] for row in read_trajectories(tmp_path)] == told == ["s@1"]
    assert list(read_failures(tmp_path)) == []
    assert (statistics.n_finished, statistics.n_cancelled) == (1, 0)


async def test_cancelled_before_its_first_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was about, it is noted as cancelled, with the messages that it would have begun with."""
    is_emptying = threading.Event()

    def empty(path: Path, *, keep: str | None = None) -> None:
        is_emptying.set()
        time.sleep(0.1)

    monkeypatch.setattr("runner.scheduling.attempt.empty_artifacts", empty)
    with Journal(tmp_path) as journal:
        journal.artifacts_dir("s", 1)[0].mkdir(parents=True)
        runner = scheduler(rollout_settings(Model(0, lambda n: None)), journal, 1)
        running = asyncio.create_task(runner.run([Attempt(sample("s"), 1)]))
        await asyncio.to_thread(is_emptying.wait)
        runner.cancel("s")
        await running
        assert runner.statistics().n_cancelled == 1
    (failure,) = read_failures(tmp_path)
    assert (failure["attempt"], failure["stop_reason"]) == ("s@1", "cancelled")
    assert [message["content"] for message in failure["messages"]] == ["task s"]
