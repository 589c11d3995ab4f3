"""A trajectory, from its line: what came from another process as bytes, for those who want the record."""

from __future__ import annotations

import orjson

from runner.records import (
    ArtifactRecord,
    FurtherAction,
    Owner,
    StopReason,
    Timings,
    Trajectory,
    TryRecord,
    Turn,
    TurnTimings,
    Usage,
)


def read_trajectory(line: bytes) -> Trajectory:
    """Return the trajectory that a line of this version's holds."""
    row = orjson.loads(line)
    for turn in row["turns"]:
        turn["usage"] = Usage(**turn["usage"])
        turn["timings"] = TurnTimings(**turn["timings"])
        turn["further"] = [FurtherAction(**further) for further in turn["further"]]
    tries = [
        TryRecord(StopReason(one["stop_reason"]), Owner(one["owner"]), one["error"], one["at"])
        for one in row["tries"]
    ]
    made = {
        "turns": [Turn(**turn) for turn in row["turns"]],
        "stop_reason": StopReason(row["stop_reason"]),
        "owner": Owner(row["owner"]),
        "tries": tries,
        "artifacts": [ArtifactRecord(**artifact) for artifact in row["artifacts"]],
        "usage": Usage(**row["usage"]),
        "timings": Timings(**row["timings"]),
    }
    return Trajectory(**(row | made))
