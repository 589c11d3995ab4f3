"""A run on several workers, in this process: every attempt once, with its files, whatever is lost."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench_data import Sample, SampleFile, Samples
from runner.cluster import pump, run
from runner.cluster.crew import Crew
from runner.cluster.messages import Setup
from runner.cluster.run import ClusterRun, ClusterSettings
from runner.cluster.scratch import Scratch, make_scratch
from runner.config import RunConfig, RunLimits
from runner.errors import ClusterError
from runner.journal import Journal, read_events, read_failures, read_inflight, read_trajectories
from runner.plan import attempts
from runner.protocols import Fenced
from runner.records import Trajectory
from sandbox_pool import FakePool, Observation, Status, UnsupportedHost
from sandbox_pool.fake import FakeSandbox
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from sandbox_pool.observation import Display
from tests.runner.cluster.fleet import LocalFleet
from tests.runner.factories import IDENTITY, sample
from tests.stub_server import StubServer

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # both loops would take twice as long

PICTURE = b"\x89PNG" + bytes(2000)
OUTPUT = bytes(range(256)) * 4_500
"""More than one part."""


N_CHANNELS = 4
"""What a worker is called for at once: attempts, orders, attempts to give back, what the driver has."""


class Pool(FakePool):
    """Cells take a moment and show a picture; each sandbox holds a file, and the sample's inputs."""

    def __init__(self, cell_s: float = 0.0, *, held_until: asyncio.Event | None = None) -> None:
        async def reply(code: str) -> Observation:
            if held_until is not None:
                await held_until.wait()
            await asyncio.sleep(random.random() * 2 * cell_s)
            return Observation(status=Status.OK, outputs=[Display(data={"image/png": PICTURE})])

        super().__init__(lambda number: reply)

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
        async with super().acquire(spec) as sandbox:
            sandbox.files["output/big.bin"] = OUTPUT
            yield sandbox


def setup(**changes: Any) -> Setup:
    config = RunConfig.model_validate({"model": "oracle"} | changes)
    return Setup(config, Fenced(None), "", benchmark_digest="another", trusted_code=True)


def samples(n: int, n_cells: int = 3) -> Samples:
    files = (SampleFile("in.txt", partial(bytes, 10)),)
    cells = [f"cell({number})" for number in range(n_cells)]
    return Samples.of([replace(sample(f"s{number}", *cells), files=files) for number in range(n)])


@asynccontextmanager
async def cluster_run(
    run_dir: Path,
    fleet: LocalFleet,
    n: int,
    *,
    on_finished: Any = None,
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[ClusterRun]:
    """Yield a run of n attempts; what it is given is up to the caller."""
    crew = Crew(fleet, setup(**(config or {})))
    chosen = {"concurrency": 6, "grace_s": 0.2} | settings
    try:
        await crew.open()
        with Journal(run_dir) as journal:
            yield ClusterRun(
                crew, IDENTITY, journal, ClusterSettings(**chosen), n_total=n, on_finished=on_finished
            )
    finally:
        await crew.close()
        await fleet.close()


def check_records(run_dir: Path, names: set[str]) -> None:
    """Every attempt has one line, and every file that a line names is whole."""
    rows = list(read_trajectories(run_dir))
    assert Counter(row["attempt"] for row in rows) == dict.fromkeys(names, 1)
    for row in rows:
        assert {Path(artifact["path"]).name for artifact in row["artifacts"]} == {
            "big.bin",
            *(f"turn{number:03d}-1.png" for number in (1, 2, 3)),
        }
        for artifact in row["artifacts"]:
            data = (run_dir / artifact["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["bytes"], artifact["sha256"])
    assert not {found.attempt for found in read_inflight(run_dir)} & names
    assert not (run_dir / run.STAGING).exists()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what is looked at is on disk, or a number
        await asyncio.sleep(0.01)


def far_away(staging: Path, nonce: str) -> Scratch:
    return make_scratch(staging, f"{nonce}-unseen")


@pytest.fixture(name="fast", autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HIRE_INTERVAL_S", 0.05)
    monkeypatch.setattr(run, "KEEP_INTERVAL_S", 0.02)
    monkeypatch.setattr(run, "DRAIN_SLACK_S", 1.0)
    monkeypatch.setattr(pump, "RETRY_S", 0.02)
    monkeypatch.setattr(pump, "ASK_AFTER_ERROR_S", 0.3)
    monkeypatch.setattr("runner.cluster.worker.PROGRESS_INTERVAL_S", 0.05)


@pytest.mark.parametrize("sees_run_dir", [True, False])
async def test_every_attempt_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees_run_dir: bool
) -> None:
    """On three workers, with the run directory in sight or not; calls of a worker never pile up."""
    if not sees_run_dir:
        monkeypatch.setattr("runner.cluster.worker.make_scratch", far_away)
    fleet = LocalFleet(3, lambda setup: Pool())

    async with cluster_run(tmp_path, fleet, 24) as driven:
        await driven.run(attempts(samples(12), 2, done=set()))
        statistics = driven.statistics()

    check_records(tmp_path, {f"s{n}@{epoch}" for n in range(12) for epoch in (1, 2)})
    assert (statistics.n_finished, statistics.n_failed, statistics.n_in_flight) == (24, 0, 0)
    assert statistics.n_turns == 24 * 4
    assert max(link.most_calls for link in fleet.links) <= N_CHANNELS
    joined = [event for event in read_events(tmp_path) if event["event"] == "worker_joined"]
    assert [event["sees_run_dir"] for event in joined] == [sees_run_dir] * 3


@pytest.mark.parametrize("sees_run_dir", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_lost_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, sees_run_dir: bool
) -> None:
    """Nodes are lost at any moment, others join: every attempt once all the same, its turns gone on from."""
    if not sees_run_dir:
        monkeypatch.setattr("runner.cluster.worker.make_scratch", far_away)
    chance = random.Random(seed)
    fleet = LocalFleet(3, lambda setup: Pool(cell_s=0.02))

    async def lose_some() -> None:
        for number in range(2):
            await asyncio.sleep(chance.random() * 0.4)
            fleet.lose(chance.choice(fleet.names))
            fleet.names.append(f"new{number}")

    async with cluster_run(tmp_path, fleet, 30) as driven:
        losing = asyncio.create_task(lose_some())
        await driven.run(attempts(samples(30), 1, done=set()))
        losing.cancel()
        statistics = driven.statistics()

    check_records(tmp_path, {f"s{n}@1" for n in range(30)})
    assert statistics.n_finished == 30
    assert statistics.n_failed == 0


async def test_recorded_turns_survive_their_node(tmp_path: Path) -> None:
    """What a lost worker did is not done again, but executed again; and the loss is in the events."""
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.15))

    async with cluster_run(tmp_path, fleet, 4, concurrency=4) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(4, 12), 1, done=set())))
        await until(lambda: sum(len(found.turns) for found in read_inflight(tmp_path)) >= 8)
        fleet.lose("n1")
        await running

    assert sum(row["n_resumed_turns"] for row in read_trajectories(tmp_path)) > 0
    lost = [event for event in read_events(tmp_path) if event["event"] == "worker_lost"]
    assert [event["n_requeued"] for event in lost] == [2]


async def test_a_short_silence_costs_nothing(tmp_path: Path) -> None:
    """A connection that breaks and comes back loses no message, and no attempt runs twice."""
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.02))

    async with cluster_run(tmp_path, fleet, 20) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(20), 1, done=set())))
        for _ in range(3):
            await asyncio.sleep(0.08)
            for link in fleet.links:
                link.cut()
            await asyncio.sleep(0.1)
            for link in fleet.links:
                link.mend()
        await running

    check_records(tmp_path, {f"s{n}@1" for n in range(20)})
    assert [event for event in read_events(tmp_path) if event["event"] == "worker_lost"] == []


async def test_a_worker_that_stays_silent_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.05))

    async with cluster_run(tmp_path, fleet, 12) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(12), 1, done=set())))
        await until(lambda: driven.statistics().n_in_flight > 0)
        began_at = time.monotonic()
        fleet.links[0].cut()
        await until(lambda: "worker_lost" in [event["event"] for event in read_events(tmp_path)])
        assert time.monotonic() - began_at < 10
        await running

    check_records(tmp_path, {f"s{n}@1" for n in range(12)})


async def test_a_poisonous_sample_does_not_end_the_run(tmp_path: Path) -> None:
    """One whose code takes its worker along is given up; all others finish."""
    fleet: LocalFleet

    class DeadlyPool(Pool):
        @asynccontextmanager
        async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
            if spec.setup == "die":
                node = next(link for link in fleet.links if link.worker is self.worker)
                asyncio.get_running_loop().call_later(0.05, node.kill)
                await asyncio.sleep(10)
            async with super().acquire(spec) as sandbox:
                yield sandbox

    fleet = LocalFleet(2)
    launch = fleet.launch

    async def launch_and_name(node: str) -> Any:
        link = await launch(node)
        link.worker._open_pool = lambda setup: _named(DeadlyPool(cell_s=0.01), link.worker)
        return link

    fleet.launch = launch_and_name  # type: ignore[method-assign]
    rows: list[Sample] = list(samples(8))
    rows[3] = replace(rows[3], setup="die")

    async with cluster_run(tmp_path, fleet, 8) as driven:
        await driven.run(attempts(Samples.of(rows), 1, done=set()))
        statistics = driven.statistics()

    check_records(tmp_path, {f"s{n}@1" for n in range(8) if n != 3})
    assert statistics.n_failed == 1
    assert [(row["attempt"], row["stop_reason"]) for row in read_failures(tmp_path)] == [
        ("s3@1", "sandbox_error")
    ]


def _named(pool: Any, worker: Any) -> Any:
    pool.worker = worker
    return pool


async def test_drain_and_resume(tmp_path: Path) -> None:
    """A drained run leaves what it did not finish; the next one goes on behind the recorded turns."""
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.1))
    async with cluster_run(tmp_path, fleet, 12, grace_s=0.0) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(12, 3), 1, done=set())))
        await until(lambda: len(list(read_inflight(tmp_path))) >= 3)
        driven.drain("asked to")
        await running
        first = driven.statistics()
    assert first.draining == "asked to"
    assert first.n_cancelled > 0
    done = {row["attempt"] for row in read_trajectories(tmp_path)}
    assert len(done) == first.n_finished < 12

    fleet = LocalFleet(2, lambda setup: Pool())
    async with cluster_run(tmp_path, fleet, 12 - len(done)) as driven:
        await driven.run(attempts(samples(12, 3), 1, done))

    check_records(tmp_path, {f"s{n}@1" for n in range(12)})
    assert sum(row["n_resumed_turns"] for row in read_trajectories(tmp_path)) > 0


async def test_finished_trajectories_are_told_as_they_were(tmp_path: Path) -> None:
    told: list[Trajectory] = []

    async def on_finished(trajectory: Trajectory) -> None:
        told.append(trajectory)

    fleet = LocalFleet(2, lambda setup: Pool())
    async with cluster_run(tmp_path, fleet, 5, on_finished=on_finished) as driven:
        await driven.run(attempts(samples(5), 1, done=set()))

    assert {one.attempt for one in told} == {f"s{n}@1" for n in range(5)}
    assert all(one.turns[0].action == "cell(0)" for one in told)
    assert all(one.artifacts[0].bytes for one in told)


async def test_control(tmp_path: Path) -> None:
    """Pause, resume, another concurrency and cancelling reach the workers."""
    let_go = asyncio.Event()
    fleet = LocalFleet(2, lambda setup: Pool(held_until=let_go))
    async with cluster_run(tmp_path, fleet, 8, concurrency=4) as driven:
        running = asyncio.create_task(driven.run(attempts(samples(8), 1, done=set())))
        await until(lambda: driven.statistics().n_in_flight == 4)
        assert driven.cancel("s0") == ["s0@1"]
        assert driven.set_concurrency(2) == 2
        driven.pause("asked to")
        await until(lambda: all("pause" in link.heard for link in fleet.links))
        let_go.set()
        await until(lambda: driven.statistics().n_in_flight == 0)
        assert driven.statistics().paused == "asked to"
        assert driven.statistics().concurrency == 2
        driven.resume()
        await running
        assert driven.statistics().n_cancelled == 1

    check_records(tmp_path, {f"s{n}@1" for n in range(1, 8)})


async def test_calls_are_limited_for_all_workers_together(tmp_path: Path) -> None:
    """Those that a lost worker may have had in flight are the others' to have."""
    limits = {"mode": "fixed", "max_calls": 3}
    async with StubServer(latency_s=0.05) as server:
        config = {"model": f"openai:{server.url}", "admission": limits, "concurrency": 8}
        fleet = LocalFleet(2)
        settings = {"config": config, "concurrency": 8, "max_calls": 3}

        def calls() -> list[int]:
            return [endpoint.max_calls for endpoint in driven.statistics().endpoints]

        async with cluster_run(tmp_path, fleet, 100, **settings) as driven:
            running = asyncio.create_task(driven.run(attempts(samples(100), 1, done=set())))
            await until(lambda: len(fleet.links) == 2 and driven.statistics().n_in_flight == 8)
            assert calls() == [3]
            fleet.lose("n1")
            await until(lambda: "worker_lost" in [event["event"] for event in read_events(tmp_path)])
            await until(lambda: driven.statistics().n_in_flight == 8 and calls() == [3])
            driven.drain()
            driven.drain()
            await running


async def test_run_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    fleet = LocalFleet(2, lambda setup: Pool(cell_s=0.1))
    limits = RunLimits(wall_s=0.3)
    async with cluster_run(tmp_path, fleet, 40, run_limits=limits) as driven:
        await driven.run(attempts(samples(40), 1, done=set()))
        assert "run_limits.wall_s" in str(driven.statistics().draining)


async def test_no_node_is_an_error_at_once() -> None:
    with pytest.raises(ClusterError, match="no node of the cluster"):
        await Crew(LocalFleet(0), setup()).open()


async def test_a_node_that_cannot_hold_code_is_left_out(tmp_path: Path) -> None:
    class Broken(Pool):
        async def __aenter__(self) -> FakePool:
            raise UnsupportedHost("no namespaces here")

    pools = iter([Broken(), Pool(), Broken(), Broken(), Broken()])
    fleet = LocalFleet(2, lambda setup: next(pools))
    async with cluster_run(tmp_path, fleet, 3) as driven:
        await driven.run(attempts(samples(3), 1, done=set()))
    check_records(tmp_path, {"s0@1", "s1@1", "s2@1"})

    with pytest.raises(UnsupportedHost, match="no namespaces"):
        await Crew(LocalFleet(2, lambda setup: Broken()), setup()).open()
