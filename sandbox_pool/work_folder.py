"""The working directory of one sandbox, known by a descriptor: its files in, out, and away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from sandbox_pool import files
from sandbox_pool.collect import CollectedFile, CollectLimits, collect
from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import SandboxError
from sandbox_pool.threads import in_thread

T = TypeVar("T")


class WorkFolder:
    """Does in threads, one at a time, what `interface.Sandbox` says of files. `close` it.

    Args:
        config: the pool's.
        owner: uid that the files belong to, if it is not ours.
    """

    def __init__(self, config: PoolConfig, owner: int | None) -> None:
        self._config = config
        self._owner = owner
        self._descriptor: int | None = None
        self._in_use = asyncio.Lock()

    def open(self, descriptor: int | None) -> None:
        """Take over a descriptor of the folder; None is none."""
        if descriptor is not None:
            self._descriptor = descriptor

    async def put(self, path: str, data: bytes | Path) -> None:
        """Write a file. Raises SandboxPathError, OSError."""
        await self._work(lambda folder: files.write_file(folder, path, data, owner=self._owner))

    async def make_folder(self, path: str) -> None:
        """Make a folder. Raises SandboxPathError, OSError."""
        await self._work(lambda folder: files.make_folder(folder, path, owner=self._owner))

    async def read(self, path: str) -> bytes:
        """Return a file. Raises SandboxPathError."""
        return await self._work(lambda folder: files.read_file(folder, path, self._config.max_read_bytes))

    async def collect(self, globs: Sequence[str], *, into: Path | None) -> list[CollectedFile]:
        """Take files; nothing may write any more. Raises SandboxPathError, OSError."""
        config = self._config
        limits = CollectLimits(
            config.max_collect_files,
            config.max_collect_bytes,
            config.max_collect_depth,
            config.max_collect_s,
        )
        return await self._work(lambda folder: collect(folder, globs, limits=limits, into=into))

    async def close(self) -> None:
        """Give the folder up, after what is being done in it; idempotent."""
        async with self._in_use:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                await in_thread(partial(os.close, descriptor))  # frees a file system, which takes a while

    async def _work(self, do: Callable[[int], T]) -> T:
        async with self._in_use:
            if self._descriptor is None:
                raise SandboxError("this sandbox has no working directory: it did not start, or is closed")
            return await in_thread(partial(do, self._descriptor))
