"""A pool under attack: one sandbox for each case, a neighbour beside it, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandbox_pool import Sandbox, SandboxPool, SandboxSpec, Status
from tests.sandbox_pool.hostile.bait import Bait, new_canary
from tests.sandbox_pool.hostile.setups import MIB, Setup
from tests.sandbox_pool.hostile.world import (
    Habitat,
    Seen,
    World,
    below,
    groups_of,
    peak_rss_bytes,
    processes,
    reset_peak,
)

_MAX_GROWTH_BYTES = 64 * MIB
"""What one case may make the runner's memory grow by, whatever it sends; its output budget is 1 MiB."""

_SETTLE_S = 1.0
"""zmq closes sockets in a thread of its own."""


class Arena:
    """Runs cases on one kind of sandbox. `opened` makes one."""

    def __init__(self, setup: Setup, pool: SandboxPool, bait: Bait) -> None:
        self.setup = setup
        self.pool = pool
        self.bait = bait
        self.tags: frozenset[str] = frozenset()
        self.groups: frozenset[str] = frozenset()
        self.facts = bait.facts()
        self._neighbour: Sandbox | None = None

    @classmethod
    @asynccontextmanager
    async def opened(cls, setup: Setup, bait: Bait) -> AsyncIterator[Arena]:
        """Open a pool of these sandboxes; when the block ends, check that nothing at all is left of it."""
        before = World.now(bait.scratch)
        async with SandboxPool(setup.config(bait.scratch)) as pool:
            arena = cls(setup, pool, bait)
            async with pool.acquire() as first:  # it starts what all others are forked from
                await answers(first)
            known = below(os.getpid())
            async with pool.acquire() as neighbour:
                own = [seen for key, seen in below(os.getpid()).items() if key not in known]
                await arena._settle_in(neighbour, own)
                yield arena
                await answers(neighbour)
        left = World.now(bait.scratch, arena.groups).left_since(before)
        left.pop("descriptors", None)  # pytest opens loops meanwhile; test_pool.py looks at these
        assert not left, left

    async def _settle_in(self, neighbour: Sandbox, own: list[Seen]) -> None:
        self._neighbour = neighbour
        pids = {seen.pid for seen in own}
        where = await neighbour.execute(
            f"import os\nsecret = {new_canary()!r}\nopen('canary', 'w').write(secret); print(os.getcwd())"
        )
        self.tags = tags_of(self.setup, own)
        self.groups = groups_of(own)
        self.facts |= {
            "TIER": self.setup.tier,
            "OTHER": where.stdout.strip(),
            "WALK": self.facts["ROOT"] if self.setup.tier == "process" else "/",
            "ZYGOTE_PID": str(next(seen.parent for seen in own if seen.parent not in pids)),
        }

    def cell(self, text: str) -> str:
        """Return a case's cell with this machine's facts in it."""
        return re.sub(r"@([A-Z_]+)@", lambda found: self.facts[found[1]], text)

    @asynccontextmanager
    async def ordeal(
        self, *, is_held: bool = True, spec: SandboxSpec | None = None
    ) -> AsyncIterator[Sandbox]:
        """Lend a sandbox; when the block ends, check what must hold after whatever was done in it.

        Args:
            is_held: whether this kind of sandbox promises to hold what is tried.
            spec: of the sandbox.
        """
        assert self._neighbour is not None
        self.bait.take()
        before = World.now(self.bait.scratch, self.groups)
        others = processes()
        held_bytes = reset_peak()
        async with self.pool.acquire(spec or SandboxSpec()) as sandbox:
            known = {seen.key for seen in others}
            own = [seen for key, seen in below(os.getpid()).items() if key not in known]
            habitat = Habitat.of(own, others)
            yield sandbox
            await answers(self._neighbour)
        assert [seen for seen in habitat.inhabitants() if seen.key not in known] == []
        await nothing_left(before, self.bait.scratch, self.groups)
        grown_bytes = peak_rss_bytes() - held_bytes
        assert grown_bytes < _MAX_GROWTH_BYTES, f"the runner grew by {grown_bytes / MIB:.0f} MiB"
        touched = self.bait.take()
        assert not (touched and is_held), touched
        async with self.pool.acquire() as fresh:
            await answers(fresh)


async def answers(sandbox: Sandbox) -> None:
    """Check that a sandbox can compute."""
    seen = await sandbox.execute("1 + 1", timeout_s=10)
    assert (seen.status, seen.result) == (Status.OK, "2"), seen


async def nothing_left(before: World, folder: Path, groups: frozenset[str]) -> None:
    """Check that there is nothing that was not there before; descriptors may take zmq a moment."""
    left = World.now(folder, groups).left_since(before)
    deadline = time.monotonic() + _SETTLE_S
    while left.keys() == {"descriptors"} and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
        left = World.now(folder, groups).left_since(before)
    assert not left, left


def tags_of(setup: Setup, own: list[Seen]) -> frozenset[str]:
    """Return what is known of these sandboxes, looked at from outside."""
    tags: set[str] = {setup.tier, setup.kernel}
    groups = _cgroups(os.getpid())
    theirs = [_cgroups(seen.pid) for seen in own]
    if os.geteuid() == 0:
        tags.add("root")
    if any(group.get("memory", group.get("")) != groups.get("memory", groups.get("")) for group in theirs):
        tags.add("cgroup")
    if any(group.get("pids", group.get("")) != groups.get("pids", groups.get("")) for group in theirs):
        tags.add("pids")
    if setup.tier == "namespace" or "root" in tags:
        tags.add("pids")
    if setup.tier in ("namespace", "landlock") or "root" in tags:
        tags.add("contained-signals")
    return frozenset(tags)


def _cgroups(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return {}
    return {name: path for line in lines for name, path in [line.split(":", 2)[1:]]}
