"""Events of a run from before its journal is open."""

from __future__ import annotations

from typing import Any

from runner.journal import AttemptJournal


class EventSink:
    """Writes events to a journal; those that come before it is open wait for it."""

    def __init__(self) -> None:
        self._journal: AttemptJournal | None = None
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, details: dict[str, Any]) -> None:
        """Write an event."""
        if self._journal is None:
            self._waiting.append((name, details))
        else:
            self._journal.event(name, **details)

    def open(self, journal: AttemptJournal) -> None:
        """Write what waits, and everything from now on, to this journal."""
        self._journal = journal
        for name, details in self._waiting:
            journal.event(name, **details)
        self._waiting.clear()
