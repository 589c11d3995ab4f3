"""A pool and a sandbox without kernels: scripted observations, failures and delays, for tests."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandbox_pool.collect import CollectedFile, compile_globs
from sandbox_pool.errors import SandboxClosed, SandboxPathError
from sandbox_pool.files import split_path
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from sandbox_pool.observation import Observation, Status
from sandbox_pool.pool import PoolStatistics

Reply = Observation | BaseException
"""What a cell gives: an observation, or an exception that execute() raises."""

Script = Iterable[Reply] | Callable[[str], Reply | Awaitable[Reply]]
"""Replies one by one, or a function from the code to a reply; one that waits makes a delay."""


class FakeSandbox:
    """A sandbox that answers from a script; see `interface.Sandbox`. Files are kept in a dict.

    When a list of replies has ended, cells end in Observation(status=OK) without output.
    """

    def __init__(self, script: Script = (), *, on_close: Callable[[], None] | None = None) -> None:
        self._function: Callable[[str], Reply | Awaitable[Reply]] | None = (
            script if callable(script) else None
        )
        self._replies: Iterator[Reply] = iter(()) if callable(script) else iter(script)
        self._on_close = on_close
        self._is_alive = True
        self.executed: list[str] = []
        """The code of every cell, in order."""

        self.timeouts_s: list[float] = []
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.is_closed = False

    async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
        """See `interface.Sandbox`."""
        self._check_open()
        if not self._is_alive:
            return Observation(status=Status.DIED, kernel_alive=False)
        self.executed.append(code)
        self.timeouts_s.append(timeout_s)
        try:
            reply = await self._reply(code)
        except asyncio.CancelledError:
            self._is_alive = False
            raise
        if isinstance(reply, BaseException):
            raise reply
        self._is_alive = reply.kernel_alive
        return reply

    async def _reply(self, code: str) -> Reply:
        await asyncio.sleep(0)
        if self._function is None:
            return next(self._replies, Observation(status=Status.OK))
        reply = self._function(code)
        return reply if isinstance(reply, Observation | BaseException) else await reply

    async def put(self, path: str, data: bytes | Path) -> None:
        """See `interface.Sandbox`."""
        self._check_open()
        name = "/".join(split_path(path))
        if any(name.startswith(f"{known}/") or known.startswith(f"{name}/") for known in self.files):
            raise SandboxPathError(f"{path!r} is a folder, or runs through a file")
        self.files[name] = data if isinstance(data, bytes) else _content(data)

    async def make_folder(self, path: str) -> None:
        """See `interface.Sandbox`."""
        self._check_open()
        self.folders.add("/".join(split_path(path)))

    async def read(self, path: str) -> bytes:
        """See `interface.Sandbox`."""
        self._check_open()
        name = "/".join(split_path(path))
        if name not in self.files:
            raise SandboxPathError(f"{path!r} cannot be read: no such file")
        return self.files[name]

    async def collect(self, globs: Sequence[str], *, into: Path | None = None) -> list[CollectedFile]:
        """See `interface.Sandbox`."""
        self._check_open()
        pattern = compile_globs(globs)
        self._is_alive = False
        taken = []
        for path, data in sorted(self.files.items()):
            if pattern.match(path):
                digest = hashlib.sha256(data).hexdigest()
                taken.append(CollectedFile(path, len(data), digest, None if into else data))
                if into is not None:
                    (into / path).parent.mkdir(parents=True, exist_ok=True)
                    (into / path).write_bytes(data)
        return taken

    async def close(self) -> None:
        """See `interface.Sandbox`."""
        if not self.is_closed:
            self.is_closed = True
            if self._on_close is not None:
                self._on_close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise SandboxClosed("this sandbox is closed: acquire another")


def _content(path: Path) -> bytes:
    return path.read_bytes()


class FakePool:
    """A pool of FakeSandboxes; see `interface.Pool`.

    Args:
        script: a new script for each sandbox, given the number of sandboxes made before.
        start_error: raised by every acquire().
    """

    def __init__(
        self, script: Callable[[int], Script] | None = None, *, start_error: BaseException | None = None
    ) -> None:
        self._script = script
        self._start_error = start_error
        self.sandboxes: list[FakeSandbox] = []
        """All that were handed out, in order."""

        self.specs: list[SandboxSpec] = []
        """What was asked for, in order; a fake runs no setup cell."""

        self.n_leased = 0
        self.max_leased = 0
        """The most that were leased at one time."""

    def statistics(self) -> PoolStatistics:
        """Return the same numbers as a real pool that starts nothing ahead, and never refuses."""
        n = len(self.sandboxes)
        return PoolStatistics(
            tier="none",
            max_sandboxes=sys.maxsize,
            n_idle=0,
            n_starting=0,
            n_leased=self.n_leased,
            n_closing=0,
            n_waiting=0,
            n_started=n,
            n_failed_starts=0,
            n_closed=n - self.n_leased,
            n_hits=n,
            n_misses=0,
            n_denied=0,
            start_p50_s=None,
            start_p99_s=None,
        )

    async def __aenter__(self) -> FakePool:
        """Do nothing: a fake holds nothing."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close all sandboxes."""
        for sandbox in self.sandboxes:
            await sandbox.close()

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
        """See `interface.Pool`. Never waits for a free one."""
        self.specs.append(spec)
        await asyncio.sleep(0)
        if self._start_error is not None:
            raise self._start_error
        script = self._script(len(self.sandboxes)) if self._script else ()
        sandbox = FakeSandbox(script, on_close=self._on_close)
        self.sandboxes.append(sandbox)
        self.n_leased += 1
        self.max_leased = max(self.max_leased, self.n_leased)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    def capabilities(self) -> dict[str, Any]:
        """Return the record of a pool that runs nothing."""
        return {"tier": "none", "kernel": "fake"}

    def _on_close(self) -> None:
        self.n_leased -= 1
