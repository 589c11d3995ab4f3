"""The run directory: finished attempts as JSON lines, durable and torn-line-safe.

A line of `trajectories.jsonl` means that every file it names is on disk: artifacts are written and
synced first. Each line is one write, flushed at once and synced every `sync_interval_s`: a killed
process loses nothing that was finished, a lost machine at most that interval. A torn last line is cut
off when the run directory is opened again, and only its attempt runs again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from runner.encoding import encode_line
from runner.errors import JournalError, write_error
from runner.journal.lines import AppendOnlyFile, repair_torn_line
from runner.journal.reader import ARTIFACTS, CONFIG, EVENTS, FAILURES, TRAJECTORIES, read_trajectories
from runner.records import Trajectory

LOCK = ".lock"


class Journal:
    """The writer of one run directory. Entering it takes a lock, so that there is one at a time."""

    def __init__(self, run_dir: Path, sync_interval_s: float = 1.0) -> None:
        self.run_dir = run_dir
        self._sync_interval_s = sync_interval_s
        self._stop_syncing = threading.Event()
        self._sync_error: JournalError | None = None
        self.done: set[str] = set()
        """Attempts that have a line, by name."""

    def __enter__(self) -> Self:
        """Lock, repair and read the run directory, and begin to sync it.

        Raises:
            JournalError: another runner holds it, it is not writable, or a line that is not the last
                cannot be read; names file and line.
        """
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self.run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_error(self.run_dir, error) from error
        try:
            self._take_lock()
            n_torn_bytes = sum(repair_torn_line(self.run_dir / n) for n in (TRAJECTORIES, FAILURES, EVENTS))
            self.done = {row["attempt"] for row in read_trajectories(self.run_dir)}
            self._trajectories = AppendOnlyFile(self.run_dir / TRAJECTORIES)
            self._failures = AppendOnlyFile(self.run_dir / FAILURES)
            self._events = AppendOnlyFile(self.run_dir / EVENTS)
        except BaseException:
            os.close(self._lock_fd)
            raise
        if n_torn_bytes:
            self.event("torn_line_repaired", n_bytes=n_torn_bytes)
        self._syncer = threading.Thread(target=self._sync_often, name="journal-sync", daemon=True)
        self._syncer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sync and close everything. Raises JournalError when a line may not have reached the disk."""
        self._stop_syncing.set()
        self._syncer.join()
        try:
            for file in (self._trajectories, self._failures, self._events):
                file.close()
        finally:
            os.close(self._lock_fd)
        if self._sync_error is not None and error is None:
            raise self._sync_error

    async def append(self, trajectory: Trajectory) -> None:
        """Append a finished attempt; its artifacts must be on disk already.

        The write is not cut short by cancellation. Raises JournalError, also when an earlier line
        could not be synced.
        """
        assert trajectory.attempt not in self.done, f"{trajectory.attempt} has a line already"
        await self._append(self._trajectories, trajectory)
        self.done.add(trajectory.attempt)

    async def append_failure(self, trajectory: Trajectory) -> None:
        """Append an attempt that failed by our fault or was cancelled; a resume runs it again."""
        await self._append(self._failures, trajectory)

    def event(self, name: str, **details: Any) -> None:
        """Append what happened to the run itself."""
        self._events.append(encode_line({"at": time.time(), "event": name, **details}))

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `config.json`, whole or not at all."""
        path = self.run_dir / CONFIG
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise write_error(path, error) from error

    def artifacts_dir(self, sample_id: str, epoch: int) -> tuple[Path, str]:
        """Return the empty folder of an attempt's artifacts, and its name below the run directory.

        What an earlier try or a killed run left there is removed. Blocks.
        """
        name = f"{ARTIFACTS}/{sample_id}/{epoch}"
        path = self.run_dir / name
        shutil.rmtree(path, ignore_errors=True)
        return path, name

    async def _append(self, file: AppendOnlyFile, trajectory: Trajectory) -> None:
        if self._sync_error is not None:
            raise self._sync_error
        writing = asyncio.ensure_future(asyncio.to_thread(_encode_and_append, file, trajectory))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"{self.run_dir} is in use by another runner; wait for it, or choose another --run-dir"
            ) from error

    def _sync_often(self) -> None:
        while not self._stop_syncing.wait(self._sync_interval_s):
            try:
                for file in (self._trajectories, self._failures, self._events):
                    file.sync()
            except JournalError as error:
                self._sync_error = error
                return


def _encode_and_append(file: AppendOnlyFile, trajectory: Trajectory) -> None:
    file.append(encode_line(trajectory))
