"""Much of the same: thousands of sandboxes without a leak, cells without a lost output while the loop stalls.

`make soak` runs 10,000 sandboxes and 100,000 cells; KERNELFLEET_SOAK_CYCLES and KERNELFLEET_SOAK_CELLS say
how many otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest

import psutil
import pytest

from sandbox_pool import Display, Output, PoolConfig, Sandbox, SandboxPool, SandboxSpec, Status, Stream
from tests.sandbox_pool.hostile.bait import Bait
from tests.sandbox_pool.hostile.setups import MIB, why_not
from tests.sandbox_pool.hostile.world import World, below, groups_of

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(4 * 3600)]
N_CYCLES = int(os.environ.get("KERNELFLEET_SOAK_CYCLES", "200"))
N_CELLS = int(os.environ.get("KERNELFLEET_SOAK_CELLS", "2000"))
_WORKERS = 4
_MAX_GROWTH_BYTES = 24 * MIB
"""Of the runner and of all zygotes together, from a tenth of the cycles to the end."""

_MAX_STALL_S = 0.05
_CELLS_PER_SANDBOX = 500
"""After 1,000 results IPython says that it forgets the oldest ones."""


@dataclass(frozen=True, slots=True)
class Held:
    """What this process and all below it hold at a moment at which no sandbox exists."""

    rss_bytes: int
    n_descriptors: int
    n_processes: int
    n_threads: int

    @classmethod
    def now(cls) -> Held:
        """Measure."""
        us = psutil.Process()
        children = us.children(recursive=True)
        rss = sum(process.memory_info().rss for process in (us, *children))
        return cls(rss, us.num_fds(), len(children), us.num_threads())


@pytest.mark.parametrize("tier", ["namespace", "landlock", "process"])
async def test_cycles(tier: str) -> None:
    """Sandboxes come and go by the thousand, and nothing grows: memory, descriptors, processes, groups, mounts."""
    if reason := why_not(tier):
        pytest.skip(reason)
    with Bait() as bait:
        before = World.now(bait.scratch)
        config = PoolConfig.model_validate(
            {"tier": tier, "allow_unsafe": tier == "process", "scratch": bait.scratch, "max_idle": 0}
            | {"recycle_after": max(50, N_CYCLES // 8), "preload": ("numpy",)}
        )
        async with SandboxPool(config) as pool:
            await _cycle(pool, max(N_CYCLES // 10, 2 * _WORKERS))
            groups = groups_of([*below(os.getpid()).values()]) | await _groups(pool)
            early = Held.now()
            began_at = time.monotonic()
            await _cycle(pool, N_CYCLES)
            took_s = time.monotonic() - began_at
            late = Held.now()
            logger.info("%s: %d cycles in %.1f s: %s -> %s", tier, N_CYCLES, took_s, early, late)
            assert late.n_descriptors <= early.n_descriptors + 2
            assert late.n_processes <= early.n_processes + 3  # a worn zygote may be on its way out
            assert late.n_threads < 40  # those for work on files come as they are needed
            assert late.rss_bytes - early.rss_bytes < _MAX_GROWTH_BYTES
            assert pool.statistics().n_failed_starts == 0
        left = World.now(bait.scratch, groups).left_since(before)
        left.pop("descriptors", None)
        assert not left, left


async def _cycle(pool: SandboxPool, n: int) -> None:
    numbers = iter(range(n))
    async with asyncio.TaskGroup() as group:
        for _ in range(_WORKERS):
            group.create_task(_lease(pool, numbers))


async def _lease(pool: SandboxPool, numbers: Iterator[int]) -> None:
    for number in numbers:
        async with pool.acquire(SandboxSpec(seed=number)) as sandbox:
            await sandbox.put("in.txt", b"x" * 1000)
            seen = await sandbox.execute(f"open('out.txt', 'w').write(open('in.txt').read()); {number} + 1")
            assert (seen.status, seen.result) == (Status.OK, str(number + 1)), seen
            if number % 3 == 0:
                (file,) = await sandbox.collect(["out.txt"])
                assert file.n_bytes == 1000
            elif number % 3 == 1:
                await sandbox.execute("import subprocess; a = subprocess.Popen(['sleep', '1000'])")


async def _groups(pool: SandboxPool) -> frozenset[str]:
    """Return the pool's control groups, which only sandboxes that exist are in."""
    async with pool.acquire():
        return groups_of(below(os.getpid()).values())


@dataclass(slots=True)
class Script:
    """A cell that says much, and what must be heard of it."""

    code: str
    expected: list[tuple[str, str]]

    @classmethod
    def random(cls, dice: random.Random, *, has_raw: bool) -> Script:
        """Write one."""
        lines, expected = ["import os, sys"], []
        kinds = ["stdout", "stderr", "display"] + (["raw"] if has_raw else [])
        for number in range(dice.randrange(12)):
            kind = dice.choice(kinds)
            text = f"{number}:" + "x" * int(dice.paretovariate(0.7) % 4000)
            if kind == "display":
                lines.append(f"display({text!r})")
                expected.append(("display", repr(text)))
            elif kind == "raw":
                lines.append(f"_ = os.write(1, {text + chr(10)!r}.encode())")
                expected.append(("stdout", text + "\n"))
            else:
                lines.append(f"print({text!r}, file=sys.{kind})")
                expected.append((kind, text + "\n"))
        return cls("\n".join([*lines, "'end'"]), merged([*expected, ("result", "'end'")]))


def merged(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pieces with those of one stream that follow each other as one."""
    found: list[tuple[str, str]] = []
    for name, text in pieces:
        if found and found[-1][0] == name and name in ("stdout", "stderr"):
            text = found.pop()[1] + text
        found.append((name, text))
    return found


def heard(outputs: tuple[Output, ...]) -> list[tuple[str, str]]:
    """Return what an observation holds, in the same form."""
    return merged(
        [
            (o.name, o.text) if isinstance(o, Stream)
            else ("display" if isinstance(o, Display) else o.type, str(getattr(o, "data", {}).get("text/plain")))
            for o in outputs
        ]
    )  # fmt: skip


@asynccontextmanager
async def stalls() -> AsyncIterator[None]:
    """Block the event loop at random, half of the time, for up to 50 ms at once."""

    async def stall() -> None:
        dice = random.Random(1)
        while True:
            time.sleep(dice.random() * _MAX_STALL_S)  # noqa: ASYNC251 - what is tested
            await asyncio.sleep(dice.random() * _MAX_STALL_S)

    task = asyncio.create_task(stall())
    try:
        yield
    finally:
        task.cancel()


@pytest.mark.parametrize("kernel", ["lean", "ipykernel"])
async def test_cells(kernel: str) -> None:
    """While the consumer stalls at random, no cell loses an output, its order, or its end."""
    tier = next(tier for tier in ("namespace", "landlock", "process") if why_not(tier) is None)
    config = PoolConfig.model_validate(
        {"tier": tier, "allow_unsafe": tier == "process", "kernel": kernel, "preload": ()}
    )
    numbers = iter(range(N_CELLS))
    began_at = time.monotonic()
    async with SandboxPool(config) as pool, stalls(), asyncio.TaskGroup() as group:
        for seed in range(2 * _WORKERS):
            group.create_task(_talk(pool, numbers, random.Random(seed), has_raw=kernel == "lean"))
    logger.info("%s: %d cells in %.1f s", kernel, N_CELLS, time.monotonic() - began_at)


async def _talk(pool: SandboxPool, numbers: Iterator[int], dice: random.Random, *, has_raw: bool) -> None:
    while share := list(islice(numbers, _CELLS_PER_SANDBOX)):
        async with pool.acquire() as sandbox:
            for number in share:
                await _check(sandbox, number, Script.random(dice, has_raw=has_raw))


async def _check(sandbox: Sandbox, number: int, script: Script) -> None:
    seen = await sandbox.execute(script.code, timeout_s=60)
    assert seen.status is Status.OK, (number, seen)
    got = heard(seen.outputs)
    pairs = zip_longest(got, script.expected)
    wrong = [(_short(a), _short(b)) for a, b in pairs if a != b]
    assert not wrong, (number, wrong[:2], [name for name, _ in got], [name for name, _ in script.expected])


def _short(piece: tuple[str, str] | None) -> str:
    """Return a piece so that a failure can be read."""
    return f"{piece[0]} {len(piece[1])} {piece[1][:40]!r}...{piece[1][-40:]!r}" if piece else "nothing"


def test_a_lost_output_is_noticed() -> None:
    """What these tests compare differs as soon as one output is missing, or comes in another order."""
    outputs = (Stream("stdout", "a\n"), Stream("stderr", "b\n"), Stream("stdout", "c\n"))
    assert heard(outputs) == [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]
    assert heard(outputs[1:]) != heard(outputs)
    assert heard(outputs[::-1]) != heard(outputs)
