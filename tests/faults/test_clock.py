"""A clock that jumps: limits go by the monotonic clock, so that nothing ends early and nothing hangs."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from bench_data import Samples
from runner.journal import Journal, read_trajectories
from runner.models import OpenAIClient
from runner.plan import attempts
from sandbox_pool import FakePool
from tests.runner.factories import rollout_settings, sample, scheduler
from tests.stub_server import StubServer, completion, refusal


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_jumps_of_the_wall_clock_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """A day forward or back between any two looks at the clock, with limits of seconds."""
    true_time, n_looks = time.time, itertools.count()
    monkeypatch.setattr("time.time", lambda: true_time() + (jump_s if next(n_looks) % 2 else 0.0))
    n_asked = itertools.count()

    async def handler(body: dict[str, object]) -> object:
        if next(n_asked) % 7 == 0:
            return refusal(429, "later", {"Retry-After": "0.01"})
        n_replies = sum(m["role"] == "assistant" for m in body["messages"])  # type: ignore[attr-defined]
        return completion("```python\nx\n```" if n_replies < 2 else "done")

    async with StubServer(handler, keep_requests=False) as server:  # type: ignore[arg-type]
        from runner.config import ModelConfig
        from tests.faults.test_random_faults import QUICK

        model = OpenAIClient([server.url], ModelConfig(**QUICK))
        await model.start()
        settings = rollout_settings(model, FakePool(), working_s=20, wall_s=60)
        with Journal(tmp_path) as journal:
            run = scheduler(settings, journal, 100, concurrency=16, run_limits={"wall_s": 50})
            async with asyncio.timeout(30):
                await run.run(attempts(Samples.of([sample(f"s{i}") for i in range(100)]), 1, ()))
            statistics = run.statistics()
        await model.close()
    assert (statistics.n_finished, statistics.draining) == (100, None)
    assert statistics.elapsed_s < 30
    assert {row["stop_reason"] for row in read_trajectories(tmp_path)} == {"answer"}
