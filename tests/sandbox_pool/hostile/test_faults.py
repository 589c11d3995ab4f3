"""What goes wrong on our side: killed or stuck processes, exhausted descriptors, callers that give up."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox_pool import Sandbox, SandboxClosed, SandboxError, SandboxPool, Status
from tests.processes import ROOT
from tests.sandbox_pool.hostile.arena import answers, nothing_left
from tests.sandbox_pool.hostile.bait import Bait
from tests.sandbox_pool.hostile.setups import Setup, why_not
from tests.sandbox_pool.hostile.world import Habitat, Process, Seen, World, below, groups_of, processes

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
TIERS = ("namespace", "landlock", "process")
_GONE_S = 1.0
"""Within this, everything is gone after a manager or a zygote was killed."""


@pytest.fixture(name="setup", params=TIERS)
def _setup(request: pytest.FixtureRequest) -> Setup:
    """A kind of sandbox that this machine has."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    return Setup(request.param, "lean")


@pytest_asyncio.fixture(name="pool")
async def _pool(setup: Setup, bait: Bait) -> AsyncIterator[SandboxPool]:
    """A pool that has started a sandbox; when it is closed, nothing is left."""
    before = World.now(bait.scratch)
    config = setup.config(bait.scratch).model_copy(update={"preload": (), "zygote_timeout_s": 0.5})
    async with SandboxPool(config) as pool:
        async with pool.acquire() as first:
            await answers(first)
            groups = groups_of(below(os.getpid()).values())
        yield pool
    left = World.now(bait.scratch, groups).left_since(before)
    left.pop("descriptors", None)
    assert not left, left


class Family:
    """The processes of one leased sandbox and of what made it, as found from outside."""

    def __init__(self, known: dict[Process, Seen]) -> None:
        now = below(os.getpid())
        self.own = [seen for key, seen in now.items() if key not in known]
        pids = {seen.pid for seen in self.own}
        self.init = next(seen for seen in self.own if seen.parent not in pids)
        self.zygote = next(seen for seen in now.values() if seen.pid == self.init.parent)
        self.kernel = next(seen for seen in self.own if seen.parent == self.init.pid)
        above = {seen.pid: seen for seen in now.values()}
        self.keeper = self.zygote
        while self.keeper.parent in above:
            self.keeper = above[self.keeper.parent]
        self.habitat = Habitat.of(self.own, [s for s in processes() if s.pid not in pids])

    def left(self) -> list[Seen]:
        """Return which of the sandbox's processes are alive."""
        keys = {seen.key for seen in self.own}
        return [seen for seen in (*processes(), *self.habitat.inhabitants()) if seen.key in keys]


async def gone(family: Family) -> float:
    """Wait until no process of the sandbox is left, and return after how long; fail when it takes too long."""
    began_at = time.monotonic()
    while left := family.left():
        assert time.monotonic() - began_at < _GONE_S, left
        await asyncio.sleep(0.005)
    return time.monotonic() - began_at


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["kill", "segv"])
def test_killed_manager(setup: Setup, bait: Bait, number: int, after_s: float) -> None:
    """Within a second of the manager's death no process, folder, mount or cgroup of its sandboxes is there."""
    before = World.now(bait.scratch)
    command = [sys.executable, "-m", "tests.sandbox_pool.hostile.manager", setup.tier, str(bait.scratch)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as manager:
        assert manager.stdout is not None
        assert manager.stderr is not None
        assert manager.stdout.readline() == "ready\n", manager.stderr.read()
        time.sleep(after_s)  # so that it dies in another state each time
        others = [seen for seen in processes() if seen.key not in below(manager.pid)]
        habitat = Habitat.of(list(below(manager.pid).values()), others)
        ours = set(below(manager.pid))
        assert len(ours) >= 6
        groups = groups_of(below(manager.pid).values())
        assert _left(before, bait.scratch, groups, ours, habitat).keys() >= {"files", "processes"}
        manager.send_signal(number)
        manager.wait()
        deadline = time.monotonic() + _GONE_S
        while (left := _left(before, bait.scratch, groups, ours, habitat)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, left


def _left(
    before: World, scratch: Path, groups: frozenset[str], ours: set[Process], habitat: Habitat
) -> dict[str, list[str]]:
    left = World.now(scratch, groups).left_since(before)
    left.pop("descriptors", None)  # this process's own, to the manager
    left.pop("processes", None)
    alive = [s for s in processes() if s.key in ours] + habitat.inhabitants()
    return left | ({"processes": [f"{s.name} {s.key}" for s in alive]} if alive else {})


@pytest.mark.parametrize("who", ["zygote", "keeper"])
async def test_killed_zygote(pool: SandboxPool, who: str) -> None:
    """Sandboxes of a killed zygote are gone within a second, which is our fault; the next acquire works."""
    known = below(os.getpid())
    async with pool.acquire() as resting, pool.acquire() as busy:
        family = Family(known)
        await answers(resting)
        async with asyncio.TaskGroup() as group:
            cell = group.create_task(busy.execute("import time; time.sleep(50)", timeout_s=40))
            await asyncio.sleep(0.1)
            os.kill(getattr(family, who).pid, signal.SIGKILL)
            await gone(family)
        assert cell.result().status is Status.SANDBOX_FAULT
        assert (await resting.execute("1")).status is Status.SANDBOX_FAULT
        async with pool.acquire() as fresh:
            await answers(fresh)


async def test_zygote_that_dies_while_nobody_looks(pool: SandboxPool) -> None:
    """A zygote that was killed between two leases is replaced without anybody hearing of it."""
    known = below(os.getpid())
    async with pool.acquire():
        family = Family(known)
    os.kill(family.zygote.pid, signal.SIGKILL)
    async with pool.acquire() as fresh:
        await answers(fresh)


async def test_stuck_zygote(pool: SandboxPool) -> None:
    """A zygote that does not answer is replaced; what waited for it is served, and it does not stay."""
    known = below(os.getpid())
    async with pool.acquire():
        family = Family(known)
    os.kill(family.zygote.pid, signal.SIGSTOP)
    began_at = time.monotonic()
    async with pool.acquire() as fresh:
        await answers(fresh)
    assert time.monotonic() - began_at < 10
    while family.zygote.key in {seen.key for seen in processes()}:
        assert time.monotonic() - began_at < 15
        await asyncio.sleep(0.01)


async def test_killed_init(pool: SandboxPool) -> None:
    """A sandbox whose init is killed from outside is gone as a whole, and that is our fault."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        family = Family(known)
        async with asyncio.TaskGroup() as group:
            cell = group.create_task(sandbox.execute("import time; time.sleep(50)", timeout_s=40))
            await asyncio.sleep(0.1)
            os.kill(family.init.pid, signal.SIGKILL)
            await gone(family)
        assert cell.result().status is Status.SANDBOX_FAULT
    async with pool.acquire() as fresh:
        await answers(fresh)


async def test_kernel_killed_before_its_first_cell(pool: SandboxPool) -> None:
    """A kernel that somebody killed before it was given code is our fault, not the code's."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        os.kill(Family(known).kernel.pid, signal.SIGKILL)
        seen = await sandbox.execute("1")
    assert (seen.status, seen.kernel_alive) == (Status.SANDBOX_FAULT, False)


async def test_signals_from_outside(pool: SandboxPool) -> None:
    """SIGTERM and SIGINT to every process below the runner change nothing: they end by their lifeline."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        await sandbox.execute("kept = 41")
        family = Family(known)
        async with asyncio.TaskGroup() as group:
            code = "import time\nfor _ in range(50): time.sleep(0.01)\nprint('through')"
            cell = group.create_task(sandbox.execute(code, timeout_s=10))
            for number in (signal.SIGTERM, signal.SIGINT) * 3:
                await asyncio.sleep(0.05)
                for seen in below(os.getpid()).values():
                    os.kill(seen.pid, number)
        assert (cell.result().status, cell.result().stdout) == (Status.OK, "through\n")
        assert (await sandbox.execute("kept + 1")).result == "42"
        assert {seen.pid for seen in family.left()} == {seen.pid for seen in family.own}
    async with pool.acquire() as fresh:
        await answers(fresh)


@contextmanager
def descriptors_left(n: int) -> Iterator[None]:
    """Let this process open only so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(link.name) for link in list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("n", [0, 2, 5, 8, 11, 14])
async def test_out_of_descriptors(pool: SandboxPool, bait: Bait, n: int) -> None:
    """Whichever descriptor is the last: an error that says so, nothing left open, and the next acquire works."""
    before = World.now(bait.scratch)
    refusal = ""
    with descriptors_left(n):
        try:
            async with pool.acquire() as sandbox:
                await answers(sandbox)
        except SandboxError as error:
            refusal = str(error).lower()
    assert not refusal or "descriptor" in refusal or "open files" in refusal
    await nothing_left(before, bait.scratch, frozenset())
    async with pool.acquire() as fresh:
        await answers(fresh)


async def test_cancelled_anywhere(pool: SandboxPool, bait: Bait) -> None:
    """A caller that gives up while it waits, starts, executes or closes leaves nothing behind."""
    before = World.now(bait.scratch)
    random.seed(3)

    async def work() -> None:
        async with pool.acquire() as sandbox:
            await sandbox.execute("while True: pass", timeout_s=30)

    for _ in range(40):
        task = asyncio.create_task(work())
        await asyncio.sleep(random.random() * 0.08)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    while (now := pool.statistics()).n_starting or now.n_idle:
        async with pool.acquire():  # a start that nobody waits for any more is kept for the next
            pass
    assert (now.n_leased, now.n_closing, now.n_waiting) == (0, 0, 0)
    await nothing_left(before, bait.scratch, frozenset())
    async with pool.acquire() as fresh:
        await answers(fresh)


async def test_closed_by_many(pool: SandboxPool, bait: Bait) -> None:
    """Closing a sandbox from several tasks at once, one of them cancelled, closes it once."""
    before = World.now(bait.scratch)
    async with pool.acquire() as sandbox:
        closings = [asyncio.create_task(sandbox.close()) for _ in range(5)]
        await asyncio.sleep(0)
        closings[0].cancel()
        await asyncio.wait(closings)
        with pytest.raises(SandboxClosed):
            await sandbox.execute("1")
    await nothing_left(before, bait.scratch, frozenset())


async def test_killed_while_collected(pool: SandboxPool) -> None:
    """A zygote that dies while files are taken out costs at most those files, never more."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        family = Family(known)
        await sandbox.execute("for n in range(80): open(str(n), 'wb').write(bytes(50_000))")
        task = asyncio.create_task(sandbox.collect(["*"]))
        await asyncio.sleep(0)
        os.kill(family.zygote.pid, signal.SIGKILL)
        files = await task
        assert all(file.problem is None for file in files)
    async with pool.acquire() as fresh:
        await answers(fresh)


async def _fill(sandbox: Sandbox) -> None:
    await sandbox.execute("x = bytearray(1 << 20)")


async def test_everything_at_once(pool: SandboxPool, bait: Bait) -> None:
    """Many sandboxes that are killed, cancelled, stopped and closed at the same time leave nothing."""
    before = World.now(bait.scratch)
    random.seed(5)
    ends = (
        "import os; os._exit(1)",
        "while True: pass",
        "import os; os.kill(os.getpid(), 19)",
        "while True: print(1)",
    )

    async def work(number: int) -> None:
        async with pool.acquire() as sandbox:
            await _fill(sandbox)
            await sandbox.execute(ends[number % len(ends)], timeout_s=random.random())

    async with asyncio.TaskGroup() as group:
        for number in range(24):
            group.create_task(work(number))
    await nothing_left(before, bait.scratch, frozenset())
    async with pool.acquire() as fresh:
        await answers(fresh)
