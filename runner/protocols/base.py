"""What every protocol does, and what they share: reading a reply, rendering an observation.

Pure: no I/O, and parsing never raises on any text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from sandbox_pool import Observation, Status


@dataclass(frozen=True, slots=True)
class Action:
    """Code that a reply asks to be executed."""

    code: str
    call_id: str | None = None
    """Of the native tool call that asks for it."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that was meant as an action and cannot be executed: the model is told why."""

    problem: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a completion comes to."""

    message: dict[str, Any]
    """The assistant's message as it enters the conversation."""

    actions: tuple[Action | Malformed, ...] = ()
    """Carried out in order. None: the model is done, and this is its answer."""


@dataclass(frozen=True, slots=True)
class WrittenAction:
    """An action as a model would have written it in a protocol."""

    text: str
    tool_calls: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class TextLimits:
    """How many characters of an observation the model is shown, and what stands for the rest."""

    head_chars: int
    tail_chars: int
    marker: str = "\n... [{n_left_out} characters left out] ...\n"

    def apply(self, text: str) -> str:
        """Return the text, or its head and tail with the marker between."""
        if len(text) <= self.head_chars + self.tail_chars:
            return text
        n_left_out = len(text) - self.head_chars - self.tail_chars
        tail = text[len(text) - self.tail_chars :]
        return text[: self.head_chars] + self.marker.format(n_left_out=n_left_out) + tail


class Protocol(ABC):
    """One way of writing actions. `limits` None shows observations whole."""

    name: str
    stop: tuple[str, ...] = ()
    """Stop strings to send with a request."""

    system_prompt: str
    default_limits: TextLimits

    def __init__(self, limits: TextLimits | None) -> None:
        self.limits = limits

    tools: tuple[dict[str, Any], ...] = ()
    """Native tools to send with a request, as OpenAI's API describes them."""

    @abstractmethod
    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Read a reply. Never raises."""

    @abstractmethod
    def write_action(self, code: str) -> WrittenAction:
        """Return a reply that `parse` reads as an action with this code."""

    @abstractmethod
    def render_observation(self, observation: Observation) -> str:
        """Return the text that tells the model what its code did."""

    def observation_message(self, action: Action, observation: Observation) -> dict[str, Any]:
        """Return the message that tells the model what its code did."""
        return {"role": "user", "content": self.render_observation(observation)}

    def problem_message(self, malformed: Malformed) -> dict[str, Any]:
        """Return the message that tells the model what could not be executed."""
        return {"role": "user", "content": malformed.problem}

    def shorten(self, text: str) -> str:
        """Apply the limits to the text of an observation."""
        return self.limits.apply(text) if self.limits else text


def assistant(text: str) -> dict[str, Any]:
    """Return an assistant's message of plain text."""
    return {"role": "assistant", "content": text}


def status_note(observation: Observation) -> str | None:
    """Say what the outputs alone do not show: that the cell was stopped, that the kernel is gone."""
    notes = []
    if note := _STATUS_NOTES.get(observation.status):
        notes.append(note.format(duration_s=observation.duration_s))
    if not observation.kernel_alive:
        notes.append("The kernel was restarted: all variables and imports are gone, files are kept.")
    return f"[{' '.join(notes)}]" if notes else None


_STATUS_NOTES = {
    Status.TIMEOUT: "The code was stopped after {duration_s:.0f} seconds.",
    Status.CPU_LIMIT: "The code was stopped: it used too much CPU time.",
    Status.MEMORY: "The code was stopped: it used too much memory.",
    Status.DISK: "The code was stopped: it wrote too much to disk.",
    Status.PIDS: "The code was stopped: it started too many processes.",
    Status.OUTPUT_LIMIT: "The code was stopped: it printed too much.",
    Status.DIED: "Kernel died.",
    Status.PROTOCOL: "Kernel died.",
}
