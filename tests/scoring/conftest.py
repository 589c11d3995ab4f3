"""Sandboxes without walls: the readers run in a plain process in a temporary folder."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench_data.checks import Check
from sandbox_pool import DEFAULT_SPEC, Observation, SandboxPathError, SandboxSpec, Status
from scoring.facts import INSIDE
from scoring.requests import facts_key, file_checks, request_of


class SubprocessSandbox:
    """What scoring uses of a sandbox; a cell is a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codes: list[str] = []

    async def put(self, path: str, data: bytes | Path) -> None:
        """Write a file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data if isinstance(data, bytes) else data.read_bytes())

    async def execute(self, code: str, timeout_s: float = 10.0) -> Observation:
        """Execute a cell in a fresh interpreter."""
        self.codes.append(code)
        argv = [sys.executable, "-c", code]
        done = await asyncio.to_thread(subprocess.run, argv, cwd=self.folder, timeout=timeout_s)
        return Observation(Status.OK if done.returncode == 0 else Status.ERROR)

    async def read(self, path: str) -> bytes:
        """Return a file."""
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            raise SandboxPathError(f"{path}: no such file") from None


class SubprocessPool:
    """A pool of `sandbox_class`; remembers the sandboxes that it has handed out."""

    def __init__(self, folder: Path, sandbox_class: type[SubprocessSandbox] = SubprocessSandbox) -> None:
        self.folder = folder
        self.sandbox_class = sandbox_class
        self.leased: list[SubprocessSandbox] = []

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[SubprocessSandbox]:
        """Lease an empty folder, but for a link to the workspace, as real ones have it."""
        folder = self.folder / f"sandbox-{len(self.leased)}"
        folder.mkdir(parents=True)
        if spec.workspace is not None:
            (folder / "workspace").symlink_to(spec.workspace)
        self.leased.append(self.sandbox_class(folder))
        yield self.leased[-1]


@pytest.fixture
def make_pool(tmp_path: Path) -> Callable[..., SubprocessPool]:
    """Return a function that makes a pool, of plain or of other sandboxes."""
    return lambda kind=SubprocessSandbox: SubprocessPool(tmp_path / "pool", kind)


@pytest.fixture
def sandbox_kind() -> type[SubprocessSandbox]:
    """The class to derive misbehaving sandboxes from."""
    return SubprocessSandbox


@pytest.fixture
def extract(tmp_path: Path) -> Callable[[Check], dict[str, dict[str, Any]]]:
    """Return a function that reads the files below `tmp_path/files` for a check, as a sandbox would."""

    def read(check: Check) -> dict[str, dict[str, Any]]:
        parts = {facts_key(part): request_of(part) for part in file_checks(check)}
        request, facts = tmp_path / "request.json", tmp_path / "facts"
        request.write_text(json.dumps(list(parts.values())))
        argv = [sys.executable, INSIDE / "extract.py", request, facts, "nonce", tmp_path / "files"]
        subprocess.run(argv, cwd=tmp_path, check=True)
        lines = [line.split(" ", 2) for line in facts.read_text().splitlines()]
        assert [line[:2] for line in lines] == [["nonce", str(index)] for index in range(len(parts))]
        return dict(zip(parts, (json.loads(line[2]) for line in lines), strict=True))

    return read
