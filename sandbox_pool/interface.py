"""What a caller may expect of a pool and a sandbox, real or fake."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox_pool.collect import CollectedFile
from sandbox_pool.observation import Observation


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Which sandbox a caller wants."""

    profile: str | None = None
    """Name of one of the config's profiles; None: the one that the config names."""

    seed: int | None = None
    """What `random` and `numpy.random` start from (modulo 2**32); None: anything."""

    setup: str | None = None
    """A cell that runs before the sandbox is handed out, whose output nobody sees."""

    workspace: Path | None = None
    """Folder of this machine that the code sees, read-only, as `workspace` in its working directory."""


DEFAULT_SPEC = SandboxSpec()


class Sandbox(Protocol):
    """A leased sandbox: one stateful kernel in a working directory of its own.

    Used by one task at a time; only `close` may be called while another method runs.
    """

    async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
        """Run one cell and return what it did, however it ended.

        When the kernel is dead, by an earlier cell for one, the observation says `died` at once.
        Cancelling kills the kernel: what the cell left half done is not worth keeping.

        Args:
            code: Python, as a cell of a notebook.
            timeout_s: after so long it is interrupted, and killed if that does not help.

        Raises:
            SandboxClosed: after close().
            SandboxError: another cell is running.
        """
        ...

    async def put(self, path: str, data: bytes | Path) -> None:
        """Write a file, with its parents, from bytes or as a copy of a file of this machine.

        Raises:
            SandboxPathError: `path` is not beneath the working directory.
            SandboxClosed: after close().
            OSError: `data` cannot be read, or the disk is full.
        """
        ...

    async def make_folder(self, path: str) -> None:
        """Make a folder, with its parents. Raises like put."""
        ...

    async def read(self, path: str) -> bytes:
        """Return a file as it is now. The content is the model's, and may change meanwhile.

        Raises:
            SandboxPathError: no regular file beneath the working directory, or over max_read_bytes.
            SandboxClosed: after close().
        """
        ...

    async def collect(self, globs: Sequence[str], *, into: Path | None = None) -> list[CollectedFile]:
        """Kill the kernel, then take the files that match; nothing can be executed afterwards.

        Args:
            globs: relative; `*` stays within a folder, `**` does not.
            into: folder of ours to copy them below, synced to disk; None: return their content.

        Raises:
            SandboxPathError: a glob leaves the working directory.
            SandboxClosed: after close().
            OSError: `into` cannot be written.
        """
        ...

    async def close(self) -> None:
        """Kill everything and remove the working directory. Idempotent, completes when cancelled."""
        ...


class Pool(Protocol):
    """Hands out sandboxes."""

    def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AbstractAsyncContextManager[Sandbox]:
        """Lease a sandbox for the length of a block, and close it at the end.

        Callers are served in the order in which they came. Safe to cancel at any point.

        Raises:
            UnknownProfile: the config has no profile of that name.
            SandboxSetupError: the setup cell failed; it would fail again.
            PoolTimeout: none became free within acquire_timeout_s.
            SandboxStartError: the one meant for this caller did not start.
            UnsupportedHost: this machine cannot start any.
            SandboxClosed: the pool is closed, or was while waiting.
        """
        ...
