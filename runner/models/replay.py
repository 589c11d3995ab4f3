"""Replies with the assistant messages of a recorded run, one by one, whatever is observed now.

Reads what `journal.read_recorded` reads: our own `trajectories.jsonl` (also through the folder of a run)
and PyBench's `trajectory.jsonl`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner.errors import ConfigError, JournalError, ReplayEnded
from runner.journal import read_recorded
from runner.models.base import Completion, ModelRequest
from runner.records import attempt_id
from runner.telemetry.statistics import EndpointStatistics


class ReplayClient:
    """A recorded run. Raises ConfigError when the file is missing or of neither form."""

    def __init__(self, path: Path) -> None:
        self.path = path / "trajectories.jsonl" if path.is_dir() else path
        self.name = f"replay:{self.path.parent.name}/{self.path.name}"
        self._replies, self.digest = read_recorded_replies(self.path)

    def missing(self, sample_ids: Iterable[str]) -> list[str]:
        """Return the samples that were not recorded: their attempts end at once."""
        return [name for name in sample_ids if attempt_id(name, 1) not in self._replies]

    async def start(self) -> None:
        """Nothing to check: the file was read when the client was made."""

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the recorded message of this turn. Raises ReplayEnded."""
        attempt = attempt_id(request.sample.id, request.epoch)
        replies = self._replies.get(attempt) or self._replies.get(attempt_id(request.sample.id, 1))
        if replies is None:
            raise ReplayEnded(f"{self.path} holds no messages for {attempt}")
        if request.n_turns_done >= len(replies):
            raise ReplayEnded(f"{self.path} holds {len(replies)} messages for {attempt}, and no more")
        return replies[request.n_turns_done]

    def forget(self, attempt: str) -> None:
        """Nothing is kept."""

    def endpoints(self) -> tuple[EndpointStatistics, ...]:
        """Return none: it has no server."""
        return ()

    def max_trajectories(self) -> None:
        """Return that it bears any number."""
        return

    def set_concurrency(self, concurrency: int) -> None:
        """It makes no difference here."""

    async def close(self) -> None:
        """Nothing to release."""


def read_recorded_replies(path: Path) -> tuple[dict[str, list[Completion]], str]:
    """Return the replies of each attempt of a recorded run, and the SHA-256 of the file.

    Raises:
        ConfigError: the file cannot be read, or a line is of neither form; names file and line.
    """
    replies: dict[str, list[Completion]] = {}
    try:
        for row in read_recorded(path):
            replies.setdefault(row["attempt"], [_completion(turn) for turn in row.get("turns") or ()])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except JournalError as error:
        raise ConfigError(f"replay:{error}") from error
    except OSError as error:
        raise ConfigError(f"replay:{path}: {error.strerror}; give the file of a recorded run") from error
    if not replies:
        raise ConfigError(f"replay:{path}: the file holds no trajectory")
    return replies, digest


def _completion(turn: dict[str, Any]) -> Completion:
    return Completion(
        text=turn.get("completion") or "",
        finish_reason=turn.get("finish_reason"),
        reasoning=turn.get("reasoning"),
        tool_calls=turn.get("tool_calls"),
    )
