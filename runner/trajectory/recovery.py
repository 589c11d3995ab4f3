"""An unfinished attempt goes on at its last turn: what was recorded, executed again in a fresh sandbox.

The promise holds where executing again agrees: observations are compared (divergence.py), and the
config decides what happens where they differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config import ResumeConfig
from runner.journal import Unfinished
from runner.models.conversation import Message
from runner.records import ArtifactRecord, FurtherAction, Turn, TurnTimings, Usage
from runner.trajectory.artifacts import observation_record
from runner.trajectory.divergence import first_difference
from runner.trajectory.lease import Lease

MAX_COMPARED_BYTES = 64 * 1024
"""Of output, on the event loop; more would hold it for longer than a thread costs."""


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """A finished turn of an earlier try or process."""

    turn: Turn
    messages: list[Message]
    """Those that the turn added."""

    artifacts: list[ArtifactRecord]
    working_s: float
    """The attempt's working time until its end."""

    @property
    def actions(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What was executed and what it gave, in order."""
        pairs = [(self.turn.action, self.turn.observation)]
        pairs += [(further.action, further.observation) for further in self.turn.further]
        return [(code, seen) for code, seen in pairs if code is not None and seen is not None]


class CannotResume(Exception):  # noqa: N818 - named for the state; an attempt that begins again is no error
    """A recorded attempt has to begin again; says why."""


def read_recorded(unfinished: Unfinished, run_dir: Path, config: ResumeConfig) -> list[RecordedTurn]:
    """Return the recorded turns. Blocks.

    Raises:
        CannotResume: they cannot, or by the config should not, be gone on from.
    """
    if config.unit == "attempts":
        raise CannotResume("resume.unit is attempts")
    try:
        turns = [_recorded_turn(row) for row in unfinished.turns]
    except (TypeError, KeyError, ValueError) as error:
        raise CannotResume(f"a recorded turn is not readable: {error!r}") from error
    execute_s = sum(seen.get("duration_s", 0.0) for turn in turns for _, seen in turn.actions)
    if execute_s > config.max_reexecute_s:
        raise CannotResume(
            f"its actions took {execute_s:.0f} s, more than the {config.max_reexecute_s:g} s of "
            f"resume.max_reexecute_s"
        )
    for artifact in (artifact for turn in turns for artifact in turn.artifacts):
        if not (run_dir / artifact.path).is_file():
            raise CannotResume(f"{artifact.path} is gone")
    return turns


async def execute_again(
    lease: Lease, turns: list[RecordedTurn], cell_s: float, config: ResumeConfig
) -> str | None:
    """Execute the recorded actions; return the first difference that the config lets pass, or None.

    Raises:
        CannotResume: an observation differs, and the config says to begin again.
        SandboxError: our fault.
    """
    passed = None
    for number, turn in enumerate(turns, start=1):
        for code, recorded in turn.actions:
            observation = await lease.execute(code, lambda: cell_s)
            difference = await _difference(recorded, observation_record(observation, None, "", "")[0])
            if difference is None:
                continue
            if config.on_divergence == "restart":
                raise CannotResume(f"turn {number}, {difference}")
            passed = passed or f"turn {number}, {difference}"
    return passed


async def _difference(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    n_bytes = max(recorded.get("n_output_bytes", 0), now["n_output_bytes"])
    if n_bytes <= MAX_COMPARED_BYTES:
        return first_difference(recorded, now)
    return await asyncio.to_thread(first_difference, recorded, now)


def _recorded_turn(row: Mapping[str, Any]) -> RecordedTurn:
    turn = dict(row["turn"])
    turn["usage"] = Usage(**turn["usage"])
    turn["timings"] = TurnTimings(**turn["timings"])
    turn["further"] = [FurtherAction(**further) for further in turn.get("further", ())]
    return RecordedTurn(
        turn=Turn(**turn),
        messages=list(row["messages"]),
        artifacts=[ArtifactRecord(**artifact) for artifact in row.get("artifacts", ())],
        working_s=float(row.get("working_s", 0.0)),
    )
