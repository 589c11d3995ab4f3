"""Appends lines from a thread of its own, all that are waiting in one write."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import NamedTuple

from runner.journal.lines import AppendOnlyFile


class _Line(NamedTuple):
    file: AppendOnlyFile
    line: bytes
    loop: asyncio.AbstractEventLoop
    written: asyncio.Future[None]


class Appender:
    """The thread that writes a run directory's lines, in the order in which they come for each file."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-append", daemon=True)
        self._thread.start()

    def append(self, file: AppendOnlyFile, line: bytes) -> asyncio.Future[None]:
        """Return a future that is done when the line is written whole, or holds the error."""
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._queue.put(_Line(file, line, loop, written))
        return written

    def close(self) -> None:
        """Write what is waiting, and end. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            is_open = None not in batch
            lines = [item for item in batch if item is not None]
            for file in dict.fromkeys(item.file for item in lines):
                _write([item for item in lines if item.file is file])


def _write(lines: list[_Line]) -> None:
    """Write the lines of one file at once; when that fails, one by one, as many as there is space for.

    Any error is for those who wait for the lines: the thread writes for others too.
    """
    errors: list[Exception | None] = [None] * len(lines)
    try:
        lines[0].file.append(b"".join(item.line for item in lines))
    except Exception:  # noqa: BLE001 - each line has its own below
        for number, item in enumerate(lines):
            try:
                item.file.append(item.line)
            except Exception as error:  # noqa: BLE001 - who waits for the line raises it
                errors[number] = error
    lines[0].loop.call_soon_threadsafe(_resolve, lines, errors)


def _resolve(lines: list[_Line], errors: list[Exception | None]) -> None:
    for item, error in zip(lines, errors, strict=True):
        if item.written.done():
            continue
        if error is None:
            item.written.set_result(None)
        else:
            item.written.set_exception(error)
