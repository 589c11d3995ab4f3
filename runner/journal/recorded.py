"""Recorded runs as one file: PyBench's `trajectory.jsonl` and our `trajectories.jsonl`, read alike.

PyBench (github.com/Mercury7353/PyBench at fa90fae) writes a line per task: `messages`, `index` and the
task's own fields. A bare `{"index": "52"}` is a task that its runner gave up. What its lines do not say
is concluded from the messages: which reply was executed, how the cell ended, why the task ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from runner.errors import JournalError
from runner.journal.migrations import migrated
from runner.records import SCHEMA_VERSION, Owner, StopReason, attempt_id

Row = dict[str, Any]

RECORDED_MAX_TURNS = 10
"""In all of PyBench's configs; its lines do not say it."""

OBSERVATION_START = "[INFO]This is a Code Interpreter Message:\n"
ERROR_SIGN = "There are some errors in the code."
"""PyBench worded the rest of this line in several ways; a line `Error: NameError` follows it."""

KERNEL_DIED = "Kernel died"

_OURS = ("attempt", "sample_id", "epoch", "stop_reason")


def read_recorded(path: Path) -> Iterator[Row]:
    """Yield the attempts of a recorded run in the form of our trajectories, in the order of the file.

    A line of PyBench's becomes epoch 1 of the sample `index`, with the whole recorded text of an
    observation as one stream, `stop_reason` `answer`, `max_turns` or `model_error`, and `row`, the line
    without its messages. What it does not tell is None or empty: usage, timings, artifacts.

    Raises:
        JournalError: the file cannot be read, or a line is of neither form; names file and line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(line, f"{path}:{number}")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; give the file of a recorded run") from error


def _row(line: bytes, where: str) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JournalError(f"{where}: not JSON ({error}); remove that line, or mend it") from error
    if isinstance(row, dict) and all(key in row for key in _OURS):
        return migrated(row, where)
    if isinstance(row, dict) and isinstance(row.get("index"), str | int):
        return _from_pybench(row, where)
    raise JournalError(f"{where}: neither a trajectory of ours ({', '.join(_OURS)}) nor of PyBench (index)")


def _from_pybench(row: Row, where: str) -> Row:
    messages = _checked_messages(row.get("messages"), where)
    turns = _turns(messages)
    stop_reason, error = _ending(messages, len(turns))
    sample_id = str(row["index"])
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": "",
        "config_hash": "",
        "benchmark": "pybench",
        "sample_id": sample_id,
        "epoch": 1,
        "attempt": attempt_id(sample_id, 1),
        "model": None,
        "protocol": "fenced",
        "messages": messages,
        "turns": turns,
        "stop_reason": stop_reason,
        "owner": Owner.MODEL,
        "error": error,
        "tries": [],
        "n_resumed_turns": 0,
        "artifacts": [],
        "usage": None,
        "timings": {},
        "started_at": None,
        "finished_at": None,
        "row": {key: value for key, value in row.items() if key != "messages"},
    }


def _checked_messages(messages: Any, where: str) -> list[Row]:
    if messages is None:
        return []
    if not isinstance(messages, list):
        raise JournalError(f"{where}: messages is a {type(messages).__name__}, expected a list")
    for number, message in enumerate(messages, start=1):
        is_text = isinstance(message, dict) and isinstance(message.get("content") or "", str)
        if not is_text or not isinstance(message.get("role"), str):
            raise JournalError(f"{where}: message {number} has no role or no text: {message!r:.80}")
    return messages


def _turns(messages: list[Row]) -> list[Row]:
    """Return a turn for each reply; its observation is the message after it, where it was executed."""
    turns: list[Row] = []
    for message, following in zip_longest(messages, messages[1:]):
        if message["role"] != "assistant":
            continue
        action = executed_code(message.get("content") or "")
        is_observed = action is not None and following is not None and following["role"] != "assistant"
        turns.append(
            {
                "completion": message.get("content") or "",
                "reasoning": None,
                "tool_calls": None,
                # Not recorded: PyBench takes each reply as a whole one.
                "finish_reason": "stop",
                "action": action,
                "observation": _observation(following) if is_observed else None,
                "further": [],
                "usage": None,
                "timings": {},
            }
        )
    return turns


def executed_code(reply: str) -> str | None:
    """Return what PyBench executes of a reply: the first ```` ```python ```` block, when it is closed."""
    _, _, rest = reply.partition("```python")
    code, closed, _ = rest.partition("```")
    return code.strip() or None if closed else None


def _observation(message: Mapping[str, Any] | None) -> Row:
    text = str((message or {}).get("content") or "").removeprefix(OBSERVATION_START)
    raised = "\nError: " in text.partition(ERROR_SIGN)[2]
    status = "died" if text.strip() == KERNEL_DIED else "error" if raised else "ok"
    return {
        "status": status,
        "outputs": [{"type": "stream", "name": "stdout", "text": text}] if text else [],
        "limits_hit": [],
        "truncated": False,
        "duration_s": None,
        "n_output_bytes": len(text.encode("utf-8", "replace")),
        "kernel_alive": status != "died",
    }


def _ending(messages: list[Row], n_turns: int) -> tuple[StopReason, str | None]:
    if not messages:
        return StopReason.MODEL_ERROR, "the recording holds no messages of this task"
    last = messages[-1]
    if last["role"] == "assistant":
        if executed_code(last.get("content") or "") is None:
            return StopReason.ANSWER, None
        return StopReason.MODEL_ERROR, "the recording breaks off before the observation of its last action"
    if n_turns >= RECORDED_MAX_TURNS:
        return StopReason.MAX_TURNS, None
    return StopReason.MODEL_ERROR, f"the recording breaks off after {n_turns} turns: no reply followed"
