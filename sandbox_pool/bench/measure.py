"""The measurements, each made the same way of every contender, into a Record."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from sandbox_pool.bench import usage
from sandbox_pool.bench.contenders import Contender, Kernel, Ours
from sandbox_pool.bench.record import Record
from sandbox_pool.errors import SandboxError

logger = logging.getLogger(__name__)

TRIVIAL, TRIVIAL_VALUE = "1 + 1", "2"
BUSY_1_MS = "import time\nend = time.perf_counter() + 0.001\nwhile time.perf_counter() < end: pass"
N_IN_LINE = 32
_SLEEP_S = 1.5
_SETTLE_S = 0.3
_N_CELLS_IN_LINE = 100
_BATCH = 50
_IDLE_TIMEOUT_S = 60.0


async def check(kernel: Kernel) -> None:
    """Run the trivial cell. Raises SandboxError when it gives anything else than it should."""
    value = await kernel.run(TRIVIAL)
    if value != TRIVIAL_VALUE:
        raise SandboxError(f"the cell {TRIVIAL!r} gave {value!r}, not {TRIVIAL_VALUE!r}")


async def starts(contender: Contender, record: Record, n: int) -> None:
    """Start, use and end n kernels, one after the other.

    Records seconds: `start`, from asking for a kernel to having it; `first_cell` in it; `teardown`, from
    giving it back to all its processes being gone.
    """
    start_s: list[float] = []
    cell_s: list[float] = []
    teardown_s: list[float] = []
    for _ in range(n):
        try:
            async with AsyncExitStack() as stack:
                began_at = time.perf_counter()
                kernel = await stack.enter_async_context(contender.kernel())
                start_s.append(time.perf_counter() - began_at)
                await check(kernel)
                cell_s.append(time.perf_counter() - began_at - start_s[-1])
                began_at = time.perf_counter()
            teardown_s.append(time.perf_counter() - began_at)
        except SandboxError as error:
            _count_failure(contender, record, error)
        else:
            record.count_start(contender.name)
    record.add(contender.name, "start_s", start_s)
    record.add(contender.name, "first_cell_s", cell_s)
    record.add(contender.name, "teardown_s", teardown_s)


async def warm_hits(ours: Ours, record: Record, n: int, measure: str) -> None:
    """Record n times the seconds of an acquire() while one is ready; the pool refills meanwhile."""
    taken_s = []
    for _ in range(n):
        async with asyncio.timeout(_IDLE_TIMEOUT_S):
            while not ours.pool.statistics().n_idle:  # noqa: ASYNC110 - the pool has no event for it
                await asyncio.sleep(0.001)
        began_at = time.perf_counter()
        async with ours.kernel() as kernel:
            taken_s.append(time.perf_counter() - began_at)
            record.count_start(ours.name)
            await check(kernel)
    record.add(ours.name, f"{measure}_s", taken_s)


async def cells(contenders: Sequence[Contender], record: Record, n: int) -> None:
    """Run n trivial cells in one kernel of each contender, in turns of 50.

    Records seconds of each round trip (`cell_s`), and of CPU for each: this process's (`client_cpu_s`, user
    and system time with all threads, as getrusage has it), and that of all others (`kernel_cpu_s`).
    """
    async with AsyncExitStack() as stack:
        kernels = []
        for contender in contenders:
            kernels.append(await stack.enter_async_context(contender.kernel()))
            record.count_start(contender.name)
        taken_s: list[list[float]] = [[] for _ in kernels]
        client_cpu_s: list[list[float]] = [[] for _ in kernels]
        kernel_cpu_s: list[list[float]] = [[] for _ in kernels]
        for kernel in kernels:  # not counted: what the first cells of all set up
            await _batch(kernel)
        for _ in range(max(1, n // _BATCH)):
            for number, kernel in enumerate(kernels):
                began_others_s = usage.tree_cpu_s(with_own=False)
                began_own_s = time.process_time()
                taken_s[number] += await _batch(kernel)
                client_cpu_s[number].append((time.process_time() - began_own_s) / _BATCH)
                others_s = usage.tree_cpu_s(with_own=False) - began_others_s
                kernel_cpu_s[number] += [others_s / _BATCH] if usage.tree() else []
    for number, contender in enumerate(contenders):
        record.add(contender.name, "cell_s", taken_s[number])
        record.add(contender.name, "client_cpu_s", client_cpu_s[number])
        record.add(contender.name, "kernel_cpu_s", kernel_cpu_s[number])


async def _batch(kernel: Kernel) -> list[float]:
    taken_s = []
    for _ in range(_BATCH):
        began_at = time.perf_counter()
        await check(kernel)
        taken_s.append(time.perf_counter() - began_at)
    return taken_s


class Crowd:
    """Kernels of one contender that are held at the same time, each by a task of `group`.

    When the group is cancelled, all are ended.
    """

    def __init__(self, contender: Contender, record: Record, group: asyncio.TaskGroup) -> None:
        self._contender = contender
        self._record = record
        self._group = group
        self._gate = asyncio.Semaphore(contender.max_starting)
        self._release = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.kernels: list[Kernel] = []
        """Those that have started."""

    async def grow_to(self, n: int) -> int:
        """Start so many that there would be n, all at once; return how many of them did start."""
        n_before = len(self.kernels)
        settled = [asyncio.Event() for _ in range(n - len(self._tasks))]
        self._tasks += [self._group.create_task(self._hold(event)) for event in settled]
        for event in settled:
            await event.wait()
        return len(self.kernels) - n_before

    async def release(self) -> None:
        """End all of them, and wait until they are gone."""
        self._release.set()
        await asyncio.gather(*self._tasks)

    async def _hold(self, settled: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            try:
                async with self._gate:
                    kernel = await stack.enter_async_context(self._contender.kernel())
                self.kernels.append(kernel)
                self._record.count_start(self._contender.name)
            except SandboxError as error:
                _count_failure(self._contender, self._record, error)
            settled.set()
            await self._release.wait()


def _count_failure(contender: Contender, record: Record, error: SandboxError) -> None:
    logger.warning("a start of %s failed: %s", contender.name, error)
    record.count_start(contender.name, str(error))


async def hold(contender: Contender, record: Record, levels: Sequence[int]) -> None:
    """Grow to each level at once, measure there, then end all at once.

    Records at the first level n seconds until all were ready (`n_at_once_s`); at each level starts per second
    and CPU seconds per start of all processes involved, this one included (`starts_hz`, `start_cpu_s`), and
    what an idle kernel weighs (see `_weigh`); at the first level of 32 or more what `head_of_line` does; at
    the end `n_gone_at_once_s`, and how many processes are left.
    """
    servers = {stat.process for stat in usage.tree()}
    free_bytes = usage.available_bytes() or 0
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(contender, record, group)
        own: set[usage.Process] = set()
        for level in levels:
            await _grow(crowd, contender.name, record, level)
            own = {stat.process for stat in usage.tree()} - servers
            if len(crowd.kernels) == level:  # else what is held would not be what the name says
                _weigh(contender.name, record, level, own, servers, free_bytes)
            await asyncio.gather(*(check(kernel) for kernel in crowd.kernels))
            if level == min((n for n in levels if n >= N_IN_LINE), default=0):
                await head_of_line(contender.name, record, crowd.kernels[:N_IN_LINE])
        began_at = time.perf_counter()
        await crowd.release()
    record.add(contender.name, f"{levels[-1]}_gone_at_once_s", [time.perf_counter() - began_at])
    record.count_left(contender.name, len(usage.living(own)))


async def _grow(crowd: Crowd, name: str, record: Record, level: int) -> None:
    n_before = len(crowd.kernels)
    began_cpu_s, began_at = usage.tree_cpu_s(), time.perf_counter()
    n_new = await crowd.grow_to(level)
    took_s = time.perf_counter() - began_at
    if n_new == 0:
        raise SandboxError(f"no {name} started on the way to {level}; the last: {record.failures[name][-1]}")
    if n_before == 0 and n_new == level:
        record.add(name, f"{level}_at_once_s", [took_s])
    record.add(name, "starts_hz", [n_new / took_s])
    if usage.tree():
        record.add(name, "start_cpu_s", [(usage.tree_cpu_s() - began_cpu_s) / n_new])


def _weigh(
    name: str,
    record: Record,
    n: int,
    own: set[usage.Process],
    servers: set[usage.Process],
    free_bytes: int,
) -> None:
    """Record what each of n idle kernels weighs.

    `pss_bytes_n`: proportional memory of its own processes, an init included; `pss_all_bytes_n`: with its
    part of those that serve all (zygote, gateway), this process not included; `available_bytes_n`: what
    the machine can give less, with what the system itself keeps for it.
    """
    if not own:
        return
    try:
        own_bytes = sum(map(usage.pss_bytes, own))
        server_bytes = sum(usage.pss_bytes(server) for server in servers if server.pid != os.getpid())
    except PermissionError as error:
        logger.warning("memory of %s is not measured: %s; start as root for it", name, error)
        return
    record.add(name, f"pss_bytes_{n}", [own_bytes / n])
    record.add(name, f"pss_all_bytes_{n}", [(own_bytes + server_bytes) / n])
    record.add(name, f"available_bytes_{n}", [(free_bytes - (usage.available_bytes() or 0)) / n])


async def head_of_line(name: str, record: Record, kernels: Sequence[Kernel]) -> None:
    """Record seconds of 1 ms cells in the first kernel.

    `alone_s` while the others are idle, `in_line_s` while all others are in a cell that sleeps.
    """
    first, *others = kernels
    record.add(name, "alone_s", [await _timed(first) for _ in range(_N_CELLS_IN_LINE)])
    taken_s: list[float] = []
    async with asyncio.TaskGroup() as group:
        nap = f"import time; time.sleep({_SLEEP_S})"
        sleepers = [group.create_task(other.run(nap)) for other in others]
        await asyncio.sleep(_SETTLE_S)  # part of the measurement: nothing tells when a cell has begun
        while len(taken_s) < _N_CELLS_IN_LINE and not any(sleeper.done() for sleeper in sleepers):
            taken_s.append(await _timed(first))
    record.add(name, "in_line_s", taken_s)


async def _timed(kernel: Kernel) -> float:
    began_at = time.perf_counter()
    await kernel.run(BUSY_1_MS)
    return time.perf_counter() - began_at


async def endure(contender: Contender, record: Record, n: int, *, n_at_once: int = 8) -> None:
    """Start, use and end n kernels, several at a time, and count those that failed.

    Records `cycles_hz`: how many went through all of it in a second.
    """
    numbers = iter(range(n))

    async def work() -> None:
        for _ in numbers:
            try:
                async with contender.kernel() as kernel:
                    await check(kernel)
            except SandboxError as error:
                _count_failure(contender, record, error)
            else:
                record.count_start(contender.name)

    began_at = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(n_at_once):
            group.create_task(work())
    record.add(contender.name, "cycles_hz", [n / (time.perf_counter() - began_at)])
