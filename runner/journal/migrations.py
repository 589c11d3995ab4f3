"""Lines of older versions of the file format, brought to the present one as they are read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.errors import JournalError
from runner.records import SCHEMA_VERSION

Row = dict[str, Any]


def migrated(row: Row, where: str) -> Row:
    """Return a trajectory or a failure in the present version's form.

    Raises:
        JournalError: it was written by a newer version; `where` names its line.
    """
    version = row.get("schema_version", 1)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise JournalError(
            f"{where}: written by a newer version of the runner (schema_version {version!r}, this one reads "
            f"up to {SCHEMA_VERSION}); update it, or choose another --run-dir"
        )
    while version < SCHEMA_VERSION:
        row = _STEPS[version](row)
        version += 1
    return row


def _to_2(row: Row) -> Row:
    """Native tool calls, costs, resumed turns."""
    turns = row.get("turns")
    if isinstance(turns, list):
        turns = [_turn_to_2(turn) for turn in turns]
    timings = row.get("timings")
    return {
        **row,
        "schema_version": 2,
        "turns": turns,
        "n_resumed_turns": 0,
        "usage": _with_cost(row.get("usage")),
        "timings": {"call_wait_s": 0.0, **timings} if isinstance(timings, Mapping) else timings,
    }


def _turn_to_2(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    return {**turn, "further": [], "logprobs": None, "usage": _with_cost(turn.get("usage"))}


def _with_cost(usage: Any) -> Any:
    return {"cost": None, **usage} if isinstance(usage, Mapping) else usage


_STEPS: Mapping[int, Callable[[Row], Row]] = {1: _to_2}
"""From each older version to the next."""
