"""One attempt: which tries count, and what a cancellation leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.attempt import AttemptRunner
from runner.breaker import Breaker
from runner.config import BreakerConfig
from runner.errors import ModelUnavailable
from runner.journal import Journal, read_trajectories
from runner.models import Completion, ModelRequest
from runner.plan import Attempt
from runner.turnstile import Turnstile
from tests.runner.factories import IDENTITY, FakeModel, rollout_settings, sample


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.attempt.FIRST_RETRY_S", 0.0)


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
