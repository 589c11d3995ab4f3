"""Fork servers with real zygotes; those that are killed or stuck are in hostile/test_faults.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psutil
import pytest

from sandbox_pool import PoolConfig, SandboxPool, SandboxSpec
from sandbox_pool.ends import Ends

BARE = PoolConfig(preload=(), max_idle=0)


def keepers() -> list[psutil.Process]:
    """Return the keepers of this process's pools."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # gone meanwhile
            if "boot.py" in " ".join(child.cmdline()):
                found.append(child)
    return found


def zygotes() -> list[psutil.Process]:
    """Return the zygotes of this process's pools."""
    found = []
    for keeper in keepers():
        with suppress(psutil.NoSuchProcess):
            found += keeper.children()
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that has no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes bring it about
            await asyncio.sleep(0.01)


@pytest.mark.kernel
async def test_a_worn_zygote_is_replaced() -> None:
    """After recycle_after forks another one forks; the worn one ends with its last sandbox, not before."""
    config = BARE.model_copy(update={"recycle_after": 2})
    async with SandboxPool(config) as pool, AsyncExitStack() as stack:
        first = await stack.enter_async_context(pool.acquire())
        async with pool.acquire(), pool.acquire():
            await until(lambda: len(zygotes()) == 2)
        async with pool.acquire() as fresh:
            assert (await fresh.execute("1")).result == "1"
        assert (await first.execute("x = 2; x")).result == "2"
        await first.close()
        await until(lambda: len(zygotes()) == 1)
        assert pool.statistics().n_failed_starts == 0
    assert keepers() == []


@pytest.mark.timeout(180)  # ten zygotes start one after the other
@pytest.mark.kernel
async def test_zygotes_of_many_workspaces_do_not_pile_up(tmp_path: Path) -> None:
    """Workspaces in ever new folders cost a zygote each, of which the oldest that are idle are ended."""
    tmp_path.chmod(0o755)
    async with SandboxPool(BARE) as pool:
        for number in range(10):
            workspace = tmp_path / str(number) / "w"
            workspace.mkdir(parents=True)
            (workspace / "name").write_text(str(number))
            async with pool.acquire(SandboxSpec(workspace=workspace)) as sandbox:
                assert (await sandbox.execute("open('workspace/name').read()")).result == f"'{number}'"
                files = await sandbox.collect(["**"])
            assert files == []
        await until(lambda: len(zygotes()) <= 8)
    assert keepers() == []


def test_ends_that_cannot_all_be_opened_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors half way, nothing stays open."""
    before = psutil.Process().num_fds()
    pipe, n_pipes = os.pipe, 0

    def second_fails() -> tuple[int, int]:
        nonlocal n_pipes
        n_pipes += 1
        if n_pipes == 2:
            raise OSError(24, "Too many open files")
        return pipe()

    monkeypatch.setattr(os, "pipe", second_fails)
    with pytest.raises(OSError, match="Too many"):
        Ends(None)
    assert psutil.Process().num_fds() == before
