"""The pool on sandboxes that a script starts; `test_pool_kernels.py` has it on real ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from sandbox_pool import (
    FakeSandbox,
    PoolConfig,
    PoolTimeout,
    SandboxClosed,
    SandboxPool,
    SandboxSetupError,
    SandboxSpec,
    SandboxStartError,
    UnknownProfile,
    UnsupportedHost,
)
from sandbox_pool.host.capacity import Bound
from sandbox_pool.pool import percentile
from sandbox_pool.pool_state import Kind
from sandbox_pool.sandbox import Life


class Made(FakeSandbox):
    """A sandbox that tells its pool of its life."""

    def __init__(self, starter: Starts, number: int, kind: Kind) -> None:
        super().__init__()
        self.starter = starter
        self.number = number
        self.kind = kind
        self.listener: Callable[[Life], None] = lambda _: None
        self.is_alive = True
        self.specs: list[SandboxSpec] = []
        self._closing: asyncio.Task[None] | None = None

    def is_fit(self) -> bool:
        return self.is_alive

    async def prepare(self, spec: SandboxSpec) -> None:
        self.specs.append(spec)
        for _ in range(self.starter.n_prepare_turns):
            await asyncio.sleep(0)
        if self.starter.prepare_errors:
            raise self.starter.prepare_errors.pop(0)

    def die(self) -> None:
        """End as a killed kernel does."""
        self.is_alive = False
        self.listener(Life.ENDED)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self.listener(Life.CLOSING)
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.is_closed = True
        self.starter.live.discard(self)
        self.listener(Life.CLOSED)


class Starts:
    """A starter whose starts take `n_turns` of the loop, or wait for `gate`, and fail as `errors` says."""

    tier = "scripted"

    def __init__(self, *, n_turns: int = 3, errors: Iterable[Exception | None] = ()) -> None:
        self.n_turns = n_turns
        self.errors = iter(errors)
        self.gate: asyncio.Event | None = None
        self.n_prepare_turns = 0
        self.prepare_errors: list[Exception] = []
        self.found = Bound(10_000, "plenty")
        self.bound_error: Exception | None = None
        self.live: set[Made] = set()
        self.made: list[Made] = []
        self.kinds: list[Kind] = []
        """Of all starts, in order."""

        self.n_under_way = 0
        self.max_under_way = 0
        self.n_live_at_close: int | None = None
        self.trusted_code: bool | None = None

    async def open(self, config: PoolConfig, *, trusted_code: bool) -> Starts:
        """Be opened by a pool."""
        self.trusted_code = trusted_code
        return self

    def bound(self) -> Bound:
        if self.bound_error is not None:
            raise self.bound_error
        return self.found

    def capabilities(self) -> dict[str, Any]:
        return {"tier": self.tier}

    async def start(self, number: int, kind: Kind) -> Made:
        self.kinds.append(kind)
        self.n_under_way += 1
        self.max_under_way = max(self.max_under_way, self.n_under_way)
        try:
            for _ in range(self.n_turns):
                await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            error = next(self.errors, None)
            if error is not None:
                raise error
        finally:
            self.n_under_way -= 1
        sandbox = Made(self, number, kind)
        self.live.add(sandbox)
        self.made.append(sandbox)
        return sandbox

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.n_live_at_close = len(self.live)


def pool_of(starter: Starts, **config: Any) -> SandboxPool:
    """Return a pool that is not open; it warms nothing unless the config says so."""
    return SandboxPool(PoolConfig(**({"max_idle": 0} | config)), open_starter=starter.open)


def hurry(pool: SandboxPool, limit_s: float) -> None:
    """Change how long acquire() waits from now on: what a test needs first may take its time."""
    pool.config = pool.config.model_copy(update={"acquire_timeout_s": limit_s})


async def settle(n_turns: int = 60) -> None:
    """Let all that is ready run."""
    for _ in range(n_turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what needs real time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0.002)


# -- a hit


async def test_opening_starts_nothing_that_is_not_asked_for() -> None:
    """A pool that nobody uses starts min_idle sandboxes and not one more."""
    for n in (0, 2):
        starter = Starts()
        async with pool_of(starter, min_idle=n, max_idle=8) as pool:
            await settle()
            assert (len(starter.made), pool.statistics().n_idle) == (n, n)


async def test_a_hit_does_not_suspend() -> None:
    """With a sandbox ready acquire() returns it in one go: no other task runs, none is made, no timer."""
    starter = Starts()
    async with pool_of(starter, min_idle=2) as pool:
        await settle()
        tasks = asyncio.all_tasks()
        lease = pool.acquire()
        with pytest.raises(StopIteration) as returned:
            lease.__aenter__().send(None)  # type: ignore[attr-defined]
        assert returned.value.value is starter.made[0]
        assert asyncio.all_tasks() == tasks
        assert len(starter.kinds) == 2
        await settle()
        assert len(starter.kinds) == 3, "the one that went is replaced afterwards"
        await lease.__aexit__(None, None, None)
        now = pool.statistics()
        assert (now.n_hits, now.n_misses, now.n_idle, now.n_closed) == (1, 0, 2, 1)


async def test_the_spec_reaches_the_sandbox(tmp_path: Path) -> None:
    """Profile and workspace are known to the start, the rest to prepare()."""
    starter = Starts()
    async with pool_of(starter, profiles={"torch": {}}) as pool:
        spec = SandboxSpec(profile="torch", seed=7, setup="x = 1", workspace=tmp_path)
        async with pool.acquire(spec) as sandbox:
            assert sandbox is starter.made[0]
        assert starter.kinds == [Kind("torch", tmp_path)]
        assert starter.made[0].specs == [spec]
        async with pool.acquire(SandboxSpec(seed=1)):
            assert starter.kinds[1:] == [Kind("default")]


async def test_unknown_profile_starts_nothing() -> None:
    """A profile that the config does not have is refused with the names of those that it has."""
    starter = Starts()
    async with pool_of(starter, profiles={"torch": {}}) as pool:
        for _ in range(2):
            with pytest.raises(UnknownProfile, match=r"known are default, torch"):
                await pool.acquire(SandboxSpec(profile="tensorflow")).__aenter__()
        await settle()
        assert starter.kinds == []


async def test_trusted_code_reaches_the_starter() -> None:
    """Who starts sandboxes hears whether the code is trusted; it is not unless somebody says so."""
    starter = Starts()
    async with SandboxPool(open_starter=starter.open):
        assert starter.trusted_code is False
    async with SandboxPool(open_starter=starter.open, trusted_code=True):
        assert starter.trusted_code is True


# -- many


async def test_a_burst_of_256_is_served_in_order_and_bounded() -> None:
    """256 callers at once all get a sandbox, in order, with no more starts at a time than max_starting."""
    starter = Starts()
    served: list[int] = []
    release = asyncio.Event()

    async def work(number: int, pool: SandboxPool) -> None:
        async with pool.acquire():
            served.append(number)
            await release.wait()

    async with pool_of(starter, max_sandboxes=300, max_starting=4) as pool:
        async with asyncio.TaskGroup() as group:
            for number in range(256):
                group.create_task(work(number, pool))
            await until(lambda: len(served) == 256)
            now = pool.statistics()
            release.set()
        assert served == list(range(256))
        assert starter.max_under_way == 4
        assert (now.n_started, now.n_leased, now.n_failed_starts, now.n_denied) == (256, 256, 0, 0)
        assert not starter.live


async def test_never_more_than_max_sandboxes() -> None:
    """Sandboxes that exist, those that start or close included, stay within the bound under churn."""
    starter = Starts()
    n_served = 0

    async def work(number: int, pool: SandboxPool) -> None:
        nonlocal n_served
        async with pool.acquire(SandboxSpec(profile=("default", "b", "c")[number % 3])) as sandbox:
            assert sandbox.kind.profile == ("default", "b", "c")[number % 3]  # type: ignore[attr-defined]
            assert len(starter.live) + starter.n_under_way <= 5
            await settle(number % 7)
            n_served += 1

    config = {"max_sandboxes": 5, "max_idle": 4, "min_idle": 2, "profiles": {"b": {}, "c": {}}}
    async with pool_of(starter, **config) as pool, asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(work(number, pool))
    assert n_served == 200
    assert starter.n_live_at_close == 0


async def test_a_full_pool_makes_room_for_another_kind() -> None:
    """A caller is served although the pool is full of idle sandboxes that are not of its kind."""
    starter = Starts()
    async with pool_of(starter, max_sandboxes=2, min_idle=2, max_idle=2, profiles={"b": {}}) as pool:
        await settle()
        assert pool.statistics().n_idle == 2
        async with asyncio.timeout(10), pool.acquire(SandboxSpec(profile="b")):
            assert starter.kinds == [Kind("default"), Kind("default"), Kind("b")]
            await settle()
            assert pool.statistics().n_idle == 1
        await settle()
        assert pool.statistics().n_idle == 2


# -- demand


async def test_what_nobody_calls_for_goes() -> None:
    """A sandbox that is left over, since its caller was cancelled, goes after max_idle_s; min_idle stays."""
    starter = Starts()
    config = {"max_sandboxes": 4, "min_idle": 1, "max_idle": 4, "max_idle_s": 0.05, "profiles": {"b": {}}}
    async with pool_of(starter, **config) as pool:
        await settle()
        starter.gate = asyncio.Event()
        caller = asyncio.create_task(pool.acquire(SandboxSpec(profile="b")).__aenter__())
        await settle()
        caller.cancel()
        starter.gate.set()
        await settle()
        await until(lambda: pool.statistics().n_closed == 1)
        assert [made.kind.profile for made in starter.made] == ["default", "b"]
        assert [made.kind.profile for made in starter.live] == ["default"]
        assert pool.statistics().n_idle == 1


async def test_repeated_demand_is_met_ahead() -> None:
    """Callers one after the other wait for the first sandboxes only: then one is always ready."""
    starter = Starts()
    async with pool_of(starter, max_sandboxes=4, max_idle=2) as pool:
        for _ in range(20):
            async with pool.acquire():
                await settle()
        now = pool.statistics()
    assert (now.n_hits, now.n_misses) == (18, 2)


# -- those that break


async def test_unfit_idle_sandboxes_are_replaced() -> None:
    """Idle ones that have ended, noticed or not, as when their zygote was replaced, are never handed out."""
    starter = Starts()
    async with pool_of(starter, min_idle=3, max_sandboxes=8) as pool:
        await settle()
        starter.made[0].die()
        await settle()
        assert (pool.statistics().n_idle, pool.statistics().n_closed) == (3, 1), (
            "replaced before anybody asks"
        )
        starter.made[1].is_alive = False  # nobody was told
        starter.made[2].is_alive = False
        async with pool.acquire() as sandbox:
            assert sandbox is starter.made[3]
            await settle()
            now = pool.statistics()
            assert (now.n_idle, now.n_leased, now.n_closed) == (3, 1, 3)
    assert not starter.live


async def test_all_idle_ones_may_die_at_once() -> None:
    """When a zygote takes all with it the callers are served by new ones, a few starts at a time."""
    starter = Starts()
    async with pool_of(starter, min_idle=50, max_sandboxes=60, max_starting=2) as pool:
        await until(lambda: pool.statistics().n_idle == 50)
        for sandbox in list(starter.live):
            sandbox.die()
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            for _ in range(10):
                assert (await stack.enter_async_context(pool.acquire())).is_alive
        await until(lambda: pool.statistics().n_idle == 50)
        assert starter.max_under_way == 2


async def test_a_leased_one_that_dies_is_its_callers() -> None:
    """The pool takes nothing from under a caller: a leased sandbox that dies stays leased until closed."""
    starter = Starts()
    async with pool_of(starter) as pool:
        async with pool.acquire() as sandbox:
            starter.made[0].die()
            await settle()
            assert not starter.made[0].is_closed
            assert not sandbox.is_alive
            assert pool.statistics().n_leased == 1
        assert pool.statistics().n_leased == 0


async def test_a_failed_start_is_tried_once_more() -> None:
    """A caller does not hear of one failed start, and hears of the second, each with an exception of its own."""
    down = SandboxStartError("out of memory")
    starter = Starts(errors=[down])
    async with pool_of(starter) as pool, pool.acquire():
        now = pool.statistics()
        assert (now.n_failed_starts, now.n_started, now.n_denied) == (1, 1, 0)
    starter = Starts(errors=repeat(down))
    async with pool_of(starter) as pool:
        results = await asyncio.gather(
            *(pool.acquire().__aenter__() for _ in range(3)), return_exceptions=True
        )
        now = pool.statistics()
        assert (now.n_failed_starts, now.n_denied, now.n_waiting) == (6, 3, 0)
    assert [str(result) for result in results] == ["out of memory"] * 3
    assert len({id(result) for result in results}) == 3


async def test_an_unsupported_host_is_said_to_all_at_once() -> None:
    """Where no start can succeed everybody who waits for that kind hears of it after one; others are served."""
    starter = Starts(errors=[UnsupportedHost("no such interpreter")])
    async with pool_of(starter, max_starting=1, profiles={"b": {}}) as pool:
        specs = [SandboxSpec(), SandboxSpec(), SandboxSpec(profile="b"), SandboxSpec()]
        callers = [asyncio.create_task(pool.acquire(spec).__aenter__()) for spec in specs]
        await asyncio.wait(callers)
        assert [type(caller.exception()) for caller in callers] == [
            UnsupportedHost,
            UnsupportedHost,
            type(None),
            UnsupportedHost,
        ]
        assert pool.statistics().n_failed_starts == 1
        async with pool.acquire():
            pass


async def test_an_error_that_nobody_foresaw_is_heard_of() -> None:
    """Whatever breaks a start reaches who waits, with its cause, and the next start is tried."""
    starter = Starts(errors=[RuntimeError("first"), RuntimeError("second")])
    async with pool_of(starter) as pool:
        with pytest.raises(SandboxStartError, match="RuntimeError: second") as caught:
            await pool.acquire().__aenter__()
        assert isinstance(caught.value.__cause__, RuntimeError)
        async with pool.acquire():
            pass


async def test_a_sandbox_that_ends_when_it_is_ready_has_not_started() -> None:
    """A kernel that is dead before the pool listens to it counts as a failed start, and is closed."""

    class Stillborn(Starts):
        async def start(self, number: int, kind: Kind) -> Made:
            sandbox = await super().start(number, kind)
            sandbox.is_alive = number > 0
            return sandbox

    starter = Stillborn()
    async with pool_of(starter) as pool, pool.acquire() as sandbox:
        assert sandbox is starter.made[1]
        assert starter.made[0].is_closed
        assert pool.statistics().n_failed_starts == 1


async def test_failing_warm_starts_keep_nothing_busy() -> None:
    """While nobody waits a start that failed is not tried again at once."""
    starter = Starts(errors=repeat(SandboxStartError("down")))
    async with pool_of(starter, min_idle=1) as pool:
        await settle(500)
        assert pool.statistics().n_failed_starts == 1
        with pytest.raises(SandboxStartError):
            await pool.acquire().__aenter__()
        await settle(500)
        assert pool.statistics().n_failed_starts == 3


# -- preparing


async def test_a_failed_setup_is_the_samples() -> None:
    """SandboxSetupError reaches the caller, once, and its sandbox is closed."""
    starter = Starts()
    starter.prepare_errors = [SandboxSetupError("NameError")]
    async with pool_of(starter) as pool:
        with pytest.raises(SandboxSetupError):
            await pool.acquire(SandboxSpec(setup="x")).__aenter__()
        assert len(starter.made) == 1
        assert not starter.live
        async with pool.acquire():
            assert pool.statistics().n_leased == 1


async def test_what_breaks_while_prepared_is_replaced_once() -> None:
    """A sandbox that breaks by our fault before its first cell is replaced, before all who wait; twice is told."""
    starter = Starts()
    starter.n_prepare_turns = 5
    starter.prepare_errors = [SandboxStartError("gone")]
    order: list[str] = []

    async def work(name: str, pool: SandboxPool) -> None:
        async with pool.acquire():
            order.append(name)

    async with pool_of(starter, max_sandboxes=1) as pool:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for name in ("first", "second", "third"):
                group.create_task(work(name, pool))
        assert order == ["first", "second", "third"]
        starter.prepare_errors = [SandboxStartError("gone"), SandboxStartError("gone again")]
        with pytest.raises(SandboxStartError, match="gone again"):
            await pool.acquire().__aenter__()
        assert not starter.live


# -- deadlines and cancellation


async def test_acquire_has_a_deadline() -> None:
    """Without a sandbox in acquire_timeout_s it raises PoolTimeout, which says what there is and why not more."""
    starter = Starts()
    async with pool_of(starter, max_sandboxes=1) as pool:
        async with pool.acquire():
            hurry(pool, 0.01)
            with pytest.raises(PoolTimeout, match=r"0\.01 s .*1 are in use.*at most 1 .*max_sandboxes"):
                await pool.acquire().__aenter__()
            assert (pool.statistics().n_waiting, pool.statistics().n_denied) == (0, 1)
        hurry(pool, 60)
        async with pool.acquire():
            pass


async def test_a_deadline_loses_no_sandbox() -> None:
    """A sandbox that comes up as its caller's time is over, or later, is handed out, kept or closed."""
    for late_by in ("nothing", "a little"):
        starter = Starts()
        async with pool_of(starter, max_sandboxes=1) as pool:
            hurry(pool, 0.02)
            starter.gate = asyncio.Event()
            lease = pool.acquire()
            caller = asyncio.create_task(lease.__aenter__())
            if late_by == "nothing":
                await settle()
                starter.gate.set()
                time.sleep(0.03)  # noqa: ASYNC251 - the start and the deadline come in one turn of the loop
            with suppress(PoolTimeout):
                await caller
                await lease.__aexit__(None, None, None)
            starter.gate.set()
            await settle()
            hurry(pool, 60)
            async with pool.acquire():
                assert pool.statistics().n_leased == 1
        assert (starter.n_live_at_close, pool.statistics().n_closed) == (0, pool.statistics().n_started)


@pytest.mark.parametrize("min_idle", [0, 1], ids=["miss", "hit"])
async def test_acquire_can_be_cancelled_anywhere(min_idle: int) -> None:
    """Cancelled before any turn of the loop, a lease leaves nothing leased or waiting and the pool works on."""
    starter = Starts()
    starter.n_prepare_turns = 2
    async with pool_of(starter, max_sandboxes=2, min_idle=min_idle) as pool:

        async def work() -> None:
            async with pool.acquire() as sandbox:
                await sandbox.execute("1")

        n_cancelled = 0
        for n_turns in range(40):
            await settle()
            task = asyncio.create_task(work())
            await settle(n_turns)
            n_cancelled += task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await settle()
            now = pool.statistics()
            assert (now.n_leased, now.n_waiting, now.n_closing) == (0, 0, 0)
            assert len(starter.live) == now.n_idle <= 2
        assert 5 < n_cancelled < 40, "the range covers a lease from its start to its end"
        async with asyncio.timeout(10), pool.acquire():
            pass
    assert starter.n_live_at_close == 0
    assert pool.statistics().n_closed == pool.statistics().n_started


async def test_cancelled_twice_it_closes_the_sandbox_all_the_same() -> None:
    """A second cancellation, while the sandbox of the first is being closed, leaves nothing behind."""
    starter = Starts()
    async with pool_of(starter) as pool:
        lease = pool.acquire()

        async def work() -> None:
            async with lease:
                await asyncio.Event().wait()

        for n_turns in range(6):
            lease = pool.acquire()
            task = asyncio.create_task(work())
            await settle()
            task.cancel()
            await settle(n_turns)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle()
            assert not starter.live
            assert pool.statistics().n_leased == 0


# -- opening and closing


async def test_uses_before_open_are_refused() -> None:
    """acquire() on a pool that was not opened says how to open it; its numbers are nought."""
    pool = pool_of(Starts())
    with pytest.raises(SandboxClosed, match="async with"):
        await pool.acquire().__aenter__()
    assert (pool.statistics().n_started, pool.statistics().tier) == (0, "")


async def test_closing_tells_who_waits_and_takes_all_down() -> None:
    """Leaving the pool refuses who waits, ends starts, closes idle and leased ones, then the starter."""
    starter = Starts()
    async with pool_of(starter, max_sandboxes=4, min_idle=1) as pool:
        await settle()
        leases = [pool.acquire() for _ in range(2)]
        for lease in leases:
            await lease.__aenter__()
        await settle()
        starter.gate = asyncio.Event()  # which nobody sets
        idle = await pool.acquire().__aenter__()
        waiting = [asyncio.create_task(pool.acquire().__aenter__()) for _ in range(3)]
        await settle()
        assert pool.statistics().n_starting > 0
    assert idle.is_closed  # type: ignore[attr-defined]
    for caller in waiting:
        with pytest.raises(SandboxClosed, match="closed"):
            await caller
    with pytest.raises(SandboxClosed):
        await pool.acquire().__aenter__()
    for lease in leases:
        await lease.__aexit__(None, None, None)
    now = pool.statistics()
    assert (now.n_idle, now.n_starting, now.n_leased, now.n_closing, now.n_waiting) == (0, 0, 0, 0, 0)
    assert (starter.n_live_at_close, starter.n_under_way) == (0, 0)


async def test_closing_completes_when_cancelled() -> None:
    """Cancelled while it closes, even again and again, a pool closes all and then says that it was cancelled."""
    for n_turns in range(8):
        starter = Starts()

        async def work(starter: Starts = starter) -> None:
            async with pool_of(starter, min_idle=3, max_sandboxes=3):
                await settle()

        task = asyncio.create_task(work())
        await settle(60 + n_turns)
        is_cancelled = task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not is_cancelled or task.cancelled()
        assert starter.n_live_at_close == 0


async def test_a_machine_without_room_is_unsupported() -> None:
    """A starter that has room for none is closed, and the pool does not open."""
    starter = Starts()
    starter.bound_error = UnsupportedHost("64 MB free")
    with pytest.raises(UnsupportedHost, match="64 MB"):
        async with pool_of(starter):
            pass
    assert starter.n_live_at_close == 0


async def test_the_machines_bound_holds_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """When callers wait because this machine has no room for more, one line says so, and which resource it is."""
    starter = Starts()
    starter.found = Bound(2, "100 MB of memory are free")
    with caplog.at_level(logging.WARNING, "sandbox_pool.pool"):
        async with (
            pool_of(starter, max_sandboxes=8) as pool,
            AsyncExitStack() as stack,
        ):
            assert pool.statistics().max_sandboxes == 2
            for _ in range(2):
                await stack.enter_async_context(pool.acquire())
            assert caplog.records == []
            hurry(pool, 0.02)
            for _ in range(3):
                with pytest.raises(PoolTimeout, match=r"at most 2 may exist .*100 MB of memory are free"):
                    await pool.acquire().__aenter__()
    (record,) = caplog.records
    assert "n_sandboxes=2 max_sandboxes=8 reason=100 MB" in record.getMessage()


async def test_statistics_tell_how_long_starts_take() -> None:
    """The latency of starts is None before the first; the tier is what the starter says."""
    starter = Starts()
    async with pool_of(starter) as pool:
        assert (pool.statistics().start_p50_s, pool.statistics().tier) == (None, "scripted")
        async with pool.acquire():
            now = pool.statistics()
    assert 0 < (now.start_p50_s or 0) == now.start_p99_s


def test_percentiles_are_nearest_ranks() -> None:
    """A percentile is one of the values: the smallest that so many percent of them do not exceed."""
    values = [float(n) for n in range(1, 257)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [128, 254, 256]
    assert [percentile([1.0, 2.0, 3.0], percent) for percent in (1, 50, 99)] == [1, 2, 3]
    assert percentile([], 50) is None
