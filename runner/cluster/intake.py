"""Writes what workers send into the run directory, in the order in which it came."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.cluster.messages import (
    Answer,
    Batch,
    FilePart,
    Happened,
    Incomplete,
    Recorded,
    StagedFile,
    TurnDone,
)
from runner.errors import JournalError, write_error
from runner.journal import ARTIFACTS, INFLIGHT, Journal, TurnLog
from runner.journal.lines import repair_torn_line
from runner.plan import Attempt

Put = FilePart | StagedFile | TurnDone
Pictures = tuple[tuple[str, bytes], ...]


class Intake:
    """The driver's part of a journal. A line is written when every file that it names is on disk."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._broken: set[str] = set()
        """Attempts of which a turn or a file could not be written: no turn is recorded behind it."""

    async def take(self, batch: Batch, worker: str, is_owner: Callable[[str], bool]) -> dict[int, Answer]:
        """Write what messages say of attempts that are their worker's; return the answers to lines.

        What another worker has been given meanwhile is passed over. Never raises for a disk that cannot be
        written: that is the answer to the line.
        """
        pending: dict[int, asyncio.Task[Answer]] = {}
        waiting: list[Put] = []
        async with asyncio.TaskGroup() as writing:  # cancelled or not, none writes on behind this
            for number, message in enumerate(batch.messages, start=batch.first):
                match message:
                    case Happened(at, name, details):
                        self._event(name, {**details, "at": at, "worker": worker})
                    case Recorded(attempt):
                        await self._put(waiting)
                        work = self._record(message) if is_owner(attempt) else _passed_over()
                        pending[number] = writing.create_task(work)
                    case FilePart(attempt) | StagedFile(attempt) | TurnDone(attempt) if is_owner(attempt):
                        waiting.append(message)
                    case _:
                        pass
            await self._put(waiting)
        return {number: task.result() for number, task in pending.items()}

    def recorded(self, attempt: Attempt) -> tuple[bytes | None, Pictures]:
        """Return what is recorded of an attempt, and the pictures that go with it. Blocks."""
        path = self._journal.run_dir / INFLIGHT / f"{attempt.name}.jsonl"
        try:
            repair_torn_line(path)
            turns = path.read_bytes()
        except (OSError, JournalError):
            return None, ()
        return turns, tuple(self._pictures(attempt, turns))

    def _pictures(self, attempt: Attempt, turns: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield those that turns name and that can be read: its worker says what is gone."""
        folder, prefix = self._journal.artifacts_dir(attempt.sample.id, attempt.epoch)
        for file in sorted(folder.rglob("*")):
            name = f"{prefix}/{file.relative_to(folder).as_posix()}"
            # Names are JSON there, and those of pictures need no escapes.
            if name.encode() in turns and file.is_file() and not file.is_symlink():
                with suppress(OSError):
                    yield name, file.read_bytes()

    async def _put(self, waiting: list[Put]) -> None:
        """Write what waits, in order, in one thread: a shared file system may take long over each."""
        if waiting:
            messages = tuple(waiting)
            waiting.clear()
            await asyncio.to_thread(self._put_all, messages)

    def _put_all(self, messages: tuple[Put, ...]) -> None:
        for message in messages:
            if not isinstance(message, TurnDone):
                self._put_file(message)
            elif message.attempt not in self._broken:
                self._put_turn(message)

    def _event(self, name: str, details: dict[str, Any]) -> None:
        with suppress(JournalError):  # the line after it will say it
            self._journal.event(name, **details)

    def _put_turn(self, message: TurnDone) -> None:
        log = TurnLog(self._journal.run_dir, message.attempt, dict(message.header))
        (log.restart if message.replaces else log.continued)()
        try:
            log.append(message.line)
        except JournalError:  # a trajectory without a log still counts, but not one with a gap in it
            self._broken.add(message.attempt)

    def _put_file(self, message: FilePart | StagedFile) -> None:
        """Put a file into its place. Where that fails, a line that names it will not be written."""
        path = self._path(message.path)
        try:
            try:
                self._place(message, path)
            except (FileExistsError, IsADirectoryError, NotADirectoryError):
                _make_way(path, self._folder_of(message.attempt)[0])
                self._place(message, path)
        except OSError as error:
            self._broken.add(message.attempt)
            self._journal.trouble = self._journal.trouble or write_error(path, error)

    def _place(self, message: FilePart | StagedFile, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(message, FilePart):
            _write_part(path, message)
            return
        path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # its worker was lost, and its folder with it
            _link_or_copy(self._journal.run_dir / message.source, path)

    def _folder_of(self, attempt: str) -> tuple[Path, str]:
        sample_id, _, epoch = attempt.rpartition("@")
        return self._journal.artifacts_dir(sample_id, int(epoch))

    def _path(self, name: str) -> Path:
        if not name.startswith(f"{ARTIFACTS}/") or ".." in name.split("/"):
            raise JournalError(f"{name}: no path of an artifact")
        return self._journal.run_dir / name

    async def _record(self, message: Recorded) -> Answer:
        try:
            await asyncio.to_thread(self._check_files, message)
        except JournalError as error:
            return Incomplete(str(error))
        try:
            if message.is_failure:
                await self._journal.append_failure(message.line)
                return True
            is_on_disk = await self._journal.append(message.attempt, message.line)
        except JournalError as error:
            self._journal.trouble = self._journal.trouble or error
            return str(error)
        if is_on_disk:
            TurnLog(self._journal.run_dir, message.attempt, {}).remove()
        return is_on_disk

    def _check_files(self, message: Recorded) -> None:
        """Leave exactly the files of an attempt in its folder. Raises JournalError if one is not whole."""
        for name, n_bytes in message.files:
            path = self._path(name)
            try:
                size = path.stat().st_size
            except OSError as error:
                raise write_error(path, error) from error
            if size != n_bytes:
                raise JournalError(f"cannot write {path}: {size} of {n_bytes} bytes arrived")
        folder, prefix = self._folder_of(message.attempt)
        _remove_others(folder, {name.removeprefix(f"{prefix}/") for name, _ in message.files})


async def _passed_over() -> Answer:
    return True


def _write_part(path: Path, part: FilePart) -> None:
    with path.open("r+b" if part.offset else "wb") as file:
        file.seek(part.offset)
        file.write(part.data)
        if part.is_last:
            file.flush()
            os.fsync(file.fileno())


def _link_or_copy(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or another one
        shutil.copyfile(source, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _make_way(path: Path, folder: Path) -> None:
    """Remove what an attempt's owner before has left in its folder: a file for a folder, or the reverse."""
    for parent in reversed(path.parents):
        if folder in parent.parents and not parent.is_dir():
            parent.unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)


def _remove_others(folder: Path, kept: set[str]) -> None:
    for path in folder.rglob("*") if folder.is_dir() else ():
        if not path.is_dir() and path.relative_to(folder).as_posix() not in kept:
            path.unlink(missing_ok=True)
