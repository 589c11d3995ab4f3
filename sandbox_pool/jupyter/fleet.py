"""The kernels that this process has started for Jupyter, and their zygotes, in a thread of their own.

Jupyter's managers run an event loop of whichever thread they are called from, the blocking ones only during
calls. Zygotes and lifelines need one that never rests: so there is one thread with a loop for the whole
process, started at the first kernel and ended with the interpreter. Everything in it ends with the process
anyway, by whatever signal, as the sandboxes of a pool do.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import SandboxStartError
from sandbox_pool.jupyter.notebook_folder import why_not_shown
from sandbox_pool.jupyter_kernel import JupyterKernel
from sandbox_pool.pool_state import Kind
from sandbox_pool.starter import SandboxStarter, open_starter
from sandbox_pool.threads import in_thread

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_END_S = 30.0


class Fleet:
    """The thread and what lives in it: kernels, and a starter with zygotes for each config in use."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._workers = _Workers(thread_name_prefix="kernelfleet-work")
        self._loop.set_default_executor(self._workers)
        self._closing = threading.Lock()
        self._is_open = True
        self._numbers = itertools.count(1)
        self._starters: dict[str, asyncio.Task[SandboxStarter]] = {}
        self._kernels: dict[FleetKernel, str] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kernelfleet", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it takes kernels: not once it is closed, and not in a process forked from its own."""
        return self._is_open and self._pid == os.getpid()

    def new_kernel(self) -> FleetKernel:
        """Return a kernel that is not started yet."""
        return FleetKernel(self, next(self._numbers))

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine in the thread. Cancelling the future cancels it.

        Raises:
            RuntimeError: the fleet is closed.
        """
        with self._closing:
            if not self.is_open:
                raise RuntimeError(
                    "the kernels of this process are closed, as it ends or was forked from theirs: start "
                    "them earlier, or with a manager made here"
                )
            return asyncio.run_coroutine_threadsafe(self._run(work), self._loop)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        try:
            return await work()
        finally:
            self._calls.discard(call)

    def close(self) -> None:
        """End all kernels and zygotes, remove what is left of them, and end the thread. Idempotent.

        Blocks. Not to be called from the thread itself.
        """
        with self._closing:
            if not self.is_open:
                return
            self._is_open = False
        self._workers.is_over = True  # the interpreter may be past starting threads
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_END_S)
        except TimeoutError:
            logger.warning("kernels are left to their lifelines: they did not end in %g s", _END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._workers.shutdown(wait=False)

    async def _end(self) -> None:
        openings = [*self._starters.values()]
        calls = [*self._calls, *openings]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        kernels = [kernel.end_here() for kernel in [*self._kernels]]
        failed = await asyncio.gather(*kernels, return_exceptions=True)
        opened = [task.result() for task in openings if not task.cancelled() and task.exception() is None]
        failed += await asyncio.gather(*(starter.close() for starter in opened), return_exceptions=True)
        for error in failed:
            if error is not None:
                logger.warning("something of the kernels is left behind: %r", error)

    # -- in the thread

    async def enter(self, kernel: FleetKernel, config: PoolConfig) -> SandboxStarter:
        """Count a kernel among those of its config, and return what starts it.

        Raises:
            SandboxStartError: there are as many as the config allows.
            UnsupportedHost: this machine cannot hold sandboxes of this config.
        """
        name = config.model_dump_json()
        if sum(other == name for other in self._kernels.values()) >= config.max_sandboxes:
            raise SandboxStartError(
                "there are as many kernels of this kind as its kernel.json allows (sandbox.max_sandboxes: "
                f"{config.max_sandboxes}): shut one down, or allow more"
            )
        self._kernels[kernel] = name
        if name not in self._starters:
            self._starters[name] = asyncio.create_task(open_starter(config, trusted_code=False))
        opening = self._starters[name]
        try:
            return await asyncio.shield(opening)
        except BaseException:
            has_failed = opening.done() and (opening.cancelled() or opening.exception() is not None)
            if has_failed and self._starters.get(name) is opening:
                del self._starters[name]  # the next kernel tries again
            raise

    def leave(self, kernel: FleetKernel) -> None:
        """Count a kernel no more. Idempotent."""
        self._kernels.pop(kernel, None)


class FleetKernel:
    """One kernel over all its restarts, at the same sockets; `start` forks it, `end` leaves nothing of it.

    For any thread and any event loop; what is called meanwhile waits for its turn.
    """

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self._number = number
        self._turn = asyncio.Lock()
        self._kernel: JupyterKernel | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it can be started; else ask for another, from the fleet of this process."""
        return self._fleet.is_open

    @property
    def exit_status(self) -> int | None:
        """Exit code of the last one started, or minus a signal's number; None while it runs."""
        return self._kernel.exit_status if self._kernel is not None else 0

    async def start(self, config: PoolConfig, *, folder: Path | None, key: str) -> Path:
        """Start it, in place of the one before; when that fails or is cancelled nothing is left.

        Args:
            config: what it consists of, and its limits; its `profile` counts.
            folder: one of this machine that it sees, read-only, as `workspace`, if that may and can be.
            key: signs messages; empty: they are not signed.

        Returns:
            What the paths of its sockets begin with; see SandboxStarter.start_for_jupyter.

        Raises:
            SandboxStartError: it did not come up.
            UnsupportedHost: this machine cannot hold it.
        """
        starting = self._fleet.submit(partial(self._start, config, folder, key))
        try:
            return await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            if self._fleet.is_open:  # it may have come up at the same time
                self._fleet.submit(self.end_here)
            raise

    async def interrupt(self) -> None:
        """Interrupt the cell that runs."""
        if self._fleet.is_open and self.exit_status is None:
            await asyncio.wrap_future(self._fleet.submit(self._interrupt))

    async def end(self) -> None:
        """Kill all its processes and remove what is left of it. Idempotent."""
        if self._fleet.is_open:
            await asyncio.wrap_future(self._fleet.submit(self.end_here))

    async def wait(self) -> int:
        """Wait until it has ended by itself or was killed, and return how; see `exit_status`."""
        if self._fleet.is_open:
            await asyncio.wrap_future(self._fleet.submit(self._wait))
        return self.exit_status or 0

    # -- in the fleet's thread

    async def _start(self, config: PoolConfig, folder: Path | None, key: str) -> Path:
        async with self._turn:
            await self._discard()
            try:
                starter = await self._fleet.enter(self, config)
                shown = await in_thread(partial(self._shown, starter, folder)) if folder else None
                kind = Kind(config.profile, shown)
                self._kernel, sockets_at = await starter.start_for_jupyter(self._number, kind, key)
            except BaseException:
                self._fleet.leave(self)
                raise
            return sockets_at

    def _shown(self, starter: SandboxStarter, folder: Path) -> Path | None:
        folder = folder.resolve()
        problem = why_not_shown(
            folder,
            uid=starter.owner_of(self._number),
            is_mounted=starter.tier == "namespace",
            own_places=[starter.scratch],
        )
        if problem is None:
            return folder
        logger.warning("the kernel does not see %s: %s", folder, problem)
        return None

    async def _interrupt(self) -> None:
        if self._kernel is not None:
            self._kernel.interrupt()

    async def _wait(self) -> None:
        if self._kernel is not None:
            await self._kernel.wait_for_end()

    async def end_here(self) -> None:
        """As `end`, in the fleet's own thread."""
        async with self._turn:
            await self._discard()

    async def _discard(self) -> None:
        if self._kernel is not None:
            await self._kernel.close()
        self._fleet.leave(self)


class _Workers(ThreadPoolExecutor):
    """Threads for blocking work; at the interpreter's end, which allows none, the work is done at once."""

    is_over = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if not self.is_over:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a thread would
            future.set_exception(error)
        return future


_fleet: Fleet | None = None
_choosing = threading.Lock()


def fleet() -> Fleet:
    """Return the fleet of this process, started when there is none. From any thread."""
    global _fleet
    with _choosing:
        if _fleet is None or not _fleet.is_open:
            _fleet = Fleet()
            atexit.register(_fleet.close)
        return _fleet


def close_fleet() -> None:
    """End all kernels and zygotes of this process that Jupyter has, as the interpreter's end does. Blocks."""
    with _choosing:
        found = _fleet
    if found is not None:
        found.close()
        atexit.unregister(found.close)


def _forget() -> None:
    """Begin anew in a process that was forked: threads are not, and the kernels are its parent's."""
    global _fleet, _choosing
    if _fleet is not None:
        _inherited.append(_fleet)  # collecting its loop would disturb the parent's, whose epoll it shares
    _fleet, _choosing = None, threading.Lock()


_inherited: list[Fleet] = []
os.register_at_fork(after_in_child=_forget)
