from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox_pool import SandboxError, SandboxStartError
from sandbox_pool.bench import measure
from sandbox_pool.bench.record import Record


class Clock:
    """Stands still but for what the fakes say that they took."""

    def __init__(self) -> None:
        self.now_s = 100.0

    async def take(self, duration_s: float) -> None:
        """Let time pass, and others run."""
        self.now_s += duration_s
        await asyncio.sleep(0)

    def perf_counter(self) -> float:
        return self.now_s

    process_time = perf_counter


@pytest.fixture(name="clock", autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(FakeContender, "clock", clock, raising=False)
    return clock


class FakeKernel:
    """Answers the trivial cell, after so long."""

    def __init__(self, contender: FakeContender) -> None:
        self._contender = contender

    async def run(self, code: str) -> str | None:
        await self._contender.clock.take(self._contender.cell_s)
        return self._contender.value if code == measure.TRIVIAL else None


class FakeContender:
    """Starts take start_s each; every `fails_each`-th of them fails, those after `stuck_after` never end."""

    name = "fake"
    clock: Clock

    def __init__(
        self,
        start_s: float = 0.0,
        cell_s: float = 0.0,
        end_s: float = 0.0,
        fails_each: int = 0,
        max_starting: int = 100,
        value: str = "2",
        stuck_after: int = 1000,
    ) -> None:
        self.start_s, self.cell_s, self.end_s = start_s, cell_s, end_s
        self.fails_each = fails_each
        self.max_starting = max_starting
        self.value = value
        self.stuck_after = stuck_after
        self.n_asked = self.n_starting = self.n_alive = 0
        self.most_starting = self.most_alive = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[FakeKernel]:
        self.n_asked += 1
        number = self.n_asked
        self.n_starting += 1
        self.most_starting = max(self.most_starting, self.n_starting)
        try:
            await self.clock.take(self.start_s)
            if number > self.stuck_after:
                await asyncio.Event().wait()
        finally:
            self.n_starting -= 1
        if self.fails_each and number % self.fails_each == 0:
            raise SandboxStartError("no memory")
        self.n_alive += 1
        self.most_alive = max(self.most_alive, self.n_alive)
        try:
            yield FakeKernel(self)
            await self.clock.take(self.end_s)
        finally:
            self.n_alive -= 1


async def test_a_start_a_cell_and_an_end_are_timed_apart() -> None:
    """Each takes its own time, and none the others'."""
    record = Record()
    await measure.starts(FakeContender(start_s=4, cell_s=2, end_s=1), record, 3)
    assert record.repetitions("fake", "start_s") == [[4, 4, 4]]
    assert record.repetitions("fake", "first_cell_s") == [[2, 2, 2]]
    assert record.repetitions("fake", "teardown_s") == [[1, 1, 1]]
    assert record.n_starts == {"fake": 3}


async def test_a_failed_start_is_counted_and_the_next_is_made() -> None:
    """It gives no time, and does not end the measurement."""
    record = Record()
    await measure.starts(FakeContender(fails_each=2), record, 6)
    assert record.n("fake", "start_s") == 3
    assert record.n_starts == {"fake": 6}
    assert record.failures == {"fake": ["no memory"] * 3}


async def test_a_wrong_answer_is_no_measurement() -> None:
    """A kernel that gives the wrong value is a failure, however fast it was."""
    record = Record()
    wrong = FakeContender(start_s=1, value="3")
    with pytest.raises(SandboxError, match="gave '3', not '2'"):
        await measure.cells([wrong], record, 50)
    with pytest.raises(ExceptionGroup) as caught:
        await measure.hold(wrong, record, [2])
    assert caught.group_contains(SandboxError, match="gave '3', not '2'")
    assert wrong.n_alive == 0


async def test_cells_of_all_contenders_are_run_in_turns() -> None:
    """As many of each in one kernel of each, with their time and CPU; what runs first of all does not count."""
    record = Record()
    slow, fast = FakeContender(cell_s=2), FakeContender(cell_s=1)
    slow.name, fast.name = "slow", "fast"
    await measure.cells([slow, fast], record, 100)
    assert record.repetitions("slow", "cell_s") == [[2] * 100]
    assert record.repetitions("fast", "cell_s") == [[1] * 100]
    assert record.repetitions("slow", "client_cpu_s") == [[2, 2]]  # the fakes' clock is that of the CPU, too
    assert record.repetitions("fast", "client_cpu_s") == [[1, 1]]
    assert slow.n_asked == fast.n_asked == 1


async def test_held_kernels_are_alive_at_once_and_gone_at_the_end() -> None:
    """Each level is reached from the one below, no more are started at once than serves, all are ended."""
    record = Record()
    contender = FakeContender(start_s=2, max_starting=3)
    await measure.hold(contender, record, [4, 10])
    assert contender.most_alive == contender.n_asked == 10
    assert contender.most_starting == 3
    assert contender.n_alive == 0
    assert record.repetitions("fake", "4_at_once_s") == [[8]]  # the fakes take their time one by one
    assert record.repetitions("fake", "10_at_once_s") == []  # only six were
    assert record.repetitions("fake", "starts_hz") == [[0.5], [0.5]]
    assert record.n("fake", "10_gone_at_once_s") == 1


async def test_a_level_that_was_not_reached_has_no_time() -> None:
    """Failed starts are counted, what did start is ended, and no figure claims that all were ready."""
    record = Record()
    contender = FakeContender(start_s=1, fails_each=5)
    await measure.hold(contender, record, [10])
    assert record.n("fake", "10_at_once_s") == 0
    assert record.n("fake", "starts_hz") == 1
    assert record.n_starts == {"fake": 10}
    assert len(record.failures["fake"]) == 2
    assert contender.n_alive == 0


async def test_when_none_starts_the_reason_is_told() -> None:
    """Rather than a division by nought."""
    with pytest.raises(ExceptionGroup) as caught:
        await measure.hold(FakeContender(start_s=1, fails_each=1), Record(), [2])
    assert caught.group_contains(SandboxError, match=r"no fake started .* no memory")


async def test_cancelling_ends_all_that_is_held() -> None:
    """Those that run and those that start."""
    contender = FakeContender(max_starting=2, stuck_after=3)
    task = asyncio.create_task(measure.hold(contender, Record(), [6]))
    for _ in range(20):  # turns of the loop
        await asyncio.sleep(0)
    assert (contender.n_alive, contender.n_starting) == (3, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert contender.n_alive == contender.n_starting == 0


async def test_endured_starts_are_all_counted() -> None:
    """As many as asked for, several at once, failures among them."""
    record = Record()
    contender = FakeContender(start_s=1, fails_each=10)
    await measure.endure(contender, record, 40, n_at_once=4)
    assert contender.n_asked == record.n_starts["fake"] == 40
    assert len(record.failures["fake"]) == 4
    assert contender.most_starting == 4
    assert record.repetitions("fake", "cycles_hz") == [[1.0]]


async def test_cells_are_timed_only_while_all_others_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """First as many as asked for while they are idle; when one of the sleepers wakes, no more are run."""
    monkeypatch.setattr(measure, "_SETTLE_S", 0.0)
    monkeypatch.setattr(measure, "_N_CELLS_IN_LINE", 20)
    record = Record()
    first = Wakener(FakeContender(cell_s=0.01), n_cells=20 + 3)
    sleepers = [Sleeper(first.enough), Sleeper(first.enough)]
    await measure.head_of_line("fake", record, [first, *sleepers])
    (values,) = record.repetitions("fake", "in_line_s")
    assert record.n("fake", "alone_s") == 20
    assert 3 <= len(values) <= 5  # waking takes a turn or two of the loop
    assert values == [pytest.approx(0.01)] * len(values)


class Wakener(FakeKernel):
    """Wakes the others after so many cells."""

    def __init__(self, contender: FakeContender, n_cells: int) -> None:
        super().__init__(contender)
        self.enough = asyncio.Event()
        self._n_left = n_cells

    async def run(self, code: str) -> str | None:
        self._n_left -= 1
        if not self._n_left:
            self.enough.set()
        return await super().run(code)


class Sleeper:
    """Is in its cell until it is woken."""

    def __init__(self, enough: asyncio.Event) -> None:
        self._enough = enough

    async def run(self, code: str) -> str | None:
        await self._enough.wait()
        return None
