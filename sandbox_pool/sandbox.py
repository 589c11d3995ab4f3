"""What the caller holds: one kernel in a sandbox of its own, from its start to its end.

A sandbox is used once and then discarded: what a cell has done to the interpreter cannot be undone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TypeVar

from sandbox_pool import files
from sandbox_pool.cgroups import Counters, Group
from sandbox_pool.channel import Channel, Source
from sandbox_pool.collect import CollectedFile, CollectLimits, collect, compile_globs
from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import (
    SandboxClosed,
    SandboxError,
    SandboxSetupError,
    SandboxStartError,
    UnsupportedHost,
)
from sandbox_pool.interface import SandboxSpec
from sandbox_pool.lifeline import Lifeline
from sandbox_pool.messages import Cell, OutputLimits, StreamName
from sandbox_pool.observation import Observation, Status
from sandbox_pool.threads import in_thread
from sandbox_pool.wire import Message

T = TypeVar("T")

logger = logging.getLogger(__name__)

_HALF_DONE_GRACE_S = 1.0
_MAX_EARLY_BYTES = 2000
_EXECUTE = {
    "silent": False,
    "store_history": True,
    "user_expressions": {},
    "allow_stdin": False,
    "stop_on_error": False,
}
_NOT_COUNTED = Counters()
_HIDDEN = {**_EXECUTE, "silent": True, "store_history": False}


class Life(Enum):
    """What a sandbox tells its pool."""

    ENDED = auto()
    """The kernel's process has ended, for whatever reason."""

    CLOSING = auto()
    CLOSED = auto()
    """Nothing is left of it."""


class _End(Enum):
    """What ended the wait for a cell."""

    DONE = auto()
    HALF_DONE = auto()
    DEAD = auto()
    DEADLINE = auto()
    OUTPUT = auto()


class KernelSandbox:
    """A sandbox with a real kernel; a Starter makes one, `close` ends it. See `interface.Sandbox`.

    Args:
        config: the pool's.
        is_lean: whether its kernel is our own, which has requests of its own.
        owner: uid that its files belong to, if it is not ours.
        remove: called in a thread when nothing of it runs any more: removes what is left of it here.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        is_lean: bool,
        owner: int | None,
        remove: Callable[[], None],
    ) -> None:
        self._config = config
        self._is_lean = is_lean
        self._owner = owner
        self._remove_rest = remove
        self._release: Callable[[], None] = lambda: None
        self._group: Group | None = None
        self._lifeline: Lifeline | None = None
        self._channel: Channel | None = None
        self._work: int | None = None
        self._cell: Cell | None = None
        self._changed = asyncio.Event()
        self._early_text = b""
        self._is_busy = False
        self._is_killed = False
        self._is_ready = False
        self._is_cut_off = False
        self._files_in_use = asyncio.Lock()
        self._has_iopub = False
        self._has_shell = False
        self._has_run_code = False
        self._counters = _NOT_COUNTED
        self._n_garbage = 0
        self._closing: asyncio.Task[None] | None = None
        self.listener: Callable[[Life], None] = lambda _: None
        """Called from the event loop, at most once with each; must not raise."""

    @property
    def is_alive(self) -> bool:
        """Whether a cell can still be executed."""
        return self._lifeline is not None and self._lifeline.is_alive and not self._is_killed

    def is_fit(self) -> bool:
        """Whether a cell can still be executed, asked of the system."""
        return self.is_alive and not self._held().has_ended()

    # -- life

    def hold(
        self,
        lifeline: Lifeline,
        channel: Channel,
        work: int | None,
        group: Group | None,
        release: Callable[[], None],
    ) -> None:
        """Take over what was made for this sandbox.

        Args:
            lifeline: of its init.
            channel: to its kernel.
            work: descriptor of its working directory; None: init sends it.
            group: what bounds and counts it; None where there are no cgroups.
            release: called from the event loop when nothing of it runs any more.
        """
        self._lifeline = lifeline
        self._channel = channel
        self._work = work
        self._group = group
        self._release = release

    def use(self, channel: Channel) -> None:
        """Talk to the kernel by another channel from now on, which closes the one before."""
        self._channel = channel

    async def wait_until_ready(self) -> None:
        """Wait until the kernel takes requests.

        Raises:
            SandboxStartError: it ended instead.
            UnsupportedHost: this machine cannot start it.
        """
        await self._until(lambda: self._is_ready and self._held().has_kernel)
        if self._work is None:
            self._work = self._held().take_work()

    async def wait_until_answering(self, ask: Callable[[], object], nudge_s: float) -> None:
        """Ask until both a reply and an iopub message came: a reply alone does not prove the subscription.

        Raises like wait_until_ready.
        """
        while not (self._has_iopub and self._has_shell):
            ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(nudge_s):
                    await self._until(lambda: self._has_iopub and self._has_shell)

    async def prepare(self, spec: SandboxSpec) -> None:
        """Make it what its caller asked for: its seed, its setup cell.

        Raises:
            SandboxSetupError: the setup cell failed.
            SandboxStartError: the kernel died.
        """
        if spec.seed is not None:
            await self._seed(spec.seed)
        if spec.setup is not None:
            await self._set_up(spec.setup)

    async def _seed(self, seed: int) -> None:
        if self._is_lean:
            with suppress(OSError):  # dead: the first cell tells
                self._talk().request("seed_request", {"seed": seed})
            return
        code = (
            f"__import__('random').seed({seed})\n"
            f"try: __import__('numpy').random.seed({seed % 2**32})\n"
            "except ImportError: pass"
        )
        await self._run_hidden(code, "the random seed could not be set")

    async def _set_up(self, setup: str) -> None:
        await self._run_hidden(setup, "the setup cell failed")

    async def _run_hidden(self, code: str, problem: str) -> None:
        seen = await self._run(code, self._config.start_timeout_s, _HIDDEN)
        self._has_run_code = False
        if seen.status is Status.SANDBOX_FAULT:
            raise SandboxStartError("the sandbox died before its first cell")
        if seen.status is Status.OK and seen.kernel_alive:
            return
        why = seen.error.traceback if seen.error else f"status {seen.status}"
        raise SandboxSetupError(f"{problem}: {why[-_MAX_EARLY_BYTES:]}")

    async def close(self) -> None:
        """See `interface.Sandbox`. The work goes on when the wait for it is cancelled."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self.listener(Life.CLOSING)
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._kill()
            async with self._files_in_use:
                await in_thread(self._remove)
        except OSError as error:
            logger.warning("something of a sandbox is left behind: error=%s", error)
        finally:
            self._release()
            self.listener(Life.CLOSED)

    def _remove(self) -> None:
        """Give back what it held. Closing its folder frees a file system, which takes a while."""
        if self._work is not None:
            os.close(self._work)
            self._work = None
        self._remove_rest()

    async def _kill(self) -> None:
        self._is_killed = True
        self._changed.set()
        if self._channel is not None:
            self._channel.close()
        if self._lifeline is not None:
            await self._lifeline.kill()
            if self._work is None:
                self._work = self._lifeline.take_work()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            lifeline = self._held()
            if lifeline.error is not None or not self.is_alive:
                self._raise_start_error(lifeline)
            self._changed.clear()
            await self._changed.wait()

    def _raise_start_error(self, lifeline: Lifeline) -> None:
        kind, text = lifeline.error or ("", "")
        if kind == "unsupported":
            raise UnsupportedHost(text)
        said = f"{text}; it wrote: {self.early_text()}" if text else f"it wrote: {self.early_text()}"
        raise SandboxStartError(
            f"a kernel ended while it started (exit status {lifeline.exit_status}): {said}"
        )

    def early_text(self) -> str:
        """Return the end of what was written before the first cell."""
        return self._early_text.decode("utf-8", "replace").strip() or "nothing"

    # -- events, from the loop: the Listener of its channel

    def _held(self) -> Lifeline:
        assert self._lifeline is not None, "used before hold()"
        return self._lifeline

    def _talk(self) -> Channel:
        assert self._channel is not None, "used before hold()"
        return self._channel

    def on_lifeline(self) -> None:
        """Hear that init has said something or is gone."""
        self._changed.set()
        if self._lifeline is not None and not self._lifeline.is_alive:
            self.listener(Life.ENDED)

    def on_ready(self) -> None:
        """See `Listener`."""
        self._is_ready = True
        self._changed.set()

    def on_message(self, source: Source, message: Message) -> None:
        """See `Listener`."""
        if source == "iopub":
            self._has_iopub = True
        else:
            self._has_shell = True
        if self._cell is None or self._cell.add(source, message):
            self._changed.set()

    def on_text(self, name: StreamName, data: bytes) -> None:
        """See `Listener`."""
        if self._cell is not None:
            self._cell.add_text(name, data)
            if self._cell.is_over_budget:
                self._changed.set()
        elif not self._has_run_code:
            self._early_text = (self._early_text + data)[-_MAX_EARLY_BYTES:]

    def on_skipped(self, n_bytes: int) -> None:
        """See `Listener`."""
        if self._cell is not None:
            self._cell.add_skipped(n_bytes)
            self._changed.set()

    def on_cut_off(self) -> None:
        """See `Listener`."""
        self._is_cut_off = True
        self._changed.set()

    def on_garbage(self, problem: str) -> None:
        """See `Listener`."""
        self._n_garbage += 1
        self._changed.set()

    # -- cells

    async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
        """See `interface.Sandbox`."""
        return await self._run(code, timeout_s, _EXECUTE)

    async def _run(self, code: str, timeout_s: float, how: dict[str, object]) -> Observation:
        self._check_open()
        if self._is_busy:
            raise SandboxError("a cell is running in this sandbox: wait for it, or close the sandbox")
        if not self.is_alive:
            return Observation(status=self._cause_of_death(), kernel_alive=False)
        if not self._has_run_code and not self.is_fit():
            # Nothing that the code did can have ended it.
            await self._kill()
            return Observation(status=Status.SANDBOX_FAULT, kernel_alive=False)
        self._is_busy = True
        try:
            return await self._execute(code, timeout_s, how)
        except BaseException:
            # Mostly a cancellation. The cell runs on, so that nothing more can be asked of this kernel.
            self._is_killed = True
            self._held().start_kill()
            raise
        finally:
            self._is_busy = False
            self._cell = None

    async def _execute(self, code: str, timeout_s: float, how: dict[str, object]) -> Observation:
        began_at = time.perf_counter()
        channel = self._talk()
        channel.drain()  # what was written since the last cell belongs to none
        text = code.encode("utf-8", "backslashreplace").decode()
        try:
            msg_id = channel.request("execute_request", {"code": text, **how})
        except OSError:  # the cell before has broken the connection
            await self._kill()
            return Observation(status=Status.PROTOCOL, kernel_alive=False)
        self._cell = cell = Cell(msg_id, self._output_limits())
        self._has_run_code = True
        self._n_garbage = 0
        status, is_sound = await self._end(cell, channel, timeout_s)
        if not is_sound:
            await self._kill()
        self._check_open()
        duration_s = time.perf_counter() - began_at
        return self._observe(cell, status, duration_s)

    def _observe(self, cell: Cell, status: Status | None, duration_s: float) -> Observation:
        counters = self._group.counters() if self._group else _NOT_COUNTED
        limits_hit = self._limits_hit(counters)
        if status is Status.DIED and "memory" in limits_hit and self._held().exit_status == -signal.SIGKILL:
            status = Status.MEMORY
        return cell.observation(
            status,
            duration_s=duration_s,
            kernel_alive=self.is_alive,
            limits_hit=limits_hit,
            peak_memory_bytes=counters.peak_memory_bytes,
        )

    def _limits_hit(self, counters: Counters) -> tuple[str, ...]:
        """Return which limits the system has enforced since the last cell."""
        before, self._counters = self._counters, counters
        memory = ("memory",) if (counters.n_oom_kills or 0) > (before.n_oom_kills or 0) else ()
        pids = ("pids",) if (counters.n_denied_forks or 0) > (before.n_denied_forks or 0) else ()
        return memory + pids

    async def _end(self, cell: Cell, channel: Channel, timeout_s: float) -> tuple[Status | None, bool]:
        """Wait for a cell's end, or make it end.

        Returns:
            How it ended, None if by itself; and whether the kernel is fit for another cell.
        """
        end = await self._wait(cell, timeout_s)
        if end in (_End.DEADLINE, _End.OUTPUT):
            self._held().interrupt()
            after = await self._wait(cell, self._config.interrupt_grace_s, until_budget=False)
            return (Status.TIMEOUT if end is _End.DEADLINE else Status.OUTPUT_LIMIT), after is _End.DONE
        if end is _End.DEAD:
            await channel.last_words()
            return self._cause_of_death(), False
        if end is _End.HALF_DONE or self._n_garbage or cell.n_malformed:
            return Status.PROTOCOL, False
        return (Status.OUTPUT_LIMIT if cell.is_over_budget else None), not cell.is_exiting

    async def _wait(self, cell: Cell, limit_s: float, *, until_budget: bool = True) -> _End:
        """Wait until the cell is done, or something else ends the wait."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    if cell.has_reply and cell.is_idle:
                        return _End.DONE
                    if not self.is_alive:
                        return _End.DEAD
                    if until_budget and cell.is_over_budget:
                        return _End.OUTPUT
                    if self._n_garbage:
                        return _End.HALF_DONE
                    self._changed.clear()
                    if not (cell.has_reply or cell.is_idle or self._is_cut_off):
                        await self._changed.wait()
                    elif not await self._hears_more():
                        return _End.HALF_DONE
        except TimeoutError:
            return _End.DEADLINE

    async def _hears_more(self) -> bool:
        """Whether anything comes within the grace that the second sign of completion, or of death, gets."""
        try:
            async with asyncio.timeout(_HALF_DONE_GRACE_S):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _cause_of_death(self) -> Status:
        status = self._held().exit_status
        if status is None and not self._is_killed:
            return Status.SANDBOX_FAULT  # init or the zygote was killed: no cell can do that
        if not self._has_run_code and not self._is_killed:
            return Status.SANDBOX_FAULT
        return Status.CPU_LIMIT if status == -signal.SIGXCPU else Status.DIED

    def _output_limits(self) -> OutputLimits:
        config = self._config
        return OutputLimits(
            config.max_output_bytes, config.max_text_bytes, config.max_images, config.max_image_bytes
        )

    # -- files

    async def put(self, path: str, data: bytes | Path) -> None:
        """See `interface.Sandbox`."""
        await self._on_files(partial(files.write_file, self._folder(), path, data, owner=self._owner))

    async def make_folder(self, path: str) -> None:
        """See `interface.Sandbox`."""
        await self._on_files(partial(files.make_folder, self._folder(), path, owner=self._owner))

    async def read(self, path: str) -> bytes:
        """See `interface.Sandbox`."""
        return await self._on_files(
            partial(files.read_file, self._folder(), path, self._config.max_read_bytes)
        )

    async def collect(self, globs: Sequence[str], *, into: Path | None = None) -> list[CollectedFile]:
        """See `interface.Sandbox`."""
        self._check_open()
        compile_globs(globs)  # a wrong one is an error before the kernel is gone
        config = self._config
        limits = CollectLimits(
            config.max_collect_files,
            config.max_collect_bytes,
            config.max_collect_depth,
            config.max_collect_s,
        )
        await self._kill()
        return await self._on_files(partial(collect, self._folder(), globs, limits=limits, into=into))

    def _folder(self) -> int:
        self._check_open()
        if self._work is None:
            raise SandboxError("this sandbox has no working directory: it did not start")
        return self._work

    async def _on_files(self, work: Callable[[], T]) -> T:
        async with self._files_in_use:
            return await in_thread(work)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise SandboxClosed("this sandbox is closed: acquire another")
