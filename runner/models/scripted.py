"""Models that need no server: the benchmark's own solutions, and one that does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from bench_data import Sample, Solution
from runner.errors import ConfigError
from runner.models.base import Completion, ModelRequest
from runner.protocols import Protocol
from runner.telemetry.statistics import EndpointStatistics


class ScriptedClient:
    """Replies with a sample's reference solution (`oracle`) or its decoy, in the run's protocol."""

    def __init__(self, name: Literal["oracle", "decoy"], protocol: Protocol) -> None:
        self.name: str = name
        self._protocol = protocol

    async def start(self) -> None:
        """Nothing to check."""

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the next cell of the script, or its answer when all cells are done."""
        script = self._script(request.sample)
        if request.n_turns_done < len(script.cells):
            action = self._protocol.write_action(script.cells[request.n_turns_done])
            return Completion(text=action.text, finish_reason="stop", tool_calls=action.tool_calls)
        last = request.conversation.messages[-1]["content"]
        return Completion(text=script.answer.replace("{last_line}", last_line(last)), finish_reason="stop")

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

    def require_scripts(self, samples: Iterable[Sample]) -> None:
        """Raise ConfigError when a sample has no script for this model."""
        for sample in samples:
            self._script(sample)

    def digest(self, samples: Iterable[Sample]) -> str:
        """Return the SHA-256 of all scripts of a benchmark, so that a resume can tell two versions apart."""
        digest = hashlib.sha256()
        for sample in samples:
            script = sample.reference if self.name == "oracle" else sample.decoy
            digest.update(repr((sample.id, script)).encode())
        return digest.hexdigest()

    def _script(self, sample: Sample) -> Solution:
        script = sample.reference if self.name == "oracle" else sample.decoy
        if script is None:
            what = "reference" if self.name == "oracle" else "decoy"
            raise ConfigError(
                f"--model {self.name}: sample {sample.id} has no {what} solution; "
                f"choose a benchmark whose samples have one, or another model"
            )
        return script


class NopClient:
    """Answers at once without doing anything: what a benchmark gives away for free."""

    name = "nop"

    async def start(self) -> None:
        """Nothing to check."""

    async def complete(self, request: ModelRequest) -> Completion:
        """Return a reply without code."""
        return Completion(text="I have nothing to add.", finish_reason="stop")

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


def last_line(text: str) -> str:
    """Return the last line that is not blank, stripped; empty if there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
