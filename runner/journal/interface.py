"""What a scheduler needs of a journal: a run directory here, or one that another process writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from runner.errors import JournalError
from runner.journal.inflight import TurnLog


class AttemptJournal(Protocol):
    """Where attempts are recorded; see `Journal`, which is one."""

    run_dir: Path
    """What the paths of records are relative to."""

    done: set[str]
    """Attempts that have a line, by name."""

    unfinished: set[str]
    """Attempts whose turns are recorded from before."""

    trouble: JournalError | None
    """Why nothing more can be written; the run must come to an end."""

    async def append(self, attempt: str, line: bytes) -> bool:
        """Record a finished attempt and its artifacts; return whether it is written. Raises JournalError."""
        ...

    async def append_failure(self, line: bytes) -> None:
        """Record an attempt that failed by our fault or was cancelled. Raises JournalError."""

    def event(self, name: str, **details: Any) -> None:
        """Record what happened to the run itself."""

    def turn_log(self, attempt: str, header: dict[str, Any]) -> TurnLog:
        """Return the write-ahead of an attempt's turns."""
        ...

    def artifacts_dir(self, sample_id: str, epoch: int) -> tuple[Path, str]:
        """Return the folder of an attempt's artifacts, and its name below the run directory."""
        ...
