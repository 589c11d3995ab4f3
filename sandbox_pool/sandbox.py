"""What the caller holds: one kernel in a process of its own, from its start to its end.

A sandbox is used once and then discarded: what a cell has done to the interpreter cannot be undone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TypeVar

import zmq

from sandbox_pool import files
from sandbox_pool.channel import Channel, Source
from sandbox_pool.collect import CollectedFile, CollectLimits, collect, compile_globs
from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import SandboxClosed, SandboxError, SandboxStartError, UnsupportedHost
from sandbox_pool.host import remove_tree
from sandbox_pool.messages import Cell, OutputLimits
from sandbox_pool.observation import Observation, Status
from sandbox_pool.process import KernelProcess
from sandbox_pool.settings import (
    Home,
    Identity,
    kernel_environment,
    launch_settings,
    make_home,
    max_message_bytes,
    new_key,
)
from sandbox_pool.threads import in_thread
from sandbox_pool.wire import Message

T = TypeVar("T")

logger = logging.getLogger(__name__)

_EXIT_UNSUPPORTED = 72  # of inside/launch.py
_HALF_DONE_GRACE_S = 1.0
_LAST_WORDS_S = 0.05
_NUDGE_S = 0.05
_EXECUTE = {
    "silent": False,
    "store_history": True,
    "user_expressions": {},
    "allow_stdin": False,
    "stop_on_error": False,
}


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
    """A sandbox with a real kernel. `start` makes one; `close` ends it. See `interface.Sandbox`."""

    def __init__(self, config: PoolConfig, home: Home, identity: Identity | None) -> None:
        self._config = config
        self._home = home
        self._owner = identity.uid if identity else None
        self._identity = identity
        self._process: KernelProcess | None = None
        self._channel: Channel | None = None
        self._cell: Cell | None = None
        self._changed = asyncio.Event()
        self._is_busy = False
        self._is_killed = False
        self._has_iopub = False
        self._has_shell = False
        self._has_run_code = False
        self._closing: asyncio.Task[None] | None = None
        self.listener: Callable[[Life], None] = lambda _: None
        """Called from the event loop, at most once with each; must not raise."""

        self._n_garbage = 0

    @property
    def is_alive(self) -> bool:
        """Whether a cell can still be executed."""
        return self._process is not None and self._process.is_alive and not self._is_killed

    def is_fit(self) -> bool:
        """Whether a cell can still be executed, asked of the system."""
        return self.is_alive and not self._started().has_ended()

    # -- life

    async def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Start the kernel and wait until it answers. After an error or a cancellation, call close().

        Raises:
            SandboxStartError: it did not come up within start_timeout_s.
            UnsupportedHost: this machine cannot start it.
        """
        key = new_key()
        await self._spawn(key)
        limit_s = self._config.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._until(lambda: self._started().is_listening)
                self._channel = Channel(
                    context,
                    str(self._home.socket_prefix),
                    key.encode(),
                    max_message_bytes=max_message_bytes(self._config),
                    on_message=self._on_message,
                    on_garbage=self._on_garbage,
                )
                await self._until_answering(self._channel)
        except TimeoutError:
            said = await in_thread(self._read_log)
            raise SandboxStartError(
                f"a kernel did not answer in {limit_s:g} s (start_timeout_s); it wrote: {said}"
            ) from None

    async def _spawn(self, key: str) -> None:
        await in_thread(partial(make_home, self._home, self._identity))
        settings = launch_settings(self._config, self._home, identity=self._identity, key=key)
        try:
            self._process = await KernelProcess.spawn(
                self._config.python,
                settings,
                environment=kernel_environment(self._config, self._home),
                log=self._home.log,
                on_change=self._on_process,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UnsupportedHost(f"cannot start {self._config.python} (sandbox.python): {error}") from error
        except OSError as error:  # of a moment: out of processes, descriptors or memory
            raise SandboxStartError(
                f"cannot start a process for a kernel: {error}; lower sandbox.max_sandboxes, or raise what "
                "this machine allows (ulimit -u, ulimit -n)"
            ) from error

    async def close(self) -> None:
        """See `interface.Sandbox`. The work goes on when the wait for it is cancelled."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self.listener(Life.CLOSING)
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._kill()
            await in_thread(self._remove_folders)
        except OSError as error:
            logger.warning("sandbox folder is left behind: path=%s error=%s", self._home.top, error)
        finally:
            self.listener(Life.CLOSED)

    def _remove_folders(self) -> None:
        remove_tree(self._home.top)
        remove_tree(self._home.log)

    async def _kill(self) -> None:
        self._is_killed = True
        self._changed.set()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            await self._process.kill()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._process is None or not self._process.is_alive or self._is_killed:
                await self._raise_start_error()
            self._changed.clear()
            await self._changed.wait()

    async def _until_answering(self, channel: Channel) -> None:
        """Ask until both a reply and an iopub message came: a reply alone does not prove the subscription."""
        while not (self._has_iopub and self._has_shell):
            channel.request("kernel_info_request", {})
            try:
                async with asyncio.timeout(_NUDGE_S):
                    await self._until(lambda: self._has_iopub and self._has_shell)
            except TimeoutError:
                continue

    async def _raise_start_error(self) -> None:
        said = await in_thread(self._read_log)
        status = self._process.exit_status if self._process else None
        if status == _EXIT_UNSUPPORTED:
            raise UnsupportedHost(said)
        raise SandboxStartError(f"a kernel ended while it started (exit status {status}); it wrote: {said}")

    def _read_log(self) -> str:
        """Return the end of what the kernel wrote before it was one."""
        try:
            text = self._home.log.read_bytes()[-2000:].decode("utf-8", "replace").strip()
        except OSError:
            text = ""
        return text or "nothing"

    # -- events, from the loop

    def _started(self) -> KernelProcess:
        assert self._process is not None, "used before start()"
        return self._process

    def _on_process(self) -> None:
        self._changed.set()
        if self._process is not None and not self._process.is_alive:
            self.listener(Life.ENDED)

    def _on_message(self, source: Source, message: Message) -> None:
        if source == "iopub":
            self._has_iopub = True
        else:
            self._has_shell = True
        if self._cell is None or self._cell.add(source, message):
            self._changed.set()

    def _on_garbage(self, problem: str) -> None:
        self._n_garbage += 1

    # -- cells

    async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
        """See `interface.Sandbox`."""
        self._check_open()
        if self._is_busy:
            raise SandboxError("a cell is running in this sandbox: wait for it, or close the sandbox")
        if not self.is_alive or self._channel is None:
            return Observation(status=self._cause_of_death(), kernel_alive=False)
        self._is_busy = True
        try:
            if not self._has_run_code and not await self._answers(self._channel):
                await self._kill()
                self._check_open()
                return Observation(status=Status.SANDBOX_FAULT, kernel_alive=False)
            return await self._execute(self._channel, code, timeout_s)
        except BaseException:
            # Mostly a cancellation. The cell runs on, so that nothing more can be asked of this kernel.
            self._is_killed = True
            self._started().start_kill()
            raise
        finally:
            self._is_busy = False
            self._cell = None

    async def _answers(self, channel: Channel) -> bool:
        """Whether the kernel is there: before its first cell, nothing that the code did can have ended it."""
        self._has_shell = False
        try:
            channel.request("kernel_info_request", {})
            async with asyncio.timeout(self._config.start_timeout_s):
                while self.is_alive and not self._has_shell:
                    self._changed.clear()
                    await self._changed.wait()
        except (TimeoutError, zmq.ZMQError):
            return False
        return self._has_shell

    async def _execute(self, channel: Channel, code: str, timeout_s: float) -> Observation:
        began_at = time.perf_counter()
        text = code.encode("utf-8", "backslashreplace").decode()
        try:
            msg_id = channel.request("execute_request", {"code": text, **_EXECUTE})
        except zmq.ZMQError:  # the cell before has broken the connection
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
        return cell.observation(status, duration_s=duration_s, kernel_alive=self.is_alive)

    async def _end(self, cell: Cell, channel: Channel, timeout_s: float) -> tuple[Status | None, bool]:
        """Wait for a cell's end, or make it end.

        Returns:
            How it ended, None if by itself; and whether the kernel is fit for another cell.
        """
        end = await self._wait(cell, timeout_s)
        if end in (_End.DEADLINE, _End.OUTPUT):
            self._started().interrupt()
            after = await self._wait(cell, self._config.interrupt_grace_s, until_budget=False)
            return (Status.TIMEOUT if end is _End.DEADLINE else Status.OUTPUT_LIMIT), after is _End.DONE
        if end is _End.DEAD:
            await self._last_words(channel)
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
                    self._changed.clear()
                    if not cell.has_reply and not cell.is_idle:
                        await self._changed.wait()
                    elif not await self._hears_more():
                        return _End.HALF_DONE
        except TimeoutError:
            return _End.DEADLINE

    async def _hears_more(self) -> bool:
        """Whether anything comes within the grace that the second sign of completion gets."""
        try:
            async with asyncio.timeout(_HALF_DONE_GRACE_S):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _last_words(self, channel: Channel) -> None:
        """Take in what a dead kernel had sent before its end, which zmq's thread may still be reading."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                while True:
                    self._changed.clear()
                    channel.drain()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _cause_of_death(self) -> Status:
        if not self._has_run_code and not self._is_killed:
            return Status.SANDBOX_FAULT
        status = self._started().exit_status
        return Status.CPU_LIMIT if status == -signal.SIGXCPU else Status.DIED

    def _output_limits(self) -> OutputLimits:
        config = self._config
        return OutputLimits(
            config.max_output_bytes, config.max_text_bytes, config.max_images, config.max_image_bytes
        )

    # -- files

    async def put(self, path: str, data: bytes | Path) -> None:
        """See `interface.Sandbox`."""
        await self._on_files(lambda work: files.write_file(work, path, data, owner=self._owner))

    async def make_folder(self, path: str) -> None:
        """See `interface.Sandbox`."""
        await self._on_files(lambda work: files.make_folder(work, path, owner=self._owner))

    async def read(self, path: str) -> bytes:
        """See `interface.Sandbox`."""
        max_bytes = self._config.max_read_bytes
        return await self._on_files(lambda work: files.read_file(work, path, max_bytes))

    async def collect(self, globs: Sequence[str], *, into: Path | None = None) -> list[CollectedFile]:
        """See `interface.Sandbox`."""
        self._check_open()
        compile_globs(globs)  # a wrong one is an error before the kernel is gone
        config = self._config
        limits = CollectLimits(
            config.max_collect_files, config.max_collect_bytes, config.max_collect_depth, config.max_collect_s
        )
        await self._kill()
        return await self._on_files(lambda work: collect(work, globs, limits=limits, into=into))

    async def _on_files(self, do: Callable[[int], T]) -> T:
        self._check_open()
        return await in_thread(partial(self._in_work, do))

    def _in_work(self, do: Callable[[int], T]) -> T:
        work = os.open(self._home.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return do(work)
        finally:
            os.close(work)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise SandboxClosed("this sandbox is closed: acquire another")
