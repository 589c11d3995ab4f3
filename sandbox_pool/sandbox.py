"""What the caller holds: one kernel in a sandbox of its own, from its start to its end.

A sandbox is used once and then discarded: what a cell has done to the interpreter cannot be undone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from sandbox_pool.cell_end import End, cause_of_death, limits_hit, wait_for_end
from sandbox_pool.channel import Channel
from sandbox_pool.collect import CollectedFile, compile_globs
from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import (
    SandboxClosed,
    SandboxError,
    SandboxSetupError,
    SandboxStartError,
    UnsupportedHost,
)
from sandbox_pool.files import SYMBOLIC_LINK
from sandbox_pool.heard import Heard
from sandbox_pool.host.cgroups import Counters, Group
from sandbox_pool.interface import SandboxSpec
from sandbox_pool.lifeline import Lifeline, mark_of
from sandbox_pool.messages import Cell, OutputLimits
from sandbox_pool.observation import Observation, Status
from sandbox_pool.threads import in_thread
from sandbox_pool.work_folder import WorkFolder

logger = logging.getLogger(__name__)

_MAX_WHY_CHARS = 2000
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
        self._remove_rest = remove
        self._release: Callable[[], None] = lambda: None
        self._group: Group | None = None
        self._lifeline: Lifeline | None = None
        self._channel: Channel | None = None
        self._folder = WorkFolder(config, owner)
        self.heard = Heard()
        """What has been heard of its kernel."""

        self._has_workspace = False
        self._is_busy = False
        self._is_killed = False
        self._counters = _NOT_COUNTED
        self._n_cells = 0
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

    def own_folder(self, descriptor: int | None) -> None:
        """Take over its working directory; None: init will send it."""
        self._folder.open(descriptor)

    def hold(
        self, lifeline: Lifeline, channel: Channel, group: Group | None, release: Callable[[], None]
    ) -> None:
        """Take over what was made for this sandbox.

        Args:
            lifeline: of its init.
            channel: to its kernel.
            group: what bounds and counts it; None where there are no cgroups.
            release: called from the event loop when nothing of it runs any more.
        """
        self._lifeline = lifeline
        self._channel = channel
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
        await self._until(lambda: self.heard.is_ready and self._held().has_kernel)
        self._folder.open(self._held().take_work())

    async def wait_until_answering(self, ask: Callable[[], object], nudge_s: float) -> None:
        """Ask until both a reply and an iopub message came: a reply alone does not prove the subscription.

        Raises like wait_until_ready.
        """
        heard = self.heard
        while not (heard.has_iopub and heard.has_shell):
            ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(nudge_s):
                    await self._until(lambda: heard.has_iopub and heard.has_shell)

    async def prepare(self, spec: SandboxSpec) -> None:
        """Make it what its caller asked for: its seed, its setup cell.

        Raises:
            SandboxSetupError: the setup cell failed.
            SandboxStartError: the kernel died.
        """
        self._has_workspace = spec.workspace is not None
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
        if seen.status is Status.SANDBOX_FAULT:
            raise SandboxStartError("the sandbox died before its first cell")
        if seen.status is Status.OK and seen.kernel_alive:
            return
        why = seen.error.traceback if seen.error else f"status {seen.status}"
        raise SandboxSetupError(f"{problem}: {why[-_MAX_WHY_CHARS:]}")

    async def close(self) -> None:
        """See `interface.Sandbox`. The work goes on when the wait for it is cancelled."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
            self.listener(Life.CLOSING)
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._kill()
            await self._folder.close()
            await in_thread(self._remove_rest)
        except OSError as error:
            logger.warning("something of a sandbox is left behind: error=%s", error)
        finally:
            self._release()
            self.listener(Life.CLOSED)

    async def _kill(self) -> None:
        self._is_killed = True
        self.heard.changed.set()
        if self._channel is not None:
            self._channel.close()
        if self._lifeline is not None:
            await self._lifeline.kill()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            lifeline = self._held()
            if lifeline.error is not None or not self.is_alive:
                self._raise_start_error(lifeline)
            await self.heard.something()

    def _raise_start_error(self, lifeline: Lifeline) -> None:
        kind, text = lifeline.error or ("", "")
        if kind == "unsupported":
            raise UnsupportedHost(text)
        wrote = f"it wrote: {self.heard.early_text()}"
        said = f"{text}; {wrote}" if text else wrote
        raise SandboxStartError(
            f"a kernel ended while it started (exit status {lifeline.exit_status}): {said}"
        )

    def _held(self) -> Lifeline:
        assert self._lifeline is not None, "used before hold()"
        return self._lifeline

    def _talk(self) -> Channel:
        assert self._channel is not None, "used before hold()"
        return self._channel

    def on_lifeline(self) -> None:
        """Hear that init has said something or is gone."""
        self.heard.changed.set()
        if self._lifeline is not None and not self._lifeline.is_alive:
            self.listener(Life.ENDED)

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
        if not self.heard.has_begun and not self.is_fit():
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
            self.heard.cell = None

    async def _execute(self, code: str, timeout_s: float, how: dict[str, object]) -> Observation:
        began_at = time.perf_counter()
        channel = self._talk()
        channel.drain()  # what was written since the last cell belongs to none
        text = code.encode("utf-8", "backslashreplace").decode()
        self._n_cells += 1
        mark = mark_of(self._n_cells)
        try:
            msg_id = channel.request("execute_request", {"code": text, "mark": mark, **how})
        except OSError:  # the cell before has broken the connection
            await self._kill()
            whose = Status.PROTOCOL if self.heard.has_begun else Status.SANDBOX_FAULT
            return Observation(status=whose, kernel_alive=False)
        cell = self.heard.begin(Cell(msg_id, self._output_limits()), is_told=self._is_lean)
        status, is_sound = await self._end(cell, channel, mark, timeout_s)
        if not is_sound:
            await self._kill()
        self._check_open()
        duration_s = time.perf_counter() - began_at
        return self._observe(cell, status, duration_s)

    def _observe(self, cell: Cell, status: Status | None, duration_s: float) -> Observation:
        counters = self._group.counters() if self._group else _NOT_COUNTED
        hit = limits_hit(self._counters, counters)
        self._counters = counters
        if status is Status.DIED and "memory" in hit and self._held().exit_status == -signal.SIGKILL:
            status = Status.MEMORY
        return cell.observation(
            status,
            duration_s=duration_s,
            kernel_alive=self.is_alive,
            limits_hit=hit,
            peak_memory_bytes=counters.peak_memory_bytes,
        )

    async def _end(
        self, cell: Cell, channel: Channel, mark: int, timeout_s: float
    ) -> tuple[Status | None, bool]:
        """Wait for a cell's end, or make it end.

        Returns:
            How it ended, None if by itself; and whether the kernel is fit for another cell.
        """
        end = await self._wait(cell, timeout_s)
        if end in (End.DEADLINE, End.OUTPUT):
            self._held().interrupt(mark)
            after = await self._wait(cell, self._config.interrupt_grace_s, until_budget=False)
            return (Status.TIMEOUT if end is End.DEADLINE else Status.OUTPUT_LIMIT), after is End.DONE
        if end is End.DEAD:
            await channel.last_words()
            return self._cause_of_death(), False
        if end is End.HALF_DONE or self.heard.n_garbage or cell.n_malformed:
            return (Status.PROTOCOL if self.heard.has_begun else Status.SANDBOX_FAULT), False
        return (Status.OUTPUT_LIMIT if cell.is_over_budget else None), not cell.is_exiting

    async def _wait(self, cell: Cell, limit_s: float, *, until_budget: bool = True) -> End:
        return await wait_for_end(cell, self.heard, lambda: self.is_alive, limit_s, until_budget=until_budget)

    def _cause_of_death(self) -> Status:
        status, has_begun = self._held().exit_status, self.heard.has_begun
        return cause_of_death(status, has_begun=has_begun, was_killed=self._is_killed)

    def _output_limits(self) -> OutputLimits:
        config = self._config
        return OutputLimits(
            config.max_output_bytes, config.max_text_bytes, config.max_images, config.max_image_bytes
        )

    # -- files

    async def put(self, path: str, data: bytes | Path) -> None:
        """See `interface.Sandbox`."""
        self._check_open()
        await self._folder.put(path, data)

    async def make_folder(self, path: str) -> None:
        """See `interface.Sandbox`."""
        self._check_open()
        await self._folder.make_folder(path)

    async def read(self, path: str) -> bytes:
        """See `interface.Sandbox`."""
        self._check_open()
        return await self._folder.read(path)

    async def collect(self, globs: Sequence[str], *, into: Path | None = None) -> list[CollectedFile]:
        """See `interface.Sandbox`."""
        self._check_open()
        compile_globs(globs)  # a wrong one is an error before the kernel is gone
        await self._kill()
        self._check_open()
        found = await self._folder.collect(globs, into=into)
        return [file for file in found if not self._is_our_link(file)]

    def _is_our_link(self, file: CollectedFile) -> bool:
        return self._has_workspace and file.path == "workspace" and file.problem == SYMBOLIC_LINK

    def _check_open(self) -> None:
        if self._closing is not None:
            raise SandboxClosed("this sandbox is closed: acquire another")
