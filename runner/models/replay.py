"""Replies with the assistant messages of a recorded run, one by one, whatever is observed now.

Reads our own `trajectories.jsonl` (also through the folder of a run) and PyBench's
`trajectory.jsonl` (github.com/Mercury7353/PyBench at fa90fae: a line per task with `index` and
`messages`; a bare `{"index": "52"}` is a task that its runner gave up).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from runner.errors import ConfigError, ReplayEnded
from runner.models.base import Completion, ModelRequest
from runner.records import attempt_id
from runner.statistics import EndpointStatistics


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
    digest = hashlib.sha256()
    replies: dict[str, list[Completion]] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                digest.update(line)
                if line.strip():
                    attempt, recorded = _read_line(line, f"{path}:{number}")
                    replies.setdefault(attempt, recorded)
    except OSError as error:
        raise ConfigError(f"replay:{path}: {error.strerror}; give the file of a recorded run") from error
    if not replies:
        raise ConfigError(f"replay:{path}: the file holds no trajectory")
    return replies, digest.hexdigest()


def _read_line(line: bytes, where: str) -> tuple[str, list[Completion]]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"replay:{where}: not JSON ({error})") from error
    if isinstance(row, dict) and "sample_id" in row:
        return row.get("attempt") or attempt_id(row["sample_id"], row.get("epoch", 1)), _our_replies(row)
    if isinstance(row, dict) and "index" in row:
        return attempt_id(str(row["index"]), 1), _recorded_messages(row)
    raise ConfigError(f"replay:{where}: neither a trajectory of ours (sample_id) nor of PyBench (index)")


def _our_replies(row: dict[str, Any]) -> list[Completion]:
    return [
        Completion(
            text=turn.get("completion") or "",
            finish_reason=turn.get("finish_reason"),
            reasoning=turn.get("reasoning"),
            tool_calls=turn.get("tool_calls"),
        )
        for turn in row.get("turns", [])
    ]


def _recorded_messages(row: dict[str, Any]) -> list[Completion]:
    messages = row.get("messages") or []
    return [
        Completion(text=message.get("content") or "", finish_reason="stop")
        for message in messages
        if isinstance(message, dict) and message.get("role") == "assistant"
    ]
