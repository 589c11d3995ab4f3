"""What the scheduler of a worker records in: a folder of its own node, from which all goes to the driver.

Turns go in batches, a few times a second, behind the pictures that they name. A line goes behind all
files of its attempt, and counts as written when the driver says so. Where the worker sees the run
directory, its folder lies there, and files are told of instead of sent.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from runner.cluster.messages import (
    Answer,
    Assignment,
    FilePart,
    Happened,
    Incomplete,
    Recorded,
    StagedFile,
    TurnDone,
)
from runner.cluster.outbox import Outbox
from runner.errors import JournalError
from runner.journal import ARTIFACTS, INFLIGHT, TurnLog
from runner.records import Owner, StopReason
from runner.telemetry.statistics import FinishedAttempt

PART_BYTES = 1 << 20


class RemoteJournal:
    """A journal whose lines another process writes; see `AttemptJournal`."""

    def __init__(self, folder: Path, outbox: Outbox, *, staged_as: str | None = None) -> None:
        """`staged_as`: the folder's name in the run directory, where the driver sees it; None: it cannot."""
        self.run_dir = folder
        self.done: set[str] = set()
        self.unfinished: set[str] = set()
        self.trouble: JournalError | None = None
        self._outbox = outbox
        self._staged_as = staged_as
        self._sent: defaultdict[str, set[str]] = defaultdict(set)
        """Of each attempt, the files that the driver has or will have before anything else."""

        (folder / INFLIGHT).mkdir(parents=True, exist_ok=True)

    def take(self, assignment: Assignment) -> None:
        """Put down what is recorded of an attempt, so that it goes on from there. Blocks.

        Raises OSError.
        """
        if assignment.turns is None:
            return
        (self.run_dir / INFLIGHT / f"{assignment.attempt}.jsonl").write_bytes(assignment.turns)
        for path, data in assignment.pictures:
            (self.run_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (self.run_dir / path).write_bytes(data)
        self._sent[assignment.attempt] = {path for path, _ in assignment.pictures}
        self.unfinished.add(assignment.attempt)

    async def append(self, attempt: str, line: bytes) -> bool:
        """Send a finished attempt with its files; return whether the driver has written the line.

        Not cut short by cancellation. Raises JournalError when the driver cannot write any line. Where only
        this attempt's files are not there as they should be, it has ended without a line, and the driver
        hands it out again.
        """
        is_written = await _to_the_end(self._record(orjson.loads(line), line, is_failure=False))
        if is_written:
            self.done.add(attempt)
        return is_written

    async def append_failure(self, line: bytes) -> None:
        """Send an attempt that failed by our fault or was cancelled, as `append` does."""
        await _to_the_end(self._record(orjson.loads(line), line, is_failure=True))

    def event(self, name: str, **details: Any) -> None:
        """Send what happened."""
        self._outbox.put(Happened(time.time(), name, details))

    def turn_log(self, attempt: str, header: dict[str, Any]) -> TurnLog:
        """Return a write-ahead whose turns are sent, too."""
        return _SentTurnLog(self, attempt, header)

    def artifacts_dir(self, sample_id: str, epoch: int) -> tuple[Path, str]:
        """See `AttemptJournal`."""
        name = f"{ARTIFACTS}/{sample_id}/{epoch}"
        return self.run_dir / name, name

    def forget_sent(self, attempt: str) -> None:
        """Send the files of an attempt that begins again, though some of these names were sent before."""
        self._sent.pop(attempt, None)

    def send_turn(self, attempt: str, header: dict[str, Any], line: bytes, *, replaces: bool) -> None:
        """Send a turn, behind its pictures. Blocks while they are read. Raises OSError."""
        if b'"artifacts":[],' not in line:
            for artifact in orjson.loads(line)["artifacts"]:
                for part in self._parts(attempt, artifact["path"]):
                    self._put(part)
        self._outbox.put(TurnDone(attempt, header, line, replaces), n_bytes=len(line))

    async def _record(self, row: dict[str, Any], line: bytes, *, is_failure: bool) -> bool:
        attempt = row["attempt"]
        folder, prefix = self.artifacts_dir(row["sample_id"], row["epoch"])
        files = await asyncio.to_thread(partial(_files_of, folder, prefix))
        try:
            for path, _ in files:
                await self._send_file(attempt, path)
        except OSError as error:
            raise JournalError(f"{folder}: a file of {attempt} cannot be read: {error}") from error
        message = Recorded(attempt, line, tuple(files), _summary(row), is_failure)
        answer: Answer = await self._outbox.ask(message, n_bytes=len(line))
        if isinstance(answer, str):
            raise JournalError(answer)
        if isinstance(answer, Incomplete):
            self.forget_sent(attempt)
            self.event("record_incomplete", attempt=attempt, reason=answer.why)
            return False
        if not is_failure:  # another process of this run, or another worker, may go on with a failed one
            await asyncio.to_thread(partial(shutil.rmtree, folder, ignore_errors=True))
        self.forget_sent(attempt)
        return answer

    async def _send_file(self, attempt: str, path: str) -> None:
        if path in self._sent[attempt]:
            return
        parts = self._parts(attempt, path)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            await self._outbox.room()
            self._put(part)

    def _parts(self, attempt: str, path: str) -> Iterator[FilePart | StagedFile]:
        """Yield the messages that make up a file; none for one that was sent. Blocks. Raises OSError."""
        if path in self._sent[attempt]:
            return
        if self._staged_as is not None:
            yield StagedFile(attempt, path, f"{self._staged_as}/{path}")
        else:
            yield from _read_parts(attempt, path, self.run_dir / path)
        self._sent[attempt].add(path)

    def _put(self, part: FilePart | StagedFile) -> None:
        n_bytes = len(part.data) if isinstance(part, FilePart) else 0
        self._outbox.put(part, n_bytes=n_bytes)


class _SentTurnLog(TurnLog):
    def __init__(self, journal: RemoteJournal, attempt: str, header: dict[str, Any]) -> None:
        super().__init__(journal.run_dir, attempt, header)
        self._journal = journal
        self._attempt = attempt
        self._sent_header = header

    def restart(self) -> None:
        """Replace all turns at the next one; the attempt's files are others, too."""
        super().restart()
        self._journal.forget_sent(self._attempt)

    def append(self, line: bytes) -> None:
        """Add a turn here, and send it. Raises JournalError."""
        replaces = not self._is_begun
        super().append(line)
        try:
            self._journal.send_turn(self._attempt, self._sent_header, line, replaces=replaces)
        except OSError as error:
            raise JournalError(f"a picture of {self._attempt} cannot be sent: {error}") from error


def _files_of(folder: Path, prefix: str) -> list[tuple[str, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [(f"{prefix}/{path.relative_to(folder).as_posix()}", path.stat().st_size) for path in files]


def _read_parts(attempt: str, path: str, file_path: Path) -> Iterator[FilePart]:
    with file_path.open("rb") as file:
        data, offset = file.read(PART_BYTES), 0
        while True:
            following = file.read(PART_BYTES)
            yield FilePart(attempt, path, offset, data, is_last=not following)
            if not following:
                return
            offset += len(data)
            data = following


def _summary(row: dict[str, Any]) -> FinishedAttempt:
    return FinishedAttempt(
        attempt=row["attempt"],
        stop_reason=StopReason(row["stop_reason"]),
        owner=Owner(row["owner"]),
        n_turns=len(row["turns"]),
        seconds=row["finished_at"] - row["started_at"],
    )


async def _to_the_end(work: Coroutine[Any, Any, bool]) -> bool:
    """Wait until work is done. What cancels the caller meanwhile reaches it at its next wait.

    So whoever has its line knows of it.
    """
    caller = asyncio.current_task()
    assert caller is not None, "always within a task"
    task = asyncio.ensure_future(work)
    n_cancelled = 0
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            caller.uncancel()
            n_cancelled += 1
    for _ in range(n_cancelled):
        caller.cancel()
    return task.result()
