"""The runs of a sweep, one after the other or side by side.

Side by side, cells share one limit on trajectories and one on sandboxes. Cells that host the same engines
run one after the other or side by side, never beside cells of other engines: these are started once for
all of them, and stopped before the next.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from rich.console import Console

from bench_data import BenchDataError
from runner.admission import SandboxAdmission
from runner.batch import Batch, RunSummary, Shared, Watching, prepare, run_batch, sandbox_settings
from runner.config import RunConfig
from runner.errors import RunnerError, first_error
from runner.gate import Gate
from runner.hosting import SharedEngines, engines_key, is_hosted
from runner.matrix import Cell
from runner.scheduling.sandbox_limit import adapt_sandboxes
from sandbox_pool import PoolConfig, SandboxError
from sandbox_pool.config import n_cores
from sandbox_pool.host.capacity import NEEDS, bound_of_sandboxes, raise_descriptor_limit, read_resources

CANNOT_BEGIN = (RunnerError, BenchDataError, SandboxError, ValueError)
"""What a cell may be refused for, which is no bug."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class CellResult:
    """What came of a cell in this process."""

    cell: Cell
    summary: RunSummary | None
    error: str | None
    """Why it could not begin, or broke off."""

    signal_number: int | None = None
    """The signal that kept it from beginning, or ended it early."""


async def run_sweep(
    cells: Sequence[Cell],
    console: Console,
    *,
    side_by_side: int = 1,
    on_result: Callable[[CellResult], None] = lambda result: None,
) -> list[CellResult]:
    """Run the cells, so many at a time. SIGINT and SIGTERM drain those that run and begin no other.

    Those that host the same engines come together, where the first of them stands. A cell that cannot begin
    does not keep the others from running. Returns what came of each cell that was begun.
    """
    stop = _Stop()
    results: list[CellResult] = []
    shared = _shared(cells) if side_by_side > 1 else None

    async def work(waiting: Iterator[Cell], engines: SharedEngines) -> None:
        for cell in waiting:
            if stop.number is not None:
                return
            results.append(await _run_cell(cell, console, stop, shared, engines))
            on_result(results[-1])

    with _stopping_on_signals(stop):
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(_keep(cells[0].config, shared)) if shared else None
            for together in by_engines(cells):
                waiting = iter(together)
                engines = SharedEngines()
                try:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(min(side_by_side, len(together))):
                            workers.create_task(work(waiting, engines))
                finally:
                    await engines.close()
            if keeper is not None:
                keeper.cancel()
    return results


def by_engines(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in the order in which they run, in lists of those that share engines or have none."""
    groups: dict[str | None, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(engines_key(cell.config), []).append(cell)
    return list(groups.values())


async def _run_cell(
    cell: Cell, console: Console, stop: _Stop, shared: Shared | None, engines: SharedEngines
) -> CellResult:
    try:
        stop.expect(cell)
        batch = await _prepared(cell.config)
        stop.listen()
        watching = Watching(
            console, handles_signals=False, on_begun=partial(stop.add, cell), label=f"{cell.name}: "
        )
        summary = await run_batch(batch, watching, shared, engines)
    except asyncio.CancelledError:
        if stop.number is None or not stop.has_cancelled(cell):
            raise
        name = signal.Signals(stop.number).name
        return CellResult(cell, None, f"{name} before it had begun", stop.number)
    except CANNOT_BEGIN as error:
        return CellResult(cell, None, str(error))
    except ExceptionGroup as group:
        cause = first_error(group)
        if not isinstance(cause, RunnerError | SandboxError):
            raise
        return CellResult(cell, None, str(cause))
    finally:
        stop.forget(cell)
    return CellResult(cell, summary, None, stop.number)


async def _prepared(config: RunConfig) -> Batch:
    """Prepare a run while others go on; engines on Ray are asked for from the main thread."""
    return prepare(config) if is_hosted(config) else await asyncio.to_thread(prepare, config)


class Drainable(Protocol):
    """A run that goes on."""

    def drain(self, reason: str) -> None:
        """Take no further attempts and end; a second call cancels what still runs."""


class _Stop:
    """The signal that ends a sweep, and the cells that it ends: drained, or cancelled if not yet begun."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._runs: dict[str, Drainable] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._cancelled: set[str] = set()

    def listen(self) -> None:
        """Be told of signals; again after each connection to Ray, which puts its own handlers in place."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self, number)

    def expect(self, cell: Cell) -> None:
        """Have this task cancelled by a signal as long as its cell has not begun: engines take minutes."""
        if (task := asyncio.current_task()) is not None:
            self._tasks[cell.name] = task

    def add(self, cell: Cell, run: Drainable) -> None:
        self._tasks.pop(cell.name, None)
        self.listen()
        self._runs[cell.name] = run
        if self.number is not None:
            run.drain(signal.Signals(self.number).name)

    def forget(self, cell: Cell) -> None:
        self._tasks.pop(cell.name, None)
        self._runs.pop(cell.name, None)

    def has_cancelled(self, cell: Cell) -> bool:
        """Return whether a signal alone cancelled this task, which then goes on."""
        task = asyncio.current_task()
        return cell.name in self._cancelled and task is not None and task.uncancel() == 0

    def __call__(self, number: int) -> None:
        self.number = number
        for run in self._runs.values():
            run.drain(signal.Signals(number).name)
        for name, task in self._tasks.items():
            self._cancelled.add(name)
            task.cancel()
        self._tasks.clear()


@contextmanager
def _stopping_on_signals(stop: _Stop) -> Iterator[None]:
    stop.listen()
    try:
        yield
    finally:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _shared(cells: Sequence[Cell]) -> Shared:
    concurrency = max(cell.config.concurrency for cell in cells)
    pools = [sandbox_settings(cell.config) for cell in cells]
    wanted = max(pool.max_sandboxes for pool in pools)
    return Shared(Gate(concurrency), Gate(min(wanted, _room_for_sandboxes(pools))))


def _room_for_sandboxes(pools: Sequence[PoolConfig]) -> int:
    """Return how many sandboxes this machine has room for: each pool knows that of itself alone."""
    kernels = {pool.kernel for pool in pools}
    kernels |= {profile.get("kernel", pool.kernel) for pool in pools for profile in pool.profiles.values()}
    needs = max((NEEDS[kernel] for kernel in kernels), key=lambda need: need.memory_bytes)
    raise_descriptor_limit()  # as each pool will
    return max(1, bound_of_sandboxes(read_resources(), needs).n_sandboxes)


async def _keep(config: RunConfig, shared: Shared) -> None:
    is_adaptive = config.admission.mode == "adaptive"
    admission = SandboxAdmission(max_leased=shared.sandboxes.limit, n_cores=n_cores(), adaptive=is_adaptive)
    await adapt_sandboxes(shared.sandboxes, admission, config.admission.poll_s, lambda name, **details: None)
