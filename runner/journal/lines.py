"""A file of JSON lines: appended whole, read back one by one, repaired after a crash.

Everything here blocks; the journal calls it in threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from runner.errors import JournalError, write_error


class AppendOnlyFile:
    """A file of JSON lines with one writer. Thread-safe; blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._dirty = False
        self._torn_at: int | None = None
        """Where a line begins that was not written whole and could not be taken back."""

    def append(self, line: bytes) -> None:
        """Write one line whole, or raise JournalError and leave the file as it was."""
        with self._lock:
            try:
                self._take_back()
                self._torn_at = os.fstat(self._fd).st_size
                n_written = 0
                while n_written < len(line):
                    n_written += os.write(self._fd, line[n_written:])
            except OSError as error:
                with suppress(OSError):  # then the next line tries it, before it is written
                    self._take_back()
                raise write_error(self.path, error) from error
            self._torn_at = None
            self._dirty = True

    def _take_back(self) -> None:
        if self._torn_at is not None:
            os.ftruncate(self._fd, self._torn_at)
            self._torn_at = None

    def sync(self) -> None:
        """Wait until all lines are on disk. Does nothing when they are."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
        try:  # appends go on meanwhile
            os.fsync(self._fd)
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Sync and close. Idempotent."""
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1


def read_lines(path: Path, required: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one a line; nothing if there is no file. A torn end is left out.

    Raises:
        JournalError: a whole line is not JSON or lacks a required key; names file and line.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    torn: tuple[bytes, str] | None = None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            if b"\0" in line:
                torn = torn or (line, f"{path}:{number}")
                continue
            if torn is not None:
                _parse_line(*torn, required)  # raises: what is torn can only be at the end
            yield _parse_line(line, f"{path}:{number}", required)


def count_lines(path: Path, chunk_bytes: int = 1 << 20) -> int:
    """Return how many lines a file has, a torn one perhaps among them; 0 if there is no file. Blocks.

    Raises:
        JournalError: it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(chunk_bytes), b""))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error


def repair_torn_line(path: Path) -> int:
    """Cut a last line that was not written whole. Return how many bytes were cut. Blocks.

    A last line that ends without a newline, or (after a power cut) holds NUL bytes, is torn.

    Raises:
        JournalError: the file cannot be read or written.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        keep = _end_of_whole_lines(fd, size)
        if keep < size:
            os.ftruncate(fd, keep)
            os.fsync(fd)
        return size - keep
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        os.close(fd)


def _end_of_whole_lines(fd: int, size: int) -> int:
    end = size
    while end > 0:
        start = _line_start(fd, end)
        line = os.pread(fd, end - start, start)
        if line.endswith(b"\n") and b"\0" not in line:
            return end
        end = start
    return 0


def _line_start(fd: int, end: int, chunk_bytes: int = 1 << 16) -> int:
    """Return where the line that ends at `end` (its newline, if any, included) begins."""
    position = end - 1  # the line's own newline does not count
    while position > 0:
        begin = max(0, position - chunk_bytes)
        found = os.pread(fd, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0


def _parse_line(line: bytes, where: str, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JournalError(
            f"{where}: not JSON ({error}); the file was changed by something else. "
            f"Remove that line to run its attempt again, or choose another --run-dir"
        ) from error
    missing = [key for key in required if key not in row] if isinstance(row, dict) else list(required)
    if missing:
        raise JournalError(f"{where}: no line of ours, it has no {missing[0]!r}; choose another --run-dir")
    return row  # type: ignore[no-any-return]  # a dict, by the check above
