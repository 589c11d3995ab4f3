"""What goes wrong on the way, or on one node alone, costs a run nothing: it ends, with every attempt once."""

from __future__ import annotations

import asyncio
import errno
import random
import re
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from bench_data import Sample, Samples
from runner.cluster import pump, remote_journal, run
from runner.cluster.crew import Crew
from runner.cluster.messages import Terms
from runner.cluster.outbox import Outbox
from runner.cluster.remote_journal import RemoteJournal
from runner.endpoint_table import EngineEndpoint
from runner.errors import DiskFull
from runner.journal import Journal, read_events, read_failures, read_inflight, read_trajectories
from runner.models import ScriptedClient
from runner.plan import attempts
from runner.protocols import Fenced
from sandbox_pool import FakePool, Observation, Status
from sandbox_pool.fake import FakeSandbox
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from tests.runner.cluster.fleet import LocalFleet, LocalLink
from tests.runner.cluster.test_cluster_run import Pool as WithFiles
from tests.runner.cluster.test_cluster_run import check_records, cluster_run, far_away, samples, setup, until
from tests.runner.factories import rollout_settings, scheduler

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
SLOW = pytest.mark.slow


class Pool(FakePool):
    """Cells take a moment; `broken` is raised when files are taken out."""

    def __init__(self, cell_s: float = 0.01, broken: Exception | None = None) -> None:
        async def reply(code: str) -> Observation:
            await asyncio.sleep(cell_s)
            return Observation(status=Status.OK)

        super().__init__(lambda number: reply)
        self._broken = broken

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
        async with super().acquire(spec) as sandbox:
            if self._broken is not None:
                sandbox.collect = self._collect  # type: ignore[method-assign]
            yield sandbox

    async def _collect(self, globs: Any, *, into: Path | None = None) -> Any:
        assert self._broken is not None
        raise self._broken


@pytest.fixture(name="fast", autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HIRE_INTERVAL_S", 0.05)
    monkeypatch.setattr(run, "KEEP_INTERVAL_S", 0.02)
    monkeypatch.setattr(run, "DRAIN_SLACK_S", 1.0)
    monkeypatch.setattr(pump, "RETRY_S", 0.02)
    monkeypatch.setattr("runner.cluster.worker.PROGRESS_INTERVAL_S", 0.05)
    monkeypatch.setattr("runner.cluster.worker.Outbox", partial(Outbox, linger_s=0.02))


def check_once(run_dir: Path, n: int) -> None:
    assert Counter(row["attempt"] for row in read_trajectories(run_dir)) == {f"s{k}@1": 1 for k in range(n)}


def with_turns(run_dir: Path) -> set[str]:
    return {found.attempt for found in read_inflight(run_dir)}


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run_dir) if event["event"] == name]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["finish", "submit", "acknowledge"])
async def test_a_connection_that_breaks_loses_no_word_to_a_worker(
    tmp_path: Path, method: str, when: Literal["before", "after"]
) -> None:
    """Whichever call it breaks in, and whether or not the worker had heard it."""
    fleet = LocalFleet(2, lambda setup: Pool())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 8) as driven:
        for link in fleet.links:
            link.breaks[method] = when
        await driven.run(attempts(samples(8), 1, done=set()))

    check_once(tmp_path, 8)
    assert not events(tmp_path, "worker_lost")
    assert all(row["n_resumed_turns"] == 0 for row in read_trajectories(tmp_path))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_drain_whose_connection_breaks_is_one_drain(
    tmp_path: Path, when: Literal["before", "after"]
) -> None:
    """The worker hears it, and does not take it for a second one, which would end the grace period."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.3))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 3, concurrency=1, grace_s=10) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(3, 2), 1, done=set())))
        await until(lambda: driven.statistics().n_in_flight == 1)
        fleet.links[0].breaks["drain"] = when
        driven.drain()
        await running

    assert [row["attempt"] for row in read_trajectories(tmp_path)] == ["s0@1"]
    assert not list(read_failures(tmp_path))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_a_worker_is_told_comes_in_order(tmp_path: Path, when: Literal["before", "after"]) -> None:
    """A pause that had to be told twice does not come behind the resume."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.05))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 6, concurrency=2) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(6), 1, done=set())))
        await until(lambda: driven.statistics().n_in_flight == 2)
        fleet.links[0].breaks["pause"] = when
        driven.pause("asked to")
        driven.resume()
        await running

    check_once(tmp_path, 6)


@pytest.mark.parametrize("when", ["acknowledge", "begin", pytest.param("working", marks=SLOW)])
async def test_a_worker_whose_process_stops_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It breaks no connection and answers nothing: not even what is not a question."""
    monkeypatch.setattr("runner.cluster.serving.BEGIN_TIMEOUT_S", 0.5)
    monkeypatch.setattr(pump, "SILENCE_S", 0.6)
    monkeypatch.setattr(pump, "ASK_AFTER_SILENCE_S", 0.4)
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.05))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 12) as driven:
        if when == "begin":
            fleet.links[0].is_frozen = True
        running = asyncio.create_task(driven.run(attempts(samples(12), 1, done=set())))
        if when != "begin":
            await until(lambda: driven.statistics().n_turns > 0)
            link = fleet.links[0]
            if when == "acknowledge":
                freeze_at(link, "acknowledge")
            else:
                link.is_frozen = True
        await running

    check_once(tmp_path, 12)
    assert fleet.links[0].is_dead
    assert events(tmp_path, "worker_lost")


def freeze_at(link: LocalLink, method: str) -> None:
    call = link.call

    async def freezing(name: str, *arguments: Any) -> Any:
        link.is_frozen = link.is_frozen or name == method
        return await call(name, *arguments)

    link.call = freezing  # type: ignore[method-assign]


async def test_an_attempt_that_ended_without_a_line_runs_again(tmp_path: Path) -> None:
    """On the same worker, if there is no other."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.1))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 3, concurrency=1) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(3), 1, done=set())))
        await until(lambda: driven.statistics().n_turns > 0)
        worker = fleet.links[0].worker

        async def cannot(line: bytes) -> None:
            raise DiskFull("no space")

        worker._journal.append_failure = cannot  # type: ignore[method-assign]
        worker.cancel("s0")  # by itself: nobody asked for it
        await running

    check_once(tmp_path, 3)


@pytest.mark.parametrize("broken", [DiskFull("no space"), OSError(errno.EIO, "broken")])
async def test_a_node_that_cannot_go_on_leaves_its_work_to_others(tmp_path: Path, broken: Exception) -> None:
    """Its disk is full: what runs there is cancelled, and runs elsewhere in the same run."""
    pools = iter([Pool(broken=broken), *(Pool(cell_s=0.02) for _ in range(9))])
    fleet = LocalFleet(2, lambda setup: next(pools))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 12) as driven:
        await driven.run(attempts(samples(12), 1, done=set()))
        assert driven.statistics().n_cancelled == 0

    check_once(tmp_path, 12)
    assert [event["worker"][-2:] for event in events(tmp_path, "worker_gave_up")] == ["-1"]


async def test_what_a_node_that_gives_up_has_to_cancel_runs_elsewhere(tmp_path: Path) -> None:
    """In the same run: nobody asked for it to be cancelled. It goes on behind the recorded turns."""
    slow = Pool(cell_s=0.4)
    pools = iter([slow, Pool()])
    fleet = LocalFleet(2, lambda setup: next(pools))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 8, concurrency=4) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(8, 4), 1, done=set())))
        (worker,) = [link.worker for link in fleet.links if link.worker._pool is slow]
        await until(lambda: worker._running is not None)
        await until(lambda: len(with_turns(tmp_path) & worker._scheduler._running.keys()) == 2)
        worker._journal.trouble = DiskFull("no space")
        await running
        assert driven.statistics().n_cancelled == 0

    check_once(tmp_path, 8)
    assert [row["stop_reason"] for row in read_failures(tmp_path)] == ["cancelled"] * 2
    assert sum(row["n_resumed_turns"] for row in read_trajectories(tmp_path)) >= 2


@pytest.mark.parametrize("n_times", [1, 9])
async def test_an_attempt_whose_files_do_not_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_times: int
) -> None:
    """It runs again; where that does not help it is given up, and no worker with it."""
    files_of, left = remote_journal._files_of, [n_times]

    def one_too_many(folder: Path, prefix: str) -> list[tuple[str, int]]:
        left[0] -= prefix == "artifacts/s1/1"
        more = [(f"{prefix}/vanished", 1)] if prefix == "artifacts/s1/1" and left[0] >= 0 else []
        return files_of(folder, prefix) + more

    monkeypatch.setattr(remote_journal, "_files_of", one_too_many)
    fleet = LocalFleet(2, lambda setup: Pool())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 6) as driven:
        await driven.run(attempts(samples(6), 1, done=set()))
        assert driven.statistics().n_failed == (n_times > 1)

    done = {row["attempt"] for row in read_trajectories(tmp_path)}
    assert len(done) == 6 - (n_times > 1)
    assert ("s1@1" in done) == (n_times == 1)
    assert not events(tmp_path, "worker_gave_up")
    assert ["vanished" in row["error"] for row in read_failures(tmp_path)] == [True] * (n_times > 1)


async def test_a_sample_that_workers_break_on_does_not_break_them_all(tmp_path: Path) -> None:
    """Its files cannot be taken out anywhere, so that each worker takes its own disk for broken."""

    class Breaking(Pool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            self._broken = OSError(errno.EIO, "broken") if spec.setup == "break" else None
            async with super().acquire(spec) as sandbox:
                yield sandbox

        async def _collect(self, globs: Any, *, into: Path | None = None) -> Any:
            raise OSError(errno.EIO, "broken")

    rows: list[Sample] = list(samples(8))
    rows[1] = replace(rows[1], setup="break")
    fleet = LocalFleet(4, lambda setup: Breaking())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 8) as driven:
        await driven.run(attempts(Samples.of(rows), 1, done=set()))

    assert {row["attempt"] for row in read_trajectories(tmp_path)} == {f"s{k}@1" for k in range(8) if k != 1}
    failed = [row for row in read_failures(tmp_path) if row["stop_reason"] != "cancelled"]
    assert [(row["attempt"], "3 times without a line" in row["error"]) for row in failed] == [("s1@1", True)]


async def test_a_node_that_cannot_put_turns_down_leaves_its_work_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed attempts have turns, which a full disk has no space for: that is no reason to end the run."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.1))
    async with cluster_run(tmp_path, fleet, 6, grace_s=0.0) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(6, 6), 1, done=set())))
        await until(lambda: driven.statistics().n_turns > 8)
        driven.drain()
        await running
    take, n_tries = RemoteJournal.take, Counter[RemoteJournal]()

    def take_or_not(self: RemoteJournal, assignment: Any) -> None:
        n_tries[self] += 1
        if self is next(iter(n_tries)):
            raise OSError(errno.ENOSPC, "No space left on device")
        take(self, assignment)

    monkeypatch.setattr(RemoteJournal, "take", take_or_not)
    fleet = LocalFleet(2, lambda setup: Pool())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 6) as driven:
        await driven.run(attempts(samples(6, 6), 1, done=set()))

    check_once(tmp_path, 6)


@pytest.mark.parametrize("method", ["begin", pytest.param("open", marks=SLOW)])
async def test_a_node_that_lacks_something_does_not_end_the_others_work(tmp_path: Path, method: str) -> None:
    """Such as a package: an error that no one has thought of, on a node that joins a run."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.1))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 8, concurrency=2) as driven:
        launch = fleet.launch

        async def launch_broken(node: str) -> LocalLink:
            link = await launch(node)

            async def fail(*arguments: Any) -> None:
                raise RuntimeError("No module named 'uvloop'")

            setattr(link.worker, method, fail)
            return link

        fleet.launch = launch_broken  # type: ignore[method-assign]
        running = asyncio.create_task(driven.run(attempts(samples(8), 1, done=set())))
        await until(lambda: driven.statistics().n_turns > 0)
        fleet.names.append("n2")
        await running
        assert len(fleet.links) > 1

    check_once(tmp_path, 8)


async def test_a_worker_that_begins_when_all_is_done_ends_as_well(tmp_path: Path) -> None:
    """The run does not wait for it for ever."""
    fleet = LocalFleet(1, lambda setup: Pool(cell_s=0.02))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 12, concurrency=2) as driven:
        launch = fleet.launch

        async def launch_late(node: str) -> LocalLink:
            link = await launch(node)
            begin = link.worker.begin

            async def begin_late(terms: Terms) -> bool:
                await until(lambda: "finish" in fleet.links[0].heard)
                return await begin(terms)

            link.worker.begin = begin_late  # type: ignore[method-assign]
            return link

        fleet.launch = launch_late  # type: ignore[method-assign]
        fleet.names.append("n2")
        await driven.run(attempts(samples(12), 1, done=set()))
        assert "begin" in fleet.links[1].heard

    check_once(tmp_path, 12)


async def test_a_node_that_holds_code_otherwise_is_left_out() -> None:
    """What a trajectory is does not depend on its node; the message says what differs."""
    tiers = iter(["namespace", "process", "namespace"])
    fleet = LocalFleet(1, lambda setup: Held(next(tiers)))
    crew = Crew(fleet, setup())
    try:
        await crew.open()
        fleet.names.append("n2")
        assert await crew.hire() == []
        says = r"code with tier process, the nodes before it with namespace: .*set sandbox\.tier"
        assert re.search(says, str(crew.last_error))
        assert [member.node for member in await crew.hire()] == ["n2"]
    finally:
        await crew.close()
        await fleet.close()


class Held(FakePool):
    """Of a tier."""

    def __init__(self, tier: str) -> None:
        super().__init__()
        self._tier = tier

    def capabilities(self) -> dict[str, Any]:
        return {**super().capabilities(), "tier": self._tier}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW)])
async def test_a_run_that_is_broken_off_anywhere_is_resumed(tmp_path: Path, seed: int) -> None:
    """At any of its waits: what has a line stays, the rest runs again, with all files."""
    chance = random.Random(seed)
    done: set[str] = set()
    for number in range(4):
        fleet = LocalFleet(2, lambda setup: WithFiles(cell_s=0.02))
        async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 16) as driven:
            running = asyncio.create_task(driven.run(attempts(samples(16), 1, done)))
            await asyncio.wait([running], timeout=None if number == 3 else 0.1 + chance.random() * 0.3)
            running.cancel()
            await asyncio.wait([running])
        done = {row["attempt"] for row in read_trajectories(tmp_path)}

    check_records(tmp_path, {f"s{n}@1" for n in range(16)})


@pytest.mark.parametrize("begins_on", ["a cluster", "one machine"])
async def test_a_run_goes_on_elsewhere_than_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins_on: str
) -> None:
    """On a cluster, begun without one, and the reverse; behind the recorded turns, with their pictures."""
    monkeypatch.setattr("runner.cluster.worker.make_scratch", far_away)

    async def on_a_cluster(n: int, done: set[str], cell_s: float) -> None:
        fleet = LocalFleet(2, lambda setup: WithFiles(cell_s))
        async with cluster_run(tmp_path, fleet, n, grace_s=0.0) as driven:
            await run_or_drain(driven, attempts(samples(8), 1, done), drains=not done)

    async def on_one_machine(n: int, done: set[str], cell_s: float) -> None:
        settings = rollout_settings(
            ScriptedClient("oracle", Fenced(None)), WithFiles(cell_s), globs=("output/**",)
        )
        with Journal(tmp_path) as journal:
            driven = scheduler(settings, journal, n)
            await run_or_drain(driven, attempts(samples(8), 1, done), drains=not done)

    async def run_or_drain(driven: Any, todo: Any, *, drains: bool) -> None:
        running = asyncio.create_task(driven.run(todo))
        if drains:
            # The line of one attempt may be on its way while its turns are still there.
            await until(lambda: any(read_trajectories(tmp_path)) and len(with_turns(tmp_path)) >= 3)
            driven.drain()
        await running

    ways = [on_a_cluster, on_one_machine]
    first, second = ways if begins_on == "a cluster" else reversed(ways)
    async with asyncio.timeout(30):
        await first(8, set(), 0.1)
        done = {row["attempt"] for row in read_trajectories(tmp_path)}
        assert 0 < len(done) < 8
        await second(8 - len(done), done, 0.01)

    check_records(tmp_path, {f"s{n}@1" for n in range(8)})
    assert sum(row["n_resumed_turns"] for row in read_trajectories(tmp_path)) > 0


async def test_a_worker_that_begins_hears_of_engines_that_came_meanwhile(tmp_path: Path) -> None:
    fleet = LocalFleet(1, lambda setup: Pool())
    tables: list[tuple[EngineEndpoint, ...]] = []
    table = (EngineEndpoint("replica-0", "http://127.0.0.1:1/v1", 2, "m", 4096, "ready"),)
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 2) as driven:
        link = fleet.links[0]
        link.worker.set_endpoints = tables.append  # type: ignore[assignment, method-assign]
        begin = link.worker.begin

        async def slowly(terms: Any) -> bool:
            has_begun = await begin(terms)
            driven.set_endpoints(table)
            return has_begun

        link.worker.begin = slowly  # type: ignore[method-assign]
        await driven.run(attempts(samples(2), 1, done=set()))

    assert tables[-1] == table


async def test_folders_of_workers_from_before_are_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's file system keeps what a killed process has open; a lost worker's folder goes at once."""
    for number in (1, 2):
        (tmp_path / run.STAGING / f"{socket.gethostname()}-{number}").mkdir(parents=True)
    rmtree = shutil.rmtree

    def remove_others(path: Path, **options: Any) -> None:
        if path.name != run.STAGING:
            rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_others)
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.05))
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 8) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(8), 1, done=set())))
        await until(lambda: driven.statistics().n_turns > 0)
        assert len(list((tmp_path / run.STAGING).iterdir())) == 4
        fleet.lose("n1")
        await until(lambda: events(tmp_path, "worker_lost") != [])
        await running

    check_once(tmp_path, 8)
    assert len(list((tmp_path / run.STAGING).iterdir())) == 2


async def test_workers_are_closed_in_good_order(tmp_path: Path) -> None:
    """So that their folders and their spans are not left behind: nothing of theirs is killed."""
    fleet = LocalFleet(2, lambda setup: Pool())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 4) as driven:
        await driven.run(attempts(samples(4), 1, done=set()))

    assert ["close" in link.heard for link in fleet.links] == [True, True]


async def test_no_more_trajectories_than_asked_for_on_more_workers(tmp_path: Path) -> None:
    most = 0

    class Counting(Pool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            nonlocal most
            n_held.append(0)
            most = max(most, len(n_held))
            try:
                async with super().acquire(spec) as sandbox:
                    yield sandbox
            finally:
                n_held.pop()

    n_held: list[int] = []
    fleet = LocalFleet(3, lambda setup: Counting())
    async with asyncio.timeout(30), cluster_run(tmp_path, fleet, 6, concurrency=1) as driven:
        await driven.run(attempts(samples(6), 1, done=set()))

    check_once(tmp_path, 6)
    assert most == 1
