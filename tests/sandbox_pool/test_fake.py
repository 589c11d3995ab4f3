from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sandbox_pool import (
    FakePool,
    FakeSandbox,
    Observation,
    Pool,
    Sandbox,
    SandboxFault,
    SandboxPool,
    SandboxStartError,
    Status,
    Stream,
)


async def test_replies_come_in_order() -> None:
    """Scripted observations and failures come one by one, then empty ones; the code is recorded."""
    sandbox = FakeSandbox([Observation(Status.OK, (Stream("stdout", "1"),)), SandboxFault("broken")])
    assert (await sandbox.execute("a")).stdout == "1"
    with pytest.raises(SandboxFault):
        await sandbox.execute("b", timeout_s=3)
    assert (await sandbox.execute("c")) == Observation(Status.OK)
    assert (sandbox.executed, sandbox.timeouts_s) == (["a", "b", "c"], [10.0, 3, 10.0])


async def test_function_may_wait() -> None:
    """A script that waits delays the cell, and cancelling it kills the kernel as a real one."""
    never = asyncio.Event()

    async def wait() -> Observation:
        await never.wait()
        return Observation(Status.OK)

    sandbox = FakeSandbox(lambda code: wait())
    task = asyncio.create_task(sandbox.execute("x"))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sandbox.execute("y")).status is Status.DIED


async def test_dead_stays_dead() -> None:
    """After an observation without a living kernel every cell is `died`."""
    sandbox = FakeSandbox([Observation(Status.TIMEOUT, kernel_alive=False)])
    await sandbox.execute("a")
    assert (await sandbox.execute("b")).status is Status.DIED


async def test_pool_counts_leases() -> None:
    """The pool gives each lease a script of its own and knows how many there were at once."""
    pool = FakePool(lambda n: [Observation(Status.OK, (Stream("stdout", str(n)),))])
    async with pool.acquire() as a, pool.acquire() as b:
        assert [(await s.execute("")).stdout for s in (a, b)] == ["0", "1"]
    assert (pool.n_leased, pool.max_leased, len(pool.sandboxes)) == (0, 2, 2)
    assert all(sandbox.is_closed for sandbox in pool.sandboxes)


async def test_pool_can_fail() -> None:
    """A pool whose kernels do not start raises at every acquire()."""
    pool = FakePool(start_error=SandboxStartError("no"))
    with pytest.raises(SandboxStartError):
        async with pool.acquire():
            pass


async def test_collect_copies(tmp_path: Path) -> None:
    """Files can be scripted in a dict, and are collected like real ones."""
    sandbox = FakeSandbox()
    sandbox.files["output/a"] = b"1"
    (file,) = await sandbox.collect(["output/*"], into=tmp_path)
    assert (file.path, file.data, (tmp_path / "output/a").read_bytes()) == ("output/a", None, b"1")


def test_interfaces_hold() -> None:
    """Real and fake ones are what the interfaces ask for (mypy checks the same)."""
    pools: list[Pool] = [FakePool(), SandboxPool()]
    sandbox: Sandbox = FakeSandbox()
    assert len(pools) == 2
    assert sandbox is not None
