"""Groups of engines: started together, restarted, given up; hosts are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from runner.config import EnginesConfig
from runner.engines import group as group_module
from runner.engines import restarts
from runner.engines.group import EngineGroup, Table
from runner.engines.host import EngineAddress
from runner.errors import AllEnginesLost, EngineStartError

DEAD = "fails"
CONFIG = EnginesConfig(max_restarts=2)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 0.0)


class FakeHost:
    """Starts as its script says: DEAD does not; when the script is at an end, each start succeeds."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.n_starts = 0
        self.n_running = 0
        self.is_closed = False
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.lost = asyncio.Event()

    async def start(self) -> EngineAddress:
        self.n_starts += 1
        await self.may_start.wait()
        if self.script and self.script.pop(0) == DEAD:
            raise EngineStartError("it did not start\nlog line")
        self.lost.clear()
        self.n_running += 1
        return EngineAddress(f"http://127.0.0.1:9/{self.n_starts}/v1", "m", 4096)

    async def ended(self) -> str:
        await self.lost.wait()
        return "signal 9"

    async def stop(self, grace_s: float) -> None:
        self.n_running = 0

    async def log_tail(self) -> str:
        return "last words"

    async def close(self) -> None:
        self.is_closed = True


class Watcher:
    """Remembers tables, and waits for one."""

    def __init__(self, group: EngineGroup) -> None:
        self.tables: list[Table] = []
        self._changed = asyncio.Event()
        self.unsubscribe = group.subscribe(self._note)

    def _note(self, table: Table) -> None:
        self.tables.append(table)
        self._changed.set()

    def states(self) -> list[str]:
        return [endpoint.state for endpoint in self.tables[-1]]

    async def until(self, *states: str) -> None:
        async with asyncio.timeout(5.0):
            while self.states() != list(states):
                self._changed.clear()
                await self._changed.wait()


def make(hosts: Sequence[FakeHost], events: list[tuple[str, dict[str, Any]]] | None = None) -> EngineGroup:
    """Return a group of these hosts."""
    seen = events if events is not None else []
    return EngineGroup(hosts, CONFIG, on_event=lambda name, details: seen.append((name, details)))


async def started(
    hosts: Sequence[FakeHost], events: list[tuple[str, dict[str, Any]]] | None = None
) -> EngineGroup:
    """Return a group that runs."""
    group = make(hosts, events)
    await group.start()
    return group


async def test_all_replicas_start_together() -> None:
    """None waits for another, and the table holds each."""
    hosts = [FakeHost(), FakeHost()]
    hosts[0].may_start.clear()
    group = make(hosts)
    watcher = Watcher(group)
    starting = asyncio.create_task(group.start())
    await watcher.until("starting", "ready")
    assert not starting.done()
    hosts[0].may_start.set()
    await starting
    assert [endpoint.replica for endpoint in group.endpoints()] == ["engine-0", "engine-1"]
    assert {endpoint.epoch for endpoint in group.endpoints()} == {1}
    await group.close()
    assert all(host.is_closed and not host.n_running for host in hosts)


async def test_one_that_is_much_later_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose node has no room: the others do not stand idle, and it joins when it is ready."""
    monkeypatch.setattr(group_module, "LATE_S", 0.05)
    hosts, events = [FakeHost(), FakeHost()], []
    hosts[1].may_start.clear()
    async with asyncio.timeout(5.0), await started(hosts, events) as group:
        assert [name for name, _ in events] == ["engine_ready", "engines_late"]
        assert events[1][1]["replicas"] == ["engine-1"]
        watcher = Watcher(group)
        assert watcher.states() == ["ready", "starting"]
        hosts[1].may_start.set()
        await watcher.until("ready", "ready")


async def test_the_first_is_waited_for_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when another one did not start."""
    monkeypatch.setattr(group_module, "LATE_S", 0.0)
    hosts = [FakeHost(), FakeHost(DEAD, DEAD, DEAD)]
    hosts[0].may_start.clear()
    group = make(hosts)
    watcher = Watcher(group)
    starting = asyncio.create_task(group.start())
    await watcher.until("starting", "failed")
    await asyncio.sleep(0.05)
    assert not starting.done()
    hosts[0].may_start.set()
    async with asyncio.timeout(5.0):
        await starting
    await group.close()


async def test_one_that_was_ready_is_a_start_though_it_is_lost_again() -> None:
    """Before the others have settled: it is started again, and the run waits for it."""
    hosts = [FakeHost(), FakeHost(DEAD, DEAD, DEAD)]
    hosts[1].may_start.clear()
    group = make(hosts)
    watcher = Watcher(group)
    starting = asyncio.create_task(group.start())
    await watcher.until("ready", "starting")
    hosts[0].may_start.clear()
    hosts[0].lost.set()
    await watcher.until("starting", "starting")
    hosts[1].may_start.set()
    await watcher.until("starting", "failed")
    await asyncio.sleep(0.01)
    assert not starting.done()
    hosts[0].may_start.set()
    async with asyncio.timeout(5.0):
        await starting
    assert watcher.states() == ["ready", "failed"]
    await group.close()


async def test_all_that_are_lost_while_others_start_end_the_start() -> None:
    """Once none of them will be started again."""
    hosts = [FakeHost("runs", *[DEAD] * 9), FakeHost(*[DEAD] * 9)]
    hosts[1].may_start.clear()
    group = make(hosts)
    watcher = Watcher(group)
    starting = asyncio.create_task(group.start())
    await watcher.until("ready", "starting")
    hosts[0].lost.set()
    await watcher.until("failed", "starting")
    hosts[1].may_start.set()
    async with asyncio.timeout(5.0):
        with pytest.raises(AllEnginesLost, match="all 2 engines are lost"):
            await starting
    assert all(host.is_closed for host in hosts)


async def test_slow_starts_that_fail_are_a_crash_loop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far apart: the time that counts is that in which the engine worked."""
    config = CONFIG.model_copy(update={"restart_window_s": 0.001})

    class LateHost(FakeHost):
        async def start(self) -> EngineAddress:
            await asyncio.sleep(0.01)
            return await super().start()

    host = LateHost("runs", *[DEAD] * 20)
    async with asyncio.timeout(5.0):
        group = EngineGroup([host], config)
        await group.start()
        host.lost.set()
        await Watcher(group).until("failed")
        await group.close()
    assert host.n_starts == 1 + CONFIG.max_restarts


async def test_a_lost_engine_comes_back_elsewhere() -> None:
    """Only its own row changes: lost, starting, ready, with the next epoch and another address."""
    hosts, events = [FakeHost(), FakeHost()], []
    async with await started(hosts, events) as group:
        before = group.endpoints()
        watcher = Watcher(group)
        hosts[1].lost.set()
        await watcher.until("ready", "lost")
        await watcher.until("ready", "ready")
        after = group.endpoints()
        assert after[0] == before[0]
        assert after[1].epoch == before[1].epoch + 1
        assert after[1].url != before[1].url
    rows = [table[1].state for table in watcher.tables]
    assert rows[:4] == ["ready", "lost", "starting", "ready"] or rows[:5] == [
        "ready",
        "lost",
        "lost",
        "starting",
        "ready",
    ]
    (lost,) = [details for name, details in events if name == "engine_lost"]
    assert lost == {"replica": "engine-1", "epoch": 1, "reason": "it ended (signal 9)", "log": ["last words"]}


async def test_a_crash_loop_is_given_up_and_the_rest_goes_on() -> None:
    """After `max_restarts`; the reason says so."""
    hosts, events = [FakeHost(), FakeHost("runs", DEAD, DEAD)], []
    async with await started(hosts, events) as group:
        watcher = Watcher(group)
        hosts[1].lost.set()
        await watcher.until("ready", "failed")
        assert hosts[1].n_starts == 1 + CONFIG.max_restarts
        (reason,) = [details["reason"] for name, details in events if name == "engine_failed"]
        assert "more than 2 times (engines.max_restarts)" in reason
        assert not hosts[1].n_running


async def test_all_lost_ends_the_run_with_the_last_log() -> None:
    """The error is there to be raised, and says that the run can be resumed."""
    hosts = [FakeHost("runs", DEAD, DEAD)]
    async with await started(hosts) as group:
        waiting = asyncio.create_task(group.all_lost())
        hosts[0].lost.set()
        async with asyncio.timeout(5.0):
            error = await waiting
    assert isinstance(error, AllEnginesLost)
    assert "run the same command again" in str(error)
    assert str(error).endswith("log line")


async def test_none_that_starts_is_an_error_with_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: what failed everywhere would fail again."""
    monkeypatch.setattr(restarts, "FIRST_DELAY_S", 60.0)
    hosts = [FakeHost(DEAD), FakeHost(DEAD)]
    with pytest.raises(AllEnginesLost, match="none of 2 engines started: it did not start\nlog line"):
        await make(hosts).start()
    assert all(host.is_closed for host in hosts)


async def test_one_that_does_not_start_is_tried_again_beside_the_others() -> None:
    """The run begins meanwhile."""
    hosts = [FakeHost(), FakeHost(DEAD)]
    async with await started(hosts) as group:
        await Watcher(group).until("ready", "ready")
    assert [host.n_starts for host in hosts] == [1, 2]


async def test_a_cancelled_start_leaves_nothing() -> None:
    """Neither the one that runs nor the one that starts."""
    hosts = [FakeHost(), FakeHost()]
    hosts[1].may_start.clear()
    group = make(hosts)
    watcher = Watcher(group)
    starting = asyncio.create_task(group.start())
    await watcher.until("ready", "starting")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert all(host.is_closed and not host.n_running for host in hosts)


async def test_closing_says_draining_first() -> None:
    """So that nobody sends a request into the end; twice is once."""
    group = make([FakeHost()])
    await group.start()
    watcher = Watcher(group)
    await group.close()
    await group.close()
    assert watcher.states() == ["draining"]


class SlowHost(FakeHost):
    """Takes some turns of the loop for everything."""

    async def start(self) -> EngineAddress:
        await ticks(3)
        address = await super().start()
        try:
            await ticks(3)
        except asyncio.CancelledError:
            self.n_running = 0
            raise
        return address

    async def stop(self, grace_s: float) -> None:
        await ticks(3)
        self.n_running = 0


async def ticks(n: int) -> None:
    """Let the loop turn so often."""
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["start", "close"])
async def test_whoever_cancels_and_closes_leaves_nothing(what: str) -> None:
    """Wherever the start or the end of a group, one of whose engines restarts, was at that moment."""
    for n_ticks in range(1, 40):
        hosts = [SlowHost(), SlowHost("runs", DEAD)]
        group = make(hosts)
        if what == "close":
            await group.start()
            hosts[1].lost.set()
            await ticks(n_ticks)
        working = asyncio.create_task(group.start() if what == "start" else group.close())
        await ticks(n_ticks)
        working.cancel()
        await asyncio.wait([working])
        await group.close()
        assert all(host.is_closed and not host.n_running for host in hosts), n_ticks


async def test_who_unsubscribes_is_not_called() -> None:
    """Whatever happens then."""
    host = FakeHost()
    async with await started([host]) as group:
        gone, stays = Watcher(group), Watcher(group)
        gone.unsubscribe()
        host.lost.set()
        await stays.until("lost")
        await stays.until("ready")
        assert len(gone.tables) == 1


async def test_a_bug_in_a_host_is_not_taken_for_a_loss() -> None:
    """It ends the start, and later the run."""

    class Broken(FakeHost):
        async def start(self) -> EngineAddress:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await make([FakeHost(), Broken()]).start()
