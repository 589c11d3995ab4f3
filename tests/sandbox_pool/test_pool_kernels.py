from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from sandbox_pool import (
    KernelSandbox,
    PoolConfig,
    PoolTimeout,
    Sandbox,
    SandboxClosed,
    SandboxPool,
    SandboxSetupError,
    SandboxSpec,
    SandboxStartError,
    Status,
    UnsupportedHost,
)
from sandbox_pool.zygote import Zygote

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]


@pytest.fixture(name="scratch")
def _scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path that any uid may enter; empty again when the test has ended."""
    folder = Path("/tmp") / f"kft-{os.getpid()}-{os.urandom(3).hex()}"
    folder.mkdir(mode=0o755)
    return folder


def children() -> set[int]:
    """Return the processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def below(sandboxes: set[int]) -> list[psutil.Process]:
    """Return the processes of sandboxes: those below this one, less keepers and zygotes."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in sandboxes and len(process.parents()) > len(psutil.Process().parents()) + 2
    ]


async def answers(sandbox: Sandbox) -> bool:
    """Whether a cell runs."""
    return (await sandbox.execute("1")).result == "1"


async def test_nothing_is_left(scratch: Path) -> None:
    """After a pool has closed there is no process, no folder and no descriptor of it."""
    before = children()
    n_fds = psutil.Process().num_fds()
    config = PoolConfig(scratch=scratch, min_idle=1, max_sandboxes=3)
    async with SandboxPool(config) as pool, pool.acquire() as sandbox:
        assert below(before)
        deep = "import os\nfor _ in range(1500):\n  os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)"
        await sandbox.execute(deep)
        assert pool.statistics().n_leased == 1
    assert children() <= before
    assert list(scratch.iterdir()) == []
    scratch.rmdir()
    assert psutil.Process().num_fds() <= n_fds


async def test_pool_is_bounded_and_fifo() -> None:
    """Never more than max_sandboxes exist, and who waits is served in order, each by a fresh one."""
    served: list[int] = []

    async def work(number: int, pool: SandboxPool) -> None:
        async with pool.acquire() as sandbox:
            served.append(number)
            assert (await sandbox.execute("'x' in globals()")).result == "False"
            await sandbox.execute("x = 1")
            assert pool.statistics().n_leased <= 2

    async with SandboxPool(PoolConfig(max_sandboxes=2, max_idle=0)) as pool:
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(work(number, pool))
        now = pool.statistics()
    assert served == sorted(served)
    assert (now.n_started, now.n_closed, now.n_leased, now.n_waiting) == (5, 5, 0, 0)


async def test_acquire_times_out() -> None:
    """With no sandbox free in time acquire() raises PoolTimeout, which says how many are in use."""
    async with SandboxPool(PoolConfig(max_sandboxes=1, acquire_timeout_s=30)) as pool, pool.acquire():
        pool.config = pool.config.model_copy(update={"acquire_timeout_s": 0.01})
        with pytest.raises(PoolTimeout, match=r"1 are in use.*max_sandboxes"):
            async with pool.acquire():
                pass
        assert pool.statistics().n_waiting == 0


async def test_acquire_can_be_cancelled_anywhere() -> None:
    """Cancelled at any moment of a start, acquire() leaves no lease and the pool works on."""
    async with SandboxPool(PoolConfig(max_sandboxes=2)) as pool:

        async def work() -> None:
            async with pool.acquire() as sandbox:
                await sandbox.execute("1")

        for n_turns in (0, 1, 2, 5, 20, 100):
            task = asyncio.create_task(work())
            for _ in range(n_turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            now = pool.statistics()
            assert (now.n_leased, now.n_waiting) == (0, 0)
        async with pool.acquire() as sandbox:
            assert await answers(sandbox)
    assert pool.statistics().n_closed == pool.statistics().n_started


async def test_closing_a_pool_while_starting() -> None:
    """A pool that is left while kernels start takes them down, and tells who waits."""
    before = children()
    async with SandboxPool(PoolConfig(min_idle=2, max_sandboxes=2)) as pool:
        waiting = asyncio.create_task(pool.acquire().__aenter__())
        await asyncio.sleep(0)
    with pytest.raises(SandboxClosed):
        await waiting
    with pytest.raises(SandboxClosed):
        await pool.acquire().__aenter__()
    assert children() <= before


async def test_body_error_closes_the_sandbox() -> None:
    """An exception in the block is not hidden, and the sandbox is gone all the same."""
    before = children()
    async with SandboxPool(PoolConfig(max_idle=0)) as pool:

        async def work() -> None:
            async with pool.acquire():
                assert len(below(before)) == 2  # init and kernel
                raise KeyError

        with pytest.raises(KeyError):
            await work()
        assert below(before) == []


async def test_a_spec_prepares_the_sandbox() -> None:
    """The setup cell has run and the same seed gives the same numbers; a setup cell that fails is told."""
    drawn = []
    async with SandboxPool(PoolConfig(max_sandboxes=1)) as pool:
        for seed in (7, 7, 8):
            async with pool.acquire(SandboxSpec(seed=seed, setup="x = 41")) as sandbox:
                code = "import random, numpy; (x + 1, random.random(), numpy.random.rand())"
                drawn.append((await sandbox.execute(code)).result)
        assert (drawn[0] or "").startswith("(42, ")
        assert drawn[0] == drawn[1] != drawn[2]
        with pytest.raises(SandboxSetupError, match="nowhere"):
            await pool.acquire(SandboxSpec(setup="import nowhere")).__aenter__()
        assert pool.statistics().n_leased == 0


async def test_dead_idle_sandbox_is_replaced() -> None:
    """An idle kernel that dies is noticed and never handed out."""
    async with SandboxPool(PoolConfig(min_idle=1, max_sandboxes=2)) as pool:
        async with asyncio.timeout(30):
            while not pool.statistics().n_idle:  # noqa: ASYNC110 - the pool has no event for it
                await asyncio.sleep(0.01)
        killed = below(set())
        for process in killed:
            process.kill()
        await asyncio.to_thread(psutil.wait_procs, killed, 10)
        async with pool.acquire() as sandbox:
            assert await answers(sandbox)


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        ({"python": "/nowhere/python"}, UnsupportedHost, r"sandbox\.python"),
        ({"python": "/bin/false"}, UnsupportedHost, "is no Python"),
        ({"preload": ["no_such_module"]}, UnsupportedHost, "'no_such_module'.*preload"),
        ({"start_timeout_s": 0.001}, SandboxStartError, "start_timeout_s"),
    ],
)
async def test_failed_start_says_why(config: dict[str, object], error: type[Exception], match: str) -> None:
    """A kernel that does not come up is an error that names the setting or holds what it wrote."""
    with pytest.raises(error, match=match):
        async with SandboxPool(PoolConfig.model_validate(config)) as pool, pool.acquire():
            pass


async def test_unusable_scratch_is_unsupported(tmp_path: Path) -> None:
    """A scratch folder whose path leaves no room for sockets is refused when the pool opens."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(UnsupportedHost, match=r"longer than .* bytes"):
        async with SandboxPool(PoolConfig(scratch=long)):
            pass


async def test_uses_before_open_are_refused() -> None:
    """acquire() on a pool that was not opened says how to open it."""
    with pytest.raises(SandboxClosed, match="async with"):
        async with SandboxPool().acquire():
            pass


async def test_works_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pidfd (macOS) more kernels than the loop has threads still have their files written."""
    fork = Zygote.fork

    async def without_pidfd(zygote: Zygote, *args: object) -> None:
        pidfd = await fork(zygote, *args)  # type: ignore[arg-type]
        assert pidfd is not None
        os.close(pidfd)

    monkeypatch.setattr(Zygote, "fork", without_pidfd)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with SandboxPool(PoolConfig(max_sandboxes=3)) as pool, AsyncExitStack() as stack:
        async with asyncio.timeout(40):
            for _ in range(3):
                sandbox = await stack.enter_async_context(pool.acquire())
                await sandbox.put("a", b"1")
                assert (await sandbox.execute("open('a').read()")).result == "'1'"


async def test_a_full_machine_is_no_unsupported_host() -> None:
    """Being out of descriptors fails this start, so that it is tried again; it does not end a run."""
    async with SandboxPool() as pool:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 4, limit[1]))
        try:
            with pytest.raises(SandboxStartError, match="ulimit -n"):
                async with pool.acquire():
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        async with pool.acquire() as sandbox:
            assert await answers(sandbox)


OWNER = """
import asyncio, sys
from sandbox_pool import PoolConfig, SandboxPool

async def main():
    async with SandboxPool(PoolConfig(max_sandboxes=2)) as pool, pool.acquire() as a, pool.acquire() as b:
        for sandbox in (a, b):
            code = (
                "import os, subprocess\\n"
                "p = subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})"
            )
            await sandbox.execute(code)
        host = pool._stock._starter._host
        print(host.scratch, *(host.groups.folders if host.groups else ()), flush=True)
        await a.execute("while True: pass", timeout_s=100)

asyncio.run(main())
"""


def test_killed_owner_leaves_no_kernel() -> None:
    """Kill -9 of the process that owns a pool ends all that is below it within a second, and its folders and cgroups."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert owner.stdout is not None
    with owner.stdout:
        folders = [Path(word) for word in owner.stdout.readline().split()]
    assert all(folder.exists() for folder in folders)
    processes = psutil.Process(owner.pid).children(recursive=True)
    assert len(processes) == 2 + 2 * 3  # keeper and zygote; init, kernel and sleep
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    killed_at = time.monotonic()
    _, left = psutil.wait_procs(processes, timeout=5)
    assert left == []
    while any(folder.exists() for folder in folders) and time.monotonic() < killed_at + 5:
        time.sleep(0.01)
    assert [folder for folder in folders if folder.exists()] == []


async def test_start_that_breaks_in_any_way_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw reaches who waits for the sandbox, and the next start is tried."""

    async def broken(self: KernelSandbox) -> None:
        raise RuntimeError("not foreseen")

    async with SandboxPool(PoolConfig(max_sandboxes=1)) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(KernelSandbox, "wait_until_ready", broken)
            with pytest.raises(SandboxStartError, match="RuntimeError: not foreseen"):
                async with pool.acquire():
                    pass
        async with pool.acquire() as sandbox:
            assert await answers(sandbox)


STARTER = """
import asyncio, os, signal, sys
from sandbox_pool import PoolConfig, SandboxPool

async def main():
    async with SandboxPool(PoolConfig(min_idle=1)) as pool:
        scratch = pool._stock._starter._host.scratch
        while not list(scratch.glob("*.log")):
            await asyncio.sleep(0)
        await asyncio.sleep(float(sys.argv[1]))
        print(scratch, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", ["0.005", "0.02", "0.1"])
def test_owner_killed_during_a_start_leaves_no_folder(after_s: str) -> None:
    """Kill -9 while a kernel starts leaves no folder, even before its keeper has begun to look."""
    command = [sys.executable, "-c", STARTER, after_s]
    owner = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    scratch = Path(owner.stdout.strip())
    assert scratch.name.startswith("kf-")
    deadline = time.monotonic() + 5
    while scratch.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not scratch.exists()


async def test_interrupt_that_is_not_heard_is_repeated() -> None:
    """A signal that comes just before a system call that waits ends no wait; the next one does."""
    cell = (
        "import signal, time\nn_heard = 0\ndef hear(*_):\n    global n_heard\n    n_heard += 1\n"
        "signal.signal(signal.SIGINT, hear)  # which takes no note of the announcement\n"
        "while n_heard < 3: time.sleep(0.01)\n"
        "n_heard"
    )
    async with SandboxPool(PoolConfig(interrupt_grace_s=20)) as pool, pool.acquire() as sandbox:
        seen = await sandbox.execute(cell, timeout_s=0.1)
        assert (seen.status, seen.kernel_alive) == (Status.TIMEOUT, True)
        assert (await sandbox.execute("n_heard")).result == "3"
