"""Many trajectories, on fakes: each attempt ends exactly once, in the right file."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench_data import Samples
from runner.errors import JournalError, ModelUnavailable
from runner.journal import Journal, read_failures, read_trajectories
from runner.models import Completion, ModelRequest
from runner.plan import attempt_seed, attempts
from runner.scheduling.scheduler import Scheduler
from runner.telemetry.meter import in_one_line
from sandbox_pool import FakePool, SandboxError, SandboxSetupError, SandboxStartError
from tests.runner import factories
from tests.runner.factories import IDENTITY, FakeModel, rollout_settings, sample


class FunctionModel(FakeModel):
    """Answers with what a function says, which may raise."""

    name = "function"

    def __init__(self, function: Any) -> None:
        self.function = function
        self.n_in_flight = 0
        self.max_in_flight = 0

    async def complete(self, request: ModelRequest) -> Completion:
        self.n_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.n_in_flight)
        try:
            await asyncio.sleep(0)
            reply = self.function(request)
            if asyncio.iscoroutine(reply):
                reply = await reply
            return Completion(reply, "stop")
        finally:
            self.n_in_flight -= 1


def scheduler(
    journal: Journal, model: FunctionModel, n: int, *, pool: FakePool | None = None, **changes: Any
) -> Scheduler:
    return factories.scheduler(rollout_settings(model, pool, max_tries=2), journal, n, **changes)


def plan(n: int, epochs: int = 1) -> Any:
    return attempts(Samples.of([sample(f"s{i}") for i in range(n)]), epochs, done=set())


@pytest.fixture(name="no_backoff", autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 0.0)


async def test_every_attempt_has_one_line(tmp_path: Path) -> None:
    """All samples and epochs are there once, and no more than `concurrency` ran at a time."""
    model = FunctionModel(lambda request: "done")
    with Journal(tmp_path) as journal:
        await scheduler(journal, model, 60, concurrency=5).run(plan(20, epochs=3))

    counts = Counter(row["attempt"] for row in read_trajectories(tmp_path))
    assert counts == {f"s{i}@{epoch}": 1 for i in range(20) for epoch in (1, 2, 3)}
    assert 1 < model.max_in_flight <= 5


async def test_first_epochs_come_first() -> None:
    """A run that is stopped early has covered all samples before any second attempt."""
    order = [attempt.name for attempt in plan(2, epochs=2)]
    assert order == ["s0@1", "s1@1", "s0@2", "s1@2"]


async def test_failure_of_ours_is_retried(tmp_path: Path) -> None:
    """An attempt that fails once by our fault ends as a line that tells of the first try."""
    failed: set[str] = set()

    def once(request: ModelRequest) -> str:
        if request.sample.id not in failed:
            failed.add(request.sample.id)
            raise ModelUnavailable("down")
        return "done"

    with Journal(tmp_path) as journal:
        await scheduler(journal, FunctionModel(once), 3).run(plan(3))

    rows = list(read_trajectories(tmp_path))
    assert len(rows) == 3
    assert [(row["stop_reason"], row["tries"][0]["owner"]) for row in rows] == [("answer", "engine")] * 3
    assert list(read_failures(tmp_path)) == []


async def test_failure_of_ours_that_stays_is_kept_apart(tmp_path: Path) -> None:
    """After all tries the attempt is in failures.jsonl with every try, and not in the journal."""

    def bad(request: ModelRequest) -> str:
        if request.sample.id == "s1":
            raise ModelUnavailable("down")
        return "done"

    with Journal(tmp_path) as journal:
        runner = scheduler(journal, FunctionModel(bad), 3)
        await runner.run(plan(3))

    assert {row["attempt"] for row in read_trajectories(tmp_path)} == {"s0@1", "s2@1"}
    (failure,) = read_failures(tmp_path)
    assert (failure["attempt"], failure["owner"], len(failure["tries"])) == ("s1@1", "engine", 2)
    statistics = runner.statistics()
    assert (statistics.n_finished, statistics.n_failed, statistics.n_in_flight) == (2, 1, 0)
    assert statistics.last_failure == "s1@1: down"


@pytest.mark.parametrize(
    ("error", "n_tries"),
    [(SandboxSetupError("NameError: a"), 1), (SandboxStartError("no memory"), 2)],
)
async def test_failed_setup_cell_is_not_tried_again(
    tmp_path: Path, error: SandboxError, n_tries: int
) -> None:
    """What would fail again is kept apart after one try; what may go better gets all of max_tries."""
    pool = FakePool(start_error=error)
    with Journal(tmp_path) as journal:
        model = FunctionModel(lambda request: "```python\n1\n```")
        await scheduler(journal, model, 1, pool=pool).run(plan(1))

    assert len(pool.specs) == n_tries
    assert list(read_trajectories(tmp_path)) == []
    (failure,) = read_failures(tmp_path)
    assert (failure["stop_reason"], failure["owner"]) == ("sandbox_error", "sandbox")
    assert [one["owner"] for one in failure["tries"]] == ["sandbox"] * n_tries


async def test_seed_and_kernel_of_a_line_are_those_of_its_sandbox(tmp_path: Path) -> None:
    """The line records the seed that its sandboxes were asked for, and the kernel of its profile."""
    samples = [sample("plain"), sample("other", profile="upstream")]
    pool = FakePool()
    with Journal(tmp_path) as journal:
        model = FunctionModel(lambda request: "done" if request.n_turns_done else "```python\n1\n```")
        await scheduler(journal, model, 4, pool=pool).run(attempts(Samples.of(samples), 2, done=set()))

    rows = {row["attempt"]: row for row in read_trajectories(tmp_path)}
    assert {name: row["kernel"] for name, row in rows.items()} == {
        "plain@1": "fake", "plain@2": "fake", "other@1": "ipykernel", "other@2": "ipykernel"
    }  # fmt: skip
    assert len({row["seed"] for row in rows.values()}) == 4
    assert {spec.seed for spec in pool.specs} == {row["seed"] for row in rows.values()}
    assert {name: row["seed"] for name, row in rows.items()} == {
        name: attempt_seed(IDENTITY.seed, name) for name in rows
    }


async def test_another_try_has_the_same_seed(tmp_path: Path) -> None:
    """What an attempt draws does not depend on how often our sandboxes failed before."""
    pool = FakePool(lambda n: [SandboxStartError("x")] if n == 0 else [])
    with Journal(tmp_path) as journal:
        model = FunctionModel(lambda request: "done" if request.n_turns_done else "```python\n1\n```")
        await scheduler(journal, model, 1, pool=pool).run(plan(1))

    (row,) = read_trajectories(tmp_path)
    assert (len(row["tries"]), [spec.seed for spec in pool.specs]) == (1, [row["seed"]] * 2)


async def test_drain_finishes_within_grace_and_leaves_the_rest(tmp_path: Path) -> None:
    """Draining takes nothing new; what ends in time is a line."""
    release = asyncio.Event()

    async def wait(request: ModelRequest) -> str:
        await release.wait()
        return "done"

    with Journal(tmp_path) as journal:
        runner = scheduler(journal, FunctionModel(wait), 10, concurrency=3, grace_s=60)
        running = asyncio.ensure_future(runner.run(plan(10)))
        while runner.statistics().n_in_flight < 3:  # noqa: ASYNC110 - three workers have no event
            await asyncio.sleep(0)
        runner.drain()
        release.set()
        await running

    assert len(list(read_trajectories(tmp_path))) == 3
    assert list(read_failures(tmp_path)) == []


@pytest.mark.parametrize("n_signals", [1, 2])
async def test_drain_cancels_after_grace(tmp_path: Path, n_signals: int) -> None:
    """What still runs after the grace period, or at the second signal, is recorded as cancelled."""

    async def never(request: ModelRequest) -> str:
        await asyncio.Event().wait()
        return ""

    model = FunctionModel(never)
    with Journal(tmp_path) as journal:
        grace_s = 0.0 if n_signals == 1 else 3600.0
        runner = scheduler(journal, model, 5, concurrency=2, grace_s=grace_s)
        running = asyncio.ensure_future(runner.run(plan(5)))
        while model.n_in_flight < 2:  # noqa: ASYNC110 - two calls have no event
            await asyncio.sleep(0)
        for _ in range(n_signals):
            runner.drain()
        await running

    assert list(read_trajectories(tmp_path)) == []
    assert [row["stop_reason"] for row in read_failures(tmp_path)] == ["cancelled"] * 2


async def test_drain_between_two_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that is cancelled while it waits for its next try is recorded with the tries before."""
    monkeypatch.setattr("runner.scheduling.attempt.FIRST_RETRY_S", 3600.0)

    def down(request: ModelRequest) -> str:
        raise ModelUnavailable("down\nall\nnight")

    with Journal(tmp_path) as journal:
        runner = scheduler(journal, FunctionModel(down), 1)
        running = asyncio.ensure_future(runner.run(plan(1)))
        while runner.statistics().last_failure is None:  # noqa: ASYNC110 - a try has no event
            await asyncio.sleep(0)
        runner.drain()
        await running

    (failure,) = read_failures(tmp_path)
    assert (failure["stop_reason"], [one["error"] for one in failure["tries"]]) == (
        "cancelled",
        ["down\nall\nnight"],
    )
    assert runner.statistics().last_failure == "s0@1: down ... night"


async def test_journal_error_ends_the_run(tmp_path: Path) -> None:
    """A run directory that cannot be written stops the run, and is what the run ends with."""

    class BrokenJournal(Journal):
        async def append(self, attempt: str, line: bytes) -> bool:
            await asyncio.sleep(0.02)
            raise JournalError("cannot write: Input/output error")

    model = FunctionModel(lambda request: "done")
    journal = BrokenJournal(tmp_path)

    async def run() -> None:
        with journal:
            await scheduler(journal, model, 10_000).run(plan(10_000))

    with pytest.raises(JournalError, match="Input/output"):
        await run()


async def test_journal_error_of_one_attempt_costs_no_other(tmp_path: Path) -> None:
    """What ends within the grace period has its line, where its line can be written."""

    class OnceBroken(Journal):
        async def append(self, attempt: str, line: bytes) -> bool:
            if attempt == "s0@1":
                raise JournalError("cannot write: Too many open files")
            return await super().append(attempt, line)

    async def reply(request: ModelRequest) -> str:
        if request.sample.id != "s0":
            await until_drained.wait()
        return "done"

    until_drained = asyncio.Event()
    journal = OnceBroken(tmp_path)

    async def run() -> None:
        with journal:
            runner = scheduler(journal, FunctionModel(reply), 4, grace_s=30)
            running = asyncio.ensure_future(runner.run(plan(4)))
            while runner.statistics().draining is None:  # noqa: ASYNC110 - draining has no event
                await asyncio.sleep(0.01)
            until_drained.set()
            await running

    with pytest.raises(JournalError, match="Too many open files"):
        await run()
    assert {row["attempt"] for row in read_trajectories(tmp_path)} == {"s1@1", "s2@1", "s3@1"}


def test_seed_depends_on_run_seed_and_attempt() -> None:
    """The same attempt of the same run seed has the same seed, any other another."""
    assert attempt_seed(1, "a@1") == attempt_seed(1, "a@1")
    assert len({attempt_seed(1, "a@1"), attempt_seed(2, "a@1"), attempt_seed(1, "a@2")}) == 3


@pytest.mark.parametrize(
    ("error", "line"), [("", ""), ("one", "one"), ("one\ntwo\n\nthree\n", "one ... three")]
)
def test_error_in_one_line(error: str, line: str) -> None:
    """The first and the last line tell most of a long error."""
    assert in_one_line(error) == line
