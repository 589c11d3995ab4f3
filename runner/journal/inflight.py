"""Write-ahead of turns: what a running attempt has done so far, so that a killed run loses one turn of it.

`inflight/<attempt>.jsonl` begins with a header and holds a line per finished turn. A line is one write,
not synced: it outlives the process, not the machine. The file goes when the attempt's line is in the
journal, and stays when the attempt failed by our fault or was cancelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.encoding import encode_line
from runner.errors import JournalError, write_error
from runner.journal.lines import read_lines, repair_torn_line
from runner.records import SCHEMA_VERSION

INFLIGHT = "inflight"
SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An attempt that was running when its process ended, or that failed by our fault."""

    attempt: str
    header: dict[str, Any]
    turns: list[dict[str, Any]]
    """`turn`, the `messages` and `artifacts` that it added, and the `working_s` until its end."""


class TurnLog:
    """The turns of one running attempt. Holds no descriptor between two turns."""

    def __init__(self, run_dir: Path, attempt: str, header: dict[str, Any]) -> None:
        self._path = run_dir / INFLIGHT / f"{attempt}{SUFFIX}"
        self._header = {"schema_version": SCHEMA_VERSION, "attempt": attempt, **header}
        self._is_begun = False

    def continued(self) -> None:
        """Go on behind the turns that `read` gave, instead of replacing them."""
        self._is_begun = True

    def restart(self) -> None:
        """Replace what the file holds at the next turn."""
        self._is_begun = False

    def append(self, line: bytes) -> None:
        """Add a turn. Raises JournalError. Blocks for one short write."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if not self._is_begun:
            flags |= os.O_TRUNC
            line = encode_line(self._header) + line
        try:
            fd = os.open(self._path, flags, 0o644)
            try:
                size = os.fstat(fd).st_size
                n_written = os.write(fd, line)
                if n_written < len(line):
                    os.ftruncate(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise write_error(self._path, error) from error
        if n_written < len(line):
            raise JournalError(f"cannot write {self._path}: the disk is full")
        self._is_begun = True

    def read(self) -> Unfinished | None:
        """Cut a turn that is torn, so that others can follow, and return what the file holds. Blocks.

        None without a whole turn. Raises JournalError.
        """
        repair_torn_line(self._path)
        return read_unfinished(self._path)

    def remove(self) -> None:
        """Remove the file, if there is one. Blocks for a moment."""
        self._path.unlink(missing_ok=True)


def read_inflight(run_dir: Path) -> Iterator[Unfinished]:
    """Yield the attempts with recorded turns, by name. Torn last lines are left out.

    Raises:
        JournalError: a file is not ours; names file and line.
    """
    for path in sorted((run_dir / INFLIGHT).glob(f"*{SUFFIX}")):
        unfinished = read_unfinished(path)
        if unfinished is not None:
            yield unfinished


def read_unfinished(path: Path) -> Unfinished | None:
    """Return what one file holds; None when there is none, or no whole turn in it. Raises JournalError."""
    rows = read_lines(path, required=())
    header = next(rows, None)
    if header is None:
        return None
    turns = list(rows)
    if "attempt" not in header or not all("turn" in row and "messages" in row for row in turns):
        raise JournalError(f"{path}: not the turns of an attempt; remove the file to begin the attempt again")
    return Unfinished(str(header["attempt"]), header, turns) if turns else None
