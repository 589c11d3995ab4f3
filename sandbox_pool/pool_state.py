"""Which sandbox to start, hand out and retire. Pure: events in, decisions out.

Sandboxes and waiting callers are numbers here. A sandbox is starting, idle, leased or closing; it is
leased at most once and never goes back. Callers are served in the order in which they came.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Start:
    """Start a sandbox; report `started` or `start_failed`."""

    sandbox: int


@dataclass(frozen=True, slots=True)
class HandOut:
    """Give this sandbox to this caller."""

    sandbox: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell this caller that the start meant for it has failed, or that the pool is closed."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Close this sandbox; report `closed`."""

    sandbox: int


Decision = Start | HandOut | Refuse | Retire


@dataclass(slots=True)
class PoolState:
    """The state of a pool. Every method returns what to do now, in order."""

    max_sandboxes: int
    min_idle: int = 0
    max_starting: int = 2
    waiting: deque[int] = field(default_factory=deque)
    starting: set[int] = field(default_factory=set)
    idle: deque[int] = field(default_factory=deque)
    leased: set[int] = field(default_factory=set)
    closing: set[int] = field(default_factory=set)
    is_shut: bool = False
    n_started: int = 0
    n_failed_starts: int = 0
    n_closed: int = 0
    _next: int = 0
    _has_just_failed: bool = False

    @property
    def n_live(self) -> int:
        """Sandboxes that exist, from the start of their start to the end of their end."""
        return len(self.starting) + len(self.idle) + len(self.leased) + len(self.closing)

    def want(self, ticket: int) -> list[Decision]:
        """A caller asks for a sandbox."""
        if self.is_shut:
            return [Refuse(ticket)]
        self.waiting.append(ticket)
        return self._decide()

    def give_up(self, ticket: int) -> list[Decision]:
        """A caller that was not served yet no longer waits."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)
        return self._decide()

    def refill(self) -> list[Decision]:
        """Nothing has happened: start what min_idle asks for."""
        return self._decide()

    def started(self, sandbox: int) -> list[Decision]:
        """A start has succeeded."""
        self.starting.remove(sandbox)
        self.n_started += 1
        self._has_just_failed = False
        if self.is_shut:
            self.closing.add(sandbox)
            return [Retire(sandbox)]
        self.idle.append(sandbox)
        return self._decide()

    def start_failed(self, sandbox: int) -> list[Decision]:
        """A start has failed and left nothing behind. The longest waiting caller hears of it."""
        self.starting.remove(sandbox)
        self.n_failed_starts += 1
        self._has_just_failed = True
        refused: list[Decision] = [Refuse(self.waiting.popleft())] if self.waiting else []
        return refused + self._decide()

    def start_abandoned(self, sandbox: int) -> list[Decision]:
        """A start was given up by ourselves and left nothing behind."""
        self.starting.remove(sandbox)
        return self._decide()

    def released(self, sandbox: int) -> list[Decision]:
        """A leased or idle sandbox is being closed (given back, or found dead)."""
        if sandbox in self.leased:
            self.leased.remove(sandbox)
        elif sandbox in self.idle:
            self.idle.remove(sandbox)
        else:
            return []
        self.closing.add(sandbox)
        return self._decide()

    def closed(self, sandbox: int) -> list[Decision]:
        """A closing sandbox is gone."""
        self.closing.discard(sandbox)
        self.n_closed += 1
        return self._decide()

    def shut(self) -> list[Decision]:
        """Hand out nothing more, and retire all that is there; those starting when they are up."""
        self.is_shut = True
        decisions: list[Decision] = [Refuse(ticket) for ticket in self.waiting]
        retired = [*self.idle, *self.leased]
        self.waiting.clear()
        self.idle.clear()
        self.leased.clear()
        self.closing.update(retired)
        return decisions + [Retire(sandbox) for sandbox in retired]

    def _decide(self) -> list[Decision]:
        if self.is_shut:
            return []
        decisions: list[Decision] = []
        while self.waiting and self.idle:
            sandbox, ticket = self.idle.popleft(), self.waiting.popleft()
            self.leased.add(sandbox)
            decisions.append(HandOut(sandbox, ticket))
        for _ in range(self._n_to_start()):
            sandbox = self._next
            self._next += 1
            self.starting.add(sandbox)
            decisions.append(Start(sandbox))
        return decisions

    def _n_to_start(self) -> int:
        # After a failure only callers make us try again, or a broken host would be kept busy.
        n_spare = 0 if self._has_just_failed else self.min_idle
        n_missing = len(self.waiting) + n_spare - len(self.starting) - len(self.idle)
        n_free = min(self.max_sandboxes - self.n_live, self.max_starting - len(self.starting))
        return max(0, min(n_missing, n_free))
