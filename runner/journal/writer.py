"""The run directory: finished attempts as JSON lines, durable and torn-line-safe.

A line of `trajectories.jsonl` means that every file it names is on disk: artifacts are written and
synced first. Lines are written at once and synced every `sync_interval_s`: a killed process loses
nothing that was finished, a lost machine at most that interval. A torn last line is cut off when the
run directory is opened again, and only its attempt runs again.

When the disk is full, finished attempts are held in memory, up to a bound, and written as soon as
there is space; the run is told to end (`trouble`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from runner.encoding import encode_line
from runner.errors import DiskFull, JournalError, write_error
from runner.journal.appender import Appender
from runner.journal.inflight import INFLIGHT, SUFFIX, TurnLog
from runner.journal.lines import AppendOnlyFile, repair_torn_line
from runner.journal.lock import take_lock
from runner.journal.reader import ARTIFACTS, CONFIG, EVENTS, FAILURES, TRAJECTORIES, read_trajectories

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Of finished attempts that wait for space on the disk."""


class Journal:
    """The writer of one run directory. Entering it takes a lock, so that there is one at a time."""

    def __init__(self, run_dir: Path, sync_interval_s: float = 1.0) -> None:
        self.run_dir = run_dir
        self.done: set[str] = set()
        """Attempts that have a line, by name."""

        self.unfinished: set[str] = set()
        """Attempts that an earlier process began and did not finish, whose turns are recorded."""

        self.trouble: JournalError | None = None
        """Why nothing more can be written; the run must come to an end."""

        self._sync_interval_s = sync_interval_s
        self._stop_syncing = threading.Event()
        self._held: list[bytes] = []

    def __enter__(self) -> Self:
        """Lock, repair and read the run directory, and begin to sync it.

        Raises:
            JournalError: another runner holds it, it is not writable, or a line that is not the last
                cannot be read; names file and line.
        """
        self._lock_fd = take_lock(self.run_dir)
        try:
            n_torn_bytes = sum(repair_torn_line(self.run_dir / n) for n in (TRAJECTORIES, FAILURES, EVENTS))
            self.done = {row["attempt"] for row in read_trajectories(self.run_dir)}
            self.unfinished = self._open_inflight()
            self._trajectories = AppendOnlyFile(self.run_dir / TRAJECTORIES)
            self._failures = AppendOnlyFile(self.run_dir / FAILURES)
            self._events = AppendOnlyFile(self.run_dir / EVENTS)
        except BaseException:
            os.close(self._lock_fd)
            raise
        if n_torn_bytes:
            self.event("torn_line_repaired", n_bytes=n_torn_bytes)
        self._appender = Appender()
        self._syncer = threading.Thread(target=self._sync_often, name="journal-sync", daemon=True)
        self._syncer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is held, sync and close everything. Raises JournalError if not all is on disk."""
        self._appender.close()
        self._stop_syncing.set()
        self._syncer.join()
        try:
            self._write_held()
            for file in (self._trajectories, self._failures, self._events):
                file.close()
        finally:
            os.close(self._lock_fd)
        if self.trouble is not None and error is None:
            raise self.trouble

    async def append(self, attempt: str, line: bytes) -> bool:
        """Append a finished attempt; its artifacts must be on disk already. Return whether it is written.

        It is tried whatever `trouble` there was: that of one attempt need not be another's. A
        cancellation waits for the write. On a full disk the line is held and `trouble` set.

        Raises:
            JournalError: the line is not written and not held.
        """
        assert attempt not in self.done, f"{attempt} has a line already"
        try:
            await _finish(self._appender.append(self._trajectories, line))
        except DiskFull as error:
            self._hold(line, error)
            return False
        finally:
            self.done.add(attempt)
        return True

    async def append_failure(self, line: bytes) -> None:
        """Append an attempt that failed by our fault or was cancelled; a resume runs it again.

        Raises JournalError, on a full disk too: nothing is lost, the attempt counts as not begun.
        """
        await _finish(self._appender.append(self._failures, line))

    def event(self, name: str, **details: Any) -> None:
        """Append what happened to the run itself. Where it cannot be written, `trouble` is set."""
        try:
            self._events.append(encode_line({"at": time.time(), "event": name, **details}))
        except JournalError as error:
            self.trouble = self.trouble or error

    def turn_log(self, attempt: str, header: dict[str, Any]) -> TurnLog:
        """Return the write-ahead of an attempt's turns."""
        return TurnLog(self.run_dir, attempt, header)

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
        """Return the folder of an attempt's artifacts, and its name below the run directory."""
        name = f"{ARTIFACTS}/{sample_id}/{epoch}"
        return self.run_dir / name, name

    def _open_inflight(self) -> set[str]:
        folder = self.run_dir / INFLIGHT
        try:
            folder.mkdir(exist_ok=True)
            names = {path.name.removesuffix(SUFFIX): path for path in folder.glob(f"*{SUFFIX}")}
            for name in names.keys() & self.done:
                names.pop(name).unlink()
        except OSError as error:
            raise write_error(folder, error) from error
        return set(names)

    def _hold(self, line: bytes, error: DiskFull) -> None:
        self.trouble = error
        if sum(map(len, self._held)) + len(line) > MAX_HELD_BYTES:
            raise error
        self._held.append(line)

    def _write_held(self) -> None:
        """Write the held lines, as many as there is space for; the others' attempts run again."""
        n_written = 0
        with suppress(JournalError):
            for line in self._held:
                self._trajectories.append(line)
                n_written += 1
        n_lost = len(self._held) - n_written
        if n_lost:
            self.trouble = DiskFull(
                f"{self.trouble}. {n_lost} finished attempts found no space and run again"
            )
        self._held.clear()

    def _sync_often(self) -> None:
        while not self._stop_syncing.wait(self._sync_interval_s):
            try:
                for file in (self._trajectories, self._failures, self._events):
                    file.sync()
            except JournalError as error:
                self.trouble = error
                return


def empty_artifacts(path: Path, *, keep: str | None = None) -> None:
    """Remove what an earlier try or a killed run left in an attempt's folder, but for one folder. Blocks."""
    if keep is None:
        shutil.rmtree(path, ignore_errors=True)
        return
    for child in path.iterdir() if path.is_dir() else ():
        if child.name == keep:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)


async def _finish(written: asyncio.Future[None]) -> None:
    """Wait until a line is written. What cancels the caller meanwhile reaches it at its next wait.

    So whoever has its line knows of it.
    """
    task = asyncio.current_task()
    assert task is not None, "always within a task"
    n_cancelled = 0
    while not written.done():
        try:
            await asyncio.wait([written])
        except asyncio.CancelledError:
            task.uncancel()
            n_cancelled += 1
    for _ in range(n_cancelled):
        task.cancel()
    written.result()
