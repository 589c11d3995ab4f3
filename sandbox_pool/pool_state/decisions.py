"""The words in which a pool's state and the pool itself talk: kinds of sandboxes, and what to do with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """What must be known of a sandbox before its start; those of one kind can stand in for each other."""

    profile: str
    workspace: Path | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Start a sandbox; report `started`, `start_failed` or `start_abandoned`."""

    sandbox: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class HandOut:
    """Give this sandbox to this caller."""

    sandbox: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell this caller that the starts meant for it have failed, or that the pool is closed."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Close this sandbox; report `closed`."""

    sandbox: int


Decision = Start | HandOut | Refuse | Retire
