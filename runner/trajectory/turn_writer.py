"""From a turn that goes on to the disk: its observations, its pictures, and at its end the write-ahead."""

from __future__ import annotations

import asyncio

from runner.encoding import encode
from runner.errors import JournalError
from runner.journal import TurnLog
from runner.protocols import Action
from runner.records import FurtherAction, Turn
from runner.trajectory.artifacts import has_pictures, observation_record, writing
from runner.trajectory.lease import ArtifactsFolder
from runner.trajectory.outcome import Outcome
from sandbox_pool import Observation


def note_action(turn: Turn, action: Action) -> None:
    """Note what is about to be executed: what kills the sandbox is worth knowing."""
    if turn.action is None:
        turn.action = action.code
    else:
        turn.further.append(FurtherAction(action.code, None))


class TurnWriter:
    """Writes the turns of one try."""

    def __init__(self, outcome: Outcome, folder: ArtifactsFolder, turn_log: TurnLog | None) -> None:
        self._outcome = outcome
        self._folder = folder
        self._turn_log = turn_log
        self._n_messages = 0
        self._n_artifacts = 0

    def begin(self) -> None:
        """Begin a turn: what comes after this belongs to it."""
        self._n_messages = len(self._outcome.conversation)
        self._n_artifacts = len(self._outcome.artifacts)

    async def observe(self, turn: Turn, observation: Observation, number: int) -> None:
        """Note what the turn's action of this number, from 0, has given; its pictures are on disk then."""
        turn.timings.execute_s += observation.duration_s
        self._outcome.timings.execute_s += observation.duration_s
        path, prefix = self._folder.path, self._folder.prefix
        name = f"turn{len(self._outcome.turns):03d}" + (f"-{number + 1}" if number else "")
        with writing(path):
            # Most turns have no picture, and so no need of a thread.
            if has_pictures(observation):
                arguments = (observation, path, prefix, name)
                record, pictures = await asyncio.to_thread(observation_record, *arguments)
                self._outcome.artifacts.extend(pictures)
            else:
                record, _ = observation_record(observation, path, prefix, name)
        if turn.further:
            turn.further[-1].observation = record
        else:
            turn.observation = record

    def write_ahead(self, turn: Turn, working_s: float) -> None:
        """Write the turn, and what it added, to the attempt's log.

        Args:
            turn: the one that was begun last.
            working_s: the attempt's working time so far.
        """
        outcome = self._outcome
        encoded = encode(turn)
        outcome.encoded_turns.append(encoded)
        if self._turn_log is None:
            return
        line = b'{"turn":%b,"messages":%b,"artifacts":%b,"working_s":%.3f}\n' % (
            encoded,
            outcome.conversation.encoded(self._n_messages),
            encode(outcome.artifacts[self._n_artifacts :]),
            working_s,
        )
        try:
            self._turn_log.append(line)
        except JournalError:
            # The journal notices a full disk by itself, and a trajectory without a log still counts.
            self._turn_log = None
