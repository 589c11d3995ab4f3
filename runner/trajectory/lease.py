"""The sandbox of one try: leased at its first action, filled, replaced when its kernel dies, collected."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from bench_data import Sample, SampleFile
from runner.gate import Gate
from runner.records import ArtifactRecord
from runner.trajectory.artifacts import writing
from sandbox_pool import (
    CollectedFile,
    Observation,
    Pool,
    Sandbox,
    SandboxError,
    SandboxPathError,
    SandboxSpec,
    Status,
)
from sandbox_pool.collect import compile_globs

OUTPUT_FOLDER = "output"
CARRIED_FOLDER = ".carried"
"""In the folder of an attempt's artifacts, while files move from a dead sandbox to a fresh one."""


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """Where sandboxes come from, and how many may be leased at once."""

    pool: Pool
    gate: Gate
    artifact_globs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArtifactsFolder:
    """Where the files of an attempt go."""

    path: Path
    prefix: str
    """Its name below the run directory."""


class Lease:
    """An async context manager that ends with the sandbox closed and its slot free.

    `on_wait` is told when waiting for a sandbox begins (True) and ends (False).
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        sample: Sample,
        folder: ArtifactsFolder,
        *,
        seed: int,
        on_wait: Callable[[bool], None] = lambda waits: None,
    ) -> None:
        self._sandboxes = sandboxes
        self._sample = sample
        self._folder = folder
        self._on_wait = on_wait
        self._spec = SandboxSpec(
            profile=sample.profile, seed=seed, setup=sample.setup, workspace=sample.workspace
        )
        self._stack = AsyncExitStack()
        self._sandbox: Sandbox | None = None
        self._has_slot = False
        self._carried: list[CollectedFile] | None = None
        """What a dead sandbox left, while no other holds it."""

        self.wait_s = 0.0
        """Until sandboxes were there, with their setup cells run."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sandbox, if there is one."""
        try:
            await self._stack.aclose()
            if self._carried is not None:
                await self._drop_carried()
        finally:
            if self._has_slot:
                self._has_slot = False
                self._sandboxes.gate.release()

    async def execute(self, code: str, timeout_s: Callable[[], float]) -> Observation:
        """Run a cell; `timeout_s` is asked once a sandbox is there.

        When the kernel did not outlive the cell, a fresh one is there with the files that it left.

        Raises:
            SandboxError: our fault, not the code's.
        """
        sandbox = self._sandbox = self._sandbox or await self._first_sandbox()
        observation = await sandbox.execute(code, timeout_s=timeout_s())
        if observation.status is Status.SANDBOX_FAULT:
            raise SandboxError("the sandbox broke by our fault (status sandbox_fault)")
        if not observation.kernel_alive:
            await self._replace_kernel(sandbox)
        return observation

    async def collect(self) -> list[ArtifactRecord]:
        """Kill the kernel and take the files that the run keeps, synced to disk.

        Those of a dead kernel, where the time for another sandbox was not there.
        """
        if self._sandbox is None:
            return await asyncio.to_thread(self._keep_carried)
        with writing(self._folder.path):
            files = await self._sandbox.collect(self._sandboxes.artifact_globs, into=self._folder.path)
        return [_artifact_record(self._folder.prefix, file) for file in files]

    async def _lease(self) -> Sandbox:
        began_at = time.perf_counter()
        self._on_wait(True)
        try:
            if not self._has_slot:
                await self._sandboxes.gate.acquire()
                self._has_slot = True
            return await self._stack.enter_async_context(self._sandboxes.pool.acquire(self._spec))
        finally:
            self._on_wait(False)
            self.wait_s += time.perf_counter() - began_at

    async def _first_sandbox(self) -> Sandbox:
        """Lease a sandbox and put the sample's files in."""
        sandbox = await self._lease()
        try:
            await sandbox.make_folder(OUTPUT_FOLDER)
        except OSError as error:
            raise SandboxError(f"no folder {OUTPUT_FOLDER} can be made: {error}") from error
        for file in self._sample.files:
            try:
                await self._put_input(sandbox, file)
            except OSError as error:
                what = f"input {file.path} of {self._sample.id} cannot be copied"
                raise SandboxError(f"{what}: {error}") from error
        return sandbox

    async def _put_input(self, sandbox: Sandbox, file: SampleFile) -> None:
        content = file.content
        data = content if isinstance(content, Path) else await asyncio.to_thread(content)
        await sandbox.put(file.path, data)

    async def _replace_kernel(self, dead: Sandbox) -> None:
        """Go on after a kernel died: a fresh sandbox, with the files that the dead one left."""
        folder = self._carried_folder
        self._carried = []
        with writing(folder):
            self._carried = await dead.collect(["**"], into=folder)
        self._sandbox = None
        await dead.close()
        sandbox = await self._lease()
        kept = [file.path for file in self._carried if file.problem is None]
        try:
            await self._carry(sandbox, kept, folder)
        except OSError as error:
            raise SandboxError(f"files cannot be carried to a fresh sandbox: {error}") from error
        self._sandbox = sandbox
        await self._drop_carried()

    async def _drop_carried(self) -> None:
        self._carried = None
        await asyncio.to_thread(partial(shutil.rmtree, self._carried_folder, ignore_errors=True))

    def _keep_carried(self) -> list[ArtifactRecord]:
        """Move what the run keeps out of the folder of carried files, which are synced. Blocks."""
        pattern = compile_globs(self._sandboxes.artifact_globs)
        files = [file for file in self._carried or () if pattern.match(file.path)]
        folders = set()
        with writing(self._folder.path):
            for file in files:
                if file.problem is None:
                    target = self._folder.path / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (self._carried_folder / file.path).rename(target)
                    folders |= {p for p in target.parents if p.is_relative_to(self._folder.path)}
            for folder in folders:
                sync_folder(folder)
        return [_artifact_record(self._folder.prefix, file) for file in files]

    @property
    def _carried_folder(self) -> Path:
        return self._folder.path / CARRIED_FOLDER

    async def _carry(self, sandbox: Sandbox, kept: list[str], folder: Path) -> None:
        """Fill a sandbox as the one before was, whatever the code had put where something else was.

        A file may be where an input's folder was, or where the setup cell or the workspace is again; and
        the disk may be full without the inputs that the code has removed.
        """
        for path in kept:
            with _what_can_be():
                await sandbox.put(path, folder / path)
        with _what_can_be():
            await sandbox.make_folder(OUTPUT_FOLDER)
        for file in self._sample.files:
            if file.path not in kept:
                with _what_can_be():
                    await self._put_input(sandbox, file)


@contextmanager
def _what_can_be() -> Iterator[None]:
    """Leave out what something is in the way of, or what there is no space for: the code's doing, both."""
    try:
        yield
    except SandboxPathError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on disk. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _artifact_record(prefix: str, file: CollectedFile) -> ArtifactRecord:
    return ArtifactRecord(
        path=f"{prefix}/{file.path}", bytes=file.n_bytes, sha256=file.sha256, problem=file.problem
    )
